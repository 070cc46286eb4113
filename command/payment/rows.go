package payment

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/gen/paymentdb"
	"github.com/ordergate/ordergate/internal/events"
	"github.com/ordergate/ordergate/internal/failpoint"
	"github.com/ordergate/ordergate/internal/outbox"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/order/pay"
)

func refParams(refs []order.Ref) paymentdb.LockPaymentsParams {
	return paymentdb.LockPaymentsParams{
		Accounts: pg.Column(refs, func(r order.Ref) int32 { return r.Account }),
		Modes:    pg.Column(refs, func(r order.Ref) string { return r.Mode }),
		Ids:      pg.Column(refs, func(r order.Ref) uuid.UUID { return uuid.UUID(r.ID) }),
	}
}

// Lock locks payments in the transaction, in the order of their ids, and reads them. With onlyFree it does not wait: a payment that
// another transaction holds is left out, as is one that does not exist.
func Lock(ctx context.Context, tx pgx.Tx, payments []order.Ref, onlyFree bool) (map[order.Ref]Locked, error) {
	q, p := paymentdb.New(tx), refParams(payments)
	rows, err := pg.Lock(ctx, onlyFree, q.LockPayments, p, q.LockFreePayments, paymentdb.LockFreePaymentsParams(p),
		func(r paymentdb.Payment) paymentdb.Payment { return r })
	if err != nil {
		return nil, fmt.Errorf("lock payments: %w", err)
	}
	all, err := lockedOf(ctx, q, rows)
	if err != nil {
		return nil, err
	}
	found := make(map[order.Ref]Locked, len(all))
	for _, l := range all {
		found[l.Ref] = l
	}
	return found, nil
}

// attempt identifies a payment by its order.
type attempt struct {
	order.Ref
	attempt int32
}

// lockAttempts is Lock by orders and attempts. skipped are the payments that onlyFree left out.
func lockAttempts(ctx context.Context, tx pgx.Tx, attempts []attempt, onlyFree bool) (found map[attempt]Locked, skipped map[attempt]bool, err error) {
	q, p := paymentdb.New(tx), paymentdb.LockAttemptsParams{
		Accounts: pg.Column(attempts, func(a attempt) int32 { return a.Account }),
		Modes:    pg.Column(attempts, func(a attempt) string { return a.Mode }),
		OrderIds: pg.Column(attempts, func(a attempt) uuid.UUID { return uuid.UUID(a.ID) }),
		Attempts: pg.Column(attempts, func(a attempt) int32 { return a.attempt }),
	}
	rows, err := pg.Lock(ctx, onlyFree, q.LockAttempts, p, q.LockFreeAttempts, paymentdb.LockFreeAttemptsParams(p),
		func(r paymentdb.Payment) paymentdb.Payment { return r })
	if err != nil {
		return nil, nil, fmt.Errorf("lock payments: %w", err)
	}
	all, err := lockedOf(ctx, q, rows)
	if err != nil {
		return nil, nil, err
	}
	found, skipped = make(map[attempt]Locked, len(all)), map[attempt]bool{}
	for _, l := range all {
		found[attempt{order.Ref{Owner: l.Owner, ID: l.OrderID}, l.Attempt}] = l
	}
	if !onlyFree {
		return found, skipped, nil
	}
	existing, err := q.ExistingAttempts(ctx, paymentdb.ExistingAttemptsParams(p))
	if err != nil {
		return nil, nil, fmt.Errorf("look payments up: %w", err)
	}
	for _, r := range existing {
		a := attempt{order.RefOf(r.Account, r.Mode, r.OrderID), r.Attempt}
		_, ours := found[a]
		skipped[a] = !ours
	}
	return found, skipped, nil
}

// lockedOf reads what else belongs to payments that the transaction has locked.
func lockedOf(ctx context.Context, q *paymentdb.Queries, rows []paymentdb.Payment) ([]Locked, error) {
	var moved []order.Ref // the others have nothing to give back
	all := pg.Column(rows, func(r paymentdb.Payment) Locked {
		p := paymentOf(r)
		if p.Status != pay.StatusPending && p.Status != pay.StatusAuthorized {
			moved = append(moved, p.Ref)
		}
		return Locked{Payment: p}
	})
	if len(moved) == 0 {
		return all, nil
	}
	marked, err := q.RefundAlls(ctx, paymentdb.RefundAllsParams(refParams(moved)))
	if err != nil {
		return nil, fmt.Errorf("read which payments are wanted back: %w", err)
	}
	for _, m := range marked {
		i := slices.IndexFunc(all, func(l Locked) bool { return l.Ref == order.RefOf(m.Account, m.Mode, m.ID) })
		all[i].RefundAll = true
	}
	return all, nil
}

func paymentOf(r paymentdb.Payment) *pay.Payment {
	return &pay.Payment{
		Ref: order.RefOf(r.Account, r.Mode, r.ID), OrderID: order.ID(r.OrderID), Attempt: r.Attempt, Amount: order.Money{Amount: r.Amount, Currency: r.Currency},
		Status: pay.Status(r.Status), FailureCode: r.FailureCode, DeclineReason: r.DeclineReason, Reference: r.Reference,
		Refunded: r.Refunded, RefundPending: r.RefundPending, Head: order.Head{Version: r.Version, Hash: r.HeadHash},
		CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(),
	}
}

func getRefund(ctx context.Context, tx pgx.Tx, ref order.Ref) (*pay.Refund, error) {
	r, err := paymentdb.New(tx).GetRefund(ctx, paymentdb.GetRefundParams{Account: ref.Account, Mode: ref.Mode, ID: uuid.UUID(ref.ID)})
	if err != nil {
		return nil, fmt.Errorf("read refund: %w", err)
	}
	return &pay.Refund{
		Ref: ref, PaymentID: order.ID(r.PaymentID), OrderID: order.ID(r.OrderID), Amount: order.Money{Amount: r.Amount, Currency: r.Currency},
		Reason: r.Reason, Status: pay.RefundStatus(r.Status), FailureCode: r.FailureCode, DeclineReason: r.DeclineReason, Reference: r.Reference,
		Head: order.Head{Version: r.Version, Hash: r.HeadHash}, CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(),
	}, nil
}

// Write writes the changes in the transaction that locked what they change: rows, events, calls and messages. A call that exists is not
// written again. The transaction must be rolled back after an error: a row that is gone, or a second payment of an attempt.
func (ch *Changes) Write(ctx context.Context, tx pgx.Tx) error {
	q := paymentdb.New(tx)
	if len(ch.NewPayments) > 0 {
		if err := q.InsertPayments(ctx, paymentRows(ch.NewPayments)); err != nil {
			return fmt.Errorf("write payments: %w", err)
		}
	}
	if len(ch.Payments) > 0 {
		p := paymentRows(ch.Payments)
		n, err := q.UpdatePayments(ctx, paymentdb.UpdatePaymentsParams{
			Accounts:       p.Accounts,
			Modes:          p.Modes,
			Ids:            p.Ids,
			Statuses:       p.Statuses,
			Refunded:       p.Refunded,
			RefundPending:  p.RefundPending,
			FailureCodes:   p.FailureCodes,
			DeclineReasons: p.DeclineReasons,
			Reference:      p.Reference,
			Versions:       p.Versions,
			HeadHashes:     p.HeadHashes,
			UpdatedAts:     p.UpdatedAts,
		})
		if err != nil || n != int64(len(ch.Payments)) {
			return fmt.Errorf("update payments: %d instead of %d: %w", n, len(ch.Payments), err)
		}
	}
	if len(ch.NewRefunds) > 0 {
		if err := q.InsertRefunds(ctx, refundRows(ch.NewRefunds)); err != nil {
			return fmt.Errorf("write refunds: %w", err)
		}
	}
	if len(ch.Refunds) > 0 {
		p := refundRows(ch.Refunds)
		n, err := q.UpdateRefunds(ctx, paymentdb.UpdateRefundsParams{
			Accounts:       p.Accounts,
			Modes:          p.Modes,
			Ids:            p.Ids,
			Statuses:       p.Statuses,
			FailureCodes:   p.FailureCodes,
			DeclineReasons: p.DeclineReasons,
			Reference:      p.Reference,
			Versions:       p.Versions,
			HeadHashes:     p.HeadHashes,
			UpdatedAts:     p.UpdatedAts,
		})
		if err != nil || n != int64(len(ch.Refunds)) {
			return fmt.Errorf("update refunds: %d instead of %d: %w", n, len(ch.Refunds), err)
		}
	}
	if err := events.Append(ctx, tx, ch.Events); err != nil {
		return err
	}
	failpoint.Hit(failpoint.PaymentEventsAppended)
	if len(ch.Calls) > 0 {
		if err := q.InsertCalls(ctx, callRows(ch.Calls)); err != nil {
			return fmt.Errorf("make calls due: %w", err)
		}
	}
	return outbox.Send(ctx, tx, ch.Messages)
}

func paymentRows(rows []*pay.Payment) paymentdb.InsertPaymentsParams {
	return paymentdb.InsertPaymentsParams{
		Accounts:       pg.Column(rows, func(p *pay.Payment) int32 { return p.Account }),
		Modes:          pg.Column(rows, func(p *pay.Payment) string { return p.Mode }),
		Ids:            pg.Column(rows, func(p *pay.Payment) uuid.UUID { return uuid.UUID(p.ID) }),
		OrderIds:       pg.Column(rows, func(p *pay.Payment) uuid.UUID { return uuid.UUID(p.OrderID) }),
		Attempts:       pg.Column(rows, func(p *pay.Payment) int32 { return p.Attempt }),
		Amounts:        pg.Column(rows, func(p *pay.Payment) int64 { return p.Amount.Amount }),
		Currencies:     pg.Column(rows, func(p *pay.Payment) string { return p.Amount.Currency }),
		Statuses:       pg.Column(rows, func(p *pay.Payment) string { return string(p.Status) }),
		Refunded:       pg.Column(rows, func(p *pay.Payment) int64 { return p.Refunded }),
		RefundPending:  pg.Column(rows, func(p *pay.Payment) int64 { return p.RefundPending }),
		FailureCodes:   pg.Column(rows, func(p *pay.Payment) string { return p.FailureCode }),
		DeclineReasons: pg.Column(rows, func(p *pay.Payment) string { return p.DeclineReason }),
		Reference:      pg.Column(rows, func(p *pay.Payment) string { return p.Reference }),
		Versions:       pg.Column(rows, func(p *pay.Payment) int64 { return p.Head.Version }),
		HeadHashes:     pg.Column(rows, func(p *pay.Payment) []byte { return p.Head.Hash }),
		CreatedAts:     pg.Column(rows, func(p *pay.Payment) time.Time { return p.CreatedAt }),
		UpdatedAts:     pg.Column(rows, func(p *pay.Payment) time.Time { return p.UpdatedAt }),
	}
}

func refundRows(rows []*pay.Refund) paymentdb.InsertRefundsParams {
	return paymentdb.InsertRefundsParams{
		Accounts:       pg.Column(rows, func(r *pay.Refund) int32 { return r.Account }),
		Modes:          pg.Column(rows, func(r *pay.Refund) string { return r.Mode }),
		Ids:            pg.Column(rows, func(r *pay.Refund) uuid.UUID { return uuid.UUID(r.ID) }),
		PaymentIds:     pg.Column(rows, func(r *pay.Refund) uuid.UUID { return uuid.UUID(r.PaymentID) }),
		OrderIds:       pg.Column(rows, func(r *pay.Refund) uuid.UUID { return uuid.UUID(r.OrderID) }),
		Amounts:        pg.Column(rows, func(r *pay.Refund) int64 { return r.Amount.Amount }),
		Currencies:     pg.Column(rows, func(r *pay.Refund) string { return r.Amount.Currency }),
		Reasons:        pg.Column(rows, func(r *pay.Refund) string { return r.Reason }),
		Statuses:       pg.Column(rows, func(r *pay.Refund) string { return string(r.Status) }),
		FailureCodes:   pg.Column(rows, func(r *pay.Refund) string { return r.FailureCode }),
		DeclineReasons: pg.Column(rows, func(r *pay.Refund) string { return r.DeclineReason }),
		Reference:      pg.Column(rows, func(r *pay.Refund) string { return r.Reference }),
		Versions:       pg.Column(rows, func(r *pay.Refund) int64 { return r.Head.Version }),
		HeadHashes:     pg.Column(rows, func(r *pay.Refund) []byte { return r.Head.Hash }),
		CreatedAts:     pg.Column(rows, func(r *pay.Refund) time.Time { return r.CreatedAt }),
		UpdatedAts:     pg.Column(rows, func(r *pay.Refund) time.Time { return r.UpdatedAt }),
	}
}

func callRows(rows []Call) paymentdb.InsertCallsParams {
	return paymentdb.InsertCallsParams{
		Accounts:        pg.Column(rows, func(c Call) int32 { return c.Payment.Account }),
		Modes:           pg.Column(rows, func(c Call) string { return c.Payment.Mode }),
		Subjects:        pg.Column(rows, func(c Call) uuid.UUID { return uuid.UUID(c.Subject) }),
		Operations:      pg.Column(rows, func(c Call) string { return string(c.Operation) }),
		PaymentIds:      pg.Column(rows, func(c Call) uuid.UUID { return uuid.UUID(c.Payment.ID) }),
		OrderIds:        pg.Column(rows, func(c Call) uuid.UUID { return uuid.UUID(c.Payment.OrderID) }),
		Attempts:        pg.Column(rows, func(c Call) int32 { return c.Payment.Attempt }),
		Amounts:         pg.Column(rows, func(c Call) int64 { return c.Amount }),
		Currencies:      pg.Column(rows, func(c Call) string { return c.Payment.Amount.Currency }),
		MethodTokens:    pg.Column(rows, func(c Call) string { return c.MethodToken }),
		LastCodes:       pg.Column(rows, func(c Call) string { return string(c.LastCode) }),
		TraceIds:        pg.Column(rows, func(c Call) string { return c.TraceID }),
		AfterSeconds:    pg.Column(rows, func(c Call) float64 { return c.After.Seconds() }),
		DeadlineSeconds: pg.Column(rows, func(c Call) float64 { return c.Deadline.Seconds() }),
	}
}
