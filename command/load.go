package command

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/command/catalogue"
	"github.com/ordergate/ordergate/command/coupons"
	"github.com/ordergate/ordergate/command/inventory"
	"github.com/ordergate/ordergate/command/payment"
	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/ordersdb"
	"github.com/ordergate/ordergate/internal/events"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/order"
)

// needs names the rows that an operation decides on. All but products are locked, in the order of these fields.
type needs struct {
	pieces    []inventory.Line // to be reserved later: an operation that needs more than is left is refused before anything is loaded
	products  []order.Item     // to be sold
	catalogue []order.Item     // to be changed
	numbers   []number
	payments  []order.Ref
	orders    []order.Ref // with their saga's steps
	// shipments are read once their orders, which are needed, too, are locked: that lock is theirs.
	shipments []order.Ref
	coupons   []coupons.Item
	stock     []order.Item
}

// number is a merchant's own number of an order, its reference.
type number struct {
	order.Owner
	reference string
}

// lockID identifies the advisory lock of a number that no order may have yet.
func (n number) lockID() int64 {
	return advisoryLock("reference\x00%d\x00%s\x00%s", n.Account, n.Mode, n.reference)
}

// add joins the needs of a batch.
func (n *needs) add(o needs) {
	n.products = append(n.products, o.products...)
	n.catalogue = append(n.catalogue, o.catalogue...)
	n.numbers = append(n.numbers, o.numbers...)
	n.payments = append(n.payments, o.payments...)
	n.orders = append(n.orders, o.orders...)
	n.shipments = append(n.shipments, o.shipments...)
	n.coupons = append(n.coupons, o.coupons...)
	n.stock = append(n.stock, o.stock...)
}

// locked is how many rows are locked.
func (n *needs) locked() int {
	return len(n.catalogue) + len(n.numbers) + len(n.payments) + len(n.orders) + len(n.coupons) + len(n.stock)
}

// loaded has the rows that a batch decides on. A row that does not exist is not in its map. Operations change what they find: the next one of
// the batch sees it.
type loaded struct {
	products  map[order.Item]*order.Product
	catalogue catalogue.Products
	numbers   map[number]order.ID // the zero id: no order has it
	payments  map[order.Ref]payment.Locked
	orders    map[order.Ref]*orderChange
	shipments map[order.Ref]*shipmentChange
	coupons   coupons.Coupons
	stock     inventory.Stock
}

// load locks and reads everything that a batch needs, beside the products that were read without a lock: products to be changed, numbers, payments,
// orders, coupons, stock, each sorted, which is the one order of locks. Coupons come after orders, because only an order that ends says which coupon it frees. With
// onlyFree it does not wait: rows that another transaction holds are left out.
func load(ctx context.Context, tx pgx.Tx, n needs, products map[order.Item]*order.Product, onlyFree bool) (*loaded, error) {
	l := &loaded{products: products}
	var err error
	if len(n.catalogue) > 0 {
		if l.catalogue, err = catalogue.Lock(ctx, tx, n.catalogue, onlyFree); err != nil {
			return nil, err
		}
	}
	if len(n.numbers) > 0 {
		if l.numbers, err = lockNumbers(ctx, tx, n.numbers, onlyFree); err != nil {
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
	if len(n.shipments) > 0 {
		if l.shipments, err = readShipments(ctx, tx, n.shipments); err != nil {
			return nil, err
		}
	}
	if len(n.coupons) > 0 {
		if l.coupons, err = coupons.Lock(ctx, tx, n.coupons, onlyFree); err != nil {
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

// findOrders adds the orders of the shipments that the calls name to their needs. It defers the calls whose order another call of the
// batch has already: two commands of one order do not meet in a batch.
func findOrders(ctx context.Context, tx pgx.Tx, calls []*call) (batch, deferred []*call, err error) {
	var shipments []order.Ref
	for _, c := range calls {
		shipments = append(shipments, c.needs.shipments...)
	}
	if len(shipments) == 0 {
		return calls, nil, nil
	}
	orders, err := ordersOfShipments(ctx, tx, shipments)
	if err != nil {
		return nil, nil, err
	}
	for _, c := range calls {
		for _, s := range c.needs.shipments {
			if o, ok := orders[s]; ok && !slices.Contains(c.needs.orders, o) {
				c.needs.orders = append(slices.Clip(c.needs.orders), o)
			}
		}
	}
	batch, deferred = nextBatch(calls, nil, namesOf)
	return batch, deferred, nil
}

// errRowGone refuses a command on a row that `ordergate replay` has yet to bring back. It is retryable, so that nothing is stored under the key.
var errRowGone = apierr.E(errcode.SYS002, apierr.Cause(errors.New("a row is gone whose events are there")))

// gone is errRowGone if an order, payment or shipment that is needed, each by the same owner, has events and was not found, or the stock of a
// product.
func (l *loaded) gone(ctx context.Context, tx pgx.Tx, n needs) error {
	if missing := without(n.orders, l.orders); len(missing) > 0 {
		found, err := ordersdb.New(tx).AnyOrderHasEvents(ctx, ordersdb.AnyOrderHasEventsParams{
			Account: missing[0].Account, Mode: missing[0].Mode, Ids: pg.Column(missing, func(r order.Ref) uuid.UUID { return uuid.UUID(r.ID) }),
		})
		if err != nil {
			return fmt.Errorf("look events up: %w", err)
		}
		if found {
			return errRowGone
		}
	}
	for _, r := range []struct {
		kind, prefix string
		missing      []order.Ref
	}{{order.KindPayment, order.PrefixPayment, without(n.payments, l.payments)}, {order.KindShipment, order.PrefixShipment, without(n.shipments, l.shipments)}} {
		if len(r.missing) == 0 {
			continue
		}
		names := pg.Column(r.missing, func(ref order.Ref) string { return ref.ID.Format(r.prefix) })
		found, err := events.Any(ctx, tx, r.missing[0].Owner, r.kind, names)
		if err != nil {
			return err
		}
		if found {
			return errRowGone
		}
	}
	missing := slices.DeleteFunc(without(n.stock, l.stock), func(it order.Item) bool { // that of a product that is being created is not there yet
		return slices.Contains(n.catalogue, it) && l.catalogue[it] == nil
	})
	if len(missing) == 0 {
		return nil
	}
	products, err := catalogue.Read(ctx, tx, missing)
	if err == nil && len(products) > 0 {
		err = errRowGone
	}
	return err
}

// without are the keys that were not loaded.
func without[M ~map[K]V, K comparable, V any](keys []K, loaded M) (missing []K) {
	for _, k := range keys {
		if _, ok := loaded[k]; !ok {
			missing = append(missing, k)
		}
	}
	return missing
}

// has tells whether everything that is needed and locked was loaded.
func (l *loaded) has(n needs) bool {
	return len(without(n.catalogue, l.catalogue)) == 0 && len(without(n.numbers, l.numbers)) == 0 && len(without(n.payments, l.payments)) == 0 &&
		len(without(n.orders, l.orders)) == 0 && len(without(n.coupons, l.coupons)) == 0 && len(without(n.stock, l.stock)) == 0
}

// lockNumbers locks numbers that orders have or are to have, in the order of their locks, and finds the orders that have them.
func lockNumbers(ctx context.Context, tx pgx.Tx, numbers []number, onlyFree bool) (map[number]order.ID, error) {
	slices.SortFunc(numbers, func(a, b number) int { return cmp.Compare(a.lockID(), b.lockID()) })
	q, hashes, free := ordersdb.New(tx), pg.Column(numbers, number.lockID), numbers
	if onlyFree {
		locked, err := q.TryLockKeys(ctx, hashes)
		if err != nil {
			return nil, fmt.Errorf("lock references: %w", err)
		}
		free = nil
		for i, n := range numbers {
			if locked[i] {
				free = append(free, n)
			}
		}
	} else if err := q.LockKeys(ctx, hashes); err != nil {
		return nil, fmt.Errorf("lock references: %w", err)
	}
	found := make(map[number]order.ID, len(free))
	for _, n := range free {
		found[n] = order.ID{}
	}
	rows, err := q.FindReferences(ctx, ordersdb.FindReferencesParams{
		Accounts: pg.Column(free, func(n number) int32 { return n.Account }),
		Modes:    pg.Column(free, func(n number) string { return n.Mode }),
		Refs:     pg.Column(free, func(n number) string { return n.reference }),
	})
	if err != nil {
		return nil, fmt.Errorf("find references: %w", err)
	}
	for _, r := range rows {
		found[number{order.Owner{Account: r.Account, Mode: r.Mode}, r.Reference}] = order.ID(r.OrderID)
	}
	return found, nil
}

func refParams(refs []order.Ref) ordersdb.LockOrdersParams {
	return ordersdb.LockOrdersParams{
		Accounts: pg.Column(refs, func(r order.Ref) int32 { return r.Account }),
		Modes:    pg.Column(refs, func(r order.Ref) string { return r.Mode }),
		Ids:      pg.Column(refs, func(r order.Ref) uuid.UUID { return uuid.UUID(r.ID) }),
	}
}

// ordersOfShipments maps shipments to their orders. A shipment that does not exist is not in it.
func ordersOfShipments(ctx context.Context, tx pgx.Tx, shipments []order.Ref) (map[order.Ref]order.Ref, error) {
	rows, err := ordersdb.New(tx).OrdersOfShipments(ctx, ordersdb.OrdersOfShipmentsParams(refParams(shipments)))
	if err != nil {
		return nil, fmt.Errorf("read orders of shipments: %w", err)
	}
	orders := make(map[order.Ref]order.Ref, len(rows))
	for _, r := range rows {
		orders[order.RefOf(r.Account, r.Mode, r.ID)] = order.RefOf(r.Account, r.Mode, r.OrderID)
	}
	return orders, nil
}

// readShipments reads shipments. The caller holds the locks of their orders.
func readShipments(ctx context.Context, tx pgx.Tx, refs []order.Ref) (map[order.Ref]*shipmentChange, error) {
	rows, err := ordersdb.New(tx).GetShipments(ctx, ordersdb.GetShipmentsParams(refParams(refs)))
	if err != nil {
		return nil, fmt.Errorf("read shipments: %w", err)
	}
	found := make(map[order.Ref]*shipmentChange, len(rows))
	for _, r := range rows {
		s := &order.Shipment{
			ID: order.ID(r.ID), Version: r.Version, HeadHash: r.HeadHash, OrderID: order.ID(r.OrderID), Status: order.ShipmentStatus(r.Status),
			CreatedAt: rfc3339.New(r.CreatedAt), UpdatedAt: rfc3339.New(r.UpdatedAt), DeliveredAt: rfc3339.Ptr(r.DeliveredAt),
		}
		err := json.Unmarshal(r.Lines, &s.Lines)
		if err == nil && r.Tracking != nil {
			err = json.Unmarshal(r.Tracking, &s.Tracking)
		}
		if err != nil {
			return nil, fmt.Errorf("shipment %s: %w", s.ID.Format(order.PrefixShipment), err)
		}
		ref := order.RefOf(r.Account, r.Mode, r.ID)
		found[ref] = &shipmentChange{owner: ref.Owner, shipment: s, baseVersion: s.Version}
	}
	return found, nil
}

// lockOrders locks orders in the order of their ids and reads them with their addresses and steps, in one round trip.
func lockOrders(ctx context.Context, tx pgx.Tx, refs []order.Ref, onlyFree bool) (map[order.Ref]*orderChange, error) {
	p, lock := refParams(refs), ordersdb.LockOrders
	if onlyFree {
		lock = ordersdb.LockFreeOrders
	}
	var rows []ordersdb.LockOrdersRow
	var addressRows []ordersdb.OrderAddress
	var sagaRows []ordersdb.Saga
	batch := &pgx.Batch{} // later statements see what the locks waited for
	batch.Queue(lock, p.Accounts, p.Modes, p.Ids).Query(collect(&rows))
	batch.Queue(ordersdb.GetAddresses, p.Accounts, p.Modes, p.Ids).Query(collect(&addressRows))
	batch.Queue(ordersdb.GetSagas, p.Accounts, p.Modes, p.Ids).Query(collect(&sagaRows))
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return nil, fmt.Errorf("lock orders: %w", err)
	}
	found := make(map[order.Ref]*orderChange, len(rows))
	for _, row := range rows {
		ref := order.RefOf(row.Account, row.Mode, row.ID)
		o, err := order.Restore(ref.ID, row.Version, row.HeadHash, row.State)
		if err != nil {
			return nil, err
		}
		found[ref] = &orderChange{owner: ref.Owner, order: o, baseVersion: o.Version, rev: row.Rev}
	}
	for _, r := range addressRows {
		if c, ok := found[order.RefOf(r.Account, r.Mode, r.OrderID)]; ok {
			c.address = r.Address
		}
	}
	sagas, err := stepsOf(sagaRows)
	for ref, c := range found {
		c.steps = sagas[ref]
	}
	return found, err
}

// stepsOf are the steps of orders.
func stepsOf(rows []ordersdb.Saga) (map[order.Ref]steps, error) {
	all := make(map[order.Ref]steps, len(rows))
	for _, r := range rows {
		ref := order.RefOf(r.Account, r.Mode, r.OrderID)
		s, err := restoreSteps(r.Steps)
		if err != nil {
			return nil, fmt.Errorf("saga of %s: %w", ref.ID.Format(order.PrefixOrder), err)
		}
		all[ref] = s
	}
	return all, nil
}

// collect reads all rows of a query that is sent beside others.
func collect[T any](to *[]T) func(pgx.Rows) error {
	return func(rows pgx.Rows) (err error) {
		*to, err = pgx.CollectRows(rows, pgx.RowToStructByPos[T])
		return err
	}
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
