package app

import (
	"context"
	_ "embed" // catalogue.json
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/gen/cataloguedb"
	"github.com/ordergate/ordergate/gen/inventorydb"
)

// firstSKU is a product of the sample catalogue.
const firstSKU = "LAMP-0001"

//go:embed catalogue.json
var catalogueJSON []byte

// catalogue makes the sample products of an account with their stock, 216 of them: each article in each series. Prices are in
// cents; a yuan price is eight times the euro price, rounded to whole yuan.
func catalogue(account int32) (p cataloguedb.InsertProductsParams, s inventorydb.InsertStockParams, err error) {
	var file struct {
		Articles []struct {
			Prefix, Name, Description string
			Cents, Stock              int64
		}
		Series []struct {
			Name    string
			Percent int64
		}
	}
	if err = json.Unmarshal(catalogueJSON, &file); err != nil {
		return p, s, err
	}
	p.Account, p.Mode, s.Account, s.Mode = account, "test", account, "test"
	for _, a := range file.Articles {
		for i, line := range file.Series {
			cents := (a.Cents*line.Percent/100/10)*10 + 9 // ends in 9, as prices do
			sku := fmt.Sprintf("%s-%04d", a.Prefix, i+1)
			p.Skus, p.Names = append(p.Skus, sku), append(p.Names, a.Name+" "+line.Name)
			p.Descriptions = append(p.Descriptions, a.Description)
			p.Prices = append(p.Prices, fmt.Appendf(nil, `{"EUR": %d, "CNY": %d}`, cents, cents*8/100*100))
			s.Skus, s.OnHand = append(s.Skus, sku), append(s.OnHand, a.Stock+int64(i)*7)
		}
	}
	return p, s, nil
}

// loadCatalogue gives an account the sample products and their stock in its test mode, once, and returns how many products it has.
func loadCatalogue(ctx context.Context, conn *pgx.Conn, account int32) (int64, error) {
	q := cataloguedb.New(conn)
	owner := cataloguedb.CountProductsParams{Account: account, Mode: "test"}
	n, err := q.CountProducts(ctx, owner)
	if err != nil || n > 0 {
		return n, err
	}
	products, stock, err := catalogue(account)
	if err != nil {
		return 0, err
	}
	if err = q.InsertProducts(ctx, products); err != nil {
		return 0, err
	}
	if err = inventorydb.New(conn).InsertStock(ctx, stock); err != nil {
		return 0, err
	}
	return q.CountProducts(ctx, owner)
}
