// Package check reads request bodies and checks values as the contract demands. The code that internal/bodygen generates from the contract calls it; nothing
// is interpreted while a request waits. A value that satisfies the contract costs no allocation.
package check

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/rfc3339"
)

// Text is what the contract demands of a string. The zero Text takes any.
type Text struct {
	Null                 bool // null is taken, too
	Enum                 []string
	DateTime             bool // format: date-time, as rfc3339 reads it
	MinLength, MaxLength int  // code points; MaxLength 0: no bound
	Pattern              *Pattern
}

// Faults are the rules that a string in UTF-8 breaks, without their place. There are none if it satisfies the contract.
func (t *Text) Faults(s string) []apierr.Fault {
	if t.satisfied(s) {
		return nil
	}
	switch { // a value outside of an enumeration or a format has no other fault
	case t.Enum != nil && !slices.Contains(t.Enum, s):
		return []apierr.Fault{{Rule: errcode.RuleEnum, Expected: strings.Join(t.Enum, ", ")}}
	case t.DateTime && !isDateTime(s):
		return []apierr.Fault{{Rule: errcode.RuleFormat, Expected: "date-time"}}
	}
	var faults []apierr.Fault
	length := utf8.RuneCountInString(s)
	if length < t.MinLength {
		faults = append(faults, apierr.Fault{Rule: errcode.RuleMinLength, Expected: strconv.Itoa(t.MinLength)})
	}
	if t.MaxLength > 0 && length > t.MaxLength {
		faults = append(faults, apierr.Fault{Rule: errcode.RuleMaxLength, Expected: strconv.Itoa(t.MaxLength)})
	}
	if t.Pattern != nil && !t.Pattern.Match(s) {
		faults = append(faults, apierr.Fault{Rule: errcode.RulePattern, Expected: t.Pattern.text})
	}
	return faults
}

func (t *Text) satisfied(s string) bool {
	if len(s) < t.MinLength || t.MaxLength > 0 && len(s) > t.MaxLength || t.MinLength > 1 { // a code point has one byte or more
		if length := utf8.RuneCountInString(s); length < t.MinLength || t.MaxLength > 0 && length > t.MaxLength {
			return false
		}
	}
	return (t.Pattern == nil || t.Pattern.Match(s)) &&
		(t.Enum == nil || slices.Contains(t.Enum, s)) &&
		(!t.DateTime || isDateTime(s))
}

func isDateTime(s string) bool {
	_, err := rfc3339.Parse(s)
	return err == nil
}

// Integer is what the contract demands of an integer.
type Integer struct {
	Null     bool // null is taken, too
	Min, Max int64
	Not      *int64 // the one value between them that is not taken
}

// Faults are the rules that an integer breaks, without their place. There are none if it satisfies the contract.
func (i *Integer) Faults(n int64) []apierr.Fault {
	var faults []apierr.Fault
	if n < i.Min {
		faults = append(faults, apierr.Fault{Rule: errcode.RuleMinimum, Expected: strconv.FormatInt(i.Min, 10)})
	}
	if n > i.Max {
		faults = append(faults, apierr.Fault{Rule: errcode.RuleMaximum, Expected: strconv.FormatInt(i.Max, 10)})
	}
	if i.Not != nil && n == *i.Not {
		faults = append(faults, apierr.Fault{Rule: errcode.RuleNot, Expected: strconv.FormatInt(n, 10)})
	}
	return faults
}

// byPlace is the one order of faults: first by their place.
func byPlace(a, b apierr.Fault) int {
	return cmp.Or(strings.Compare(a.Pointer, b.Pointer), cmp.Compare(a.Rule, b.Rule), strings.Compare(a.Expected, b.Expected))
}

// firstFaults are the first faults by their place, so that the same request gets the same response: each once, as many as a client sees. One that is
// not among them is forgotten at once, so that a request of nothing but faults costs little.
type firstFaults []apierr.Fault

// mayTake tells whether a fault at a place may be among the first.
func (f *firstFaults) mayTake(pointer []byte) bool {
	return len(*f) < apierr.MaxFaults || string(pointer) <= (*f)[len(*f)-1].Pointer
}

// add puts a fault at a place in its place among the first.
func (f *firstFaults) add(pointer string, rule errcode.Rule, expected string) {
	fault := apierr.Fault{Pointer: pointer, Rule: rule, Expected: expected}
	at, there := slices.BinarySearchFunc(*f, fault, byPlace)
	switch {
	case there:
	case len(*f) < apierr.MaxFaults:
		*f = slices.Insert(*f, at, fault)
	case at < len(*f):
		copy((*f)[at+1:], (*f)[at:])
		(*f)[at] = fault
	}
}

// maxName bounds a name that clients made up, in bytes, so that no response grows with it.
const maxName = 64

// appendToken appends a name to a JSON pointer (RFC 6901). A long name is cut, and what is not UTF-8 in it is shown as U+FFFD.
func appendToken(pointer []byte, name string) []byte {
	pointer = append(pointer, '/')
	for at := 0; at < len(name); {
		c, size := utf8.DecodeRuneInString(name[at:])
		if at += size; at > maxName {
			break
		}
		switch c {
		case '~':
			pointer = append(pointer, "~0"...)
		case '/':
			pointer = append(pointer, "~1"...)
		default:
			pointer = utf8.AppendRune(pointer, c)
		}
	}
	return pointer
}
