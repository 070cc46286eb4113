package order

import (
	"fmt"
	"strconv"

	jsonv2 "github.com/go-json-experiment/json"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/rfc3339"
)

// FulfillmentStatus says how much of an order is on its way.
type FulfillmentStatus string

// The fulfillment statuses.
const (
	FulfillmentStatusUnfulfilled FulfillmentStatus = "unfulfilled"
	FulfillmentStatusPartial     FulfillmentStatus = "partial"   // some pieces were shipped
	FulfillmentStatusShipped     FulfillmentStatus = "shipped"   // all pieces were shipped
	FulfillmentStatusDelivered   FulfillmentStatus = "delivered" // and all shipments have arrived
)

// ShipmentStatus is the state of a shipment.
type ShipmentStatus string

// The statuses of a shipment. Delivered is final.
const (
	ShipmentStatusShipped   ShipmentStatus = "shipped"
	ShipmentStatusDelivered ShipmentStatus = "delivered"
)

// Shipment is pieces of an order that travel together: the fold of its events.
type Shipment struct {
	ID          ID
	Version     int64
	HeadHash    []byte
	OrderID     ID
	Lines       []ShipmentLine
	Tracking    *Tracking // nil: there is none
	Status      ShipmentStatus
	CreatedAt   rfc3339.Time
	UpdatedAt   rfc3339.Time
	DeliveredAt *rfc3339.Time // nil: not yet
}

// ShipmentLine is a sku and how many pieces of it travel.
type ShipmentLine struct {
	SKU      string `json:"sku"`
	Quantity int64  `json:"quantity"`
}

// Tracking is what the carrier calls a shipment.
type Tracking struct {
	Carrier string `json:"carrier"`
	Number  string `json:"number"`
	URL     Text   `json:"url"`
}

// ShipmentSchema is the version of the payloads of a shipment's events. A change that older readers cannot decode raises it.
const ShipmentSchema = 1

// The types of a shipment's events.
const (
	TypeShipmentCreated   = "shipment.created"
	TypeShipmentDelivered = "shipment.delivered"
)

// ShipmentCreated is the payload of a shipment's first event.
type ShipmentCreated struct {
	OrderID  string         `json:"order_id"` // as clients see it
	Lines    []ShipmentLine `json:"lines"`
	Tracking *Tracking      `json:"tracking"`
}

// ShipmentDelivered is the payload of the event that ends a shipment.
type ShipmentDelivered struct{}

// Apply moves the shipment on by its next event. It fails on an unknown type or schema version, a payload that cannot be decoded, or a gap.
func (s *Shipment) Apply(e Event) error {
	if e.Version != s.Version+1 {
		return fmt.Errorf("version %d follows %d", e.Version, s.Version)
	}
	if e.Schema != ShipmentSchema {
		return fmt.Errorf("version %d: %s of unknown schema version %d", e.Version, e.Type, e.Schema)
	}
	at := rfc3339.New(e.At)
	switch e.Type {
	case TypeShipmentCreated:
		var d ShipmentCreated
		if err := jsonv2.Unmarshal(e.Payload, &d); err != nil {
			return fmt.Errorf("version %d: %s: %w", e.Version, e.Type, err)
		}
		id, ok := Parse(PrefixOrder, d.OrderID)
		if !ok {
			return fmt.Errorf("version %d: %s: %q is no order", e.Version, e.Type, d.OrderID)
		}
		s.OrderID, s.Lines, s.Tracking, s.Status, s.CreatedAt = id, d.Lines, d.Tracking, ShipmentStatusShipped, at
	case TypeShipmentDelivered:
		s.Status, s.DeliveredAt = ShipmentStatusDelivered, &at
	default:
		return fmt.Errorf("version %d: unknown event type %q", e.Version, e.Type)
	}
	s.Version, s.HeadHash, s.UpdatedAt = e.Version, e.Hash, at
	return nil
}

// Ship records that lines of the order go on their way in a shipment, and returns them; nil lines are all that is unshipped. Refusals:
// those of the table, SHP_003 of an order that is refunded in full, SHP_002 for more pieces of a sku than are unshipped, for a sku that
// the order does not have, and for the same sku twice.
func (o *Order) Ship(rec Recorder, shipment ID, lines []ShipmentLine) ([]ShipmentLine, []Event, error) {
	if err := o.check(Ship); err != nil {
		return nil, nil, err
	}
	if o.PaymentStatus == PaymentStatusRefunded {
		return nil, nil, apierr.E(errcode.SHP003)
	}
	var rest []ShipmentLine
	left := make(map[string]int64, len(o.Lines))
	for _, l := range o.Lines {
		left[l.SKU] = l.Quantity - l.Shipped
		if left[l.SKU] > 0 {
			rest = append(rest, ShipmentLine{l.SKU, left[l.SKU]})
		}
	}
	if len(rest) == 0 {
		return nil, nil, errNothingLeft()
	}
	if lines == nil {
		lines = rest
	}
	var faults []apierr.Fault
	named := make(map[string]bool, len(lines))
	status := FulfillmentStatusShipped
	for i, l := range lines {
		at := "/lines/" + strconv.Itoa(i)
		unshipped, ordered := left[l.SKU]
		switch {
		case named[l.SKU]:
			faults = append(faults, apierr.Fault{Pointer: at + "/sku", Rule: errcode.RuleUnique})
		case !ordered:
			faults = append(faults, apierr.Fault{Pointer: at + "/sku", Rule: errcode.RuleOrdered})
		case l.Quantity > unshipped:
			faults = append(faults, apierr.Fault{Pointer: at + "/quantity", Rule: errcode.RuleUnshipped, Expected: strconv.FormatInt(unshipped, 10)})
		}
		named[l.SKU] = true
		left[l.SKU] -= l.Quantity
	}
	if len(faults) > 0 {
		return nil, nil, apierr.E(errcode.SHP002, apierr.Faults(faults...))
	}
	for _, pieces := range left {
		if pieces > 0 {
			status = FulfillmentStatusPartial
		}
	}
	return lines, []Event{o.Record(rec, Shipped{ShipmentID: shipment.Format(PrefixShipment), Lines: lines, FulfillmentStatus: status})}, nil
}

func errNothingLeft() error {
	return apierr.E(errcode.SHP002, apierr.Faults(apierr.Fault{Pointer: "/lines", Rule: errcode.RuleUnshipped, Expected: "0"}))
}

// Deliver records that one of the order's shipments has arrived, and that the order is completed if it was the last one of an order of
// which all is shipped. The caller knows that the shipment was under way.
func (o *Order) Deliver(rec Recorder, shipment ID) []Event {
	last := o.FulfillmentStatus == FulfillmentStatusShipped && o.InTransit == 1
	status := o.FulfillmentStatus
	if last {
		status = FulfillmentStatusDelivered
	}
	events := []Event{o.Record(rec, Delivered{ShipmentID: shipment.Format(PrefixShipment), FulfillmentStatus: status})}
	if last {
		events = append(events, o.Record(rec, Completed{}))
	}
	return events
}
