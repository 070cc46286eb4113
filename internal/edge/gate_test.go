package edge

import (
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	apierr "github.com/ordergate/ordergate/errors"
)

// closedSchema closes objects with unevaluatedProperties in every position that the contract may use: at the top, below a property, in
// an array's items, around allOf, around a $ref and in an alternative of oneOf.
const closedSchema = `{
	"$ref": "#/$defs/Order",
	"$defs": {
		"Order": {
			"type": "object", "unevaluatedProperties": false, "required": ["ref"],
			"properties": {
				"ref": {"type": "string", "pattern": "^[a-z]+$"},
				"lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}},
				"payment": {"oneOf": [{"$ref": "#/$defs/Card"}, {"type": "null"}]},
				"tags": {"type": "object", "maxProperties": 2, "propertyNames": {"maxLength": 3}, "additionalProperties": {"type": "string"}}
			}
		},
		"Line": {
			"allOf": [{"$ref": "#/$defs/Item"}, {"type": "object", "properties": {"note": {"type": "string"}}}],
			"unevaluatedProperties": false
		},
		"Item": {"type": "object", "required": ["sku"], "properties": {"sku": {"type": "string"}, "quantity": {"type": "integer", "minimum": 1}}},
		"Card": {"type": "object", "unevaluatedProperties": false, "properties": {"token": {"type": "string", "minLength": 2}}}
	}
}`

// An unknown field is rule additionalProperties at its own place, whatever keyword closes the object and however deep it lies. A known
// field is never called unknown because something else is wrong with it or beside it.
func TestUnknownFieldsOfClosedObjects(t *testing.T) {
	t.Parallel()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(closedSchema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err = c.AddResource("mem:///s", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("mem:///s")
	if err != nil {
		t.Fatal(err)
	}
	for body, want := range map[string]string{
		`{"ref":"a"}`:                     "",
		`{"ref":"a","x":1}`:               "REQ_004 /x:additionalProperties",
		`{"ref":"a","x":1,"y":{"z":[1]}}`: "REQ_004 /x:additionalProperties /y:additionalProperties",
		`{"ref":"a","Ref":"A"}`:           "REQ_004 /Ref:additionalProperties",
		`{"ref":"a","lines":[{"sku":"s","quantity":2,"note":"n"}]}`: "",
		`{"ref":"a","lines":[{"sku":"s"},{"sku":"s","x":1}]}`:       "REQ_004 /lines/1/x:additionalProperties",
		`{"ref":"a","payment":null}`:                                "",
		`{"ref":"a","x/y":1,"x~y":1}`:                               "REQ_004 /x~0y:additionalProperties /x~1y:additionalProperties",
		`{"ref":"a","x":1,"lines":[{"sku":"s","y":1}]}`:             "REQ_004 /lines/0/y:additionalProperties /x:additionalProperties",
		`{"ref":"A"}`:       "REQ_002 /ref:pattern",
		`{"x":1}`:           "REQ_002 /ref:required /x:additionalProperties",
		`{"ref":"A","x":1}`: "REQ_002 /ref:pattern /x:additionalProperties",
		`{"ref":"a","lines":[{"sku":"s","quantity":0,"note":"n"}]}`:     "REQ_002 /lines/0/quantity:minimum",
		`{"ref":"a","lines":[{"sku":"s","quantity":0,"x":1}]}`:          "REQ_002 /lines/0/quantity:minimum /lines/0/x:additionalProperties",
		`{"ref":"a","lines":[{"quantity":1,"note":"n"}]}`:               "REQ_002 /lines/0/sku:required",
		`{"ref":"a","lines":[{"sku":"s","note":1}]}`:                    "REQ_002 /lines/0/note:type",
		`{"ref":"a","lines":[[]]}`:                                      "REQ_002 /lines/0:type",
		`{"ref":"a","tags":{"a":"1","b":"2"}}`:                          "",
		`{"ref":"a","tags":{"a":1}}`:                                    "REQ_002 /tags/a:type",
		`{"ref":"a","tags":{"long":"1"}}`:                               "REQ_002 /tags/long:maxLength",
		`{"ref":"a","x":1,"tags":{"a":"1","b":"2","c":"3","long":"4"}}`: "REQ_002 /tags:maxProperties /tags/long:maxLength /x:additionalProperties",
	} {
		v, err := readJSON([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := validate(schema, v); err != nil {
			got = apierr.From(err).Error()
		}
		if got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", body, got, want)
		}
	}
}
