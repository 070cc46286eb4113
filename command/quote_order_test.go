package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/order"
)

// quote asks for the price of pieces of A and B, and says it in a word: total, discount and availability, or the refusal.
func (b *bundle) quote(customer, code string, a, bs int32) string {
	b.t.Helper()
	body := api.QuoteOrder{Currency: "EUR", Lines: []api.QuoteOrderLine{{Sku: "A", Quantity: a}, {Sku: "B", Quantity: bs}}}
	if code != "" {
		body.CouponCode = &code
	}
	if customer != "" {
		body.CustomerRef = &customer
	}
	r, err := b.QuoteOrder(b.t.Context(), Envelope{Owner: alice, Operation: "quoteOrder"}, body)
	if e, ok := errors.AsType[*apierr.Error](err); ok {
		if r.LSN == 0 && !e.Retryable() {
			b.t.Errorf("%s has no consistency token", e.Code)
		}
		return string(e.Code)
	}
	var q api.Quote
	if err = errors.Join(err, json.Unmarshal(r.Body.Bytes, &q)); err != nil || r.Status != 200 || r.LSN == 0 || r.LSN == token.NoPosition || r.Row(order.Owner{}) != "" {
		b.t.Fatal(r, err)
	}
	return fmt.Sprint(q.Total.Amount, " ", q.Discount.Amount, " ", q.Lines[0].Available, " ", q.Lines[1].Available, " ", q.Available)
}

func TestAQuoteIsWhatAnOrderWouldCostNow(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	b.coupon("ANY", `{"percentage": 10}`, false)
	b.coupon("ONCE", `{"percentage": 50, "per_customer": 1}`, true)
	b.coupon("TWO", `{"percentage": 50, "total": 2}`, true)
	for _, code := range []string{"ONCE", "TWO"} {
		b.executeAll(b.call("placeOrder", placeWith("c", code, "")))
	}
	state := func() (all string) {
		if err := db.Pool.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM orders) || ' ' || (SELECT count(*) FROM idempotency_keys) || ' ' || (SELECT count(*) FROM outbox) || ' ' ||
			(SELECT sum(used) FROM coupons) || ' ' || (SELECT sum(on_hand - reserved) FROM stock)`).Scan(&all); err != nil {
			t.Fatal(err)
		}
		return all
	}
	before := state()
	// What a quote reads may be locked by anybody.
	b.hold("SELECT FROM coupons, stock, products FOR UPDATE")
	for _, c := range []struct {
		name, customer, code string
		a, b                 int32
		want                 string
	}{
		{"prices and availability", "c", "", 100, 1, "10100 0 true true true"},
		{"more than there is", "c", "", 1, 101, "10200 0 true false false"},
		{"a coupon without a limit", "", "ANY", 1, 2, "270 30 true true true"},
		{"a limited coupon that is left", "c", "TWO", 1, 1, "100 100 true true true"},
		{"one that this customer has used", "c", "ONCE", 1, 1, "CPN_003"},
		{"one that another customer has used", "d", "ONCE", 1, 1, "100 100 true true true"},
		{"a limit per customer, without a customer", "", "ONCE", 1, 1, "100 100 true true true"},
		{"no such coupon", "c", "NONE", 1, 1, "CPN_001"},
	} {
		if got := b.quote(c.customer, c.code, c.a, c.b); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	if after := state(); after != before {
		t.Errorf("%s became %s", before, after)
	}
}

func TestAQuoteReadsOneMoment(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	q := &quoteOrder{placeOrder: asOrder(alice, api.QuoteOrder{Currency: "EUR", Lines: []api.QuoteOrderLine{{Sku: "A", Quantity: 1}}})}
	if err := pg.Snapshot(t.Context(), b.cfg.Pool, func(tx pgx.Tx) error {
		if err := q.read(t.Context(), tx); err != nil { // it takes the snapshot
			return err
		}
		if _, err := db.Pool.Exec(t.Context(), `UPDATE products SET prices = '{"EUR": 1}'`); err != nil {
			return err
		}
		if err := q.read(t.Context(), tx); err != nil {
			return err
		}
		_, err := tx.Exec(t.Context(), "DELETE FROM products")
		if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != pg.ReadOnlyTransaction {
			t.Error("it may write:", err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if price := q.loaded.products[order.Item{Owner: alice, SKU: "A"}].Prices["EUR"]; price != 100 {
		t.Error("a price of another moment:", price)
	}
}

// TestAQuoteHasTheBudgetOfACommand: it waits for its turn, and for a silent primary, no longer than that.
func TestAQuoteHasTheBudgetOfACommand(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	proxy, url := pgtest.Proxy(t, db.PrimaryURL)
	pool := connect(t, url)
	t.Cleanup(proxy.Cut) // else closing the pool would wait
	b := setup(t, pool, db)
	if got := b.quote("c", "", 1, 1); got != "200 0 true true true" {
		t.Fatal(got)
	}
	taken, release := make(chan struct{}), make(chan struct{})
	for range pool.Config().MaxConns / 2 {
		go func() {
			_ = b.guard.Do(context.WithoutCancel(t.Context()), func(context.Context) error { taken <- struct{}{}; <-release; return nil })
		}()
		<-taken
	}
	if got := b.quote("c", "", 1, 1); got != "RATE_003" {
		t.Error("without a turn:", got)
	}
	close(release)
	proxy.Freeze()
	begin := time.Now()
	if got := b.quote("c", "", 1, 1); got != "SYS_003" {
		t.Error("a silent primary:", got)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Error("it took", took)
	}
	proxy.Cut()
	if got := b.quote("c", "", 1, 1); got != "SYS_002" {
		t.Error("a primary that is down:", got)
	}
}
