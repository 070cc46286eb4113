package query

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/querydb"
	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

// GetProduct answers a product. CAT_001: the owner has none with this sku.
func (r *Queries) GetProduct(ctx context.Context, owner order.Owner, sku string, t token.Token) (View, error) {
	return r.get(ctx, "getProduct", key{owner: owner, sku: sku}, t)
}

func (r *Queries) readProduct(ctx context.Context, k key, w want) (Entry, string, error) {
	var row querydb.GetProductRow
	e, tier, err := r.read(ctx, w, func(ctx context.Context, q *querydb.Queries) (_ int64, err error) {
		row, err = q.GetProduct(ctx, querydb.GetProductParams{Account: k.owner.Account, Mode: k.owner.Mode, Sku: k.sku})
		return row.Rev, unlessNone(err)
	})
	if err != nil || e.Rev == 0 {
		return e, tier, err
	}
	p, err := product(querydb.ListProductsRow(row))
	if err != nil {
		return e, tier, err
	}
	e.Body, err = view.Finish(p, p.Version)
	return e, tier, err
}

// ListProducts answers a page of products in the order of their skus, those whose sku or name contains q. REQ_012: the cursor is not
// one of this owner and q.
func (r *Queries) ListProducts(ctx context.Context, owner order.Owner, q string, page Page, t token.Token) (View, error) {
	scope := fmt.Sprintf("products %d %s %s", owner.Account, owner.Mode, q)
	after, err := r.position(scope, page.Cursor)
	if err != nil {
		return View{}, err
	}
	p := querydb.ListProductsParams{Account: owner.Account, Mode: owner.Mode, After: after, Q: q, Page: int32(page.Limit + 1)}
	var rows []querydb.ListProductsRow
	e, tier, err := r.read(ctx, want{token: t}, func(ctx context.Context, q *querydb.Queries) (_ int64, err error) {
		rows, err = q.ListProducts(ctx, p)
		return 0, err
	})
	if err != nil {
		return View{}, err
	}
	list := api.ProductList{Data: []api.Product{}}
	if len(rows) > page.Limit {
		rows = rows[:page.Limit]
		list.NextCursor = r.cursor(scope, rows[len(rows)-1].Sku)
	}
	for _, row := range rows {
		shown, err := product(row)
		if err != nil {
			return View{}, err
		}
		list.Data = append(list.Data, shown)
	}
	return r.finish("listProducts", tier, e, list, 0)
}

// product shows the prices in the order of their currencies.
func product(row querydb.ListProductsRow) (api.Product, error) {
	p := api.Product{
		Sku: row.Sku, Name: row.Name, Description: row.Description, Prices: []api.Money{}, Active: row.Active, Version: row.Version,
		CreatedAt: rfc3339.New(row.CreatedAt), UpdatedAt: rfc3339.New(row.UpdatedAt),
	}
	var prices map[string]int64
	if err := json.Unmarshal(row.Prices, &prices); err != nil {
		return p, fmt.Errorf("prices of %s: %w", row.Sku, err)
	}
	for currency, amount := range prices {
		p.Prices = append(p.Prices, api.Money{Amount: amount, Currency: currency})
	}
	slices.SortFunc(p.Prices, func(a, b api.Money) int { return cmp.Compare(a.Currency, b.Currency) })
	return p, nil
}

// GetInventory answers what of a sku can still be sold, for display. INV_001: the owner has no stock record of it.
func (r *Queries) GetInventory(ctx context.Context, owner order.Owner, sku string, t token.Token) (View, error) {
	var row querydb.GetInventoryRow
	e, tier, err := r.read(ctx, want{token: t, row: true}, func(ctx context.Context, q *querydb.Queries) (_ int64, err error) {
		row, err = q.GetInventory(ctx, querydb.GetInventoryParams{Account: owner.Account, Mode: owner.Mode, Sku: sku})
		return row.Rev, unlessNone(err)
	})
	if err != nil {
		return View{}, err
	}
	if e.Rev == 0 {
		return View{}, apierr.E(errcode.INV001)
	}
	shown := api.Inventory{Sku: row.Sku, OnHand: row.OnHand, Reserved: row.Reserved, Available: row.Available, AsOf: rfc3339.New(row.AsOf)}
	return r.finish("getInventory", tier, e, shown, row.Rev)
}
