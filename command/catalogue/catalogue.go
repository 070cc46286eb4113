// Package catalogue is the bounded context of products: their names and prices. It owns the table products.
package catalogue

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/gen/cataloguedb"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/order"
)

// Read reads products in the transaction, without locks: an order takes the price of the moment. A product that does not exist is not
// in the result.
func Read(ctx context.Context, tx pgx.Tx, items []order.Item) (map[order.Item]*order.Product, error) {
	rows, err := cataloguedb.New(tx).GetProducts(ctx, cataloguedb.GetProductsParams{
		Accounts: pg.Column(items, func(it order.Item) int32 { return it.Account }),
		Modes:    pg.Column(items, func(it order.Item) string { return it.Mode }),
		Skus:     pg.Column(items, func(it order.Item) string { return it.SKU }),
	})
	if err != nil {
		return nil, fmt.Errorf("read products: %w", err)
	}
	products := make(map[order.Item]*order.Product, len(rows))
	for _, row := range rows {
		p := &order.Product{Name: row.Name, Active: row.Active}
		if err = json.Unmarshal(row.Prices, &p.Prices); err != nil {
			return nil, fmt.Errorf("prices of %s: %w", row.Sku, err)
		}
		products[order.Item{Owner: order.Owner{Account: row.Account, Mode: row.Mode}, SKU: row.Sku}] = p
	}
	return products, nil
}
