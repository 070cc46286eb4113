package contracttest

import (
	"github.com/ordergate/ordergate/gen/api"
)

// amounts are those of a quote and of an order.
type amounts struct {
	Subtotal, Discount, Shipping, Tax, Total api.Money
	CouponCode                               *string `json:"coupon_code"`
	Lines                                    []struct{ Total, Discount api.Money }
}

// priced holds an answer's amounts against what they are made of.
func (s *suite) priced(r reply, currency string, discount, shipping, tax int64) {
	var a amounts
	decode(r, &a)
	var lines, discounts int64
	for _, l := range a.Lines {
		lines, discounts = lines+l.Total.Amount, discounts+l.Discount.Amount
		s.foundIf(l.Discount.Amount < 0 || l.Discount.Amount > l.Total.Amount || l.Discount.Currency != currency,
			r, "/body/lines", "a discount of %v on a line of %v", l.Discount, l.Total)
	}
	s.foundIf(a.Subtotal != price(lines, currency), r, "/body/subtotal", "is %v, and the lines cost %d", a.Subtotal, lines)
	s.foundIf(a.Discount != price(discount, currency) || discounts != discount,
		r, "/body/discount", "is %v and %d of the lines, and not %d", a.Discount, discounts, discount)
	s.foundIf(a.Shipping != price(shipping, currency), r, "/body/shipping", "is %v and not %d", a.Shipping, shipping)
	s.foundIf(a.Tax != price(tax, currency), r, "/body/tax", "is %v and not %d", a.Tax, tax)
	s.foundIf(a.Total != price(lines-discount+shipping+tax, currency), r, "/body/total", "is %v and not %d - %d + %d + %d", a.Total, lines, discount, shipping, tax)
}
