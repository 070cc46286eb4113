package coupon

import "strconv"

// perCustomer limits the orders of one customer.
type perCustomer int64

var _ = addLimit("per_customer", "how many `orders` of one customer may use it", func(text string) (perCustomer, error) {
	n, err := whole(text)
	return perCustomer(n), err
})

func (p perCustomer) String() string { return strconv.FormatInt(int64(p), 10) }

func (p perCustomer) check() error {
	if p < 1 {
		return errPositive
	}
	return nil
}

func (p perCustomer) usedUp(u Uses) bool { return u.ByCustomer >= int64(p) }
