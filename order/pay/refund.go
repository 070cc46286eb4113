package pay

import (
	"time"

	"github.com/ordergate/ordergate/order"
)

// RefundStatus is the state of a refund.
type RefundStatus string

// The statuses of a refund. Only a pending one can change.
const (
	RefundPending   RefundStatus = "pending"
	RefundSucceeded RefundStatus = "succeeded"
	RefundFailed    RefundStatus = "failed"
)

// Refund gives back a payment or a part of it: the fold of its events.
type Refund struct {
	order.Ref
	PaymentID     order.ID
	OrderID       order.ID
	Amount        order.Money
	Reason        string
	Status        RefundStatus
	FailureCode   string
	DeclineReason string
	Reference     string // the provider's

	Head      order.Head
	CreatedAt time.Time
	UpdatedAt time.Time
}

// Resource is the refund as its events name it.
func (r *Refund) Resource() order.Resource {
	return order.Resource{Owner: r.Owner, Kind: order.KindRefund, ID: r.ID.Format(order.PrefixRefund)}
}

// RefundData is the payload of a refund's event.
type RefundData interface {
	eventType() string
	applyTo(r *Refund)
}

// The payloads of a refund's events. Their JSON is what clients read as the event's data.
type (
	// RefundMade opens a refund; the provider has not been asked yet.
	RefundMade struct {
		PaymentID string      `json:"payment_id"`
		OrderID   string      `json:"order_id"`
		Amount    order.Money `json:"amount"`
		Reason    order.Text  `json:"reason"`
	}
	// RefundDone says that the amount is given back.
	RefundDone struct {
		Reference string `json:"reference"` // the provider's
	}
	// RefundRefused says why nothing is given back.
	RefundRefused struct {
		Code          string     `json:"code"`
		DeclineReason order.Text `json:"decline_reason"`
	}
)

func (RefundMade) eventType() string    { return "refund.created" }
func (RefundDone) eventType() string    { return "refund.succeeded" }
func (RefundRefused) eventType() string { return "refund.failed" }

func (d RefundMade) applyTo(r *Refund) {
	r.PaymentID, _ = order.Parse(order.PrefixPayment, d.PaymentID)
	r.OrderID, _ = order.Parse(order.PrefixOrder, d.OrderID)
	r.Amount, r.Reason, r.Status = d.Amount, string(d.Reason), RefundPending
}
func (d RefundDone) applyTo(r *Refund) { r.Status, r.Reference = RefundSucceeded, d.Reference }
func (d RefundRefused) applyTo(r *Refund) {
	r.Status, r.FailureCode, r.DeclineReason = RefundFailed, d.Code, string(d.DeclineReason)
}

var refundDecoders = map[string]func([]byte) (RefundData, error){
	"refund.created":   decode[RefundData, RefundMade],
	"refund.succeeded": decode[RefundData, RefundDone],
	"refund.failed":    decode[RefundData, RefundRefused],
}

// Record makes the next event of the refund and applies it.
func (r *Refund) Record(rec order.Recorder, d RefundData) order.ResourceEvent {
	e := r.Head.Next(r.Resource(), rec, d.eventType(), SchemaVersion, d)
	r.happened(e.Event, d)
	return e
}

func (r *Refund) happened(e order.Event, d RefundData) {
	d.applyTo(r)
	r.UpdatedAt = e.At
	if e.Version == 1 {
		r.CreatedAt = e.At
	}
}

// FoldRefund rebuilds a refund from its events, oldest first, up to the first state that until accepts; nil: to the last. It fails on an
// unknown type or a gap.
func FoldRefund(ref order.Ref, events []order.Event, until func(*Refund) bool) (*Refund, error) {
	r := &Refund{Ref: ref}
	for _, e := range events {
		if err := r.Apply(e); err != nil {
			return nil, err
		}
		if until != nil && until(r) {
			break
		}
	}
	return r, nil
}

// Apply moves the refund on by its next event. It fails on an unknown type or schema version, or a gap.
func (r *Refund) Apply(e order.Event) error {
	d, err := dataOf(e, r.Head.Version, refundDecoders)
	if err != nil {
		return err
	}
	r.Head = order.Head{Version: e.Version, Hash: e.Hash}
	r.happened(e, d)
	return nil
}
