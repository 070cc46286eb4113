package command

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/command/catalogue"
	"github.com/ordergate/ordergate/command/coupons"
	"github.com/ordergate/ordergate/command/inventory"
	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/ordersdb"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

// QuoteOrder prices an order that is not placed. It reads products, coupon and stock on the primary, in one snapshot, and locks, writes and
// publishes nothing; repeating it is safe. The result is 200 and the quote, also where stock is short. Without a customer a coupon's limit
// per customer does not count. Refusals: CAT_003, CAT_004, CAT_005, CPN_001, CPN_002, CPN_003, CPN_004, ORD_003, ORD_005, ORD_008.
// Failures: SYS_002, SYS_003, RATE_003.
func (c *Commands) QuoteOrder(ctx context.Context, e Envelope, body api.QuoteOrder) (Result, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), Budget)
	defer cancel()
	ctx, span := c.cfg.Tracer.Start(ctx, "command "+e.Operation)
	defer span.End()
	q := &quoteOrder{placeOrder: asOrder(e.Owner, body)}
	err := c.guard.Do(ctx, func(ctx context.Context) error {
		if deadline, _ := ctx.Deadline(); time.Until(deadline) < leastTime { // the turn came too late
			return errQueued
		}
		return pg.Snapshot(ctx, c.cfg.Pool, func(tx pgx.Tx) error { return q.read(ctx, tx) })
	})
	if err != nil {
		return Result{}, toClientError(err)
	}
	lines, amounts, err := q.draft(q.loaded).Price(c.cfg.Now())
	if err != nil {
		return Result{LSN: q.lsn}, apierr.From(err) // a read may have to see why
	}
	quote, err := view.Finish(q.quote(lines, amounts), 0)
	return Result{Status: 200, ContentType: "application/json", Body: quote, LSN: q.lsn}, err
}

// quoteOrder is an order that is not placed, with what its price depends on.
type quoteOrder struct {
	placeOrder
	loaded    *loaded
	available map[order.Item]int64
	lsn       uint64 // of the log, after the reads
}

// asOrder is the order that a quote is about.
func asOrder(owner order.Owner, body api.QuoteOrder) placeOrder {
	p := placeOrder{owner, api.PlaceOrder{Currency: body.Currency, CouponCode: body.CouponCode, Shipping: body.Shipping, Tax: body.Tax}}
	if body.CustomerRef != nil {
		p.CustomerRef = *body.CustomerRef
	}
	for _, l := range body.Lines {
		p.Lines = append(p.Lines, api.PlaceOrderLine{Sku: l.Sku, Quantity: l.Quantity})
	}
	return p
}

// read reads what the order would be decided on.
func (q *quoteOrder) read(ctx context.Context, tx pgx.Tx) (err error) {
	n := q.needs()
	q.loaded = &loaded{}
	if q.loaded.products, err = catalogue.Read(ctx, tx, n.products); err != nil {
		return err
	}
	if q.loaded.coupons, err = coupons.Read(ctx, tx, n.coupons); err != nil {
		return err
	}
	if q.available, err = inventory.Available(ctx, tx, n.products); err != nil {
		return err
	}
	lsn, err := ordersdb.New(tx).FlushLSN(ctx)
	if err != nil {
		return fmt.Errorf("read log position: %w", err)
	}
	q.lsn = uint64(lsn)
	return nil
}

// quote is the quote as a client sees it.
func (q *quoteOrder) quote(lines []order.Line, a order.Amounts) api.Quote {
	quote := api.Quote{
		Currency: q.Currency, Lines: make([]api.QuoteLine, len(lines)), Subtotal: api.Money(a.Subtotal), Discount: api.Money(a.Discount),
		Shipping: api.Money(a.Shipping), Tax: api.Money(a.Tax), Total: api.Money(a.Total), CouponCode: q.CouponCode, Available: true,
	}
	for i, l := range lines {
		enough := q.available[q.item(i)] >= l.Quantity
		quote.Available = quote.Available && enough
		quote.Lines[i] = api.QuoteLine{
			Sku: l.SKU, Name: l.Name, Quantity: int32(l.Quantity), UnitPrice: api.Money(l.UnitPrice), Total: api.Money(l.Total()),
			Discount: api.Money(l.Discount), Available: enough,
		}
	}
	return quote
}
