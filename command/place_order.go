package command

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/ordergate/ordergate/command/coupons"
	"github.com/ordergate/ordergate/command/inventory"
	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/order"
)

// PlaceOrder takes an order in: in one transaction on the primary it writes the order with its first event, its address, the
// saga's steps, the reservation command for inventory and the result under the idempotency key. The result is 202 and the
// pending order; a repetition gets the same. It counts a use of the coupon, and keeps the reference. It locks the reference, and the coupon
// if that has a limit. Refusals: CAT_003, CAT_004, CAT_005, CPN_001, CPN_002, CPN_003, CPN_004, ORD_003, ORD_004, ORD_005, ORD_008,
// ORD_011, IDEM_002, IDEM_003; INV_002, which is not stored under the key, if more is asked for than a sold-out mark has left. Failures:
// SYS_002, SYS_003, RATE_003 (nothing changed), SYS_006 (the outcome is not known).
func (c *Commands) PlaceOrder(ctx context.Context, e Envelope, body api.PlaceOrder) (Result, error) {
	return c.execute(ctx, e, body, placeOrder{e.Owner, body})
}

type placeOrder struct {
	owner order.Owner
	api.PlaceOrder
}

func (p placeOrder) item(i int) order.Item { return order.Item{Owner: p.owner, SKU: p.Lines[i].Sku} }

// coupon is nil if the order names none.
func (p placeOrder) coupon() []coupons.Item {
	if p.CouponCode == nil {
		return nil
	}
	return []coupons.Item{{Owner: p.owner, Code: *p.CouponCode, CustomerRef: p.CustomerRef}}
}

// number is nil if the order has none.
func (p placeOrder) number() []number {
	if p.Reference == nil {
		return nil
	}
	return []number{{p.owner, *p.Reference}}
}

func (p placeOrder) needs() needs {
	n := needs{
		pieces: make([]inventory.Line, len(p.Lines)), products: make([]order.Item, len(p.Lines)), coupons: p.coupon(), numbers: p.number(),
	}
	for i, l := range p.Lines {
		n.pieces[i], n.products[i] = inventory.Line{SKU: l.Sku, Quantity: int64(l.Quantity)}, p.item(i)
	}
	return n
}

func (p placeOrder) decide(l *loaded, rec order.Recorder) (effect, error) {
	for _, n := range p.number() {
		if other := l.numbers[n]; !other.IsZero() {
			return effect{}, apierr.E(errcode.ORD011, apierr.At("/reference", errcode.RuleTaken), apierr.Extra("order_id", other.Format(order.PrefixOrder)))
		}
	}
	o, events, err := order.Place(rec.NewID(), p.draft(l), rec)
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
	placed, err := change.accepted()
	if err != nil {
		return effect{}, err
	}
	for _, n := range p.number() { // the next call of the batch sees it
		l.numbers[n] = o.ID
	}
	for _, c := range p.coupon() {
		l.coupons[c].Use()
	}
	return placed, nil
}

// draft is the request with the products and the coupon that were read.
func (p placeOrder) draft(l *loaded) order.Draft {
	d := order.Draft{
		Currency: p.Currency, CustomerRef: p.CustomerRef, WithPayment: p.Payment != nil, Lines: make([]order.DraftLine, len(p.Lines)),
		Shipping: (*order.Money)(p.Shipping), Tax: (*order.Money)(p.Tax),
	}
	if p.Metadata != nil {
		d.Metadata = *p.Metadata
	}
	if p.Reference != nil {
		d.Reference = *p.Reference
	}
	for _, item := range p.coupon() {
		d.CouponCode = item.Code
		if c := l.coupons[item]; c != nil {
			d.Coupon, d.Uses = &c.Coupon, c.Uses()
		}
	}
	for i, line := range p.Lines {
		d.Lines[i] = order.DraftLine{SKU: line.Sku, Quantity: int64(line.Quantity), Expected: (*order.Money)(line.ExpectedUnitPrice), Product: l.products[p.item(i)]}
	}
	return d
}
