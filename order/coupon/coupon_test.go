package coupon

import (
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
)

var noon = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC) // a Monday

// euros is a basket of the lines.
func euros(lines ...int64) Basket {
	return Basket{Now: noon, Currency: "EUR", CustomerRef: "c", Lines: lines}
}

func rulesOf(t rapid.TB, text string) Rules {
	t.Helper()
	rules, err := ParseRules([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func codeOf(err error) errcode.Code {
	if err == nil {
		return applies
	}
	return apierr.From(err).Code
}

// TestDiscounts: rounded down, no more than the subtotal, spread by largest remainder, the earlier line first.
func TestDiscounts(t *testing.T) {
	for _, c := range []struct {
		rules       string
		lines, want []int64
	}{
		{`{"percentage": 10}`, []int64{1000}, []int64{100}},
		{`{"percentage": 10}`, []int64{1099}, []int64{109}},
		{`{"percentage": 100}`, []int64{3, 4}, []int64{3, 4}},
		{`{"percentage": 1}`, []int64{99}, []int64{0}},
		{`{"percentage": 50}`, []int64{1, 1, 1}, []int64{1, 0, 0}},
		{`{"percentage": 50}`, []int64{1, 5}, []int64{1, 2}},
		{`{"percentage": 10}`, []int64{0, 0}, []int64{0, 0}},
		{`{"percentage": 10}`, []int64{}, []int64{}},
		{`{"percentage": 99}`, []int64{100_000_000_000}, []int64{99_000_000_000}},
		{`{"fixed": {"amount": 500, "currency": "EUR"}}`, []int64{2000, 1000}, []int64{333, 167}},
		{`{"fixed": {"amount": 2, "currency": "EUR"}}`, []int64{1, 1, 1}, []int64{1, 1, 0}},
		{`{"fixed": {"amount": 500, "currency": "EUR"}}`, []int64{100, 0, 200}, []int64{100, 0, 200}},
		{`{"fixed": {"amount": 9223372036854775807, "currency": "EUR"}}`, []int64{99_999_999_999, 1}, []int64{99_999_999_999, 1}},
		{`{"fixed": {"amount": 99999999998, "currency": "EUR"}}`, []int64{33_333_333_333, 33_333_333_333, 33_333_333_334}, []int64{33_333_333_333, 33_333_333_332, 33_333_333_333}},
	} {
		got, err := Apply(Coupon{Active: true, Rules: rulesOf(t, c.rules)}, euros(c.lines...), Uses{})
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s of %v: %v %v, want %v", c.rules, c.lines, got, err, c.want)
		}
	}
}

// TestRefusals: the first of inactive, window, limits, minimum and currency refuses, whatever else holds.
func TestRefusals(t *testing.T) {
	const rest = `, "total": 10, "per_customer": 2, "minimum": {"amount": 1000, "currency": "EUR"}`
	for name, c := range map[string]struct {
		rules    string
		inactive bool
		basket   Basket
		uses     Uses
		want     errcode.Code
	}{
		"all is well":                    {`{"percentage": 10` + rest + `}`, false, euros(400, 600), Uses{9, 1}, applies},
		"inactive goes before all":       {`{"percentage": 10` + rest + `}`, true, euros(1), Uses{10, 2}, notValidNow},
		"the window goes before limits":  {`{"percentage": 10, "window": {"until": "2027-03-01T12:00:00Z"}` + rest + `}`, false, euros(1), Uses{10, 2}, notValidNow},
		"limits go before the minimum":   {`{"percentage": 10` + rest + `}`, false, euros(1), Uses{10, 2}, usedUp},
		"limits go before the currency":  {`{"fixed": {"amount": 1, "currency": "CNY"}, "total": 10}`, false, euros(1), Uses{10, 2}, usedUp},
		"used up by all":                 {`{"percentage": 10` + rest + `}`, false, euros(1000), Uses{10, 1}, usedUp},
		"used up by the customer":        {`{"percentage": 10` + rest + `}`, false, euros(1000), Uses{9, 2}, usedUp},
		"a limit that was lowered":       {`{"percentage": 10` + rest + `}`, false, euros(1000), Uses{11, 0}, usedUp},
		"the minimum is not reached":     {`{"percentage": 10` + rest + `}`, false, euros(400, 599), Uses{}, notApplicable},
		"the minimum in another":         {`{"percentage": 10, "minimum": {"amount": 1, "currency": "CNY"}}`, false, euros(1000), Uses{}, notApplicable},
		"an amount in another currency":  {`{"fixed": {"amount": 1, "currency": "CNY"}}`, false, euros(1000), Uses{}, notApplicable},
		"the first instant of a window":  {`{"percentage": 10, "window": {"from": "2027-03-01T12:00:00Z"}}`, false, euros(1000), Uses{}, applies},
		"before the window":              {`{"percentage": 10, "window": {"from": "2027-03-01T12:00:00.000001Z"}}`, false, euros(1000), Uses{}, notValidNow},
		"the last instant of a window":   {`{"percentage": 10, "window": {"from": "2027-01-01T00:00:00Z", "until": "2027-03-01T12:00:00.000001Z"}}`, false, euros(1000), Uses{}, applies},
		"without limits uses are no end": {`{"percentage": 10}`, false, euros(1000), Uses{1 << 60, 1 << 60}, applies},
		"an offset is an instant":        {`{"percentage": 10, "window": {"until": "2027-03-01T14:00:00+02:00"}}`, false, euros(1000), Uses{}, notValidNow},
	} {
		t.Run(name, func(t *testing.T) {
			for range 20 { // rules are a map
				off, err := Apply(Coupon{Active: !c.inactive, Rules: rulesOf(t, c.rules)}, c.basket, c.uses)
				if codeOf(err) != c.want || (err == nil) != (off != nil) {
					t.Fatalf("%v %v, want %q", off, err, c.want)
				}
			}
		})
	}
}

// TestEveryRefusalIsInTheRegistry: a client reads there what the code means.
func TestEveryRefusalIsInTheRegistry(t *testing.T) {
	registry, err := os.ReadFile("../../openapi/errors.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range []errcode.Code{notValidNow, usedUp, notApplicable} {
		if !strings.Contains(string(registry), "\n  "+string(code)+":\n") {
			t.Errorf("%s is not in the registry", code)
		}
	}
}

// TestRulesThatAreRefused: nothing that is wrong is passed over, neither by the operator nor in the database.
func TestRulesThatAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{}`: "needs a discount: fixed or percentage", `{"total": 1}`: "needs a discount", `null`: "needs a discount",
		`{"percentage": 10, "fixed": {"amount": 1, "currency": "EUR"}}`: "one discount, not fixed and percentage",
		`{"percentage": 0}`: "1 to 100", `{"percentage": 101}`: "1 to 100", `{"percentage": 1.5}`: "percentage", `{"percentage": null}`: "1 to 100",
		`{"percentage": "10"}`: "rule percentage", `{"percentages": 10}`: `unknown rule "percentages"`, `[]`: "cannot unmarshal",
		`{"fixed": {"amount": 0, "currency": "EUR"}}`: "1 or more", `{"fixed": {"amount": 1}}`: "capital letters",
		`{"fixed": {"amount": 1, "currency": "eur"}}`: "capital letters", `{"fixed": {"amount": 1, "currency": "EUR", "max": 1}}`: "unknown field",
		`{"percentage": 1, "total": 0}`: "rule total: must be 1", `{"percentage": 1, "per_customer": 0}`: "rule per_customer: must be 1",
		`{"percentage": 1, "minimum": {"amount": -1, "currency": "EUR"}}`:                                "rule minimum",
		`{"percentage": 1, "window": {}}`:                                                                "a beginning or an end",
		`{"percentage": 1, "window": {"from": "2027-01-01T00:00:00Z", "until": "2027-01-01T00:00:00Z"}}`: "ends before",
		`{"percentage": 1, "window": {"from": "tomorrow"}}`:                                              "rule window",
	} {
		if _, err := ParseRules([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	for name, texts := range map[string]map[string]string{
		"percentage":   {"": "whole number", "10%": "whole number", "0": "1 to 100"},
		"fixed":        {"5.00EUR": "as 500EUR", "500": "as 500EUR", "EUR": "as 500EUR", "500EURO": "as 500EUR", "0EUR": "1 or more", "500eur": "as 500EUR"},
		"minimum":      {"": "as 500EUR"},
		"total":        {"x": "whole number", "-1": "1 or more"},
		"per_customer": {"x": "whole number", "0": "1 or more"},
		"window":       {"": "FROM/UNTIL", "/": "a beginning or an end", "2027-01-01/": "RFC 3339", "/2027": "RFC 3339"},
		"exampleday":   {"": "a day of the week", "mon": "a day of the week"},
	} {
		for text, want := range texts {
			if _, err := kinds[name].Parse(text); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s %q: %v, want %q", name, text, err, want)
			}
		}
	}
	for code, good := range map[string]bool{
		"WELCOME10": true, "a": true, "a.b_c-d": true, "": false, ".a": false, "a b": false, "ü": false, strings.Repeat("a", 64): true, strings.Repeat("a", 65): false, "a\n": false,
	} {
		if err := (Coupon{Code: code, Rules: rulesOf(t, `{"percentage": 10}`)}).Check(); (err == nil) != good {
			t.Errorf("%q: %v", code, err)
		}
	}
	for rules, want := range map[string]string{
		`{"fixed": {"amount": 500, "currency": "EUR"}, "minimum": {"amount": 400, "currency": "USD"}}`: "a coupon has one currency, not fixed=500EUR and minimum=400USD",
		`{"fixed": {"amount": 500, "currency": "EUR"}, "minimum": {"amount": 400, "currency": "EUR"}}`: "",
		`{"fixed": {"amount": 9007199254740991, "currency": "EUR"}}`:                                   "",
		`{"fixed": {"amount": 9007199254740992, "currency": "EUR"}}`:                                   "fixed is at most 9007199254740991",
		`{"percentage": 10, "minimum": {"amount": 400, "currency": "USD"}}`:                            "",
	} {
		got := ""
		if err := (Coupon{Code: "A", Rules: rulesOf(t, rules)}).Check(); err != nil { // that it can be read keeps a stored one from failing orders
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", rules, got, want)
		}
	}
	if (Coupon{Code: "A"}).Check() == nil {
		t.Error("a coupon without rules is made")
	}
}

// TestRulesThatCannotBeReadTakeNothingOff: the order fails instead, as ours to mend.
func TestRulesThatCannotBeReadTakeNothingOff(t *testing.T) {
	for _, rules := range []string{`{"percentage": 10, "moon": "full"}`, `{}`, `torn`} {
		off, err := Apply(Restore("SUMMER", true, []byte(rules)), euros(1000), Uses{})
		if off != nil || codeOf(err) != errcode.SYS001 || !strings.Contains(err.Error(), "coupon SUMMER: ") {
			t.Errorf("%s: %v %v", rules, off, err)
		}
	}
	if off, err := Apply(Coupon{Active: true}, euros(1000), Uses{}); off != nil || codeOf(err) != errcode.SYS001 {
		t.Errorf("without rules: %v %v", off, err)
	}
	if off, err := Apply(Restore("SUMMER", true, []byte(`{"percentage": 10}`)), euros(1000), Uses{}); err != nil || !slices.Equal(off, []int64{100}) {
		t.Error(off, err)
	}
}

// TestEveryRuleKeepsItsTextAndItsJSON: a rule is written by an operator, stored, read and listed as it was.
func TestEveryRuleKeepsItsTextAndItsJSON(t *testing.T) {
	examples := map[string][]string{
		"percentage": {"10"}, "fixed": {"500EUR"}, "minimum": {"2000EUR"}, "per_customer": {"1"}, "total": {"100"}, "exampleday": {"monday"},
		"window": {"2027-01-01T00:00:00Z/", "/2027-01-01T00:00:00.5Z", "2027-01-01T00:00:00Z/2027-02-01T00:00:00Z"},
	}
	for _, k := range Kinds() {
		if len(examples[k.Name]) == 0 {
			t.Errorf("%s has no example here", k.Name)
		}
		if strings.Count(k.Usage, "`") != 2 {
			t.Errorf("the usage of %s has no form in backquotes: %s", k.Name, k.Usage)
		}
		for _, text := range examples[k.Name] {
			rule, err := k.Parse(text)
			if err != nil {
				t.Errorf("%s %s: %v", k.Name, text, err)
				continue
			}
			rules := Rules{k.Name: rule}
			if !k.discount {
				rules["percentage"] = percentage(1)
			}
			stored, err := json.Marshal(rules)
			if err != nil {
				t.Fatal(err)
			}
			if read := rulesOf(t, string(stored)); read.String() != rules.String() || !strings.Contains(read.String(), k.Name+"="+text) {
				t.Errorf("%s became %s became %s", text, stored, read)
			}
		}
	}
}

// TestState: an operator reads what keeps a coupon from being used now.
func TestState(t *testing.T) {
	for _, c := range []struct {
		rules    string
		inactive bool
		want     string
	}{
		{`{"percentage": 1}`, false, active},
		{`{"percentage": 1}`, true, disabled},
		{`{"percentage": 1, "window": {"from": "2027-03-01T12:00:00Z", "until": "2027-03-01T12:00:01Z"}}`, false, active},
		{`{"percentage": 1, "window": {"from": "2027-03-01T12:00:00.000001Z"}}`, false, notYet},
		{`{"percentage": 1, "window": {"until": "2027-03-01T12:00:00Z"}}`, false, over},
		{`{"percentage": 1, "window": {"until": "2027-03-01T12:00:00Z"}}`, true, disabled},
		{`torn`, false, active}, // its rules are listed as what they are
	} {
		if got := Restore("A", !c.inactive, []byte(c.rules)).State(noon); got != c.want {
			t.Errorf("%s: %s, want %s", c.rules, got, c.want)
		}
	}
}

func TestLimited(t *testing.T) {
	for text, want := range map[string]bool{
		`{"percentage": 1}`: false, `{"percentage": 1, "minimum": {"amount": 1, "currency": "EUR"}, "window": {"until": "2027-01-01T00:00:00Z"}}`: false,
		`{"percentage": 1, "total": 1}`: true, `{"percentage": 1, "per_customer": 1}`: true,
	} {
		if got := rulesOf(t, text).Limited(); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

var anyLines = rapid.SliceOfN(rapid.OneOf(rapid.Int64Range(0, 5), rapid.Int64Range(0, 1_000_000_000)), 0, 100) // sums to 10^11 at most

// anyDiscount draws a discount rule.
func anyDiscount(t *rapid.T) Rules {
	if rapid.Bool().Draw(t, "fixed") {
		return rulesOf(t, fmt.Sprintf(`{"fixed": {"amount": %d, "currency": "EUR"}}`, rapid.Int64Range(1, 200_000_000_000).Draw(t, "amount")))
	}
	return rulesOf(t, fmt.Sprintf(`{"percentage": %d}`, rapid.Int64Range(1, 100).Draw(t, "per cent")))
}

// discountOf is an oracle in big numbers.
func discountOf(rules Rules, subtotal int64) int64 {
	if f, is := rules["fixed"].(fixed); is {
		return min(f.Amount, subtotal)
	}
	off := new(big.Int).Mul(big.NewInt(subtotal), big.NewInt(int64(rules["percentage"].(percentage))))
	return off.Div(off, big.NewInt(100)).Int64()
}

// TestTheSpreadIsFair: the parts are the discount, none is below zero or above its line, each is less than one minor unit from its exact
// share, and who got a unit more had no smaller remainder, or the earlier line.
func TestTheSpreadIsFair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules, b := anyDiscount(t), euros(anyLines.Draw(t, "lines")...)
		parts, err := Apply(Coupon{Active: true, Rules: rules}, b, Uses{})
		if err != nil || len(parts) != len(b.Lines) {
			t.Fatal(parts, err)
		}
		subtotal := b.Subtotal()
		off := discountOf(rules, subtotal)
		if sum := (Basket{Lines: parts}).Subtotal(); sum != off {
			t.Fatalf("the parts are %d, the discount is %d", sum, off)
		}
		if subtotal == 0 {
			return
		}
		sum := big.NewInt(subtotal)
		remainders, raised := make([]*big.Int, len(parts)), make([]bool, len(parts))
		for i, part := range parts {
			if part < 0 || part > b.Lines[i] {
				t.Fatalf("%d of line %d, which is %d", part, i, b.Lines[i])
			}
			whole, remainder := new(big.Int).DivMod(new(big.Int).Mul(big.NewInt(off), big.NewInt(b.Lines[i])), sum, new(big.Int))
			more := part - whole.Int64()
			if more != 0 && (more != 1 || remainder.Sign() == 0) {
				t.Fatalf("line %d has %d, its share is %v and %v/%v", i, part, whole, remainder, sum)
			}
			remainders[i], raised[i] = remainder, more == 1
		}
		for i := range parts {
			for j := range parts {
				if c := remainders[i].Cmp(remainders[j]); raised[j] && !raised[i] && (c > 0 || c == 0 && i < j) {
					t.Fatalf("line %d has the unit of line %d: %v, %v", j, i, remainders[j], remainders[i])
				}
			}
		}
	})
}

// TestADiscountIsMonotonic: for more money it is no smaller, and a greater rule takes no less.
func TestADiscountIsMonotonic(t *testing.T) {
	off := func(t *rapid.T, rules Rules, b Basket) int64 {
		parts, err := Apply(Coupon{Active: true, Rules: rules}, b, Uses{})
		if err != nil {
			t.Fatal(err)
		}
		return Basket{Lines: parts}.Subtotal()
	}
	rapid.Check(t, func(t *rapid.T) {
		rules, lines := anyDiscount(t), rapid.SliceOfN(rapid.Int64Range(0, 1_000_000_000), 1, 100).Draw(t, "lines")
		less := off(t, rules, euros(lines...))
		greater := slices.Clone(lines)
		greater[rapid.IntRange(0, len(lines)-1).Draw(t, "line")] += rapid.Int64Range(0, 1_000_000_000).Draw(t, "more")
		if more := off(t, rules, euros(greater...)); more < less {
			t.Fatalf("%v: %d of %v, %d of %v", rules, less, lines, more, greater)
		}
		if p, is := rules["percentage"].(percentage); is && p < 100 {
			rules = Rules{"percentage": p + 1}
		} else if f, is := rules["fixed"].(fixed); is {
			f.Amount++
			rules = Rules{"fixed": f}
		}
		if more := off(t, rules, euros(lines...)); more < less {
			t.Fatalf("%v takes %d off, less than %d", rules, more, less)
		}
	})
}

// TestEveryRuleIsInTheManual: operators read there what it does.
func TestEveryRuleIsInTheManual(t *testing.T) {
	manual, err := os.ReadFile("../../docs/coupons.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(manual), "\n## Rules\n")
	table, _, _ = strings.Cut(table, "\n## ")
	for _, k := range Kinds() {
		if k.Name != "exampleday" && !strings.Contains(table, "\n| `"+k.Name+"` | ") {
			t.Errorf("docs/coupons.md has no row for %s", k.Name)
		}
	}
}

// TestTheRuleOfTheManualWorks: docs/coupons.md adds a rule by the file manual_test.go, in which weekday is called exampleday, so that a reader
// can add it. No other file mentions what it declares.
func TestTheRuleOfTheManualWorks(t *testing.T) {
	file, err := os.ReadFile("manual_test.go")
	if err != nil {
		t.Fatal(err)
	}
	manual, err := os.ReadFile("../../docs/coupons.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(manual), "\n```go\n"+strings.ReplaceAll(string(file), "exampleday", "weekday")+"```\n") {
		t.Error("docs/coupons.md does not have the text of manual_test.go")
	}
	c := Restore("MONDAYS", true, []byte(`{"percentage": 10, "exampleday": "monday"}`))
	for day, want := range map[int]errcode.Code{-1: notValidNow, 0: applies, 1: notValidNow, 6: notValidNow, 7: applies} {
		b := euros(1000)
		b.Now = b.Now.AddDate(0, 0, day).In(time.FixedZone("", -13*60*60)) // it is Sunday there
		off, err := Apply(c, b, Uses{})
		if codeOf(err) != want || want == applies && !slices.Equal(off, []int64{100}) {
			t.Errorf("day %d: %v %v", day, off, err)
		}
	}
	if c.Rules.Limited() {
		t.Error("a condition is taken for a limit")
	}
}
