// Package coupon decides whether a coupon applies to an order, and what it takes off. It reads and writes nothing, and it has no clock.
package coupon

import (
	"cmp"
	"fmt"
	"regexp"
	"time"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
)

// The refusals of a coupon; CPN_001, that there is none, is the caller's. A smaller code goes before a greater one.
const (
	applies       errcode.Code = ""
	notValidNow                = errcode.CPN002 // inactive, or outside of its time
	usedUp                     = errcode.CPN003 // as often as it may be
	notApplicable              = errcode.CPN004 // a condition of the order
)

// Coupon is what a code stands for.
type Coupon struct {
	Code   string
	Active bool
	Rules  Rules
	Fault  error // what keeps the rules from being applied; nil: nothing
}

// Restore is the coupon of a row. Rules that cannot be read are its Fault: they fail the orders that name the coupon, and no others.
func Restore(code string, active bool, rules []byte) Coupon {
	c := Coupon{Code: code, Active: active}
	c.Rules, c.Fault = ParseRules(rules)
	return c
}

// Basket is an order that is to be placed. Lines are the totals of its lines in minor units of Currency. None is negative, and their sum
// is below 2^62.
type Basket struct {
	Now                   time.Time
	Currency, CustomerRef string
	Lines                 []int64
}

// Subtotal is the sum of the lines.
func (b Basket) Subtotal() (sum int64) {
	for _, line := range b.Lines {
		sum += line
	}
	return sum
}

// Uses tells how many orders have used a coupon, all together and those of the basket's customer.
type Uses struct{ Total, ByCustomer int64 }

// Apply returns what the coupon takes off each line of the basket, in minor units. A discount is rounded down and never exceeds the
// subtotal. It is spread over the lines by largest remainder, an earlier line first, so that the parts are exactly the discount.
//
// Refusals: CPN_002 inactive or outside of its time, CPN_003 used as often as it may be, CPN_004 a condition that the basket does not
// meet. If several hold, it is the first of these. Rules that cannot be applied are an error without a code.
func Apply(c Coupon, b Basket, u Uses) ([]int64, error) {
	if err := cmp.Or(c.Fault, c.Rules.check()); err != nil {
		return nil, fmt.Errorf("coupon %s: %w", c.Code, err)
	}
	refusal := applies
	if !c.Active {
		refusal = notValidNow
	}
	var off int64
	for _, rule := range c.Rules {
		code := applies
		switch rule := rule.(type) {
		case condition:
			code = rule.refuse(b)
		case limit:
			if rule.usedUp(u) {
				code = usedUp
			}
		case discount:
			off, code = rule.off(b)
		}
		if code != applies && (refusal == applies || code < refusal) {
			refusal = code
		}
	}
	if refusal != applies {
		return nil, apierr.E(refusal)
	}
	return spread(min(off, b.Subtotal()), b.Lines), nil
}

// form is the contract's form of ids that a client chooses.
var form = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$`)

// The states of a coupon, as people read them.
const (
	active   = "active"
	disabled = "disabled"
	notYet   = "not yet" // its window has not begun
	over     = "over"
)

// State says for people whether the coupon can be used at an instant, as far as that depends on no order.
func (c Coupon) State(now time.Time) string {
	if !c.Active {
		return disabled
	}
	for _, rule := range c.Rules {
		if w, is := rule.(window); is {
			return w.state(now)
		}
	}
	return active
}

// Check tells what keeps the coupon from being made: a code of another form than the contract's, or rules that do not fit together. A stored
// coupon with two currencies applies to nothing (CPN_004), and one with an amount beyond the contract's takes all off.
func (c Coupon) Check() error {
	if !form.MatchString(c.Code) {
		return fmt.Errorf("a code has 1 to 64 letters, digits, '.', '_' or '-' and does not begin with a dot; %q has not", c.Code)
	}
	return cmp.Or(c.Rules.check(), c.Rules.checkMoney())
}
