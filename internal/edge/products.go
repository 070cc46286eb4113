package edge

import (
	"context"

	"github.com/ordergate/ordergate/gen/api"
)

// ListProducts answers a page of the catalogue.
func (s *Server) ListProducts(ctx context.Context, r *request, p api.ListProductsParams) (response, error) {
	v, err := s.cfg.Queries.ListProducts(ctx, r.key.Owner, orZero(p.Q), r.page, r.token)
	return r.queryResponse(v, err)
}

// GetProduct answers from the first tier that is fresh enough.
func (s *Server) GetProduct(ctx context.Context, r *request) (response, error) {
	v, err := s.cfg.Queries.GetProduct(ctx, r.key.Owner, r.sku, r.token)
	return r.queryResponse(v, err)
}
