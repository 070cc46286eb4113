package command

import (
	"context"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/order"
)

// CancelOrder records the client's request to cancel, in one transaction on the primary, and starts the compensation if no step is
// in flight; else the saga does when that step is definite. The result is 202 and the order as it is then. Refusals: ORD_001,
// ORD_002, ORD_007, ORD_009 (a capture is running), IDEM_002, IDEM_003. Failures: SYS_002, SYS_003, RATE_003 (nothing changed),
// SYS_006 (the outcome is not known).
func (c *Commands) CancelOrder(ctx context.Context, e Envelope, id order.ID, body api.CancelOrder) (Result, error) {
	if !c.cfg.IDs.Genuine(id) {
		return Result{}, apierr.E(errcode.ORD001)
	}
	e.Subject = id.Format(order.PrefixOrder)
	return c.execute(ctx, e, body, cancelOrder{order.Ref{Owner: e.Owner, ID: id}, body})
}

type cancelOrder struct {
	ref order.Ref
	api.CancelOrder
}

func (c cancelOrder) needs() needs { return needs{orders: []order.Ref{c.ref}} }

func (c cancelOrder) decide(l *loaded, rec order.Recorder) (effect, error) {
	change, ok := l.orders[c.ref]
	if !ok {
		return effect{}, apierr.E(errcode.ORD001)
	}
	reason := ""
	if c.Reason != nil {
		reason = *c.Reason
	}
	events, err := change.order.RequestCancel(rec, reason, change.steps.inFlight(stepCapture))
	if err != nil {
		return effect{}, err
	}
	change.events = append(change.events, events...)
	advance(change, rec)
	return change.accepted()
}
