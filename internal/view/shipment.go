package view

import (
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/order"
)

// Shipment is a shipment as clients see it.
func Shipment(s *order.Shipment) api.Shipment {
	a := api.Shipment{
		ID: s.ID.Format(order.PrefixShipment), OrderID: s.OrderID.Format(order.PrefixOrder), Lines: make([]api.ShipmentLine, len(s.Lines)),
		Status: api.ShipmentStatus(s.Status), Version: s.Version, CreatedAt: s.CreatedAt, UpdatedAt: s.UpdatedAt, DeliveredAt: s.DeliveredAt,
	}
	for i, l := range s.Lines {
		a.Lines[i] = api.ShipmentLine{Sku: l.SKU, Quantity: int32(l.Quantity)}
	}
	if t := s.Tracking; t != nil {
		a.Tracking = &api.Tracking{Carrier: t.Carrier, Number: t.Number}
		if t.URL != "" {
			a.Tracking.URL = (*string)(&t.URL)
		}
	}
	return a
}

// ShipmentBody is the finished body of a shipment.
func ShipmentBody(s *order.Shipment) (Body, error) { return Finish(Shipment(s), s.Version) }
