package app

import (
	"context"
	_ "embed" // catalogue.json
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/gen/accountsdb"
	"github.com/ordergate/ordergate/gen/cataloguedb"
	"github.com/ordergate/ordergate/gen/inventorydb"
)

// firstSKU is a product of the sample catalogue.
const firstSKU = "LAMP-0001"

//go:embed catalogue.json
var catalogueJSON []byte

// sampleAccount returns the number of an account, and the number of products in its sample catalogue. Both are made if missing.
func sampleAccount(ctx context.Context, url, name string) (account int32, products int64, err error) {
	err = withConn(ctx, url, func(conn *pgx.Conn) error {
		if account, err = accountOf(ctx, accountsdb.New(conn), name); err != nil {
			return err
		}
		products, err = loadCatalogue(ctx, conn, account)
		return err
	})
	return account, products, err
}

// loadCatalogue gives an account the sample products and their stock in its test mode, once, and returns how many products it has:
// 216, each article in each series. Prices are in cents; a yuan price is eight times the euro price, rounded to whole yuan.
func loadCatalogue(ctx context.Context, conn *pgx.Conn, account int32) (int64, error) {
	const mode = "test"
	q := cataloguedb.New(conn)
	n, err := q.CountProducts(ctx, cataloguedb.CountProductsParams{Account: account, Mode: mode})
	if err != nil || n > 0 {
		return n, err
	}
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
		return 0, err
	}
	p := cataloguedb.InsertProductsParams{Account: account, Mode: mode}
	s := inventorydb.InsertStockParams{Account: account, Mode: mode}
	for _, a := range file.Articles {
		for i, line := range file.Series {
			cents := (a.Cents*line.Percent/100/10)*10 + 9 // ends in 9, as prices do
			p.Skus = append(p.Skus, fmt.Sprintf("%s-%04d", a.Prefix, i+1))
			p.Names = append(p.Names, a.Name+" "+line.Name)
			p.Descriptions = append(p.Descriptions, a.Description)
			p.Prices = append(p.Prices, fmt.Appendf(nil, `{"EUR": %d, "CNY": %d}`, cents, cents*8/100*100))
			s.OnHand = append(s.OnHand, a.Stock+int64(i)*7)
		}
	}
	s.Skus = p.Skus
	if err = q.InsertProducts(ctx, p); err != nil {
		return 0, err
	}
	return int64(len(p.Skus)), inventorydb.New(conn).InsertStock(ctx, s)
}
