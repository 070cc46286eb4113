package app

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/command/coupons"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/order/coupon"
)

// commandLine returns a function that runs a subcommand as a person types it, and returns what it prints.
func commandLine(t *testing.T, cfg Config) func(line string) (string, error) {
	t.Helper()
	return func(line string) (string, error) {
		i := slices.IndexFunc(subcommands, func(s subcommand) bool { return strings.HasPrefix(line+" ", s.name+" ") })
		sub := subcommands[i]
		flags := flag.NewFlagSet("", flag.ContinueOnError)
		flags.SetOutput(io.Discard)
		runner := sub.setup(flags)
		args, err := sub.parse(flags, strings.Fields(strings.TrimPrefix(line, sub.name)))
		if err != nil {
			return "", err
		}
		var out bytes.Buffer
		err = runner(t.Context(), process{cfg: cfg, args: args, stdout: &out})
		return out.String(), err
	}
}

// TestCoupons: an operator makes, lists and disables coupons, and reads what is wrong.
func TestCoupons(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	sample, err := sampleAccount(t.Context(), Config{PrimaryURL: db.PrimaryURL}, "demo")
	must(t, err)
	if codes := "WELCOME10, FIVEOFF, ONCE, LIMITED, EXPIRED"; sample.couponCodes() != codes || sample.loaded != 216 || sample.products != 216 {
		t.Errorf("%+v", sample)
	}
	run := commandLine(t, Config{PrimaryURL: db.PrimaryURL})
	for _, c := range []struct{ line, want string }{
		{"coupons create SUMMER -account demo -percentage 20 -minimum 5000EUR -total 100 -per-customer 2 -window 2026-06-01T00:00:00Z/", "coupon SUMMER is made"},
		{"coupons create SUMMER -account demo -mode live -fixed 100CNY", "coupon SUMMER is made: fixed=100CNY"},
		{"coupons create SUMMER -account demo -percentage 5", "coupon SUMMER exists already in this account's test mode"},
		{"coupons create A -account nobody -percentage 5", `no account "nobody"`},
		{"coupons create A -percentage 5", "-account is missing"},
		{"coupons create A -account demo -mode Test -percentage 5", "-mode must be test or live"},
		{"coupons create A -account demo", "a coupon needs a discount: fixed or percentage"},
		{"coupons create A -account demo -percentage 5 -fixed 500EUR", "a coupon has one discount, not fixed and percentage"},
		{"coupons create A -account demo -fixed 500EUR -minimum 400USD", "a coupon has one currency, not fixed=500EUR and minimum=400USD"},
		{"coupons create SOON -account demo -percentage 5 -window 2999-01-01T00:00:00Z/", "coupon SOON is made"},
		{"coupons create A -account demo -percentage 5%", `invalid value "5%" for flag -percentage: is not a whole number`},
		{"coupons create a/b -account demo -percentage 5", "a code has 1 to 64 letters"},
		{"coupons create -account demo -percentage 5", "needs CODE"},
		{"coupons disable ONCE -account demo", "coupon ONCE is disabled"},
		{"coupons disable ONCE -account demo", "coupon ONCE is disabled"},
		{"coupons disable once -account demo", `no coupon "once" in this account's test mode`},
		{"coupons disable ONCE -account demo -mode live", `no coupon "ONCE" in this account's live mode`},
		{"coupons disable ONCE -account nobody", `no account "nobody"`},
	} {
		out, err := run(c.line)
		if good := strings.HasPrefix(c.want, "coupon ") && strings.HasPrefix(out, c.want); !good && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %q %v, want %q", c.line, out, err, c.want)
		}
	}
	ref := order.Ref{Owner: order.Owner{Account: sample.account, Mode: "test"}, ID: order.NewIDs([]byte("k")).Mint(time.Now(), sample.account)}
	must(t, pg.InTx(t.Context(), db.Pool, func(tx pgx.Tx) error {
		return coupons.Redeem(t.Context(), tx, []coupons.Redemption{{Ref: ref, Code: "WELCOME10", CustomerRef: "c"}})
	}))
	sample, err = sampleAccount(t.Context(), Config{PrimaryURL: db.PrimaryURL}, "demo") // the next start
	must(t, err)
	if sample.couponCodes() != "WELCOME10, FIVEOFF, LIMITED, EXPIRED" || sample.loaded != 0 || sample.products != 216 {
		t.Errorf("the next start: %+v", sample)
	}
	out, err := run("coupons list")
	must(t, err)
	var got []string
	for line := range strings.Lines(out) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	if want := []string{
		"CODE ACCOUNT MODE STATE USES RULES",
		"SUMMER demo live active 0 fixed=100CNY",
		"EXPIRED demo test over 0 percentage=50 window=/2026-01-01T00:00:00Z",
		"FIVEOFF demo test active 0 fixed=500EUR minimum=2000EUR",
		"LIMITED demo test active 0 percentage=20 total=100",
		"ONCE demo test disabled 0 per_customer=1 percentage=15",
		"SOON demo test not yet 0 percentage=5 window=2999-01-01T00:00:00Z/",
		"SUMMER demo test active 0 minimum=5000EUR per_customer=2 percentage=20 total=100 window=2026-06-01T00:00:00Z/",
		"WELCOME10 demo test active 1 percentage=10",
	}; !slices.Equal(got, want) {
		t.Errorf("%s\nwant %s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestEveryRuleHasAFlag: the flags of `coupons create` come from the rules.
func TestEveryRuleHasAFlag(t *testing.T) {
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	createCoupon(flags)
	for _, k := range coupon.Kinds() {
		if f := flags.Lookup(strings.ReplaceAll(k.Name, "_", "-")); f == nil || f.Usage != k.Usage {
			t.Errorf("%s has no flag", k.Name)
		}
	}
}

// TestSampleCoupons: each does what docs/coupons.md says, at the edge of its conditions.
func TestSampleCoupons(t *testing.T) {
	now := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	got := map[string]string{}
	for _, c := range sampleCoupons {
		restored := coupon.Restore(c.code, true, []byte(c.rules))
		for _, b := range []struct {
			line int64
			uses coupon.Uses
		}{{1999, coupon.Uses{}}, {2000, coupon.Uses{Total: 99}}, {2000, coupon.Uses{Total: 100, ByCustomer: 1}}} {
			off, err := coupon.Apply(restored, coupon.Basket{Now: now, Currency: "EUR", Lines: []int64{b.line}}, b.uses)
			word := fmt.Sprint(off)
			if err != nil {
				word = err.Error()
			}
			got[c.code] += word + " "
		}
	}
	for code, want := range map[string]string{
		"WELCOME10": "[199] [200] [200] ", "FIVEOFF": "CPN_004 [500] [500] ", "ONCE": "[299] [300] CPN_003 ", "LIMITED": "[399] [400] CPN_003 ", "EXPIRED": "CPN_002 CPN_002 CPN_002 ",
	} {
		if got[code] != want {
			t.Errorf("%s: %s, want %s", code, got[code], want)
		}
	}
	if len(got) != 5 {
		t.Error(len(got))
	}
}
