package command

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/ordergate/ordergate/command/payment"
	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/ordersdb"
	"github.com/ordergate/ordergate/internal/events"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/order/pay"
)

// RefundPayment gives a captured payment back, or a part of it: in one transaction on the primary it writes the refund with its first
// event and the call to the provider, and counts the amount as pending. The result is 202 and the pending refund. Refusals: PAY_001,
// RFD_001, RFD_003, ORD_005, IDEM_002, IDEM_003. Failures: SYS_002, SYS_003, RATE_003 (nothing changed), SYS_006 (the outcome is not known).
func (c *Commands) RefundPayment(ctx context.Context, e Envelope, id order.ID, body api.CreateRefund) (Result, error) {
	if !c.cfg.IDs.Genuine(id) {
		return Result{}, apierr.E(errcode.PAY001)
	}
	e.Subject = id.Format(order.PrefixPayment)
	return c.execute(ctx, e, body, refundPayment{order.Ref{Owner: e.Owner, ID: id}, body})
}

// refundPath is where a refund is, before its id.
const refundPath = "/v1/refunds/"

type refundPayment struct {
	ref order.Ref
	api.CreateRefund
}

func (r refundPayment) needs() needs { return needs{payments: []order.Ref{r.ref}} }

func (r refundPayment) decide(l *loaded, rec order.Recorder) (effect, error) {
	p, ok := l.payments[r.ref]
	if !ok {
		return effect{}, apierr.E(errcode.PAY001)
	}
	refund, changes, err := payment.GiveBack(p, rec.NewID(), (*order.Money)(r.Amount), r.Reason, rec)
	if err != nil {
		return effect{}, err
	}
	body, err := view.RefundBody(refund)
	return effect{payments: changes, result: accepted(body, refundPath+refund.ID.Format(order.PrefixRefund), p.OrderID)}, err
}

// AwaitRefunded turns the 202 of a refund into 201 once the provider said yes or no, and a yes shows in the order's payment status, too.
// The 201 shows the refund as it was decided, so that its bytes are always the same.
func (c *Commands) AwaitRefunded(ctx context.Context, e Envelope, r Result, within time.Duration) Result {
	id, _ := order.Parse(order.PrefixRefund, strings.TrimPrefix(r.Location, refundPath))
	ref := order.Ref{Owner: e.Owner, ID: id}
	return c.await(ctx, r, within, func(ctx context.Context) (Result, bool, error) {
		history, err := events.Read(ctx, c.cfg.Pool, (&pay.Refund{Ref: ref}).Resource())
		if err != nil {
			return r, false, err
		}
		decided := func(refund *pay.Refund) bool { return refund.Status != pay.RefundPending }
		refund, err := pay.FoldRefund(ref, history, decided)
		if err != nil || !decided(refund) {
			return r, false, err
		}
		if refund.Status == pay.RefundSucceeded {
			told, err := readEvents(ctx, ordersdb.New(c.cfg.Pool), e.Owner, refund.OrderID)
			if err != nil || !slices.ContainsFunc(told, func(e order.Event) bool { return e.TellsOfRefund(ref.ID) }) {
				return r, false, err
			}
		}
		result := r
		result.Status, result.LSN = 201, position(ctx, c.cfg.Pool, &rows{})
		result.Body, err = view.RefundBody(refund)
		return result, true, err
	})
}
