package command

import (
	"context"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/order"
)

// TestAPatchOfAnOrder: null removes, what is left out stays, objects are merged; the row, the event and the address agree with the answer,
// and no event has an address.
func TestAPatchOfAnOrder(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	var written []Committed
	b.cfg.WriteThrough = func(_ context.Context, states []Committed) { written = append(written, states...) }
	const hamburg = `"name":"Mei Lin","line1":"Hafenstrasse 12","city":"Hamburg","postal_code":"20457","country":"DE"`
	keys := []string{`"k0":null`}
	for i := range maxMetadata {
		keys = append(keys, `"m`+strconv.Itoa(i)+`":""`)
	}
	many := `{"metadata":{` + strings.Join(keys, ",") + `}}`
	for _, c := range []struct {
		name     string
		metadata map[string]string
		address  string // "" is none
		patch    string
		want     string // the refusal, or the metadata and the address afterwards
		event    string // "" is none
	}{
		{"nothing", map[string]string{"a": "1"}, hamburg, `{}`, `{"a":"1"} {` + hamburg + `}`, ""},
		{"the same", map[string]string{"a": "1"}, hamburg, `{"metadata":{"a":"1","b":null},"shipping_address":{"city":"Hamburg","phone":null}}`, `{"a":"1"} {` + hamburg + `}`, ""},
		{"none removed", nil, "", `{"metadata":null,"shipping_address":null}`, `{} null`, ""},
		{"a key set and one removed", map[string]string{"a": "1", "b": "2"}, "", `{"metadata":{"a":null,"c":"3"}}`, `{"b":"2","c":"3"} null`, `{"metadata":{"b":"2","c":"3"}}`},
		{"all keys removed", map[string]string{"a": "1"}, "", `{"metadata":null}`, `{} null`, `{"metadata":{}}`},
		{"a part of the address", nil, hamburg, `{"shipping_address":{"line2":"c/o Berger"}}`,
			`{} {"name":"Mei Lin","line1":"Hafenstrasse 12","line2":"c/o Berger","city":"Hamburg","postal_code":"20457","country":"DE"}`, `{"shipping_address_changed":true}`},
		{"a first address", nil, "", `{"shipping_address":{` + hamburg + `}}`, `{} {` + hamburg + `}`, `{"shipping_address_changed":true}`},
		{"the address removed", nil, hamburg, `{"shipping_address":null}`, `{} null`, `{"shipping_address_changed":true}`},
		{"both", nil, hamburg, `{"metadata":{"a":"1"},"shipping_address":null}`, `{"a":"1"} null`, `{"metadata":{"a":"1"},"shipping_address_changed":true}`},
		{"a part of an address that is not there", nil, "", `{"shipping_address":{"name":"n","line1":"l"}}`,
			"REQ_002 /shipping_address/city:required /shipping_address/country:required /shipping_address/postal_code:required", ""},
		{"an empty address where none is", nil, "", `{"shipping_address":{}}`, "REQ_002 /shipping_address/city:required /shipping_address/country:required " +
			"/shipping_address/line1:required /shipping_address/name:required /shipping_address/postal_code:required", ""},
		{"too many keys together", map[string]string{"k0": "", "k1": ""}, "", many, "REQ_002 /metadata:maxProperties", ""},
		{"as many keys as may be", map[string]string{"k0": ""}, "", many, "", `{"metadata":` + strings.Replace(strings.TrimSuffix(strings.TrimPrefix(many, `{"metadata":`), "}"), `"k0":null,`, "", 1) + `}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			place := b.place("A").(placeOrder)
			if c.metadata != nil {
				metadata := api.Metadata(c.metadata)
				place.Metadata = &metadata
			}
			if c.address != "" {
				if err := json.Unmarshal([]byte("{"+c.address+"}"), &place.ShippingAddress); err != nil {
					t.Fatal(err)
				}
			}
			placed := b.call("placeOrder", place)
			b.executeAll(placed)
			ref := order.Ref{Owner: alice, ID: placed.result.OrderID}
			written = nil
			patched := b.call("updateOrder", updateOrder{Envelope{IfMatch: placed.result.Body.ETag}, ref, api.MergePatch(c.patch)}, "")
			b.executeAll(patched)
			stored := b.order(ref)
			if strings.HasPrefix(c.want, "REQ_002") {
				if patched.err == nil || patched.err.Error() != c.want || stored.order.Version != 1 || stored.rev != 1 {
					t.Errorf("%v, version %d", patched.err, stored.order.Version)
				}
				return
			}
			if got(patched) != "200" {
				t.Fatal(got(patched), patched.err)
			}
			body, err := stored.body()
			if err != nil || body.ETag != patched.result.Body.ETag || string(body.Bytes) != string(patched.result.Body.Bytes) {
				t.Errorf("answered %s\nstored   %s, %v", patched.result.Body.Bytes, body.Bytes, err)
			}
			var a patchable
			if stored.address != nil {
				if err := json.Unmarshal(stored.address, &a.ShippingAddress); err != nil {
					t.Fatal(err)
				}
			}
			if got := string(encode(stored.order.Metadata)) + " "; c.want != "" && !strings.HasPrefix(c.want, got) {
				t.Error(got)
			} else if address := sameOrder(a.ShippingAddress); c.want != "" && got+address != c.want {
				t.Errorf("%s, want %s", got+address, c.want)
			}
			var events []string
			for _, e := range b.history(ref)[1:] {
				events = append(events, string(e.Payload))
			}
			if got := strings.Join(events, " "); !equalJSON(got, c.event) {
				t.Errorf("%s, want %s", got, c.event)
			}
			if changes := c.event != ""; (stored.order.Version == 2) != changes || (stored.rev == 2) != changes || (len(written) == 1) != changes {
				t.Errorf("version %d, revision %d, %d states written through", stored.order.Version, stored.rev, len(written))
			} else if changes && string(written[0].Body.Bytes) != string(body.Bytes) {
				t.Errorf("written through: %s", written[0].Body.Bytes)
			}
		})
	}
	if n := b.count("SELECT count(*) FROM order_events WHERE payload LIKE '%Hafen%' OR payload LIKE '%Berger%'"); n != 0 {
		t.Errorf("%d events have an address", n)
	}
	if n := b.count("SELECT count(*) FROM idempotency_keys WHERE operation = 'updateOrder'"); n != 0 {
		t.Errorf("%d keys of an operation that takes none", n)
	}
}

// sameOrder is an address in the order of the contract's properties.
func sameOrder(a *api.Address) string {
	if a == nil {
		return "null"
	}
	text := `{"name":"` + a.Name + `","line1":"` + a.Line1 + `"`
	if a.Line2 != nil {
		text += `,"line2":"` + *a.Line2 + `"`
	}
	return text + `,"city":"` + a.City + `","postal_code":"` + a.PostalCode + `","country":"` + a.Country + `"}`
}

func equalJSON(a, b string) bool {
	var x, y any
	return a == b || json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && reflect.DeepEqual(x, y)
}

// TestAStalePatchIsRefused, and one of no state, before what it asks for is looked at.
func TestAStalePatchIsRefused(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	ref := b.placed()
	body, err := b.order(ref).body()
	if err != nil {
		t.Fatal(err)
	}
	for ifMatch, want := range map[string]string{
		"": "REQ_011", `"1-0000000000000000"`: "REQ_010", "W/" + body.ETag: "REQ_010", `"other"`: "REQ_010", body.ETag: "REQ_002", `"other", ` + body.ETag: "REQ_002", "*": "REQ_002",
	} {
		c := b.call("updateOrder", updateOrder{Envelope{IfMatch: ifMatch}, ref, api.MergePatch(`{"shipping_address":{}}`)}, "")
		b.executeAll(c)
		if got(c) != want {
			t.Errorf("If-Match %s: %s, want %s", ifMatch, got(c), want)
		}
	}
	for _, nobody := range []order.Ref{{Owner: order.Owner{Account: 2, Mode: "test"}, ID: ref.ID}, {Owner: order.Owner{Account: 1, Mode: "live"}, ID: ref.ID}} {
		c := b.call("updateOrder", updateOrder{Envelope{}, nobody, api.MergePatch(`{}`)}, "")
		b.executeAll(c)
		if got(c) != "ORD_001" {
			t.Errorf("%+v: %s", nobody, got(c))
		}
	}
}

// TestThePatchedAddressIsWholeByTheContract: what check demands is what the contract does.
func TestThePatchedAddressIsWholeByTheContract(t *testing.T) {
	var contract struct {
		Components struct {
			Schemas struct {
				Address struct {
					Required []string `json:"required"`
				} `json:"Address"` //nolint:tagliatelle // OpenAPI's name
				Metadata struct {
					MaxProperties int `json:"maxProperties"` //nolint:tagliatelle // OpenAPI's name
				} `json:"Metadata"` //nolint:tagliatelle // OpenAPI's name
			} `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(api.OpenAPIJSON, &contract); err != nil {
		t.Fatal(err)
	}
	required := contract.Components.Schemas.Address.Required
	slices.Sort(required)
	want := "REQ_002 /shipping_address/" + strings.Join(required, ":required /shipping_address/") + ":required"
	if err := (patchable{ShippingAddress: &api.Address{}}).check(); err == nil || err.Error() != want {
		t.Error(err)
	}
	if n := contract.Components.Schemas.Metadata.MaxProperties; n != maxMetadata {
		t.Error(n)
	}
}
