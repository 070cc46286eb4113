package edge

import (
	"context"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/query"
)

// PlaceOrder returns 202 with the accepted order or, with Prefer: wait, 201 as soon as the saga decided it.
func (h handlers) PlaceOrder(ctx context.Context, r *request, body api.PlaceOrder) (response, error) {
	result, err := h.cfg.Commands.PlaceOrder(ctx, r.envelope(), body)
	return h.commandResponse(ctx, r, result, err, h.cfg.Commands.AwaitPlaced)
}

// QuoteOrder returns 200 with what an order would cost now.
func (h handlers) QuoteOrder(ctx context.Context, r *request, body api.QuoteOrder) (response, error) {
	result, err := h.cfg.Commands.QuoteOrder(ctx, r.envelope(), body)
	return h.commandResponse(ctx, r, result, err, nil)
}

// CancelOrder returns 202 with the recorded request to cancel or, with Prefer: wait, 200 once the order is final.
func (h handlers) CancelOrder(ctx context.Context, r *request, body *api.CancelOrder) (response, error) {
	if body == nil {
		body = &api.CancelOrder{}
	}
	result, err := h.cfg.Commands.CancelOrder(ctx, r.envelope(), r.orderID, *body)
	return h.commandResponse(ctx, r, result, err, h.cfg.Commands.AwaitCancelled)
}

// UpdateOrder returns 200 with the changed order.
func (h handlers) UpdateOrder(ctx context.Context, r *request, patch api.MergePatch) (response, error) {
	result, err := h.cfg.Commands.UpdateOrder(ctx, r.envelope(), r.orderID, patch)
	return h.commandResponse(ctx, r, result, err, nil)
}

// GetOrder returns an order from the first tier that is fresh enough, or as it was. REQ_003: an instant in the future, or beside a version.
func (h handlers) GetOrder(ctx context.Context, r *request, p api.GetOrderParams) (response, error) {
	switch {
	case p.Version != nil && p.AsOf != nil:
		return response{}, apierr.E(errcode.REQ003, apierr.Faults(apierr.Fault{Pointer: "/query/as_of", Rule: errcode.RuleAlone, Expected: "version"}))
	case p.AsOf != nil && p.AsOf.After(h.now()):
		return response{}, apierr.E(errcode.REQ003, apierr.At("/query/as_of", errcode.RulePast))
	case p.Version != nil:
		return r.queryResponse(h.cfg.Queries.GetOrderThen(ctx, r.key.Owner, r.orderID, query.Then{Version: *p.Version}, r.token))
	case p.AsOf != nil:
		return r.queryResponse(h.cfg.Queries.GetOrderThen(ctx, r.key.Owner, r.orderID, query.Then{AsOf: p.AsOf.Time}, r.token))
	}
	return r.queryResponse(h.cfg.Queries.GetOrder(ctx, r.key.Owner, r.orderID, r.token, r.now))
}

// ListOrders returns a page from a replica that is fresh enough. REQ_003: it ends before it begins.
func (h handlers) ListOrders(ctx context.Context, r *request, p api.ListOrdersParams) (response, error) {
	if err := checkPeriod(p.CreatedFrom, p.CreatedTo); err != nil {
		return response{}, err
	}
	return r.queryResponse(h.cfg.Queries.ListOrders(ctx, r.key.Owner, p, r.page, r.token))
}

// checkPeriod returns REQ_003 if a list is asked for from one instant to an earlier one. It is empty from an instant to the same one.
func checkPeriod(from, to *rfc3339.Time) error {
	if from != nil && to != nil && to.Before(from.Time) {
		return apierr.E(errcode.REQ003, apierr.Faults(apierr.Fault{Pointer: "/query/created_to", Rule: errcode.RuleMinimum, Expected: "created_from"}))
	}
	return nil
}

// ListOrderEvents returns a page of an order's history.
func (h handlers) ListOrderEvents(ctx context.Context, r *request) (response, error) {
	return r.queryResponse(h.cfg.Queries.ListOrderEvents(ctx, r.key.Owner, r.orderID, r.page, r.token))
}

// GetOrderSaga returns how far an order's saga is.
func (h handlers) GetOrderSaga(ctx context.Context, r *request) (response, error) {
	return r.queryResponse(h.cfg.Queries.GetSaga(ctx, r.key.Owner, r.orderID, r.token))
}
