package check

import (
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/rfc3339"
)

// Null says whether a value may be null.
type Null bool

// NotNull and OrNull are all there is.
const (
	NotNull Null = false
	OrNull  Null = true
)

// Reader reads one JSON document in the order in which it is written. The generated code asks for what the contract has at each place, and a Reader notes
// what breaks it. It is strict in what it returns, and takes what it skips on trust: then, as after every fault, Decode has the document judged by
// strictJSON. Strings that it returns are parts of the document, where that has no escape in them.
type Reader struct {
	text   string
	at     int // of the byte that is read next
	depth  int
	broken bool // it is no JSON that we take: nothing more is read
	doubt  bool // something was skipped, or may stand there twice
	faults []fault
}

// fault is a broken rule. Its place is known by the offset at which a token ends, so that a document without faults costs no pointers.
type fault struct {
	end      int    // of a value, of the bracket that opens it, or of a member's name
	member   string // that the value at that place lacks
	rule     errcode.Rule
	expected string
}

func (r *Reader) fault(end int, member string, rule errcode.Rule, expected string) {
	r.faults = append(r.faults, fault{end, member, rule, expected})
}

func (r *Reader) addFaults(end int, faults []apierr.Fault) {
	for _, f := range faults {
		r.fault(end, "", f.Rule, f.Expected)
	}
}

// fail ends the reading: from here on there is no byte.
func (r *Reader) fail() { r.broken, r.at = true, len(r.text) }

// peek is the first byte that is no space, 0 at the end.
func (r *Reader) peek() byte {
	for ; r.at < len(r.text); r.at++ {
		if c := r.text[r.at]; c > ' ' || c != ' ' && c != '\n' && c != '\r' && c != '\t' {
			return c
		}
	}
	return 0
}

// wrongType notes a value of another type than those demanded, and skips it. Null is none, where it is taken.
func (r *Reader) wrongType(null Null, demanded string) {
	c := r.peek()
	if null {
		if c == 'n' && r.literal("null") {
			return
		}
		demanded = "null | " + demanded
	}
	opened := r.at + 1
	r.skip()
	if c != '{' && c != '[' {
		opened = r.at
	}
	r.fault(opened, "", errcode.RuleType, demanded)
}

// literal reads a word.
func (r *Reader) literal(word string) bool {
	if !strings.HasPrefix(r.text[r.at:], word) {
		return false
	}
	r.at += len(word)
	return true // what follows it is judged by what follows a value
}

// Text reads a string. given is false for null and for a value that is no string.
func (r *Reader) Text(t *Text) (s string, given bool) {
	if r.peek() != '"' {
		r.wrongType(Null(t.Null), "string")
		return "", false
	}
	s = r.string()
	if !t.satisfied(s) {
		r.addFaults(r.at, t.Faults(s))
	}
	return s, true
}

// Time is a string that satisfied format: date-time.
func Time(s string) rfc3339.Time {
	t, _ := rfc3339.Parse(s)
	return t
}

// Boolean reads true or false. given is false for null and for a value that is neither.
func (r *Reader) Boolean(null Null) (b, given bool) {
	switch c := r.peek(); {
	case c == 't' && r.literal("true"):
		return true, true
	case c == 'f' && r.literal("false"):
		return false, true
	}
	r.wrongType(null, "boolean")
	return false, false
}

// Integer reads an integer, which may be written 2.0 or 2e0. given is false for null and for a value that is none.
func (r *Reader) Integer(i *Integer) (n int64, given bool) {
	c := r.peek()
	if c != '-' && (c < '0' || c > '9') {
		r.wrongType(Null(i.Null), "integer")
		return 0, false
	}
	start := r.at
	if c == '-' {
		r.at++
	}
	first := r.at
	for r.at < len(r.text) && r.text[r.at]-'0' <= 9 {
		n = n*10 + int64(r.text[r.at]-'0') // may overflow: then the digits are too many
		r.at++
	}
	digits := r.at - first
	if digits == 0 || digits > 18 || digits > 1 && r.text[first] == '0' || r.at < len(r.text) && strings.IndexByte(".eE", r.text[r.at]) >= 0 {
		return r.unusual(i, start)
	}
	if c == '-' {
		n = -n
	}
	if n < i.Min || n > i.Max || i.Not != nil && n == *i.Not {
		r.addFaults(r.at, i.Faults(n))
	}
	return n, true
}

// unusual reads a number that has a fraction, an exponent or many digits. strictJSON judges how it is written.
func (r *Reader) unusual(i *Integer, start int) (n int64, given bool) {
	r.doubt = true
	for r.at < len(r.text) && strings.IndexByte("+-.0123456789eE", r.text[r.at]) >= 0 {
		r.at++
	}
	number, ok := exactly(r.text[start:r.at])
	switch {
	case !ok:
		r.fail()
		return 0, false
	case !number.IsInt():
		expected := "integer"
		if i.Null {
			expected = "null | integer"
		}
		r.fault(r.at, "", errcode.RuleType, expected)
		return 0, false
	case !number.Num().IsInt64(): // it is too far from zero for any bound
		n = math.MaxInt64
		if number.Sign() < 0 {
			n = math.MinInt64
		}
	default:
		n = number.Num().Int64()
	}
	r.addFaults(r.at, i.Faults(n))
	return n, true
}

// exactly is the value of a JSON number. ok is false if a float64 cannot represent it, or if its digits or its exponent are too many to be worth reading.
func exactly(s string) (value *big.Rat, ok bool) {
	_, err := strconv.ParseFloat(s, 64)
	_, exponent, _ := strings.Cut(strings.ToLower(s), "e")
	if err != nil || len(s) > 64 || len(strings.TrimLeft(exponent, "+-0")) > 3 {
		return nil, false
	}
	return new(big.Rat).SetString(s)
}

// string reads a string from its quote on.
func (r *Reader) string() string {
	start := r.at + 1
	for i := start; i < len(r.text); i++ {
		switch c := r.text[i]; {
		case c == '"':
			r.at = i + 1
			return r.text[start:i]
		case c < ' ', c == '\\', c >= utf8.RuneSelf:
			return r.unusualString()
		}
	}
	r.fail()
	return ""
}

// unusualString reads a string that has escapes or characters beyond ASCII, and fails for one that has NUL.
func (r *Reader) unusualString() string {
	start, escapes := r.at, false
	for r.at++; r.at < len(r.text) && r.text[r.at] != '"'; r.at++ {
		switch c := r.text[r.at]; {
		case c == '\\':
			escapes = true
			r.at++
		case c < ' ':
			r.fail()
		}
	}
	if r.at++; r.at > len(r.text) {
		r.fail()
		return ""
	}
	s := r.text[start+1 : r.at-1]
	if escapes {
		b, err := jsontext.AppendUnquote(nil, r.text[start:r.at])
		if s = string(b); err != nil || strings.IndexByte(s, 0) >= 0 {
			r.fail()
		}
	} else if !utf8.ValidString(s) {
		r.fail()
	}
	return s
}

// skip passes over a value without a judgement of it.
func (r *Reader) skip() {
	r.doubt = true
	for depth := 0; ; {
		switch r.peek() {
		case 0:
			r.fail()
			return
		case '"':
			for r.at++; r.at < len(r.text) && r.text[r.at] != '"'; r.at++ {
				if r.text[r.at] == '\\' {
					r.at++
				}
			}
			r.at = min(r.at+1, len(r.text))
		case '{', '[':
			depth++
			r.at++
		case '}', ']':
			if depth--; depth < 0 {
				r.fail()
				return
			}
			r.at++
		case ',', ':':
			if depth == 0 {
				r.fail()
				return
			}
			r.at++
		default: // a number or a word
			for r.at++; r.at < len(r.text) && strings.IndexByte(",:{}[]\" \n\r\t", r.text[r.at]) < 0; r.at++ {
				continue
			}
		}
		if depth == 0 {
			return
		}
	}
}

// Object is an object that is read member by member.
type Object struct {
	Name   string // of the member whose value is next
	reader *Reader
	opened int // after its brace; 0: it is no object
	named  int // after Name
	seen   uint64
	Length int // members so far
}

// Object opens an object. There are no members of null and of a value that is no object.
func (r *Reader) Object(null Null) (o Object) {
	o.reader = r
	if r.peek() != '{' {
		r.wrongType(null, "object")
		return o
	}
	o.opened = r.open()
	return o
}

// open enters an object or array.
func (r *Reader) open() (opened int) {
	r.at++
	opened = r.at
	if r.depth++; r.depth > MaxDepth {
		r.fail()
	}
	return opened
}

// Given tells whether it is an object.
func (o *Object) Given() bool { return o.opened > 0 }

// Next reads the name of the next member. It is false at the end.
func (o *Object) Next() bool {
	r := o.reader
	if o.opened == 0 || !r.next(o.Length, '}') {
		return false
	}
	if r.peek() != '"' {
		r.fail()
		return false
	}
	o.Name = r.string()
	if o.named = r.at; r.peek() != ':' {
		r.fail()
		return false
	}
	r.at++
	o.Length++
	return true
}

// next passes the comma before the next member or item, or the bracket at the end.
func (r *Reader) next(so int, closing byte) bool {
	c := r.peek()
	if c == closing {
		r.at++
		r.depth--
		return false
	}
	if so > 0 {
		if c != ',' {
			r.fail()
			return false
		}
		r.at++
	}
	return true
}

// Known notes that a member stands there, by a number below 64 that its name has. A name that stands there twice is strictJSON's.
func (o *Object) Known(number int) {
	bit := uint64(1) << number
	if o.seen&bit != 0 {
		o.reader.doubt = true
	}
	o.seen |= bit
}

// Unknown refuses a member that the contract does not know.
func (o *Object) Unknown() {
	o.reader.fault(o.named, "", errcode.RuleAdditionalProperties, "")
	o.reader.skip()
}

// Ignore takes a member, whatever it is.
func (o *Object) Ignore() { o.reader.skip() }

// CheckName checks the name of a member.
func (o *Object) CheckName(t *Text) { o.reader.addFaults(o.named, t.Faults(o.Name)) }

// Required refuses an object that lacks one of these members, which have the numbers from 0 on.
func (o *Object) Required(names ...string) {
	if all := uint64(1)<<len(names) - 1; o.seen&all != all && o.opened > 0 {
		for i, name := range names {
			if o.seen>>i&1 == 0 {
				o.reader.fault(o.opened, name, errcode.RuleRequired, "")
			}
		}
	}
}

// AtMost bounds the number of members.
func (o *Object) AtMost(most int) {
	if o.Length > most {
		o.reader.fault(o.opened, "", errcode.RuleMaxProperties, strconv.Itoa(most))
	}
}

// Names are those of an object whose members have names of the client's own.
type Names struct {
	list [24]string
	n    int
}

// Add notes the name of a member. One that may be there already is strictJSON's.
func (n *Names) Add(o *Object) {
	if n.n == len(n.list) || slices.Contains(n.list[:n.n], o.Name) {
		o.reader.doubt = true
		return
	}
	n.list[n.n] = o.Name
	n.n++
}

// Array is an array that is read item by item.
type Array struct {
	reader *Reader
	opened int // after its bracket; 0: it is no array
	Length int // items so far, with the next
}

// Array opens an array. There are no items of null and of a value that is no array.
func (r *Reader) Array(null Null) (a Array) {
	a.reader = r
	if r.peek() != '[' {
		r.wrongType(null, "array")
		return a
	}
	a.opened = r.open()
	return a
}

// Given tells whether it is an array.
func (a *Array) Given() bool { return a.opened > 0 }

// Next tells whether there is an item to read.
func (a *Array) Next() bool {
	if a.opened == 0 || !a.reader.next(a.Length, ']') {
		return false
	}
	a.Length++
	return true
}

// AtLeast and AtMost bound the number of items.
func (a *Array) AtLeast(least int) {
	if a.opened > 0 && a.Length < least {
		a.reader.fault(a.opened, "", errcode.RuleMinItems, strconv.Itoa(least))
	}
}

// AtMost is the other bound.
func (a *Array) AtMost(most int) {
	if a.Length > most {
		a.reader.fault(a.opened, "", errcode.RuleMaxItems, strconv.Itoa(most))
	}
}

// Some is a new value if one is wanted, else nil.
func Some[T any](wanted bool) *T {
	if wanted {
		return new(T)
	}
	return nil
}
