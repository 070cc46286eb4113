package coupon

import "github.com/ordergate/ordergate/gen/errcode"

// fixed takes an amount off an order in its currency.
type fixed struct{ money }

var _ = addDiscount("fixed", "`amount` that is taken off, in minor units with the currency, as 500EUR", func(text string) (fixed, error) {
	m, err := parseMoney(text)
	return fixed{m}, err
})

func (f fixed) off(b Basket) (int64, errcode.Code) {
	if b.Currency != f.Currency {
		return 0, notApplicable
	}
	return f.Amount, applies
}
