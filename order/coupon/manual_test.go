package coupon

import (
	"errors"
	"slices"
	"strings"

	"github.com/ordergate/ordergate/gen/errcode"
)

// exampleday is the day of the week, in UTC, on which the coupon can be used.
type exampleday string

var _ = addCondition("exampleday", "`day` of the week, in UTC, on which it can be used, as monday", func(text string) (exampleday, error) {
	return exampleday(text), nil
})

func (d exampleday) String() string { return string(d) }

func (d exampleday) check() error {
	if !slices.Contains(strings.Fields("monday tuesday wednesday thursday friday saturday sunday"), string(d)) {
		return errors.New("must be a day of the week, as monday")
	}
	return nil
}

func (d exampleday) refuse(b Basket) errcode.Code {
	if strings.ToLower(b.Now.UTC().Weekday().String()) != string(d) {
		return notValidNow
	}
	return applies
}
