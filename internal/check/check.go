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

func byPlace(a, b apierr.Fault) int {
	return cmp.Or(strings.Compare(a.Pointer, b.Pointer), cmp.Compare(a.Rule, b.Rule))
}

// First sorts faults by their place, so that the same request gets the same response, and returns the first ones, each once, as many as a client sees.
func First(faults []apierr.Fault) []apierr.Fault {
	slices.SortFunc(faults, byPlace)
	faults = slices.Compact(faults)
	return faults[:min(len(faults), apierr.MaxFaults)]
}
