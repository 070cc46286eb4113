package edge

import "context"

// GetInventory answers what of a sku can still be sold.
func (h handlers) GetInventory(ctx context.Context, r *request) (response, error) {
	v, err := h.cfg.Queries.GetInventory(ctx, r.key.Owner, r.sku, r.token)
	return r.queryResponse(v, err)
}
