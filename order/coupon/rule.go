package coupon

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ordergate/ordergate/gen/errcode"
)

// Rule is one rule of a coupon, with its values. It is a discount, a condition or a limit. Its JSON is what the database has.
type Rule interface {
	fmt.Stringer  // as Kind.Parse reads it
	check() error // a value that is out of its bounds
}

// discount says what is taken off a basket. The caller cuts it to the subtotal.
type discount interface {
	Rule
	off(b Basket) (int64, errcode.Code)
}

// condition looks at the basket alone.
type condition interface {
	Rule
	refuse(b Basket) errcode.Code
}

// limit alone sees how often the coupon was used. A coupon that has one is locked when it is used.
type limit interface {
	Rule
	usedUp(u Uses) bool
}

// Kind is a kind of rule. Each has a file of this package, which adds it.
type Kind struct {
	Name  string // in Rules
	Usage string // one line; the form of Parse's text stands in backquotes

	discount bool
	parse    func(text string) (Rule, error)
	decode   func(value []byte) (Rule, error)
}

// Parse reads a rule as an operator writes it.
func (k Kind) Parse(text string) (Rule, error) { return checked(k.parse(text)) }

func checked(r Rule, err error) (Rule, error) {
	if err != nil {
		return nil, err
	}
	return r, r.check()
}

var kinds = map[string]Kind{}

// Kinds are all kinds of rules, by name.
func Kinds() []Kind {
	return slices.SortedFunc(maps.Values(kinds), func(a, b Kind) int { return cmp.Compare(a.Name, b.Name) })
}

// addDiscount adds a kind of rule. It runs when variables are initialized: `var _ = addDiscount(...)`. So do addCondition and addLimit.
func addDiscount[T discount](name, usage string, parse func(string) (T, error)) Kind {
	return add(name, usage, parse)
}

func addCondition[T condition](name, usage string, parse func(string) (T, error)) Kind {
	return add(name, usage, parse)
}

func addLimit[T limit](name, usage string, parse func(string) (T, error)) Kind {
	return add(name, usage, parse)
}

func add[T Rule](name, usage string, parse func(string) (T, error)) Kind {
	var zero T
	k := Kind{
		Name: name, Usage: usage, discount: is[discount](zero),
		parse: func(text string) (Rule, error) { return parse(text) },
		decode: func(value []byte) (Rule, error) {
			var rule T
			d := json.NewDecoder(bytes.NewReader(value))
			d.DisallowUnknownFields()
			err := d.Decode(&rule)
			return rule, err
		},
	}
	if _, taken := kinds[name]; taken {
		panic("two kinds of rules have the name " + name)
	}
	kinds[name] = k
	return k
}

// Rules are the rules of a coupon by the names of their kinds: one discount, and what it depends on.
type Rules map[string]Rule

// ParseRules reads the JSON of Rules. A kind that is not known is an error: its rule must not be passed over.
func ParseRules(text []byte) (Rules, error) {
	var values map[string]json.RawMessage
	if err := json.Unmarshal(text, &values); err != nil {
		return nil, err
	}
	rules := Rules{}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		k, known := kinds[name]
		if !known {
			return nil, fmt.Errorf("unknown rule %q", name)
		}
		rule, err := checked(k.decode(values[name]))
		if err != nil {
			return nil, fmt.Errorf("rule %s: %w", name, err)
		}
		rules[name] = rule
	}
	return rules, rules.check()
}

// check demands exactly one discount: of two nobody could say which comes first.
func (r Rules) check() error {
	var all, present []string
	for _, k := range Kinds() {
		if k.discount {
			all = append(all, k.Name)
			if _, has := r[k.Name]; has {
				present = append(present, k.Name)
			}
		}
	}
	switch len(present) {
	case 0:
		return fmt.Errorf("a coupon needs a discount: %s", strings.Join(all, " or "))
	case 1:
		return nil
	}
	return fmt.Errorf("a coupon has one discount, not %s", strings.Join(present, " and "))
}

// checkMoney refuses rules of two currencies, because no order has both, and amounts beyond the contract's.
func (r Rules) checkMoney() error {
	var of string // the first rule with a currency, as an operator writes it
	var currency string
	for _, name := range slices.Sorted(maps.Keys(r)) {
		m, is := r[name].(interface{ asMoney() money })
		switch {
		case !is:
		case m.asMoney().Amount > maxAmount:
			return fmt.Errorf("%s is at most %d", name, int64(maxAmount))
		case currency == "":
			of, currency = name+"="+r[name].String(), m.asMoney().Currency
		case m.asMoney().Currency != currency:
			return fmt.Errorf("a coupon has one currency, not %s and %s=%s", of, name, r[name])
		}
	}
	return nil
}

// Limited tells whether what the coupon gives depends on how often it was used.
func (r Rules) Limited() bool { return slices.ContainsFunc(slices.Collect(maps.Values(r)), is[limit]) }

// String is the rules as an operator writes them.
func (r Rules) String() string {
	words := make([]string, 0, len(r))
	for _, name := range slices.Sorted(maps.Keys(r)) {
		words = append(words, name+"="+r[name].String())
	}
	return strings.Join(words, " ")
}

func is[T Rule](r Rule) bool {
	_, is := r.(T)
	return is
}

var errPositive = errors.New("must be 1 or more")
