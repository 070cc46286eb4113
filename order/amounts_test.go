package order

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"time"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/order/coupon"
)

// draftWith is a draft with a coupon of the rules, if there are any, of two lines of 3 x 33.33 and 1 x 0.05.
func draftWith(t *testing.T, rules string, change func(*Draft)) Draft {
	t.Helper()
	pen := lamp()
	pen.Prices = map[string]int64{"EUR": 5}
	wide := lamp()
	wide.Prices = map[string]int64{"EUR": 3333}
	d := Draft{Currency: "EUR", CustomerRef: "c", Lines: []DraftLine{{SKU: "LAMP", Quantity: 3, Product: wide}, {SKU: "PEN", Quantity: 1, Product: pen}}}
	if rules != "" {
		c := coupon.Restore("CODE", true, []byte(rules))
		d.CouponCode, d.Coupon = "CODE", &c
	}
	if change != nil {
		change(&d)
	}
	return d
}

// Total = subtotal - discount + shipping + tax. The discount is rounded down and stands in the lines.
func TestAmountsOfAnOrder(t *testing.T) {
	eur := func(n int64) *Money { return &Money{n, "EUR"} }
	for _, c := range []struct {
		name  string
		draft Draft
		want  [5]int64 // subtotal, discount, shipping, tax, total
		lines [2]int64 // discounts
	}{
		{"nothing off, nothing added", draftWith(t, "", nil), [5]int64{10004, 0, 0, 0, 10004}, [2]int64{}},
		{"shipping and tax are added", draftWith(t, "", func(d *Draft) { d.Shipping, d.Tax = eur(490), eur(1) }), [5]int64{10004, 0, 490, 1, 10495}, [2]int64{}},
		{"a tenth, rounded down", draftWith(t, `{"percentage": 10}`, nil), [5]int64{10004, 1000, 0, 0, 9004}, [2]int64{1000, 0}},
		{"nothing but shipping is left", draftWith(t, `{"percentage": 100}`, func(d *Draft) { d.Shipping = eur(490) }), [5]int64{10004, 10004, 490, 0, 490}, [2]int64{9999, 5}},
		{"the greatest total", draftWith(t, "", func(d *Draft) { d.Tax = eur(MaxTotal - 10004) }), [5]int64{10004, 0, 0, MaxTotal - 10004, MaxTotal}, [2]int64{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, _, err := Place(ids.Mint(noon, 7), c.draft, recorder())
			if err != nil {
				t.Fatal(err)
			}
			got := [5]int64{o.Subtotal.Amount, o.Discount.Amount, o.Shipping.Amount, o.Tax.Amount, o.Total.Amount}
			if got != c.want || o.Lines[0].Discount != (Money{c.lines[0], "EUR"}) || o.Lines[1].Discount != (Money{c.lines[1], "EUR"}) || o.Tax.Currency != "EUR" {
				t.Errorf("%v, lines %+v", got, o.Lines)
			}
		})
	}
	for _, c := range []struct {
		name    string
		draft   Draft
		code    errcode.Code
		pointer string
	}{
		{"shipping in another currency", draftWith(t, "", func(d *Draft) { d.Shipping = &Money{1, "CNY"} }), errcode.ORD005, "/shipping/currency"},
		{"tax in another currency", draftWith(t, "", func(d *Draft) { d.Tax = &Money{1, "CNY"} }), errcode.ORD005, "/tax/currency"},
		{"shipping above the limit", draftWith(t, "", func(d *Draft) { d.Shipping = eur(MaxTotal) }), errcode.ORD008, "/shipping/amount"},
		{"tax that would overflow", draftWith(t, "", func(d *Draft) { d.Tax = eur(1<<63 - 1) }), errcode.ORD008, "/tax/amount"},
		{"no such coupon", draftWith(t, "", func(d *Draft) { d.CouponCode = "NONE" }), errcode.CPN001, "/coupon_code"},
		{"a disabled coupon", draftWith(t, `{"percentage": 10}`, func(d *Draft) { d.Coupon.Active = false }), errcode.CPN002, "/coupon_code"},
		{"a coupon used up", draftWith(t, `{"percentage": 10, "total": 5}`, func(d *Draft) { d.Uses.Total = 5 }), errcode.CPN003, "/coupon_code"},
		{"a coupon in another currency", draftWith(t, `{"fixed": {"amount": 5, "currency": "CNY"}}`, nil), errcode.CPN004, "/coupon_code"},
	} {
		t.Run(c.name+" is refused with "+string(c.code), func(t *testing.T) {
			_, _, err := Place(ids.Mint(noon, 7), c.draft, recorder())
			e, ok := errors.AsType[*apierr.Error](err)
			if !ok || e.Code != c.code || len(e.Faults) != 1 || e.Faults[0].Pointer != c.pointer {
				t.Errorf("got %v", err)
			}
		})
	}
}

// An event that was stored before orders had discounts is read in its present form, and its chain is valid: the stored bytes are not
// touched.
func TestStoredOldEventsAreReadInTheirPresentForm(t *testing.T) {
	id, _ := Parse(PrefixOrder, "ord_0198f3c2a4b57d3e8c1f2a3b4c5d6e7f")
	eventID, _ := Parse(PrefixEvent, "evt_0198f3c2a4b57d3e8c1f2a3b4c5d6e80")
	hash, _ := hex.DecodeString("eb986696ffb3ed659f2d8f3e5902d2fa8eef99d37931a86b22da48a7a3145583")
	e := Event{
		ID: eventID, Type: "order.created", Version: 1, Schema: 1, At: time.Date(2026, 11, 23, 6, 0, 0, 0, time.UTC),
		Payload: []byte(`{"currency":"EUR","customer_ref":"customer-42","lines":[{"sku":"LAMP-0001","name":"Desk lamp Aurora","quantity":2,` +
			`"unit_price":{"amount":3999,"currency":"EUR"}}],"total":{"amount":7998,"currency":"EUR"},"with_payment":true,"metadata":{"channel":"web"}}`),
		Cause: Cause{TraceID: "checkout-7c9e6679", Operation: "placeOrder", Actor: "key_0198f3c2a4b57d3e8c1f2a3b4c5d6e81"}, Hash: hash,
	}
	if err := Verify(id, []Event{e}); err != nil {
		t.Error(err, hex.EncodeToString(e.chain(id[:])))
	}
	o, err := Fold(id, []Event{e}, nil)
	if err != nil {
		t.Fatal(err)
	}
	eur := func(n int64) Money { return Money{n, "EUR"} }
	if o.Amounts != (Amounts{eur(7998), eur(0), eur(0), eur(0), eur(7998), ""}) || o.Lines[0].Discount != eur(0) || o.Reference != "" || o.CustomerRef != "customer-42" {
		t.Errorf("%+v", o)
	}
	payload, schema, err := e.Current()
	const want = `{"currency":"EUR","customer_ref":"customer-42","reference":null,"lines":[{"sku":"LAMP-0001","name":"Desk lamp Aurora","quantity":2,` +
		`"unit_price":{"amount":3999,"currency":"EUR"},"discount":{"amount":0,"currency":"EUR"}}],"subtotal":{"amount":7998,"currency":"EUR"},` +
		`"discount":{"amount":0,"currency":"EUR"},"shipping":{"amount":0,"currency":"EUR"},"tax":{"amount":0,"currency":"EUR"},` +
		`"total":{"amount":7998,"currency":"EUR"},"coupon_code":null,"with_payment":true,"metadata":{"channel":"web"}}`
	var got, present any
	if err := errors.Join(err, json.Unmarshal(payload, &got), json.Unmarshal([]byte(want), &present)); err != nil || schema != 2 || !reflect.DeepEqual(got, present) {
		t.Errorf("%s %d %v", payload, schema, err)
	}
	for schema, why := range map[int32]string{0: "no version", 3: "a version of a later program", -1: "rubbish"} {
		e.Schema = schema
		if _, err := Fold(id, []Event{e}, nil); err == nil {
			t.Error(why, "is taken")
		}
	}
	e.Schema = 1
	for _, other := range []string{`[]`, `null`, `{}`, `{"lines":[1]}`} {
		e.Payload = []byte(other)
		if _, err := Fold(id, []Event{e}, nil); err == nil {
			t.Error("a payload of another form is taken:", other)
		}
	}
}

// A payment that was captured before order.paid named it is not known.
func TestAStoredOldPaymentHasNoID(t *testing.T) {
	e := Event{Type: "order.paid", Version: 3, Schema: 1, Payload: []byte(`{"amount":{"amount":7998,"currency":"EUR"}}`)}
	payload, schema, err := e.Current()
	if string(payload) != `{"amount":{"amount":7998,"currency":"EUR"},"payment_id":null}` || schema != 2 || err != nil {
		t.Errorf("%s %d %v", payload, schema, err)
	}
}
