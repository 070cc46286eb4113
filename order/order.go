// Package order is the domain: the order aggregate, its states and its events. It decides; it reads and writes nothing.
package order

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	jsonv2 "github.com/go-json-experiment/json"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/order/coupon"
)

// PaymentStatus is the state of an order's payment.
type PaymentStatus string

// The payment statuses.
const (
	PaymentStatusNone              PaymentStatus = "none"
	PaymentStatusAuthorized        PaymentStatus = "authorized"
	PaymentStatusPaid              PaymentStatus = "paid"
	PaymentStatusPartiallyRefunded PaymentStatus = "partially_refunded"
	PaymentStatusRefunded          PaymentStatus = "refunded"
	PaymentStatusFailed            PaymentStatus = "failed"
)

// MaxTotal is the greatest total of an order in minor units (ORD_008). At 10^11 a sum over a hundred lines stays far below
// 2^53, which every client can represent.
const MaxTotal = 100_000_000_000

// Money is an amount of minor units.
type Money struct {
	Amount   int64  `json:"amount"`
	Currency string `json:"currency"`
}

// Line is a product, its price when the order was placed, how many of it, and what a coupon takes off.
type Line struct {
	SKU       string `json:"sku"`
	Name      string `json:"name"`
	Quantity  int64  `json:"quantity"`
	UnitPrice Money  `json:"unit_price"`
	Discount  Money  `json:"discount"`
	Shipped   int64  `json:"shipped,omitempty"` // pieces that are on their way or have arrived
}

// Total of the line, before the discount.
func (l Line) Total() Money { return Money{l.Quantity * l.UnitPrice.Amount, l.UnitPrice.Currency} }

// ShortSKU is a sku of which less was available than requested.
type ShortSKU struct {
	SKU       string `json:"sku"`
	Requested int64  `json:"requested"`
	Available int64  `json:"available"`
}

// Rejection says why an order was rejected: a code of the registry and its extras.
type Rejection struct {
	Code          string     `json:"code"`
	SKUs          []ShortSKU `json:"skus"`
	DeclineReason Text       `json:"decline_reason"`
}

// Amounts are what an order costs: Total = Subtotal - Discount + Shipping + Tax.
type Amounts struct {
	Subtotal   Money `json:"subtotal"` // the sum of the lines' totals
	Discount   Money `json:"discount"` // the sum of the lines' discounts
	Shipping   Money `json:"shipping"`
	Tax        Money `json:"tax"`
	Total      Money `json:"total"`
	CouponCode Text  `json:"coupon_code"`
}

// Order is the aggregate's state: the fold of its events. The orders table stores its JSON.
type Order struct {
	ID                ID                `json:"-"`
	Version           int64             `json:"-"`
	HeadHash          []byte            `json:"-"`
	Status            Status            `json:"status"`
	PaymentStatus     PaymentStatus     `json:"payment_status"`
	FulfillmentStatus FulfillmentStatus `json:"fulfillment_status"`
	InTransit         int64             `json:"in_transit,omitempty"` // shipments that have not arrived
	Currency          string            `json:"currency"`
	CustomerRef       string            `json:"customer_ref"`
	Reference         Text              `json:"reference"`
	Lines             []Line            `json:"lines"`
	Amounts
	WithPayment          bool              `json:"with_payment"`
	Refunded             int64             `json:"refunded,omitempty"` // minor units
	Rejection            *Rejection        `json:"rejection,omitempty"`
	Failure              *Rejection        `json:"failure,omitempty"` // why it will be rejected once compensated
	ReservationExpiresAt *rfc3339.Time     `json:"reservation_expires_at,omitempty"`
	CancelRequestedAt    *rfc3339.Time     `json:"cancel_requested_at,omitempty"`
	Metadata             map[string]string `json:"metadata"`
	CreatedAt            rfc3339.Time      `json:"created_at"`
	UpdatedAt            rfc3339.Time      `json:"updated_at"`
}

// Draft is an order before it is placed: the client's lines with the products' present names and prices, and the coupon, which the caller
// fills in.
type Draft struct {
	Currency    string
	CustomerRef string
	Reference   string
	Lines       []DraftLine
	CouponCode  string
	Coupon      *coupon.Coupon // nil if there is no such coupon
	Uses        coupon.Uses    // of the coupon
	Shipping    *Money
	Tax         *Money
	WithPayment bool
	Metadata    map[string]string
}

// DraftLine is a line of a Draft. Product is nil if there is no such sku.
type DraftLine struct {
	SKU      string
	Quantity int64
	Expected *Money
	Product  *Product
}

// Product is the part of a product that an order needs.
type Product struct {
	Name   string
	Active bool
	Prices map[string]int64 // currency -> minor units
}

// Recorder stamps events: their ids, their instant and their cause are decided by the caller.
type Recorder struct {
	NewID func() ID
	Now   time.Time
	Cause Cause
}

// Event makes the event that follows the given version of a resource and its hash. Both are zero before the first one.
func (rec Recorder) Event(resource []byte, version int64, prevHash []byte, eventType string, schema int32, data any) Event {
	payload, err := json.Marshal(data)
	if err != nil {
		panic(fmt.Sprintf("order: %s cannot be encoded: %v", eventType, err)) // plain structs always can
	}
	e := Event{
		ID: rec.NewID(), Type: eventType, Version: version + 1, Schema: schema, Payload: payload,
		At: rec.Now.UTC().Truncate(time.Microsecond), Cause: rec.Cause, PrevHash: prevHash,
	}
	e.Hash = e.chain(resource)
	return e
}

// Place decides whether a draft becomes an order and returns it with its first event. Refusals: those of Price.
func Place(id ID, d Draft, rec Recorder) (*Order, []Event, error) {
	lines, amounts, err := d.Price(rec.Now)
	if err != nil {
		return nil, nil, err
	}
	o := &Order{ID: id}
	metadata := d.Metadata
	if metadata == nil {
		metadata = map[string]string{}
	}
	e := o.Record(rec, Created{
		Currency: d.Currency, CustomerRef: d.CustomerRef, Reference: Text(d.Reference), Lines: lines, Amounts: amounts,
		WithPayment: d.WithPayment, Metadata: metadata,
	})
	return o, []Event{e}, nil
}

// Price returns the lines and what they cost at an instant. A discount is rounded down to the minor unit and spread over the lines by
// largest remainder. Refusals: ORD_003 the same sku twice, ORD_005 an amount in another currency, CAT_005 unknown sku, CAT_003 inactive,
// CAT_004 no price in the currency, ORD_004 another price than expected, CPN_001 no such coupon, CPN_002, CPN_003, CPN_004 those of the
// coupon, ORD_008 subtotal or total above MaxTotal.
func (d Draft) Price(now time.Time) ([]Line, Amounts, error) {
	if err := d.check(); err != nil {
		return nil, Amounts{}, err
	}
	a := Amounts{CouponCode: Text(d.CouponCode)}
	for _, m := range []*Money{&a.Subtotal, &a.Discount, &a.Shipping, &a.Tax, &a.Total} {
		m.Currency = d.Currency
	}
	lines := make([]Line, len(d.Lines))
	var refused *apierr.Error
	for i, l := range d.Lines {
		line, err := l.price(i, d.Currency)
		if refused = withFaults(refused, err); refused != nil {
			continue
		}
		if line.UnitPrice.Amount > MaxTotal/l.Quantity || a.Subtotal.Amount+line.Total().Amount > MaxTotal {
			return nil, Amounts{}, apierr.E(errcode.ORD008, apierr.At(fmt.Sprintf("/lines/%d/quantity", i), errcode.RuleTotal))
		}
		a.Subtotal.Amount += line.Total().Amount
		lines[i] = line
	}
	if refused != nil {
		return nil, Amounts{}, refused
	}
	if err := d.discount(now, lines, &a.Discount); err != nil {
		return nil, Amounts{}, err
	}
	a.Total.Amount = a.Subtotal.Amount - a.Discount.Amount
	for _, added := range []struct {
		given *Money
		to    *Money
		at    string
	}{{d.Shipping, &a.Shipping, "/shipping/amount"}, {d.Tax, &a.Tax, "/tax/amount"}} {
		if added.given == nil {
			continue
		}
		*added.to = *added.given
		if added.given.Amount > MaxTotal-a.Total.Amount {
			return nil, Amounts{}, apierr.E(errcode.ORD008, apierr.At(added.at, errcode.RuleTotal))
		}
		a.Total.Amount += added.given.Amount
	}
	return lines, a, nil
}

// withFaults adds the faults of another refusal with the same code, so that a client sees all of them at once. The first code stands.
func withFaults(refused, next *apierr.Error) *apierr.Error {
	switch {
	case refused == nil:
		return next
	case next != nil && next.Code == refused.Code:
		refused.Faults = append(refused.Faults, next.Faults...)
	}
	return refused
}

// check refuses skus that stand there twice, and amounts in another currency.
func (d Draft) check() error {
	seen := make(map[string]bool, len(d.Lines))
	var refused *apierr.Error
	currency := func(m *Money, at string) {
		if m != nil && m.Currency != d.Currency {
			refused = withFaults(refused, apierr.E(errcode.ORD005, apierr.At(at+"/currency", errcode.RuleCurrency)))
		}
	}
	for i, l := range d.Lines {
		at := fmt.Sprintf("/lines/%d", i)
		if seen[l.SKU] {
			refused = withFaults(refused, apierr.E(errcode.ORD003, apierr.At(at+"/sku", errcode.RuleUnique)))
		}
		seen[l.SKU] = true
		currency(l.Expected, at+"/expected_unit_price")
	}
	currency(d.Shipping, "/shipping")
	currency(d.Tax, "/tax")
	if refused == nil {
		return nil
	}
	return refused
}

// price is the line at the product's present price.
func (l DraftLine) price(i int, currency string) (Line, *apierr.Error) {
	at := fmt.Sprintf("/lines/%d", i)
	if l.Product == nil {
		return Line{}, apierr.E(errcode.CAT005, apierr.At(at+"/sku", errcode.RuleExists))
	}
	if !l.Product.Active {
		return Line{}, apierr.E(errcode.CAT003, apierr.At(at+"/sku", errcode.RuleActive))
	}
	price, ok := l.Product.Prices[currency]
	if !ok {
		return Line{}, apierr.E(errcode.CAT004, apierr.At(at+"/sku", errcode.RuleAvailable))
	}
	if l.Expected != nil && l.Expected.Amount != price { // of several such lines the extras name the first
		return Line{}, apierr.E(errcode.ORD004, apierr.At(at+"/expected_unit_price", errcode.RulePrice),
			apierr.Extra("sku", l.SKU), apierr.Extra("expected", *l.Expected), apierr.Extra("actual", Money{price, currency}))
	}
	return Line{SKU: l.SKU, Name: l.Product.Name, Quantity: l.Quantity, UnitPrice: Money{price, currency}, Discount: Money{Currency: currency}}, nil
}

// discount applies the coupon to the lines and adds what it takes off.
func (d Draft) discount(now time.Time, lines []Line, total *Money) error {
	if d.CouponCode == "" {
		return nil
	}
	if d.Coupon == nil {
		return apierr.E(errcode.CPN001, apierr.At("/coupon_code", errcode.RuleCoupon))
	}
	b := coupon.Basket{Now: now, Currency: d.Currency, CustomerRef: d.CustomerRef, Lines: make([]int64, len(lines))}
	for i, l := range lines {
		b.Lines[i] = l.Total().Amount
	}
	off, err := coupon.Apply(*d.Coupon, b, d.Uses)
	if refusal, ok := errors.AsType[*apierr.Error](err); ok {
		return apierr.E(refusal.Code, apierr.At("/coupon_code", errcode.RuleCoupon))
	} else if err != nil {
		return err
	}
	for i := range lines {
		lines[i].Discount.Amount = off[i]
		total.Amount += off[i]
	}
	return nil
}

// Decided tells whether the saga has reached the state that a waiting client waits for: a final one, confirmed, or reserved if the
// order has no payment.
func (o *Order) Decided() bool {
	return o.Status.Final() || o.Status == StatusConfirmed || o.Status == StatusReserved && !o.WithPayment
}

// Record makes the next event of the order and applies it.
func (o *Order) Record(rec Recorder, d Data) Event {
	e := rec.Event(o.ID[:], o.Version, o.HeadHash, d.eventType(), schemaVersion(d.eventType()), d)
	o.apply(e, d)
	return e
}

// Restore rebuilds an order from its row: the JSON of its state and the columns beside it.
func Restore(id ID, version int64, headHash, state []byte) (*Order, error) {
	o := &Order{}
	if err := jsonv2.Unmarshal(state, o); err != nil {
		return nil, fmt.Errorf("state of %s: %w", id.Format(PrefixOrder), err)
	}
	o.ID, o.Version, o.HeadHash = id, version, headHash
	return o, nil
}

// Fold rebuilds an order from its events, oldest first, up to the first state that until accepts; nil: to the last. It fails on an
// unknown type or a gap.
func Fold(id ID, events []Event, until func(*Order) bool) (*Order, error) {
	o := &Order{ID: id}
	for _, e := range events {
		if err := o.Apply(e); err != nil {
			return nil, err
		}
		if until != nil && until(o) {
			break
		}
	}
	return o, nil
}

// Apply moves the order on by its next event. It fails on an unknown type or a gap.
func (o *Order) Apply(e Event) error {
	if e.Version != o.Version+1 {
		return fmt.Errorf("version %d follows %d", e.Version, o.Version)
	}
	d, err := e.data()
	if err != nil {
		return err
	}
	o.apply(e, d)
	return nil
}

func (o *Order) apply(e Event, d Data) {
	at := rfc3339.New(e.At)
	d.apply(o, at)
	o.Version, o.HeadHash, o.UpdatedAt = e.Version, e.Hash, at
}
