package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// schema has the keywords that are checked, and those that say nothing of a value. Every other is an error.
type schema struct {
	Ref                   string             `json:"$ref"`
	Type                  oneOrMore          `json:"type"`
	Properties            map[string]*schema `json:"properties"`
	Required              []string           `json:"required"`
	UnevaluatedProperties *bool              `json:"unevaluatedProperties"` //nolint:tagliatelle // JSON Schema's name
	AdditionalProperties  *schema            `json:"additionalProperties"`  //nolint:tagliatelle // JSON Schema's name
	PropertyNames         *schema            `json:"propertyNames"`         //nolint:tagliatelle // JSON Schema's name
	MaxProperties         *int               `json:"maxProperties"`         //nolint:tagliatelle // JSON Schema's name
	Items                 *schema            `json:"items"`
	MinItems              *int               `json:"minItems"`  //nolint:tagliatelle // JSON Schema's name
	MaxItems              *int               `json:"maxItems"`  //nolint:tagliatelle // JSON Schema's name
	MinLength             *int               `json:"minLength"` //nolint:tagliatelle // JSON Schema's name
	MaxLength             *int               `json:"maxLength"` //nolint:tagliatelle // JSON Schema's name
	Pattern               string             `json:"pattern"`
	Enum                  []any              `json:"enum"`
	Format                string             `json:"format"`
	Minimum               *int64             `json:"minimum"`
	Maximum               *int64             `json:"maximum"`
	Not                   *struct {
		Const *int64 `json:"const"`
	} `json:"not"`

	Title       any `json:"title"`
	Description any `json:"description"`
	Examples    any `json:"examples"`
	Default     any `json:"default"`
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

// program is what the template writes.
type program struct {
	Package   string
	Texts     []demand
	Integers  []demand
	Functions []function
	Bodies    []body

	Times bool // a type of package rfc3339 is named

	types     models
	schemas   map[string]json.RawMessage
	functions map[string]string // the places of those that are written or being written, by name
}

// demand is a variable: what the contract demands of a string or an integer at one place or, if it has a name there, at many.
type demand struct{ Name, Place, Value string }

// function reads a schema's object or array.
type function struct {
	Name, Place string
	Into        string // the type of its destination; empty: it has none
	Made        bool   // which is a map or a slice
	Array       bool
	Null        bool
	Members     []member // of an object
	Required    []string
	Closed      bool
	Names       string // the demand on names of the client's own
	Item        *value // of an array, or the values under names of the client's own
	Least, Most int    // items or members
}

// member is a property: its number is its place among all, with those first that are required.
type member struct {
	Name string
	value
}

// value is how a value is read and where it goes.
type value struct {
	Function string // that reads it
	Into     string // the type of the function's destination; empty: it has none
	Demand   string // or what is demanded of it: the argument of Text, Integer or Boolean
	Method   string
	To       field // that it is stored in; empty: it is not
	Time     bool
	Null     bool
}

// body is the body of an operation.
type body struct{ Operation, Function, Into string }

// read finds the bodies of all operations, and reads their schemas.
func (p *program) read(contract []byte) error {
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"` //nolint:tagliatelle // OpenAPI's name
			RequestBody *struct {
				Content map[string]struct {
					Schema json.RawMessage `json:"schema"`
				} `json:"content"`
			} `json:"requestBody"` //nolint:tagliatelle // OpenAPI's name
		} `json:"paths"`
		Components struct {
			Schemas map[string]json.RawMessage `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(contract, &doc); err != nil {
		return err
	}
	p.schemas = doc.Components.Schemas
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(doc.Paths[path])) {
			op := doc.Paths[path][method]
			if op.RequestBody == nil {
				continue
			}
			if len(op.RequestBody.Content) != 1 {
				return fmt.Errorf("the body of %s has %d media types instead of one", op.OperationID, len(op.RequestBody.Content))
			}
			for mediaType, content := range op.RequestBody.Content {
				b, err := p.body(op.OperationID, content.Schema)
				if err == nil && b.Into == "" && mediaType != "application/merge-patch+json" {
					err = errors.New("its schema has no Go type, and is no merge patch")
				}
				if err != nil {
					return fmt.Errorf("the body of %s: %w", op.OperationID, err)
				}
				p.Bodies = append(p.Bodies, b)
			}
		}
	}
	return nil
}

func (p *program) body(operation string, text json.RawMessage) (b body, err error) {
	s, err := parse(text)
	if err != nil {
		return b, err
	}
	name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/")
	if !ok {
		return b, errors.New("its schema must be one of components/schemas")
	}
	v, err := p.value(name, s, field{})
	if err == nil && v.Function == "" {
		err = errors.New("its schema must be an object or an array")
	}
	return body{operation, v.Function, v.Into}, err
}

// parse reads one schema. The error names the first keyword that is not known.
func parse(text json.RawMessage) (*schema, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	s := &schema{}
	if err := d.Decode(s); err != nil {
		return nil, fmt.Errorf("a keyword that internal/bodygen does not check: %w", err)
	}
	return s, nil
}

// value plans how the value at a place is read. The destination is a field, or a bare type.
func (p *program) value(place string, s *schema, to field) (v value, err error) {
	v.Into = to.Type
	if name, referred := strings.CutPrefix(s.Ref, "#/components/schemas/"); referred {
		if place, s, err = p.resolve(name, s); err != nil {
			return v, err
		}
		if v.Into = ""; p.types.types[name] != nil {
			v.Into = name
		}
	} else if s.Ref != "" {
		return v, fmt.Errorf("schema %s: %s leads nowhere", place, s.Ref)
	}
	v.To = to
	kinds := slices.DeleteFunc(slices.Clone(s.Type), func(kind string) bool { return kind == "null" })
	if len(kinds) != 1 {
		return v, fmt.Errorf("schema %s: internal/bodygen reads one type, and null beside it, instead of %v", place, s.Type)
	}
	null := len(s.Type) > 1
	v.Null = null
	if err = s.only(kinds[0]); err != nil {
		return v, fmt.Errorf("schema %s: %w", place, err)
	}
	switch kinds[0] {
	case "object", "array":
		v.Function = "read" + camel(place, true)
		err = p.function(place, s, null, v.Function, v.Into)
	case "string":
		v.Method, v.Demand, v.Time = "Text", p.text(place, s, null), s.Format == "date-time"
	case "integer":
		v.Method = "Integer"
		v.Demand, err = p.integer(place, s, null)
	case "boolean":
		v.Method, v.Demand = "Boolean", nullable(null)
	default:
		err = fmt.Errorf("schema %s: internal/bodygen does not read type %s", place, kinds[0])
	}
	return v, err
}

// resolve follows a reference. The schema's own name is the place.
func (p *program) resolve(name string, s *schema) (string, *schema, error) {
	beside := *s
	beside.Ref, beside.Description, beside.Examples = "", nil, nil
	if fmt.Sprint(beside) != fmt.Sprint(schema{}) {
		return "", nil, fmt.Errorf("schema %s: keywords beside $ref are not checked by internal/bodygen", name)
	}
	text, there := p.schemas[name]
	if !there {
		return "", nil, fmt.Errorf("schema %s: there is none", name)
	}
	target, err := parse(text)
	if err != nil {
		err = fmt.Errorf("schema %s: %w", name, err)
	}
	return name, target, err
}

// only refuses keywords that say nothing of values of the type: they stand there by mistake, and would not be checked.
func (s *schema) only(kind string) error {
	for keyword, of := range map[string]struct {
		kind  string
		given bool
	}{
		"properties": {"object", s.Properties != nil}, "required": {"object", s.Required != nil}, "unevaluatedProperties": {"object", s.UnevaluatedProperties != nil},
		"additionalProperties": {"object", s.AdditionalProperties != nil}, "propertyNames": {"object", s.PropertyNames != nil}, "maxProperties": {"object", s.MaxProperties != nil},
		"items": {"array", s.Items != nil}, "minItems": {"array", s.MinItems != nil}, "maxItems": {"array", s.MaxItems != nil},
		"minLength": {"string", s.MinLength != nil}, "maxLength": {"string", s.MaxLength != nil}, "pattern": {"string", s.Pattern != ""}, "enum": {"string", s.Enum != nil},
		"minimum": {"integer", s.Minimum != nil}, "maximum": {"integer", s.Maximum != nil}, "not": {"integer", s.Not != nil},
		"format " + s.Format: {map[string]string{"int32": "integer", "int64": "integer", "date-time": "string"}[s.Format], s.Format != ""},
	} {
		if of.given && of.kind != kind {
			return fmt.Errorf("%s of a value of type %s is not checked by internal/bodygen", keyword, kind)
		}
	}
	if slices.ContainsFunc(s.Enum, func(v any) bool { _, text := v.(string); return !text }) {
		return errors.New("an enumeration of anything but strings is not checked by internal/bodygen")
	}
	bounds := []*int{s.MaxLength, s.MaxItems, s.MaxProperties}
	if slices.ContainsFunc(bounds, func(n *int) bool { return n != nil && *n == 0 }) {
		return errors.New("a bound of 0 means none to internal/check")
	}
	return nil
}

// function writes the function of an object or array, once.
func (p *program) function(place string, s *schema, null bool, name, into string) (err error) {
	if other, written := p.functions[name]; written && other != place {
		return fmt.Errorf("schema %s: its function would have the name of that of %s", place, other)
	} else if written {
		return nil
	}
	p.functions[name] = place
	f := function{Name: name, Place: place, Into: into, Null: null, Array: slices.Contains(s.Type, "array"), Most: number(s.MaxItems) + number(s.MaxProperties), Least: number(s.MinItems)}
	f.Made = p.types.made(into)
	p.Times = p.Times || strings.Contains(into, "rfc3339.")
	switch {
	case f.Array:
		if s.Items == nil {
			return fmt.Errorf("schema %s: its items have no schema", place)
		}
		err = p.item(&f, place+".item", s.Items, p.types.item(into))
	case s.AdditionalProperties != nil:
		if s.Properties != nil || s.Required != nil || s.UnevaluatedProperties != nil {
			return fmt.Errorf("schema %s: internal/bodygen reads either properties or additionalProperties", place)
		}
		if s.PropertyNames != nil {
			if s.PropertyNames.Ref != "" || len(s.PropertyNames.Type) != 1 || s.PropertyNames.Type[0] != "string" || s.PropertyNames.only("string") != nil {
				return fmt.Errorf("schema %s: propertyNames must be of type string", place)
			}
			f.Names = p.text(place+".names", s.PropertyNames, false)
		}
		err = p.item(&f, place+".value", s.AdditionalProperties, p.types.item(into))
		if err == nil && f.Item.Function != "" {
			err = fmt.Errorf("schema %s: internal/bodygen reads no objects and arrays under names of the client's own", place)
		}
	default:
		if s.PropertyNames != nil {
			return fmt.Errorf("schema %s: propertyNames without additionalProperties is not checked by internal/bodygen", place)
		}
		err = p.members(&f, place, s)
	}
	p.Functions = append(p.Functions, f)
	return err
}

func (p *program) item(f *function, place string, s *schema, goType string) error {
	if f.Into == "" {
		goType = ""
	}
	v, err := p.value(place, s, field{Type: goType})
	if f.Item = &v; err == nil && v.Null && goType != "" {
		err = fmt.Errorf("schema %s: internal/bodygen stores no null in a list or under a name of the client's own", place)
	}
	return err
}

// members plans the properties of an object, with those first that are required: their numbers are the bits that Required looks at.
func (p *program) members(f *function, place string, s *schema) error {
	f.Closed = s.UnevaluatedProperties != nil && !*s.UnevaluatedProperties
	f.Required = slices.Sorted(slices.Values(s.Required))
	names := slices.Clone(f.Required)
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) > 64 {
		return fmt.Errorf("schema %s: internal/check counts 64 properties", place)
	}
	fields := p.types.fields(f.Into)
	for _, name := range names {
		property := s.Properties[name]
		if property == nil {
			return fmt.Errorf("schema %s: %s is required and no property", place, name)
		}
		to, there := fields[name]
		if f.Into != "" && !there {
			return fmt.Errorf("schema %s: the Go type %s has no field for %s", place, f.Into, name)
		}
		v, err := p.value(place+"."+name, property, to)
		if err != nil {
			return err
		}
		f.Members = append(f.Members, member{name, v})
	}
	return nil
}

// text is the variable with what is demanded of a string.
func (p *program) text(place string, s *schema, null bool) string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if null {
		add("Null: true")
	}
	if s.Enum != nil {
		values := make([]string, len(s.Enum))
		for i, v := range s.Enum {
			values[i] = fmt.Sprint(v)
		}
		add("Enum: %#v", values)
	}
	if s.Format == "date-time" {
		add("DateTime: true")
	}
	if s.MinLength != nil {
		add("MinLength: %d", *s.MinLength)
	}
	if s.MaxLength != nil {
		add("MaxLength: %d", *s.MaxLength)
	}
	if s.Pattern != "" {
		add("Pattern: check.MustPattern(%s)", strconv.Quote(s.Pattern))
	}
	return p.demand(&p.Texts, demand{camel(place, false) + "Text", place, strings.Join(parts, ", ")})
}

// maxInteger is the greatest integer that every client can read, 2^53-1.
const maxInteger = 1<<53 - 1

// integer is the variable with what is demanded of an integer. It has bounds, within which its Go type can hold it.
func (p *program) integer(place string, s *schema, null bool) (string, error) {
	most := int64(maxInteger)
	if s.Format == "int32" {
		most = 1<<31 - 1
	}
	if s.Minimum == nil || s.Maximum == nil || *s.Minimum < -most || *s.Maximum > most {
		return "", fmt.Errorf("schema %s: an integer needs minimum and maximum, of which neither is beyond %d", place, most)
	}
	value := fmt.Sprintf("Min: %d, Max: %d", *s.Minimum, *s.Maximum)
	if null {
		value = "Null: true, " + value
	}
	if s.Not != nil {
		if s.Not.Const == nil {
			return "", fmt.Errorf("schema %s: internal/bodygen knows not with const only", place)
		}
		value += fmt.Sprintf(", Not: new(int64(%d))", *s.Not.Const)
	}
	return p.demand(&p.Integers, demand{camel(place, false) + "Integer", place, value}), nil
}

func (p *program) demand(all *[]demand, d demand) string {
	if !slices.Contains(*all, d) {
		*all = append(*all, d)
	}
	return "&" + d.Name
}

func nullable(null bool) string {
	if null {
		return "check.OrNull"
	}
	return "check.NotNull"
}

func number(n *int) int {
	if n == nil {
		return 0
	}
	return *n
}

// camel makes one Go name of a place: ShipOrder.tracking.url is shipOrderTrackingURL without the care for initials, shipOrderTrackingUrl.
func camel(place string, exported bool) string {
	var b strings.Builder
	for i, word := range strings.FieldsFunc(place, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
		if i > 0 || exported {
			b.WriteString(strings.ToUpper(word[:1]) + word[1:])
		} else {
			b.WriteString(strings.ToLower(word[:1]) + word[1:])
		}
	}
	return b.String()
}
