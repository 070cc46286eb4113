package query

import (
	"context"

	"github.com/google/uuid"

	"github.com/ordergate/ordergate/gen/querydb"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

// GetOrder answers an order. ORD_001: the owner has none with this id; a forged id is refused without any look-up, and one that was
// given out in the last minute is asked of the primary before.
func (r *Queries) GetOrder(ctx context.Context, owner order.Owner, id order.ID, t token.Token) (View, error) {
	return r.get(ctx, "getOrder", key{owner: owner, id: id}, t)
}

func (r *Queries) readOrder(ctx context.Context, k key, w want) (Entry, string, error) {
	var row querydb.GetOrderRow
	e, tier, err := r.read(ctx, w, func(ctx context.Context, q *querydb.Queries) (_ int64, err error) {
		row, err = q.GetOrder(ctx, querydb.GetOrderParams{Account: k.owner.Account, Mode: k.owner.Mode, ID: uuid.UUID(k.id)})
		return row.Rev, unlessNone(err)
	})
	if err != nil || e.Rev == 0 {
		return e, tier, err
	}
	o, err := order.Restore(k.id, row.Version, row.HeadHash, row.State)
	if err != nil {
		return e, tier, err
	}
	e.Body, err = view.OrderBody(o, row.Address)
	return e, tier, err
}
