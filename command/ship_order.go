package command

import (
	"context"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/order"
)

// ShipOrder makes a shipment of lines of an order, or of all that is unshipped. In one transaction on the primary, under the order's lock,
// it writes the shipment with its event, the order's event and the result under the idempotency key. The result is 201 and the shipment;
// a repetition gets the same. Refusals: ORD_001, ORD_002 (cancelled, or about to be), SHP_002, SHP_003, IDEM_002, IDEM_003. Failures:
// SYS_002, SYS_003, RATE_003 (nothing changed), SYS_006 (the outcome is not known).
func (c *Commands) ShipOrder(ctx context.Context, e Envelope, id order.ID, body api.ShipOrder) (Result, error) {
	if !c.cfg.IDs.Genuine(id) {
		return Result{}, apierr.E(errcode.ORD001)
	}
	e.Subject = id.Format(order.PrefixOrder)
	return c.execute(ctx, e, body, shipOrder{order.Ref{Owner: e.Owner, ID: id}, body})
}

type shipOrder struct {
	ref order.Ref
	api.ShipOrder
}

func (s shipOrder) needs() needs { return needs{orders: []order.Ref{s.ref}} }

func (s shipOrder) decide(l *loaded, rec order.Recorder) (effect, error) {
	change, ok := l.orders[s.ref]
	if !ok {
		return effect{}, apierr.E(errcode.ORD001)
	}
	var lines []order.ShipmentLine
	for _, line := range s.Lines {
		lines = append(lines, order.ShipmentLine{SKU: line.Sku, Quantity: int64(line.Quantity)})
	}
	id := rec.NewID()
	lines, events, err := change.order.Ship(rec, id, lines)
	if err != nil {
		return effect{}, err
	}
	change.events = append(change.events, events...)
	created := order.ShipmentCreated{OrderID: s.ref.ID.Format(order.PrefixOrder), Lines: lines}
	if t := s.Tracking; t != nil {
		created.Tracking = &order.Tracking{Carrier: t.Carrier, Number: t.Number}
		if t.URL != nil {
			created.Tracking.URL = order.Text(*t.URL)
		}
	}
	shipment := &shipmentChange{owner: s.ref.Owner, shipment: &order.Shipment{ID: id}}
	if err = shipment.record(rec, order.TypeShipmentCreated, created); err != nil {
		return effect{}, err
	}
	return shipment.changed(change, 201)
}
