package command

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ordergate/ordergate/command/coupons"
	"github.com/ordergate/ordergate/command/inventory"
	"github.com/ordergate/ordergate/command/payment"
	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/bus"
	"github.com/ordergate/ordergate/internal/failpoint"
	"github.com/ordergate/ordergate/internal/outbox"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/order"
)

// Saga moves orders on when inventory and payment reply. Safe for concurrent use.
type Saga struct {
	writer
	payments *payment.Payment
}

// Saga returns the saga of these Commands. Its transactions read and write through the pool. payments makes the calls that they make due; nil: others do.
func (c *Commands) Saga(pool *pgxpool.Pool, payments *payment.Payment) *Saga {
	s := &Saga{c.writer, payments}
	s.cfg.Pool = pool
	return s
}

// Consumers are the saga's subscriptions.
func (s *Saga) Consumers() []bus.Consumer {
	return []bus.Consumer{
		{Name: "saga.inventory", Topic: inventory.TopicReplies, Handle: s.handler(applyStockReply)},
		{Name: "saga.payment", Topic: payment.TopicReplies, Handle: s.handler(applyPaymentReply)},
	}
}

// applyReply records a reply in its order and the order's steps; false: the outcome was known. The error is a message that it does not
// know, which is parked.
type applyReply func(c *orderChange, e outbox.Envelope, rec order.Recorder) (bool, error)

// handler makes each reply of a batch, no two of one order, events of its order and moves the order's saga on, all in the given
// transaction. A reply to a step that is already definite changes nothing. With skipLocked it leaves out the replies whose order another
// transaction holds, and those that end an order whose coupon another one holds.
func (s *Saga) handler(apply applyReply) bus.Handler {
	return func(ctx context.Context, tx pgx.Tx, msgs []bus.Message, skipLocked bool) (h bus.Handled, _ error) {
		envelopes := make([]outbox.Envelope, len(msgs))
		n := needs{orders: make([]order.Ref, len(msgs))}
		for i, m := range msgs {
			e, err := outbox.Open(m.Payload)
			if err != nil {
				return h, err
			}
			envelopes[i], n.orders[i] = e, e.Ref()
		}
		l := newLoaded()
		if err := l.load(ctx, tx, n, skipLocked); err != nil {
			return h, err
		}
		failpoint.Hit(failpoint.SagaLoaded)
		r := &rows{locked: true, deadline: s.cfg.Deadline}
		var changes []*orderChange
		var decided []bus.Message // of each change
		for i, e := range envelopes {
			c, ok := l.orders[e.Ref()]
			if !ok && skipLocked {
				h.Blocked = append(h.Blocked, msgs[i])
				continue
			}
			if !ok {
				return h, fmt.Errorf("%s of %s: no such order", e.Type, e.OrderID)
			}
			cause := Envelope{Owner: c.owner, Operation: msgs[i].Topic, Problem: apierr.ProblemContext{TraceID: e.TraceID}, Actor: "saga"}
			rec := cause.recorder(s.cfg.IDs, s.cfg.Now())
			moved, err := takeReply(c, e, apply, rec)
			if err != nil {
				return h, err
			}
			if moved {
				changes, decided = append(changes, c), append(decided, msgs[i])
			}
		}
		free, err := lockFreed(ctx, tx, changes, skipLocked)
		if err != nil {
			return h, err
		}
		for i, c := range changes {
			if free(c) {
				r.add(c)
			} else {
				h.Blocked = append(h.Blocked, decided[i])
			}
		}
		if len(r.orders) == 0 {
			return h, nil
		}
		if s.payments != nil {
			s.payments.Claim(r.payments.Calls)
		}
		if err = r.queue(ctx, tx, &h.Ends.Last); err != nil {
			return h, err
		}
		lsn := uint64(token.NoPosition)
		queuePosition(&h.Ends.After, r, &lsn)
		failpoint.Hit(failpoint.SagaAdvanced)
		h.After = func() {
			failpoint.Hit(failpoint.SagaCommitted)
			if s.payments != nil {
				s.payments.Begin(ctx, r.payments.Calls)
			}
			s.afterCommit(ctx, r, lsn)
		}
		return h, nil
	}
}

// lockFreed locks the coupons that orders no longer use, after the orders. free tells whether the order may be written: with onlyFree it does
// not wait, and an order whose coupon another transaction holds may not.
func lockFreed(ctx context.Context, tx pgx.Tx, changes []*orderChange, onlyFree bool) (free func(*orderChange) bool, _ error) {
	item := func(c *orderChange) coupons.Item {
		return coupons.Item{Owner: c.owner, Code: string(c.order.CouponCode), CustomerRef: c.order.CustomerRef}
	}
	var items []coupons.Item
	for _, c := range changes {
		if c.freesCoupon() {
			items = append(items, item(c))
		}
	}
	locked, err := coupons.Lock(ctx, tx, items, onlyFree)
	return func(c *orderChange) bool {
		_, ok := locked[item(c)]
		return ok || !c.freesCoupon()
	}, err
}

// takeReply records a reply and moves the order's saga on; false: the outcome was known and nothing changes.
func takeReply(c *orderChange, e outbox.Envelope, apply applyReply, rec order.Recorder) (moved bool, err error) {
	if moved, err = apply(c, e, rec); moved {
		advance(c, rec)
	}
	return moved, err
}

// resolve makes a step definite if it is in flight and tells whether it was.
func resolve(st *step, code string, rec order.Recorder) bool {
	if st == nil || st.status != statusRunning {
		return false
	}
	status := statusDone
	if code != "" {
		status = statusFailed
	}
	st.finish(status, code, rec.Now)
	return true
}

// stockReplies has the step that each reply of inventory resolves, and the code of a failed one.
var stockReplies = map[string]struct {
	step string
	code errcode.Code
}{
	inventory.Reserved:       {stepReserve, ""},
	inventory.ReserveRefused: {stepReserve, errcode.INV002},
	inventory.Confirmed:      {stepConfirm, ""},
	inventory.ConfirmRefused: {stepConfirm, errcode.INV003},
	inventory.Cancelled:      {stepRelease, ""},
}

func applyStockReply(c *orderChange, e outbox.Envelope, rec order.Recorder) (bool, error) {
	var r inventory.Reply
	if err := e.Decode(&r); err != nil {
		return false, err
	}
	if e.Type == inventory.Expired {
		expired := c.steps.is(stepReserve, r.Attempt, statusDone) && !c.steps.done(stepConfirm)
		if expired {
			c.steps.find(stepReserve, r.Attempt).finish(statusFailed, string(errcode.INV003), rec.Now)
		}
		return expired, nil
	}
	outcome, ok := stockReplies[e.Type]
	if !ok || e.Type == inventory.Reserved && r.ExpiresAt == nil {
		return false, fmt.Errorf("unknown reply %q", e.Type)
	}
	if !resolve(c.steps.running(outcome.step), string(outcome.code), rec) { // of whatever attempt: they share the reservation
		return false, nil
	}
	switch e.Type {
	case inventory.Reserved:
		c.record(rec, order.StockReserved{ExpiresAt: *r.ExpiresAt})
	case inventory.ReserveRefused:
		c.record(rec, order.StockRejected{SKUs: r.SKUs})
	}
	return true, nil
}

func applyPaymentReply(c *orderChange, e outbox.Envelope, rec order.Recorder) (bool, error) {
	if e.Type == payment.Refunded {
		var note payment.RefundNote
		if err := e.Decode(&note); err != nil {
			return false, err
		}
		c.record(rec, order.Refunded{RefundID: note.RefundID, Amount: note.Amount})
		return true, nil
	}
	var r payment.Reply
	if err := e.Decode(&r); err != nil {
		return false, err
	}
	if (e.Type == payment.Succeeded) != (r.Code == "") || e.Type != payment.Succeeded && e.Type != payment.Failed {
		return false, fmt.Errorf("unknown reply %q with code %q", e.Type, r.Code)
	}
	switch r.Operation {
	case payment.Authorize, payment.Capture, payment.Void, payment.Refund:
	default:
		return false, fmt.Errorf("%s of unknown operation %q", e.Type, r.Operation)
	}
	if !resolve(c.steps.find(string(r.Operation), r.Attempt), r.Code, rec) {
		return false, nil
	}
	switch {
	case r.Code != "" && (r.Operation == payment.Authorize || r.Operation == payment.Capture):
		c.record(rec, order.PaymentFailed{Code: r.Code, DeclineReason: order.Text(r.DeclineReason)})
	case r.Operation == payment.Authorize:
		c.record(rec, order.Updated{PaymentStatus: order.PaymentStatusAuthorized})
	case r.Operation == payment.Capture:
		c.record(rec, order.Paid{PaymentID: order.Text(r.PaymentID), Amount: c.order.Total})
	case r.Operation == payment.Void && c.order.PaymentStatus == order.PaymentStatusAuthorized: // else a refused capture has said so
		c.record(rec, order.Updated{PaymentStatus: order.PaymentStatusNone})
	case r.Operation == payment.Refund && c.order.PaymentStatus == order.PaymentStatusPaid: // of an amount of 0 there is no refund to say so
		c.record(rec, order.Updated{PaymentStatus: order.PaymentStatusRefunded})
	}
	return true, nil
}
