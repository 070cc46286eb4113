package edge

import (
	"context"

	"github.com/ordergate/ordergate/gen/api"
)

// ListProducts answers a page of the catalogue.
func (s *Server) ListProducts(ctx context.Context, r api.ListProductsRequestObject) (api.ListProductsResponseObject, error) {
	t, err := s.token(r.Params.XConsistencyToken)
	if err != nil {
		return nil, err
	}
	a, err := s.cfg.Queries.ListProducts(ctx, metaOf(ctx).key.Owner, or(r.Params.Q), page(r.Params.Limit, r.Params.Cursor), t)
	return s.read(ctx, a, r.Params.IfNoneMatch, err)
}

// GetProduct answers from the first tier that is fresh enough.
func (s *Server) GetProduct(ctx context.Context, r api.GetProductRequestObject) (api.GetProductResponseObject, error) {
	t, err := s.token(r.Params.XConsistencyToken)
	if err != nil {
		return nil, err
	}
	a, err := s.cfg.Queries.GetProduct(ctx, metaOf(ctx).key.Owner, r.Sku, t)
	return s.read(ctx, a, r.Params.IfNoneMatch, err)
}

// GetInventory answers what of a sku can still be sold.
func (s *Server) GetInventory(ctx context.Context, r api.GetInventoryRequestObject) (api.GetInventoryResponseObject, error) {
	t, err := s.token(r.Params.XConsistencyToken)
	if err != nil {
		return nil, err
	}
	a, err := s.cfg.Queries.GetInventory(ctx, metaOf(ctx).key.Owner, r.Sku, t)
	return s.read(ctx, a, r.Params.IfNoneMatch, err)
}
