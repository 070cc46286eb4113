package edge

import (
	"context"
	"time"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/query"
)

// PlaceOrder answers 202 with the order as taken in or, with Prefer: wait, 201 as soon as the saga decided it.
func (h handlers) PlaceOrder(ctx context.Context, r *request, body api.PlaceOrder) (response, error) {
	result, err := h.cfg.Commands.PlaceOrder(ctx, r.envelope(), body)
	return h.commandResponse(ctx, r, result, err, h.cfg.Commands.AwaitPlaced)
}

// CancelOrder answers 202 with the request to cancel recorded or, with Prefer: wait, 200 once the order is final.
func (h handlers) CancelOrder(ctx context.Context, r *request, body *api.CancelOrder) (response, error) {
	result, err := h.cfg.Commands.CancelOrder(ctx, r.envelope(), r.orderID, orZero(body))
	return h.commandResponse(ctx, r, result, err, h.cfg.Commands.AwaitCancelled)
}

// GetOrder answers from the first tier that is fresh enough.
func (h handlers) GetOrder(ctx context.Context, r *request) (response, error) {
	v, err := h.cfg.Queries.GetOrder(ctx, r.key.Owner, r.orderID, r.token)
	return r.queryResponse(v, err)
}

// ListOrders answers a page from a replica that is fresh enough.
func (h handlers) ListOrders(ctx context.Context, r *request, p api.ListOrdersParams) (response, error) {
	v, err := h.cfg.Queries.ListOrders(ctx, r.key.Owner, query.OrderFilter{
		Status: string(orZero(p.Status)), CustomerRef: orZero(p.CustomerRef), From: instant(p.CreatedFrom), To: instant(p.CreatedTo),
	}, r.page, r.token)
	return r.queryResponse(v, err)
}

// ListOrderEvents answers a page of an order's history.
func (h handlers) ListOrderEvents(ctx context.Context, r *request) (response, error) {
	v, err := h.cfg.Queries.ListOrderEvents(ctx, r.key.Owner, r.orderID, r.page, r.token)
	return r.queryResponse(v, err)
}

// GetOrderSaga answers how far an order's saga is.
func (h handlers) GetOrderSaga(ctx context.Context, r *request) (response, error) {
	v, err := h.cfg.Queries.GetSaga(ctx, r.key.Owner, r.orderID, r.token)
	return r.queryResponse(v, err)
}

// orZero is for parameters of which absent and zero mean the same to a query.
func orZero[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// instant keeps an absent time apart from the zero one.
func instant(t *rfc3339.Time) *time.Time {
	if t == nil {
		return nil
	}
	return &t.Time
}
