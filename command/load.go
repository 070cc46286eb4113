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

// load locks and reads everything that a batch needs in one round trip, beside the products that were read without a lock: products to be changed, numbers,
// payments, orders, coupons, stock, each sorted, which is the one order of locks. Coupons come after orders, because only an order that ends says which
// coupon it frees. With onlyFree it does not wait: rows that another transaction holds are left out.
func (l *loaded) load(ctx context.Context, tx pgx.Tx, n needs, onlyFree bool) error {
	batch := &pgx.Batch{}
	if l.queue(batch, n, onlyFree); batch.Len() == 0 {
		return nil
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	return nil
}

func newLoaded() *loaded {
	return &loaded{
		products: map[order.Item]*order.Product{}, catalogue: catalogue.Products{}, numbers: map[number]order.ID{}, payments: map[order.Ref]payment.Locked{},
		orders: map[order.Ref]*orderChange{}, shipments: map[order.Ref]*shipmentChange{}, coupons: coupons.Coupons{}, stock: inventory.Stock{},
	}
}

// queue is load as statements of a batch.
func (l *loaded) queue(to *pgx.Batch, n needs, onlyFree bool) {
	if len(n.catalogue) > 0 {
		catalogue.QueueLock(to, n.catalogue, onlyFree, l.catalogue)
	}
	if len(n.numbers) > 0 {
		l.queueNumbers(to, n.numbers, onlyFree)
	}
	if len(n.payments) > 0 {
		payment.QueueLock(to, n.payments, onlyFree, l.payments)
	}
	if len(n.orders) > 0 {
		l.queueOrders(to, n.orders, onlyFree)
	}
	if len(n.shipments) > 0 {
		l.queueShipments(to, n.shipments)
	}
	if len(n.coupons) > 0 {
		coupons.QueueLock(to, n.coupons, onlyFree, l.coupons)
	}
	if len(n.stock) > 0 {
		inventory.QueueLock(to, n.stock, onlyFree, l.stock)
	}
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

// queueNumbers locks numbers that orders have or are to have, in the order of their locks, and finds the orders that have them.
func (l *loaded) queueNumbers(to *pgx.Batch, numbers []number, onlyFree bool) {
	slices.SortFunc(numbers, func(a, b number) int { return cmp.Compare(a.lockID(), b.lockID()) })
	hashes := pg.Column(numbers, number.lockID)
	if !onlyFree {
		to.Queue(ordersdb.LockKeys, hashes)
		for _, n := range numbers {
			l.numbers[n] = order.ID{}
		}
	} else {
		to.Queue(ordersdb.TryLockKeys, hashes).Query(func(rows pgx.Rows) error {
			locked, err := pgx.CollectRows(rows, pgx.RowTo[bool])
			for i, ok := range locked {
				if ok {
					l.numbers[numbers[i]] = order.ID{}
				}
			}
			return err
		})
	}
	pg.Query(to, func(rows []ordersdb.OrderReference) error {
		for _, r := range rows {
			n := number{order.Owner{Account: r.Account, Mode: r.Mode}, r.Reference}
			if _, ok := l.numbers[n]; ok {
				l.numbers[n] = order.ID(r.OrderID)
			}
		}
		return nil
	}, ordersdb.FindReferences,
		pg.Column(numbers, func(n number) int32 { return n.Account }),
		pg.Column(numbers, func(n number) string { return n.Mode }),
		pg.Column(numbers, func(n number) string { return n.reference }))
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

// queueShipments reads shipments, under the locks of their orders.
func (l *loaded) queueShipments(to *pgx.Batch, refs []order.Ref) {
	p := refParams(refs)
	pg.Query(to, func(rows []ordersdb.GetShipmentsRow) error {
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
				return fmt.Errorf("shipment %s: %w", s.ID.Format(order.PrefixShipment), err)
			}
			ref := order.RefOf(r.Account, r.Mode, r.ID)
			l.shipments[ref] = &shipmentChange{owner: ref.Owner, shipment: s, baseVersion: s.Version}
		}
		return nil
	}, ordersdb.GetShipments, p.Accounts, p.Modes, p.Ids)
}

// queueOrders locks orders in the order of their ids and reads them with their addresses and steps: later statements see what the locks waited for.
func (l *loaded) queueOrders(to *pgx.Batch, refs []order.Ref, onlyFree bool) {
	p, lock := refParams(refs), pg.LockQuery(onlyFree, ordersdb.LockOrders, ordersdb.LockFreeOrders)
	pg.Query(to, func(rows []ordersdb.LockOrdersRow) error {
		for _, row := range rows {
			ref := order.RefOf(row.Account, row.Mode, row.ID)
			o, err := order.Restore(ref.ID, row.Version, row.HeadHash, row.State)
			if err != nil {
				return err
			}
			l.orders[ref] = &orderChange{owner: ref.Owner, order: o, baseVersion: o.Version, rev: row.Rev}
		}
		return nil
	}, lock, p.Accounts, p.Modes, p.Ids)
	pg.Query(to, func(rows []ordersdb.OrderAddress) error {
		for _, r := range rows {
			if c, ok := l.orders[order.RefOf(r.Account, r.Mode, r.OrderID)]; ok {
				c.address = r.Address
			}
		}
		return nil
	}, ordersdb.GetAddresses, p.Accounts, p.Modes, p.Ids)
	pg.Query(to, func(rows []ordersdb.Saga) error {
		sagas, err := stepsOf(rows)
		for ref, c := range l.orders {
			c.steps = sagas[ref]
		}
		return err
	}, ordersdb.GetSagas, p.Accounts, p.Modes, p.Ids)
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
