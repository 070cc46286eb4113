package command

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/ordergate/ordergate/gen/ordersdb"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

// pollEvery bounds how late a waiter hears of a decision if its wake-up was lost.
const pollEvery = 500 * time.Millisecond

// waiters are the requests of this process that wait for a change of an order.
type waiters struct {
	mu sync.Mutex
	by map[order.ID][]chan struct{}
}

func (w *waiters) join(id order.ID) (woken chan struct{}, leave func()) {
	woken = make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.by[id] = append(w.by[id], woken)
	return woken, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.by[id] = slices.DeleteFunc(w.by[id], func(c chan struct{}) bool { return c == woken })
		if len(w.by[id]) == 0 {
			delete(w.by, id)
		}
	}
}

func (w *waiters) wake(id order.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, woken := range w.by[id] {
		select {
		case woken <- struct{}{}:
		default:
		}
	}
}

// Changed wakes the requests that wait for the order; for changes that other processes made.
func (c *Commands) Changed(id order.ID) { c.waiters.wake(id) }

// AwaitPlaced turns the 202 of a placed order into 201 as soon as the saga decided it, within the given time; else it gives
// the 202 back. The 201 shows the order at the version that decided it, so that its bytes are always the same.
func (c *Commands) AwaitPlaced(ctx context.Context, owner order.Owner, r Result, within time.Duration) Result {
	return c.await(ctx, owner, r, within, 201, (*order.Order).Decided)
}

// AwaitCancelled turns the 202 of a cancellation into 200 as soon as the order is final.
func (c *Commands) AwaitCancelled(ctx context.Context, owner order.Owner, r Result, within time.Duration) Result {
	return c.await(ctx, owner, r, within, 200, func(o *order.Order) bool { return o.Status.Final() })
}

// await polls outside the budget and the bulkhead; an error of the database only means that the answer stays 202.
func (c *Commands) await(ctx context.Context, owner order.Owner, r Result, within time.Duration, status int, decided func(*order.Order) bool) Result {
	if r.Status != 202 || within <= 0 {
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	woken, leave := c.waiters.join(r.OrderID)
	defer leave()
	for {
		result, ok := r, false
		_ = c.lookUp(ctx, func() error { result, ok = c.decidedResult(ctx, owner, r, status, decided); return nil })
		if ok {
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

// lookUp runs f on one of the connections that are kept for look-ups beside the commands.
func (c *Commands) lookUp(ctx context.Context, f func() error) error {
	select {
	case c.lookups <- struct{}{}:
		defer func() { <-c.lookups }()
		return f()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Commands) decidedResult(ctx context.Context, owner order.Owner, r Result, status int, decided func(*order.Order) bool) (Result, bool) {
	q := ordersdb.New(c.cfg.Pool)
	id := uuid.UUID(r.OrderID)
	row, err := q.GetOrderState(ctx, ordersdb.GetOrderStateParams{Account: owner.Account, Mode: owner.Mode, ID: id})
	if err != nil {
		return r, false
	}
	if now, err := order.Restore(r.OrderID, row.Version, row.HeadHash, row.State); err != nil || !decided(now) {
		return r, false
	}
	events, err := readEvents(ctx, q, owner, r.OrderID)
	if err != nil {
		return r, false
	}
	o, err := order.Fold(r.OrderID, events, decided)
	if err != nil {
		return r, false
	}
	body, err := view.OrderBody(o, row.Address)
	if err != nil {
		return r, false
	}
	seen := &orderChange{owner: owner, order: o, rev: row.Rev}
	r.Status, r.Body, r.Rev, r.LSN = status, body, row.Rev, position(ctx, c.cfg.Pool, &rows{orders: []*orderChange{seen}})
	if seen.superseded {
		r.Rev = 0
	}
	return r, true
}
