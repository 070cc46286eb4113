package query

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/ordergate/ordergate/gen/querydb"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

// GetOrder returns an order, at the present instant. ORD_001: the owner has none with this id.
func (q *Queries) GetOrder(ctx context.Context, owner order.Owner, id order.ID, t token.Token, at time.Time) (View, error) {
	return q.get(ctx, orders.row(owner, id, ""), t, at)
}

func readOrder(ctx context.Context, db *querydb.Queries, k key) (found, error) {
	row, err := db.GetOrder(ctx, querydb.GetOrderParams{Account: k.account, Mode: k.mode.String(), ID: uuid.UUID(k.id)})
	return found{row.Rev, func() (view.Body, error) {
		o, err := order.Restore(k.id, row.Version, row.HeadHash, row.State)
		if err != nil {
			return view.Body{}, err
		}
		return view.OrderBody(o, row.Address)
	}}, err
}
