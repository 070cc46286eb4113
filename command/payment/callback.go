package payment

import (
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/gen/paymentdb"
	"github.com/ordergate/ordergate/order"
)

// Provider is the name of the payment provider: in the address of its callbacks, in tables and metrics.
const Provider = "psp"

// Callback is what a provider called us with about an operation.
type Callback struct {
	Provider, EventID          string
	Key, Kind, Payment, Status string // of the operation; Kind and Payment may be empty
	Body                       string // as it was sent
}

// CallbackResult is what became of a callback.
type CallbackResult string

// The results.
const (
	CallbackStored   CallbackResult = "stored"
	CallbackRepeated CallbackResult = "repeated" // its event was taken before: nothing is changed
	CallbackParked   CallbackResult = "parked"   // stored, and its payment is not known here
)

// QueueCallback queues the statement that stores a callback and lets the provider be asked: the payment's calls that were sent and have no outcome become
// due, and Sweep looks at the payment. The callback changes nothing else, whatever it says. It may come in any order and any number of times, and be about
// anything. result is set when the statement has succeeded.
func QueueCallback(to *pgx.Batch, ids order.IDs, c Callback, result *CallbackResult) {
	id, _ := ownPayment(ids, &c.Payment)
	to.Queue(paymentdb.TakeCallback, c.Provider, c.EventID, c.Key, c.Kind, c.Status, c.Body, uuid.UUID(id)).Query(func(rows pgx.Rows) error {
		parked, err := pgx.CollectRows(rows, pgx.RowTo[bool])
		switch {
		case err != nil:
			return fmt.Errorf("store callback: %w", err)
		case len(parked) == 0:
			*result = CallbackRepeated
		case parked[0]:
			*result = CallbackParked
		default:
			*result = CallbackStored
		}
		return nil
	})
}

// ownPayment reads the id of a payment that was minted here; the zero id and false for any other text.
func ownPayment(ids order.IDs, text *string) (order.ID, bool) {
	if text == nil {
		return order.ID{}, false
	}
	if id, ok := order.Parse(order.PrefixPayment, *text); ok && ids.Genuine(id) {
		return id, true
	}
	return order.ID{}, false
}
