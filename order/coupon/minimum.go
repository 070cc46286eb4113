package coupon

import "github.com/ordergate/ordergate/gen/errcode"

// minimum demands a subtotal in a currency.
type minimum struct{ money }

var _ = addCondition("minimum", "least `subtotal` of the order, in minor units with the currency, as 2000EUR", func(text string) (minimum, error) {
	m, err := parseMoney(text)
	return minimum{m}, err
})

func (m minimum) refuse(b Basket) errcode.Code {
	if b.Currency != m.Currency || b.Subtotal() < m.Amount {
		return notApplicable
	}
	return applies
}
