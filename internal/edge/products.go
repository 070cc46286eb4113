package edge

import (
	"context"

	"github.com/ordergate/ordergate/gen/api"
)

// ListProducts answers a page of the catalogue.
func (h handlers) ListProducts(ctx context.Context, r *request, p api.ListProductsParams) (response, error) {
	v, err := h.cfg.Queries.ListProducts(ctx, r.key.Owner, orZero(p.Q), r.page, r.token)
	return r.queryResponse(v, err)
}

// GetProduct answers from the first tier that is fresh enough.
func (h handlers) GetProduct(ctx context.Context, r *request) (response, error) {
	v, err := h.cfg.Queries.GetProduct(ctx, r.key.Owner, r.sku, r.token)
	return r.queryResponse(v, err)
}
