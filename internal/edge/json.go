package edge

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"math/big"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
)

const maxDepth = 32 // of nested objects and arrays

// readJSON parses strictly, before validation: one document, UTF-8, no duplicate names, no lone surrogates, no NUL, no
// number beyond a float64, at most maxDepth deep. Everything else is REQ_001 with a pointer to the place. No bytes at all are io.EOF.
func readJSON(body []byte) (any, error) {
	if len(bytes.TrimSpace(body)) == 0 {
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
		pointer = pointer[:256]
	}
	return apierr.E(errcode.REQ001, apierr.Faults(apierr.Fault{Pointer: strings.ToValidUTF8(pointer, "?"), Rule: rule, Expected: offset}))
}

func readValue(d *jsontext.Decoder) (any, error) {
	t, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	if d.StackDepth() > maxDepth {
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
