// Package pay is the domain of payments and refunds: what they are, their events, and their fold. It decides nothing and does no I/O.
package pay

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ordergate/ordergate/order"
)

// Status is the state of a payment.
type Status string

// The statuses of a payment. A voided, failed or captured one charges nothing more.
const (
	StatusPending    Status = "pending"
	StatusAuthorized Status = "authorized"
	StatusCaptured   Status = "captured"
	StatusVoided     Status = "voided"
	StatusFailed     Status = "failed"
)

// Payment is one attempt to pay an order: the fold of its events, and the sums of its refunds.
type Payment struct {
	order.Ref
	OrderID       order.ID
	Attempt       int32
	Amount        order.Money
	Status        Status
	FailureCode   string
	DeclineReason string
	Reference     string // the provider's, of the last operation

	Refunded      int64 // minor units, of refunds that succeeded
	RefundPending int64 // minor units, of refunds without an outcome

	Head      order.Head
	CreatedAt time.Time
	UpdatedAt time.Time
}

// Refundable is the amount in minor units that another refund may have at most.
func (p *Payment) Refundable() int64 {
	if p.Status != StatusCaptured {
		return 0
	}
	return p.Amount.Amount - p.Refunded - p.RefundPending
}

// Touch notes that a refund of the payment changed at an instant. Whatever the clocks say, UpdatedAt is the latest of the payment's last event
// and all events of its refunds.
func (p *Payment) Touch(at time.Time) {
	if at.After(p.UpdatedAt) {
		p.UpdatedAt = at
	}
}

// Resource is the payment as its events name it.
func (p *Payment) Resource() order.Resource {
	return order.Resource{Owner: p.Owner, Kind: order.KindPayment, ID: p.ID.Format(order.PrefixPayment)}
}

// SchemaVersion is the version of the payloads below. A change that older readers cannot decode raises it.
const SchemaVersion = 1

// Data is the payload of a payment's event.
type Data interface {
	eventType() string
	apply(p *Payment)
}

// The payloads of a payment's events. Their JSON is what clients read as the event's data.
type (
	// Created opens a payment; the provider has not been asked yet.
	Created struct {
		OrderID string      `json:"order_id"`
		Attempt int32       `json:"attempt"`
		Amount  order.Money `json:"amount"`
	}
	// Authorized says that the amount is held for us.
	Authorized struct {
		Reference string `json:"reference"` // the provider's
	}
	// Captured says that the amount is charged.
	Captured struct {
		Reference string `json:"reference"`
	}
	// Voided says that the authorization is given up; nothing is charged.
	Voided struct {
		Reference string `json:"reference"`
	}
	// Failed says why nothing is charged.
	Failed struct {
		Code          string     `json:"code"`
		DeclineReason order.Text `json:"decline_reason"`
	}
)

func (Created) eventType() string    { return "payment.created" }
func (Authorized) eventType() string { return "payment.authorized" }
func (Captured) eventType() string   { return "payment.captured" }
func (Voided) eventType() string     { return "payment.voided" }
func (Failed) eventType() string     { return "payment.failed" }

func (d Created) apply(p *Payment) {
	p.OrderID, _ = order.Parse(order.PrefixOrder, d.OrderID)
	p.Attempt, p.Amount, p.Status = d.Attempt, d.Amount, StatusPending
}
func (d Authorized) apply(p *Payment) { p.Status, p.Reference = StatusAuthorized, d.Reference }
func (d Captured) apply(p *Payment)   { p.Status, p.Reference = StatusCaptured, d.Reference }
func (d Voided) apply(p *Payment)     { p.Status, p.Reference = StatusVoided, d.Reference }
func (d Failed) apply(p *Payment) {
	p.Status, p.FailureCode, p.DeclineReason = StatusFailed, d.Code, string(d.DeclineReason)
}

var decoders = map[string]func([]byte) (Data, error){
	"payment.created":    decode[Data, Created],
	"payment.authorized": decode[Data, Authorized],
	"payment.captured":   decode[Data, Captured],
	"payment.voided":     decode[Data, Voided],
	"payment.failed":     decode[Data, Failed],
}

// decode reads a payload of type T, which implements D.
func decode[D, T any](payload []byte) (d D, err error) {
	var t T
	if err = json.Unmarshal(payload, &t); err != nil {
		return d, err
	}
	return any(t).(D), nil //nolint:forcetypeassert // the tables have no other types: TestEveryPayloadIsDecoded
}

// Record makes the next event of the payment and applies it.
func (p *Payment) Record(rec order.Recorder, d Data) order.ResourceEvent {
	e := p.Head.Next(p.Resource(), rec, d.eventType(), SchemaVersion, d)
	p.happened(e.Event, d)
	return e
}

func (p *Payment) happened(e order.Event, d Data) {
	d.apply(p)
	p.UpdatedAt = e.At
	if e.Version == 1 {
		p.CreatedAt = e.At
	}
}

// errGap is a history that lacks an event.
var errGap = errors.New("an event is missing")

// Fold rebuilds a payment from its events, oldest first, up to the first state that until accepts; nil: to the last. The sums of its
// refunds are not in its events. It fails on an unknown type or a gap.
func Fold(ref order.Ref, events []order.Event, until func(*Payment) bool) (*Payment, error) {
	p := &Payment{Ref: ref}
	for _, e := range events {
		if err := p.Apply(e); err != nil {
			return nil, err
		}
		if until != nil && until(p) {
			break
		}
	}
	return p, nil
}

// Apply moves the payment on by its next event. It fails on an unknown type or schema version, or a gap.
func (p *Payment) Apply(e order.Event) error {
	d, err := dataOf(e, p.Head.Version, decoders)
	if err != nil {
		return err
	}
	p.Head = order.Head{Version: e.Version, Hash: e.Hash}
	p.happened(e, d)
	return nil
}

// dataOf is the payload of the event that follows a version.
func dataOf[D any](e order.Event, version int64, decoders map[string]func([]byte) (D, error)) (d D, err error) {
	decode, ok := decoders[e.Type]
	switch {
	case e.Version != version+1:
		return d, fmt.Errorf("sequence %d follows %d: %w", e.Version, version, errGap)
	case !ok:
		return d, fmt.Errorf("sequence %d: unknown event type %q", e.Version, e.Type)
	case e.Schema != SchemaVersion:
		return d, fmt.Errorf("sequence %d: %s of unknown schema version %d", e.Version, e.Type, e.Schema)
	}
	if d, err = decode(e.Payload); err != nil {
		return d, fmt.Errorf("sequence %d: %s: %w", e.Version, e.Type, err)
	}
	return d, nil
}
