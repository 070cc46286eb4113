package bodies

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
)

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
	text, err := json.Marshal(mark(body))
	if err != nil {
		panic(err) // it has maps, lists, texts and numbers alone
	}
	for i, l := range literals {
		text = bytes.Replace(text, fmt.Appendf(nil, "\"\uE000%d\"", i), []byte(l), 1)
	}
	return string(text)
}
