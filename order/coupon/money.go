package coupon

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// money is an amount of minor units, in JSON as in the contract.
type money struct {
	Amount   int64  `json:"amount"`
	Currency string `json:"currency"`
}

func parseMoney(text string) (m money, err error) {
	digits := strings.TrimRight(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
	m.Currency = text[len(digits):]
	if m.Amount, err = strconv.ParseInt(digits, 10, 64); err != nil {
		err = errors.New("is not minor units and a currency, as 500EUR")
	}
	return m, err
}

func (m money) String() string { return fmt.Sprintf("%d%s", m.Amount, m.Currency) }

func (m money) asMoney() money { return m }

// maxAmount is the contract's largest amount: 2^53 - 1, which every client can represent.
const maxAmount = 1<<53 - 1

var currencyForm = regexp.MustCompile(`^[A-Z]{3}$`)

func (m money) check() error {
	switch {
	case m.Amount < 1:
		return errPositive
	case !currencyForm.MatchString(m.Currency):
		return errors.New("needs a currency of three capital letters, as 500EUR")
	}
	return nil
}

// whole reads a number.
func whole(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		err = errors.New("is not a whole number")
	}
	return n, err
}
