package payment

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/gen/paymentdb"
	"github.com/ordergate/ordergate/internal/events"
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

// QueueLock queues the lock of payments, in the order of their ids, and puts them into the map. With onlyFree it does not wait: a payment that another
// transaction holds is left out, as is one that does not exist.
func QueueLock(to *pgx.Batch, payments []order.Ref, onlyFree bool, found map[order.Ref]Locked) {
	p, lock := refParams(payments), pg.LockQuery(onlyFree, paymentdb.LockPayments, paymentdb.LockFreePayments)
	pg.Query(to, func(rows []paymentdb.Payment) error {
		for _, r := range rows {
			one := paymentOf(r)
			found[one.Ref] = Locked{Payment: one}
		}
		return nil
	}, lock, p.Accounts, p.Modes, p.Ids)
	pg.Query(to, func(rows []paymentdb.RefundAllsRow) error { // a later statement sees what the lock waited for
		for _, r := range rows {
			if one, ok := found[order.RefOf(r.Account, r.Mode, r.ID)]; ok {
				one.RefundAll = true
				found[one.Ref] = one
			}
		}
		return nil
	}, paymentdb.RefundAlls, p.Accounts, p.Modes, p.Ids)
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

// Write writes, or queues, what changes in the transaction that locked it: rows, events, calls and messages. Authorizations have the given time. A call
// that exists is not written again. The errors of the database, each a bug: an internal error if a row is gone although it is locked, a unique violation for a second payment of an attempt.
func (ch *Changes) Write(ctx context.Context, db paymentdb.DBTX, deadline time.Duration) error {
	q := paymentdb.New(db)
	var errs []error
	if len(ch.NewPayments) > 0 {
		errs = append(errs, q.InsertPayments(ctx, paymentRows(ch.NewPayments)))
	}
	if len(ch.Payments) > 0 {
		p := paymentRows(ch.Payments)
		errs = append(errs, q.UpdatePayments(ctx, paymentdb.UpdatePaymentsParams{
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
		}))
	}
	if len(ch.NewRefunds) > 0 {
		errs = append(errs, q.InsertRefunds(ctx, refundRows(ch.NewRefunds)))
	}
	if len(ch.Refunds) > 0 {
		p := refundRows(ch.Refunds)
		errs = append(errs, q.UpdateRefunds(ctx, paymentdb.UpdateRefundsParams{
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
		}))
	}
	errs = append(errs, events.Append(ctx, db, ch.Events))
	if len(ch.Calls) > 0 {
		calls := callRows(ch.Calls)
		calls.DeadlineSeconds = deadline.Seconds()
		errs = append(errs, q.InsertCalls(ctx, calls))
	}
	return errors.Join(append(errs, outbox.Send(ctx, db, ch.Messages))...)
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
		Accounts:     pg.Column(rows, func(c Call) int32 { return c.Payment.Account }),
		Modes:        pg.Column(rows, func(c Call) string { return c.Payment.Mode }),
		Subjects:     pg.Column(rows, func(c Call) uuid.UUID { return uuid.UUID(c.Subject) }),
		Operations:   pg.Column(rows, func(c Call) string { return string(c.Operation) }),
		PaymentIds:   pg.Column(rows, func(c Call) uuid.UUID { return uuid.UUID(c.Payment.ID) }),
		OrderIds:     pg.Column(rows, func(c Call) uuid.UUID { return uuid.UUID(c.Payment.OrderID) }),
		Attempts:     pg.Column(rows, func(c Call) int32 { return c.Payment.Attempt }),
		Amounts:      pg.Column(rows, func(c Call) int64 { return c.Amount }),
		Currencies:   pg.Column(rows, func(c Call) string { return c.Payment.Amount.Currency }),
		MethodTokens: pg.Column(rows, func(c Call) string { return c.MethodToken }),
		LastCodes:    pg.Column(rows, func(c Call) string { return string(c.LastCode) }),
		TraceIds:     pg.Column(rows, func(c Call) string { return c.TraceID }),
		Claimed:      pg.Column(rows, func(c Call) bool { return !c.Claimed.IsZero() }),
		AfterSeconds: pg.Column(rows, func(c Call) float64 { return c.After.Seconds() }),
	}
}
