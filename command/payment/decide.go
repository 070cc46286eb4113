package payment

import (
	"errors"
	"time"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/outbox"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/order/pay"
)

// A refund that the provider refused is requested anew, under another id: a compensation never gives up. The first time it waits for
// refusedRefundWait, then for twice as long each time, at most maxRefusedRefundWait.
const (
	refusedRefundWait    = 30 * time.Second
	maxRefusedRefundWait = time.Hour
)

// Locked is a payment that the transaction holds.
type Locked struct {
	*pay.Payment
	RefundAll bool // the saga wants back all that it charges
}

// Call is an operation that the provider is to be asked for.
type Call struct {
	Operation   Operation
	Subject     order.ID // the refund of a Refund, else the payment
	Payment     *pay.Payment
	Amount      int64         // minor units
	MethodToken string        // of an Authorize
	After       time.Duration // when it is due
	LastCode    errcode.Code  // of the refused refund that it makes up for
	Claimed     time.Time     // when this process did, by Claim; zero: it did not
	TraceID     string
}

// Changes are what a transaction changes of payments.
type Changes struct {
	NewPayments, Payments []*pay.Payment
	NewRefunds, Refunds   []*pay.Refund
	Events                []order.ResourceEvent
	Calls                 []Call
	Messages              []outbox.Message // to the saga
}

// Add joins the changes of a batch.
func (ch *Changes) Add(other Changes) {
	ch.NewPayments = append(ch.NewPayments, other.NewPayments...)
	ch.Payments = append(ch.Payments, other.Payments...)
	ch.NewRefunds = append(ch.NewRefunds, other.NewRefunds...)
	ch.Refunds = append(ch.Refunds, other.Refunds...)
	ch.Events = append(ch.Events, other.Events...)
	ch.Calls = append(ch.Calls, other.Calls...)
	ch.Messages = append(ch.Messages, other.Messages...)
}

// Start opens a payment of an order and makes its authorization due. The recorder makes its id, of the moment that the payment was created: lists select
// by the id what was created in a time.
func Start(of order.Ref, attempt int32, amount order.Money, methodToken string, rec order.Recorder) (p *pay.Payment, ch Changes) {
	id := rec.NewID()
	p = &pay.Payment{Ref: order.Ref{Owner: of.Owner, ID: id}}
	ch.Events = append(ch.Events, p.Record(rec, pay.Created{OrderID: of.ID.Format(order.PrefixOrder), Attempt: attempt, Amount: amount}))
	ch.NewPayments = append(ch.NewPayments, p)
	ch.Calls = append(ch.Calls, Call{
		Operation: Authorize, Subject: id, Payment: p, Amount: amount.Amount, MethodToken: methodToken, TraceID: rec.Cause.TraceID,
	})
	return p, ch
}

// Request makes the next operation on a payment due: its capture or its void, or, as a Refund, that all it charges is given back. The caller is the
// only one who asks for it: the saga, under the lock of the payment's order.
func Request(p *pay.Payment, op Operation, traceID string) Changes {
	c := Call{Operation: op, Subject: p.ID, Payment: p, TraceID: traceID}
	if op != Refund { // that is no request to the provider: BeginRefundAll opens the refunds
		c.Amount = p.Amount.Amount
	}
	return Changes{Calls: []Call{c}}
}

// GiveBack opens a refund of a payment, of all that is left of it if amount is nil. Refusals: RFD_003 nothing is captured; ORD_005 another
// currency; RFD_001 less is left, or nothing.
func GiveBack(p Locked, id order.ID, amount *order.Money, reason string, rec order.Recorder) (*pay.Refund, Changes, error) {
	left := order.Money{Amount: p.Refundable(), Currency: p.Amount.Currency}
	if p.Status != pay.StatusCaptured {
		return nil, Changes{}, apierr.E(errcode.RFD003)
	}
	at := "/amount"
	if amount == nil {
		amount, at = &left, "" // the whole request asks for more than is left
	}
	if amount.Currency != left.Currency {
		return nil, Changes{}, apierr.E(errcode.ORD005, apierr.At("/amount/currency", errcode.RuleCurrency))
	}
	if amount.Amount > left.Amount || left.Amount == 0 {
		return nil, Changes{}, apierr.E(errcode.RFD001, apierr.At(at, errcode.RuleRefundable), apierr.Extra("refundable", left))
	}
	r, ch := giveBack(p, id, *amount, reason, retry{}, rec)
	return r, ch, nil
}

// retry is a refund's delay and cause if another one was refused.
type retry struct {
	after time.Duration
	code  errcode.Code
}

func giveBack(p Locked, id order.ID, amount order.Money, reason string, again retry, rec order.Recorder) (*pay.Refund, Changes) {
	r := &pay.Refund{Ref: order.Ref{Owner: p.Owner, ID: id}}
	e := r.Record(rec, pay.RefundMade{
		PaymentID: p.ID.Format(order.PrefixPayment), OrderID: p.OrderID.Format(order.PrefixOrder), Amount: amount, Reason: order.Text(reason),
	})
	p.RefundPending += amount.Amount
	p.Touch(e.At)
	return r, Changes{
		Payments: []*pay.Payment{p.Payment}, NewRefunds: []*pay.Refund{r}, Events: []order.ResourceEvent{e},
		Calls: []Call{{
			Operation: Refund, Subject: id, Payment: p.Payment, Amount: amount.Amount, After: again.after, LastCode: again.code, TraceID: rec.Cause.TraceID,
		}},
	}
}

// compensationReason is the reason of the saga's refunds. A captured order is taken back only because the client asked to cancel it; the
// client's words are in order.cancel_requested.
const compensationReason = "order cancelled"

// BeginRefundAll begins to give back all that a payment charges: it opens a refund of what is left, and replies when nothing is. Refunds that are in
// flight are waited for.
func BeginRefundAll(p Locked, rec order.Recorder) Changes { return refundAll(p, retry{}, rec) }

// refundAll goes on with it; a refund that failed is made up for.
func refundAll(p Locked, again retry, rec order.Recorder) (ch Changes) {
	if left := p.Refundable(); left > 0 {
		_, ch = giveBack(p, rec.NewID(), order.Money{Amount: left, Currency: p.Amount.Currency}, compensationReason, again, rec)
	} else if p.RefundPending == 0 {
		ch.Messages = append(ch.Messages, reply(p, Succeeded, Reply{Operation: Refund, Attempt: p.Attempt, PaymentID: p.ID.Format(order.PrefixPayment)}, rec))
	}
	return ch
}

func reply(p Locked, kind string, data any, rec order.Recorder) outbox.Message {
	cause := outbox.Cause{ID: rec.NewID(), TraceID: rec.Cause.TraceID, Now: rec.Now}
	return outbox.New(TopicReplies, kind, order.Ref{Owner: p.Owner, ID: p.OrderID}, cause, data)
}

// Outcome is the definite outcome of an operation. Code is empty if it succeeded.
type Outcome struct {
	Code          errcode.Code
	DeclineReason string
	Reference     string // the provider's
}

// Ask is what a try asks the provider for.
type Ask int

// What a try can ask for.
const (
	AskNothing   Ask = iota // the outcome is known without the provider
	AskOperation            // the operation, under its key
	AskCancel               // that it refuses the key from now on
)

// Key is the key of an operation on a payment, or of a refund, at the provider.
func Key(op Operation, subject order.ID) string {
	prefix := order.PrefixPayment
	if op == Refund {
		prefix = order.PrefixRefund
	}
	return subject.Format(prefix) + "-" + string(op)
}

// Plan decides what a try of a call asks for, the try counted: past the deadline that the key is cancelled, unless no request was ever made
// under it. If that is nothing it returns the outcome.
func Plan(amount int64, overdue bool, tries int32) (Ask, Outcome) {
	switch {
	case amount == 0: // there is nothing to move, and providers refuse an amount of zero
		return AskNothing, Outcome{}
	case overdue && tries == 1: // this is the first try
		return AskNothing, Outcome{Code: errcode.PAY006}
	case overdue:
		return AskCancel, Outcome{}
	}
	return AskOperation, Outcome{}
}

// Conclude decides what a definite outcome means for a call. The error leaves it in doubt: it is tried again.
func Conclude(op Operation, overdue bool, lastCode string, o Outcome) (Outcome, error) {
	if o.Code != "" && op == Void { // the saga shows it, and it is tried without end
		return o, doubtError{o.Code, errors.New("the provider refuses to release the money")}
	}
	if overdue && o.Code == errcode.PAY003 && lastCode != "" {
		o.Code = errcode.Code(lastCode) // the cause of the cancellation is the last try's code
	}
	return o, nil
}

// Resolve records the definite outcome of an authorization, a capture or a void, and replies.
func Resolve(p Locked, op Operation, o Outcome, rec order.Recorder) Changes {
	kind := Succeeded
	var data pay.Data
	switch {
	case o.Code != "":
		kind, data = Failed, pay.Failed{Code: string(o.Code), DeclineReason: order.Text(o.DeclineReason)}
	case op == Authorize:
		data = pay.Authorized{Reference: o.Reference}
	case op == Capture:
		data = pay.Captured{Reference: o.Reference}
	default:
		data = pay.Voided{Reference: o.Reference}
	}
	e := p.Record(rec, data)
	return Changes{Payments: []*pay.Payment{p.Payment}, Events: []order.ResourceEvent{e}, Messages: []outbox.Message{
		reply(p, kind, Reply{Operation: op, Attempt: p.Attempt, PaymentID: p.ID.Format(order.PrefixPayment), Code: string(o.Code), DeclineReason: o.DeclineReason}, rec),
	}}
}

// ResolveRefund records the definite outcome of a refund. If the saga wants everything back, it goes on. refused is how many of
// the saga's refunds of the payment were refused before.
func ResolveRefund(p Locked, r *pay.Refund, refused int64, o Outcome, rec order.Recorder) Changes {
	ch := Changes{Payments: []*pay.Payment{p.Payment}, Refunds: []*pay.Refund{r}}
	p.RefundPending -= r.Amount.Amount
	var again retry
	if o.Code == "" {
		p.Refunded += r.Amount.Amount
		ch.Events = append(ch.Events, r.Record(rec, pay.RefundDone{Reference: o.Reference}))
		ch.Messages = append(ch.Messages, reply(p, Refunded, RefundNote{RefundID: r.ID.Format(order.PrefixRefund), Amount: r.Amount}, rec))
	} else {
		ch.Events = append(ch.Events, r.Record(rec, pay.RefundRefused{Code: string(o.Code), DeclineReason: order.Text(o.DeclineReason)}))
		again = retry{min(refusedRefundWait<<min(refused, 10), maxRefusedRefundWait), o.Code}
	}
	p.Touch(r.UpdatedAt)
	if p.RefundAll {
		next := refundAll(p, again, rec)
		next.Payments = nil // it is in ch
		ch.Add(next)
	}
	return ch
}
