package edge

import (
	"context"

	"github.com/ordergate/ordergate/gen/api"
)

// GetInventory returns how much of a sku can still be sold.
func (h handlers) GetInventory(ctx context.Context, r *request) (response, error) {
	return r.queryResponse(h.cfg.Queries.GetInventory(ctx, r.key.Owner, r.sku, r.token))
}

// AdjustInventory returns 201 with the adjustment and the stock after it.
func (h handlers) AdjustInventory(ctx context.Context, r *request, body api.AdjustInventory) (response, error) {
	result, err := h.cfg.Commands.AdjustInventory(ctx, r.envelope(), r.sku, body)
	return h.commandResponse(ctx, r, result, err, nil)
}
