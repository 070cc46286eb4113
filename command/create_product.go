package command

import (
	"context"

	"github.com/ordergate/ordergate/command/catalogue"
	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

// CreateProduct makes a product and its stock, which has no pieces, in one transaction on the primary with the result under the
// idempotency key. The result is 201 and the product; a repetition gets the same. It publishes nothing; the caches get the product after
// the COMMIT. Refusals: REQ_002 (a currency twice), CAT_002, IDEM_002, IDEM_003. Failures: SYS_002, SYS_003, RATE_003 (nothing changed),
// SYS_006 (the outcome is not known).
func (c *Commands) CreateProduct(ctx context.Context, e Envelope, body api.CreateProduct) (Result, error) {
	prices, err := pricesOf(body.Prices)
	if err != nil { // a fault of its form: nothing is stored under the key
		return Result{}, err
	}
	return c.execute(ctx, e, body, createProduct{order.Item{Owner: e.Owner, SKU: body.Sku}, prices, body})
}

type createProduct struct {
	item   order.Item
	prices map[string]int64
	api.CreateProduct
}

func (c createProduct) needs() needs {
	return needs{catalogue: []order.Item{c.item}, stock: []order.Item{c.item}}
}

func (c createProduct) decide(l *loaded, rec order.Recorder) (effect, error) {
	if l.catalogue[c.item] != nil {
		return effect{}, apierr.E(errcode.CAT002)
	}
	p := catalogue.New(rec.Now)
	p.Name, p.Prices, p.Active, p.LowStockAt = c.Name, c.prices, c.Active == nil || *c.Active, c.LowStockAt
	if c.Description != nil {
		p.Description = *c.Description
	}
	body, err := productBody(c.item, p)
	if err != nil {
		return effect{}, err
	}
	l.catalogue[c.item] = p
	level := l.stock[c.item]
	if level == nil {
		level = l.stock.Add(c.item, p.CreatedAt)
	}
	level.SetLowAt(rec, catalogue.LowAt(p.LowStockAt))
	return effect{result: Result{
		Status: 201, ContentType: "application/json", Location: "/v1/products/" + c.item.SKU, Body: body, Product: c.item.SKU,
	}}, nil
}

// pricesOf are the prices of a request by their currencies. REQ_002: a currency stands there twice.
func pricesOf[P api.Price | api.Money](list []P) (map[string]int64, error) {
	money := make([]order.Money, len(list))
	for i, p := range list {
		money[i] = order.Money(p)
	}
	return catalogue.PricesOf(money)
}

// product is a product as clients see it.
func product(it order.Item, p *catalogue.Product) api.Product {
	return api.Product{
		Sku: it.SKU, Name: p.Name, Description: p.Description, Prices: view.Prices(p.Prices), Active: p.Active, LowStockAt: p.LowStockAt,
		Version: p.Version, CreatedAt: rfc3339.New(p.CreatedAt), UpdatedAt: rfc3339.New(p.UpdatedAt),
	}
}

func productBody(it order.Item, p *catalogue.Product) (view.Body, error) {
	return view.Finish(product(it, p), p.Version)
}
