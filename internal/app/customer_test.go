package app

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/ordergate/ordergate/order"
)

// needles are what an address is found by, anywhere.
var needles = []string{"Zofia Unverkennbar", "Nirgendwostrasse 77", "+49 555 0123987"}

func personal() map[string]string {
	return map[string]string{
		"name": needles[0], "line1": needles[1], "phone": needles[2], "line2": "c/o " + needles[0], "city": "Hamburg", "postal_code": "20457", "country": "DE",
	}
}

// customerGateway is a gateway with the subcommands about a customer. Its account 1 is alice.
type customerGateway struct {
	*gateway
	redis *redis.Client
}

func startCustomers(t *testing.T) customerGateway {
	t.Helper()
	g := customerGateway{gateway: startGateway(t, nil)}
	options, err := redis.ParseURL(g.db.RedisURL)
	must(t, err)
	g.redis = redis.NewClient(options)
	t.Cleanup(func() { _ = g.redis.Close() })
	_, err = g.db.Pool.Exec(t.Context(), `INSERT INTO accounts (id, name) VALUES (1, 'alice'), (2, 'bob')`)
	must(t, err)
	g.stock("A", 10_000)
	return g
}

// run runs a subcommand and returns its output, with an error behind it, and its log.
func (g customerGateway) run(stdin string, args ...string) (out, logs string, ok bool) {
	g.t.Helper()
	i := slices.IndexFunc(subcommands, func(s subcommand) bool { return s.name == args[0] })
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	runner := subcommands[i].setup(flags)
	positional, err := subcommands[i].parse(flags, args[1:])
	if err != nil {
		return err.Error(), "", false
	}
	var o, l bytes.Buffer
	err = runner(g.t.Context(), process{cfg: g.cfg, args: positional, stdin: strings.NewReader(stdin), stdout: &o, logs: &l})
	if err != nil {
		fmt.Fprintln(&o, err)
	}
	return o.String(), l.String(), err == nil
}

// place places an order of a customer with an address.
func (g customerGateway) place(customer, methodToken, key string, headers ...string) answer {
	g.t.Helper()
	body := draft("A", 1, methodToken)
	body["customer_ref"], body["shipping_address"] = customer, personal()
	return g.do("POST", "/v1/orders", body, append([]string{"Idempotency-Key", key}, headers...)...)
}

// found names the columns and the keys of Redis that have a needle: of all tables, whatever they are.
func (g customerGateway) found() (places []string) {
	g.t.Helper()
	rows, err := g.db.Pool.Query(g.t.Context(), `SELECT c.table_name, c.column_name, c.data_type FROM information_schema.columns c JOIN information_schema.tables t
		USING (table_schema, table_name) WHERE table_schema = 'public' AND table_type = 'BASE TABLE' ORDER BY 1, 2`)
	must(g.t, err)
	columns, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ Table, Column, Kind string }])
	must(g.t, err)
	if len(columns) < 200 {
		g.t.Fatalf("%d columns", len(columns))
	}
	for _, c := range columns {
		column := pgx.Identifier{c.Column}.Sanitize()
		text := column + "::text"
		if c.Kind == "bytea" {
			text = "encode(" + column + ", 'escape')"
		}
		var n int
		must(g.t, g.db.Pool.QueryRow(g.t.Context(), fmt.Sprintf("SELECT count(*) FROM ONLY %s WHERE EXISTS (SELECT FROM unnest($1::text[]) AS n WHERE position(n IN %s) > 0)",
			pgx.Identifier{c.Table}.Sanitize(), text), needles).Scan(&n))
		if n > 0 {
			places = append(places, c.Table+"."+c.Column)
		}
	}
	for _, value := range g.cached() {
		if containsAny(value, needles) {
			places = append(places, "redis")
			break
		}
	}
	return places
}

// cached are the values in Redis.
func (g customerGateway) cached() (values []string) {
	g.t.Helper()
	for keys := g.redis.Scan(g.t.Context(), 0, g.cfg.RedisPrefix+"*", 1000).Iterator(); keys.Next(g.t.Context()); {
		value, _ := g.redis.Get(g.t.Context(), keys.Val()).Result() // it may have expired
		values = append(values, value)
	}
	return values
}

func containsAny(text string, words []string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
}

// stored places an order in each state, in each place where an address may stay. It returns ids by how they came about, and the requests
// whose keys have a result with the address.
func (g customerGateway) histories() map[string]string {
	t := g.t
	id := func(what string, a answer, status string) string {
		if a.body.Status != status {
			t.Fatalf("%s: %d %s", what, a.status, a.raw)
		}
		return a.body.ID
	}
	ids := map[string]string{}
	ids["rejected"] = id("rejected", g.place("c-1", "pm_declined", "key-rejected", "Prefer", "wait=10"), "rejected")
	ids["cancelled"] = id("cancelled", g.place("c-1", "", "key-cancelled", "Prefer", "wait=10"), "reserved")
	id("cancel", g.do("POST", "/v1/orders/"+ids["cancelled"]+"/cancel", "", "Prefer", "wait=10", "Idempotency-Key", "key-cancel-it"), "cancelled")
	ids["completed"] = id("completed", g.place("c-1", "pm_ok", "key-completed", "Prefer", "wait=10"), "confirmed")
	shipment := g.do("POST", "/v1/orders/"+ids["completed"]+"/shipments", nil)
	id("deliver", g.do("POST", "/v1/shipments/"+shipment.body.ID+"/deliver", nil), "delivered")
	ids["moved"] = id("moved", g.place("c-1", "", "key-moved", "Prefer", "wait=10"), "reserved")
	if a := g.do("PATCH", "/v1/orders/"+ids["moved"], `{"shipping_address":null}`, "If-Match", "*"); a.status != http.StatusOK {
		t.Fatal(a.raw)
	}
	ids["under way"] = id("under way", g.place("c-1", "pm_ok", "key-under-way", "Prefer", "wait=10"), "confirmed")
	return ids
}

// TestErase: nothing that an order's address can be found by is left anywhere, but of orders that still need it, until -force; histories and
// invariants stay whole, and a repetition under a key is answered without the address.
func TestErase(t *testing.T) {
	t.Parallel()
	g := startCustomers(t)
	ids := g.histories()
	other := draft("A", 1, "pm_declined")
	other["customer_ref"], other["shipping_address"] = "c-2", map[string]string{"name": "Another", "line1": "l", "city": "c", "postal_code": "p", "country": "DE"}
	neighbour := g.do("POST", "/v1/orders", other, "Prefer", "wait=10").body.ID
	before := map[string]answer{}
	for name, id := range ids {
		before[name] = g.do("GET", "/v1/orders/"+id, nil)
	}
	if found := strings.Join(g.found(), " "); !strings.Contains(found, "order_addresses.address") || !strings.Contains(found, "idempotency_keys_") || !strings.Contains(found, "redis") {
		t.Fatalf("the address was in %s alone", found)
	}
	events := g.count("order_events")

	for _, answer := range []string{"", "no\n"} {
		if out, logs, ok := g.run(answer, "erase", "-customer", "c-1", "-account", "alice"); ok || logs != "" || !strings.Contains(out, "5 orders, 4 with a shipping address") ||
			!strings.Contains(out, "not confirmed: nothing was erased") {
			t.Errorf("%q: %s%s", answer, out, logs)
		}
	}
	for args, want := range map[string]string{
		"-account alice": "-customer is missing", "-customer c-1": "-account is missing", "-customer c-1 -account carol": `no account "carol"`,
		"-customer c-1 -account alice -mode prod": "-mode must be test or live",
	} {
		if out, _, ok := g.run("yes\n", append([]string{"erase"}, strings.Fields(args)...)...); ok || !strings.Contains(out, want) {
			t.Errorf("%s: %s", args, out)
		}
	}
	for _, elsewhere := range []string{"-customer c-1 -account bob", "-customer c-1 -account alice -mode live", "-customer nobody -account alice"} {
		if out, _, ok := g.run("", append([]string{"erase", "-yes"}, strings.Fields(elsewhere)...)...); !ok || !strings.Contains(out, " 0 orders") {
			t.Errorf("%s: %s", elsewhere, out)
		}
	}
	if n := g.count("order_addresses"); n != 5 {
		t.Fatalf("%d addresses", n)
	}

	out, logs, ok := g.run("yes\n", "erase", "-customer", "c-1", "-account", "alice")
	if ok || !strings.Contains(out, "erased 3 addresses, and those in 5 stored results, of 5 orders") || !strings.Contains(out, "  "+ids["under way"]+" keeps its address\n") ||
		strings.Count(out, "keeps its address") != 1 || containsAny(out+logs, needles) {
		t.Errorf("%s%s", out, logs)
	}
	for _, want := range []string{`"operator":`, `"database_user":`, `"account":"alice"`, `"customer_ref":"c-1"`, `"addresses":3`, `"kept":1`, `"outcome":"begun"`, `"time":`} {
		if !strings.Contains(logs, want) {
			t.Errorf("the log lacks %s: %s", want, logs)
		}
	}
	if n := g.count("order_events WHERE operation = 'erase' AND actor = 'operator' AND type = 'order.updated'"); n != 3 {
		t.Errorf("%d events", n)
	}
	if b := g.do("GET", "/v1/orders/"+ids["under way"], nil); b.raw != before["under way"].raw || g.count("order_addresses") != 2 {
		t.Errorf("an order that needs its address lost it: %s", b.raw)
	}
	out, _, ok = g.run("", "erase", "-customer", "c-1", "-account", "alice", "-yes", "-force")
	if !ok || !strings.Contains(out, "erased 1 addresses, and those in 1 stored results, of 5 orders") {
		t.Error(out)
	}

	until(t, "Redis is told by the order's message", func() bool { // nobody has read the order since
		return slices.ContainsFunc(g.cached(), func(value string) bool {
			return strings.Contains(value, ids["under way"]) && strings.Contains(value, `"shipping_address":null`)
		})
	})
	// At once for a reader that knows of a later write, within the bound for all others.
	token := g.do("PATCH", "/v1/orders/"+neighbour, `{"metadata":{"a":"b"}}`, "If-Match", "*").header.Get("X-Consistency-Token")
	for name, id := range ids {
		a := g.do("GET", "/v1/orders/"+id, nil, "X-Consistency-Token", token)
		if a.status != http.StatusOK || !strings.Contains(a.raw, `"shipping_address":null`) || containsAny(a.raw, needles) {
			t.Errorf("%s: %s", name, a.raw)
		}
		if had := strings.Contains(before[name].raw, needles[0]); had == (a.header.Get("ETag") == before[name].header.Get("ETag")) {
			t.Errorf("%s: ETag %s after %s", name, a.header.Get("ETag"), before[name].header.Get("ETag"))
		}
	}
	until(t, "reads without a token", func() bool {
		for _, id := range ids {
			if containsAny(g.do("GET", "/v1/orders/"+id, nil).raw, needles) {
				return false
			}
		}
		return true
	})
	until(t, "an empty outbox", func() bool { return g.count("outbox") == 0 })
	var found []string
	until(t, "no trace", func() bool { found = g.found(); return len(found) == 0 })
	if a := g.do("GET", "/v1/orders/"+neighbour, nil); !strings.Contains(a.raw, "Another") {
		t.Errorf("another customer's order: %s", a.raw)
	}

	// Keys are known, and answer what they answered, without the address.
	for name, key := range map[string]string{"rejected": "key-rejected", "cancelled": "key-cancelled", "completed": "key-completed", "moved": "key-moved", "under way": "key-under-way"} {
		method := map[string]string{"rejected": "pm_declined", "completed": "pm_ok", "under way": "pm_ok"}[name]
		for _, wait := range []string{"", "wait=10"} {
			a := g.place("c-1", method, key, "Prefer", wait)
			status := http.StatusAccepted
			if wait != "" {
				status = http.StatusCreated
			}
			if a.status != status || a.body.ID != ids[name] || a.header.Get("Idempotency-Replayed") != "true" || !strings.Contains(a.raw, `"shipping_address":null`) ||
				a.header.Get("ETag") == "" || !strings.HasSuffix(a.header.Get("Location"), ids[name]) || containsAny(a.raw, needles) {
				t.Errorf("%s %s: %d %v %s", name, wait, a.status, a.header, a.raw)
			}
			if again := g.place("c-1", method, key, "Prefer", wait); again.raw != a.raw || again.header.Get("ETag") != a.header.Get("ETag") {
				t.Errorf("%s %s: %s, then %s", name, wait, a.raw, again.raw)
			}
		}
	}
	if a := g.do("POST", "/v1/orders/"+ids["cancelled"]+"/cancel", "", "Idempotency-Key", "key-cancel-it"); a.body.ID != ids["cancelled"] || containsAny(a.raw, needles) {
		t.Errorf("cancel again: %s", a.raw)
	}

	all := g.count("order_events")
	if out, _, ok = g.run("", "erase", "-customer", "c-1", "-account", "alice", "-yes", "-force"); !ok || !strings.Contains(out, "5 orders, 0 with a shipping address") ||
		!strings.Contains(out, "erased nothing in 5 orders and their stored results; no event was written") || containsAny(out, []string{"The addresses are erased", "Trace id", "lose theirs"}) ||
		g.count("order_events") != all || all != events+4+1 {
		t.Errorf("again: %d events, then %d: %s", all, g.count("order_events"), out)
	}
	moved := g.place("c-3", "", "key-moved-3", "Prefer", "wait=10").body.ID
	if a := g.do("PATCH", "/v1/orders/"+moved, `{"shipping_address":null}`, "If-Match", "*"); a.status != http.StatusOK {
		t.Fatal(a.raw)
	}
	if out, _, ok = g.run("", "erase", "-customer", "c-3", "-account", "alice", "-yes"); !ok || !strings.Contains(out, "1 orders, 0 with a shipping address") ||
		!strings.Contains(out, "may have an earlier one, which is erased") || !strings.Contains(out, "erased the addresses in 1 stored results of 1 orders; no order changed, and no event was written") {
		t.Errorf("an earlier address: %s", out)
	}
}

// TestEraseChild is the process that TestEraseGoesOnAfterKill kills.
func TestEraseChild(t *testing.T) {
	args := os.Getenv("TEST_ERASE_CHILD")
	if args == "" {
		t.Skip("it runs in a process of its own")
	}
	must(t, Main(t.Context(), strings.Fields(args), strings.NewReader(""), os.Stdout, os.Stderr))
}

// TestEraseGoesOnAfterKill: what was erased before kill -9 stays erased, each order as a whole, and the next run does the rest.
func TestEraseGoesOnAfterKill(t *testing.T) {
	t.Parallel()
	g := startCustomers(t)
	const orders, third = 8, 3
	ids := make([]string, orders)
	for i := range ids {
		ids[i] = g.place("c-1", "pm_declined", fmt.Sprintf("key-kill-%d", i), "Prefer", "wait=10").body.ID
	}
	slices.Sort(ids)
	held, err := g.db.Pool.Begin(t.Context())
	must(t, err)
	id, _ := order.Parse(order.PrefixOrder, ids[third])
	_, err = held.Exec(t.Context(), "SELECT FROM orders WHERE id = $1 FOR UPDATE", uuid.UUID(id))
	must(t, err)
	child := exec.Command(os.Args[0], "-test.run=^TestEraseChild$")
	child.Env = append(os.Environ(), "TEST_ERASE_CHILD=erase -customer c-1 -account alice -yes", "ORDERGATE_PRIMARY_URL="+g.cfg.PrimaryURL, "ORDERGATE_SECRET="+g.cfg.Secret)
	must(t, child.Start())
	until(t, "the first orders are erased", func() bool { return g.count("order_addresses") == orders-third })
	must(t, child.Process.Kill())
	_ = child.Wait()
	must(t, held.Rollback(t.Context()))
	if left, events := g.count("order_addresses"), g.count("order_events WHERE operation = 'erase'"); left != orders-third || events != third {
		t.Errorf("%d addresses are left, %d events", left, events)
	}
	if n := g.count(`idempotency_keys WHERE position('"shipping_address":null' IN encode(body, 'escape')) > 0`); n != third {
		t.Errorf("%d results", n)
	}
	if out, _, ok := g.run("", "erase", "-customer", "c-1", "-account", "alice", "-yes"); !ok || !strings.Contains(out, fmt.Sprintf("erased %d addresses, and those in %d stored results", orders-third, orders-third)) {
		t.Error(out)
	}
	until(t, "no trace", func() bool { return len(g.found()) == 0 })
	if n := g.count("order_events WHERE operation = 'erase'"); n != orders {
		t.Errorf("%d events", n)
	}
}

// TestEraseUnderLoad: no request of the customer fails while the addresses are erased, again and again, and a run after the last request
// leaves nothing.
func TestEraseUnderLoad(t *testing.T) {
	t.Parallel()
	g := startCustomers(t)
	const clients, each = 4, 8
	stop, erased := make(chan struct{}), make(chan int)
	go func() {
		runs := 0
		defer func() { erased <- runs }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			if out, _, ok := g.run("", "erase", "-customer", "c-1", "-account", "alice", "-yes", "-force"); !ok {
				t.Error(out)
			}
			runs++
		}
	}()
	var wg sync.WaitGroup
	for client := range clients {
		wg.Go(func() {
			for i := range each {
				key := fmt.Sprintf("key-load-%d-%d", client, i)
				placed := g.place("c-1", "", key, "Prefer", "wait=10")
				patched := g.do("PATCH", "/v1/orders/"+placed.body.ID, map[string]any{"shipping_address": personal()}, "If-Match", "*")
				cancelled := g.do("POST", "/v1/orders/"+placed.body.ID+"/cancel", "")
				again := g.place("c-1", "", key)
				if placed.status != http.StatusCreated || patched.status != http.StatusOK || cancelled.status != http.StatusAccepted || again.body.ID != placed.body.ID {
					t.Errorf("%d %s\n%d %s\n%d %s\n%s", placed.status, placed.raw, patched.status, patched.raw, cancelled.status, cancelled.raw, again.raw)
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	t.Logf("%d runs", <-erased)
	if out, _, ok := g.run("", "erase", "-customer", "c-1", "-account", "alice", "-yes", "-force"); !ok {
		t.Error(out)
	}
	until(t, "all orders have ended", func() bool { return g.count("orders WHERE status = 'cancelled'") == clients*each })
	until(t, "no trace", func() bool { return len(g.found()) == 0 })
	g.consistent()
}

// exported is the form that docs/privacy.md describes.
type exported struct {
	Account     string    `json:"account"`
	Mode        string    `json:"mode"`
	CustomerRef string    `json:"customer_ref"`
	ExportedAt  time.Time `json:"exported_at"`
	Orders      []struct {
		Order            json.RawMessage   `json:"order"`
		Events           []json.RawMessage `json:"events"`
		Saga             []json.RawMessage `json:"saga"`
		Payments         []json.RawMessage `json:"payments"`
		Refunds          []json.RawMessage `json:"refunds"`
		Shipments        []json.RawMessage `json:"shipments"`
		ResourceEvents   []json.RawMessage `json:"resource_events"`
		CouponRedemption json.RawMessage   `json:"coupon_redemption"`
		IdempotencyKeys  []struct {
			Operation string          `json:"operation"`
			Key       string          `json:"key"`
			Status    int             `json:"status"`
			ETag      string          `json:"etag"`
			Body      json.RawMessage `json:"body"`
		} `json:"idempotency_keys"`
	} `json:"orders"`
}

// same compares JSON as values.
func same(t *testing.T, what string, got, want []byte) {
	t.Helper()
	var g, w any
	if json.Unmarshal(got, &g) != nil || json.Unmarshal(want, &w) != nil || !reflect.DeepEqual(g, w) {
		t.Errorf("%s is exported as %s, not %s", what, got, want)
	}
}

// TestExport: what is kept of a customer, and of nobody else, in the forms in which the API shows it.
func TestExport(t *testing.T) {
	t.Parallel()
	g := startCustomers(t)
	if out, _, ok := g.run("", "coupons create", "SUMMER", "-account", "alice", "-percentage", "20"); !ok {
		t.Fatal(out)
	}
	placed := draft("A", 1, "")
	placed["coupon_code"], placed["shipping_address"] = "SUMMER", personal()
	id := g.do("POST", "/v1/orders", placed, "Prefer", "wait=10").body.ID
	payment := g.pay(id, "pm_ok", http.StatusCreated)
	refund := g.refund(payment.body.ID, 300)
	shipped := g.do("POST", "/v1/orders/"+id+"/shipments", map[string]any{"tracking": map[string]string{"carrier": "DHL", "number": "1"}})
	delivered := g.do("POST", "/v1/shipments/"+shipped.body.ID+"/deliver", nil)
	rejected := g.place("c-1", "pm_declined", "key-export-2", "Prefer", "wait=10").body.ID
	other := draft("A", 1, "pm_declined")
	g.do("POST", "/v1/orders", map[string]any{"currency": "EUR", "customer_ref": "c-2", "lines": other["lines"]}, "Prefer", "wait=10")
	until(t, "the refund's event", func() bool { return g.count("order_events WHERE type = 'order.refunded'") == 1 })

	out, logs, ok := g.run("", "export", "-customer", "c-1", "-account", "alice")
	var x exported
	if err := json.Unmarshal([]byte(out), &x); err != nil || !ok || logs != "" {
		t.Fatal(err, out, logs)
	}
	if x.Account != "alice" || x.Mode != "test" || x.CustomerRef != "c-1" || time.Since(x.ExportedAt).Abs() > time.Minute || len(x.Orders) != 2 {
		t.Fatalf("%s", out)
	}
	token := delivered.header.Get("X-Consistency-Token")
	o := x.Orders[0]
	same(t, "an order", o.Order, []byte(g.do("GET", "/v1/orders/"+id, nil, "X-Consistency-Token", token).raw))
	if !containsAny(string(o.Order), needles) {
		t.Error("without its address")
	}
	events := g.do("GET", "/v1/orders/"+id+"/events?limit=100", nil, "X-Consistency-Token", token).body.Data
	if len(o.Events) != len(events) || len(events) == 0 {
		t.Fatalf("%d events of %d", len(o.Events), len(events))
	}
	for i := range events {
		same(t, "an event", o.Events[i], events[i])
	}
	if len(o.Payments) != 1 || len(o.Refunds) != 1 || len(o.Shipments) != 1 {
		t.Fatalf("%s", out)
	}
	same(t, "a refund", o.Refunds[0], []byte(refund.raw))
	same(t, "a shipment", o.Shipments[0], []byte(delivered.raw))
	if !strings.Contains(string(o.Payments[0]), payment.body.ID) || !strings.Contains(string(o.Payments[0]), `"refunded":{"amount":300`) {
		t.Errorf("%s", o.Payments[0])
	}
	var types []string
	for _, b := range o.ResourceEvents {
		var e struct {
			ID       string          `json:"id"`
			Type     string          `json:"type"`
			Sequence int64           `json:"sequence"`
			Resource string          `json:"resource"`
			Data     json.RawMessage `json:"data"`
		}
		must(t, json.Unmarshal(b, &e))
		if e.ID == "" || e.Sequence == 0 || e.Resource == "" || len(e.Data) == 0 {
			t.Errorf("%s", b)
		}
		types = append(types, e.Type)
	}
	slices.Sort(types)
	if got := strings.Join(types, " "); got != "payment.authorized payment.captured payment.created refund.created refund.succeeded shipment.created shipment.delivered" {
		t.Errorf("events of %s", got)
	}
	if !strings.Contains(string(o.CouponRedemption), `"code":"SUMMER","customer_ref":"c-1"`) || string(x.Orders[1].CouponRedemption) != "null" {
		t.Errorf("redemptions %s, %s", o.CouponRedemption, x.Orders[1].CouponRedemption)
	}
	steps := g.do("GET", "/v1/orders/"+id+"/saga", nil).body.Steps
	if len(o.Saga) != len(steps) || len(steps) == 0 {
		t.Errorf("%d steps of %d", len(o.Saga), len(steps))
	}
	operations := []string{}
	for _, k := range o.IdempotencyKeys {
		operations = append(operations, k.Operation)
		if k.Key == "" || k.Status == 0 || k.ETag == "" || !json.Valid(k.Body) {
			t.Errorf("%+v", k)
		}
	}
	slices.Sort(operations)
	if got := strings.Join(operations, " "); got != "deliverShipment payOrder placeOrder refundPayment shipOrder" {
		t.Errorf("keys of %s", got)
	}
	same(t, "another order", x.Orders[1].Order, []byte(g.do("GET", "/v1/orders/"+rejected, nil, "X-Consistency-Token", token).raw))
	for args, want := range map[string]string{"-customer nobody -account alice": `"orders":[`, "-customer c-1 -account bob": `"orders":[`, "-customer c-1 -account alice -mode live": `"orders":[`} {
		out, _, ok := g.run("", append([]string{"export"}, strings.Fields(args)...)...)
		if err := json.Unmarshal([]byte(out), &x); err != nil || !ok || len(x.Orders) != 0 || !strings.Contains(out, want) {
			t.Errorf("%s: %v %s", args, err, out)
		}
	}
}
