package bodies

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// WrongValue is a value that breaks a schema at a place below it.
type WrongValue struct {
	Name  string   // what is wrong
	At    []string // below the spot
	Value any
	Code  string // that refuses it
	Rule  string // that it breaks, if that is none of the schema
}

// WrongValues are one value of each kind that the schema of a spot refuses.
func (s Spot) WrongValues(body any) (all []WrongValue) {
	refuse := func(code, name string, value any, below ...string) {
		all = append(all, WrongValue{Name: name, At: below, Value: value, Code: code})
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
			all[len(all)-1].Rule = syntax
			if strings.Contains(wrong, `\u0000`) {
				all[len(all)-1].Rule = encoding
			}
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
		all[len(all)-1].Rule = "number"
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

// The rules that most texts break which are no JSON.
const syntax, encoding = "syntax", "encoding"

// Body is a request body with one fault, or with one value on a bound.
type Body struct {
	Name    string // what is wrong
	Text    string
	Code    string // that refuses it
	Pointer string // that all its `errors` have
	Rule    string // that they have; empty: any that it breaks
}

// Wrong are bodies with one fault each, made from a good one: of each place every kind of value that the schema does not take, an
// unknown field, and JSON that is none. A property that is new in the contract is covered by its schema.
func (s *Schema) Wrong(good any) (all []Body) {
	for _, spot := range s.Spots() {
		for _, f := range spot.WrongValues(good) {
			path := append(slices.Clone(spot.Path), f.At...)
			all = append(all, Body{f.Name, Write(s.With(good, path, f.Value)), f.Code, pointer(path), f.Rule})
		}
	}
	text := Write(good)
	all = append(
		all,
		Body{"cut off", text[:len(text)-1], "REQ_001", "", syntax},
		Body{"two documents", text + text, "REQ_001", "", "oneDocument"},
		Body{"no JSON", "<xml/>", "REQ_001", "", syntax},
		Body{"deep", strings.Repeat(`{"x":`, 40) + "1" + strings.Repeat("}", 40), "REQ_001", strings.Repeat("/x", 32), "depth"},
		Body{"a name with NUL", strings.Replace(text, "{", `{"a\u0000":1,`, 1), "REQ_001", "/a\x00", encoding},
	)
	object, _ := good.(map[string]any)
	for _, name := range sorted(object) {
		all = append(all, Body{"a name twice", strings.Replace(text, "{", `{"`+name+`":null,`, 1), "REQ_001", pointer([]string{name}), "unique"})
	}
	return all
}

// OnBounds are bodies with one value each that lies on a bound of its schema, which takes it.
func (s *Schema) OnBounds(good any) (all []Body) {
	for _, spot := range s.Spots() {
		add := func(name string, value any) {
			all = append(all, Body{name, Write(s.With(good, spot.Path, value)), "", spot.Pointer(), ""})
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
