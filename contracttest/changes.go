package contracttest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
)

// created is a product of the run's own. It is never active, so that nobody orders it.
type created struct {
	api.Product
	call call // that created it
	made reply
}

// own creates the run's product, once.
func (s *suite) own(ctx context.Context) (*created, bool) {
	if s.product != nil {
		return s.product, s.product.Sku != ""
	}
	s.product = &created{call: call{op: "createProduct", idem: s.ref + "-create", body: map[string]any{
		"sku": s.ref, "name": "Contract test 契约", "description": `It is <never> & "nowhere" for sale.`, "active": false,
		"prices":       []any{price(1, "KWD"), price(100_000_000_000, "EUR"), price(0, "JPY")},
		"low_stock_at": 5,
	}}}
	r, ok := s.get(ctx, &s.product.Product, s.product.call, http.StatusCreated)
	s.product.made = r
	return s.product, ok
}

func price(amount int64, currency string) api.Money {
	return api.Money{Amount: amount, Currency: currency}
}

// shows: a read of the product gives the bytes and the ETag of the answer that wrote it.
func (s *suite) shows(ctx context.Context, written reply) {
	r, ok := s.get(ctx, nil, call{op: "getProduct", arg: s.ref}, http.StatusOK)
	s.foundIf(ok && !bytes.Equal(r.body, written.body), r, "/body", "is not what the last change answered, %s", short(string(written.body)))
	s.foundIf(ok && r.header.Get("ETag") != written.header.Get("ETag"),
		r, "/header/ETag", "is %q and not that of the last change, %q", r.header.Get("ETag"), written.header.Get("ETag"))
}

// stocked: a read of the stock of the run's product gives these numbers.
func (s *suite) stocked(ctx context.Context, onHand int64) {
	var stock api.Inventory
	r, ok := s.get(ctx, &stock, call{op: "getInventory", arg: s.ref}, http.StatusOK)
	s.foundIf(ok && (stock.OnHand != onHand || stock.Reserved != 0 || stock.Available != onHand),
		r, "/body", "is %d on hand, %d reserved, %d available, and should be %d, 0, %d", stock.OnHand, stock.Reserved, stock.Available, onHand, onHand)
}

// badWrites: requests of the wrong form, which every operation with a body refuses. path is the parameter in its path, if it has one. unchanged
// looks whether anything happened.
func (s *suite) badWrites(ctx context.Context, good call, path string, unchanged func()) {
	bad := func(code errcode.Code, change func(*call), pointers ...string) {
		c := good
		change(&c)
		s.refused(ctx, code, c, pointers...)
	}
	if s.contract.operations[good.op].takes("Idempotency-Key") {
		bad(errcode.IDEM001, func(c *call) { c.idem = "" })
		bad(errcode.IDEM004, func(c *call) { c.idem = "short" })
	}
	bad(errcode.REQ001, func(c *call) { c.body = []byte(`{"name": "cut`) })
	bad(errcode.REQ001, func(c *call) { c.body = []byte{} })
	bad(errcode.REQ001, func(c *call) { c.body = []byte(`{"name":"x","name":"y"}`) })
	bad(errcode.REQ001, func(c *call) { c.body = []byte(`{"reason":"\u0000","name":"\ud800"}`) })
	bad(errcode.REQ002, func(c *call) { c.body = []byte(`[]`) }, "")
	bad(errcode.REQ002, func(c *call) { c.body = []byte(`null`) }, "")
	bad(errcode.REQ004, func(c *call) {
		body := map[string]any{"Name": "x"}
		maps.Copy(body, jsonOf(c.body).(map[string]any)) //nolint:forcetypeassert // every good body is an object
		c.body = body
	}, "/Name")
	bad(errcode.REQ008, func(c *call) { c.body, c.deferred = tooLarge(), true })
	bad(errcode.REQ009, func(c *call) { *c = c.with("Content-Type", "text/plain") })
	bad(errcode.REQ009, func(c *call) { *c, c.body = c.with("Content-Encoding", "gzip"), zipped("{}") })
	if path != "" {
		bad(errcode.REQ003, func(c *call) { c.arg = ".hidden" }, "/path/"+path)
	}
	unchanged()
}

// badValues: each body with one value of a wrong kind is REQ_002 at its place.
func (s *suite) badValues(ctx context.Context, good call, values map[string][]string) {
	for _, pointer := range sortedKeys(values) {
		for _, body := range values[pointer] {
			c := good
			c.body = []byte(body)
			s.refused(ctx, errcode.REQ002, c, pointer)
		}
	}
}

// wrongPrices are the prices that no product may have, as JSON, by what is wrong below /prices.
var wrongPrices = map[string][]string{
	"":            {`[]`, `null`, `{}`, `"1"`},
	"/0":          {`[1]`, `[null]`},
	"/0/amount":   {`[{"amount":-1,"currency":"EUR"}]`, `[{"amount":100000000001,"currency":"EUR"}]`, `[{"amount":1.5,"currency":"EUR"}]`, `[{"amount":"1","currency":"EUR"}]`, `[{"currency":"EUR"}]`},
	"/0/currency": {`[{"amount":1,"currency":"eur"}]`, `[{"amount":1,"currency":"EURO"}]`, `[{"amount":1}]`},
	"/1/currency": {`[{"amount":1,"currency":"EUR"},{"amount":2,"currency":"EUR"}]`},
}

// creating: a product is there as soon as its creation is answered, once.
func (s *suite) creating(ctx context.Context, p *created) {
	s.foundIf(p.Sku != s.ref || p.Active || p.Version != 1 || p.LowStockAt == nil || *p.LowStockAt != 5,
		p.made, "/body", "is not the product that was created: %s", short(string(p.made.body)))
	sorted := []api.Money{price(100_000_000_000, "EUR"), price(0, "JPY"), price(1, "KWD")}
	s.foundIf(!slices.Equal(p.Prices, sorted), p.made, "/body/prices", "are %v and not %v", p.Prices, sorted)
	at := p.made.header.Get("Location")
	s.foundIf(at != "/v1/products/"+s.ref, p.made, "/header/Location", "is %q and not /v1/products/%s", at, s.ref)
	s.shows(ctx, p.made)
	s.walk(ctx, "listProducts", "", values("q", s.ref), []string{s.ref})
	s.stocked(ctx, 0)
	s.replays(ctx, p.call, p.made)
	other := p.call
	other.body = map[string]any{"sku": s.ref, "name": "x", "prices": []any{price(1, "EUR")}}
	s.refused(ctx, errcode.IDEM002, other)
	other.idem += "-2"
	exists := s.refused(ctx, errcode.CAT002, other)
	s.replays(ctx, other, exists)
	other.idem += "-zh"
	s.refused(ctx, errcode.CAT002, other.with("Accept-Language", "zh-CN"))

	good := call{op: "createProduct", idem: s.ref + "-no-such", body: map[string]any{
		"sku": "no-" + s.ref, "name": "x", "prices": []any{price(1, "EUR")},
	}}
	nothing := func() { s.refused(ctx, errcode.CAT001, call{op: "getProduct", arg: "no-" + s.ref}) }
	s.badWrites(ctx, good, "", nothing)
	head := `{"sku":"no-` + s.ref + `","name":"x"`
	wrong := map[string][]string{
		"/sku": {`{"name":"x","prices":[{"amount":1,"currency":"EUR"}]}`, `{"sku":".x","name":"x","prices":[{"amount":1,"currency":"EUR"}]}`},
		"/low_stock_at": {
			head + `,"prices":[{"amount":1,"currency":"EUR"}],"low_stock_at":-1}`, head + `,"prices":[{"amount":1,"currency":"EUR"}],"low_stock_at":9007199254740992}`,
		},
		"/name":        {`{"sku":"no-` + s.ref + `","name":"","prices":[{"amount":1,"currency":"EUR"}]}`},
		"/description": {head + `,"prices":[{"amount":1,"currency":"EUR"}],"description":null}`},
		"/prices":      {head + `}`},
	}
	for below, list := range wrongPrices {
		for _, prices := range list {
			wrong["/prices"+below] = append(wrong["/prices"+below], head+`,"prices":`+prices+`}`)
		}
	}
	s.badValues(ctx, good, wrong)
	nothing()
}

// changing: a change is made of the state that it names, of no other, and by one of several.
func (s *suite) changing(ctx context.Context, p *created) {
	state := p.made
	if r, ok := s.get(ctx, nil, call{op: "getProduct", arg: s.ref}, http.StatusOK); ok {
		state = r
	}
	tag := func() string { return state.header.Get("ETag") }
	patch := func(body string) call {
		return call{op: "updateProduct", arg: s.ref, body: []byte(body)}.with("If-Match", tag())
	}
	unchanged := func() { s.shows(ctx, state) }
	for _, nothing := range []string{`{}`, `{"active":false}`} {
		if r, ok := s.get(ctx, nil, patch(nothing), http.StatusOK); ok {
			s.foundIf(!bytes.Equal(r.body, state.body) || r.header.Get("ETag") != tag(), r, "/body", "differs, and the change %s changes nothing", nothing)
		}
	}
	s.refused(ctx, errcode.REQ011, patch(`{"name":"x"}`).with("If-Match", ""))
	s.refused(ctx, errcode.REQ011, patch(`{}`).with("If-Match", "", "Accept-Language", "zh-CN"))
	for _, stale := range []string{`"other"`, "W/" + tag(), `"1", "2"`, `"a,*,b"`, `W/",*,"`} {
		r := s.refused(ctx, errcode.REQ010, patch(`{"name":"x"}`).with("If-Match", stale))
		var current struct {
			Version int64 `json:"current_version"`
		}
		decode(r, &current)
		s.foundIf(r.problem.Code == string(errcode.REQ010) && current.Version != p.Version, r, "/body/current_version", "is %d and not %d", current.Version, p.Version)
	}
	for _, malformed := range []string{"nonsense", tag() + " " + tag(), `"1`, tag() + ", x", "*, *", `*, "1"`, `"1", *`} {
		s.refused(ctx, errcode.REQ003, patch(`{"name":"x"}`).with("If-Match", malformed), "/header/If-Match")
	}
	missing := patch(`{"name":"x"}`)
	missing.arg = "no-" + s.ref
	s.refused(ctx, errcode.CAT001, missing)
	s.refused(ctx, errcode.CAT001, missing.with("If-Match", "")) // 404 comes before 428
	unchanged()
	good := patch("")
	good.body = map[string]any{"name": "x"}
	s.badWrites(ctx, good, "sku", unchanged)
	s.refused(ctx, errcode.REQ009, good.with("Content-Type", "application/json"))
	s.refused(ctx, errcode.REQ003, good.with("If-Match", string(bytes.Repeat([]byte("x"), 1025))), "/header/If-Match")
	wrong := map[string][]string{
		"/name": {`{"name":null}`, `{"name":""}`, `{"name":1}`}, "/active": {`{"active":null}`}, "/description": {`{"description":null}`},
		"/low_stock_at": {`{"low_stock_at":-1}`, `{"low_stock_at":1.5}`},
	}
	for below, list := range wrongPrices {
		for _, prices := range list {
			wrong["/prices"+below] = append(wrong["/prices"+below], `{"name":"x","prices":`+prices+`}`)
		}
	}
	s.badValues(ctx, good, wrong)
	unchanged()

	// change sends a patch that must be made, and checks its answer.
	change := func(c call, right func(api.Product) bool) {
		var before, after api.Product
		decode(state, &before)
		r, ok := s.get(ctx, &after, c, http.StatusOK)
		if !ok {
			return
		}
		s.foundIf(after.Version != before.Version+1 || !right(after), r, "/body", "is not the product as it was changed: %s", short(string(r.body)))
		s.foundIf(r.header.Get("ETag") == tag(), r, "/header/ETag", "is that of the state before")
		state = r
		s.shows(ctx, state)
	}
	change(patch(`{"name":"New name","low_stock_at":7.0}`), func(p api.Product) bool {
		return p.Name == "New name" && *p.LowStockAt == 7 && len(p.Prices) == 3
	})
	change(patch(`{"low_stock_at":null,"description":""}`).with("If-Match", `"other", `+tag()), func(p api.Product) bool {
		return p.Name == "New name" && p.LowStockAt == nil && p.Description == ""
	})
	change(patch(`{"prices":[{"amount":5,"currency":"USD"},{"amount":4,"currency":"EUR"}]}`).with("If-Match", "*"), func(p api.Product) bool {
		return slices.Equal(p.Prices, []api.Money{price(4, "EUR"), price(5, "USD")})
	})
	stale := patch(`{"description":"raced"}`)
	won := 0
	for _, r := range s.together(ctx, 6, stale) {
		switch _, asked := r.retryAfter(); {
		case asked:
		case r.status == http.StatusOK:
			won++
			state = r
		case r.problem.Code != string(errcode.REQ010) && r.err == nil:
			s.foundf(r, "/status", "is not 200 or that of REQ_010%s", why(r))
		}
	}
	s.foundIf(won != 1, state, "/status", "%d of 6 changes of one state were made", won)
	s.shows(ctx, state)
}

// adjusting: an adjustment moves the stock once, within its bounds.
func (s *suite) adjusting(ctx context.Context, _ *created) {
	const most = 1<<53 - 1
	n := 0
	adjust := func(delta int64) call {
		n++
		return call{op: "adjustInventory", arg: s.ref, idem: fmt.Sprintf("%s-adjust-%d", s.ref, n), body: map[string]any{"delta": delta, "reason": "counted 盘点"}}
	}
	made := func(delta, onHand int64) (call, reply) {
		c := adjust(delta)
		var a api.Adjustment
		r, ok := s.get(ctx, &a, c, http.StatusCreated)
		s.foundIf(ok && (a.Sku != s.ref || a.Delta != delta || a.Reason != "counted 盘点" || a.OnHand != onHand || a.Reserved != 0 || a.Available != onHand),
			r, "/body", "is not the adjustment by %d to %d: %s", delta, onHand, short(string(r.body)))
		at := r.header.Get("Location")
		s.foundIf(ok && at != "/v1/inventory/"+s.ref, r, "/header/Location", "is %q and not /v1/inventory/%s", at, s.ref)
		s.stocked(ctx, onHand)
		return c, r
	}
	c, first := made(12, 12)
	made(-7, 5)
	s.replays(ctx, c, first)
	c.body = map[string]any{"delta": 13, "reason": "counted"}
	s.refused(ctx, errcode.IDEM002, c)
	c.arg, c.body = "no-"+s.ref, map[string]any{"delta": 12, "reason": "counted 盘点"}
	s.refused(ctx, errcode.IDEM002, c) // the key covers the path, too
	for _, delta := range []int64{-6, -most, most} {
		below := adjust(delta)
		r := s.refused(ctx, errcode.INV006, below, "/delta")
		s.replays(ctx, below, r)
	}
	s.refused(ctx, errcode.INV006, adjust(-6).with("Accept-Language", "zh-CN"))
	missing := adjust(1)
	missing.arg = "no-" + s.ref
	s.refused(ctx, errcode.INV001, missing)
	unchanged := func() { s.stocked(ctx, 5) }
	s.badWrites(ctx, adjust(1), "sku", unchanged)
	s.badValues(ctx, adjust(1), map[string][]string{
		"/delta": {
			`{"reason":"x"}`, `{"delta":0,"reason":"x"}`, `{"delta":0.0,"reason":"x"}`, `{"delta":1.5,"reason":"x"}`, `{"delta":"1","reason":"x"}`, `{"delta":null,"reason":"x"}`,
			`{"delta":9007199254740992,"reason":"x"}`, `{"delta":-9007199254740992,"reason":"x"}`, `{"delta":1e300,"reason":"x"}`, `{"delta":99999999999999999999,"reason":"x"}`,
		},
		"/reason": {`{"delta":1}`, `{"delta":1,"reason":""}`, `{"delta":1,"reason":7}`},
	})
	unchanged()
	made(-5, 0)
}
