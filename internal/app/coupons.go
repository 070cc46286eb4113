package app

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/gen/accountsdb"
	"github.com/ordergate/ordergate/gen/couponsdb"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/order/coupon"
)

// sampleCoupons are given to an account with the sample products.
var sampleCoupons = []struct{ code, rules string }{
	{"WELCOME10", `{"percentage": 10}`},
	{"FIVEOFF", `{"fixed": {"amount": 500, "currency": "EUR"}, "minimum": {"amount": 2000, "currency": "EUR"}}`},
	{"ONCE", `{"percentage": 15, "per_customer": 1}`},
	{"LIMITED", `{"percentage": 20, "total": 100}`},
	{"EXPIRED", `{"percentage": 50, "window": {"until": "2026-01-01T00:00:00Z"}}`},
}

// couponCodes lists the coupons for people.
func (s sampled) couponCodes() string { return cmp.Or(strings.Join(s.coupons, ", "), "none") }

// writeCoupons gives an owner the sample coupons of which it has no code.
func writeCoupons(ctx context.Context, tx pgx.Tx, owner order.Owner) error {
	p := couponsdb.InsertCouponsParams{Account: owner.Account, Mode: owner.Mode}
	for _, c := range sampleCoupons {
		rules, err := coupon.ParseRules([]byte(c.rules))
		if err != nil {
			return fmt.Errorf("sample coupon %s: %w", c.code, err)
		}
		p.Codes, p.Rules, p.Limited = append(p.Codes, c.code), append(p.Rules, []byte(c.rules)), append(p.Limited, rules.Limited())
	}
	_, err := couponsdb.New(tx).InsertCoupons(ctx, p)
	return err
}

// activeSamples returns the codes of the sample coupons that an owner has and has not disabled, in their order.
func activeSamples(ctx context.Context, conn *pgx.Conn, owner order.Owner) (codes []string, err error) {
	var p couponsdb.ReadCouponsParams
	for _, c := range sampleCoupons {
		p.Accounts, p.Modes, p.Codes = append(p.Accounts, owner.Account), append(p.Modes, owner.Mode), append(p.Codes, c.code)
	}
	rows, err := couponsdb.New(conn).ReadCoupons(ctx, p)
	for _, c := range sampleCoupons {
		if slices.ContainsFunc(rows, func(r couponsdb.ReadCouponsRow) bool { return r.Code == c.code && r.Active }) {
			codes = append(codes, c.code)
		}
	}
	return codes, err
}

// couponOwner declares -account and -mode. It returns a function that calls fn with the owner that they name, connected to the database.
func couponOwner(flags *flag.FlagSet) func(ctx context.Context, proc process, fn func(*couponsdb.Queries, order.Owner) error) error {
	account := flags.String("account", "", "`name` of the account that the coupon belongs to")
	mode := flags.String("mode", "test", "test or live")
	return func(ctx context.Context, proc process, fn func(*couponsdb.Queries, order.Owner) error) error {
		switch {
		case *account == "":
			return errors.New("-account is missing: the name of the account that the coupon belongs to")
		case *mode != "test" && *mode != "live":
			return errors.New("-mode must be test or live")
		}
		return proc.withPrimary(ctx, func(conn *pgx.Conn) error {
			a, err := accountsdb.New(conn).GetAccount(ctx, *account)
			if errors.Is(err, pgx.ErrNoRows) {
				err = fmt.Errorf("no account %q: ordergate keys create makes one", *account)
			}
			if err != nil {
				return err
			}
			return fn(couponsdb.New(conn), order.Owner{Account: a.ID, Mode: *mode})
		})
	}
}

// createCoupon is `ordergate coupons create`. Each kind of rule has a flag.
func createCoupon(flags *flag.FlagSet) runner {
	withOwner := couponOwner(flags)
	rules := coupon.Rules{}
	for _, k := range coupon.Kinds() {
		flags.Func(strings.ReplaceAll(k.Name, "_", "-"), k.Usage, func(text string) (err error) {
			rules[k.Name], err = k.Parse(text)
			return err
		})
	}
	return func(ctx context.Context, proc process) error {
		c := coupon.Coupon{Code: proc.args[0], Rules: rules}
		if err := c.Check(); err != nil {
			return err
		}
		stored, err := json.Marshal(rules)
		if err != nil {
			return err
		}
		return withOwner(ctx, proc, func(q *couponsdb.Queries, owner order.Owner) error {
			n, err := q.InsertCoupons(ctx, couponsdb.InsertCouponsParams{
				Account: owner.Account, Mode: owner.Mode, Codes: []string{c.Code}, Rules: [][]byte{stored}, Limited: []bool{rules.Limited()},
			})
			switch {
			case err != nil:
				return err
			case n == 0:
				return fmt.Errorf("coupon %s exists already in this account's %s mode: choose another code", c.Code, owner.Mode)
			}
			_, err = fmt.Fprintf(proc.stdout, "coupon %s is made: %s\n", c.Code, rules)
			return err
		})
	}
}

// disableCoupon is `ordergate coupons disable`: no new order can use the coupon. Orders that have it keep it. Repeating it does no harm.
func disableCoupon(flags *flag.FlagSet) runner {
	withOwner := couponOwner(flags)
	return func(ctx context.Context, proc process) error {
		return withOwner(ctx, proc, func(q *couponsdb.Queries, owner order.Owner) error {
			code := proc.args[0]
			n, err := q.DisableCoupon(ctx, couponsdb.DisableCouponParams{Account: owner.Account, Mode: owner.Mode, Code: code})
			switch {
			case err != nil:
				return err
			case n == 0:
				return fmt.Errorf("no coupon %q in this account's %s mode: ordergate coupons list", code, owner.Mode)
			}
			_, err = fmt.Fprintf(proc.stdout, "coupon %s is disabled\n", code)
			return err
		})
	}
}

func listCoupons(ctx context.Context, proc process) error {
	return proc.withPrimary(ctx, func(conn *pgx.Conn) error {
		accounts, err := accountsdb.New(conn).ListAccounts(ctx)
		if err != nil {
			return err
		}
		names := make(map[int32]string, len(accounts))
		for _, a := range accounts {
			names[a.ID] = a.Name
		}
		rows, err := couponsdb.New(conn).ListCoupons(ctx)
		if err != nil {
			return err
		}
		w, now := tabwriter.NewWriter(proc.stdout, 0, 0, 2, ' ', 0), time.Now()
		fmt.Fprintln(w, "CODE\tACCOUNT\tMODE\tSTATE\tUSES\tRULES")
		for _, r := range rows {
			c := coupon.Restore(r.Code, r.Active, r.Rules)
			rules := c.Rules.String()
			if c.Fault != nil {
				rules = "cannot be read: " + c.Fault.Error()
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\n", r.Code, names[r.Account], r.Mode, c.State(now), r.Uses, rules)
		}
		return w.Flush()
	})
}
