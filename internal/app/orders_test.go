package app

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/contrib/propagators/autoprop"
	"go.opentelemetry.io/otel"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/ordergate/ordergate/internal/edge"
	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/order"
)

func TestPaymentsEndAsTheContractSays(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stock("A", 100)
	var wg sync.WaitGroup
	for token, want := range map[string]string{
		"pm_ok": "confirmed paid ", "pm_slow": "confirmed paid ", "pm_duplicate": "confirmed paid ", "pm_flaky": "confirmed paid ",
		"pm_timeout_charged": "confirmed paid ", "pm_declined": "rejected failed PAY_007", "pm_timeout": "rejected failed PAY_003",
		"pm_error": "rejected failed PAY_006", "pm_never_heard_of": "rejected failed PAY_007", "": "reserved none ",
	} {
		wg.Go(func() {
			a := g.do("POST", "/v1/orders", draft("A", 1, token), "Prefer", "wait=10")
			got := a.body.Status + " " + a.body.PaymentStatus + " "
			if a.body.Rejection != nil {
				got += a.body.Rejection.Code
			}
			if a.status != http.StatusCreated || got != want {
				t.Errorf("%s: %d %s, want %s", token, a.status, got, want)
			}
			if token == "pm_declined" && a.body.Rejection.DeclineReason != "insufficient_funds" {
				t.Errorf("decline reason in %s", a.raw)
			}
		})
	}
	wg.Wait()
	g.consistent()
	for end := time.Now().Add(10 * time.Second); ; <-time.After(20 * time.Millisecond) { // the replica may lag behind the last order
		a := g.do("GET", "/v1/inventory/A", nil)
		if a.body.OnHand == 95 && a.body.Available == 94 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("stock after five confirmed orders and a reserved one: %s", a.raw)
		}
	}
}

func TestLastPieceGoesToOneBuyer(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	for round := range 5 {
		sku := fmt.Sprint("LAST-", round)
		g.stock(sku, 1)
		ends := make([]string, 8)
		var wg sync.WaitGroup
		for i := range ends {
			wg.Go(func() {
				a := g.do("POST", "/v1/orders", draft(sku, 1, "pm_ok"), "Prefer", "wait=10")
				if ends[i] = a.body.Status; a.body.Code == "INV_002" {
					ends[i] = "rejected" // before an order was made
				}
				if r := a.body.Rejection; r != nil && (r.Code != "INV_002" || len(r.Skus) != 1 || r.Skus[0].Requested != 1 || r.Skus[0].Available != 0) {
					t.Errorf("rejected with %s", a.raw)
				}
			})
		}
		wg.Wait()
		all := strings.Join(ends, " ")
		if strings.Count(all, "confirmed") != 1 || strings.Count(all, "rejected") != len(ends)-1 {
			t.Errorf("one piece, eight buyers: %s", all)
		}
	}
	g.consistent()
}

// alternately has two gateways do the same, one round after another, so that other work on this machine delays both. It returns the time of each.
func alternately(rounds int, do func(*gateway), one, other *gateway) (of, ofOther time.Duration) {
	for range rounds {
		begin := time.Now()
		do(one)
		between := time.Now()
		do(other)
		of, ofOther = of+between.Sub(begin), ofOther+time.Since(between)
	}
	return of, ofOther
}

// TestALockedRowDelaysOnlyItsOrders: a session of psql holds a stock row and an order while orders of another sku are placed. Their
// decisions take as long as those of a gateway without it; the blocked ones come once the rows are free.
func TestALockedRowDelaysOnlyItsOrders(t *testing.T) {
	t.Parallel()
	g, free := startGateway(t, nil), startGateway(t, nil)
	g.stock("HELD", 100)
	decide := func(g *gateway, n int) {
		t.Helper()
		for range n {
			if a := g.do("POST", "/v1/orders", draft("FREE", 1, "pm_ok"), "Prefer", "wait=10"); a.body.Status != "confirmed" {
				t.Fatal(a.raw)
			}
		}
	}
	for _, g := range []*gateway{g, free} {
		g.stock("FREE", 1000)
		decide(g, 10) // warm
	}
	waiting := g.do("POST", "/v1/orders", draft("HELD", 1, ""), "Prefer", "wait=10").body.ID
	tx, err := g.db.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err = tx.Exec(t.Context(), "SELECT FROM stock WHERE sku = 'HELD' FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	held := []string{waiting}
	if a := g.do("POST", "/v1/orders/"+waiting+"/cancel", nil); a.status != 202 { // its release waits for the stock
		t.Fatal(a.raw)
	}
	for range 8 {
		held = append(held, g.do("POST", "/v1/orders", draft("HELD", 1, "pm_ok")).body.ID)
	}
	beside, without := alternately(25, func(g *gateway) { decide(g, 4) }, g, free)
	t.Logf("100 are decided in %v with locked rows beside, in %v without", beside, without)
	if beside > 2*without {
		t.Errorf("decisions take %.1f times as long beside locked rows", float64(beside)/float64(without))
	}
	if err = tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, id := range held {
		want := "confirmed"
		if i == 0 {
			want = "cancelled"
		}
		for end := time.Now().Add(20 * time.Second); g.do("GET", "/v1/orders/"+id, nil).body.Status != want; <-time.After(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s is not %s once the row is free", id, want)
			}
		}
	}
	g.consistent()
}

func TestOneKeyMakesOneOrder(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stock("A", 100)
	const key = "the-same-key"
	first := g.do("POST", "/v1/orders", draft("A", 1, "pm_ok"), "Idempotency-Key", key)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			a := g.do("POST", "/v1/orders", draft("A", 1, "pm_ok"), "Idempotency-Key", key)
			switch {
			case a.status == 409 && a.body.Code == "IDEM_003" && a.header.Get("Retry-After") != "":
			case a.status == first.status && a.raw == first.raw && a.header.Get("ETag") == first.header.Get("ETag") &&
				a.header.Get("Location") == first.header.Get("Location") && a.header.Get("Idempotency-Replayed") == "true":
			default:
				t.Errorf("replay: %d %v %s", a.status, a.header, a.raw)
			}
		})
	}
	wg.Wait()
	quoted := g.do("POST", "/v1/orders", draft("A", 1, "pm_ok"), "Idempotency-Key", `"`+key+`"`)
	waited := g.do("POST", "/v1/orders", draft("A", 1, "pm_ok"), "Idempotency-Key", key, "Prefer", "wait=10")
	again := g.do("POST", "/v1/orders", draft("A", 1, "pm_ok"), "Idempotency-Key", key, "Prefer", "wait=10")
	if quoted.raw != first.raw || waited.status != 201 || waited.raw != again.raw || waited.header.Get("ETag") != again.header.Get("ETag") {
		t.Errorf("quoted %d, waited %d %s, again %s", quoted.status, waited.status, waited.raw, again.raw)
	}
	if a := g.do("POST", "/v1/orders", draft("A", 2, "pm_ok"), "Idempotency-Key", key); a.status != 422 || a.body.Code != "IDEM_002" {
		t.Errorf("another body: %d %s", a.status, a.raw)
	}
	if n := g.count("orders"); n != 1 {
		t.Errorf("%d orders", n)
	}
	refused := g.do("POST", "/v1/orders", draft("NONE", 1, ""), "Idempotency-Key", "a-refused-key")
	replayed := g.do("POST", "/v1/orders", draft("NONE", 1, ""), "Idempotency-Key", "a-refused-key")
	if refused.status != 422 || replayed.raw != refused.raw || replayed.header.Get("Idempotency-Replayed") != "true" || replayed.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("a refusal and its replay: %s\n%v %s", refused.raw, replayed.header, replayed.raw)
	}
	g.consistent()
}

func (g *gateway) count(table string) (n int) {
	g.t.Helper()
	if err := g.db.Pool.QueryRow(g.t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil {
		g.t.Fatal(err)
	}
	return n
}

func TestOtherAccountsSeeNothing(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stock("A", 10)
	mine := g.do("POST", "/v1/orders", draft("A", 1, ""), "Prefer", "wait=5")
	path := "/v1/orders/" + mine.body.ID
	bob := []string{"Authorization", "Bearer " + bobKey}
	for range 2 { // the second time from the caches
		if a := g.do("GET", path, nil); a.status != 200 {
			t.Errorf("alice: %d", a.status)
		}
		for _, p := range []string{path, path + "/events", path + "/saga"} {
			if a := g.do("GET", p, nil, bob...); a.status != 404 || a.body.Code != "ORD_001" {
				t.Errorf("bob reads %s: %d %s", p, a.status, a.raw)
			}
		}
	}
	if a := g.do("POST", path+"/cancel", "{}", bob...); a.status != 404 || a.body.Code != "ORD_001" {
		t.Errorf("bob cancels: %d %s", a.status, a.raw)
	}
	if a := g.do("POST", path+"/shipments", "{}", bob...); a.status != 404 || a.body.Code != "ORD_001" {
		t.Errorf("bob ships: %d %s", a.status, a.raw)
	}
	if a := g.do("PATCH", path, `{"metadata":{"a":"b"}}`, append(bob, "If-Match", "*")...); a.status != 404 || a.body.Code != "ORD_001" {
		t.Errorf("bob patches: %d %s", a.status, a.raw)
	}
	paid := g.do("POST", "/v1/orders", draft("A", 1, "pm_ok"), "Prefer", "wait=10")
	shipped := g.do("POST", "/v1/orders/"+paid.body.ID+"/shipments", nil)
	if a := g.do("POST", "/v1/shipments/"+shipped.body.ID+"/deliver", "{}", bob...); shipped.status != 201 || a.status != 404 || a.body.Code != "SHP_001" {
		t.Errorf("bob delivers: %d %s", a.status, a.raw)
	}
	if a := g.do("GET", "/v1/orders", nil, bob...); len(a.body.Data) != 0 {
		t.Errorf("bob lists %s", a.raw)
	}
	if a := g.do("GET", "/v1/products/A", nil, bob...); a.body.Code != "CAT_001" {
		t.Errorf("bob's catalogue: %s", a.raw)
	}
	if a := g.do("POST", "/v1/orders", draft("A", 1, ""), bob...); a.body.Code != "CAT_005" {
		t.Errorf("bob orders alice's product: %s", a.raw)
	}
	forged := mine.body.ID[:len(mine.body.ID)-1] + map[bool]string{true: "1", false: "0"}[strings.HasSuffix(mine.body.ID, "0")]
	if a := g.do("GET", "/v1/orders/"+forged, nil); a.status != 404 {
		t.Errorf("a forged id: %d", a.status)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stock("A", 10)
	for _, token := range []string{"", "pm_ok", "pm_slow"} {
		placed := g.do("POST", "/v1/orders", draft("A", 1, token), "Prefer", map[bool]string{true: "wait=0", false: "wait=5"}[token == "pm_slow"])
		path := "/v1/orders/" + placed.body.ID
		a := g.do("POST", path+"/cancel", `{"reason":"changed my mind"}`, "Prefer", "wait=10")
		if a.status != 200 || a.body.Status != "cancelled" {
			t.Errorf("%q: cancel %d %s", token, a.status, a.raw)
		}
		if again := g.do("POST", path+"/cancel", ""); again.status != 409 || again.body.Code != "ORD_007" {
			t.Errorf("%q: cancelled twice %d %s", token, again.status, again.raw)
		}
		saga := g.do("GET", path+"/saga", nil, "X-Consistency-Token", a.header.Get("X-Consistency-Token"))
		if saga.body.State != "done" {
			t.Errorf("%q: %s", token, saga.raw)
		}
	}
	if all, n := g.count("refunds"), g.count("refunds WHERE reason = 'order cancelled'"); n == 0 || n != all {
		t.Errorf("%d of %d refunds say that the order was cancelled", n, all)
	}
	rejected := g.do("POST", "/v1/orders", draft("A", 1, "pm_declined"), "Prefer", "wait=5")
	last := g.do("POST", "/v1/orders/"+rejected.body.ID+"/cancel", "{}")
	if last.status != 409 || last.body.Code != "ORD_002" || !strings.Contains(last.raw, `"from":"rejected"`) {
		t.Errorf("a rejected order: %d %s", last.status, last.raw)
	}
	g.consistent()
	if a := g.do("GET", "/v1/inventory/A", nil, "X-Consistency-Token", last.header.Get("X-Consistency-Token")); a.body.Available != 10 || a.body.OnHand != 10 {
		t.Errorf("everything must be back: %s", a.raw)
	}
}

func TestReservationExpires(t *testing.T) {
	t.Parallel()
	g := startGateway(t, func(c *Config, _ *pgtest.DB) { c.ReservationTTL = time.Second })
	g.stock("A", 1)
	placed := g.do("POST", "/v1/orders", draft("A", 1, ""), "Prefer", "wait=5")
	if placed.body.Status != "reserved" {
		t.Fatal(placed.raw)
	}
	var last answer
	until(t, "expiry", func() bool {
		last = g.do("GET", "/v1/orders/"+placed.body.ID, nil)
		return last.body.Status == "rejected"
	})
	if last.body.Rejection.Code != "INV_003" {
		t.Error(last.raw)
	}
	if a := g.do("POST", "/v1/orders", draft("A", 1, "pm_ok"), "Prefer", "wait=5"); a.body.Status != "confirmed" {
		t.Errorf("the piece was not given back: %s", a.raw)
	}
	g.consistent()
}

func TestBadInputChangesNothing(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stock("A", 10)
	good := `{"currency":"EUR","customer_ref":"c","lines":[{"sku":"A","quantity":1}]}`
	for _, c := range []struct{ name, body, code, pointer string }{
		{"an unknown sku", strings.Replace(good, `"A"`, `"B"`, 1), "CAT_005", "/lines/0/sku"},
		{"the same sku twice", strings.Replace(good, `]`, `,{"sku":"A","quantity":1}]`, 1), "ORD_003", "/lines/1/sku"},
		{"mixed currency", strings.Replace(good, `:1}`, `:1,"expected_unit_price":{"amount":1000,"currency":"CNY"}}`, 1), "ORD_005", "/lines/0/expected_unit_price/currency"},
		{"another price", strings.Replace(good, `:1}`, `:1,"expected_unit_price":{"amount":999,"currency":"EUR"}}`, 1), "ORD_004", "/lines/0/expected_unit_price"},
		{"no price in the currency", strings.Replace(good, `EUR`, `CNY`, 1), "CAT_004", "/lines/0/sku"},
		{"quantity 0", strings.Replace(good, `:1}`, `:0}`, 1), "REQ_002", "/lines/0/quantity"},
		{"quantity 10^9", strings.Replace(good, `:1}`, `:1000000000}`, 1), "REQ_002", "/lines/0/quantity"},
		{"a name of metadata", strings.Replace(good, `{`, `{"metadata":{"a b":"x"},`, 1), "REQ_002", "/metadata/a b"},
		{"an unknown field", strings.Replace(good, `{`, `{"x":1,`, 1), "REQ_004", "/x"},
		{"malformed", good[:20], "REQ_001", ""},
	} {
		a := g.do("POST", "/v1/orders", c.body)
		if a.body.Code != c.code || !strings.Contains(a.raw, `"pointer":"`+c.pointer+`"`) {
			t.Errorf("%s: %d %s", c.name, a.status, a.raw)
		}
	}
	for _, second := range []string{"2016-12-31T23:59:60Z", "2026-01-01T0:00:00Z"} {
		if a := g.do("GET", "/v1/orders?created_from="+second, nil); a.body.Code != "REQ_003" || !strings.Contains(a.raw, `"pointer":"/query/created_from"`) {
			t.Errorf("%s: %d %s", second, a.status, a.raw)
		}
	}
	const example = `(2026-11-27T08:00:00Z, 2026-11-27T09:00:00%2B01:00; %2B = +)`
	for _, path := range []string{"/v1/orders?created_from=", "/v1/payments?created_to=", "/v1/orders/ord_0198f3c2a4b57d3e8c1f2a3b4c5d6e81?as_of="} {
		for _, text := range []string{"2026-11-27", "2026-11-27T09:00:00+01:00"} { // a day, and a time whose plus is a space
			for language, say := range map[string]string{"en": "must be a date-time " + example, "zh-CN": "必须符合 date-time " + example + " 格式"} {
				if a := g.do("GET", path+text, nil, "Accept-Language", language); a.body.Code != "REQ_003" || !strings.Contains(a.raw, `"message":"`+say+`"`) {
					t.Errorf("%s%s: %d %s", path, text, a.status, a.raw)
				}
			}
		}
	}
	if n := g.count("orders") + g.count("order_events") + g.count("stock_reservations"); n != 0 {
		t.Errorf("%d rows of refused orders", n)
	}
	if a := g.do("POST", "/v1/orders", good, "Prefer", "wait=5"); a.status != 201 {
		t.Errorf("the next good one: %d %s", a.status, a.raw)
	}
}

// TestCommitWithoutAnAnswer cuts the connection between COMMIT and its answer: the caller gets the order all the same, or SYS_006,
// and one order with it; never two, never none that was answered.
func TestCommitWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	var proxy *pgtest.TCPProxy
	g := startGateway(t, func(c *Config, db *pgtest.DB) { proxy, c.PrimaryURL = pgtest.Proxy(t, db.PrimaryURL) })
	g.stock("A", 100)
	for i := range 10 {
		key := fmt.Sprintf("unheard-%d", i)
		proxy.CutAfter([]string{pgtest.PipelinedCommit, "insert"}[i%2]) // the transaction of whoever comes first: of the command, or of its saga
		first := g.do("POST", "/v1/orders", draft("A", 1, "pm_ok"), "Idempotency-Key", key)
		var a answer
		until(t, "an answer", func() bool {
			a = g.do("POST", "/v1/orders", draft("A", 1, "pm_ok"), "Idempotency-Key", key, "Prefer", "wait=10")
			return a.status < 500 && a.status != 409
		})
		if first.status == 202 && first.body.ID != a.body.ID {
			t.Errorf("answered %s, then %s", first.body.ID, a.body.ID)
		}
		if a.body.Status != "confirmed" {
			t.Errorf("%d %s", a.status, a.raw)
		}
	}
	until(t, "the end of all sagas", func() bool { return g.count("orders WHERE status <> 'confirmed'") == 0 })
	if n := g.count("orders"); n != 10 {
		t.Errorf("%d orders of 10 keys", n)
	}
	g.consistent()
}

func TestBreakerClosesAgain(t *testing.T) {
	t.Parallel()
	var proxy *pgtest.TCPProxy
	g := startGateway(t, func(c *Config, db *pgtest.DB) { proxy, c.PrimaryURL = pgtest.Proxy(t, db.PrimaryURL) })
	g.stock("A", 100)
	if a := g.do("POST", "/v1/orders", draft("A", 1, "pm_ok"), "Prefer", "wait=5"); a.status != 201 {
		t.Fatal(a.raw)
	}
	proxy.Cut()
	for range 30 {
		if a := g.do("POST", "/v1/orders", draft("A", 1, "")); a.status != 503 && a.status != 504 {
			t.Fatalf("primary down: %d %s", a.status, a.raw)
		}
	}
	if a := g.do("POST", "/v1/orders", draft("A", 1, "")); a.body.Code != "SYS_002" || a.header.Get("Retry-After") == "" {
		t.Errorf("open breaker: %s", a.raw)
	}
	proxy.Heal()
	until(t, "the breaker's closing", func() bool { return g.do("POST", "/v1/orders", draft("A", 1, "pm_ok")).status == 202 })
	until(t, "the end of all sagas", func() bool { return g.count("orders WHERE status <> 'confirmed'") == 0 })
	g.consistent()
}

// TestWorkersComeAndGo kills workers in the middle of 200 orders, two at a time, and starts others.
func TestWorkersComeAndGo(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stock("A", 150)
	second := g.assemble()
	stop := g.background(second.Work)
	var wg sync.WaitGroup
	work := make(chan int)
	for range 8 {
		wg.Go(func() {
			for i := range work {
				token := []string{"pm_ok", "pm_ok", "pm_flaky", "pm_declined"}[i%4]
				until(t, "an order is taken", func() bool { // a busy machine may refuse, and its client repeats
					return g.do("POST", "/v1/orders", draft("A", 1, token), "Idempotency-Key", fmt.Sprintf("come-and-go-%d", i)).status == 202
				})
			}
		})
	}
	for i := range 200 {
		if i%25 == 24 {
			stop()
			stop = g.background(g.assemble().Work)
		}
		work <- i
	}
	close(work)
	wg.Wait()
	until(t, "the end of all sagas", func() bool { return g.count("orders WHERE status IN ('pending', 'reserved')") == 0 })
	if n := g.count("orders"); n != 200 {
		t.Errorf("%d orders of 200 keys", n)
	}
	if n := g.count("orders WHERE status = 'confirmed'"); n > 150 {
		t.Errorf("%d confirmed of 150 pieces", n)
	}
	until(t, "the outbox's end", func() bool { return g.count("outbox") == 0 })
	g.consistent()
}

// TestReadYourWrites: 1,000 times a write and a read with its token, on a replica that is 2 s behind.
func TestReadYourWrites(t *testing.T) {
	t.Parallel()
	g := startGateway(t, func(c *Config, db *pgtest.DB) { c.ReplicaURLs = []string{db.LaggingURL(t)} })
	g.stock("A", 100_000)
	other := g.serve(g.assemble()) // another instance, which did not take the write
	served := map[string]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 125 {
				placed := g.do("POST", "/v1/orders", draft("A", 1, ""))
				if placed.status != 202 {
					t.Errorf("%d %s", placed.status, placed.raw)
					return
				}
				path, token := "/v1/orders/"+placed.body.ID, placed.header.Get("X-Consistency-Token")
				reader := *g
				if i%2 == 1 {
					reader.url = other
				}
				fresh := func(path string) (a answer) { // a busy machine may answer 503 SYS_004, but nothing stale
					until(t, path+" is answered", func() bool {
						a = reader.do("GET", path, nil, "X-Consistency-Token", token)
						return a.status != http.StatusServiceUnavailable
					})
					return a
				}
				read, list := fresh(path), fresh("/v1/orders?limit=100")
				if read.status != 200 || read.body.Version < placed.body.Version || !strings.Contains(list.raw, placed.body.ID) {
					t.Errorf("stale: %d %s %s; list: %d %s", read.status, read.header.Get("X-Served-By"), read.raw, list.status, list.raw[:min(len(list.raw), 500)])
				}
				mu.Lock()
				served[read.header.Get("X-Served-By")]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Log("served by", served)

	path := "/v1/orders/" + g.do("POST", "/v1/orders", draft("A", 1, "")).body.ID
	g.do("POST", path+"/cancel", "", "Prefer", "wait=10")
	refused := g.do("POST", path+"/cancel", "") // on the primary it is cancelled, on the replica not yet
	list := g.do("GET", "/v1/orders?status=cancelled", nil, "X-Consistency-Token", refused.header.Get("X-Consistency-Token"))
	if refused.body.Code != "ORD_007" || len(list.body.Data) != 1 {
		t.Errorf("%s %q does not show why: %s", refused.body.Code, refused.header.Get("X-Consistency-Token"), list.raw)
	}
}

// A serve that is told to stop refuses new requests, so that balancers notice, answers waiting ones at once, and closes.
func TestStopsGracefully(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stock("A", 10)
	server, err := g.assemble().API(map[string]*edge.Key{aliceKey: {ID: "key_1", Owner: order.Owner{Account: 1, Mode: "test"}, Scopes: Scopes}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := listen(t.Context(), "test", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.url = "http://" + l.Addr().String()
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- server.Serve(ctx, l, server, time.Second) }()

	slow := make(chan answer, 1)
	go func() { slow <- g.do("POST", "/v1/orders", draft("A", 1, "pm_slow"), "Prefer", "wait=10") }() // 2.5 s
	until(t, "the slow order is placed", func() bool { return len(g.do("GET", "/v1/orders", nil).body.Data) == 1 })
	stop()
	until(t, "new requests are refused", func() bool {
		a := g.do("GET", "/v1/orders", nil)
		return a.status == 503 && a.body.Code == "SYS_005"
	})
	if a := <-slow; a.status != 202 || a.body.Status != "pending" {
		t.Errorf("what waited was answered %d %s", a.status, a.raw)
	}
	select {
	case err = <-stopped:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("it does not stop")
	}
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		c.Close()
		t.Error("it still listens")
	}
}

// TestSpans follows a write and a read of a sampling caller: the request, the command or query, SQL and Redis, in one trace.
func TestSpans(t *testing.T) { // not parallel: the provider is global
	recorded := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(recorded), sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.NeverSample())))
	before := otel.GetTracerProvider()
	otel.SetTracerProvider(provider)
	otel.SetTextMapPropagator(autoprop.NewTextMapPropagator())
	t.Cleanup(func() { otel.SetTracerProvider(before) })
	g := startGateway(t, nil)
	g.stock("A", 10)
	const sampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	placed := g.do("POST", "/v1/orders", draft("A", 1, ""), "Traceparent", sampled)
	other := g.serve(g.assemble()) // its LRU is empty
	g.url = other
	g.do("GET", "/v1/orders/"+placed.body.ID, nil, "Traceparent", sampled)
	names := map[string]int{}
	for _, s := range recorded.GetSpans() {
		if s.SpanContext.TraceID().String() == sampled[3:35] {
			names[s.Name]++
		}
	}
	for _, want := range []string{"placeOrder", "command placeOrder", "getOrder", "query getOrder", "INSERT", "get"} {
		found := false
		for name := range names {
			found = found || name == want || len(want) < 7 && strings.Contains(strings.ToLower(name), strings.ToLower(want))
		}
		if !found {
			t.Errorf("no span %q among %v", want, names)
		}
	}
}

// A client that has closed its sending half, as nc -N does, still reads.
func TestHalfClosedClientsAreAnswered(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stock("A", 10)
	for _, path := range []string{"/v1/orders?limit=100", "/v1/products?limit=1"} {
		c, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: g\r\nConnection: close\r\nAuthorization: Bearer %s\r\n\r\n", path, aliceKey)
		if err = c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		said, err := io.ReadAll(c)
		if err != nil || !strings.HasPrefix(string(said), "HTTP/1.1 200 ") {
			t.Errorf("%s: %v %s", path, err, said)
		}
		_ = c.Close()
	}
}

// The secret of a data folder is made once: under another one the ids of its orders are refused.
func TestKeptSecret(t *testing.T) {
	dir := t.TempDir()
	first, err := keptSecret(dir)
	if err != nil || len(first) != minSecret {
		t.Fatal(first, err)
	}
	if err = os.Mkdir(filepath.Join(dir, "primary"), 0o700); err != nil {
		t.Fatal(err)
	}
	if again, err := keptSecret(dir); again != first || err != nil {
		t.Error(again, err)
	}
	for name, torn := range map[string]func(string) error{
		"torn": func(path string) error { return os.WriteFile(path, []byte("torn"), 0o600) },
		"gone": os.Remove,
	} {
		if err = torn(filepath.Join(dir, "secret")); err != nil {
			t.Fatal(err)
		}
		if made, err := keptSecret(dir); err == nil {
			t.Errorf("%s: there is data, and a new secret %s", name, made)
		}
	}
}

// The provider's secret of a data folder is the same at each start, is not the other secret, and may be made anew beside data.
func TestKeptProviderSecret(t *testing.T) {
	dir := t.TempDir()
	other, err := keptSecret(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err = os.Mkdir(filepath.Join(dir, "primary"), 0o700); err != nil {
		t.Fatal(err)
	}
	first, err := keptProviderSecret(dir) // also of a folder that is older than callbacks
	if err != nil || len(first) != minSecret || first == other {
		t.Fatal(first, err)
	}
	if again, err := keptProviderSecret(dir); again != first || err != nil {
		t.Error(again, err)
	}
	if err = os.WriteFile(filepath.Join(dir, "provider-secret"), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if made, err := keptProviderSecret(dir); err != nil || len(made) != minSecret || made == first {
		t.Error(made, err)
	}
}
