package query

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/google/uuid"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/querydb"
	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

// ListOrders returns a page of orders, the newest first. The times of the filters are cut to milliseconds. REQ_012: the cursor is not
// one of this owner and these filters.
func (q *Queries) ListOrders(ctx context.Context, owner order.Owner, f api.ListOrdersParams, page Page, t token.Token) (View, error) {
	p := querydb.ListOrdersParams{
		Account: owner.Account, Mode: owner.Mode, Status: string(orZero(f.Status)), CustomerRef: orZero(f.CustomerRef), Reference: orZero(f.Reference),
	}
	p.FromID, p.Before = idRange(f.CreatedFrom, f.CreatedTo)
	return servePage(ctx, q, list[querydb.ListOrdersRow, api.Order]{
		request: request{operation: "listOrders", token: t},
		owner:   owner, filters: []string{p.Status, p.CustomerRef, p.Reference, p.FromID.String(), p.Before.String()},
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

// idRange has the ids that were made from one instant to before another; nil is no bound.
func idRange(from, to *rfc3339.Time) (least, before uuid.UUID) {
	before = uuid.Max
	if from != nil {
		least = smallestID(from.Time)
	}
	if to != nil {
		before = smallestID(to.Time)
	}
	return least, before
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
