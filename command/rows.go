package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/command/catalogue"
	"github.com/ordergate/ordergate/command/coupons"
	"github.com/ordergate/ordergate/command/inventory"
	"github.com/ordergate/ordergate/command/payment"
	"github.com/ordergate/ordergate/gen/ordersdb"
	"github.com/ordergate/ordergate/internal/events"
	"github.com/ordergate/ordergate/internal/outbox"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

// orderChange is the work of one transaction on one order.
type orderChange struct {
	owner       order.Owner
	order       *order.Order  // after the events
	events      []order.Event // none: only steps moved
	baseVersion int64         // the version that was decided on; 0 for a new order
	rev         int64         // after the change
	superseded  bool          // the row had a later revision already when the log's position was read
	address     []byte        // JSON, nil if there is none
	moved       bool          // the address is another one than before
	steps       steps
	messages    []outbox.Message // commands to inventory
	payments    payment.Changes  // that its steps start
	encoded     *view.Body
}

func (c *orderChange) ref() order.Ref { return order.Ref{Owner: c.owner, ID: c.order.ID} }

// freesCoupon tells whether the order has a coupon that it no longer uses: it ended without a sale.
func (c *orderChange) freesCoupon() bool {
	return c.order.CouponCode != "" && (c.order.Status == order.StatusRejected || c.order.Status == order.StatusCancelled)
}

// body is the order's body after the change, encoded once.
func (c *orderChange) body() (view.Body, error) {
	if c.encoded == nil {
		b, err := view.OrderBody(c.order, c.address)
		if err != nil {
			return view.Body{}, err
		}
		c.encoded = &b
	}
	return *c.encoded, nil
}

// accepted is the effect of a command that the saga goes on with: 202 and the order.
func (c *orderChange) accepted() (effect, error) {
	body, err := c.body()
	if err != nil {
		return effect{}, err
	}
	id := c.order.ID
	return effect{orders: []*orderChange{c}, result: accepted(body, "/v1/orders/"+id.Format(order.PrefixOrder), id)}, nil
}

// accepted is the result of a command that the saga of an order goes on with.
func accepted(body view.Body, location string, of order.ID) Result {
	return Result{Status: 202, ContentType: "application/json", Location: location, Body: body, OrderID: of}
}

// rows are the writes of one transaction.
type rows struct {
	orders    []*orderChange
	shipments []*shipmentChange
	products  catalogue.Products
	payments  payment.Changes
	deadline  time.Duration // of authorizations
	stock     inventory.Stock
	soldOut   *inventory.SoldOut // nil if no stock is written
	results   []resultRow
	locked    bool                 // rows were locked since log was read: it is read again
	log       ordersdb.LogStateRow // under the locks
}

// add adds an order with what its steps start.
func (r *rows) add(c *orderChange) {
	r.orders = append(r.orders, c)
	r.payments.Add(c.payments)
}

// store puts a result under the call's key.
func (r *rows) store(c *call, result Result) { r.results = append(r.results, resultRow{c, result}) }

// queue queues the rows in last, to go out with COMMIT. Of coupons that are no longer used it sends at once what it must know the result of. The errors of
// the database that another writer causes: a serialization failure if a row was changed or made since it was read, no_data_found if one is gone. The
// command is decided again after the former.
func (r *rows) queue(ctx context.Context, tx pgx.Tx, last *pg.Statements) error {
	if err := errors.Join(r.payments.Write(ctx, last, r.deadline), r.products.Write(ctx, last), r.stock.Write(ctx, last)); err != nil {
		return err
	}
	if r.soldOut != nil {
		r.soldOut.Released(r.stock)
	}
	var placed, changed, addresses, noAddresses, numbered []*orderChange
	var redeemed []coupons.Redemption
	var released []order.Ref
	var orderEvents []eventRow
	var begun, moved []*orderChange // sagas
	var messages []outbox.Message
	for _, c := range r.orders {
		switch {
		case c.baseVersion == 0:
			c.rev = 1
			placed = append(placed, c)
			if c.order.Reference != "" {
				numbered = append(numbered, c)
			}
			if c.order.CouponCode != "" {
				redeemed = append(redeemed, coupons.Redemption{Ref: c.ref(), Code: string(c.order.CouponCode), CustomerRef: c.order.CustomerRef})
			}
		case len(c.events) > 0:
			c.rev++
			changed = append(changed, c)
			if c.freesCoupon() {
				released = append(released, c.ref())
			}
		}
		switch {
		case c.address != nil && (c.baseVersion == 0 || c.moved):
			addresses = append(addresses, c)
		case c.moved:
			noAddresses = append(noAddresses, c)
		}
		for _, e := range c.events {
			orderEvents = append(orderEvents, eventRow{c, e})
			messages = append(messages, c.changed(e))
		}
		switch {
		case c.baseVersion == 0:
			begun = append(begun, c)
		case c.steps.moved():
			moved = append(moved, c)
		}
		messages = append(messages, c.messages...)
	}
	if err := errors.Join(coupons.Redeem(ctx, last, redeemed), coupons.Release(ctx, tx, released)); err != nil {
		return err
	}
	var shipped, arrived []*shipmentChange
	var shipmentEvents []order.ResourceEvent
	for _, c := range r.shipments {
		if c.baseVersion == 0 {
			shipped = append(shipped, c)
		} else {
			arrived = append(arrived, c)
		}
		shipmentEvents = append(shipmentEvents, c.events...)
	}
	q := ordersdb.New(last)
	if r.locked {
		queueLogState(&last.Batch, r)
	}
	var errs []error
	add := func(rows int, query func() error) {
		if rows > 0 {
			errs = append(errs, query())
		}
	}
	add(len(placed), func() error { return q.InsertOrders(ctx, orderRows(placed)) })
	add(len(addresses), func() error { return putAddresses(ctx, q, addresses) })
	add(len(noAddresses), func() error {
		return q.DeleteAddresses(ctx, ordersdb.DeleteAddressesParams(refParams(pg.Column(noAddresses, (*orderChange).ref))))
	})
	add(len(numbered), func() error { return insertReferences(ctx, q, numbered) })
	add(len(changed), func() error { return updateOrders(ctx, q, changed) })
	add(len(orderEvents), func() error { return insertEvents(ctx, q, orderEvents) })
	add(len(shipped), func() error { return q.InsertShipments(ctx, shipmentRows(shipped)) })
	add(len(arrived), func() error { return updateShipments(ctx, q, arrived) })
	add(len(shipmentEvents), func() error { return events.Append(ctx, last, shipmentEvents) })
	add(len(begun), func() error { return q.InsertSagas(ctx, sagaRows(begun)) })
	add(len(moved), func() error { return q.UpdateSagas(ctx, ordersdb.UpdateSagasParams(sagaRows(moved))) })
	add(len(r.results), func() error { return insertResults(ctx, q, r.results) })
	add(len(messages), func() error { return outbox.Send(ctx, last, messages) })
	return errors.Join(errs...)
}

// orderRows are the orders' columns, of which an update takes a part.
func orderRows(changes []*orderChange) ordersdb.InsertOrdersParams {
	return ordersdb.InsertOrdersParams{
		Accounts:        pg.Column(changes, func(c *orderChange) int32 { return c.owner.Account }),
		Modes:           pg.Column(changes, func(c *orderChange) string { return c.owner.Mode }),
		Ids:             pg.Column(changes, func(c *orderChange) uuid.UUID { return uuid.UUID(c.order.ID) }),
		Shards:          pg.Column(changes, func(c *orderChange) int16 { return c.order.ID.Shard() }),
		CustomerRefs:    pg.Column(changes, func(c *orderChange) string { return c.order.CustomerRef }),
		Statuses:        pg.Column(changes, func(c *orderChange) string { return string(c.order.Status) }),
		PaymentStatuses: pg.Column(changes, func(c *orderChange) string { return string(c.order.PaymentStatus) }),
		Versions:        pg.Column(changes, func(c *orderChange) int64 { return c.order.Version }),
		HeadHashes:      pg.Column(changes, func(c *orderChange) []byte { return c.order.HeadHash }),
		States:          pg.Column(changes, func(c *orderChange) []byte { return encode(c.order) }),
		CreatedAts:      pg.Column(changes, func(c *orderChange) time.Time { return c.order.CreatedAt.Time }),
		UpdatedAts:      pg.Column(changes, func(c *orderChange) time.Time { return c.order.UpdatedAt.Time }),
	}
}

// encode is the JSON of a plain struct.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("command: %T cannot be encoded: %v", v, err)) // plain structs always can
	}
	return b
}

func updateOrders(ctx context.Context, q *ordersdb.Queries, changes []*orderChange) error {
	p := orderRows(changes)
	return q.UpdateOrders(ctx, ordersdb.UpdateOrdersParams{
		Accounts:         p.Accounts,
		Modes:            p.Modes,
		Ids:              p.Ids,
		ExpectedVersions: pg.Column(changes, func(c *orderChange) int64 { return c.baseVersion }),
		Versions:         p.Versions,
		Statuses:         p.Statuses,
		PaymentStatuses:  p.PaymentStatuses,
		HeadHashes:       p.HeadHashes,
		States:           p.States,
		UpdatedAts:       p.UpdatedAts,
	})
}

func putAddresses(ctx context.Context, q *ordersdb.Queries, changes []*orderChange) error {
	return q.PutAddresses(ctx, ordersdb.PutAddressesParams{
		Accounts:  pg.Column(changes, func(c *orderChange) int32 { return c.owner.Account }),
		Modes:     pg.Column(changes, func(c *orderChange) string { return c.owner.Mode }),
		OrderIds:  pg.Column(changes, func(c *orderChange) uuid.UUID { return uuid.UUID(c.order.ID) }),
		Addresses: pg.Column(changes, func(c *orderChange) []byte { return c.address }),
	})
}

func insertReferences(ctx context.Context, q *ordersdb.Queries, changes []*orderChange) error {
	return q.InsertReferences(ctx, ordersdb.InsertReferencesParams{
		Accounts: pg.Column(changes, func(c *orderChange) int32 { return c.owner.Account }),
		Modes:    pg.Column(changes, func(c *orderChange) string { return c.owner.Mode }),
		Refs:     pg.Column(changes, func(c *orderChange) string { return string(c.order.Reference) }),
		OrderIds: pg.Column(changes, func(c *orderChange) uuid.UUID { return uuid.UUID(c.order.ID) }),
	})
}

// eventRow is one row of order_events.
type eventRow struct {
	*orderChange
	event order.Event
}

func insertEvents(ctx context.Context, q *ordersdb.Queries, rows []eventRow) error {
	return q.InsertEvents(ctx, ordersdb.InsertEventsParams{
		Accounts:       pg.Column(rows, func(r eventRow) int32 { return r.owner.Account }),
		Modes:          pg.Column(rows, func(r eventRow) string { return r.owner.Mode }),
		OrderIds:       pg.Column(rows, func(r eventRow) uuid.UUID { return uuid.UUID(r.order.ID) }),
		Versions:       pg.Column(rows, func(r eventRow) int64 { return r.event.Version }),
		Ids:            pg.Column(rows, func(r eventRow) uuid.UUID { return uuid.UUID(r.event.ID) }),
		Types:          pg.Column(rows, func(r eventRow) string { return r.event.Type }),
		SchemaVersions: pg.Column(rows, func(r eventRow) int32 { return r.event.Schema }),
		Payloads:       pg.Column(rows, func(r eventRow) string { return string(r.event.Payload) }),
		TraceIds:       pg.Column(rows, func(r eventRow) string { return r.event.Cause.TraceID }),
		Operations:     pg.Column(rows, func(r eventRow) string { return r.event.Cause.Operation }),
		Actors:         pg.Column(rows, func(r eventRow) string { return r.event.Cause.Actor }),
		CreatedAts:     pg.Column(rows, func(r eventRow) time.Time { return r.event.At }),
		PrevHashes:     pg.Column(rows, func(r eventRow) []byte { return append([]byte{}, r.event.PrevHash...) }), // never NULL
		Hashes:         pg.Column(rows, func(r eventRow) []byte { return r.event.Hash }),
	})
}

// shipmentChange is the work of one transaction on one shipment. A change of its order goes with it, so that the version of the order
// guards both.
type shipmentChange struct {
	owner       order.Owner
	shipment    *order.Shipment // after the events
	events      []order.ResourceEvent
	baseVersion int64 // the version that was decided on; 0 for a new shipment
}

// record makes the next event of the shipment and applies it.
func (c *shipmentChange) record(rec order.Recorder, eventType string, data any) error {
	head := order.Head{Version: c.shipment.Version, Hash: c.shipment.HeadHash}
	resource := order.Resource{Owner: c.owner, Kind: order.KindShipment, ID: c.shipment.ID.Format(order.PrefixShipment)}
	e := head.Next(resource, rec, eventType, order.ShipmentSchema, data)
	c.events = append(c.events, e)
	return c.shipment.Apply(e.Event)
}

// changed is the effect of a command on a shipment and its order: the shipment.
func (c *shipmentChange) changed(o *orderChange, status int) (effect, error) {
	body, err := view.ShipmentBody(c.shipment)
	if err != nil {
		return effect{}, err
	}
	return effect{orders: []*orderChange{o}, shipments: []*shipmentChange{c}, result: Result{
		Status: status, ContentType: "application/json", Location: "/v1/shipments/" + c.shipment.ID.Format(order.PrefixShipment), Body: body, OrderID: o.order.ID,
	}}, nil
}

// shipmentRows are the shipments' columns, of which an update takes a part.
func shipmentRows(changes []*shipmentChange) ordersdb.InsertShipmentsParams {
	return ordersdb.InsertShipmentsParams{
		Accounts:     pg.Column(changes, func(c *shipmentChange) int32 { return c.owner.Account }),
		Modes:        pg.Column(changes, func(c *shipmentChange) string { return c.owner.Mode }),
		Ids:          pg.Column(changes, func(c *shipmentChange) uuid.UUID { return uuid.UUID(c.shipment.ID) }),
		OrderIds:     pg.Column(changes, func(c *shipmentChange) uuid.UUID { return uuid.UUID(c.shipment.OrderID) }),
		Lines:        pg.Column(changes, func(c *shipmentChange) []byte { return encode(c.shipment.Lines) }),
		Trackings:    pg.Column(changes, shipmentTracking),
		Statuses:     pg.Column(changes, func(c *shipmentChange) string { return string(c.shipment.Status) }),
		Versions:     pg.Column(changes, func(c *shipmentChange) int64 { return c.shipment.Version }),
		HeadHashes:   pg.Column(changes, func(c *shipmentChange) []byte { return c.shipment.HeadHash }),
		CreatedAts:   pg.Column(changes, func(c *shipmentChange) time.Time { return c.shipment.CreatedAt.Time }),
		UpdatedAts:   pg.Column(changes, func(c *shipmentChange) time.Time { return c.shipment.UpdatedAt.Time }),
		DeliveredAts: pg.Column(changes, shipmentDelivered),
	}
}

func shipmentTracking(c *shipmentChange) []byte {
	if c.shipment.Tracking == nil {
		return nil
	}
	return encode(c.shipment.Tracking)
}

func shipmentDelivered(c *shipmentChange) time.Time {
	if c.shipment.DeliveredAt == nil {
		return time.Time{}
	}
	return c.shipment.DeliveredAt.Time
}

func updateShipments(ctx context.Context, q *ordersdb.Queries, changes []*shipmentChange) error {
	p := shipmentRows(changes)
	return q.UpdateShipments(ctx, ordersdb.UpdateShipmentsParams{
		Accounts:     p.Accounts,
		Modes:        p.Modes,
		Ids:          p.Ids,
		Statuses:     p.Statuses,
		Versions:     p.Versions,
		HeadHashes:   p.HeadHashes,
		UpdatedAts:   p.UpdatedAts,
		DeliveredAts: p.DeliveredAts,
	})
}

// sagaRows are the sagas' columns.
func sagaRows(changes []*orderChange) ordersdb.InsertSagasParams {
	return ordersdb.InsertSagasParams{
		Accounts: pg.Column(changes, func(c *orderChange) int32 { return c.owner.Account }),
		Modes:    pg.Column(changes, func(c *orderChange) string { return c.owner.Mode }),
		OrderIds: pg.Column(changes, func(c *orderChange) uuid.UUID { return uuid.UUID(c.order.ID) }),
		Steps:    pg.Column(changes, func(c *orderChange) []byte { return encode(pg.Column(c.steps, (*step).store)) }),
	}
}
