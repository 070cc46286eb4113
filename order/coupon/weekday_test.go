package coupon

import (
	"errors"
	"slices"
	"strings"

	"github.com/ordergate/ordergate/gen/errcode"
)

// weekday is the day of the week, in UTC, on which the coupon can be used.
type weekday string

var _ = addCondition("weekday", "`day` of the week, in UTC, on which it can be used, as monday", func(text string) (weekday, error) {
	return weekday(text), nil
})

func (d weekday) String() string { return string(d) }

func (d weekday) check() error {
	if !slices.Contains(strings.Fields("monday tuesday wednesday thursday friday saturday sunday"), string(d)) {
		return errors.New("must be a day of the week, as monday")
	}
	return nil
}

func (d weekday) refuse(b Basket) errcode.Code {
	if strings.ToLower(b.Now.UTC().Weekday().String()) != string(d) {
		return notValidNow
	}
	return applies
}
