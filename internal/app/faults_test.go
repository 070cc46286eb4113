package app

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/ordergate/ordergate/internal/edge"
	"github.com/ordergate/ordergate/internal/faults"
	"github.com/ordergate/ordergate/order"
)

// TestACommitOnPurposeWithoutAnAnswer: whether the COMMIT took effect or not, the answer is SYS_006, and a repetition under the key is right.
func TestACommitOnPurposeWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stock("A", 100)
	paid := g.pay(g.reserved("A"), "pm_ok", http.StatusCreated).body.ID
	waiting := func() string { return "/v1/orders/" + g.reserved("A") }
	for _, c := range []struct {
		what, table string
		path        func() string
		body        any
	}{
		{"an order", "orders", func() string { return "/v1/orders" }, draft("A", 1, "")},
		{"a payment", "payments", func() string { return waiting() + "/payments" }, map[string]string{"method_token": "pm_ok"}},
		{"a cancellation", "idempotency_keys", func() string { return waiting() + "/cancel" }, nil},
		{"a refund", "refunds", func() string { return "/v1/payments/" + paid + "/refunds" }, map[string]any{"amount": order.Money{Amount: 1, Currency: "EUR"}, "reason": "broken"}},
		{"an adjustment", "idempotency_keys", func() string { return "/v1/inventory/A/adjustments" }, map[string]any{"delta": 1, "reason": "found"}},
		{"a refusal", "idempotency_keys", func() string { return "/v1/orders" }, draft("NONE", 1, "")},
	} {
		for name, committed := range map[faults.Name]int{faults.CommitUnknown: 1, faults.CommitLost: 0} {
			path, key := c.path(), fmt.Sprintf("unknown-%08d", keyNumber.Add(1))
			g.quiet()
			before := g.count(c.table)
			if a := g.do("POST", path, c.body, "Idempotency-Key", key, faults.Header, string(name)); a.body.Code != "SYS_006" || a.header.Get("Retry-After") == "" {
				t.Errorf("%s, %s: %d %s", c.what, name, a.status, a.raw)
			}
			if made := g.count(c.table) - before; made != committed {
				t.Errorf("%s, %s: %d rows in %s", c.what, name, made, c.table)
			}
			first := g.do("POST", path, c.body, "Idempotency-Key", key)
			second := g.do("POST", path, c.body, "Idempotency-Key", key, faults.Header, string(name)) // nothing is left to commit
			if replayed := first.header.Get("Idempotency-Replayed") == "true"; replayed != (committed == 1) || first.status >= 500 {
				t.Errorf("%s, %s: repeated it is %d, replayed %v: %s", c.what, name, first.status, replayed, first.raw)
			}
			if second.raw != first.raw || second.status != first.status || second.header.Get("Idempotency-Replayed") != "true" {
				t.Errorf("%s, %s: repeated again it is %d %s, and it was %s", c.what, name, second.status, second.raw, first.raw)
			}
			if made := g.count(c.table) - before; made != 1 {
				t.Errorf("%s, %s: in the end %d rows in %s", c.what, name, made, c.table)
			}
		}
	}
	for name, version := range map[faults.Name]int64{faults.CommitUnknown: 2, faults.CommitLost: 1} { // a PATCH has no key: the resource tells
		sku := "patched-" + string(name)
		g.stock(sku, 1)
		if a := g.do("PATCH", "/v1/products/"+sku, map[string]string{"name": "other"}, "If-Match", "*", faults.Header, string(name)); a.body.Code != "SYS_006" {
			t.Errorf("a PATCH, %s: %s", name, a.raw)
		}
		later := g.accept("/v1/inventory/"+sku+"/adjustments", map[string]any{"delta": 1, "reason": "found"}).header.Get("X-Consistency-Token")            // a replica may be behind
		if a := g.do("GET", "/v1/products/"+sku, nil, "X-Consistency-Token", later, faults.Header, string(faults.InProgress)); a.body.Version != version { // which a read does not meet
			t.Errorf("after a PATCH, %s: %s", name, a.raw)
		}
	}
}

// TestAFaultIsItsOwnRequests: what fails on purpose changes nothing, opens no breaker, and nobody else meets it.
func TestAFaultIsItsOwnRequests(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stock("A", 1000)
	id := g.reserved("A")
	g.quiet()
	before := g.count("orders")
	var wg sync.WaitGroup
	for i := range 30 {
		for _, name := range []faults.Name{faults.PrimaryAway, faults.Deadline, faults.QueueFull, faults.Panic, faults.Draining} {
			wg.Go(func() { g.do("POST", "/v1/orders", draft("A", 1, ""), faults.Header, string(name)) })
			wg.Go(func() { g.do("GET", "/v1/orders/"+id, nil, faults.Header, string(name)) })
		}
		wg.Go(func() {
			if a := g.do("GET", "/v1/orders/"+id, nil); a.status != 200 {
				t.Errorf("a read beside them: %d %s", a.status, a.raw)
			}
		})
		if i%3 == 0 {
			wg.Wait()
		}
	}
	wg.Wait()
	for name, code := range map[faults.Name]string{faults.PrimaryAway: "SYS_002", faults.QueueFull: "RATE_003", faults.Behind: "SYS_004"} {
		g.do("GET", "/v1/orders/"+id, nil) // memory has it
		if a := g.do("GET", "/v1/orders/"+id, nil, faults.Header, string(name)); a.body.Code != code {
			t.Errorf("a read of what memory has, %s: %d %s", name, a.status, a.raw)
		}
		if a := g.do("GET", "/v1/orders/"+id, nil); a.status != 200 {
			t.Errorf("a read after %s: %d %s", name, a.status, a.raw)
		}
	}
	if n := g.count("orders") - before; n != 0 {
		t.Errorf("%d orders were placed", n)
	}
	if a := g.do("POST", "/v1/orders", draft("A", 1, "")); a.status != http.StatusAccepted { // an open breaker would refuse it
		t.Errorf("an order after them: %d %s", a.status, a.raw)
	}
	key := fmt.Sprintf("after-%08d", keyNumber.Add(1)) // is free after each of them
	for name, code := range map[faults.Name]string{
		faults.PrimaryAway: "SYS_002", faults.Deadline: "SYS_003", faults.QueueFull: "RATE_003", faults.Panic: "SYS_001", faults.Draining: "SYS_005", faults.InProgress: "IDEM_003",
	} {
		if a := g.do("POST", "/v1/orders", draft("A", 1, ""), faults.Header, string(name), "Idempotency-Key", key); a.body.Code != code {
			t.Errorf("%s: %d %s, want %s", name, a.status, a.raw, code)
		}
	}
	if a := g.do("POST", "/v1/orders", draft("A", 1, ""), "Idempotency-Key", key); a.status != http.StatusAccepted || a.header.Get("Idempotency-Replayed") != "" {
		t.Errorf("the first that is served: %d %s", a.status, a.raw)
	}
}

// TestWhoMayAskForFaults: test keys alone, and of a process alone that was started for it. A name that is none is refused.
func TestWhoMayAskForFaults(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stock("A", 1000)
	live := "og_live_key_for_tests_of_faults"
	serve := func(faults bool) *gateway {
		c := g.assemble()
		c.faults = faults
		s, err := c.API(map[string]*edge.Key{
			aliceKey: {ID: "key_1", Owner: order.Owner{Account: 1, Mode: "test"}, Scopes: Scopes},
			live:     {ID: "key_2", Owner: order.Owner{Account: 1, Mode: "live"}, Scopes: Scopes},
		})
		must(t, err)
		server := httptest.NewServer(s)
		t.Cleanup(server.Close)
		return g.at(server.URL)
	}
	on, off := serve(true), serve(false)
	until(t, "the product is read", func() bool { return off.do("GET", "/v1/products/A", nil).status == 200 }) // a replica may be behind
	for _, name := range faults.Names {
		header := []string{faults.Header, string(name)}
		if a := off.do("GET", "/v1/products/A", nil, header...); a.status != 200 {
			t.Errorf("%s without -faults: %d %s", name, a.status, a.raw)
		}
		if a := on.do("GET", "/v1/products", nil, append(header, "Authorization", "Bearer "+live)...); a.status != 200 {
			t.Errorf("%s of a live key: %d %s", name, a.status, a.raw)
		}
		if a := on.do("GET", "/v1/errors", nil, append(header, "Authorization", "Bearer "+live)...); a.status != 200 {
			t.Errorf("%s of a live key where none is needed: %d %s", name, a.status, a.raw)
		}
		if a := on.do("GET", "/v1/errors", nil, append(header, "Authorization", "")...); a.status != 200 {
			t.Errorf("%s without a key: %d %s", name, a.status, a.raw)
		}
	}
	for _, path := range []string{"/v1/products", "/v1/errors"} {
		if a := on.do("GET", path, nil, faults.Header, "earthquake"); a.body.Code != "REQ_003" || !strings.Contains(a.raw, "/header/X-Ordergate-Fault") ||
			!strings.Contains(a.raw, "primary-away") || strings.Contains(a.raw, "earthquake") {
			t.Errorf("a name that is none, at %s: %s", path, a.raw)
		}
	}
}
