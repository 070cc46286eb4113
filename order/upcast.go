package order

import (
	"encoding/json"
	"fmt"
)

// upcasters has, for a type whose payload has changed its form, a function for each older schema version, the first one first: it turns
// a payload of that version into the next one's. Stored events are never rewritten: their hashes cover the stored bytes.
var upcasters = map[string][]func(payload []byte) ([]byte, error){
	"order.created": {createdV1},
}

// schemaVersion is the version that events of the type are written with.
func schemaVersion(eventType string) int32 { return int32(len(upcasters[eventType])) + 1 }

// Current is the payload in its present form, with the version of that. The error is a version that this program does not know, or a
// payload that is not of its version.
func (e Event) Current() (payload []byte, schema int32, err error) {
	payload, schema = e.Payload, e.Schema
	older := upcasters[e.Type]
	if schema < 1 || int(schema) > len(older)+1 {
		return nil, 0, fmt.Errorf("version %d: %s of unknown schema version %d", e.Version, e.Type, schema)
	}
	for ; int(schema) <= len(older); schema++ {
		if payload, err = older[schema-1](payload); err != nil {
			return nil, 0, fmt.Errorf("version %d: %s of schema version %d: %w", e.Version, e.Type, schema, err)
		}
	}
	return payload, schema, nil
}

// createdV1 adds what orders had none of: a reference, discounts, shipping and tax.
func createdV1(payload []byte) ([]byte, error) {
	var d Created
	if err := json.Unmarshal(payload, &d); err != nil {
		return nil, err
	}
	none := Money{Currency: d.Currency}
	for i := range d.Lines {
		d.Lines[i].Discount = none
	}
	d.Amounts = Amounts{Subtotal: d.Total, Discount: none, Shipping: none, Tax: none, Total: d.Total}
	return json.Marshal(d)
}
