package app

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/internal/psp"
	"github.com/ordergate/ordergate/order"
)

// left is all that an order leaves behind: its statuses, its steps, its events, those of its payments, refunds and shipments, its reservation
// with the stock of its sku, and the provider's money.
type left struct {
	order, steps, events, resources, stock string
	money                                  money
}

const (
	stepsDone     = "reserve_stock done, authorize done, confirm_stock done, capture done"
	stepsRefunded = stepsDone + ", refund done, cancel_reservation done"
	eventsPaid    = "created stock_reserved updated paid confirmed"
	captured      = "payment.created payment.authorized payment.captured"
	voided        = "payment.created payment.authorized payment.voided"
)

// The ends that several races have.
var (
	leftConfirmed = left{"confirmed paid unfulfilled", stepsDone, eventsPaid, captured, "confirmed 9 0", money{captures: 1, captured: 1000}}
	leftRefunded  = left{
		"cancelled refunded unfulfilled", stepsRefunded, eventsPaid + " cancel_requested refunded cancelled",
		captured + " refund.created refund.succeeded", "cancelled 10 0", money{captures: 1, captured: 1000, refunds: 1, refunded: 1000},
	}
)

// leaves waits until an order leaves what it must, and nothing is left to do. That nothing contradicts another is verified at the end of
// each gateway.
func (g *gateway) leaves(orderID, sku string, want left) {
	g.t.Helper()
	id, _ := order.Parse(order.PrefixOrder, orderID)
	look := func(sql string, args ...any) (s string) {
		g.t.Helper()
		if err := g.db.Pool.QueryRow(g.t.Context(), "SELECT coalesce(("+sql+"), 'none')", args...).Scan(&s); err != nil {
			g.t.Fatal(err)
		}
		return s
	}
	key := uuid.UUID(id)
	now := func() left {
		return left{
			look("SELECT concat_ws(' ', status, state->>'payment_status', state->>'fulfillment_status', state->'rejection'->>'code') FROM orders WHERE id = $1", key),
			look("SELECT string_agg(step || ' ' || status, ', ' ORDER BY position) FROM saga_steps WHERE order_id = $1", key),
			look("SELECT string_agg(replace(type, 'order.', ''), ' ' ORDER BY version) FROM order_events WHERE order_id = $1", key),
			look(`SELECT string_agg(type, ' ' ORDER BY kind, resource, sequence) FROM resource_events WHERE kind <> 'inventory'
				AND resource IN (SELECT 'pay_' || replace(id::text, '-', '') FROM payments WHERE order_id = $1
					UNION ALL SELECT 'ref_' || replace(id::text, '-', '') FROM refunds WHERE order_id = $1
					UNION ALL SELECT 'shp_' || replace(id::text, '-', '') FROM shipments WHERE order_id = $1)`, key),
			look("SELECT status FROM stock_reservations WHERE order_id = $1", key) + " " + look("SELECT on_hand || ' ' || reserved FROM stock WHERE sku = $1", sku),
			g.moneyOf(orderID),
		}
	}
	got := now()
	for end := time.Now().Add(20 * time.Second); got != want || g.count("outbox") > 0; got = now() {
		if time.Now().After(end) {
			g.t.Errorf("it leaves\n%+v\nwant\n%+v", got, want)
			return
		}
		<-time.After(10 * time.Millisecond)
	}
}

// quiet waits until the worker has nothing left to do.
func (g *gateway) quiet() {
	g.t.Helper()
	until(g.t, "nothing is left to do", func() bool {
		return g.count("outbox")+g.count("payment_calls WHERE next_at IS NOT NULL")+g.count("provider_callbacks WHERE next_at IS NOT NULL") == 0
	})
}

// holding lets the provider wait before it takes operations whose key ends so, until release is called. arrived has their keys.
type holding struct {
	arrived chan string
	release func()
}

// startHolding starts a gateway with a holding provider.
func startHolding(t *testing.T, suffix string) (*gateway, holding) {
	t.Helper()
	released, stop := context.WithCancel(t.Context())
	h := holding{make(chan string, 16), stop}
	g := startGateway(t, func(c *Config, _ *pgtest.DB) {
		provider(t, c, func(key string) bool {
			if strings.HasSuffix(key, suffix) {
				h.arrived <- key
				<-released.Done()
			}
			return true
		})
	})
	return g, h
}

// running waits until a step of an order is under way.
func (g *gateway) running(orderID, step string) {
	g.t.Helper()
	id, _ := order.Parse(order.PrefixOrder, orderID)
	until(g.t, step+" is running", func() bool {
		var n int
		err := g.db.Pool.QueryRow(g.t.Context(), "SELECT count(*) FROM saga_steps WHERE order_id = $1 AND step = $2 AND status = 'running'", uuid.UUID(id), step).Scan(&n)
		return err == nil && n == 1
	})
}

// accept sends a command that must be accepted.
func (g *gateway) accept(path string, body any, headers ...string) answer {
	g.t.Helper()
	a := g.do("POST", path, body, headers...)
	if a.status >= 300 {
		g.t.Fatalf("%s: %d %s", path, a.status, a.raw)
	}
	return a
}

// paying has an order paid. paid is how that is answered once it is decided.
func (g *gateway) paying(orderID string) (paid func() answer) {
	g.t.Helper()
	path, body, key := "/v1/orders/"+orderID+"/payments", map[string]string{"method_token": "pm_ok"}, "pay-"+orderID
	g.accept(path, body, "Idempotency-Key", key)
	return func() answer { return g.do("POST", path, body, "Idempotency-Key", key, "Prefer", "wait=10") }
}

// TestACancelMeetsTheCapture: a cancel that is recorded first lets nothing be captured. One that meets the capture's request is ORD_009, and
// repeated under its key gives all back.
func TestACancelMeetsTheCapture(t *testing.T) {
	t.Parallel()
	t.Run("a cancel before the capture is asked for: nothing is captured", func(t *testing.T) {
		t.Parallel()
		g := startGateway(t, nil)
		g.stock("A", 10)
		id := g.reserved("A")
		unlock := g.lock("stock")
		paid := g.paying(id)
		g.running(id, "confirm_stock")
		g.accept("/v1/orders/"+id+"/cancel", nil)
		must(t, unlock())
		g.leaves(id, "A", left{
			"cancelled none unfulfilled", "reserve_stock done, authorize done, confirm_stock done, capture skipped, void done, cancel_reservation done",
			"created stock_reserved updated cancel_requested updated cancelled", voided, "cancelled 10 0", money{},
		})
		if a := paid(); a.body.Code != "ORD_002" {
			t.Errorf("the payment is answered %s", a.raw)
		}
	})
	t.Run("the capture is asked for before a cancel: it is refused, and refunds afterwards", func(t *testing.T) {
		t.Parallel()
		g, provider := startHolding(t, "-capture")
		g.stock("A", 10)
		id := g.reserved("A")
		g.paying(id)
		<-provider.arrived
		const key = "the-same-key-until-it-is-taken"
		refused := g.do("POST", "/v1/orders/"+id+"/cancel", nil, "Idempotency-Key", key)
		if refused.body.Code != "ORD_009" || refused.status != http.StatusConflict || !strings.Contains(refused.raw, `"retryable":true`) {
			t.Errorf("while the capture runs: %d %s", refused.status, refused.raw)
		}
		provider.release()
		g.ends(id, "confirmed", "paid")
		g.leaves(id, "A", leftConfirmed)
		g.accept("/v1/orders/"+id+"/cancel", nil, "Idempotency-Key", key)
		g.leaves(id, "A", leftRefunded)
	})
}

// TestACallbackMeetsTheAnswer: a callback lets the provider be asked, and decides nothing itself. Whether it comes before the answer, after
// it, or after the order has ended, the order and its charge are the same.
func TestACallbackMeetsTheAnswer(t *testing.T) {
	t.Parallel()
	charged := func(g *gateway) (payment string) {
		g.t.Helper()
		until(g.t, "the provider has the payment", func() bool {
			for _, e := range g.ledger() {
				payment = e.Payment
			}
			return payment != ""
		})
		return payment
	}
	told := func(g *gateway, event, payment string) {
		g.t.Helper()
		if a := g.callBack(g.cfg.ProviderSecret, "psp", event, payment); a.status != http.StatusNoContent {
			g.t.Fatal(a.raw)
		}
	}
	t.Run("the callback is first: the order is confirmed while the answer never comes", func(t *testing.T) {
		t.Parallel()
		g, hanging := withCallbacks(t, psp.Faults{CallbackLost: 1})
		g.stock("A", 10)
		id := g.accept("/v1/orders", draft("A", 1, "pm_timeout_charged")).body.ID
		told(g, "evt_first", charged(g))
		g.ends(id, "confirmed", "paid")
		if n := hanging.Load(); n != 1 {
			t.Errorf("%d requests hang: it was the retry that confirmed the order", n)
		}
		g.leaves(id, "A", leftConfirmed)
	})
	t.Run("the answer is first: the callback changes nothing", func(t *testing.T) {
		t.Parallel()
		g := startGateway(t, nil)
		g.stock("A", 10)
		id := g.accept("/v1/orders", draft("A", 1, "pm_ok"), "Prefer", "wait=10").body.ID
		told(g, "evt_second", charged(g))
		g.quiet()
		g.leaves(id, "A", leftConfirmed)
	})
	t.Run("the cancellation is first: the callback charges nothing", func(t *testing.T) {
		t.Parallel()
		g := startGateway(t, nil)
		g.stock("A", 10)
		id := g.accept("/v1/orders", draft("A", 1, "pm_ok"), "Prefer", "wait=10").body.ID
		g.accept("/v1/orders/"+id+"/cancel", nil, "Prefer", "wait=10")
		told(g, "evt_late", charged(g))
		g.quiet()
		g.leaves(id, "A", leftRefunded)
	})
	t.Run("the deadline is first: neither the late request nor its callback charges", func(t *testing.T) {
		t.Parallel()
		g := startGateway(t, func(c *Config, _ *pgtest.DB) { c.PaymentTimeout = time.Second })
		g.stock("A", 10)
		id := g.accept("/v1/orders", draft("A", 1, "pm_timeout"), "Prefer", "wait=10").body.ID
		g.ends(id, "rejected", "failed")
		payment := charged(g)
		put(t, g, payment+"-authorize", fmt.Sprintf(`{"kind":"authorize","payment":%q,"amount":{"amount":1000,"currency":"EUR"},"method_token":"pm_ok"}`, payment))
		told(g, "evt_too_late", payment)
		g.quiet()
		g.leaves(id, "A", left{
			"rejected failed unfulfilled PAY_003", "reserve_stock done, authorize failed, confirm_stock skipped, capture skipped, cancel_reservation done",
			"created stock_reserved payment_failed rejected", "payment.created payment.failed", "cancelled 10 0", money{},
		})
	})
}

// TestAnExpiryMeetsTheConfirm: both messages wait for the same stock. The one that was sent first decides what becomes of the reservation,
// whatever the time.
func TestAnExpiryMeetsTheConfirm(t *testing.T) {
	t.Parallel()
	expiring := func(g *gateway, id string) {
		g.t.Helper()
		g.expire(id)
		until(g.t, "the expiry is sent", func() bool { return g.count("stock_reservations WHERE expiring") == 1 })
	}
	t.Run("the confirm is first: the order is its buyer's", func(t *testing.T) {
		t.Parallel()
		g := startGateway(t, nil)
		g.stock("A", 10)
		id := g.reserved("A")
		unlock := g.lock("stock")
		paid := g.paying(id)
		g.running(id, "confirm_stock")
		expiring(g, id)
		must(t, unlock())
		g.leaves(id, "A", leftConfirmed)
		if a := paid(); a.body.Status != "captured" {
			t.Errorf("the payment is answered %s", a.raw)
		}
	})
	t.Run("the expiry is first: the payment is voided and the order rejected", func(t *testing.T) {
		t.Parallel()
		g := startGateway(t, nil)
		g.stock("A", 10)
		id := g.reserved("A")
		unlock := g.lock("stock")
		expiring(g, id)
		paid := g.paying(id)
		g.running(id, "confirm_stock")
		must(t, unlock())
		g.leaves(id, "A", left{
			"rejected none unfulfilled INV_003", "reserve_stock failed, authorize done, confirm_stock failed, capture skipped, void done",
			"created stock_reserved updated updated rejected", voided, "expired 10 0", money{},
		})
		if a := paid(); a.body.Code != "INV_003" {
			t.Errorf("the payment is answered %s", a.raw)
		}
	})
}

// TestACancelMeetsTheReserve: recorded before the stock is reserved, a cancel pays nothing; recorded after it, it takes back what was done.
// Either way no piece stays held. command/inventory has the two messages in the wrong order, and in two transactions at once.
func TestACancelMeetsTheReserve(t *testing.T) {
	t.Parallel()
	t.Run("the cancel is first: nothing is paid", func(t *testing.T) {
		t.Parallel()
		g := startGateway(t, nil)
		g.stock("A", 10)
		g.stopWork()
		id := g.accept("/v1/orders", draft("A", 1, "pm_ok")).body.ID
		g.accept("/v1/orders/"+id+"/cancel", nil)
		g.background(g.assemble().Work)
		g.leaves(id, "A", left{
			"cancelled none unfulfilled", "reserve_stock done, authorize skipped, confirm_stock skipped, capture skipped, cancel_reservation done",
			"created cancel_requested stock_reserved cancelled", "none", "cancelled 10 0", money{},
		})
	})
	t.Run("the reserve is first: what is authorized meanwhile is voided", func(t *testing.T) {
		t.Parallel()
		g, provider := startHolding(t, "-authorize")
		g.stock("A", 10)
		id := g.accept("/v1/orders", draft("A", 1, "pm_ok")).body.ID
		<-provider.arrived
		g.accept("/v1/orders/"+id+"/cancel", nil)
		provider.release()
		g.leaves(id, "A", left{
			"cancelled none unfulfilled", "reserve_stock done, authorize done, confirm_stock skipped, capture skipped, void done, cancel_reservation done",
			"created stock_reserved cancel_requested updated updated cancelled", voided, "cancelled 10 0", money{},
		})
	})
}

// inTurn lets two commands, of two instances, wait for one order and gives it to them in their turn: PostgreSQL's queue of a lock is first come, first served.
// It is false if the machine was too slow to hold them: after a lock_timeout of 300 ms they come again in any order.
func (g *gateway) inTurn(orderID string, first, second func() answer) (a, b answer, forced bool) {
	g.t.Helper()
	ctx := context.WithoutCancel(g.t.Context())
	id, _ := order.Parse(order.PrefixOrder, orderID)
	held, err := g.db.Pool.Begin(ctx)
	must(g.t, err)
	defer func() { _ = held.Rollback(ctx) }()
	_, err = held.Exec(ctx, "SELECT FROM orders WHERE id = $1 FOR UPDATE", uuid.UUID(id))
	must(g.t, err)
	begin := time.Now()
	answers := [2]chan answer{make(chan answer, 1), make(chan answer, 1)}
	for i, send := range []func() answer{first, second} {
		go func() { answers[i] <- send() }()
		for time.Since(begin) < time.Second { // a batch gives its place in the queue up after 10 ms, and its command takes one alone
			if g.count("pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database() AND clock_timestamp() - query_start > interval '20 ms'") > i {
				break
			}
		}
	}
	must(g.t, held.Rollback(ctx))
	forced = time.Since(begin) < 250*time.Millisecond
	return <-answers[0], <-answers[1], forced
}

// TestAPatchOrAShipmentMeetsACancel: each needs the order's lock, and is decided on what the one before it left.
func TestAPatchOrAShipmentMeetsACancel(t *testing.T) {
	t.Parallel()
	cancel := func(g *gateway, path, _ string) func() answer {
		return func() answer { return g.do("POST", path+"/cancel", nil) }
	}
	ship := func(g *gateway, path, _ string) func() answer {
		return func() answer { return g.do("POST", path+"/shipments", nil) }
	}
	patch := func(g *gateway, path, etag string) func() answer {
		return func() answer { return g.do("PATCH", path, `{"metadata":{"a":"b"}}`, "If-Match", etag) }
	}
	patchAny := func(g *gateway, path, _ string) func() answer { return patch(g, path, "*") }
	refunded := func(events string) left {
		l := leftRefunded
		l.events = eventsPaid + " " + events
		return l
	}
	const cancelled = "cancel_requested refunded cancelled"
	for name, c := range map[string]struct {
		first, second func(g *gateway, path, etag string) func() answer
		answers       string
		left          left
	}{
		"the patch is first: both happen":                 {patch, cancel, "200 202", refunded("updated " + cancelled)},
		"the cancel is first: a patch of what it changed": {cancel, patch, "202 REQ_010", refunded(cancelled)},
		"the cancel is first: a patch of any state":       {cancel, patchAny, "202 200", refunded("cancel_requested updated refunded cancelled")},
		"the cancel is first: no shipment":                {cancel, ship, "202 ORD_002", refunded(cancelled)},
		"the shipment is first: no cancel": {ship, cancel, "201 ORD_002", left{
			"confirmed paid shipped", stepsDone, eventsPaid + " shipped", captured + " shipment.created", "confirmed 9 0", money{captures: 1, captured: 1000},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startGateway(t, nil)
			other := g.at(g.serve(g.assemble()))
			for try := range 10 {
				sku := fmt.Sprint("A", try)
				g.stock(sku, 10)
				placed := g.accept("/v1/orders", draft(sku, 1, "pm_ok"), "Prefer", "wait=10")
				path := "/v1/orders/" + placed.body.ID
				g.quiet()
				etag := placed.header.Get("ETag")
				a, b, forced := g.inTurn(placed.body.ID, c.first(g, path, etag), c.second(other, path, etag))
				if !forced {
					continue
				}
				said := func(a answer) string {
					if a.body.Code != "" {
						return a.body.Code
					}
					return strconv.Itoa(a.status)
				}
				if got := said(a) + " " + said(b); got != c.answers {
					t.Errorf("%s\n%s\n%s", got, a.raw, b.raw)
				}
				g.leaves(placed.body.ID, sku, c.left)
				return
			}
			t.Error("the machine was never quick enough")
		})
	}
}
