package order

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	jsonv2 "github.com/go-json-experiment/json"

	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/rfc3339"
)

// Event is one entry of the history of an order, or of another resource. Payload is the JSON of its type: of an order one of those below.
// Hash covers its exact bytes and the hash of the event before, so that no event can be changed, dropped or put in between unnoticed.
type Event struct {
	ID       ID
	Type     string
	Version  int64 // of the resource after this event; gapless from 1
	Schema   int32
	Payload  []byte
	At       time.Time // UTC, cut to microseconds, the precision of PostgreSQL
	Cause    Cause
	PrevHash []byte
	Hash     []byte
}

// Cause says what led to an event.
type Cause struct {
	TraceID   string
	Operation string // the operationId, or the message that the saga handled
	Actor     string // the API key's id, or "saga"
}

// The payloads, one type an event. Their JSON is what clients read as the event's data.
type (
	// Created opens an order; its lines carry the prices of that moment.
	Created struct {
		Currency    string `json:"currency"`
		CustomerRef string `json:"customer_ref"`
		Reference   Text   `json:"reference"`
		Lines       []Line `json:"lines"`
		Amounts
		WithPayment bool              `json:"with_payment"`
		Metadata    map[string]string `json:"metadata"`
	}
	// Updated changes the properties that it has.
	Updated struct {
		PaymentStatus          PaymentStatus     `json:"payment_status,omitempty"`
		Metadata               map[string]string `json:"metadata,omitzero"`                  // the whole new map
		ShippingAddressChanged bool              `json:"shipping_address_changed,omitempty"` // the address stands beside the events
	}
	// StockReserved says that all lines are held until ExpiresAt.
	StockReserved struct {
		ExpiresAt rfc3339.Time `json:"expires_at"`
	}
	// StockRejected says which skus were short; nothing is held.
	StockRejected struct {
		SKUs []ShortSKU `json:"skus"`
	}
	// PaymentFailed says that the attempt ended without a charge.
	PaymentFailed struct {
		Code          string `json:"code"`
		DeclineReason Text   `json:"decline_reason"`
	}
	// Paid says that the amount is captured, and by which payment.
	Paid struct {
		PaymentID Text  `json:"payment_id"`
		Amount    Money `json:"amount"`
	}
	// Confirmed says that the order is paid and its stock confirmed.
	Confirmed struct{}
	// CancelRequested says that the client asked to cancel; the saga compensates.
	CancelRequested struct {
		Reason Text `json:"reason"`
	}
	// Refunded says that the amount is given back.
	Refunded struct {
		RefundID string `json:"refund_id"`
		Amount   Money  `json:"amount"`
	}
	// Shipped says that pieces of the order went on their way in a shipment.
	Shipped struct {
		ShipmentID        string            `json:"shipment_id"` // as clients see it
		Lines             []ShipmentLine    `json:"lines"`
		FulfillmentStatus FulfillmentStatus `json:"fulfillment_status"`
	}
	// Delivered says that a shipment has arrived.
	Delivered struct {
		ShipmentID        string            `json:"shipment_id"`
		FulfillmentStatus FulfillmentStatus `json:"fulfillment_status"`
	}
	// Completed ends an order of which everything has arrived.
	Completed struct{}
	// Cancelled ends an order at the client's request.
	Cancelled struct{}
	// Rejected ends an order that could not be fulfilled.
	Rejected struct {
		Rejection
	}
)

// Text is a string. Its JSON is null if it is empty, because a response has all its properties.
type Text string

// MarshalJSON implements json.Marshaler.
func (t Text) MarshalJSON() ([]byte, error) {
	if t == "" {
		return []byte("null"), nil
	}
	return json.Marshal(string(t))
}

// Data is the payload of an event, one of the types above. Each has its name, which is stored for ever, and its effect on the order.
type Data interface {
	eventType() string
	apply(o *Order, at rfc3339.Time)
}

// decoders has one entry for each payload type; a test finds a type that is missing here.
var decoders = byType(
	decode[Created], decode[Updated], decode[StockReserved], decode[StockRejected], decode[PaymentFailed], decode[Paid],
	decode[Confirmed], decode[CancelRequested], decode[Refunded], decode[Cancelled], decode[Rejected],
	decode[Shipped], decode[Delivered], decode[Completed],
)

// decoder reads a payload. For a nil payload it returns the zero Data, for the name of its type.
type decoder func(payload []byte) (Data, error)

func byType(all ...decoder) map[string]decoder {
	m := make(map[string]decoder, len(all))
	for _, d := range all {
		zero, _ := d(nil)
		m[zero.eventType()] = d
	}
	return m
}

func decode[T Data](payload []byte) (Data, error) {
	var d T
	if payload == nil {
		return d, nil
	}
	err := jsonv2.Unmarshal(payload, &d)
	return d, err
}

// data decodes the event's payload.
func (e Event) data() (Data, error) {
	decode, ok := decoders[e.Type]
	if !ok || e.Payload == nil {
		return nil, fmt.Errorf("version %d: unknown event type %q", e.Version, e.Type)
	}
	payload, _, err := e.Current()
	if err != nil {
		return nil, err
	}
	d, err := decode(payload)
	if err != nil {
		return nil, fmt.Errorf("version %d: %s: %w", e.Version, e.Type, err)
	}
	return d, nil
}

func (Created) eventType() string { return "order.created" }

func (d Created) apply(o *Order, at rfc3339.Time) {
	o.Status, o.PaymentStatus, o.FulfillmentStatus, o.CreatedAt = StatusPending, PaymentStatusNone, FulfillmentStatusUnfulfilled, at
	o.Currency, o.CustomerRef, o.Reference, o.Lines, o.Amounts = d.Currency, d.CustomerRef, d.Reference, slices.Clone(d.Lines), d.Amounts
	o.WithPayment, o.Metadata = d.WithPayment, d.Metadata
}

func (Updated) eventType() string { return "order.updated" }

func (d Updated) apply(o *Order, _ rfc3339.Time) {
	if d.PaymentStatus != "" {
		o.PaymentStatus = d.PaymentStatus
	}
	if d.PaymentStatus == PaymentStatusAuthorized {
		o.Failure = nil // of an earlier card
	}
	if d.Metadata != nil {
		o.Metadata = d.Metadata
	}
}

func (StockReserved) eventType() string { return "order.stock_reserved" }

func (d StockReserved) apply(o *Order, _ rfc3339.Time) {
	o.Status, o.ReservationExpiresAt = StatusReserved, &d.ExpiresAt
}

func (StockRejected) eventType() string { return "order.stock_rejected" }

func (d StockRejected) apply(o *Order, _ rfc3339.Time) {
	o.Failure = &Rejection{Code: string(errcode.INV002), SKUs: d.SKUs}
}

func (PaymentFailed) eventType() string { return "order.payment_failed" }

// An order that was placed without payment waits for another card, unless the capture was refused.
func (d PaymentFailed) apply(o *Order, _ rfc3339.Time) {
	if o.WithPayment || o.PaymentStatus == PaymentStatusAuthorized {
		o.Failure = &Rejection{Code: d.Code, DeclineReason: d.DeclineReason}
	}
	o.PaymentStatus = PaymentStatusFailed
}

func (Paid) eventType() string { return "order.paid" }

func (Paid) apply(o *Order, _ rfc3339.Time) { o.PaymentStatus = PaymentStatusPaid }

func (Confirmed) eventType() string { return "order.confirmed" }

func (Confirmed) apply(o *Order, _ rfc3339.Time) {
	o.Status, o.ReservationExpiresAt = StatusConfirmed, nil
}

func (CancelRequested) eventType() string { return "order.cancel_requested" }

func (CancelRequested) apply(o *Order, at rfc3339.Time) { o.CancelRequestedAt = &at }

func (Refunded) eventType() string { return "order.refunded" }

func (d Refunded) apply(o *Order, _ rfc3339.Time) {
	o.Refunded += d.Amount.Amount
	o.PaymentStatus = PaymentStatusPartiallyRefunded
	if o.Refunded >= o.Total.Amount {
		o.PaymentStatus = PaymentStatusRefunded
	}
}

// TellsOfRefund tells whether the event of an order says that the refund was given back.
func (e Event) TellsOfRefund(id ID) bool {
	d, err := e.data()
	refunded, ok := d.(Refunded)
	return err == nil && ok && refunded.RefundID == id.Format(PrefixRefund)
}

func (Shipped) eventType() string { return "order.shipped" }

func (d Shipped) apply(o *Order, _ rfc3339.Time) {
	for _, shipped := range d.Lines {
		for i := range o.Lines {
			if o.Lines[i].SKU == shipped.SKU {
				o.Lines[i].Shipped += shipped.Quantity
			}
		}
	}
	o.FulfillmentStatus = d.FulfillmentStatus
	o.InTransit++
}

func (Delivered) eventType() string { return "order.delivered" }

func (d Delivered) apply(o *Order, _ rfc3339.Time) {
	o.FulfillmentStatus = d.FulfillmentStatus
	o.InTransit--
}

func (Completed) eventType() string { return "order.completed" }

func (Completed) apply(o *Order, _ rfc3339.Time) { o.Status = StatusCompleted }

func (Cancelled) eventType() string { return "order.cancelled" }

func (Cancelled) apply(o *Order, _ rfc3339.Time) {
	o.Status, o.ReservationExpiresAt = StatusCancelled, nil
}

func (Rejected) eventType() string { return "order.rejected" }

func (d Rejected) apply(o *Order, _ rfc3339.Time) {
	o.Status, o.ReservationExpiresAt, o.Rejection, o.Failure = StatusRejected, nil, &d.Rejection, nil
}

// chain is the hash of an event of a resource: SHA-256 over its length-prefixed fields, the hash before it first.
func (e Event) chain(resource []byte) []byte {
	h := sha256.New()
	field := func(b []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	var numbers [20]byte
	binary.BigEndian.PutUint64(numbers[0:], uint64(e.Version))
	binary.BigEndian.PutUint64(numbers[8:], uint64(e.At.UnixMicro()))
	binary.BigEndian.PutUint32(numbers[16:], uint32(e.Schema))
	field(e.PrevHash)
	field(resource)
	field(e.ID[:])
	field(numbers[:])
	field([]byte(e.Type))
	field(e.Payload)
	field([]byte(e.Cause.TraceID))
	field([]byte(e.Cause.Operation))
	field([]byte(e.Cause.Actor))
	return h.Sum(nil)
}

// Verify checks that events are the complete, unchanged history of the order from its first version on.
func Verify(orderID ID, events []Event) error { return NewChain(orderID).verify(events) }

func (c *Chain) verify(events []Event) error {
	for _, e := range events {
		if err := c.Next(e); err != nil {
			return err
		}
	}
	return nil
}

// Chain checks the history of an order, or of another resource, event by event, from its first version on.
type Chain struct {
	resource []byte // as the hashes cover it
	version  int64
	hash     []byte
}

// Version is that of the last event that was checked.
func (c *Chain) Version() int64 { return c.version }

// NewChain begins with an order's first event.
func NewChain(orderID ID) *Chain { return &Chain{resource: orderID[:]} }

// Next checks that e is unchanged and follows the event before it.
func (c *Chain) Next(e Event) error {
	switch {
	case e.Version != c.version+1:
		return fmt.Errorf("version %d stands where %d belongs", e.Version, c.version+1)
	case !bytes.Equal(e.PrevHash, c.hash):
		return fmt.Errorf("version %d does not follow the event before it", e.Version)
	case !bytes.Equal(e.Hash, e.chain(c.resource)):
		return fmt.Errorf("version %d was changed", e.Version)
	}
	c.version, c.hash = e.Version, e.Hash
	return nil
}
