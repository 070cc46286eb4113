package coupon

import (
	"errors"
	"math/bits"
	"strconv"

	"github.com/ordergate/ordergate/gen/errcode"
)

// percentage takes whole per cent off the subtotal.
type percentage int64

var _ = addDiscount("percentage", "`per cent` of the subtotal that are taken off, 1 to 100", func(text string) (percentage, error) {
	n, err := whole(text)
	return percentage(n), err
})

func (p percentage) String() string { return strconv.FormatInt(int64(p), 10) }

func (p percentage) check() error {
	if p < 1 || p > 100 {
		return errors.New("must be 1 to 100")
	}
	return nil
}

func (p percentage) off(b Basket) (int64, errcode.Code) {
	hi, lo := bits.Mul64(uint64(b.Subtotal()), uint64(p))
	off, _ := bits.Div64(hi, lo, 100)
	return int64(off), applies
}
