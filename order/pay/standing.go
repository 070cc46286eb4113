package pay

import "github.com/ordergate/ordergate/order"

// Standing is what a payment has at the provider: the sums of its operations that succeeded there, under whatever key.
type Standing struct {
	Authorized, Captured, Refunded order.Money
	Voided                         bool
}

// Add is the standing after one more operation that succeeded, by the provider's name of its kind.
func (s Standing) Add(kind string, amount order.Money) Standing {
	add := func(sum *order.Money) {
		*sum = order.Money{Amount: sum.Amount + amount.Amount, Currency: amount.Currency}
	}
	switch kind {
	case "authorize":
		add(&s.Authorized)
	case "capture":
		add(&s.Captured)
	case "refund":
		add(&s.Refunded)
	case "void":
		s.Voided = true
	}
	return s
}

// Held is the authorization that was neither captured nor voided, in minor units.
func (s Standing) Held() int64 {
	if s.Voided || s.Captured.Amount > 0 {
		return 0
	}
	return s.Authorized.Amount
}

// Charged is what was captured and not refunded, in minor units.
func (s Standing) Charged() int64 { return s.Captured.Amount - s.Refunded.Amount }

// Released tells that a payment which was authorized has nothing at the provider any more.
func (s Standing) Released() bool {
	return s.Authorized.Amount > 0 && s.Held() == 0 && s.Charged() <= 0
}
