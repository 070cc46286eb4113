package query

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/google/uuid"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/querydb"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

// OrderFilter narrows a list of orders. An empty text and a nil time narrow nothing.
type OrderFilter struct {
	Status      string
	CustomerRef string
	From, To    *time.Time // placed from From on and before To, both cut to milliseconds
}

// ListOrders answers a page of orders, the newest first. REQ_012: the cursor is not one of this owner and these filters.
func (q *Queries) ListOrders(ctx context.Context, owner order.Owner, f OrderFilter, page Page, t token.Token) (View, error) {
	p := querydb.ListOrdersParams{Account: owner.Account, Mode: owner.Mode, Status: f.Status, CustomerRef: f.CustomerRef, Before: uuid.Max}
	if f.From != nil {
		p.FromID = smallestID(*f.From)
	}
	if f.To != nil {
		p.Before = smallestID(*f.To)
	}
	return answerPage(ctx, q, list[querydb.ListOrdersRow, api.Order]{
		uncached: uncached{operation: "listOrders", token: t},
		owner:    owner, filters: []string{f.Status, f.CustomerRef, p.FromID.String(), p.Before.String()},
		rows: func(ctx context.Context, db *querydb.Queries, after string, limit int32) ([]querydb.ListOrdersRow, error) {
			p := p
			p.Page = limit
			copy(p.Before[:], after)
			return db.ListOrders(ctx, p)
		},
		position: func(row querydb.ListOrdersRow) string { return string(row.ID[:]) },
		item: func(row querydb.ListOrdersRow) (api.Order, error) {
			o, err := order.Restore(order.ID(row.ID), row.Version, row.HeadHash, row.State)
			if err != nil {
				return api.Order{}, err
			}
			return view.Order(o, row.Address)
		},
	}, page)
}

// smallestID is the smallest UUIDv7 of a millisecond. Before and after the times that an id can tell it is the least and the greatest
// UUID.
func smallestID(t time.Time) (id uuid.UUID) {
	if t.UnixMilli() >= 1<<48 {
		return uuid.Max
	}
	binary.BigEndian.PutUint64(id[:], uint64(max(0, t.UnixMilli()))<<16)
	return id
}
