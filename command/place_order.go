package command

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/order"
)

// PlaceOrder takes an order in: in one transaction on the primary it writes the order with its first event, its address, the
// saga's steps, the reservation command for inventory and the result under the idempotency key. The result is 202 and the
// pending order; a repetition gets the same. Refusals: CAT_003, CAT_004, CAT_005, ORD_003, ORD_004, ORD_005, ORD_008, IDEM_002,
// IDEM_003. Failures: SYS_002, SYS_003, RATE_003 (nothing changed), SYS_006 (the outcome is not known).
func (c *Commands) PlaceOrder(ctx context.Context, e Envelope, body api.PlaceOrder) (Result, error) {
	return c.execute(ctx, e, body, placeOrder{e.Owner, body})
}

type placeOrder struct {
	owner order.Owner
	api.PlaceOrder
}

func (p placeOrder) item(i int) order.Item { return order.Item{Owner: p.owner, SKU: p.Lines[i].Sku} }

func (p placeOrder) needs() needs {
	n := needs{products: make([]order.Item, len(p.Lines))}
	for i := range p.Lines {
		n.products[i] = p.item(i)
	}
	return n
}

func (p placeOrder) decide(l *loaded, rec order.Recorder) (effect, error) {
	draft := order.Draft{Currency: p.Currency, CustomerRef: p.CustomerRef, WithPayment: p.Payment != nil, Lines: make([]order.DraftLine, len(p.Lines))}
	if p.Metadata != nil {
		draft.Metadata = *p.Metadata
	}
	for i, line := range p.Lines {
		draft.Lines[i] = order.DraftLine{SKU: line.Sku, Quantity: int64(line.Quantity), Expected: (*order.Money)(line.ExpectedUnitPrice), Product: l.products[p.item(i)]}
	}
	o, events, err := order.Place(rec.NewID(), draft, rec)
	if err != nil {
		return effect{}, err
	}
	change := &orderChange{owner: p.owner, order: o, events: events}
	if p.ShippingAddress != nil {
		if change.address, err = json.Marshal(p.ShippingAddress); err != nil {
			return effect{}, fmt.Errorf("encode address: %w", err)
		}
	}
	methodToken := ""
	if p.Payment != nil {
		methodToken = p.Payment.MethodToken
	}
	change.steps = newSteps(o, methodToken)
	advance(change, rec)
	return change.accepted()
}
