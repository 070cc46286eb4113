// Package bodies makes request bodies of a contract: good ones of its schemas and examples, and of those, for each place of a body, one with
// each kind of fault that its schema refuses. It is for tests.
package bodies

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Schema is what the contract says of a request's body, or of a part of it. A keyword that is not here is an error of Read: its
// faults would be sent to nobody.
type Schema struct {
	Ref                   string             `json:"$ref"`
	Type                  oneOrMore          `json:"type"`
	Properties            map[string]*Schema `json:"properties"`
	Required              []string           `json:"required"`
	UnevaluatedProperties *bool              `json:"unevaluatedProperties"` //nolint:tagliatelle // JSON Schema's name
	AdditionalProperties  *Schema            `json:"additionalProperties"`  //nolint:tagliatelle // JSON Schema's name
	PropertyNames         *Schema            `json:"propertyNames"`         //nolint:tagliatelle // JSON Schema's name
	MaxProperties         *int               `json:"maxProperties"`         //nolint:tagliatelle // JSON Schema's name
	Items                 *Schema            `json:"items"`
	MinItems              *int               `json:"minItems"`  //nolint:tagliatelle // JSON Schema's name
	MaxItems              *int               `json:"maxItems"`  //nolint:tagliatelle // JSON Schema's name
	MinLength             *int               `json:"minLength"` //nolint:tagliatelle // JSON Schema's name
	MaxLength             *int               `json:"maxLength"` //nolint:tagliatelle // JSON Schema's name
	Pattern               string             `json:"pattern"`
	Enum                  []any              `json:"enum"`
	Minimum               *int64             `json:"minimum"`
	Maximum               *int64             `json:"maximum"`
	Not                   *struct {
		Const any `json:"const"`
	} `json:"not"`
	Format string `json:"format"`

	Description any   `json:"description"`
	Examples    []any `json:"examples"`
	Default     any   `json:"default"`
	Title       any   `json:"title"`
}

// oneOrMore is a word or a list of them.
type oneOrMore []string

// UnmarshalJSON implements json.Unmarshaler.
func (o *oneOrMore) UnmarshalJSON(b []byte) error {
	if b[0] == '[' {
		return json.Unmarshal(b, (*[]string)(o))
	}
	*o = []string{""}
	return json.Unmarshal(b, &(*o)[0])
}

// Is tells whether values of a type ("string", "null") are taken.
func (s *Schema) Is(kind string) bool { return slices.Contains(s.Type, kind) }

// FreeText tells whether clients write in it what they like.
func (s *Schema) FreeText() bool { return s.Is("string") && s.Pattern == "" && s.Enum == nil }

// Read gives the schemas of all request bodies of a bundled contract, by operationId, with their references resolved.
func Read(bundle []byte) (map[string]*Schema, error) {
	var doc struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
		openAPIParts
	}
	if err := json.Unmarshal(bundle, &doc); err != nil {
		return nil, fmt.Errorf("contract: %w", err)
	}
	all := map[string]*Schema{}
	for _, item := range doc.Paths {
		for method, text := range item {
			var op struct {
				OperationID string `json:"operationId"` //nolint:tagliatelle // OpenAPI's name
				RequestBody *struct {
					Required bool `json:"required"`
					Content  map[string]struct {
						Schema json.RawMessage `json:"schema"`
					} `json:"content"`
				} `json:"requestBody"` //nolint:tagliatelle // OpenAPI's name
			}
			if err := json.Unmarshal(text, &op); err != nil || op.RequestBody == nil || method == "parameters" {
				continue // what belongs to the whole path
			}
			for _, content := range op.RequestBody.Content {
				s, err := doc.schema(content.Schema)
				if err != nil {
					return nil, fmt.Errorf("contract: body of %s: %w", op.OperationID, err)
				}
				if all[op.OperationID] = s; !op.RequestBody.Required {
					s.Type = append(s.Type, "null") // it is no body
				}
			}
		}
	}
	return all, nil
}

// openAPIParts are the shared parts of a bundle.
type openAPIParts struct {
	Components struct {
		Schemas map[string]json.RawMessage `json:"schemas"`
	} `json:"components"`
}

// schema reads a schema, with its references resolved.
func (parts *openAPIParts) schema(text json.RawMessage) (*Schema, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	s := &Schema{}
	if err := d.Decode(s); err != nil {
		return nil, fmt.Errorf("%w in %s", err, text)
	}
	return parts.resolve(s)
}

func (parts *openAPIParts) resolve(s *Schema) (_ *Schema, err error) {
	if s == nil {
		return nil, nil
	}
	if name, referred := strings.CutPrefix(s.Ref, "#/components/schemas/"); referred {
		if beside := *s; beside.Ref != "" {
			if beside.Ref, beside.Description = "", nil; !reflect.DeepEqual(beside, Schema{}) {
				return nil, fmt.Errorf("%s has keywords beside it, which would be dropped", s.Ref)
			}
		}
		return parts.schema(parts.Components.Schemas[name])
	}
	for name, p := range s.Properties {
		if s.Properties[name], err = parts.resolve(p); err != nil {
			return nil, err
		}
	}
	if s.Items, err = parts.resolve(s.Items); err == nil {
		s.AdditionalProperties, err = parts.resolve(s.AdditionalProperties)
	}
	return s, err
}

// Spot is a place in a request body: the way to it, its schema, and whether it must be there.
type Spot struct {
	*Schema
	Path     []string
	Required bool
}

// Pointer is the JSON pointer of the spot.
func (s Spot) Pointer() string { return pointer(s.Path) }

// Spots walks a schema. Of a list it has the first element, of a map the key k.
func (s *Schema) Spots() []Spot { return s.spots(nil, false) }

func (s *Schema) spots(path []string, required bool) []Spot {
	all := []Spot{{s, path, required}}
	for _, name := range sorted(s.Properties) {
		all = append(all, s.Properties[name].spots(append(slices.Clone(path), name), slices.Contains(s.Required, name))...)
	}
	if s.Items != nil {
		all = append(all, s.Items.spots(append(slices.Clone(path), "0"), true)...)
	}
	if s.AdditionalProperties != nil {
		all = append(all, s.AdditionalProperties.spots(append(slices.Clone(path), "k"), false)...)
	}
	return all
}

// pointer is a path as a JSON pointer.
func pointer(path []string) string {
	var p jsontext.Pointer
	for _, name := range path {
		p = p.AppendToken(name)
	}
	return string(p)
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
