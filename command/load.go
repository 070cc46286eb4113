package command

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/command/catalogue"
	"github.com/ordergate/ordergate/command/inventory"
	"github.com/ordergate/ordergate/command/payment"
	"github.com/ordergate/ordergate/gen/ordersdb"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/order"
)

// needs names the rows that an operation decides on. All but products are locked, in the order of these fields.
type needs struct {
	products  []order.Item // to be sold
	catalogue []order.Item // to be changed
	payments  []order.Ref  // their orders are needed, too
	orders    []order.Ref  // with their saga's steps
	stock     []order.Item
}

// add joins the needs of a batch.
func (n *needs) add(o needs) {
	n.products = append(n.products, o.products...)
	n.catalogue = append(n.catalogue, o.catalogue...)
	n.payments = append(n.payments, o.payments...)
	n.orders = append(n.orders, o.orders...)
	n.stock = append(n.stock, o.stock...)
}

// locked is how many rows are locked.
func (n *needs) locked() int {
	return len(n.catalogue) + len(n.payments) + len(n.orders) + len(n.stock)
}

// loaded has the rows that a batch decides on. A row that does not exist is not in its map. Operations change what they find: the next one of
// the batch sees it.
type loaded struct {
	products  map[order.Item]*order.Product
	catalogue catalogue.Products
	payments  map[order.Ref]*payment.Row
	orders    map[order.Ref]*orderChange
	stock     inventory.Stock
}

// load locks and reads everything that a batch needs: products, payments, orders, stock, each sorted, which is the one order of locks. With
// onlyFree it does not wait: rows that another transaction holds are left out.
func load(ctx context.Context, tx pgx.Tx, n needs, onlyFree bool) (*loaded, error) {
	l := &loaded{}
	var err error
	if len(n.products) > 0 {
		if l.products, err = catalogue.Read(ctx, tx, n.products); err != nil {
			return nil, err
		}
	}
	if len(n.catalogue) > 0 {
		if l.catalogue, err = catalogue.Lock(ctx, tx, n.catalogue, onlyFree); err != nil {
			return nil, err
		}
	}
	if len(n.payments) > 0 {
		if l.payments, err = payment.Lock(ctx, tx, n.payments, onlyFree); err != nil {
			return nil, err
		}
	}
	if len(n.orders) > 0 {
		if l.orders, err = lockOrders(ctx, tx, n.orders, onlyFree); err != nil {
			return nil, err
		}
	}
	if len(n.stock) > 0 {
		if l.stock, err = inventory.Lock(ctx, tx, n.stock, onlyFree); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// findOrders adds the orders of the payments that the calls name to their needs. It defers the calls whose order another call of the
// batch has already: two commands of one order do not meet in a batch.
func findOrders(ctx context.Context, tx pgx.Tx, calls []*call) (batch, deferred []*call, err error) {
	var payments []order.Ref
	for _, c := range calls {
		payments = append(payments, c.needs.payments...)
	}
	if len(payments) == 0 {
		return calls, nil, nil
	}
	orders, err := payment.Orders(ctx, tx, payments)
	if err != nil {
		return nil, nil, err
	}
	for _, c := range calls {
		for _, p := range c.needs.payments {
			if o, ok := orders[p]; ok && !slices.Contains(c.needs.orders, o) {
				c.needs.orders = append(slices.Clip(c.needs.orders), o)
			}
		}
	}
	batch, deferred = nextBatch(calls)
	return batch, deferred, nil
}

// has tells whether everything that is needed and locked was loaded.
func (l *loaded) has(n needs) bool {
	return hasAll(l.catalogue, n.catalogue) && hasAll(l.payments, n.payments) && hasAll(l.orders, n.orders) && hasAll(l.stock, n.stock)
}

func hasAll[M ~map[K]V, K comparable, V any](loaded M, keys []K) bool {
	for _, k := range keys {
		if _, ok := loaded[k]; !ok {
			return false
		}
	}
	return true
}

func refParams(refs []order.Ref) ordersdb.LockOrdersParams {
	return ordersdb.LockOrdersParams{
		Accounts: pg.Column(refs, func(r order.Ref) int32 { return r.Account }),
		Modes:    pg.Column(refs, func(r order.Ref) string { return r.Mode }),
		Ids:      pg.Column(refs, func(r order.Ref) uuid.UUID { return uuid.UUID(r.ID) }),
	}
}

// lockOrders locks orders in the order of their ids and reads them with their steps.
func lockOrders(ctx context.Context, tx pgx.Tx, refs []order.Ref, onlyFree bool) (map[order.Ref]*orderChange, error) {
	q, p := ordersdb.New(tx), refParams(refs)
	rows, err := pg.Lock(ctx, onlyFree, q.LockOrders, p, q.LockFreeOrders, ordersdb.LockFreeOrdersParams(p),
		func(r ordersdb.LockFreeOrdersRow) ordersdb.LockOrdersRow { return ordersdb.LockOrdersRow(r) })
	if err != nil {
		return nil, fmt.Errorf("lock orders: %w", err)
	}
	found := make(map[order.Ref]*orderChange, len(rows))
	for _, row := range rows {
		ref := order.RefOf(row.Account, row.Mode, row.ID)
		o, err := order.Restore(ref.ID, row.Version, row.HeadHash, row.State)
		if err != nil {
			return nil, err
		}
		found[ref] = &orderChange{owner: ref.Owner, order: o, baseVersion: o.Version, rev: row.Rev, address: row.Address}
	}
	stepRows, err := q.GetSteps(ctx, ordersdb.GetStepsParams{Accounts: p.Accounts, Modes: p.Modes, OrderIds: p.Ids})
	if err != nil {
		return nil, fmt.Errorf("read saga steps: %w", err)
	}
	for _, r := range stepRows {
		if c, ok := found[order.RefOf(r.Account, r.Mode, r.OrderID)]; ok {
			c.steps = append(c.steps, &step{
				name: r.Step, attempt: r.Attempt, status: r.Status, code: r.Code, input: r.Input, started: r.StartedAt, finished: r.FinishedAt, stored: true,
			})
		}
	}
	return found, nil
}

// readEvents reads an order's whole history.
func readEvents(ctx context.Context, q *ordersdb.Queries, owner order.Owner, id order.ID) ([]order.Event, error) {
	rows, err := q.GetEvents(ctx, ordersdb.GetEventsParams{Account: owner.Account, Mode: owner.Mode, OrderID: uuid.UUID(id)})
	if err != nil {
		return nil, err
	}
	events := make([]order.Event, len(rows))
	for i, r := range rows {
		events[i] = order.Event{
			ID: order.ID(r.ID), Type: r.Type, Version: r.Version, Schema: r.SchemaVersion, Payload: []byte(r.Payload), At: r.CreatedAt.UTC(),
			Cause:    order.Cause{TraceID: r.TraceID, Operation: r.Operation, Actor: r.Actor},
			PrevHash: r.PrevHash, Hash: r.Hash,
		}
	}
	return events, nil
}
