package query

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/querydb"
	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

// GetProduct returns a product, at the present instant. CAT_001: the owner has none with this sku.
func (q *Queries) GetProduct(ctx context.Context, owner order.Owner, sku string, t token.Token, at time.Time) (View, error) {
	return q.get(ctx, products.row(owner, order.ID{}, sku), t, at)
}

func readProduct(ctx context.Context, db *querydb.Queries, k key) (found, error) {
	row, err := db.GetProduct(ctx, querydb.GetProductParams{Account: k.account, Mode: k.mode.String(), Sku: k.text})
	return found{row.Rev, func() (view.Body, error) {
		p, err := product(querydb.ListProductsRow(row))
		if err != nil {
			return view.Body{}, err
		}
		return view.Finish(p, p.Version)
	}}, err
}

// ListProducts returns a page of products in the order of their skus: those whose sku and name have each word of the text q, in any case. A word
// of one character must begin one of theirs. REQ_012: the cursor is not one of this owner and text. RATE_003: the search took too long, too.
func (q *Queries) ListProducts(ctx context.Context, owner order.Owner, f api.ListProductsParams, page Page, t token.Token) (View, error) {
	text := strings.Join(strings.FieldsFunc(orZero(f.Q), isBlank), " ")
	return servePage(ctx, q, list[querydb.ListProductsRow, api.Product]{
		request: request{operation: "listProducts", token: t, costly: text != ""},
		owner:   owner, filters: []string{text},
		rows: func(ctx context.Context, db *querydb.Queries, after string, limit int32) ([]querydb.ListProductsRow, error) {
			return db.ListProducts(ctx, querydb.ListProductsParams{Account: owner.Account, Mode: owner.Mode, After: after, Q: text, Page: limit})
		},
		position: func(row querydb.ListProductsRow) string { return row.Sku },
		item:     product,
	}, page)
}

// isBlank tells what divides words, as PostgreSQL's \s does: no-break spaces do not.
func isBlank(r rune) bool {
	return unicode.IsSpace(r) && r != '\u00a0' && r != '\u2007' && r != '\u202f'
}

// product is a product as clients see it.
func product(row querydb.ListProductsRow) (api.Product, error) {
	var prices map[string]int64
	if err := json.Unmarshal(row.Prices, &prices); err != nil {
		return api.Product{}, fmt.Errorf("prices of %s: %w", row.Sku, err)
	}
	return api.Product{
		Sku: row.Sku, Name: row.Name, Description: row.Description, Prices: view.Prices(prices), Active: row.Active, LowStockAt: row.LowStockAt,
		Version: row.Version, CreatedAt: rfc3339.New(row.CreatedAt), UpdatedAt: rfc3339.New(row.UpdatedAt),
	}, nil
}

// GetInventory returns how much of a sku can still be sold, for display. INV_001: the owner has no stock record of it.
func (q *Queries) GetInventory(ctx context.Context, owner order.Owner, sku string, t token.Token) (View, error) {
	r := request{operation: "getInventory", token: t, product: products.row(owner, order.ID{}, sku), notFound: errcode.INV001}
	return q.serveUncached(ctx, r, func(ctx context.Context, db *querydb.Queries) (found, error) {
		row, err := db.GetInventory(ctx, querydb.GetInventoryParams{Account: owner.Account, Mode: owner.Mode, Sku: sku})
		return found{row.Rev, func() (view.Body, error) {
			return view.Finish(api.Inventory{
				Sku: row.Sku, OnHand: row.OnHand, Reserved: row.Reserved, Available: row.Available, AsOf: rfc3339.New(row.AsOf),
			}, 0) // the row's rev counts what is not shown, too
		}}, err
	})
}
