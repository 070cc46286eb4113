package contracttest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Schema is what the contract says of a request's body, or of a part of it. A keyword that is not here is an error of RequestBodies: its
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

// RequestBodies are the schemas of all request bodies of a bundled contract, by operationId, with their references resolved.
func RequestBodies(bundle []byte) (map[string]*Schema, error) {
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
func (s Spot) Pointer() string { return below("", s.Path...) }

// Spots walks a schema. Of a list it has the first element, of a map the key k.
func (s *Schema) Spots() []Spot { return s.spots(nil, false) }

func (s *Schema) spots(path []string, required bool) []Spot {
	all := []Spot{{s, path, required}}
	for _, name := range sortedKeys(s.Properties) {
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

// Sample is a value that the schema takes, with all properties: those of an example, and of the schema what that has not.
func (s *Schema) Sample(example any) any {
	switch {
	case s.Is("object"):
		given, _ := example.(map[string]any)
		o := map[string]any{}
		for name, p := range s.Properties {
			o[name] = p.Sample(given[name])
		}
		if s.AdditionalProperties != nil {
			o["k"] = s.AdditionalProperties.Sample(nil)
		}
		return o
	case s.Is("array"):
		given, _ := example.([]any)
		return []any{s.Items.Sample(append(given, nil)[0])}
	case example != nil:
		return example
	case len(s.Examples) > 0:
		return s.Examples[0]
	case len(s.Enum) > 0:
		return s.Enum[0]
	case s.Is("boolean"):
		return true
	case s.Is("integer"):
		return json.Number(strconv.FormatInt(max(*s.Minimum, 1), 10))
	}
	return "x1"
}

// Literal stands in a body for text that json.Marshal would not write.
type Literal string

// Absent is the value that With leaves out.
var Absent any = struct{}{}

// With is a copy of a body with another value at a path, or without one if the value is Absent. A part that is missing on the way is
// sampled.
func (s *Schema) With(body any, path []string, value any) any {
	if len(path) == 0 {
		return value
	}
	if list, ok := body.([]any); ok {
		list = slices.Clone(list)
		at, _ := strconv.Atoi(path[0])
		list[at] = s.Items.With(list[at], path[1:], value)
		return list
	}
	object, ok := body.(map[string]any)
	if !ok {
		object, _ = s.Sample(nil).(map[string]any)
	}
	object = maps.Clone(object)
	if len(path) == 1 && value == Absent {
		delete(object, path[0])
		return object
	}
	under := s.Properties[path[0]]
	if under == nil {
		under = cmp.Or(s.AdditionalProperties, &Schema{})
	}
	present, there := object[path[0]]
	if !there && len(path) > 1 {
		present = under.Sample(nil)
	}
	object[path[0]] = under.With(present, path[1:], value)
	return object
}

// At is the value at a path of a body, and whether it is there.
func At(body any, path ...string) (any, bool) {
	for _, name := range path {
		switch b := body.(type) {
		case map[string]any:
			value, there := b[name]
			if body = value; !there {
				return nil, false
			}
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i >= len(b) {
				return nil, false
			}
			body = b[i]
		default:
			return nil, false
		}
	}
	return body, true
}

// Write is the text of a body, which may have Literals.
func Write(body any) string {
	var literals []string
	var mark func(v any) any
	mark = func(v any) any {
		switch v := v.(type) {
		case Literal:
			literals = append(literals, string(v))
			return fmt.Sprintf("\uE000%d", len(literals)-1)
		case map[string]any:
			o := map[string]any{}
			for name, value := range v {
				o[name] = mark(value)
			}
			return o
		case []any:
			list := make([]any, len(v))
			for i := range v {
				list[i] = mark(v[i])
			}
			return list
		}
		return v
	}
	text := encode(mark(body))
	for i, l := range literals {
		text = bytes.Replace(text, fmt.Appendf(nil, "\"\uE000%d\"", i), []byte(l), 1)
	}
	return string(text)
}

// wrongValue is a value that breaks a schema at a place below it.
type wrongValue struct {
	name  string
	at    []string // below the spot
	value any
	code  string
}

// wrongValues are one value of each kind that the schema of a spot refuses.
func (s Spot) wrongValues(body any) (all []wrongValue) {
	refuse := func(code, name string, value any, below ...string) {
		all = append(all, wrongValue{name, below, value, code})
	}
	for _, kind := range []string{"array", "boolean", "integer", "null", "number", "object", "string"} {
		value := map[string]any{
			"string": "x", "boolean": false, "object": map[string]any{}, "array": []any{}, "integer": json.Number("1"), "number": json.Number("1.5"), "null": nil,
		}[kind]
		if !s.Is(kind) {
			refuse("REQ_002", "a wrong type: "+kind, value)
		}
	}
	if s.Required && s.Path[len(s.Path)-1] != "0" {
		refuse("REQ_002", "nothing", Absent)
	}
	text := func(n int) string { return strings.Repeat("🏮", n) }
	if s.MinLength != nil {
		refuse("REQ_002", "too short", text(*s.MinLength-1))
	}
	if s.MaxLength != nil {
		refuse("REQ_002", "too long", text(*s.MaxLength+1))
	}
	if s.Pattern != "" {
		for _, wrong := range []string{"", " ", "x\n", text(300), "\u202ex", "%00", "'; DROP ORDERS; --"} {
			refuse("REQ_002", fmt.Sprintf("no match: %q", wrong), wrong)
		}
	}
	if s.Enum != nil {
		refuse("REQ_002", "none of the enumeration", "none of these")
	}
	if s.Is("string") {
		for _, wrong := range refusedTexts {
			refuse("REQ_001", "a text that is none: "+strconv.Quote(wrong), Literal(wrong))
		}
	}
	if s.Minimum != nil {
		refuse("REQ_002", "too small", json.Number(strconv.FormatInt(*s.Minimum-1, 10)))
		refuse("REQ_002", "far too small", json.Number("-9223372036854775809"))
	}
	if s.Maximum != nil {
		refuse("REQ_002", "too great", json.Number(strconv.FormatInt(*s.Maximum+1, 10)))
		refuse("REQ_002", "2^63", json.Number("9223372036854775808"))
		refuse("REQ_002", "1e300", json.Number("1e300"))
		refuse("REQ_001", "1e400", Literal("1e400"))
	}
	if s.Not != nil {
		refuse("REQ_002", "what it is not", s.Not.Const)
	}
	list := func(n int) any {
		present, _ := At(body, s.Path...)
		entries, _ := present.([]any)
		return slices.Repeat(entries[:1], n)
	}
	if s.MinItems != nil {
		refuse("REQ_002", "too few", list(*s.MinItems-1))
	}
	if s.MaxItems != nil {
		refuse("REQ_002", "too many", list(*s.MaxItems+1))
	}
	if s.MaxProperties != nil {
		many := map[string]any{}
		for i := range *s.MaxProperties + 1 {
			many[fmt.Sprint("k", i)] = "v"
		}
		refuse("REQ_002", "too many", many)
	}
	if s.PropertyNames != nil {
		for _, name := range []string{"", "a b", "\u202e", strings.Repeat("k", 41), "🏮"} {
			refuse("REQ_002", "a wrong name: "+name, "v", name)
		}
	}
	if s.UnevaluatedProperties != nil && !*s.UnevaluatedProperties {
		for _, name := range []string{"unknown", "Unknown~1/x", "ünknown", "__proto__"} {
			refuse("REQ_004", "an unknown field: "+name, 1, name)
		}
	}
	return all
}

// refusedTexts are JSON strings that stand for no text that can be stored, or are not in UTF-8.
var refusedTexts = []string{
	`"a\u0000b"`, `"\ud800"`, `"\udc00x"`, `"\udc00\ud800"`, `"\ud800\ud800"`, "\"\xff\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", "\"a\nb\"", `"\x"`, `"\u12"`,
}

// WrongBody is a request body with one fault.
type WrongBody struct {
	Name    string // what is wrong
	Text    string
	Code    string // that refuses it
	Pointer string // that all its `errors` have
}

// WrongBodies are bodies with one fault each, made from a good one: of each place every kind of value that the schema does not take, an
// unknown field, and JSON that is none. A property that is new in the contract is covered by its schema.
func (s *Schema) WrongBodies(good any) (all []WrongBody) {
	for _, spot := range s.Spots() {
		for _, f := range spot.wrongValues(good) {
			path := append(slices.Clone(spot.Path), f.at...)
			all = append(all, WrongBody{f.name, Write(s.With(good, path, f.value)), f.code, below("", path...)})
		}
	}
	text := Write(good)
	all = append(
		all,
		WrongBody{"cut off", text[:len(text)-1], "REQ_001", ""},
		WrongBody{"two documents", text + text, "REQ_001", ""},
		WrongBody{"no JSON", "<xml/>", "REQ_001", ""},
		WrongBody{"deep", strings.Repeat(`{"x":`, 40) + "1" + strings.Repeat("}", 40), "REQ_001", strings.Repeat("/x", 32)},
		WrongBody{"a name with NUL", strings.Replace(text, "{", `{"a\u0000":1,`, 1), "REQ_001", "/a\x00"},
	)
	object, _ := good.(map[string]any)
	for _, name := range sortedKeys(object) {
		all = append(all, WrongBody{"a name twice", strings.Replace(text, "{", `{"`+name+`":null,`, 1), "REQ_001", below("", name)})
	}
	return all
}

// BoundaryBodies are bodies with one value each that lies on a bound of its schema, which takes it.
func (s *Schema) BoundaryBodies(good any) (all []WrongBody) {
	for _, spot := range s.Spots() {
		add := func(name string, value any) {
			all = append(all, WrongBody{name, Write(s.With(good, spot.Path, value)), "", spot.Pointer()})
		}
		text := func(n int) string { return strings.Repeat("🏮", n) }
		if spot.MinLength != nil && spot.Pattern == "" {
			add("the shortest", text(*spot.MinLength))
		}
		if spot.MaxLength != nil && spot.Pattern == "" {
			add("the longest", text(*spot.MaxLength))
		}
		if spot.MaxLength != nil && spot.Pattern != "" { // longer than an example, until the pattern takes no more
			example, _ := spot.Sample(nil).(string)
			longest := example + strings.Repeat("x", max(*spot.MaxLength-len(example), 0))
			if fits, err := regexp.MatchString(spot.Pattern, longest); err == nil && fits {
				add("the longest", longest)
			}
		}
		if spot.Minimum != nil {
			add("the least", json.Number(strconv.FormatInt(*spot.Minimum, 10)))
		}
		if spot.Maximum != nil {
			add("the greatest", json.Number(strconv.FormatInt(*spot.Maximum, 10)))
		}
		for _, value := range spot.Enum {
			add("of the enumeration", value)
		}
		if spot.Is("null") {
			add("null", nil)
		}
		if spot.Is("boolean") {
			add("false", false)
			add("true", true)
		}
		if !spot.Required && len(spot.Path) > 0 {
			add("nothing", Absent)
		}
		if spot.MaxProperties != nil || spot.PropertyNames != nil {
			most := 20
			if spot.MaxProperties != nil {
				most = *spot.MaxProperties
			}
			many := map[string]any{}
			for i := range most {
				many[fmt.Sprint("k", i)] = "v"
			}
			add("as many as can be", many)
		}
	}
	return all
}
