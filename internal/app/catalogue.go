package app

import (
	"context"
	_ "embed" // catalogue.json
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/command/catalogue"
	"github.com/ordergate/ordergate/command/inventory"
	"github.com/ordergate/ordergate/gen/cataloguedb"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/order"
)

const firstSKU = "LAMP-0001"

//go:embed catalogue.json
var catalogueJSON []byte

// sample is catalogue.json: each article is sold in each series.
type sample struct {
	Articles []struct {
		Prefix      string `json:"prefix"`
		Name        string `json:"name"`
		Description string `json:"description"`
		Cents       int64  `json:"cents"`
		Stock       int64  `json:"stock"`
		LowStockAt  *int64 `json:"low_stock_at"`
	} `json:"articles"`
	Series []struct {
		Name    string `json:"name"`
		Percent int64  `json:"percent"`
	} `json:"series"`
}

// loadSample gives an account the sample products with their stock, 216, each article in each series, and the sample coupons, in its test
// mode and in one transaction. An account that has products is left alone.
func loadSample(ctx context.Context, conn *pgx.Conn, ids order.IDs, account int32) (s sampled, err error) {
	s.account = account
	owner := order.Owner{Account: account, Mode: "test"}
	if s.products, err = cataloguedb.New(conn).CountProducts(ctx, cataloguedb.CountProductsParams{Account: account, Mode: owner.Mode}); err != nil {
		return s, err
	}
	if s.products == 0 {
		if s.loaded, err = writeSample(ctx, conn, ids, owner); err != nil {
			return s, err
		}
		s.products = s.loaded
	}
	s.coupons, err = activeSamples(ctx, conn, owner)
	return s, err
}

// writeSample returns how many products it wrote. The stock comes by adjustments, as all stock does.
func writeSample(ctx context.Context, conn *pgx.Conn, ids order.IDs, owner order.Owner) (int64, error) {
	var all sample
	if err := json.Unmarshal(catalogueJSON, &all); err != nil {
		return 0, fmt.Errorf("decode catalogue.json: %w", err)
	}
	rec := order.Recorder{
		NewID: func() order.ID { return ids.Mint(time.Now(), owner.Account) },
		Now:   time.Now(),
		Cause: order.Cause{TraceID: ids.Mint(time.Now(), owner.Account).Format(""), Operation: "sample", Actor: "operator"},
	}
	products, openings := catalogue.Products{}, []inventory.Opening{}
	for _, a := range all.Articles {
		for i, s := range all.Series {
			it := order.Item{Owner: owner, SKU: fmt.Sprintf("%s-%04d", a.Prefix, i+1)}
			p := catalogue.New(rec.Now)
			p.Name, p.Description, p.Active, p.LowStockAt = a.Name+" "+s.Name, a.Description, true, a.LowStockAt
			p.Prices = samplePrices(a.Cents*s.Percent/1000*10 + 9)
			products[it] = p
			openings = append(openings, inventory.Opening{Item: it, OnHand: a.Stock + int64(i)*7, LowAt: catalogue.LowAt(a.LowStockAt)})
		}
	}
	return int64(len(products)), pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		if err := products.Write(ctx, tx); err != nil {
			return err
		}
		if err := inventory.Open(ctx, tx, rec, openings...); err != nil {
			return err
		}
		return writeCoupons(ctx, tx, owner)
	})
}

// samplePrices are the prices of a product that costs so many euro cents: in whole yuan, in tens of yen, which has no minor unit, and in
// fifties of the Kuwaiti dinar's thousandths.
func samplePrices(cents int64) map[string]int64 {
	return map[string]int64{"EUR": cents, "CNY": cents * 8 / 100 * 100, "JPY": cents * 16 / 100 * 10, "KWD": cents * 33 / 10 / 50 * 50}
}
