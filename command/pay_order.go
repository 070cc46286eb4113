package command

import (
	"context"
	"strings"
	"time"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/ordersdb"
	"github.com/ordergate/ordergate/internal/events"
	"github.com/ordergate/ordergate/internal/faults"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/order/pay"
)

// PayOrder pays an order that was placed without payment: in one transaction on the primary it writes the payment with its first event,
// the call to the provider and the saga's steps. The result is 202 and the pending payment. Refusals: ORD_001, ORD_002, INV_003,
// PAY_002, IDEM_002, IDEM_003; PAY_008 while the provider's breaker is open. Failures: SYS_002, SYS_003, RATE_003 (nothing changed),
// SYS_006 (the outcome is not known).
func (c *Commands) PayOrder(ctx context.Context, e Envelope, id order.ID, body api.PayOrder) (Result, error) {
	if !c.cfg.IDs.Genuine(id) {
		return Result{}, apierr.E(errcode.ORD001)
	}
	e.Subject = id.Format(order.PrefixOrder)
	return c.execute(ctx, e, body, payOrder{order.Ref{Owner: e.Owner, ID: id}, body, c.cfg.ProviderOpen() || faults.In(ctx) == faults.ProviderAway})
}

// paymentPath is where a payment is, before its id.
const paymentPath = "/v1/payments/"

type payOrder struct {
	ref order.Ref
	api.PayOrder
	providerOpen bool
}

func (p payOrder) needs() needs { return needs{orders: []order.Ref{p.ref}} }

func (p payOrder) decide(l *loaded, rec order.Recorder) (effect, error) {
	change, ok := l.orders[p.ref]
	if !ok {
		return effect{}, apierr.E(errcode.ORD001)
	}
	if err := change.order.CheckPay(change.steps.expired(), change.steps.inFlight("")); err != nil {
		return effect{}, err
	}
	if p.providerOpen {
		return effect{}, apierr.E(errcode.PAY008)
	}
	change.start(change.steps.planPayment(p.MethodToken), rec)
	opened := change.payments.NewPayments[0]
	body, err := view.PaymentBody(opened)
	return effect{orders: []*orderChange{change}, result: accepted(body, paymentPath+opened.ID.Format(order.PrefixPayment), p.ref.ID)}, err
}

// AwaitPaid turns the 202 of a payment into 201 once it is captured, or into the refusal that ended it: PAY_003, PAY_006, PAY_007;
// INV_003 or ORD_002 if the order ended first. The 201 shows the payment as it was captured, so that its bytes are always the same.
func (c *Commands) AwaitPaid(ctx context.Context, e Envelope, r Result, within time.Duration) Result {
	return c.await(ctx, r, within, func(ctx context.Context) (Result, bool, error) {
		p, refusal, err := c.decidedPayment(ctx, e.Owner, r)
		if err != nil || p == nil {
			return r, false, err
		}
		result := r
		result.Rev, result.LSN = 0, position(ctx, c.cfg.Pool, &rows{}) // the command's revision of the order is older than what was decided
		if refusal != nil {
			result.Code, result.ContentType, result.Location, result.Body = refusal.Code, "application/problem+json", "", view.Body{}
			result.Status, result.Body.Bytes = refusal.Problem(e.Problem)
			return result, true, nil
		}
		result.Status = 201
		result.Body, err = view.PaymentBody(p)
		return result, true, err
	})
}

// decidedPayment is the payment as it was captured, or with the refusal that ended it; nil until the order shows that, too.
func (c *Commands) decidedPayment(ctx context.Context, owner order.Owner, r Result) (*pay.Payment, *apierr.Error, error) {
	id, _ := order.Parse(order.PrefixPayment, strings.TrimPrefix(r.Location, paymentPath))
	ref := order.Ref{Owner: owner, ID: id}
	history, err := events.Read(ctx, c.cfg.Pool, (&pay.Payment{Ref: ref}).Resource())
	if err != nil {
		return nil, nil, err
	}
	p, err := pay.Fold(ref, history, func(p *pay.Payment) bool { return p.Status == pay.StatusCaptured || p.Status == pay.StatusFailed })
	if err != nil {
		return nil, nil, err
	}
	q := ordersdb.New(c.cfg.Pool)
	o, _, err := orderNow(ctx, q, order.Ref{Owner: owner, ID: p.OrderID})
	if err != nil {
		return nil, nil, err
	}
	of := order.Ref{Owner: owner, ID: p.OrderID}
	rows, err := q.GetSagas(ctx, ordersdb.GetSagasParams(refParams([]order.Ref{of})))
	if err != nil {
		return nil, nil, err
	}
	sagas, err := stepsOf(rows)
	steps := sagas[of]
	switch {
	case err != nil, steps.is(stepAuth, p.Attempt, statusRunning), steps.is(stepCapture, p.Attempt, statusRunning): // the saga has not yet taken the outcome in
		return nil, nil, err
	case p.Status == pay.StatusCaptured:
		return p, nil, nil
	case p.Status == pay.StatusFailed:
		return p, refusalOf(p), nil
	case o.Status.Final(): // the payment was voided, because the order expired or was cancelled
		return p, apierr.From(o.CheckPay(false, false)), nil
	}
	return nil, nil, nil
}

// refusalOf is the refusal that ended a payment.
func refusalOf(p *pay.Payment) *apierr.Error {
	code := errcode.Code(p.FailureCode)
	if code == errcode.PAY007 {
		return apierr.E(code, apierr.Extra("decline_reason", p.DeclineReason))
	}
	return apierr.E(code)
}
