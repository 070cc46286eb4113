package command

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/ordersdb"
	"github.com/ordergate/ordergate/order"
)

// cancelOrder is a CancelOrder with the order that its path names.
type cancelOrder struct {
	api.CancelOrder
	id order.ID
}

// CancelOrder records the client's wish to cancel, in one transaction on the primary, and plans the compensation if no step is
// under way; else the saga does when that step is definite. The answer is 202 and the order as it is then. Refusals: ORD_001,
// ORD_002, ORD_007, ORD_009 (a capture is running), IDEM_002, IDEM_003. Failures: SYS_002, SYS_003,
// RATE_003 (nothing changed), SYS_006 (it is not known).
func (c *Commands) CancelOrder(ctx context.Context, r Envelope, id order.ID, body api.CancelOrder) (Result, error) {
	if !c.cfg.IDs.Genuine(id) {
		return Result{}, apierr.E(errcode.ORD001)
	}
	r.Subject = id.Format(order.PrefixOrder)
	return execute(ctx, c, r, cancelOrder{body, id}, c.cancelOrders)
}

func (c *Commands) cancelOrders(ctx context.Context, tx pgx.Tx, calls []*call[cancelOrder], b *batch) error {
	refs := make([]orderRef, len(calls))
	for i, call := range calls {
		refs[i] = orderRef{call.Owner, call.command.id}
	}
	locked, err := lockOrders(ctx, ordersdb.New(tx), refs)
	if err != nil {
		return fmt.Errorf("lock orders: %w", err)
	}
	for i, call := range calls {
		ch, ok := locked[refs[i]]
		if !ok {
			call.err = apierr.E(errcode.ORD001)
			continue
		}
		rec := c.recorder(call.Envelope)
		reason := ""
		if call.command.Reason != nil {
			reason = *call.command.Reason
		}
		events, err := ch.order.RequestCancel(rec, reason, ch.steps.underWay(stepCapture))
		if err != nil {
			call.err = err
			continue
		}
		ch.events = events
		advance(ch, rec)
		call.change = ch
		b.add(ch)
	}
	return nil
}
