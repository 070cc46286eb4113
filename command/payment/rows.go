package payment

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/gen/paymentdb"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/order"
)

// Row is a locked payment of a batch.
type Row struct {
	order.Ref
	OrderID       order.ID
	Attempt       int32
	Amount        order.Money
	Status        string
	Refunded      int64 // minor units
	RefundPending int64
	Rev           int64
}

func refParams(refs []order.Ref) paymentdb.LockPaymentsParams {
	return paymentdb.LockPaymentsParams{
		Accounts: pg.Column(refs, func(r order.Ref) int32 { return r.Account }),
		Modes:    pg.Column(refs, func(r order.Ref) string { return r.Mode }),
		Ids:      pg.Column(refs, func(r order.Ref) uuid.UUID { return uuid.UUID(r.ID) }),
	}
}

// Orders maps payments to their orders, without locks. A payment that does not exist is not in it.
func Orders(ctx context.Context, tx pgx.Tx, payments []order.Ref) (map[order.Ref]order.Ref, error) {
	rows, err := paymentdb.New(tx).OrdersOfPayments(ctx, paymentdb.OrdersOfPaymentsParams(refParams(payments)))
	if err != nil {
		return nil, fmt.Errorf("read orders of payments: %w", err)
	}
	orders := make(map[order.Ref]order.Ref, len(rows))
	for _, r := range rows {
		orders[order.RefOf(r.Account, r.Mode, r.ID)] = order.RefOf(r.Account, r.Mode, r.OrderID)
	}
	return orders, nil
}

// Lock locks payments in the transaction, in the order of their ids, and reads them. With onlyFree it does not wait: a payment that
// another transaction holds is left out.
func Lock(ctx context.Context, tx pgx.Tx, payments []order.Ref, onlyFree bool) (map[order.Ref]*Row, error) {
	q, p := paymentdb.New(tx), refParams(payments)
	rows, err := pg.Lock(ctx, onlyFree, q.LockPayments, p, q.LockFreePayments, paymentdb.LockFreePaymentsParams(p),
		func(r paymentdb.LockFreePaymentsRow) paymentdb.LockPaymentsRow { return paymentdb.LockPaymentsRow(r) })
	if err != nil {
		return nil, fmt.Errorf("lock payments: %w", err)
	}
	found := make(map[order.Ref]*Row, len(rows))
	for _, r := range rows {
		p := &Row{
			Ref: order.RefOf(r.Account, r.Mode, r.ID), OrderID: order.ID(r.OrderID), Attempt: r.Attempt, Amount: order.Money{Amount: r.Amount, Currency: r.Currency},
			Status: r.Status, Refunded: r.Refunded, RefundPending: r.RefundPending, Rev: r.Rev,
		}
		found[p.Ref] = p
	}
	return found, nil
}

// Request is a Command about an order, ready to be written.
type Request struct {
	Command
	Order    order.Ref
	TraceID  string
	Deadline float64  // seconds, of an authorization; 0: none
	ID       order.ID // of an authorization's payment
}

// Write writes what requests intend: payments of authorizations, claims of refunds, and a due call for each. Repeating it changes
// nothing but for refunds. The error is a refund that exceeds what is captured and not yet claimed; nothing is kept then, for the
// transaction must be rolled back.
func Write(ctx context.Context, tx pgx.Tx, requests []Request) error {
	var authorize, refund []Request
	for _, r := range requests {
		switch r.Operation {
		case Authorize:
			authorize = append(authorize, r)
		case Refund:
			refund = append(refund, r)
		case Capture, Void:
		}
	}
	q := paymentdb.New(tx)
	account := func(r Request) int32 { return r.Order.Account }
	mode := func(r Request) string { return r.Order.Mode }
	orderID := func(r Request) uuid.UUID { return uuid.UUID(r.Order.ID) }
	attempt := func(r Request) int32 { return r.Attempt }
	amount := func(r Request) int64 { return r.Amount.Amount }
	if len(authorize) > 0 {
		if err := q.InsertPayments(ctx, paymentdb.InsertPaymentsParams{
			Accounts:     pg.Column(authorize, account),
			Modes:        pg.Column(authorize, mode),
			Ids:          pg.Column(authorize, func(r Request) uuid.UUID { return uuid.UUID(r.ID) }),
			OrderIds:     pg.Column(authorize, orderID),
			Attempts:     pg.Column(authorize, attempt),
			Amounts:      pg.Column(authorize, amount),
			Currencies:   pg.Column(authorize, func(r Request) string { return r.Amount.Currency }),
			MethodTokens: pg.Column(authorize, func(r Request) string { return r.MethodToken }),
		}); err != nil {
			return fmt.Errorf("write payments: %w", err)
		}
	}
	if len(refund) > 0 {
		n, err := q.ClaimRefunds(ctx, paymentdb.ClaimRefundsParams{
			Accounts: pg.Column(refund, account),
			Modes:    pg.Column(refund, mode),
			OrderIds: pg.Column(refund, orderID),
			Attempts: pg.Column(refund, attempt),
			Amounts:  pg.Column(refund, amount),
		})
		if err != nil {
			return fmt.Errorf("claim refunds: %w", err)
		}
		if n != int64(len(refund)) {
			return errors.New("a refund exceeds what is captured")
		}
	}
	if err := q.InsertCalls(ctx, paymentdb.InsertCallsParams{
		Accounts:        pg.Column(requests, account),
		Modes:           pg.Column(requests, mode),
		OrderIds:        pg.Column(requests, orderID),
		Operations:      pg.Column(requests, func(r Request) string { return string(r.Operation) }),
		Attempts:        pg.Column(requests, attempt),
		TraceIds:        pg.Column(requests, func(r Request) string { return r.TraceID }),
		DeadlineSeconds: pg.Column(requests, func(r Request) float64 { return r.Deadline }),
	}); err != nil {
		return fmt.Errorf("make calls due: %w", err)
	}
	return nil
}
