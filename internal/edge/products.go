package edge

import (
	"context"

	"github.com/ordergate/ordergate/gen/api"
)

// ListProducts returns a page of the catalogue.
func (h handlers) ListProducts(ctx context.Context, r *request, p api.ListProductsParams) (response, error) {
	return r.queryResponse(h.cfg.Queries.ListProducts(ctx, r.key.Owner, p, r.page, r.token))
}

// GetProduct returns a product from the first tier that is fresh enough.
func (h handlers) GetProduct(ctx context.Context, r *request) (response, error) {
	return r.queryResponse(h.cfg.Queries.GetProduct(ctx, r.key.Owner, r.sku, r.token, r.now))
}

// CreateProduct returns 201 with the new product.
func (h handlers) CreateProduct(ctx context.Context, r *request, body api.CreateProduct) (response, error) {
	result, err := h.cfg.Commands.CreateProduct(ctx, r.envelope(), body)
	return h.commandResponse(ctx, r, result, err, nil)
}

// UpdateProduct returns 200 with the changed product.
func (h handlers) UpdateProduct(ctx context.Context, r *request, patch api.MergePatch) (response, error) {
	result, err := h.cfg.Commands.UpdateProduct(ctx, r.envelope(), r.sku, patch)
	return h.commandResponse(ctx, r, result, err, nil)
}
