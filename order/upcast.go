package order

import (
	"encoding/json"
	"errors"
	"fmt"

	jsonv2 "github.com/go-json-experiment/json"
)

// upcasters has, for a type whose payload has changed its form, a function for each older schema version, the first one first: it turns
// a payload of that version into the next one's. Stored events are never rewritten: their hashes cover the stored bytes.
var upcasters = map[string][]func(payload []byte) ([]byte, error){
	"order.created": {createdV1},
	"order.paid":    {paidV1},
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

// paidV1 adds the payment, which is not known.
func paidV1(payload []byte) ([]byte, error) {
	var d map[string]any
	if err := jsonv2.Unmarshal(payload, &d); err != nil {
		return nil, err
	}
	d["payment_id"] = nil
	return json.Marshal(d)
}

// createdV1 adds what orders had none of: a reference, discounts, shipping and tax. It knows the first two forms and no later one, so that
// it stays as it is when the payload changes again.
func createdV1(payload []byte) ([]byte, error) {
	var d map[string]any
	if err := jsonv2.Unmarshal(payload, &d); err != nil {
		return nil, err
	}
	lines, ok := d["lines"].([]any)
	if !ok {
		return nil, errors.New("it has no lines")
	}
	none := map[string]any{"amount": 0, "currency": d["currency"]}
	for _, l := range lines {
		line, ok := l.(map[string]any)
		if !ok {
			return nil, errors.New("a line is no object")
		}
		line["discount"] = none
	}
	d["reference"], d["coupon_code"] = nil, nil
	d["subtotal"], d["discount"], d["shipping"], d["tax"] = d["total"], none, none, none
	return json.Marshal(d)
}
