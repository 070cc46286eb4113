package payment

import (
	"context"
	"errors"
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

// TakeCallback stores a callback, in the given transaction, and lets the provider be asked: the payment's calls that were sent and have no
// outcome become due, and Sweep looks at the payment. The callback changes nothing else, whatever it says. It may come in any order and any
// number of times, and be about anything.
func TakeCallback(ctx context.Context, tx pgx.Tx, ids order.IDs, c Callback) (CallbackResult, error) {
	q := paymentdb.New(tx)
	id, _ := ownPayment(ids, &c.Payment)
	parked, err := q.InsertCallback(ctx, paymentdb.InsertCallbackParams{
		Provider: c.Provider, EventID: c.EventID, OperationKey: c.Key, Kind: c.Kind, Status: c.Status, PaymentID: uuid.UUID(id), Body: c.Body,
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return CallbackRepeated, nil
	case err != nil:
		return "", fmt.Errorf("store callback: %w", err)
	case parked:
		return CallbackParked, nil
	}
	if _, err = q.HastenCalls(ctx, uuid.UUID(id)); err != nil {
		return "", fmt.Errorf("make calls due: %w", err)
	}
	return CallbackStored, nil
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
