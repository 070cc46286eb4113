package command

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/ordergate/ordergate/command/catalogue"
	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/order"
)

// UpdateProduct applies a merge patch to a product, in one transaction on the primary; a new threshold goes to its stock in the same one.
// The result is 200 and the product as it is then; a patch that changes nothing writes nothing. It publishes nothing; the caches get the
// product after the COMMIT. Repeated with the same If-Match it is refused once it was done. Refusals: CAT_001, REQ_011, REQ_010, REQ_002 (a
// currency twice). Failures: SYS_002, SYS_003, RATE_003 (nothing changed), SYS_006 (the outcome is not known).
func (c *Commands) UpdateProduct(ctx context.Context, e Envelope, sku string, patch api.MergePatch) (Result, error) {
	u := updateProduct{e, order.Item{Owner: e.Owner, SKU: sku}, patch, map[string]json.RawMessage{}}
	if err := json.Unmarshal(patch, &u.members); err != nil {
		return Result{}, fmt.Errorf("decode patch: %w", err)
	}
	e.Subject = sku
	return c.execute(ctx, e, patch, u)
}

type updateProduct struct {
	Envelope
	item    order.Item
	patch   api.MergePatch
	members map[string]json.RawMessage
}

// needs the stock only for a new threshold: a new price does not wait for a product that sells.
func (u updateProduct) needs() needs {
	n := needs{catalogue: []order.Item{u.item}}
	if _, given := u.members["low_stock_at"]; given {
		n.stock = n.catalogue
	}
	return n
}

func (u updateProduct) decide(l *loaded, rec order.Recorder) (effect, error) {
	p := l.catalogue[u.item]
	if p == nil {
		return effect{}, apierr.E(errcode.CAT001)
	}
	before, err := productBody(u.item, p)
	if err != nil {
		return effect{}, err
	}
	if err = u.checkPrecondition(before.ETag, p.Version); err != nil {
		return effect{}, err
	}
	result := Result{Status: 200, ContentType: "application/json", Body: before, Product: u.item.SKU}
	patched, err := applyPatch(product(u.item, p), u.patch)
	if err != nil {
		return effect{}, err
	}
	next := *p
	next.Name, next.Description, next.Active, next.LowStockAt = patched.Name, patched.Description, patched.Active, patched.LowStockAt
	if next.Prices, err = pricesOf(patched.Prices); err != nil {
		return effect{}, err
	}
	after, err := productBody(u.item, &next)
	if err != nil || after.ETag == before.ETag {
		return effect{result: result}, err
	}
	next.Touch(rec.Now)
	if result.Body, err = productBody(u.item, &next); err != nil {
		return effect{}, err
	}
	*p = next
	if level := l.stock[u.item]; level != nil {
		level.SetLowAt(rec, catalogue.LowAt(p.LowStockAt))
	}
	return effect{result: result}, nil
}
