package app

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// TestAShipmentOrACancellationWins: of a confirmed order's shipment and its cancellation at the same time exactly one is accepted, and
// stock and money end as it says.
func TestAShipmentOrACancellationWins(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stock("A", 100)
	const orders = 12
	ids := make([]string, orders)
	shipped := 0
	for i := range ids {
		placed := g.do("POST", "/v1/orders", draft("A", 1, "pm_ok"), "Prefer", "wait=10")
		if placed.body.Status != "confirmed" {
			t.Fatal(placed.raw)
		}
		path := "/v1/orders/" + placed.body.ID
		var ship, cancel answer
		var wg sync.WaitGroup
		wg.Go(func() { ship = g.do("POST", path+"/shipments", nil) })
		wg.Go(func() { cancel = g.do("POST", path+"/cancel", nil) })
		wg.Wait()
		switch {
		case ship.status == http.StatusCreated && cancel.body.Code == "ORD_002":
			shipped++
			ids[i] = ship.body.ID
		case cancel.status == http.StatusAccepted && ship.body.Code == "ORD_002":
			until(t, "the order is cancelled", func() bool { return g.do("GET", path, nil).body.Status == "cancelled" })
		default:
			t.Errorf("%d %s\n%d %s", ship.status, ship.raw, cancel.status, cancel.raw)
		}
	}
	t.Logf("%d of %d were shipped", shipped, orders)
	var wg sync.WaitGroup
	for _, id := range ids {
		if id != "" {
			wg.Go(func() {
				if a := g.do("POST", "/v1/shipments/"+id+"/deliver", nil); a.status != http.StatusOK || a.body.Status != "delivered" {
					t.Errorf("%d %s", a.status, a.raw)
				}
			})
		}
	}
	wg.Wait()
	if n := g.count("orders WHERE status = 'completed'"); n != shipped {
		t.Errorf("%d orders are completed, %d were shipped", n, shipped)
	}
	if n := g.count("shipments"); n != shipped {
		t.Errorf("%d shipments", n)
	}
	g.consistent()
}

// TestAnOrderChangesWhileItsSagaRuns: patches and the saga append to one history. The order ends as its payment does, with what the last
// patch made of it, in every tier.
func TestAnOrderChangesWhileItsSagaRuns(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stock("A", 100)
	placed := g.do("POST", "/v1/orders", draft("A", 1, "pm_slow"))
	path := "/v1/orders/" + placed.body.ID
	patches := 0
	until(t, "the order is confirmed", func() bool {
		patches++
		a := g.do("PATCH", path, fmt.Sprintf(`{"metadata":{"n":"%d"},"shipping_address":{"name":"n%d","line1":"l","city":"c","postal_code":"p","country":"DE"}}`, patches, patches), "If-Match", "*")
		if a.status != http.StatusOK {
			t.Fatal(a.raw)
		}
		read := g.do("GET", path, nil, "X-Consistency-Token", a.header.Get("X-Consistency-Token"))
		if read.body.Version == a.body.Version && (read.raw != a.raw || read.header.Get("ETag") != a.header.Get("ETag")) {
			t.Fatalf("answered %s\nread     %s", a.raw, read.raw)
		}
		for _, want := range []string{fmt.Sprintf(`"n":"%d"`, patches), fmt.Sprintf(`"name":"n%d"`, patches)} {
			if !strings.Contains(read.raw, want) {
				t.Fatalf("%s is missing in %s", want, read.raw)
			}
		}
		return read.body.Status == "confirmed"
	})
	// A PATCH of a state that was read, in turn: each writer sees the work of all before it.
	const writers, each = 4, 5
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				until(t, "a patch of the present state", func() bool {
					etag := g.do("GET", path, nil).header.Get("ETag")
					a := g.do("PATCH", path, fmt.Sprintf(`{"metadata":{"w%d":"%d"}}`, w, i), "If-Match", etag)
					if a.status != http.StatusOK && a.body.Code != "REQ_010" {
						t.Error(a.raw)
					}
					return a.status == http.StatusOK
				})
			}
		})
	}
	wg.Wait()
	if n := g.count("order_events WHERE type = 'order.updated' AND operation = 'updateOrder'"); n != patches+writers*each {
		t.Errorf("%d events of %d patches", n, patches+writers*each)
	}
	for _, id := range []string{path, path} {
		a := g.do("GET", id, nil)
		for w := range writers {
			if want := fmt.Sprintf(`"w%d":"%d"`, w, each-1); !strings.Contains(a.raw, want) {
				t.Errorf("%s is missing in %s", want, a.raw)
			}
		}
	}
	if a := g.do("PATCH", path, `{"shipping_address":null}`, "If-Match", "*"); a.status != http.StatusOK || g.count("order_addresses") != 0 {
		t.Error(a.raw)
	}
	g.consistent()
}
