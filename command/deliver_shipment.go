package command

import (
	"context"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/order"
)

// DeliverShipment records that a shipment has arrived, and that its order is completed if it was the last one. In one transaction on the
// primary, under the order's lock, it writes the events and rows of both and the result under the idempotency key. The result is 200 and
// the shipment; a repetition gets the same. Refusals: SHP_001, SHP_004, IDEM_002, IDEM_003. Failures: SYS_002, SYS_003, RATE_003 (nothing
// changed), SYS_006 (the outcome is not known).
func (c *Commands) DeliverShipment(ctx context.Context, e Envelope, id order.ID) (Result, error) {
	if !c.cfg.IDs.Genuine(id) {
		return Result{}, apierr.E(errcode.SHP001)
	}
	e.Subject = id.Format(order.PrefixShipment)
	return c.execute(ctx, e, struct{}{}, deliverShipment{order.Ref{Owner: e.Owner, ID: id}})
}

type deliverShipment struct{ ref order.Ref }

func (d deliverShipment) needs() needs { return needs{shipments: []order.Ref{d.ref}} }

func (d deliverShipment) decide(l *loaded, rec order.Recorder) (effect, error) {
	shipment, ok := l.shipments[d.ref]
	if !ok || l.orders[order.Ref{Owner: d.ref.Owner, ID: shipment.shipment.OrderID}] == nil { // or it came after its order was looked for
		return effect{}, apierr.E(errcode.SHP001)
	}
	if shipment.shipment.Status == order.ShipmentStatusDelivered {
		return effect{}, apierr.E(errcode.SHP004)
	}
	change := l.orders[order.Ref{Owner: d.ref.Owner, ID: shipment.shipment.OrderID}]
	change.events = append(change.events, change.order.Deliver(rec, d.ref.ID)...)
	if err := shipment.record(rec, order.TypeShipmentDelivered, order.ShipmentDelivered{}); err != nil {
		return effect{}, err
	}
	return shipment.changed(change, 200)
}
