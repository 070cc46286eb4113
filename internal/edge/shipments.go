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

// GetShipment returns a shipment from a database that is fresh enough.
func (h handlers) GetShipment(ctx context.Context, r *request) (response, error) {
	return r.queryResponse(h.cfg.Queries.GetShipment(ctx, r.key.Owner, r.shipmentID, r.token))
}

// ListOrderShipments returns a page of an order's shipments.
func (h handlers) ListOrderShipments(ctx context.Context, r *request) (response, error) {
	return r.queryResponse(h.cfg.Queries.ListOrderShipments(ctx, r.key.Owner, r.orderID, r.page, r.token))
}
