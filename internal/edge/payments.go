package edge

import (
	"context"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/order"
)

// PayOrder returns 202 with the opened payment or, with Prefer: wait, 201 once it is captured, or the refusal that ended it.
func (h handlers) PayOrder(ctx context.Context, r *request, body api.PayOrder) (response, error) {
	result, err := h.cfg.Commands.PayOrder(ctx, r.envelope(), r.orderID, body)
	return h.commandResponse(ctx, r, result, err, h.cfg.Commands.AwaitPaid)
}

// RefundPayment returns 202 with the opened refund or, with Prefer: wait, 201 once the provider said yes or no.
func (h handlers) RefundPayment(ctx context.Context, r *request, body api.CreateRefund) (response, error) {
	result, err := h.cfg.Commands.RefundPayment(ctx, r.envelope(), r.id(order.PrefixPayment, "payment_id"), body)
	return h.commandResponse(ctx, r, result, err, h.cfg.Commands.AwaitRefunded)
}
