// Package view renders the domain for clients: finished bodies of the contract's types with their ETag. The command side stores them
// under keys and writes them through to Redis, the query side caches and serves them. Equal states give equal bytes.
package view

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/order"
)

// Body is a response body that is sent as it is, with its ETag.
type Body struct {
	Bytes []byte
	ETag  string
}

// Finish encodes a value and gives it its ETag: "version-hash", or the hash alone if version is 0.
func Finish(value any, version int64) (Body, error) {
	b, err := json.Marshal(value)
	if err != nil {
		return Body{}, fmt.Errorf("encode body: %w", err)
	}
	body := Raw(append(b, '\n'))
	if version > 0 {
		body.ETag = `"` + strconv.FormatInt(version, 10) + "-" + body.ETag[1:]
	}
	return body, nil
}

// Raw is a body that is encoded already. Its ETag is the hash of its bytes.
func Raw(b []byte) Body {
	sum := sha256.Sum256(b)
	return Body{Bytes: b, ETag: `"` + hex.EncodeToString(sum[:8]) + `"`}
}

// Prices are prices as a client sees them, in the order of their currencies.
func Prices(byCurrency map[string]int64) []api.Money {
	prices := make([]api.Money, 0, len(byCurrency))
	for _, currency := range slices.Sorted(maps.Keys(byCurrency)) {
		prices = append(prices, api.Money{Amount: byCurrency[currency], Currency: currency})
	}
	return prices
}

// Order is the order as a client sees it. address is the JSON of its shipping address, nil if it has none. A rejection has the texts of
// its code's `rejection` in the registry.
func Order(o *order.Order, address []byte) (api.Order, error) {
	a := api.Order{
		ID: o.ID.Format(order.PrefixOrder), Status: api.OrderStatus(o.Status), PaymentStatus: api.PaymentStatus(o.PaymentStatus),
		FulfillmentStatus: api.FulfillmentStatus(o.FulfillmentStatus), Version: o.Version, Currency: o.Currency, CustomerRef: o.CustomerRef,
		Reference: text(string(o.Reference)), Lines: make([]api.OrderLine, len(o.Lines)), Subtotal: api.Money(o.Subtotal), Discount: api.Money(o.Discount),
		Shipping: api.Money(o.Shipping), Tax: api.Money(o.Tax), Total: api.Money(o.Total),
		CouponCode: text(string(o.CouponCode)), ReservationExpiresAt: o.ReservationExpiresAt,
		CancelRequestedAt: o.CancelRequestedAt, Metadata: api.Metadata(o.Metadata), CreatedAt: o.CreatedAt, UpdatedAt: o.UpdatedAt,
	}
	for i, l := range o.Lines {
		a.Lines[i] = api.OrderLine{
			Sku: l.SKU, Name: l.Name, Quantity: int32(l.Quantity), UnitPrice: api.Money(l.UnitPrice), Total: api.Money(l.Total()),
			Discount: api.Money(l.Discount),
		}
	}
	if r := o.Rejection; r != nil {
		info, _ := errcode.Lookup(errcode.Code(r.Code))
		a.Rejection = &api.Rejection{Code: api.RejectionCode(r.Code), Title: info.Title, Message: info.EN, Detail: info.Rejection}
		if r.DeclineReason != "" {
			a.Rejection.DeclineReason = (*string)(&r.DeclineReason)
		}
		for _, s := range r.SKUs {
			a.Rejection.Skus = append(a.Rejection.Skus, api.ShortSKU{Sku: s.SKU, Requested: s.Requested, Available: s.Available})
		}
	}
	if len(address) > 0 {
		a.ShippingAddress = new(api.OrderAddress)
		if err := json.Unmarshal(address, a.ShippingAddress); err != nil {
			return a, fmt.Errorf("address of %s: %w", a.ID, err)
		}
	}
	return a, nil
}

// OrderBody is the finished body of an order. Its ETag has the order's version, not its row's rev, so that a body rebuilt from events is
// the same to the byte.
func OrderBody(o *order.Order, address []byte) (Body, error) {
	a, err := Order(o, address)
	if err != nil {
		return Body{}, err
	}
	return Finish(a, o.Version)
}

// WithoutAddress is a stored body with null as its shipping address and the ETag of that; had is false if it has no address, and b is
// returned. All other bytes stay as they are: a body that an earlier version stored is not rendered anew. The error is a body that is no
// JSON object.
func WithoutAddress(b Body) (without Body, had bool, err error) {
	d := json.NewDecoder(bytes.NewReader(b.Bytes))
	if begin, err := d.Token(); err != nil || begin != json.Delim('{') {
		return b, false, fmt.Errorf("the body is no JSON object: %w", err)
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return b, false, fmt.Errorf("read body: %w", err)
		}
		var value json.RawMessage
		if err = d.Decode(&value); err != nil {
			return b, false, fmt.Errorf("read body: %w", err)
		}
		if name == "shipping_address" && string(value) != "null" {
			end := int(d.InputOffset())
			without = Raw(slices.Concat(b.Bytes[:end-len(value)], []byte("null"), b.Bytes[end:]))
			if version, _, ok := strings.Cut(b.ETag, "-"); ok {
				without.ETag = version + "-" + without.ETag[1:]
			}
			return without, true, nil
		}
	}
	return b, false, nil
}
