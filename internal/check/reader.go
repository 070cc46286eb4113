package check

import (
	"math"
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
// what breaks it. It is strict in what it returns, and in what it skips it only looks for what is valid JSON and refused: then, as after every fault, Decode has
// a strict parser judge the document. Strings that it returns are parts of the document, where that has no escape in them.
type Reader struct {
	text   string
	at     int  // of the byte that is read next
	broken bool // it is no JSON that we take: nothing more is read
	doubt  bool // something was skipped, or may stand there twice
	faults firstFaults
	// otherwise: something else is wrong than unknown members, also if its fault is not among the first ones.
	otherwise bool

	path    []step // to the value that is read
	pointer []byte // of the first steps of path, as far as a fault needed it
	known   int    // how many steps are in pointer
	beyond  int    // 0, or: after so many of them all places are behind that of the last of the first faults
	unquote []byte // of one string
}

// step leads from an object or array to a value in it.
type step struct {
	name  string // of the member
	item  int    // or, of an array, the item's number from 1 on; 0: it is an object
	until int    // of pointer, with this step
	most  int    // an item's number up to which all items are behind this one, as pointers are compared
}

// fault notes a rule that the present value breaks.
func (r *Reader) fault(rule errcode.Rule, expected string) {
	if rule != errcode.RuleAdditionalProperties {
		r.otherwise = true
	}
	if r.takes() {
		r.faults.add(string(r.pointer), rule, expected)
	}
}

// breaks notes that the present value breaks a rule, other than that of unknown members, and tells what takes tells.
func (r *Reader) breaks() bool {
	r.otherwise = true
	return r.takes()
}

// takes tells whether a fault of the present value may be among the first ones. Then pointer is that of the value.
func (r *Reader) takes() bool {
	depth := len(r.path)
	if r.broken || r.beyond > 0 && r.beyond <= depth {
		return false
	}
	r.known, r.beyond = min(r.known, depth), 0
	until := 0
	if r.known > 0 {
		until = r.path[r.known-1].until
	}
	r.pointer = r.pointer[:until]
	for ; r.known < depth; r.known++ {
		s := &r.path[r.known]
		if s.item > 0 {
			r.pointer = strconv.AppendInt(append(r.pointer, '/'), int64(s.item-1), 10)
		} else {
			r.pointer = appendToken(r.pointer, s.name)
		}
		s.until = len(r.pointer)
	}
	if r.faults.mayTake(r.pointer) {
		return true
	}
	for r.beyond = 1; r.faults.mayTake(r.pointer[:r.path[r.beyond-1].until]); r.beyond++ {
		continue
	}
	s := &r.path[r.beyond-1]
	for s.most = 10; s.most < s.item; s.most *= 10 { // 23 is behind 22, and 100 before both
		continue
	}
	return false
}

// moved forgets the pointer to the value before the present one, from the last step on.
func (r *Reader) moved() {
	depth := len(r.path)
	if r.known >= depth || r.beyond >= depth {
		r.forget(depth)
	}
}

func (r *Reader) forget(depth int) {
	r.known = min(r.known, depth-1)
	if s := &r.path[depth-1]; r.beyond >= depth && (s.item == 0 || s.item > s.most) {
		r.beyond = 0
	}
}

func (r *Reader) addFaults(faults []apierr.Fault) {
	for _, f := range faults {
		r.fault(f.Rule, f.Expected)
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
	r.skip()
	r.fault(errcode.RuleType, demanded)
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
	if !t.satisfied(s) && r.breaks() {
		r.addFaults(t.Faults(s))
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
	if (n < i.Min || n > i.Max || i.Not != nil && n == *i.Not) && r.breaks() {
		r.addFaults(i.Faults(n))
	}
	return n, true
}

// unusual reads a number that has a fraction, an exponent or many digits. valid judges how it is written.
func (r *Reader) unusual(i *Integer, start int) (n int64, given bool) {
	r.doubt = true
	for r.at < len(r.text) && strings.IndexByte("+-.0123456789eE", r.text[r.at]) >= 0 {
		r.at++
	}
	n, whole, ok := exactly(r.text[start:r.at])
	switch {
	case !ok:
		r.fail()
		return 0, false
	case !whole:
		expected := "integer"
		if i.Null {
			expected = "null | integer"
		}
		r.fault(errcode.RuleType, expected)
		return 0, false
	}
	if broken := i.Faults(n); broken != nil {
		r.addFaults(broken)
	}
	return n, true
}

// exactly is the value of a JSON number, if it is whole; one with more than 18 digits is too far from zero for any bound, and its value is the last int64 there.
// ok is false if it is not representable or no number.
func exactly(s string) (n int64, whole, ok bool) {
	unsigned := strings.TrimPrefix(s, "-")
	mantissa, exponent := unsigned, 0
	if e := strings.IndexAny(unsigned, "eE"); e >= 0 {
		var err error
		if exponent, err = strconv.Atoi(unsigned[e+1:]); err != nil {
			return 0, false, false
		}
		mantissa = unsigned[:e]
	}
	before, after, fraction := strings.Cut(mantissa, ".")
	isDigits := func(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
	if !representable(s) || !isDigits(before) || fraction && !isDigits(after) {
		return 0, false, false
	}
	digits := strings.TrimLeft(before+after, "0")
	significant := strings.TrimRight(digits, "0")
	zeros := exponent - len(after) + len(digits) - len(significant) // that follow them
	switch {
	case significant == "":
		return 0, true, true
	case zeros < 0:
		return 0, false, true
	case len(significant)+zeros > 18:
		n = math.MaxInt64
	default:
		n, _ = strconv.ParseInt(significant, 10, 64) // 18 digits at most
		for range zeros {
			n *= 10
		}
	}
	if unsigned != s {
		n = -n
	}
	return n, true, true
}

// representable is false for a JSON number that a float64 cannot represent, or with digits or an exponent too many to be worth reading.
func representable(s string) bool {
	e := strings.IndexAny(s, "eE")
	if e < 0 && len(s) <= 64 {
		return true
	}
	if len(s) > 64 || len(strings.TrimLeft(s[e+1:], "+-0")) > 3 {
		return false
	}
	_, err := strconv.ParseFloat(s, 64)
	return err == nil
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
		var err error
		r.unquote, err = jsontext.AppendUnquote(r.unquote[:0], r.text[start:r.at])
		if s = string(r.unquote); err != nil || strings.IndexByte(s, 0) >= 0 {
			r.fail()
		}
	} else if !utf8.ValidString(s) {
		r.fail()
	}
	return s
}

// skip passes over a value. It is strict only in what is JSON and that we do not take.
func (r *Reader) skip() {
	r.doubt = true
	for depth := 0; ; {
		switch c := r.peek(); c {
		case 0:
			r.fail()
			return
		case '"':
			start := r.at
			for r.at++; r.at < len(r.text) && r.text[r.at] != '"'; r.at++ {
				if r.text[r.at] == '\\' {
					r.at++
				}
			}
			r.at = min(r.at+1, len(r.text))
			if hasNUL(r.text[start:r.at]) {
				r.fail()
				return
			}
		case '{', '[':
			if depth++; len(r.path)+depth > MaxDepth {
				r.fail()
				return
			}
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
			start := r.at
			for r.at++; r.at < len(r.text) && !ends[r.text[r.at]]; r.at++ {
				continue
			}
			if (c == '-' || c-'0' <= 9) && r.at-start > 1 && !representable(r.text[start:r.at]) {
				r.fail()
				return
			}
		}
		if depth == 0 {
			return
		}
	}
}

// ends are the bytes that end a number or a word.
var ends = func() (ends [256]bool) {
	for _, c := range []byte(",:{}[]\"" + space) {
		ends[c] = true
	}
	return ends
}()

// hasNUL tells whether a string, as it is written, has NUL in it, which PostgreSQL cannot store.
func hasNUL(quoted string) bool {
	const escaped = `\u0000`
	for at := 0; ; {
		i := strings.Index(quoted[at:], escaped)
		if i < 0 {
			return false
		}
		at += i
		slashes := 0
		for at-slashes > 0 && quoted[at-slashes-1] == '\\' {
			slashes++
		}
		if slashes%2 == 0 { // else its backslash is escaped itself
			return true
		}
		at += len(escaped)
	}
}

// Object is an object that is read member by member.
type Object struct {
	Name   string // of the member whose value is next
	reader *Reader
	given  bool
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
	o.given = true
	r.open()
	return o
}

// open enters an object or array.
func (r *Reader) open() {
	r.at++
	if r.path = append(r.path, step{}); len(r.path) > MaxDepth {
		r.fail()
	}
}

// Given tells whether it is an object.
func (o *Object) Given() bool { return o.given }

// Next reads the name of the next member. It is false at the end.
func (o *Object) Next() bool {
	r := o.reader
	if !o.given || !r.next(o.Length, '}') {
		return false
	}
	if r.peek() != '"' {
		r.fail()
		return false
	}
	o.Name = r.string()
	if r.peek() != ':' {
		r.fail()
		return false
	}
	r.at++
	o.Length++
	r.path[len(r.path)-1].name = o.Name
	r.moved()
	return true
}

// next passes the comma before the next member or item, or the bracket at the end.
func (r *Reader) next(so int, closing byte) bool {
	c := r.peek()
	if c == closing {
		r.at++
		r.path = r.path[:len(r.path)-1]
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

// Known notes that a member stands there, by a number below 64 that its name has. A name that stands there twice is found by valid.
func (o *Object) Known(number int) {
	bit := uint64(1) << number
	if o.seen&bit != 0 {
		o.reader.doubt = true
	}
	o.seen |= bit
}

// Unknown refuses a member that the contract does not know.
func (o *Object) Unknown() {
	o.reader.fault(errcode.RuleAdditionalProperties, "")
	o.reader.skip()
}

// Ignore takes a member, whatever it is.
func (o *Object) Ignore() { o.reader.skip() }

// CheckName checks the name of a member.
func (o *Object) CheckName(t *Text) {
	if !t.satisfied(o.Name) && o.reader.breaks() {
		o.reader.addFaults(t.Faults(o.Name))
	}
}

// Required refuses an object that lacks one of these members, which have the numbers from 0 on.
func (o *Object) Required(names ...string) {
	r, all := o.reader, uint64(1)<<len(names)-1
	if o.seen&all == all || !o.given || !r.breaks() {
		return
	}
	for i, name := range names {
		if o.seen>>i&1 == 0 {
			r.faults.add(string(appendToken(r.pointer, name)), errcode.RuleRequired, "") // pointer itself stays as it is
		}
	}
}

// AtMost bounds the number of members.
func (o *Object) AtMost(most int) {
	if o.Length > most {
		o.reader.fault(errcode.RuleMaxProperties, strconv.Itoa(most))
	}
}

// Names are those of an object whose members have names of the client's own.
type Names struct {
	list [24]string
	n    int
}

// Add notes the name of a member. Whether one that may be there already is, valid finds.
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
	given  bool
	Length int // items so far, with the next
}

// Array opens an array. There are no items of null and of a value that is no array.
func (r *Reader) Array(null Null) (a Array) {
	a.reader = r
	if r.peek() != '[' {
		r.wrongType(null, "array")
		return a
	}
	a.given = true
	r.open()
	return a
}

// Given tells whether it is an array.
func (a *Array) Given() bool { return a.given }

// Next tells whether there is an item to read.
func (a *Array) Next() bool {
	r := a.reader
	if !a.given || !r.next(a.Length, ']') {
		return false
	}
	a.Length++
	r.path[len(r.path)-1].item = a.Length
	r.moved()
	return true
}

// AtLeast and AtMost bound the number of items.
func (a *Array) AtLeast(least int) {
	if a.given && a.Length < least {
		a.reader.fault(errcode.RuleMinItems, strconv.Itoa(least))
	}
}

// AtMost is the other bound.
func (a *Array) AtMost(most int) {
	if a.Length > most {
		a.reader.fault(errcode.RuleMaxItems, strconv.Itoa(most))
	}
}

// Some is a new value if one is wanted, else nil.
func Some[T any](wanted bool) *T {
	if wanted {
		return new(T)
	}
	return nil
}
