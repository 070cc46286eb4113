package command

import (
	"context"
	"time"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

// AdjustInventory adds pieces to the stock of a sku or takes some off: in one transaction on the primary it moves the stock, appends
// inventory.adjusted (and inventory.low, if the stock is low then) to the stock's events and stores the result under the idempotency key.
// The result is 201 and the adjustment; a repetition gets the same. It locks one row of stock and publishes nothing. Refusals: INV_001,
// INV_006, IDEM_002, IDEM_003. Failures: SYS_002, SYS_003, RATE_003 (nothing changed), SYS_006 (the outcome is not known).
func (c *Commands) AdjustInventory(ctx context.Context, e Envelope, sku string, body api.AdjustInventory) (Result, error) {
	e.Subject = sku
	return c.execute(ctx, e, body, adjustInventory{order.Item{Owner: e.Owner, SKU: sku}, body})
}

type adjustInventory struct {
	item order.Item
	api.AdjustInventory
}

func (a adjustInventory) needs() needs { return needs{stock: []order.Item{a.item}} }

func (a adjustInventory) decide(l *loaded, rec order.Recorder) (effect, error) {
	level := l.stock[a.item]
	if level == nil {
		return effect{}, apierr.E(errcode.INV001)
	}
	id := rec.NewID()
	if err := level.Adjust(rec, id, a.Delta, a.Reason); err != nil {
		return effect{}, err
	}
	body, err := view.Finish(api.Adjustment{
		ID: id.Format(order.PrefixAdjustment), Sku: a.item.SKU, Delta: a.Delta, Reason: a.Reason, OnHand: level.OnHand, Reserved: level.Reserved,
		Available: level.Available(), CreatedAt: rfc3339.New(rec.Now.Truncate(time.Microsecond)),
	}, 0)
	return effect{result: Result{
		Status: 201, ContentType: "application/json", Location: "/v1/inventory/" + a.item.SKU, Body: body,
	}}, err
}
