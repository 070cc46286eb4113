package check

import (
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/rfc3339"
)

// Parameters are the parameters of one request as they were sent, and the faults that the generated code finds in them. A request without a fault
// costs no allocation, but for what is escaped in it.
type Parameters struct {
	path    []string
	escaped bool
	header  map[string][]string

	query      string // what is left of it
	malformed  bool
	name, text string // of the pair that Next found

	faults  firstFaults
	pointer []byte // to the last unknown name
}

// maxPairs is net/url's bound of a query.
const maxPairs = 10_000

// Reset begins with another request: the values of its path, whether they are as they were sent, its query, and its headers with one line each.
func (p *Parameters) Reset(path []string, escaped bool, query string, header map[string][]string) {
	*p = Parameters{path: path, escaped: escaped, query: query, header: header}
	if len(query) >= maxPairs && strings.Count(query, "&") >= maxPairs {
		p.malformed, p.query = true, ""
	}
}

// Sent is a parameter of the query, as far as it stands there.
type Sent struct {
	text  string
	times int
}

// Next goes to the next pair of the query. It splits, unescapes and refuses as net/url's ParseQuery does.
func (p *Parameters) Next() bool {
	for p.query != "" {
		var pair string
		if pair, p.query, _ = strings.Cut(p.query, "&"); pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		var ok, ok2 bool
		p.name, ok = unescape(name)
		p.text, ok2 = unescape(value)
		if !ok || !ok2 || strings.IndexByte(pair, ';') >= 0 {
			p.malformed, p.query = true, ""
			return false
		}
		return true
	}
	return false
}

// unescape decodes a name or value of a query, where something is escaped.
func unescape(s string) (plain string, ok bool) {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s, true
	}
	plain, err := url.QueryUnescape(s)
	return plain, err == nil
}

// Name is that of the pair which Next found.
func (p *Parameters) Name() string { return p.name }

// Keep notes the value of the pair that Next found.
func (p *Parameters) Keep(s *Sent) { *s = Sent{p.text, s.times + 1} }

// Unknown notes that the contract does not have the pair that Next found: it is more often a mistake than meant.
func (p *Parameters) Unknown() {
	p.pointer = appendToken(append(p.pointer[:0], "/query"...), p.name)
	if p.faults.mayTake(p.pointer) {
		p.Fault(string(p.pointer), errcode.RuleAdditionalProperties, "")
	}
}

// Value is what was sent for one parameter.
type Value struct {
	p     *Parameters
	at    string
	text  string
	given bool // false if it was left out, and after a fault
}

// Path is a value of the path, by its position.
func (p *Parameters) Path(at string, position int) Value {
	value := p.path[position]
	if p.escaped {
		if plain, err := url.PathUnescape(value); err == nil {
			value = plain
		}
	}
	return p.value(at, value)
}

// Query is the value of a parameter of the query.
func (p *Parameters) Query(at string, s Sent, required bool) Value {
	switch s.times {
	case 0:
		return p.absent(at, required)
	case 1:
		return p.value(at, s.text)
	default:
		p.Fault(at, errcode.RuleOnce, "")
		return Value{}
	}
}

// Header is the value of a header by its canonical name. An empty one counts as left out.
func (p *Parameters) Header(at, name string, required bool) Value {
	lines := p.header[name]
	if len(lines) == 0 || lines[0] == "" {
		return p.absent(at, required)
	}
	return p.value(at, lines[0])
}

func (p *Parameters) absent(at string, required bool) Value {
	if required {
		p.Fault(at, errcode.RuleRequired, "")
	}
	return Value{}
}

// value refuses NUL, which PostgreSQL cannot store, and what is not UTF-8.
func (p *Parameters) value(at, text string) Value {
	if !utf8.ValidString(text) || strings.IndexByte(text, 0) >= 0 {
		p.Fault(at, errcode.RuleEncoding, "")
		return Value{}
	}
	return Value{p, at, text, true}
}

// Fault notes what is wrong with a parameter.
func (p *Parameters) Fault(at string, rule errcode.Rule, expected string) {
	p.faults.add(at, rule, expected)
}

// dateTimeInQuery shows in any language how a query says a time: a date alone is none, and a plus that is not escaped is a space.
const dateTimeInQuery = "date-time (2026-11-27T08:00:00Z, 2026-11-27T09:00:00%2B01:00; %2B = +)"

// Text returns a text that was sent and satisfies the contract.
func (v Value) Text(t *Text) (text string, ok bool) {
	if !v.given {
		return "", false
	}
	return v.text, v.satisfies(t.Faults(v.text))
}

// Time returns an instant, likewise.
func (v Value) Time(t *Text) (instant rfc3339.Time, ok bool) {
	if _, ok = v.Text(t); ok {
		instant, _ = rfc3339.Parse(v.text) // it satisfies the contract
	}
	return instant, ok
}

// Integer returns a whole number, likewise.
func (v Value) Integer(i *Integer) (n int64, ok bool) {
	if !v.given {
		return 0, false
	}
	n, err := strconv.ParseInt(v.text, 10, 64)
	if err != nil || v.text[0] == '+' {
		v.p.Fault(v.at, errcode.RuleType, "integer")
		return 0, false
	}
	return n, v.satisfies(i.Faults(n))
}

func (v Value) satisfies(broken []apierr.Fault) bool {
	for _, f := range broken {
		if f.Expected == "date-time" && strings.HasPrefix(v.at, "/query/") {
			f.Expected = dateTimeInQuery
		}
		v.p.Fault(v.at, f.Rule, f.Expected)
	}
	return broken == nil
}

// Err is REQ_003 with the first faults by their places, or nil. A query that cannot be read hides all others.
func (p *Parameters) Err() error {
	if p.malformed {
		return apierr.E(errcode.REQ003, apierr.Faults(apierr.Fault{Pointer: "/query", Rule: errcode.RuleFormat, Expected: "query string"}))
	}
	if len(p.faults) == 0 {
		return nil
	}
	return apierr.E(errcode.REQ003, apierr.Faults(p.faults...))
}
