package command

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/cataloguedb"
	"github.com/ordergate/ordergate/order"
)

// PlaceOrder takes an order in: in one transaction on the primary it writes the order with its first event, its address, the
// saga's steps, the reservation command for inventory and the answer under the idempotency key. The answer is 202 and the
// pending order; a repetition gets the same. Refusals: CAT_003, CAT_004, CAT_005, ORD_003, ORD_004, ORD_005, ORD_008, IDEM_002,
// IDEM_003. Failures: SYS_002, SYS_003, RATE_003 (nothing changed), SYS_006 (it is not known).
func (c *Commands) PlaceOrder(ctx context.Context, r Envelope, body api.PlaceOrder) (Result, error) {
	return execute(ctx, c, r, body, c.placeOrders)
}

func (c *Commands) placeOrders(ctx context.Context, tx pgx.Tx, calls []*call[api.PlaceOrder], b *batch) error {
	type product struct {
		owner order.Owner
		sku   string
	}
	var want cataloguedb.GetProductsParams
	asked := map[product]*order.Product{}
	for _, call := range calls {
		for _, l := range call.command.Lines {
			p := product{call.Owner, l.Sku}
			if _, ok := asked[p]; !ok {
				asked[p] = nil
				want.Accounts, want.Modes, want.Skus = append(want.Accounts, p.owner.Account), append(want.Modes, p.owner.Mode), append(want.Skus, p.sku)
			}
		}
	}
	rows, err := cataloguedb.New(tx).GetProducts(ctx, want)
	if err != nil {
		return fmt.Errorf("read products: %w", err)
	}
	for _, row := range rows {
		p := &order.Product{Name: row.Name, Active: row.Active}
		if err = json.Unmarshal(row.Prices, &p.Prices); err != nil {
			return fmt.Errorf("prices of %s: %w", row.Sku, err)
		}
		asked[product{order.Owner{Account: row.Account, Mode: row.Mode}, row.Sku}] = p
	}
	for _, call := range calls {
		draft := order.Draft{
			Currency: call.command.Currency, CustomerRef: call.command.CustomerRef, WithPayment: call.command.Payment != nil,
			Lines: make([]order.DraftLine, len(call.command.Lines)),
		}
		if m := call.command.Metadata; m != nil {
			draft.Metadata = *m
		}
		for i, l := range call.command.Lines {
			draft.Lines[i] = order.DraftLine{SKU: l.Sku, Quantity: int64(l.Quantity), Expected: (*order.Money)(l.ExpectedUnitPrice), Product: asked[product{call.Owner, l.Sku}]}
		}
		rec := c.recorder(call.Envelope)
		o, events, err := order.Place(c.cfg.IDs.Mint(rec.Now, call.Owner.Account), draft, rec)
		if err != nil {
			call.err = err
			continue
		}
		ch := &change{owner: call.Owner, order: o, events: events}
		if a := call.command.ShippingAddress; a != nil {
			if ch.address, err = json.Marshal(a); err != nil {
				return fmt.Errorf("encode address: %w", err)
			}
		}
		var methodToken string
		if call.command.Payment != nil {
			methodToken = call.command.Payment.MethodToken
		}
		ch.steps = planned(o, methodToken)
		advance(ch, rec)
		call.change = ch
		b.add(ch)
	}
	return nil
}

// recorder stamps the events that a request causes.
func (c *Commands) recorder(r Envelope) order.Recorder {
	now := c.cfg.Now()
	return order.Recorder{
		NewID: func() order.ID { return c.cfg.IDs.Mint(now, r.Owner.Account) },
		Now:   now,
		Cause: order.Cause{TraceID: r.About.TraceID, Operation: r.Operation, Actor: r.Actor},
	}
}
