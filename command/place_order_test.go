package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ordergate/ordergate/command/inventory"
	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/internal/bus"
	"github.com/ordergate/ordergate/internal/outbox"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/order"
)

// coupon makes a coupon of alice's.
func (b *bundle) coupon(code, rules string, limited bool) {
	b.t.Helper()
	if _, err := b.db.Pool.Exec(b.t.Context(), "INSERT INTO coupons (account, mode, code, rules, limited) VALUES (1, 'test', $1, $2, $3)", code, rules, limited); err != nil {
		b.t.Fatal(err)
	}
}

// used is how often a coupon is used, by its count and by its redemptions.
func (b *bundle) used(code string) [2]int {
	b.t.Helper()
	return [2]int{b.count("SELECT used FROM coupons WHERE code = '" + code + "'"), b.count("SELECT count(*) FROM coupon_redemptions WHERE code = '" + code + "'")}
}

// placeWith is an order of one piece of A with a coupon and a reference; empty: none.
func placeWith(customer, code, reference string) operation {
	body := api.PlaceOrder{Currency: "EUR", CustomerRef: customer, Lines: []api.PlaceOrderLine{{Sku: "A", Quantity: 1}}}
	if code != "" {
		body.CouponCode = &code
	}
	if reference != "" {
		body.Reference = &reference
	}
	return placeOrder{alice, body}
}

// race runs calls side by side, each in a transaction of its own, again under its key while the machine is too busy, and returns how often
// each end came.
func (b *bundle) race(calls []*call) map[string]int {
	var wg sync.WaitGroup
	var mu sync.Mutex
	ends := map[string]int{}
	for _, first := range calls {
		wg.Go(func() {
			c := first
			for b.alone(c); slices.Contains([]string{"RATE_003", "SYS_003"}, got(c)); b.alone(c) {
				next := *first
				next.effect, next.err, next.done, next.deadline = effect{}, nil, false, time.Now().Add(Budget)
				c = &next
			}
			mu.Lock()
			defer mu.Unlock()
			ends[got(c)]++
		})
	}
	wg.Wait()
	return ends
}

// reply is a message of inventory about an order.
func reply(kind string, of order.Ref) bus.Message {
	m := outbox.New(inventory.TopicReplies, kind, of, outbox.Cause{ID: testIDs.Mint(time.Now(), 1), Now: time.Now()}, inventory.Reply{Attempt: 1})
	payload, _ := json.Marshal(m.Envelope) // plain structs
	return bus.Message{ID: m.ID, Topic: m.Topic, Payload: payload}
}

// saga lets the saga handle messages in one transaction.
func (b *bundle) saga(skipLocked bool, msgs ...bus.Message) (h bus.Handled, err error) {
	err = pg.InPipeline(b.t.Context(), b.cfg.Pool, func(*pgx.Batch) {}, func(tx pgx.Tx, ends *pg.Ends) error {
		h, err = b.Saga(b.cfg.Pool, nil).handler(applyStockReply)(b.t.Context(), tx, msgs, skipLocked)
		*ends = h.Ends
		return err
	})
	return h, err
}

func placedBy(c *call) order.Ref { return order.Ref{Owner: alice, ID: c.result.OrderID} }

// hold runs a statement in a session of its own, which keeps its locks until release is called.
func (b *bundle) hold(statement string, args ...any) (release func()) {
	b.t.Helper()
	ctx := context.WithoutCancel(b.t.Context())
	tx, err := b.db.Pool.Begin(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	release = sync.OnceFunc(func() { _ = tx.Rollback(ctx) })
	b.t.Cleanup(release)
	if _, err = tx.Exec(ctx, statement, args...); err != nil {
		b.t.Fatal(err)
	}
	return release
}

func TestALimitedCouponMakesAsManyOrdersAsItsLimit(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	b.coupon("TEN", `{"percentage": 50, "total": 10}`, true)
	calls := make([]*call, 64)
	for i := range calls {
		calls[i] = b.call("placeOrder", placeWith(fmt.Sprint("c-", i), "TEN", ""))
	}
	if ends := b.race(calls); ends["202"] != 10 || ends["CPN_003"] != 54 {
		t.Error(ends)
	}
	if n, orders := b.used("TEN"), b.count("SELECT count(*) FROM orders"); n != [2]int{10, 10} || orders != 10 {
		t.Error(n, orders)
	}
}

func TestAReferenceIsOfOneOrder(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	calls := make([]*call, 16)
	for i := range calls {
		calls[i] = b.call("placeOrder", placeWith("c", "", "PO-1"))
	}
	if ends := b.race(calls); ends["202"] != 1 || ends["ORD_011"] != 15 {
		t.Error(ends)
	}
	var first string
	if err := db.Pool.QueryRow(t.Context(), "SELECT replace(order_id::text, '-', '') FROM order_references").Scan(&first); err != nil {
		t.Fatal(err)
	}
	other := b.call("placeOrder", placeWith("c", "", "PO-1"))
	one, next := b.call("placeOrder", placeWith("c", "", "PO-2")), b.call("placeOrder", placeWith("c", "", "PO-2"))
	b.executeAll(one, other, next)
	if got := ends([]*call{one, other, next}); got != "202, ORD_011, ORD_011" {
		t.Error(got)
	}
	for id, refused := range map[string]*call{"ord_" + first: other, placedBy(one).ID.Format(order.PrefixOrder): next} {
		again := b.call("placeOrder", refused.op, refused.Key)
		b.executeAll(again)
		var problem struct {
			OrderID string `json:"order_id"`
		}
		if err := json.Unmarshal(again.result.Body.Bytes, &problem); got(again) != "replayed 409" || err != nil || problem.OrderID != id {
			t.Error(got(again), string(again.result.Body.Bytes), "the reference is that of", id)
		}
	}
	if again := b.call("placeOrder", one.op, one.Key); true { // the order that has the reference is repeated, not refused
		b.executeAll(again)
		if got(again) != "replayed 202" || again.result.OrderID != one.result.OrderID {
			t.Error(got(again))
		}
	}
	bobs := b.call("placeOrder", placeOrder{order.Owner{Account: 1, Mode: "live"}, one.op.(placeOrder).PlaceOrder})
	b.executeAll(bobs)
	if got := got(bobs); got != "CAT_005" { // not ORD_011: a reference belongs to an account and a mode
		t.Error(got)
	}
}

func TestABatchSeesItsOwnCouponsAndReferences(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	b.coupon("TWO", `{"percentage": 50, "total": 2}`, true)
	b.coupon("ONCE", `{"percentage": 50, "per_customer": 1}`, true)
	b.coupon("ANY", `{"percentage": 10}`, false)
	known := b.call("placeOrder", placeWith("c", "TWO", "PO-1"))
	b.executeAll(known)
	place := func(customer, code, reference string) *call {
		return b.call("placeOrder", placeWith(customer, code, reference))
	}
	calls := []*call{
		b.call("placeOrder", known.op, known.Key), place("c", "TWO", "PO-1"), place("c", "TWO", "PO-2"), place("d", "TWO", "PO-3"), place("d", "ONCE", "PO-3"),
		place("d", "ONCE", ""), place("e", "ONCE", "PO-2"), place("e", "ANY", ""), place("e", "ANY", ""), place("e", "NONE", "PO-4"), place("e", "", "PO-4"),
	}
	b.executeAll(calls...)
	if got := ends(calls); got != "replayed 202, ORD_011, 202, CPN_003, 202, CPN_003, ORD_011, 202, 202, CPN_001, 202" {
		t.Error(got)
	}
	for code, want := range map[string][2]int{"TWO": {2, 2}, "ONCE": {1, 1}, "ANY": {0, 2}} {
		if n := b.used(code); n != want {
			t.Error(code, n)
		}
	}
	if n := b.count("SELECT count(*) FROM order_references"); n != 4 {
		t.Error(n, "references")
	}
}

// TestAHeldCouponOrReferenceDelaysNobodyElse: a session of psql holds them. The orders that need them end SYS_003, told by the server, and
// their keys are free.
func TestAHeldCouponOrReferenceDelaysNobodyElse(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	b.coupon("HELD", `{"percentage": 50, "total": 10}`, true)
	b.coupon("FREE", `{"percentage": 50, "total": 10}`, true)
	release := b.hold("SELECT FROM coupons WHERE code = 'HELD' FOR UPDATE")
	releaseNumber := b.hold("SELECT pg_advisory_xact_lock($1)", number{alice, "PO-HELD"}.lockID())
	place := func(code, reference string) *call { return b.call("placeOrder", placeWith("c", code, reference)) }
	var calls []*call
	for try := 1; ; try++ {
		calls = []*call{place("HELD", ""), place("FREE", fmt.Sprint("PO-1-", try)), place("", "PO-HELD"), place("", ""), place("HELD", "PO-2"), b.call("adjust", adjust("A", 1))}
		b.executeAll(calls...)
		if got := ends(calls); got != "SYS_003, 202, SYS_003, 202, SYS_003, 201" {
			t.Error(got)
		}
		lost := slices.IndexFunc(calls, func(c *call) bool { return errors.Is(c.err, pg.ErrConnectionLost) })
		if lost < 0 {
			break
		}
		if try == 3 { // on a busy machine the server's word may come after endTime
			t.Fatal("the connection of a waiting order was given up:", calls[lost].err)
		}
	}
	release()
	releaseNumber()
	for _, c := range calls {
		again := b.call(c.Operation, c.op, c.Key)
		if b.executeAll(again); got(again) != "202" && got(again) != "replayed "+got(c) {
			t.Error(got(again), "after", got(c))
		}
	}
}

// TestWaitsForLocksEndBeforeTheBudget: a row may cost two waits, so all waits of a command together fit into what is left.
func TestWaitsForLocksEndBeforeTheBudget(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	for name, c := range map[string]struct {
		op     operation
		queued bool
		most   time.Duration
	}{
		"nothing is locked":                         {placeWith("c", "", ""), true, lockTime},
		"a coupon":                                  {placeWith("c", "CODE", ""), false, lockTime},
		"a coupon, and a reference too":             {placeWith("c", "CODE", "PO-1"), false, 175 * time.Millisecond},
		"a coupon, in a batch that others wait for": {placeWith("c", "CODE", ""), true, queuedLockTime},
	} {
		if err := pg.InTx(t.Context(), connect(t, db.PrimaryURL), func(tx pgx.Tx) error {
			first := &pgx.Batch{}
			limitLocks(first, &batch{calls: []*call{{needs: c.op.needs()}}, tryOptions: tryOptions{queued: c.queued}}, time.Now().Add(Budget))
			if err := tx.SendBatch(t.Context(), first).Close(); err != nil {
				return err
			}
			var text string
			err := tx.QueryRow(t.Context(), "SHOW lock_timeout").Scan(&text)
			if limit, parseErr := time.ParseDuration(text); limit > c.most || limit <= 0 || parseErr != nil {
				t.Errorf("%s: lock_timeout %s, at most %v", name, text, c.most)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnOrderThatEndsWithoutASaleFreesItsCoupon(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	b.coupon("ONCE", `{"percentage": 50, "per_customer": 1, "total": 5}`, true)
	place := func(want string) *call {
		t.Helper()
		c := b.call("placeOrder", placeWith("c", "ONCE", ""))
		if b.executeAll(c); got(c) != want {
			t.Fatal(got(c), "and not", want)
		}
		return c
	}
	end := func(kind string, c *call) {
		t.Helper()
		for range 2 { // a second reply frees nothing again
			if _, err := b.saga(false, reply(kind, placedBy(c))); err != nil {
				t.Fatal(err)
			}
		}
	}
	rejected := place("202")
	place("CPN_003")
	end(inventory.ReserveRefused, rejected)
	if n := b.used("ONCE"); n != [2]int{0, 0} {
		t.Error("rejected:", n)
	}
	cancelled := place("202")
	cancel := b.call("cancelOrder", cancelOrder{ref: placedBy(cancelled)})
	b.executeAll(cancel)
	place("CPN_003") // it is not cancelled yet
	end(inventory.ReserveRefused, cancelled)
	if n := b.used("ONCE"); got(cancel) != "202" || n != [2]int{0, 0} || b.count("SELECT count(*) FROM orders WHERE status = 'cancelled'") != 1 {
		t.Error(got(cancel), n)
	}
	place("202")
	if n := b.used("ONCE"); n != [2]int{1, 1} {
		t.Error(n)
	}
}

// TestAHeldCouponDelaysOnlyTheEndOfItsOrders: replies that end orders of other coupons, or of none, are handled beside it.
func TestAHeldCouponDelaysOnlyTheEndOfItsOrders(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	b.coupon("HELD", `{"percentage": 50, "total": 10}`, true)
	b.coupon("FREE", `{"percentage": 50, "total": 10}`, true)
	b.coupon("ANY", `{"percentage": 10}`, false)
	var calls []*call
	var msgs []bus.Message
	for _, code := range []string{"HELD", "FREE", "ANY", ""} {
		calls = append(calls, b.call("placeOrder", placeWith("c", code, "")))
	}
	b.executeAll(calls...)
	for _, c := range calls {
		msgs = append(msgs, reply(inventory.ReserveRefused, placedBy(c)))
	}
	release := b.hold("SELECT FROM coupons WHERE code = 'HELD' FOR UPDATE")
	if _, err := b.saga(false, msgs...); err == nil {
		t.Error("it does not wait for a coupon")
	} else if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != pg.LockNotAvailable {
		t.Error(err)
	}
	h, err := b.saga(true, msgs...)
	if err != nil || len(h.Blocked) != 1 || h.Blocked[0].ID != msgs[0].ID {
		t.Fatal(len(h.Blocked), err)
	}
	if n := b.count("SELECT count(*) FROM orders WHERE status = 'rejected'"); n != 3 || b.used("FREE") != [2]int{0, 0} || b.used("HELD") != [2]int{1, 1} {
		t.Error(n, b.used("FREE"), b.used("HELD"))
	}
	release()
	if h, err = b.saga(true, h.Blocked...); err != nil || len(h.Blocked) > 0 || b.used("HELD") != [2]int{0, 0} {
		t.Error(len(h.Blocked), err, b.used("HELD"))
	}
}

// TestASoldOutMarkRefusesOnlyOrdersThatAskForMore: after the look-up of their keys, and before anything is stored.
func TestASoldOutMarkRefusesOnlyOrdersThatAskForMore(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	stock := inventory.New(inventory.Config{Pool: b.cfg.Pool, IDs: testIDs, TTL: time.Hour, Wake: func() {}, SoldOut: b.cfg.SoldOut})
	take := func(quantity int64) {
		t.Helper()
		m := outbox.New(inventory.TopicCommands, inventory.Reserve, order.Ref{Owner: alice, ID: testIDs.Mint(time.Now(), 1)},
			outbox.Cause{ID: testIDs.Mint(time.Now(), 1), Now: time.Now()}, inventory.Command{Attempt: 1, Lines: []inventory.Line{{SKU: "A", Quantity: quantity}}})
		payload, _ := json.Marshal(m.Envelope) // plain structs
		var h bus.Handled
		if err := pg.InPipeline(t.Context(), b.cfg.Pool, func(*pgx.Batch) {}, func(tx pgx.Tx, ends *pg.Ends) (err error) {
			h, err = stock.Handle(t.Context(), tx, []bus.Message{{ID: m.ID, Topic: m.Topic, Payload: payload}}, false)
			*ends = h.Ends
			return err
		}); err != nil {
			t.Fatal(err)
		}
		h.After()
	}
	order := func(quantity int32, key ...string) *call {
		return b.call("placeOrder", placeOrder{alice, api.PlaceOrder{Currency: "EUR", CustomerRef: "c", Lines: []api.PlaceOrderLine{{Sku: "B", Quantity: 1}, {Sku: "A", Quantity: quantity}}}}, key...)
	}
	known := order(3, "a-known-key")
	b.executeAll(known)
	b.hold("SELECT pg_advisory_xact_lock($1)", order(3, "a-held-key").lockID())
	take(98)
	for try := 0; ; try++ { // a mark lasts a second, which a busy machine may need
		take(3)
		if again := order(3); true {
			b.executeAll(again)
			if got(again) != "INV_002" && try < 5 {
				continue
			}
		}
		break
	}
	calls := []*call{order(3, "a-known-key"), order(3, "a-held-key"), order(3, "a-new-key"), order(2), b.call("adjust", adjust("A", 1)), order(3, "one-more-key")}
	b.executeAll(calls...)
	if got := ends(calls); got != "replayed 202, IDEM_003, INV_002, 202, 201, INV_002" { // marks count where a batch begins
		t.Error(got)
	}
	e, _ := errors.AsType[*apierr.Error](calls[2].err)
	if status, body := e.Problem(apierr.ProblemContext{}); status != 409 || !strings.Contains(string(body), `"skus":[{"sku":"A","requested":3,"available":2}]`) || !e.Retryable() {
		t.Error(status, string(body))
	}
	if n := b.count("SELECT count(*) FROM idempotency_keys WHERE key IN ('a-new-key', 'one-more-key')"); n != 0 {
		t.Error(n, "refusals are stored")
	}
	again := order(3, "a-new-key") // an adjustment ended the mark
	b.executeAll(again)
	if got := got(again); got != "202" {
		t.Error(got)
	}
}
