package edge

import (
	"context"

	"github.com/ordergate/ordergate/gen/api"
)

// ShipOrder returns 201 with the shipment.
func (h handlers) ShipOrder(ctx context.Context, r *request, body *api.ShipOrder) (response, error) {
	if body == nil {
		body = &api.ShipOrder{}
	}
	result, err := h.cfg.Commands.ShipOrder(ctx, r.envelope(), r.orderID, *body)
	return h.commandResponse(ctx, r, result, err, nil)
}

// DeliverShipment returns 200 with the shipment. Its body says nothing.
func (h handlers) DeliverShipment(ctx context.Context, r *request, _ *api.DeliverShipment) (response, error) {
	result, err := h.cfg.Commands.DeliverShipment(ctx, r.envelope(), r.shipmentID)
	return h.commandResponse(ctx, r, result, err, nil)
}
