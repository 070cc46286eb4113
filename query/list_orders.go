package query

import (
	"context"
	"fmt"
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
func (r *Queries) ListOrders(ctx context.Context, owner order.Owner, f OrderFilter, page Page, t token.Token) (View, error) {
	p := querydb.ListOrdersParams{
		Account: owner.Account, Mode: owner.Mode, Status: f.Status, CustomerRef: f.CustomerRef,
		Before: uuid.Max, Page: int32(page.Limit + 1),
	}
	if f.From != nil {
		p.FromID = floor(*f.From)
	}
	if f.To != nil {
		p.Before = floor(*f.To)
	}
	scope := fmt.Sprintf("orders %d %s %s %s %s %s", owner.Account, owner.Mode, f.Status, f.CustomerRef, p.FromID, p.Before)
	after, err := r.position(scope, page.Cursor)
	if err != nil {
		return View{}, err
	}
	if after != "" {
		copy(p.Before[:], after)
	}
	var rows []querydb.ListOrdersRow
	e, tier, err := r.read(ctx, want{token: t}, func(ctx context.Context, q *querydb.Queries) (_ int64, err error) {
		rows, err = q.ListOrders(ctx, p)
		return 0, err
	})
	if err != nil {
		return View{}, err
	}
	list := api.OrderList{Data: []api.Order{}}
	if len(rows) > page.Limit {
		rows = rows[:page.Limit]
		last := rows[len(rows)-1].ID
		list.NextCursor = r.cursor(scope, string(last[:]))
	}
	for _, row := range rows {
		o, err := order.Restore(order.ID(row.ID), row.Version, row.HeadHash, row.State)
		if err != nil {
			return View{}, err
		}
		shown, err := view.Order(o, row.Address)
		if err != nil {
			return View{}, err
		}
		list.Data = append(list.Data, shown)
	}
	return r.finish("listOrders", tier, e, list, 0)
}

// floor is the smallest id of a millisecond, the least and greatest possible ones outside of what an id can say.
func floor(t time.Time) (id uuid.UUID) {
	ms := t.UnixMilli()
	switch {
	case ms < 0:
		return id
	case ms >= 1<<48:
		return uuid.Max
	}
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id
}
