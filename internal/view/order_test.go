package view

import (
	"strings"
	"testing"
	"time"

	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/order"
)

// A stored body without its address is, to the byte and with its ETag, the body of the order without an address. Whatever else is in it stays.
func TestWithoutAddress(t *testing.T) {
	at := rfc3339.New(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
	o := &order.Order{
		ID: order.ID{1}, Version: 12, Status: order.StatusCompleted, Currency: "EUR", CustomerRef: `"shipping_address":{`, CreatedAt: at, UpdatedAt: at,
		Metadata: map[string]string{"shipping_address": "it stays", "a": `{"shipping_address":{"name":"x"}}`},
	}
	address := `{"name":"Mei \"梅\" }{ \\","line1":"<Hafenstrasse> 12","city":"Hamburg","postal_code":"20457","country":"DE","phone":"+49 40 1"}`
	with, err := OrderBody(o, []byte(address))
	if err != nil || !strings.Contains(string(with.Bytes), "Mei") {
		t.Fatal(err, string(with.Bytes))
	}
	want, err := OrderBody(o, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, had, err := WithoutAddress(with)
	if err != nil || !had || string(got.Bytes) != string(want.Bytes) || got.ETag != want.ETag || got.ETag == with.ETag {
		t.Errorf("%v %v\n%s%s\n%s%s", had, err, got.Bytes, got.ETag, want.Bytes, want.ETag)
	}
	again, had, err := WithoutAddress(got)
	if err != nil || had || string(again.Bytes) != string(got.Bytes) || again.ETag != got.ETag {
		t.Errorf("again: %v %v %s", had, err, again.Bytes)
	}
	other := Raw([]byte(`{"id":"pay_1","failure":{"shipping_address":{"name":"of no order"}}}`))
	if same, had, err := WithoutAddress(other); err != nil || had || string(same.Bytes) != string(other.Bytes) || same.ETag != other.ETag {
		t.Errorf("of another resource: %v %v %s", had, err, same.Bytes)
	}
	for _, torn := range []string{"", "[]", "null", `{"id":`, string(with.Bytes[:len(with.Bytes)/2])} {
		if _, had, err := WithoutAddress(Body{Bytes: []byte(torn)}); err == nil || had {
			t.Errorf("%q was read", torn)
		}
	}
}
