// Package rfc3339 has the one form of a time in every response and event: RFC 3339 in UTC with six fractional digits, the precision of
// PostgreSQL. All values have one length, so their strings compare like their times.
package rfc3339

import (
	"errors"
	"regexp"
	"strings"
	"time"
)

// layout always writes six digits; the standard library's RFC3339Nano drops trailing zeros.
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

// form is the grammar of RFC 3339. time.Parse alone accepts one digit of hours, a comma and an offset of 24 hours.
var form = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// Parse reads an RFC 3339 time, T and Z in either case, and refuses everything else.
func Parse(text string) (Time, error) {
	text = strings.ToUpper(text)
	parsed, err := time.Parse(time.RFC3339, text)
	if err != nil || !form.MatchString(text) {
		return Time{}, errFormat
	}
	return Time{parsed.UTC()}, nil
}

// UnmarshalText reads what Parse does.
func (t *Time) UnmarshalText(b []byte) error {
	parsed, err := Parse(string(b))
	if err == nil {
		*t = parsed
	}
	return err
}

// UnmarshalJSON reads a JSON string as UnmarshalText does.
func (t *Time) UnmarshalJSON(b []byte) error {
	if len(b) < 2 || b[0] != '"' || b[len(b)-1] != '"' {
		return errFormat
	}
	return t.UnmarshalText(b[1 : len(b)-1])
}
