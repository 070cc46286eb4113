// Package order is the domain: the order aggregate, its states and its events. It decides; it reads and writes nothing.
package order

import (
	"encoding/json"
	"fmt"
	"time"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/rfc3339"
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

// Line is a product, its price when the order was placed, and how many of it.
type Line struct {
	SKU       string `json:"sku"`
	Name      string `json:"name"`
	Quantity  int64  `json:"quantity"`
	UnitPrice Money  `json:"unit_price"`
}

// Total of the line.
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

// Order is the aggregate's state: the fold of its events. The orders table stores its JSON.
type Order struct {
	ID                   ID                `json:"-"`
	Version              int64             `json:"-"`
	HeadHash             []byte            `json:"-"`
	Status               Status            `json:"status"`
	PaymentStatus        PaymentStatus     `json:"payment_status"`
	Currency             string            `json:"currency"`
	CustomerRef          string            `json:"customer_ref"`
	Lines                []Line            `json:"lines"`
	Total                Money             `json:"total"`
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

// Draft is an order before it is placed: the client's lines with the products' present names and prices, which the caller fills in.
type Draft struct {
	Currency    string
	CustomerRef string
	Lines       []DraftLine
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

// Place decides whether a request becomes an order and returns it with its first event. Refusals: ORD_003 the same sku twice,
// ORD_005 an expected price in another currency, CAT_005 unknown sku, CAT_003 inactive, CAT_004 no price in the currency,
// ORD_004 another price than expected, ORD_008 total above MaxTotal.
func Place(id ID, d Draft, rec Recorder) (*Order, []Event, error) {
	lines := make([]Line, 0, len(d.Lines))
	seen := make(map[string]bool, len(d.Lines))
	var total int64
	for i, l := range d.Lines {
		at := fmt.Sprintf("/lines/%d", i)
		if seen[l.SKU] {
			return nil, nil, apierr.E(errcode.ORD003, apierr.At(at+"/sku", errcode.RuleUnique))
		}
		seen[l.SKU] = true
		if l.Expected != nil && l.Expected.Currency != d.Currency {
			return nil, nil, apierr.E(errcode.ORD005, apierr.At(at+"/expected_unit_price/currency", errcode.RuleCurrency))
		}
	}
	for i, l := range d.Lines {
		at := fmt.Sprintf("/lines/%d", i)
		if l.Product == nil {
			return nil, nil, apierr.E(errcode.CAT005, apierr.At(at+"/sku", errcode.RuleExists))
		}
		if !l.Product.Active {
			return nil, nil, apierr.E(errcode.CAT003, apierr.At(at+"/sku", errcode.RuleActive))
		}
		price, ok := l.Product.Prices[d.Currency]
		if !ok {
			return nil, nil, apierr.E(errcode.CAT004, apierr.At(at+"/sku", errcode.RuleAvailable))
		}
		if l.Expected != nil && l.Expected.Amount != price {
			return nil, nil, apierr.E(errcode.ORD004, apierr.At(at+"/expected_unit_price", errcode.RulePrice),
				apierr.Extra("sku", l.SKU), apierr.Extra("expected", *l.Expected), apierr.Extra("actual", Money{price, d.Currency}))
		}
		if price > MaxTotal/l.Quantity || total+price*l.Quantity > MaxTotal {
			return nil, nil, apierr.E(errcode.ORD008, apierr.At(at+"/quantity", errcode.RuleTotal))
		}
		total += price * l.Quantity
		lines = append(lines, Line{SKU: l.SKU, Name: l.Product.Name, Quantity: l.Quantity, UnitPrice: Money{price, d.Currency}})
	}
	o := &Order{ID: id}
	metadata := d.Metadata
	if metadata == nil {
		metadata = map[string]string{}
	}
	e := o.Record(rec, Created{
		Currency: d.Currency, CustomerRef: d.CustomerRef, Lines: lines, Total: Money{total, d.Currency},
		WithPayment: d.WithPayment, Metadata: metadata,
	})
	return o, []Event{e}, nil
}

// Decided tells whether the saga has reached the state that a waiting client waits for: a final one, confirmed, or reserved if the
// order has no payment.
func (o *Order) Decided() bool {
	return o.Status.Final() || o.Status == StatusConfirmed || o.Status == StatusReserved && !o.WithPayment
}

// Record makes the next event of the order and applies it.
func (o *Order) Record(rec Recorder, d Data) Event {
	e := rec.Event(o.ID[:], o.Version, o.HeadHash, d.eventType(), SchemaVersion, d)
	o.apply(e, d)
	return e
}

// Restore rebuilds an order from its row: the JSON of its state and the columns beside it.
func Restore(id ID, version int64, headHash, state []byte) (*Order, error) {
	o := &Order{}
	if err := json.Unmarshal(state, o); err != nil {
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
