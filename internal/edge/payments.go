package edge

import (
	"context"

	"github.com/ordergate/ordergate/gen/api"
)

// PayOrder returns 202 with the opened payment or, with Prefer: wait, 201 once it is captured, or the refusal that ended it.
func (h handlers) PayOrder(ctx context.Context, r *request, body api.PayOrder) (response, error) {
	result, err := h.cfg.Commands.PayOrder(ctx, r.envelope(), r.orderID, body)
	return h.commandResponse(ctx, r, result, err, h.cfg.Commands.AwaitPaid)
}

// RefundPayment returns 202 with the opened refund or, with Prefer: wait, 201 once the provider said yes or no.
func (h handlers) RefundPayment(ctx context.Context, r *request, body api.CreateRefund) (response, error) {
	result, err := h.cfg.Commands.RefundPayment(ctx, r.envelope(), r.paymentID, body)
	return h.commandResponse(ctx, r, result, err, h.cfg.Commands.AwaitRefunded)
}

// GetPayment returns a payment from a database that is fresh enough.
func (h handlers) GetPayment(ctx context.Context, r *request) (response, error) {
	return r.queryResponse(h.cfg.Queries.GetPayment(ctx, r.key.Owner, r.paymentID, r.token))
}

// ListPayments returns a page of payments. REQ_003: it ends before it begins.
func (h handlers) ListPayments(ctx context.Context, r *request, p api.ListPaymentsParams) (response, error) {
	if err := checkPeriod(p.CreatedFrom, p.CreatedTo); err != nil {
		return response{}, err
	}
	return r.queryResponse(h.cfg.Queries.ListPayments(ctx, r.key.Owner, p, r.page, r.token))
}

// ListOrderPayments returns a page of an order's payments.
func (h handlers) ListOrderPayments(ctx context.Context, r *request) (response, error) {
	return r.queryResponse(h.cfg.Queries.ListOrderPayments(ctx, r.key.Owner, r.orderID, r.page, r.token))
}

// GetRefund returns a refund from a database that is fresh enough.
func (h handlers) GetRefund(ctx context.Context, r *request) (response, error) {
	return r.queryResponse(h.cfg.Queries.GetRefund(ctx, r.key.Owner, r.refundID, r.token))
}

// ListRefunds returns a page of refunds. REQ_003: it ends before it begins.
func (h handlers) ListRefunds(ctx context.Context, r *request, p api.ListRefundsParams) (response, error) {
	if err := checkPeriod(p.CreatedFrom, p.CreatedTo); err != nil {
		return response{}, err
	}
	return r.queryResponse(h.cfg.Queries.ListRefunds(ctx, r.key.Owner, p, r.page, r.token))
}
