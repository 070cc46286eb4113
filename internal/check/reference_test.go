package check_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"strings"

	strict "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/check"
	"github.com/ordergate/ordergate/internal/rfc3339"
)

// The reference: bodies are parsed into a tree, the tree is validated by a general library, and the text is decoded once more. It is what the
// generated code has to agree with, fault by fault.

// newCompiler returns a compiler of schemas that reads times as we do.
func newCompiler() *jsonschema.Compiler {
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	c.RegisterFormat(&jsonschema.Format{Name: "date-time", Validate: func(v any) error {
		if text, ok := v.(string); ok {
			return new(rfc3339.Time).UnmarshalText([]byte(text))
		}
		return nil
	}})
	return c
}

// decodeByReference reads a body into to, or into a tree if that is nil.
func decodeByReference(schema *jsonschema.Schema, text string, optional bool, to any) (tree any, given bool, err error) {
	v, err := readJSON([]byte(text))
	none := errors.Is(err, io.EOF)
	switch {
	case optional && (none || err == nil && v == nil):
		return nil, false, nil
	case none:
		return nil, false, apierr.E(errcode.REQ001, apierr.At("", errcode.RuleRequired))
	case err != nil:
		return nil, false, err
	}
	if err = validate(schema, v); err != nil || to == nil {
		return v, err == nil, err
	}
	if err = strict.Unmarshal([]byte(text), to); err == nil {
		return v, true, nil
	}
	var body []byte
	if body, err = json.Marshal(v); err == nil { // an integer may be written 2.0
		err = json.Unmarshal(body, to)
	}
	return v, err == nil, err
}

// readJSON parses strictly, before validation: one document, UTF-8, no duplicate names, no lone surrogates, no NUL, no
// number beyond a float64, at most maxDepth deep. Everything else is REQ_001 with a pointer to the place. No bytes at all are io.EOF.
func readJSON(body []byte) (any, error) {
	if len(bytes.Trim(body, " \n\r\t")) == 0 { // no other character is space to JSON
		return nil, io.EOF
	}
	d := jsontext.NewDecoder(bytes.NewReader(body))
	v, err := readValue(d)
	if err == nil {
		if _, err = d.ReadToken(); errors.Is(err, io.EOF) {
			return v, nil
		}
		return nil, malformed("", errcode.RuleOneDocument, "")
	}
	if e, ok := errors.AsType[*apierr.Error](err); ok {
		return nil, e
	}
	at, rule, offset := "", errcode.RuleSyntax, ""
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		at, offset = string(e.JSONPointer), strconv.FormatInt(e.ByteOffset, 10)
	}
	if errors.Is(err, jsontext.ErrDuplicateName) {
		rule = errcode.RuleUnique
	}
	return nil, malformed(at, rule, offset)
}

func malformed(pointer string, rule errcode.Rule, offset string) error {
	if len(pointer) > 256 {
		pointer = strings.TrimSuffix(pointer[:256], "~")
	}
	return apierr.E(errcode.REQ001, apierr.Faults(apierr.Fault{Pointer: strings.ToValidUTF8(pointer, "?"), Rule: rule, Expected: offset}))
}

func readValue(d *jsontext.Decoder) (any, error) {
	t, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	if d.StackDepth() > check.MaxDepth {
		return nil, malformed(string(d.StackPointer()), errcode.RuleDepth, "")
	}
	switch t.Kind() {
	case 'n':
		return nil, nil
	case 't', 'f':
		return t.Bool(), nil
	case '"':
		return plainText(d, t.String())
	case '0':
		return number(d, t.String())
	case '[':
		list := []any{}
		for d.PeekKind() != ']' {
			v, err := readValue(d)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = d.ReadToken()
		return list, err
	default: // '{': the decoder gives no other
		object := map[string]any{}
		for d.PeekKind() != '}' {
			name, err := d.ReadToken()
			if err != nil {
				return nil, err
			}
			key, err := plainText(d, name.String())
			if err != nil {
				return nil, err
			}
			if object[key], err = readValue(d); err != nil {
				return nil, err
			}
		}
		_, err = d.ReadToken()
		return object, err
	}
}

// plainText refuses NUL, which PostgreSQL cannot store.
func plainText(d *jsontext.Decoder, s string) (string, error) {
	if strings.IndexByte(s, 0) >= 0 {
		return "", malformed(string(d.StackPointer()), errcode.RuleEncoding, "")
	}
	return s, nil
}

func number(d *jsontext.Decoder, s string) (any, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n, nil
	}
	f, err := strconv.ParseFloat(s, 64)
	_, exponent, _ := strings.Cut(strings.ToLower(s), "e")
	if err != nil || len(s) > 64 || len(strings.TrimLeft(exponent, "+-0")) > 3 {
		return nil, malformed(string(d.StackPointer()), errcode.RuleNumber, "")
	}
	if r, ok := new(big.Rat).SetString(s); ok && r.IsInt() && math.Abs(f) < 1<<53 {
		return r.Num().Int64(), nil // 2.0 and 2e0 are integers to the contract
	}
	return json.Number(s), nil
}

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
	return apierr.E(code, apierr.Faults(faults[:min(len(faults), apierr.MaxFaults)]...))
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
	var places map[place][]string
	var walk func(e *jsonschema.ValidationError, below string)
	walk = func(e *jsonschema.ValidationError, below string) {
		at := below + pointer(e.InstanceLocation)
		switch k := e.ErrorKind.(type) {
		case *kind.PropertyNames: // its place is overwritten by later ones, its causes have none: the same name breaks the same schema everywhere
			if places == nil {
				places = map[place][]string{}
				notePlaces(schema, v, nil, places)
			}
			for _, below := range places[place{k.Property, len(e.InstanceLocation)}] {
				for _, c := range e.Causes {
					walk(c, below)
				}
			}
			return
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
		return cmp.Or(strings.Compare(a.Pointer, b.Pointer), cmp.Compare(a.Rule, b.Rule), strings.Compare(a.Expected, b.Expected))
	})
	return slices.Compact(faults)
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

// notePlaces notes the pointers of all properties of a JSON value whose names a schema restricts.
func notePlaces(schema *jsonschema.Schema, v any, at []string, places map[place][]string) {
	switch v := v.(type) {
	case map[string]any:
		here := part(schema, at)
		for here != nil && here.Ref != nil {
			here = here.Ref
		}
		for member, value := range v {
			inside := append(slices.Clip(at), member)
			if here != nil && here.PropertyNames != nil {
				p := place{member, len(at)}
				places[p] = append(places[p], pointer(inside))
			}
			notePlaces(schema, value, inside, places)
		}
	case []any:
		for i, item := range v {
			notePlaces(schema, item, append(slices.Clip(at), strconv.Itoa(i)), places)
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
