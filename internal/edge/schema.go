package edge

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
)

// validate checks a parsed value against its schema: REQ_002, or REQ_004 if every fault is an unknown field.
func validate(schema *jsonschema.Schema, v any) error {
	faults := faultsOf(schema, v)
	if len(faults) == 0 {
		return nil
	}
	code := errcode.REQ004
	if slices.ContainsFunc(faults, func(f apierr.Fault) bool { return f.Rule != errcode.RuleAdditionalProperties }) {
		code = errcode.REQ002
	}
	return apierr.E(code, apierr.Faults(faults...))
}

// faultsOf lists the places of a value that break a schema, each with its rule, never with the value. Faults are sorted by place, so
// that the same request gets the same response.
func faultsOf(schema *jsonschema.Schema, v any) []apierr.Fault {
	e, ok := errors.AsType[*jsonschema.ValidationError](schema.Validate(v))
	if !ok {
		return nil
	}
	var faults []apierr.Fault
	fault := func(at string, rule errcode.Rule, expected string) {
		faults = append(faults, apierr.Fault{Pointer: at, Rule: rule, Expected: expected})
	}
	var places map[place]string
	var walk func(e *jsonschema.ValidationError, below string)
	walk = func(e *jsonschema.ValidationError, below string) {
		at := below + pointer(e.InstanceLocation)
		switch k := e.ErrorKind.(type) {
		case *kind.PropertyNames: // its place is overwritten by later ones, its causes have none
			if places == nil {
				places = map[place]string{}
				notePlaces(v, nil, places)
			}
			below = places[place{k.Property, len(e.InstanceLocation)}]
		case *kind.Required:
			for _, name := range k.Missing {
				fault(at+pointer([]string{name}), errcode.RuleRequired, "")
			}
		case *kind.AdditionalProperties:
			for _, name := range k.Properties {
				fault(at+pointer([]string{name}), errcode.RuleAdditionalProperties, "")
			}
		case *kind.FalseSchema: // unevaluatedProperties, which knows no property of a part of allOf that fails
			if part(schema, e.InstanceLocation) == nil {
				fault(at, errcode.RuleAdditionalProperties, "")
			}
		case *kind.Not:
			expected := ""
			if p := part(schema, e.InstanceLocation); p != nil && p.Not != nil && p.Not.Const != nil {
				expected = fmt.Sprint(*p.Not.Const)
			}
			fault(at, errcode.RuleNot, expected)
		default:
			if len(e.Causes) == 0 { // the rule is the last keyword on the way to the value
				path := append([]string{string(errcode.RuleSchema)}, k.KeywordPath()...)
				fault(at, errcode.Rule(path[len(path)-1]), expectedBy(k))
			}
		}
		for _, c := range e.Causes {
			walk(c, below)
		}
	}
	walk(e, "")
	slices.SortFunc(faults, func(a, b apierr.Fault) int {
		return cmp.Or(strings.Compare(a.Pointer, b.Pointer), cmp.Compare(a.Rule, b.Rule))
	})
	faults = slices.Compact(faults)
	return faults[:min(len(faults), apierr.MaxFaults)]
}

// part is what a schema, or any part of it, says of the property or item at the end of a path; nil if it does not name it.
func part(s *jsonschema.Schema, path []string) *jsonschema.Schema {
	if s == nil || len(path) == 0 {
		return s
	}
	parts := slices.Concat([]*jsonschema.Schema{s.Ref}, s.AllOf, s.AnyOf, s.OneOf)
	if p := part(s.Properties[path[0]], path[1:]); p != nil {
		return p
	}
	if _, err := strconv.Atoi(path[0]); err == nil {
		if p := part(s.Items2020, path[1:]); p != nil {
			return p
		}
	}
	for _, candidate := range parts {
		if p := part(candidate, path); p != nil {
			return p
		}
	}
	return nil
}

// place is a property by its name and how deep its object lies.
type place struct {
	name  string
	depth int
}

// notePlaces notes the pointers of all properties of a JSON value in one walk, the first one of each place.
func notePlaces(v any, at []string, places map[place]string) {
	switch v := v.(type) {
	case map[string]any:
		for _, member := range slices.Sorted(maps.Keys(v)) {
			p := place{member, len(at)}
			inside := append(slices.Clip(at), member)
			if _, there := places[p]; !there {
				places[p] = pointer(inside)
			}
			notePlaces(v[member], inside, places)
		}
	case []any:
		for i, item := range v {
			notePlaces(item, append(at, strconv.Itoa(i)), places)
		}
	}
}

// expectedBy is the contract's demand: the field Want of the kinds that have one, never the value that was sent.
func expectedBy(k jsonschema.ErrorKind) string {
	field := reflect.Indirect(reflect.ValueOf(k)).FieldByName("Want")
	if !field.IsValid() {
		return ""
	}
	switch want := field.Interface().(type) {
	case []string:
		return strings.Join(want, " | ")
	case []any:
		values := make([]string, len(want))
		for i, v := range want {
			values[i] = fmt.Sprint(v)
		}
		return strings.Join(values, ", ")
	case *big.Rat:
		return want.RatString()
	default:
		return fmt.Sprint(want)
	}
}

// pointer writes a JSON pointer. Names that clients made up are cut, so that no response grows with them.
func pointer(path []string) string {
	var p jsontext.Pointer
	for _, name := range path {
		if len(name) > 64 {
			name = strings.ToValidUTF8(name[:64], "")
		}
		p = p.AppendToken(name)
	}
	return string(p)
}
