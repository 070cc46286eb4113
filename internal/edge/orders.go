package edge

import (
	"context"
	"time"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/query"
)

// PlaceOrder answers 202 with the order as taken in or, with Prefer: wait, 201 as soon as the saga decided it.
func (s *Server) PlaceOrder(ctx context.Context, r api.PlaceOrderRequestObject) (api.PlaceOrderResponseObject, error) {
	a, err := s.cfg.Commands.PlaceOrder(ctx, request(ctx, "/v1/orders", r.Params.IdempotencyKey), *r.Body)
	if err != nil {
		return nil, s.refused(ctx, a, err)
	}
	wait, applied := waitOf(r.Params.Prefer)
	owner := metaOf(ctx).key.Owner
	return s.written(ctx, s.cfg.Commands.AwaitPlaced(ctx, owner, a, wait), applied), nil
}

// CancelOrder answers 202 with the wish recorded or, with Prefer: wait, 200 once the order is final.
func (s *Server) CancelOrder(ctx context.Context, r api.CancelOrderRequestObject) (api.CancelOrderResponseObject, error) {
	id, err := orderID(ctx, r.OrderID)
	if err != nil {
		return nil, err
	}
	var body api.CancelOrder
	if r.Body != nil {
		body = *r.Body
	}
	a, err := s.cfg.Commands.CancelOrder(ctx, request(ctx, "/v1/orders/"+r.OrderID+"/cancel", r.Params.IdempotencyKey), id, body)
	if err != nil {
		return nil, s.refused(ctx, a, err)
	}
	wait, applied := waitOf(r.Params.Prefer)
	owner := metaOf(ctx).key.Owner
	return s.written(ctx, s.cfg.Commands.AwaitCancelled(ctx, owner, a, wait), applied), nil
}

// GetOrder answers from the first tier that is fresh enough.
func (s *Server) GetOrder(ctx context.Context, r api.GetOrderRequestObject) (api.GetOrderResponseObject, error) {
	id, err := orderID(ctx, r.OrderID)
	if err != nil {
		return nil, err
	}
	t, err := s.token(r.Params.XConsistencyToken)
	if err != nil {
		return nil, err
	}
	a, err := s.cfg.Queries.GetOrder(ctx, metaOf(ctx).key.Owner, id, t)
	return s.read(ctx, a, r.Params.IfNoneMatch, err)
}

// ListOrders answers a page from a replica that is fresh enough.
func (s *Server) ListOrders(ctx context.Context, r api.ListOrdersRequestObject) (api.ListOrdersResponseObject, error) {
	t, err := s.token(r.Params.XConsistencyToken)
	if err != nil {
		return nil, err
	}
	a, err := s.cfg.Queries.ListOrders(ctx, metaOf(ctx).key.Owner, query.OrderFilter{
		Status: string(or(r.Params.Status)), CustomerRef: or(r.Params.CustomerRef),
		From: instant(r.Params.CreatedFrom), To: instant(r.Params.CreatedTo),
	}, page(r.Params.Limit, r.Params.Cursor), t)
	return s.read(ctx, a, r.Params.IfNoneMatch, err)
}

// ListOrderEvents answers a page of an order's history.
func (s *Server) ListOrderEvents(ctx context.Context, r api.ListOrderEventsRequestObject) (api.ListOrderEventsResponseObject, error) {
	id, err := orderID(ctx, r.OrderID)
	if err != nil {
		return nil, err
	}
	t, err := s.token(r.Params.XConsistencyToken)
	if err != nil {
		return nil, err
	}
	a, err := s.cfg.Queries.ListOrderEvents(ctx, metaOf(ctx).key.Owner, id, page(r.Params.Limit, r.Params.Cursor), t)
	return s.read(ctx, a, r.Params.IfNoneMatch, err)
}

// GetOrderSaga answers how far an order's saga is.
func (s *Server) GetOrderSaga(ctx context.Context, r api.GetOrderSagaRequestObject) (api.GetOrderSagaResponseObject, error) {
	id, err := orderID(ctx, r.OrderID)
	if err != nil {
		return nil, err
	}
	t, err := s.token(r.Params.XConsistencyToken)
	if err != nil {
		return nil, err
	}
	a, err := s.cfg.Queries.GetSaga(ctx, metaOf(ctx).key.Owner, id, t)
	return s.read(ctx, a, r.Params.IfNoneMatch, err)
}

func or[T any](p *T) (v T) {
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

// page has the contract's default size.
func page(limit *int32, cursor *string) query.Page {
	p := query.Page{Limit: 20, Cursor: or(cursor)}
	if limit != nil {
		p.Limit = int(*limit)
	}
	return p
}
