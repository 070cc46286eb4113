package command

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/ordersdb"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

const (
	erasePage  = 500              // orders that are listed at a time
	eraseTime  = 10 * time.Second // for one order
	eraseTries = 30               // for one order, when others hold its rows. Each waits for the lock_timeout of its session
)

// Customer is what there is of a customer's orders.
type Customer struct {
	Orders    int64
	Addresses int64    // shipping addresses that orders have
	Last      order.ID // the newest order
}

// Customer counts the orders of a customer. Without any the result is zero.
func (c *Commands) Customer(ctx context.Context, owner order.Owner, customerRef string) (Customer, error) {
	row, err := ordersdb.New(c.cfg.Pool).CountCustomer(ctx, ordersdb.CountCustomerParams{
		CustomerRef: customerRef, Account: owner.Account, Mode: owner.Mode,
	})
	return Customer{row.Orders, row.Addresses, order.ID(row.Last)}, err
}

// Erasure says whose shipping addresses are erased.
type Erasure struct {
	order.Owner
	CustomerRef string
	Last        order.ID // the newest order that is looked at
	Force       bool     // also of orders that still need theirs
	TraceID     string   // of the events
}

// Erased is how far an Erasure is.
type Erased struct {
	LookedAt  int64      // orders
	Addresses int64      // that are erased
	Results   int64      // stored results that had an address
	Kept      []order.ID // orders that still need their address
}

// EraseAddresses erases the shipping addresses of a customer's orders. Each order is a transaction of its own on the primary, which deletes
// the address, records order.updated with its message, and takes the address out of the results that are stored about the order: a
// repetition under their keys is answered with null, and the ETag of that. The caches get the order by the message. An order without an
// address has no event; orders that still need theirs are kept as they are, unless Force. progress is called after each order.
//
// It may run beside everything else, and holds one order at a time. After an error, or a crash, what is done stays done, and a repetition
// does the rest. Repeating it when all is done writes nothing.
func (c *Commands) EraseAddresses(ctx context.Context, e Erasure, progress func(Erased)) (done Erased, err error) {
	q := ordersdb.New(c.cfg.Pool)
	for after, more := (uuid.UUID{}), true; more; {
		ids, err := q.OrdersOfCustomer(ctx, ordersdb.OrdersOfCustomerParams{
			CustomerRef: e.CustomerRef, Account: e.Account, Mode: e.Mode, After: after, Last: uuid.UUID(e.Last), Page: erasePage,
		})
		if err != nil {
			return done, fmt.Errorf("list orders: %w", err)
		}
		for _, id := range ids {
			after = id
			if err = c.eraseAddress(ctx, e, order.ID(id), &done); err != nil {
				return done, fmt.Errorf("erase the address of %s: %w", order.ID(id).Format(order.PrefixOrder), err)
			}
			done.LookedAt++
			progress(done)
		}
		more = len(ids) == erasePage
	}
	return done, nil
}

// eraseAddress erases the address of one order and adds what it did to done. It waits for others that hold the order's rows.
func (c *Commands) eraseAddress(ctx context.Context, e Erasure, id order.ID, done *Erased) (err error) {
	for range eraseTries {
		var one Erased
		err = func() error {
			ctx, cancel := context.WithTimeout(ctx, eraseTime)
			defer cancel()
			return pg.InTx(ctx, c.cfg.Pool, func(tx pgx.Tx) (err error) {
				one, err = c.eraseIn(ctx, tx, e, order.Ref{Owner: e.Owner, ID: id})
				return err
			})
		}()
		if err == nil {
			done.Addresses, done.Results, done.Kept = done.Addresses+one.Addresses, done.Results+one.Results, append(done.Kept, one.Kept...)
		}
		if err == nil || !pg.Contention(err) {
			break
		}
	}
	return err
}

// eraseIn is the transaction of one order. Under the order's lock nobody else stores an address of it, neither with the order nor in a
// result.
func (c *Commands) eraseIn(ctx context.Context, tx pgx.Tx, e Erasure, ref order.Ref) (one Erased, err error) {
	l := newLoaded()
	if err = l.load(ctx, tx, needs{orders: []order.Ref{ref}}, false); err != nil {
		return one, err
	}
	change, ok := l.orders[ref]
	switch {
	case !ok:
		return one, fmt.Errorf("order %s is gone", ref.ID.Format(order.PrefixOrder))
	case change.address != nil && change.order.NeedsAddress() && !e.Force:
		one.Kept = []order.ID{ref.ID}
		return one, nil
	}
	if one.Results, err = eraseInResults(ctx, tx, ref); err != nil || change.address == nil {
		return one, err
	}
	cause := Envelope{Owner: e.Owner, Operation: "erase", Problem: apierr.ProblemContext{TraceID: e.TraceID}, Actor: "operator"}
	change.events = append(change.events, change.order.EraseAddress(cause.recorder(c.cfg.IDs, c.cfg.Now())))
	change.move(nil)
	one.Addresses = 1
	r, last := &rows{}, &pg.Statements{}
	r.add(change)
	if err = r.queue(ctx, tx, last); err != nil {
		return one, err
	}
	return one, last.Send(ctx, tx)
}

// eraseInResults takes the address out of the stored results about an order, and returns how many had one.
func eraseInResults(ctx context.Context, tx pgx.Tx, ref order.Ref) (int64, error) {
	q := ordersdb.New(tx)
	found, err := q.ResultsOfOrder(ctx, ordersdb.ResultsOfOrderParams{OrderID: uuid.UUID(ref.ID), Account: ref.Account, Mode: ref.Mode})
	if err != nil {
		return 0, fmt.Errorf("read results: %w", err)
	}
	var p ordersdb.ReplaceResultsParams
	for _, r := range found {
		body, had, err := view.WithoutAddress(view.Body{Bytes: r.Body, ETag: r.Etag})
		if err != nil {
			return 0, fmt.Errorf("result of %s: %w", r.Operation, err)
		}
		if had {
			p.Accounts, p.Modes, p.Operations, p.Keys = append(p.Accounts, ref.Account), append(p.Modes, ref.Mode), append(p.Operations, r.Operation), append(p.Keys, r.Key)
			p.Etags, p.Bodies = append(p.Etags, body.ETag), append(p.Bodies, body.Bytes)
		}
	}
	if len(p.Keys) == 0 {
		return 0, nil
	}
	return int64(len(p.Keys)), q.ReplaceResults(ctx, p)
}
