package app

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// discounted is a draft with a coupon.
func discounted(sku, code, methodToken string) map[string]any {
	w := draft(sku, 1, methodToken)
	w["coupon_code"] = code
	return w
}

// TestACouponIsFreeAsSoonAsItsOrderEndsWithoutASale: who was told that an order is rejected or cancelled can use its coupon at once.
func TestACouponIsFreeAsSoonAsItsOrderEndsWithoutASale(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stock("A", 10)
	g.coupon("ONCE", `{"percentage": 15, "per_customer": 1}`, true)
	place := func(methodToken, status string) answer {
		t.Helper()
		a := g.do("POST", "/v1/orders", discounted("A", "ONCE", methodToken), "Prefer", "wait=10")
		if a.status != http.StatusCreated || a.body.Status != status {
			t.Fatal(a.raw)
		}
		return a
	}
	for range 3 {
		place("pm_declined", "rejected")
	}
	for _, token := range []string{"", "pm_ok"} {
		id := place(token, map[string]string{"": "reserved", "pm_ok": "confirmed"}[token]).body.ID
		if a := g.do("POST", "/v1/orders", discounted("A", "ONCE", "pm_ok")); a.status != http.StatusConflict || a.body.Code != "CPN_003" {
			t.Errorf("while an order has it: %s", a.raw)
		}
		if a := g.do("POST", "/v1/orders/"+id+"/cancel", "", "Prefer", "wait=10"); a.body.Status != "cancelled" {
			t.Fatal(a.raw)
		}
	}
	place("pm_ok", "confirmed")
	g.consistent()
}

// TestAHeldCouponDelaysOnlyItsOrders: a session of psql holds a coupon. New orders with it time out, one that ends waits to free it, and all
// others are decided meanwhile.
func TestAHeldCouponDelaysOnlyItsOrders(t *testing.T) {
	t.Parallel()
	g, free := startGateway(t, nil), startGateway(t, nil)
	for _, g := range []*gateway{g, free} {
		g.stock("A", 1000)
		g.coupon("FREE", `{"percentage": 15, "total": 1000}`, true)
	}
	g.coupon("HELD", `{"percentage": 15, "total": 1000}`, true)
	decide := func(g *gateway, n int) {
		t.Helper()
		for i := range n {
			body := draft("A", 1, "pm_ok")
			if i%2 == 0 {
				body = discounted("A", "FREE", []string{"pm_ok", "pm_declined"}[i/2%2])
			}
			if a := g.do("POST", "/v1/orders", body, "Prefer", "wait=10"); a.status != http.StatusCreated {
				t.Fatal(a.raw)
			}
		}
	}
	decide(g, 10) // warm
	decide(free, 10)
	id := g.do("POST", "/v1/orders", discounted("A", "HELD", ""), "Prefer", "wait=10").body.ID
	tx, err := g.db.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err = tx.Exec(t.Context(), "SELECT FROM coupons WHERE code = 'HELD' FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	if a := g.do("POST", "/v1/orders/"+id+"/cancel", ""); a.status != http.StatusAccepted {
		t.Fatal(a.raw)
	}
	if a := g.do("POST", "/v1/orders", discounted("A", "HELD", "pm_ok")); a.body.Code != "SYS_003" {
		t.Error(a.raw)
	}
	beside, without := alternately(15, func(g *gateway) { decide(g, 4) }, g, free)
	t.Logf("60 are decided in %v beside a held coupon, in %v without", beside, without)
	if beside > 2*without+60*50*time.Millisecond {
		t.Errorf("decisions take %.1f times as long beside a held coupon", float64(beside)/float64(without))
	}
	if a := g.do("GET", "/v1/orders/"+id, nil); a.body.Status != "reserved" {
		t.Errorf("its coupon cannot be freed: %s", a.raw)
	}
	if err = tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "the order is cancelled once the coupon is free", func() bool { return g.do("GET", "/v1/orders/"+id, nil).body.Status == "cancelled" })
	g.consistent()
}

// TestFlashSale: 2,000 orders want one of 50 pieces. 50 get it, and most of the others are told at once that there is none: no order is made
// of them.
func TestFlashSale(t *testing.T) {
	t.Parallel()
	const pieces, buyers, together = 50, 2000, 32
	g := startGateway(t, nil)
	g.stock("RARE", pieces)
	var wg sync.WaitGroup
	var refused atomic.Int64
	work := make(chan int)
	for range together {
		wg.Go(func() {
			for i := range work {
				until(t, "an answer", func() bool { // a busy machine may refuse, and its client repeats
					a := g.do("POST", "/v1/orders", draft("RARE", 1, "pm_ok"), "Idempotency-Key", fmt.Sprintf("flash-sale-%d", i))
					switch {
					case a.body.Code == "INV_002" && a.status == http.StatusConflict:
						refused.Add(1)
					case a.status >= 500:
						return false
					case a.status != http.StatusAccepted:
						t.Errorf("%d %s", a.status, a.raw)
					}
					return true
				})
			}
		})
	}
	begin := time.Now()
	for i := range buyers {
		work <- i
	}
	close(work)
	wg.Wait()
	took := time.Since(begin)
	until(t, "the end of all sagas", func() bool { return g.count("orders WHERE status IN ('pending', 'reserved')") == 0 })
	made, confirmed := g.count("orders"), g.count("orders WHERE status = 'confirmed'")
	t.Logf("%d buyers in %v: %d orders were made, %d refused at once, %d confirmed", buyers, took, made, refused.Load(), confirmed)
	if confirmed != pieces || made+int(refused.Load()) != buyers || int(refused.Load()) < buyers/2 {
		t.Error("see above")
	}
	g.consistent()
}

// TestASoldOutMarkIsOfAllProcesses: a process that takes orders refuses what the worker of another one knows to be sold out.
func TestASoldOutMarkIsOfAllProcesses(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	front := g.at(g.serve(g.assemble())) // it has no worker
	g.stock("LAST", 1)
	n := 0
	until(t, "another process refuses the order", func() bool {
		n++
		g.do("POST", "/v1/orders", draft("LAST", 1, "pm_ok"), "Idempotency-Key", fmt.Sprint("last-worker-", n))
		a := front.do("POST", "/v1/orders", draft("LAST", 1, "pm_ok"), "Idempotency-Key", fmt.Sprint("last-front-", n))
		return a.status == http.StatusConflict && a.body.Code == "INV_002"
	})
}
