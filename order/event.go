package order

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/ordergate/ordergate/internal/rfc3339"
)

// SchemaVersion of the payloads below. A change that older readers cannot take raises it.
const SchemaVersion = 1

// Event is one entry of an order's history. Payload is the JSON of one of the types below; Hash covers its exact bytes and the
// hash of the event before, so that no event can be changed, dropped or put in between unnoticed.
type Event struct {
	ID       ID
	Type     string
	Version  int64 // of the order after this event; gapless from 1
	Schema   int32
	Payload  []byte
	At       time.Time // UTC, cut to microseconds, which is what PostgreSQL keeps
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
		Currency    string            `json:"currency"`
		CustomerRef string            `json:"customer_ref"`
		Lines       []Line            `json:"lines"`
		Total       Money             `json:"total"`
		WithPayment bool              `json:"with_payment"`
		Metadata    map[string]string `json:"metadata"`
	}
	// Updated changes what is named.
	Updated struct {
		PaymentStatus PaymentStatus `json:"payment_status"`
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
	// Paid says that the amount is captured.
	Paid struct {
		Amount Money `json:"amount"`
	}
	// Confirmed says that the order is paid and its stock taken.
	Confirmed struct{}
	// CancelRequested says that the client wants out; the saga compensates.
	CancelRequested struct {
		Reason Text `json:"reason"`
	}
	// Refunded says that the amount went back.
	Refunded struct {
		Amount Money `json:"amount"`
	}
	// Cancelled ends an order on the client's wish.
	Cancelled struct{}
	// Rejected ends an order that could not be fulfilled.
	Rejected struct {
		Rejection
	}
)

// Text is a string whose JSON is null if it is empty: what clients read has all its properties, null where nothing is known.
type Text string

// MarshalJSON implements json.Marshaler.
func (t Text) MarshalJSON() ([]byte, error) {
	if t == "" {
		return []byte("null"), nil
	}
	return json.Marshal(string(t))
}

// Data is what an event says: one of the payload types.
type Data interface{ eventType() string }

func (Created) eventType() string         { return "order.created" }
func (Updated) eventType() string         { return "order.updated" }
func (StockReserved) eventType() string   { return "order.stock_reserved" }
func (StockRejected) eventType() string   { return "order.stock_rejected" }
func (PaymentFailed) eventType() string   { return "order.payment_failed" }
func (Paid) eventType() string            { return "order.paid" }
func (Confirmed) eventType() string       { return "order.confirmed" }
func (CancelRequested) eventType() string { return "order.cancel_requested" }
func (Refunded) eventType() string        { return "order.refunded" }
func (Cancelled) eventType() string       { return "order.cancelled" }
func (Rejected) eventType() string        { return "order.rejected" }

// decoders are by the names above, which stand in the store for ever.
var decoders = map[string]func(Event) (Data, error){
	Created{}.eventType():         decode[Created],
	Updated{}.eventType():         decode[Updated],
	StockReserved{}.eventType():   decode[StockReserved],
	StockRejected{}.eventType():   decode[StockRejected],
	PaymentFailed{}.eventType():   decode[PaymentFailed],
	Paid{}.eventType():            decode[Paid],
	Confirmed{}.eventType():       decode[Confirmed],
	CancelRequested{}.eventType(): decode[CancelRequested],
	Refunded{}.eventType():        decode[Refunded],
	Cancelled{}.eventType():       decode[Cancelled],
	Rejected{}.eventType():        decode[Rejected],
}

// data decodes the event's payload.
func (e Event) data() (Data, error) {
	decode, ok := decoders[e.Type]
	if !ok {
		return nil, fmt.Errorf("version %d: unknown event type %q", e.Version, e.Type)
	}
	return decode(e)
}

func decode[T Data](e Event) (Data, error) {
	var d T
	if err := json.Unmarshal(e.Payload, &d); err != nil {
		return nil, fmt.Errorf("version %d: %s: %w", e.Version, e.Type, err)
	}
	return d, nil
}

// chain is the hash of an event: SHA-256 over its length-prefixed fields, the hash before it first.
func (e Event) chain(orderID ID) []byte {
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
	field(orderID[:])
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
func Verify(orderID ID, events []Event) error {
	var prev []byte
	for i, e := range events {
		switch {
		case e.Version != int64(i)+1:
			return fmt.Errorf("version %d stands where %d belongs", e.Version, i+1)
		case !bytes.Equal(e.PrevHash, prev):
			return fmt.Errorf("version %d does not follow the event before it", e.Version)
		case !bytes.Equal(e.Hash, e.chain(orderID)):
			return fmt.Errorf("version %d was changed", e.Version)
		}
		prev = e.Hash
	}
	return nil
}
