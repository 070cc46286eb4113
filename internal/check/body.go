package check

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
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
	clear(r.path[:cap(r.path)]) // it holds parts of the text
	if cap(r.unquote) > 4096 {  // what an attacker blew up is not kept
		r.unquote = nil
	}
	*r = Reader{path: r.path[:0], pointer: r.pointer[:0], unquote: r.unquote[:0]}
	readers.Put(r)
	return err == nil, err
}

// judge has a document in which not all is as expected read once more, by a strict parser, and turns what is wrong into an error.
func (r *Reader) judge() error {
	if r.broken {
		return cmp.Or(strictJSON(r.text), errDisagreement)
	}
	if err := valid(r.text); errors.Is(err, jsontext.ErrDuplicateName) {
		return malformedAt(err)
	} else if err != nil { // which names another place than that at which the first token is wrong
		return cmp.Or(strictJSON(r.text), errDisagreement)
	}
	if len(r.faults) == 0 {
		return nil
	}
	code := errcode.REQ004
	if r.otherwise {
		code = errcode.REQ002
	}
	return apierr.E(code, apierr.Faults(r.faults...))
}

var errDisagreement = errors.New("check: a document is strict JSON to one parser only")

// valid is nil for a text that is one JSON document without a name that stands twice.
func valid(text string) error {
	d := jsontext.NewDecoder(bytes.NewBufferString(text))
	if _, err := d.ReadValue(); err != nil {
		return err
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return errors.New("there is more")
	}
	return nil
}

// strictJSON is REQ_001 with the first place at which a text is no JSON, or JSON that we do not take. It reads token by token, which takes longer.
func strictJSON(text string) error {
	d := jsontext.NewDecoder(bytes.NewBufferString(text))
	for first, at := true, 0; first || d.StackDepth() > 0; first = false {
		t, err := d.ReadToken()
		if err != nil {
			return malformedAt(err)
		}
		if d.StackDepth() > MaxDepth {
			return malformed(string(d.StackPointer()), errcode.RuleDepth, "")
		}
		token := text[at:d.InputOffset()] // after what stands before it; the decoder would make a string of it
		at += len(token)
		switch t.Kind() {
		case '"':
			if hasNUL(token) {
				return malformed(string(d.StackPointer()), errcode.RuleEncoding, "")
			}
		case '0':
			if len(token) > 4 && !representable(strings.TrimLeft(token, ",:"+space)) { // four digits are no large number, 1e9 is none either
				return malformed(string(d.StackPointer()), errcode.RuleNumber, "")
			}
		default: // brackets and words
		}
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
		pointer = strings.TrimSuffix(pointer[:256], "~") // no escape is cut
	}
	return apierr.E(errcode.REQ001, apierr.Faults(apierr.Fault{Pointer: strings.ToValidUTF8(pointer, "?"), Rule: rule, Expected: offset}))
}
