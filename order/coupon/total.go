package coupon

import "strconv"

// total limits all orders together.
type total int64

var _ = addLimit("total", "how many `orders` may use it, of all customers together", func(text string) (total, error) {
	n, err := whole(text)
	return total(n), err
})

func (t total) String() string { return strconv.FormatInt(int64(t), 10) }

func (t total) check() error {
	if t < 1 {
		return errPositive
	}
	return nil
}

func (t total) usedUp(u Uses) bool { return u.Total >= int64(t) }
