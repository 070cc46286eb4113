package command

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ordergate/ordergate/command/inventory"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/internal/pgtest"
)

// trips counts what is sent to the primary: batches, and statements alone.
type trips struct{ atomic.Int32 }

func (n *trips) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	n.Add(1)
	return ctx
}

func (*trips) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (n *trips) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	n.Add(1)
	return ctx
}

func (*trips) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

func (*trips) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// TestABatchTakesTwoRoundTrips, whatever its commands lock.
func TestABatchTakesTwoRoundTrips(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	b.coupon("TEN", `{"percentage": 50, "total": 10}`, true)
	config, sent := b.cfg.Pool.Config(), &trips{}
	config.ConnConfig.Tracer, config.MaxConns = sent, 1
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	c := b.cfg
	c.Pool = pool
	counted := &bundle{Commands: New(c), t: t, db: db}
	withCoupon := func() operation {
		code, reference := "TEN", "a-number-"+testIDs.Mint(c.Now(), 1).Format("")
		return placeOrder{alice, api.PlaceOrder{
			Currency: "EUR", CustomerRef: "c", CouponCode: &code, Reference: &reference, Lines: []api.PlaceOrderLine{{Sku: "A", Quantity: 1}},
		}}
	}
	for name, next := range map[string]func() operation{
		"placed":                    func() operation { return b.place("A") },
		"placed, coupon and number": withCoupon,
		"cancelled":                 func() operation { return cancelOrder{ref: b.placed()} },
		"refunded": func() operation {
			return refundPayment{ref: b.paid(b.placed()), CreateRefund: api.CreateRefund{Reason: "r"}}
		},
		"shipped":                         func() operation { return shipOrder{ref: b.confirmed(1)} },
		"delivered, which takes one more": func() operation { return deliverShipment{ref: b.shipped(b.confirmed(1), 1)} },
	} {
		want := int32(2)
		if name == "delivered, which takes one more" {
			want = 4 // its order is looked up, and then loaded
		}
		for range 2 { // the first prepares the statements
			one := b.call("test", next())
			sent.Store(0)
			counted.executeAll(one)
			if one.err != nil {
				t.Fatal(name, one.err)
			}
		}
		if n := sent.Load(); n != want {
			t.Errorf("%s: %d round trips", name, n)
		}
	}
	var n int32
	for range 2 {
		placed := b.placed()
		sent.Store(0)
		if _, err := counted.saga(false, reply(inventory.ReserveRefused, placed)); err != nil {
			t.Fatal(err)
		}
		n = sent.Load()
	}
	if n != 3 {
		t.Errorf("a batch of the saga takes %d round trips", n)
	}
}
