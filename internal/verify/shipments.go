package verify

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/ordergate/ordergate/gen/verifydb"
	"github.com/ordergate/ordergate/order"
)

// checkShipments compares each order with its shipments. Nothing may be in flight: a shipment changes under the lock of its order, in the
// transaction that writes both.
func (s *scan) checkShipments(ctx context.Context) error {
	if err := s.eachOrderPage(ctx, func(p orderPage) error {
		rows, err := s.ShipmentsOf(ctx, verifydb.ShipmentsOfParams(p.refs))
		if err != nil {
			return err
		}
		shipments := group(rows, func(r verifydb.ShipmentsOfRow) order.Ref { return order.RefOf(r.Account, r.Mode, r.OrderID) })
		p.each(func(ref order.Ref, o *order.Order) {
			for _, fault := range shipmentFaults(o, shipments[ref]) {
				s.violationf(orderName(ref.ID), "%s", fault)
			}
		})
		return nil
	}); err != nil {
		return err
	}
	return orphans(ctx, s, "it has a shipment and no row in orders", s.ShipmentsWithoutOrder)
}

// shipmentFaults judges what an order says about its shipments.
func shipmentFaults(o *order.Order, shipments []verifydb.ShipmentsOfRow) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	sent, inTransit := map[string]int64{}, int64(0)
	for _, sh := range shipments {
		var lines []order.ShipmentLine
		if json.Unmarshal(sh.Lines, &lines) != nil {
			fault("the lines of shipment %s cannot be read", order.ID(sh.ID).Format(order.PrefixShipment))
		}
		for _, l := range lines {
			sent[l.SKU] += l.Quantity
		}
		if sh.Status == string(order.ShipmentStatusShipped) {
			inTransit++
		}
	}
	var ordered, total int64
	for _, l := range o.Lines {
		if sent[l.SKU] != l.Shipped {
			fault("it shipped %d of %s, and its shipments have %d", l.Shipped, l.SKU, sent[l.SKU])
		}
		if sent[l.SKU] > l.Quantity {
			fault("its shipments have %d of %s, and %d are ordered", sent[l.SKU], l.SKU, l.Quantity)
		}
		ordered, total = ordered+l.Quantity, total+sent[l.SKU]
		delete(sent, l.SKU)
	}
	for sku := range sent {
		fault("its shipments have %s, which is not ordered", sku)
	}
	if inTransit != o.InTransit {
		fault("%d shipments are under way by its own count, and %d are", o.InTransit, inTransit)
	}
	status := order.FulfillmentStatusPartial
	switch {
	case len(shipments) == 0:
		status = order.FulfillmentStatusUnfulfilled
	case total == ordered && inTransit == 0:
		status = order.FulfillmentStatusDelivered
	case total == ordered:
		status = order.FulfillmentStatusShipped
	}
	if o.FulfillmentStatus != status {
		fault("its fulfillment status is %s, and its shipments give %s", o.FulfillmentStatus, status)
	}
	if (o.Status == order.StatusCompleted) != (status == order.FulfillmentStatusDelivered) ||
		len(shipments) > 0 && o.Status != order.StatusConfirmed && o.Status != order.StatusCompleted {
		fault("it is %s, and its shipments give %s", o.Status, status)
	}
	return faults
}
