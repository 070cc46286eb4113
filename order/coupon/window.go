package coupon

import (
	"errors"
	"strings"
	"time"

	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/rfc3339"
)

// window is the time in which a coupon can be used: from its first instant to before its last. One of them may be absent.
type window struct {
	From  *rfc3339.Time `json:"from,omitempty"`
	Until *rfc3339.Time `json:"until,omitempty"`
}

var _ = addCondition("window", "`time` in which it can be used, FROM/UNTIL as 2026-12-01T00:00:00Z/2027-01-01T00:00:00Z; one may be left out", parseWindow)

func parseWindow(text string) (w window, err error) {
	from, until, two := strings.Cut(text, "/")
	if !two {
		return w, errors.New("is not FROM/UNTIL")
	}
	if w.From, err = parseTime(from); err == nil {
		w.Until, err = parseTime(until)
	}
	return w, err
}

func parseTime(text string) (*rfc3339.Time, error) {
	if text == "" {
		return nil, nil
	}
	t := new(rfc3339.Time)
	if t.UnmarshalText([]byte(text)) != nil {
		return nil, errors.New("has a time that is not RFC 3339, as 2026-12-01T00:00:00Z")
	}
	return t, nil
}

func (w window) String() string {
	var b strings.Builder
	if w.From != nil {
		b.WriteString(w.From.Format(time.RFC3339Nano))
	}
	b.WriteString("/")
	if w.Until != nil {
		b.WriteString(w.Until.Format(time.RFC3339Nano))
	}
	return b.String()
}

func (w window) check() error {
	switch {
	case w.From == nil && w.Until == nil:
		return errors.New("needs a beginning or an end")
	case w.From != nil && w.Until != nil && !w.From.Before(w.Until.Time):
		return errors.New("ends before it begins")
	}
	return nil
}

func (w window) refuse(b Basket) errcode.Code {
	if w.state(b.Now) != active {
		return notValidNow
	}
	return applies
}

// state says where an instant is.
func (w window) state(now time.Time) string {
	switch {
	case w.From != nil && now.Before(w.From.Time):
		return notYet
	case w.Until != nil && !now.Before(w.Until.Time):
		return over
	}
	return active
}
