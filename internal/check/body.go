package check

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
)

// space is what JSON takes between its tokens.
const space = " \n\r\t"

// MaxDepth bounds nested objects and arrays.
const MaxDepth = 32

// Body reads the body of an operation into a pointer to its type, or only checks it, if that is nil. The generator makes one for each.
type Body func(r *Reader, to any)

// As is the pointer that a Body is given. Another type than that of the contract is a bug, and panics.
func As[T any](to any) *T {
	v, ok := to.(*T)
	if !ok && to != nil {
		panic(fmt.Sprintf("the body is no %T", to))
	}
	return v
}

var readers = sync.Pool{New: func() any { return new(Reader) }}

// Decode reads a body, once: strict JSON (one document in UTF-8, no name twice, no lone surrogate, no NUL, no number beyond a float64, at most 32 deep), or
// REQ_001; and what the contract says of it, or REQ_002, or REQ_004 if all that is wrong is members that the contract does not know. Of an optional body that
// is left out, empty or null, given is false. The strings in the result share the memory of the text: one that is kept for longer than the request
// has to be cloned.
func Decode(text string, optional bool, body Body, to any) (given bool, err error) {
	if strings.Trim(text, space) == "" {
		if optional {
			return false, nil
		}
		return false, apierr.E(errcode.REQ001, apierr.At("", errcode.RuleRequired))
	}
	if optional && strings.Trim(text, space) == "null" {
		return false, nil
	}
	r, _ := readers.Get().(*Reader)
	r.text = text
	body(r, to)
	if r.peek(); r.at < len(text) {
		r.fail()
	}
	if r.broken || r.doubt || len(r.faults) > 0 {
		err = r.judge()
	}
	if cap(r.faults) <= 64 { // what an attacker blew up is not kept
		*r = Reader{faults: r.faults[:0]}
		readers.Put(r)
	}
	return err == nil, err
}

// judge has strictJSON read a document in which not all is as expected, and turns what breaks the contract into an error.
func (r *Reader) judge() error {
	slices.SortStableFunc(r.faults, func(a, b fault) int { return cmp.Compare(a.end, b.end) })
	var placed []apierr.Fault
	left := r.faults
	err := strictJSON(r.text, func(end int, place func() string) {
		if len(left) == 0 || left[0].end > end {
			return
		}
		pointer := place()
		for ; len(left) > 0 && left[0].end <= end; left = left[1:] {
			f := apierr.Fault{Pointer: pointer, Rule: left[0].rule, Expected: left[0].expected}
			if left[0].member != "" {
				f.Pointer = string(jsontext.Pointer(pointer).AppendToken(left[0].member))
			}
			placed = append(placed, f)
		}
		if len(placed) > 50*apierr.MaxFaults { // of a body that is nothing but faults
			placed = First(placed)
		}
	})
	switch {
	case err != nil:
		return err
	case r.broken:
		return errDisagreement
	case len(placed) == 0:
		return nil
	}
	placed = First(placed)
	code := errcode.REQ004
	if slices.ContainsFunc(placed, func(f apierr.Fault) bool { return f.Rule != errcode.RuleAdditionalProperties }) {
		code = errcode.REQ002
	}
	return apierr.E(code, apierr.Faults(placed...))
}

var errDisagreement = errors.New("check: a document that is strict JSON cannot be read")

// strictJSON reads a document as strictly as it can be read, and visits each token: the offset at which it ends, and its place as a JSON pointer.
func strictJSON(text string, visit func(end int, place func() string)) error {
	d := jsontext.NewDecoder(bytes.NewBufferString(text))
	place := func() string { return pointer(d.StackPointer()) }
	for first := true; first || d.StackDepth() > 0; first = false {
		t, err := d.ReadToken()
		if err != nil {
			return malformedAt(err)
		}
		if d.StackDepth() > MaxDepth {
			return malformed(string(d.StackPointer()), errcode.RuleDepth, "")
		}
		switch t.Kind() {
		case '"':
			if strings.IndexByte(t.String(), 0) >= 0 { // PostgreSQL cannot store it
				return malformed(string(d.StackPointer()), errcode.RuleEncoding, "")
			}
		case '0':
			if _, ok := exactly(t.String()); !ok {
				return malformed(string(d.StackPointer()), errcode.RuleNumber, "")
			}
		default: // brackets and words
		}
		visit(int(d.InputOffset()), place)
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return malformed("", errcode.RuleOneDocument, "")
	}
	return nil
}

func malformedAt(err error) error {
	at, rule, offset := "", errcode.RuleSyntax, ""
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		at, offset = string(e.JSONPointer), strconv.FormatInt(e.ByteOffset, 10)
	}
	if errors.Is(err, jsontext.ErrDuplicateName) {
		rule = errcode.RuleUnique
	}
	return malformed(at, rule, offset)
}

func malformed(pointer string, rule errcode.Rule, offset string) error {
	if len(pointer) > 256 {
		pointer = pointer[:256]
	}
	return apierr.E(errcode.REQ001, apierr.Faults(apierr.Fault{Pointer: strings.ToValidUTF8(pointer, "?"), Rule: rule, Expected: offset}))
}

// pointer cuts the names that clients made up, so that no response grows with them.
func pointer(p jsontext.Pointer) string {
	if len(p) <= 64 {
		return string(p)
	}
	var short jsontext.Pointer
	for name := range p.Tokens() {
		if len(name) > 64 {
			name = strings.ToValidUTF8(name[:64], "")
		}
		short = short.AppendToken(name)
	}
	return string(short)
}
