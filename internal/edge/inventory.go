package edge

import "context"

// GetInventory returns how much of a sku can still be sold.
func (h handlers) GetInventory(ctx context.Context, r *request) (response, error) {
	return r.queryResponse(h.cfg.Queries.GetInventory(ctx, r.key.Owner, r.sku, r.token))
}
