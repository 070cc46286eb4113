package app

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/internal/bodies"
	"github.com/ordergate/ordergate/internal/edge"
	"github.com/ordergate/ordergate/internal/signature"
	"github.com/ordergate/ordergate/order"
)

func read(t testing.TB, text string) (body any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	must(t, d.Decode(&body))
	return body
}

// acceptedTexts are JSON strings that come back as they were sent, each at most 16 characters.
var acceptedTexts = []string{
	`"梅林 Čapek"`,
	`"🏮𝒜\ud83c\udfee"`,                   // four bytes, and the same in escapes
	`"\u202eabc\u202c\u200f\u2067"`,      // right-to-left marks
	`"e\u0301\u00e9\u200d\u0301\u0323"`,  // composed or not, and joined
	`" \t\n\r\u0001\u001f\u007f\u0085 "`, // controls and blanks
	`"\\\"\/<b>&amp;%00'"`,
	`"\u2028\u2029\ufeff\ufffe\uffff\ufffd"`,
	`"null"`,
}

// problem is what is said of a refusal.
type problem struct {
	Code   string `json:"code"`
	Errors []struct {
		Pointer string `json:"pointer"`
		Rule    string `json:"rule"`
	} `json:"errors"`
}

// at tells whether all faults are at one place.
func (p problem) at(pointer string) bool {
	for _, f := range p.Errors {
		if f.Pointer != pointer {
			return false
		}
	}
	return len(p.Errors) > 0
}

func (a answer) problem() (p problem) {
	_ = json.Unmarshal([]byte(a.raw), &p)
	return p
}

// sender sends requests of the operations that change something, and knows what they can be sent for.
type sender struct {
	*gateway
	bodies map[string]*bodies.Schema
	unique int
}

// target makes what an operation's path names, new: the nth kind of it. It is false if there is no such kind.
func (s *sender) target(op operation, nth int) (path string, ok bool) {
	s.t.Helper()
	if op.signed() {
		return strings.Replace(op.path, "{provider}", "psp", 1), nth == 0
	}
	confirmed := func() string {
		a := s.do("POST", "/v1/orders", draft(firstSKU, 2, "pm_ok"), "Prefer", "wait=10")
		if a.body.Status != "confirmed" {
			s.t.Fatal(a.raw)
		}
		return a.body.ID
	}
	reserved := func() string {
		return s.do("POST", "/v1/orders", draft(firstSKU, 2, ""), "Prefer", "wait=10").body.ID
	}
	parameters := map[string][]func() string{
		"{order_id}":    {reserved, confirmed},
		"{payment_id}":  {func() string { return s.pay(reserved(), "pm_ok", http.StatusCreated).body.ID }},
		"{shipment_id}": {func() string { return s.do("POST", "/v1/orders/"+confirmed()+"/shipments", nil).body.ID }},
		"{sku}":         {func() string { return firstSKU }},
	}
	path, ok = op.path, nth == 0
	for name, makers := range parameters {
		if strings.Contains(path, name) && nth < len(makers) {
			path, ok = strings.Replace(path, name, makers[nth](), 1), true
		}
	}
	if strings.Contains(path, "{") && ok {
		s.t.Fatalf("%s: nothing is made for %s", op.OperationID, path)
	}
	return path, ok
}

// send sends a body to a path of an operation.
func (s *sender) send(op operation, path, body string, headers ...string) answer {
	s.t.Helper()
	all := []string{"Content-Type", op.mediaType}
	if op.Method == http.MethodPatch {
		all = append(all, "If-Match", "*")
	}
	if op.signed() {
		all = append(all, signature.Header, signature.Sign(s.cfg.ProviderSecret, time.Now(), []byte(body)))
	}
	return s.do(op.Method, path, body, append(all, headers...)...)
}

// example is the example of an operation, with ids of its own.
func (s *sender) example(op operation) any {
	s.t.Helper()
	body := read(s.t, op.body)
	s.unique++
	for _, name := range []string{"sku", "id"} {
		if _, there := bodies.At(body, name); there {
			body.(map[string]any)[name] = fmt.Sprint("unique-", s.unique)
		}
	}
	return body
}

// accepted sends a body to new targets until one takes it, each time with another key.
func (s *sender) accepted(op operation, body any) (path, key string, a answer) {
	s.t.Helper()
	for nth := 0; ; nth++ {
		next, ok := s.target(op, nth)
		if !ok {
			s.t.Errorf("%s does not take %s: %d %s", op.OperationID, bodies.Write(body), a.status, a.raw)
			return path, key, a
		}
		path, key = next, fmt.Sprint("accepted-", keyNumber.Add(1))
		if a = s.send(op, path, bodies.Write(body), "Prefer", "wait=10", "Idempotency-Key", key); a.status < 300 {
			return path, key, a
		}
	}
}

// contents are the numbers of rows of all tables, and a hash of what is in them.
func (g *gateway) contents(without ...string) (all map[string]string) {
	g.t.Helper()
	all = map[string]string{}
	rows, err := g.db.Pool.Query(g.t.Context(), "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition AND relnamespace = 'public'::regnamespace")
	must(g.t, err)
	var tables []string
	for rows.Next() {
		var name string
		must(g.t, rows.Scan(&name))
		tables = append(tables, name)
	}
	must(g.t, rows.Err())
	for _, name := range tables {
		if slices.Contains(without, name) {
			continue
		}
		var content string
		must(g.t, g.db.Pool.QueryRow(g.t.Context(), "SELECT count(*) || ' ' || coalesce(md5(string_agg(t::text, chr(10) ORDER BY t::text)), '') FROM "+name+" t").Scan(&content))
		all[name] = content
	}
	return all
}

// unchanged runs something that may change nothing.
func (g *gateway) unchanged(what string, run func(), without ...string) {
	g.t.Helper()
	before := g.contents(without...)
	run()
	for table, content := range g.contents(without...) {
		if content != before[table] {
			g.t.Errorf("%s changed %s from %s to %s", what, table, before[table], content)
		}
	}
}

// changing are the contract's operations that change something.
func changing(t *testing.T) (all []operation) {
	t.Helper()
	for _, op := range operations(t) {
		if op.Method != http.MethodGet {
			all = append(all, op)
		}
	}
	return all
}

func startSender(t *testing.T) *sender {
	t.Helper()
	schemas, err := bodies.Read(api.OpenAPIJSON)
	must(t, err)
	s := &sender{gateway: startGateway(t, nil), bodies: schemas}
	s.sampleCatalogue()
	return s
}

// TestBadBodiesAreRefusedWhereTheyAreBad: of each property of each request, every kind of wrong value has its code and points to it, and
// all together change nothing. A new operation is covered by its schema.
func TestBadBodiesAreRefusedWhereTheyAreBad(t *testing.T) {
	t.Parallel()
	s := startSender(t)
	paths := map[string]string{}
	for _, op := range changing(t) {
		paths[op.OperationID], _ = s.target(op, 0)
	}
	s.quiet()
	s.stopWork()
	sent := 0
	for _, op := range changing(t) {
		body := s.bodies[op.OperationID]
		if body == nil {
			t.Errorf("%s has no body", op.OperationID)
			continue
		}
		s.unchanged(op.OperationID, func() {
			for _, wrong := range body.Wrong(body.Sample(read(t, op.body))) {
				sent++
				a := s.send(op, paths[op.OperationID], wrong.Text)
				if p := a.problem(); a.status != http.StatusBadRequest || p.Code != wrong.Code || !p.at(wrong.Pointer) {
					t.Errorf("%s: %s at %s: want %s: %d %s", op.OperationID, wrong.Name, wrong.Pointer, wrong.Code, a.status, a.raw)
				}
			}
		})
	}
	t.Logf("%d requests", sent)
}

// TestTextsComeBackAsTheyWereSent: what clients write freely is answered, read and kept in events to the byte, at the greatest length, too.
func TestTextsComeBackAsTheyWereSent(t *testing.T) {
	t.Parallel()
	s := startSender(t)
	texts := 0
	check := func(op operation, body any, sent map[string]string) {
		t.Helper()
		path, _, a := s.accepted(op, body)
		if a.status >= 300 {
			return
		}
		var answered any
		if a.raw != "" {
			answered = read(t, a.raw)
		}
		got := s.do("GET", cmp.Or(a.header.Get("Location"), path), nil, "X-Consistency-Token", a.header.Get("X-Consistency-Token"))
		kept := s.kept()
		for _, spot := range s.bodies[op.OperationID].Spots() {
			want, there := sent[spot.Pointer()]
			if !there {
				continue
			}
			texts++
			shown, isShown := bodies.At(answered, spot.Path...)
			switch {
			case isShown && shown != want:
				t.Errorf("%s: %s is %q, and it was sent as %q", op.OperationID, spot.Pointer(), shown, want)
			case isShown && got.status == http.StatusOK:
				if stored, there := bodies.At(read(t, got.raw), spot.Path...); there && stored != want {
					t.Errorf("%s: %s is read as %q, and it was sent as %q", op.OperationID, spot.Pointer(), stored, want)
				}
			case !isShown && !kept[want]:
				t.Errorf("%s: %s is answered nowhere, and no event has %q", op.OperationID, spot.Pointer(), want)
			}
		}
	}
	for _, op := range changing(t) {
		body := s.bodies[op.OperationID]
		var free []bodies.Spot
		for _, spot := range body.Spots() {
			if spot.FreeText() {
				free = append(free, spot)
			}
		}
		if len(free) == 0 {
			continue
		}
		for _, text := range acceptedTexts {
			b, sent := s.example(op), map[string]string{}
			for i, spot := range free {
				written := fmt.Sprintf(`"%c%s`, 'A'+i, text[1:])
				b = body.With(b, spot.Path, bodies.Literal(written))
				var want string
				must(t, json.Unmarshal([]byte(written), &want))
				sent[spot.Pointer()] = want
			}
			check(op, b, sent)
		}
		longest, sent := s.example(op), map[string]string{}
		for i, spot := range free {
			if spot.MaxLength == nil {
				t.Errorf("%s: %s has no greatest length", op.OperationID, spot.Pointer())
				continue
			}
			want := strings.Repeat("🏮", *spot.MaxLength-1) + string(rune('A'+i))
			longest, sent[spot.Pointer()] = body.With(longest, spot.Path, want), want
		}
		check(op, longest, sent)
	}
	t.Logf("%d texts", texts)
	s.quiet()
}

// kept are all texts in events and in what the provider said.
func (g *gateway) kept() map[string]bool {
	g.t.Helper()
	rows, err := g.db.Pool.Query(g.t.Context(), "SELECT payload FROM order_events UNION ALL SELECT payload FROM resource_events UNION ALL SELECT body FROM provider_callbacks")
	must(g.t, err)
	all := map[string]bool{}
	var collect func(v any)
	collect = func(v any) {
		switch v := v.(type) {
		case string:
			all[v] = true
		case map[string]any:
			for _, value := range v {
				collect(value)
			}
		case []any:
			for _, value := range v {
				collect(value)
			}
		}
	}
	for rows.Next() {
		var text string
		must(g.t, rows.Scan(&text))
		collect(read(g.t, text))
	}
	must(g.t, rows.Err())
	return all
}

// TestWhatIsNotYoursIsNotChanged: every operation refuses a key without its scope, an id of another account or mode, one that is made up, a
// state that is no more, and a key that was used for another request. Nothing changes but what the keys store.
func TestWhatIsNotYoursIsNotChanged(t *testing.T) {
	t.Parallel()
	s := startSender(t)
	const narrow, live = "og_test_without_the_scope_for_tests", "og_live_alice_key_for_tests_only"
	type prepared struct {
		operation
		path  string
		again func() answer
	}
	var ops []prepared
	for _, op := range changing(t) {
		p := prepared{operation: op}
		if op.keyed() {
			body := s.example(op)
			used, key, first := s.accepted(op, body)
			other, changed := used, body
			if strings.Contains(op.path, "{") && op.path != "/v1/inventory/{sku}/adjustments" {
				other, _ = s.target(op, 0) // the same body for another resource
			} else {
				changed = s.example(op)
				for _, spot := range s.bodies[op.OperationID].Spots() {
					if spot.FreeText() && spot.Required {
						changed = s.bodies[op.OperationID].With(changed, spot.Path, "another")
					}
				}
				if op.OperationID == "placeOrder" {
					changed = s.bodies[op.OperationID].With(changed, []string{"customer_ref"}, "another")
				}
			}
			p.again = func() answer {
				if a := s.send(op, used, bodies.Write(body), "Idempotency-Key", key, "Prefer", "wait=10"); a.raw != first.raw || a.header.Get("Idempotency-Replayed") != "true" {
					t.Errorf("%s again: %d %s", op.OperationID, a.status, a.raw)
				}
				return s.send(op, other, bodies.Write(changed), "Idempotency-Key", key)
			}
		}
		p.path, _ = s.target(op, 0)
		ops = append(ops, p)
	}
	s.quiet()
	s.stopWork()
	keys := map[string]*edge.Key{
		bobKey: {ID: "key_2", Owner: order.Owner{Account: 2, Mode: "test"}, Scopes: Scopes},
		live:   {ID: "key_3", Owner: order.Owner{Account: 1, Mode: "live"}, Scopes: Scopes},
	}
	for _, op := range ops {
		if op.signed() {
			continue
		}
		lacking := narrow + op.OperationID
		keys[aliceKey] = &edge.Key{ID: "key_1", Owner: order.Owner{Account: 1, Mode: "test"}, Scopes: Scopes}
		keys[lacking] = &edge.Key{ID: "key_4", Owner: order.Owner{Account: 1, Mode: "test"}, Scopes: slices.DeleteFunc(slices.Clone(Scopes), func(scope string) bool {
			return slices.Contains(op.scopes(), scope)
		})}
	}
	server, err := s.assemble().API(keys)
	must(t, err)
	srv := httptest.NewServer(server)
	t.Cleanup(srv.Close)
	s.url = srv.URL
	s.unchanged("an order of another account's product", func() {
		a := s.do("POST", "/v1/orders", draft(firstSKU, 1, ""), "Authorization", "Bearer "+bobKey)
		if p := a.problem(); p.Code != "CAT_005" || !p.at("/lines/0/sku") {
			t.Errorf("an order of another account's product: %d %s", a.status, a.raw)
		}
	}, "idempotency_keys")
	for _, op := range ops {
		if op.signed() {
			continue // TestOnlyTheProviderCallsBack
		}
		body := bodies.Write(s.example(op.operation))
		refused := func(what, code string, a answer, pointer string) {
			t.Helper()
			p := a.problem()
			if p.Code != code || pointer != "" && (!p.at(pointer)) {
				t.Errorf("%s: %s: want %s at %q: %d %s", op.OperationID, what, code, pointer, a.status, a.raw)
			}
		}
		s.unchanged(op.OperationID, func() {
			refused("no scope", "AUTH_005", s.send(op.operation, op.path, body, "Authorization", "Bearer "+narrow+op.OperationID), "")
			if op.Method == http.MethodPatch {
				refused("no state", "REQ_011", s.send(op.operation, op.path, body, "If-Match", ""), "")
				refused("a stale state", "REQ_010", s.send(op.operation, op.path, body, "If-Match", `"1-0000000000000000"`), "")
				refused("no tag", "REQ_003", s.send(op.operation, op.path, body, "If-Match", "1-0000000000000000"), "/header/If-Match")
				refused("a list of tags and rubbish", "REQ_003", s.send(op.operation, op.path, body, "If-Match", `"1-0000000000000000", x`), "/header/If-Match")
				refused("a weak state", "REQ_010", s.send(op.operation, op.path, body, "If-Match", `W/"1-0000000000000000"`), "")
			}
			refused("an unknown parameter", "REQ_003", s.send(op.operation, op.path+"?unknown=x", body), "/query/unknown")
			if op.again != nil {
				refused("a key that was used", "IDEM_002", op.again(), "")
				refused("no key", "IDEM_001", s.send(op.operation, op.path, body, "Idempotency-Key", ""), "")
				refused("a short key", "IDEM_004", s.send(op.operation, op.path, body, "Idempotency-Key", "short"), "")
			}
		})
		if !strings.Contains(op.path, "{") && op.operation.path == op.path {
			continue // it names nothing
		}
		s.unchanged(op.OperationID, func() {
			want := map[string]string{"order_id": "ORD_001", "payment_id": "PAY_001", "shipment_id": "SHP_001", "sku": "CAT_001"}
			start := strings.Index(op.operation.path, "{")
			before, after, _ := strings.Cut(op.operation.path[start+1:], "}")
			name := before
			code := want[name]
			if strings.HasPrefix(op.path, "/v1/inventory") {
				code = "INV_001"
			}
			at := func(id string) string { return op.operation.path[:start] + id + after }
			id := strings.TrimSuffix(op.path[start:], after)
			refused("another account's", code, s.send(op.operation, op.path, body, "Authorization", "Bearer "+bobKey), "")
			refused("of the other mode", code, s.send(op.operation, op.path, body, "Authorization", "Bearer "+live), "")
			prefix, _, prefixed := strings.Cut(id, "_")
			forged := "no-such-sku"
			if prefixed {
				forged = prefix + "_0198f3c2a4b57d3e8c1f2a3b4c5d6e7f"
				refused("of another kind", "REQ_003", s.send(op.operation, at("evt"+strings.TrimPrefix(id, prefix)), body), "/path/"+name)
				refused("in capitals", "REQ_003", s.send(op.operation, at(prefix+"_"+strings.ToUpper(strings.TrimPrefix(id, prefix+"_"))+"A"), body), "/path/"+name)
			}
			refused("made up", code, s.send(op.operation, at(forged), body), "")
			for _, malformed := range []string{"%00", "%E2%80%AEx", "%ED%A0%80", "%FF", "%20", strings.Repeat("x", 65), "%F0%9F%8F%AE"} {
				refused(malformed, "REQ_003", s.send(op.operation, at(malformed), body), "/path/"+name)
			}
		}, "idempotency_keys")
	}
}

// scopes are what a key needs.
func (op operation) scopes() (all []string) {
	for _, requirement := range *op.Security {
		schemes, _ := requirement.(map[string]any)
		for _, scope := range schemes["bearer"].([]any) {
			all = append(all, scope.(string))
		}
	}
	return all
}

// TestAmountsThatCannotBeAreRefused: sums above every limit, other currencies and more than there is have their code and point to the place.
func TestAmountsThatCannotBeAreRefused(t *testing.T) {
	t.Parallel()
	s := startSender(t)
	payment := s.pay(s.reserved(firstSKU), "pm_ok", http.StatusCreated).body.ID
	confirmed := s.do("POST", "/v1/orders", draft(firstSKU, 2, "pm_ok"), "Prefer", "wait=10").body.ID
	s.quiet()
	s.stopWork()
	const most = "9007199254740991"
	line := func(sku, quantity, more string) string {
		return `{"currency":"EUR","customer_ref":"c","lines":[{"sku":"` + sku + `","quantity":` + quantity + more + `}]`
	}
	money := func(amount, currency string) string {
		return `{"amount":` + amount + `,"currency":"` + currency + `"}`
	}
	one := line(firstSKU, "1", "")
	refund, adjust, ship := "/v1/payments/"+payment+"/refunds", "/v1/inventory/"+firstSKU+"/adjustments", "/v1/orders/"+confirmed+"/shipments"
	s.unchanged("an amount that cannot be", func() {
		for _, c := range []struct{ name, path, body, code, pointer string }{
			{"a line above the limit", "/v1/orders", line("BAG-0008", "10000", "") + "}", "ORD_008", "/lines/0/quantity"},
			{"shipping above the limit", "/v1/orders", one + `,"shipping":` + money(most, "EUR") + "}", "ORD_008", "/shipping/amount"},
			{"tax above the limit", "/v1/orders", one + `,"tax":` + money(most, "EUR") + "}", "ORD_008", "/tax/amount"},
			{"both, and the sum would overflow", "/v1/orders", one + `,"shipping":` + money(most, "EUR") + `,"tax":` + money(most, "EUR") + "}", "ORD_008", "/shipping/amount"},
			{"only together above the limit", "/v1/orders", one + `,"shipping":` + money("60000000000", "EUR") + `,"tax":` + money("60000000000", "EUR") + "}", "ORD_008", "/tax/amount"},
			{"shipping in another currency", "/v1/orders", one + `,"shipping":` + money("1", "CNY") + "}", "ORD_005", "/shipping/currency"},
			{"nothing in another currency", "/v1/orders", one + `,"tax":` + money("0", "CNY") + "}", "ORD_005", "/tax/currency"},
			{"a price in another currency", "/v1/orders", line(firstSKU, "1", `,"expected_unit_price":`+money("1", "CNY")) + "}", "ORD_005", "/lines/0/expected_unit_price/currency"},
			{"the greatest price that is expected", "/v1/orders", line(firstSKU, "1", `,"expected_unit_price":`+money(most, "EUR")) + "}", "ORD_004", "/lines/0/expected_unit_price"},
			{"a coupon that is none", "/v1/orders", one + `,"coupon_code":"none"}`, "CPN_001", "/coupon_code"},
			{"a refund of nothing", refund, `{"reason":"r","amount":` + money("0", "EUR") + "}", "REQ_002", "/amount/amount"},
			{"a negative refund", refund, `{"reason":"r","amount":` + money("-1", "EUR") + "}", "REQ_002", "/amount/amount"},
			{"a refund in another currency", refund, `{"reason":"r","amount":` + money("1", "CNY") + "}", "ORD_005", "/amount/currency"},
			{"more than can be refunded", refund, `{"reason":"r","amount":` + money(most, "EUR") + "}", "RFD_001", "/amount"},
			{"more pieces than can be", adjust, `{"reason":"r","delta":` + most + "}", "INV_006", "/delta"},
			{"fewer pieces than can be", adjust, `{"reason":"r","delta":-` + most + "}", "INV_006", "/delta"},
			{"more pieces than were ordered", ship, `{"lines":[{"sku":"` + firstSKU + `","quantity":3}]}`, "SHP_002", "/lines/0/quantity"},
			{"a sku that was not ordered", ship, `{"lines":[{"sku":"MUG-0001","quantity":1}]}`, "SHP_002", "/lines/0/sku"},
			{"a sku twice", ship, `{"lines":[{"sku":"` + firstSKU + `","quantity":1},{"sku":"` + firstSKU + `","quantity":2}]}`, "SHP_002", "/lines/1/sku"},
		} {
			a := s.do("POST", c.path, c.body)
			if p := a.problem(); p.Code != c.code || !p.at(c.pointer) {
				t.Errorf("%s: want %s at %s: %d %s", c.name, c.code, c.pointer, a.status, a.raw)
			}
		}
		if a := s.do("POST", adjust, `{"reason":"r","delta":0}`); !strings.Contains(a.raw, "must not be 0") {
			t.Error(a.status, a.raw)
		}
	}, "idempotency_keys")
}
