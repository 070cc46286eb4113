// Package rfc3339 is the one form in which times leave the system: RFC 3339 in UTC with six digits of seconds, which is what
// PostgreSQL keeps. A value that loses its trailing zeros would differ in length from its neighbours and from what clients compare.
package rfc3339

import (
	"errors"
	"regexp"
	"strings"
	"time"
)

// layout writes six digits always; the standard library's RFC3339Nano drops trailing zeros.
const layout = "2006-01-02T15:04:05.000000Z"

// Time is an instant whose JSON has the one form. The zero Time is an instant like any other: an absent one is a nil pointer.
type Time struct{ time.Time }

// New returns the instant in UTC, cut to microseconds.
func New(t time.Time) Time { return Time{t.UTC().Truncate(time.Microsecond)} }

// Ptr is New for a time that may be absent.
func Ptr(t *time.Time) *Time {
	if t == nil {
		return nil
	}
	u := New(*t)
	return &u
}

// MarshalText writes the one form.
func (t Time) MarshalText() ([]byte, error) { return t.UTC().AppendFormat(nil, layout), nil }

// MarshalJSON writes the one form as a JSON string.
func (t Time) MarshalJSON() ([]byte, error) { return t.UTC().AppendFormat(nil, `"`+layout+`"`), nil }

var errFormat = errors.New("not an RFC 3339 time")

// form is RFC 3339's grammar, T and Z in either case; time.Parse alone takes one digit of hours, a comma and an offset of 24 hours.
var form = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// UnmarshalText reads any RFC 3339 time, strictly.
func (t *Time) UnmarshalText(b []byte) error {
	text := strings.ToUpper(string(b))
	parsed, err := time.Parse(time.RFC3339, text)
	if err != nil || !form.MatchString(text) {
		return errFormat
	}
	t.Time = parsed.UTC()
	return nil
}

// UnmarshalJSON reads what UnmarshalText reads, in a JSON string.
func (t *Time) UnmarshalJSON(b []byte) error {
	if len(b) < 2 || b[0] != '"' || b[len(b)-1] != '"' {
		return errFormat
	}
	return t.UnmarshalText(b[1 : len(b)-1])
}
