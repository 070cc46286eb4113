package command

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/ordergate/ordergate/gen/ordersdb"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

// pollEvery bounds how late a waiter hears of a decision if its wake-up was lost.
const pollEvery = 500 * time.Millisecond

// Changed wakes the requests that wait for the order; for changes that other processes made.
func (c *Commands) Changed(id order.ID) { c.waiters.Wake(id) }

// AwaitPlaced turns the 202 of a placed order into 201 as soon as the saga decided it, within the given time; else it gives
// the 202 back. The 201 shows the order at the version that decided it, so that its bytes are the same until its address changes, which no event has.
func (c *Commands) AwaitPlaced(ctx context.Context, e Envelope, r Result, within time.Duration) Result {
	return c.await(ctx, r, within, func(ctx context.Context) (Result, bool, error) {
		return c.decidedOrder(ctx, e.Owner, r, 201, (*order.Order).Decided)
	})
}

// AwaitCancelled turns the 202 of a cancellation into 200 as soon as the order is final.
func (c *Commands) AwaitCancelled(ctx context.Context, e Envelope, r Result, within time.Duration) Result {
	return c.await(ctx, r, within, func(ctx context.Context) (Result, bool, error) {
		return c.decidedOrder(ctx, e.Owner, r, 200, func(o *order.Order) bool { return o.Status.Final() })
	})
}

// await polls outside the budget and the bulkhead; an error of the database only means that the answer stays 202.
func (c *Commands) await(ctx context.Context, r Result, within time.Duration, decided func(context.Context) (Result, bool, error)) Result {
	if r.Status != 202 || within <= 0 {
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	woken, leave := c.waiters.Join(r.OrderID)
	defer leave()
	for {
		result, ok := r, false
		if err := c.onLookupConn(ctx, func() (err error) { result, ok, err = decided(ctx); return err }); ok && err == nil {
			return result
		}
		select {
		case <-ctx.Done():
			return r
		case <-woken:
		case <-time.After(pollEvery):
		}
	}
}

// onLookupConn runs f on one of the connections that are kept for look-ups beside the commands.
func (c *Commands) onLookupConn(ctx context.Context, f func() error) error {
	select {
	case c.lookups <- struct{}{}:
		defer func() { <-c.lookups }()
		return f()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// decidedOrder is the result with the order at its first state that decided accepts, if it has reached one.
func (c *Commands) decidedOrder(ctx context.Context, owner order.Owner, r Result, status int, decided func(*order.Order) bool) (Result, bool, error) {
	q := ordersdb.New(c.cfg.Pool)
	o, row, err := orderNow(ctx, q, order.Ref{Owner: owner, ID: r.OrderID})
	if err != nil || !decided(o) {
		return r, false, err
	}
	events, err := readEvents(ctx, q, owner, r.OrderID)
	if err != nil {
		return r, false, err
	}
	if o, err = order.Fold(r.OrderID, events, decided); err != nil {
		return r, false, err
	}
	body, err := view.OrderBody(o, row.Address)
	if err != nil {
		return r, false, err
	}
	seen := &orderChange{owner: owner, order: o, rev: row.Rev}
	r.Status, r.Body, r.Rev, r.LSN = status, body, row.Rev, position(ctx, c.cfg.Pool, &rows{orders: []*orderChange{seen}})
	if seen.superseded {
		r.Rev = 0
	}
	return r, true, nil
}

// orderNow is an order as it stands on the primary, with its row.
func orderNow(ctx context.Context, q *ordersdb.Queries, ref order.Ref) (*order.Order, ordersdb.GetOrderStateRow, error) {
	row, err := q.GetOrderState(ctx, ordersdb.GetOrderStateParams{Account: ref.Account, Mode: ref.Mode, ID: uuid.UUID(ref.ID)})
	if err != nil {
		return nil, row, err
	}
	o, err := order.Restore(ref.ID, row.Version, row.HeadHash, row.State)
	return o, row, err
}
