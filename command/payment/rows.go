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

// Intent is a Command about an order, with all that is written before the provider is called.
type Intent struct {
	Command
	Order    order.Ref
	TraceID  string
	Deadline float64  // seconds, of an authorization; 0: none
	ID       order.ID // of an authorization's payment
}

// Write writes intents: the payments of authorizations, the pending amounts of refunds, and a due call for each intent. It may be
// repeated, except for refunds. The error is a refund that exceeds the captured amount, less refunds that are made or pending. The
// transaction must be rolled back then.
func Write(ctx context.Context, tx pgx.Tx, intents []Intent) error {
	var authorize, refund []Intent
	for _, in := range intents {
		switch in.Operation {
		case Authorize:
			authorize = append(authorize, in)
		case Refund:
			refund = append(refund, in)
		case Capture, Void:
		}
	}
	q := paymentdb.New(tx)
	account := func(in Intent) int32 { return in.Order.Account }
	mode := func(in Intent) string { return in.Order.Mode }
	orderID := func(in Intent) uuid.UUID { return uuid.UUID(in.Order.ID) }
	attempt := func(in Intent) int32 { return in.Attempt }
	amount := func(in Intent) int64 { return in.Amount.Amount }
	if len(authorize) > 0 {
		if err := q.InsertPayments(ctx, paymentdb.InsertPaymentsParams{
			Accounts:     pg.Column(authorize, account),
			Modes:        pg.Column(authorize, mode),
			Ids:          pg.Column(authorize, func(in Intent) uuid.UUID { return uuid.UUID(in.ID) }),
			OrderIds:     pg.Column(authorize, orderID),
			Attempts:     pg.Column(authorize, attempt),
			Amounts:      pg.Column(authorize, amount),
			Currencies:   pg.Column(authorize, func(in Intent) string { return in.Amount.Currency }),
			MethodTokens: pg.Column(authorize, func(in Intent) string { return in.MethodToken }),
		}); err != nil {
			return fmt.Errorf("write payments: %w", err)
		}
	}
	if len(refund) > 0 {
		n, err := q.AddPendingRefunds(ctx, paymentdb.AddPendingRefundsParams{
			Accounts: pg.Column(refund, account),
			Modes:    pg.Column(refund, mode),
			OrderIds: pg.Column(refund, orderID),
			Attempts: pg.Column(refund, attempt),
			Amounts:  pg.Column(refund, amount),
		})
		if err != nil {
			return fmt.Errorf("add pending refunds: %w", err)
		}
		if n != int64(len(refund)) {
			return errors.New("a refund exceeds the captured amount")
		}
	}
	if err := q.InsertCalls(ctx, paymentdb.InsertCallsParams{
		Accounts:        pg.Column(intents, account),
		Modes:           pg.Column(intents, mode),
		OrderIds:        pg.Column(intents, orderID),
		Operations:      pg.Column(intents, func(in Intent) string { return string(in.Operation) }),
		Attempts:        pg.Column(intents, attempt),
		TraceIds:        pg.Column(intents, func(in Intent) string { return in.TraceID }),
		DeadlineSeconds: pg.Column(intents, func(in Intent) float64 { return in.Deadline }),
	}); err != nil {
		return fmt.Errorf("make calls due: %w", err)
	}
	return nil
}
