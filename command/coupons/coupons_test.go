package coupons

import (
	"context"
	"errors"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/couponsdb"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/order/coupon"
)

var (
	alice = order.Owner{Account: 1, Mode: "test"}
	ids   = order.NewIDs([]byte("k"))
)

type fixture struct {
	*pgxpool.Pool
	t *testing.T
}

// setup makes the coupons of alice, by their code.
func setup(t *testing.T, rules map[string]string) fixture {
	t.Helper()
	db := pgtest.New(t)
	config, err := pgxpool.ParseConfig(db.PrimaryURL)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 16
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	f := fixture{pool, t}
	for code, text := range rules {
		f.create(alice, code, text)
	}
	return f
}

func (f fixture) create(owner order.Owner, code, text string) {
	f.t.Helper()
	rules, err := coupon.ParseRules([]byte(text))
	if err != nil {
		f.t.Fatal(err)
	}
	n, err := couponsdb.New(f).InsertCoupons(f.t.Context(), couponsdb.InsertCouponsParams{
		Account: owner.Account, Mode: owner.Mode, Codes: []string{code}, Rules: [][]byte{[]byte(text)}, Limited: []bool{rules.Limited()},
	})
	if err != nil || n != 1 {
		f.t.Fatal(n, err)
	}
}

func (f fixture) inTx(fn func(tx pgx.Tx) error) {
	f.t.Helper()
	if err := pg.InTx(f.t.Context(), f, fn); err != nil {
		f.t.Fatal(err)
	}
}

func (f fixture) exec(statement string, args ...any) {
	f.t.Helper()
	if _, err := f.Exec(f.t.Context(), statement, args...); err != nil {
		f.t.Fatal(err)
	}
}

// count is the coupon's `used`, and its redemptions.
func (f fixture) count(code string) (used, redemptions int64) {
	f.t.Helper()
	if err := f.QueryRow(f.t.Context(), "SELECT used, (SELECT count(*) FROM coupon_redemptions r WHERE r.code = c.code) FROM coupons c WHERE code = $1 AND mode = 'test'", code).
		Scan(&used, &redemptions); err != nil {
		f.t.Fatal(err)
	}
	return used, redemptions
}

func item(code, customer string) Item { return Item{alice, code, customer} }

func newRef() order.Ref { return order.Ref{Owner: alice, ID: ids.Mint(time.Now(), 1)} }

var errGone = errors.New("no such coupon")

// place is what an order does with a coupon, in a transaction of its own.
func (f fixture) place(ctx context.Context, code, customer string) (order.Ref, error) {
	ref := newRef()
	return ref, pg.InTx(ctx, f, func(tx pgx.Tx) error {
		it := item(code, customer)
		coupons, err := Lock(ctx, tx, []Item{it}, false)
		if err != nil {
			return err
		}
		c := coupons[it]
		if c == nil {
			return errGone
		}
		if _, err := coupon.Apply(c.Coupon, coupon.Basket{Now: time.Now(), Currency: "EUR", CustomerRef: customer, Lines: []int64{1000}}, c.Uses()); err != nil {
			return err
		}
		return Redeem(ctx, tx, []Redemption{{ref, code, customer}})
	})
}

// race places 64 orders at once and returns those that have the coupon. The others must have been refused with CPN_003.
func (f fixture) race(code string, customer func(i int) string) (placed []order.Ref) {
	f.t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			ref, err := f.place(f.t.Context(), code, customer(i))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				placed = append(placed, ref)
			case apierr.From(err).Code != "CPN_003":
				f.t.Error(err)
			}
		})
	}
	wg.Wait()
	return placed
}

// TestALimitHolds: of 64 orders at once exactly as many get the coupon as its limit says, and those that it frees again.
func TestALimitHolds(t *testing.T) {
	t.Parallel()
	f := setup(t, map[string]string{"TEN": `{"percentage": 10, "total": 10}`, "TWICE": `{"percentage": 10, "per_customer": 2}`, "ALL": `{"percentage": 10}`})
	placed := f.race("TEN", strconv.Itoa)
	if used, n := f.count("TEN"); len(placed) != 10 || used != 10 || n != 10 {
		t.Fatalf("%d orders have the coupon, %d are counted, %d are stored", len(placed), used, n)
	}
	var wg sync.WaitGroup
	for i := range 8 { // orders that end, some twice at once
		wg.Go(func() {
			if err := pg.InTx(t.Context(), f, func(tx pgx.Tx) error { return Release(t.Context(), tx, placed[i/2:i/2+1]) }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if used, n := f.count("TEN"); used != 6 || n != 6 {
		t.Fatalf("%d are counted, %d are stored after 4 orders ended", used, n)
	}
	if again := f.race("TEN", strconv.Itoa); len(again) != 4 {
		t.Errorf("%d orders have the coupon again", len(again))
	}
	if n := len(f.race("TWICE", func(i int) string { return strconv.Itoa(i % 5) })); n != 5*2 {
		t.Errorf("5 customers have the coupon in %d orders", n)
	}
	if n := len(f.race("ALL", func(int) string { return "c" })); n != 64 {
		t.Errorf("%d orders have a coupon without limit", n)
	}
	if used, n := f.count("ALL"); used != 0 || n != 64 {
		t.Errorf("without limit %d are counted and %d stored", used, n)
	}
}

// TestABatchSeesItsOwnUses: the second order of a batch finds what the first one took.
func TestABatchSeesItsOwnUses(t *testing.T) {
	t.Parallel()
	f := setup(t, map[string]string{"A": `{"percentage": 10, "total": 5, "per_customer": 2}`})
	if _, err := f.place(t.Context(), "A", "c"); err != nil {
		t.Fatal(err)
	}
	f.inTx(func(tx pgx.Tx) error {
		c, d, other := item("A", "c"), item("A", "d"), Item{order.Owner{Account: 1, Mode: "live"}, "A", "c"}
		coupons, err := Lock(t.Context(), tx, []Item{c, d, c, other}, false)
		if err != nil {
			return err
		}
		if unknown, there := coupons[other]; unknown != nil || !there {
			t.Error("another owner's coupon is", unknown, there)
		}
		coupons[d].Use()
		coupons[c].Use()
		if got, want := coupons[c].Uses(), (coupon.Uses{Total: 3, ByCustomer: 2}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		if got, want := coupons[d].Uses(), (coupon.Uses{Total: 3, ByCustomer: 1}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		return Redeem(t.Context(), tx, []Redemption{{newRef(), "A", "c"}, {newRef(), "A", "d"}})
	})
	if used, n := f.count("A"); used != 3 || n != 3 {
		t.Error(used, n)
	}
}

// TestOnlyLimitsAreLocked: an order with a coupon without a limit waits for nobody; with onlyFree no order does.
func TestOnlyLimitsAreLocked(t *testing.T) {
	t.Parallel()
	f := setup(t, map[string]string{"FREE": `{"percentage": 10}`, "HELD": `{"percentage": 10, "total": 9}`, "IDLE": `{"percentage": 10, "total": 9}`})
	free, held, idle, gone := item("FREE", "c"), item("HELD", "c"), item("IDLE", "c"), item("GONE", "c")
	lock := func(tx pgx.Tx, onlyFree bool, items ...Item) Coupons {
		t.Helper()
		coupons, err := Lock(t.Context(), tx, items, onlyFree)
		if err != nil {
			t.Fatal(err)
		}
		return coupons
	}
	f.inTx(func(first pgx.Tx) error {
		lock(first, false, free, held)
		if err := Redeem(t.Context(), first, []Redemption{{newRef(), "FREE", "c"}}); err != nil {
			t.Fatal(err)
		}
		f.inTx(func(second pgx.Tx) error {
			got := lock(second, true, free, held, idle, gone)
			if _, there := got[held]; there || got[free] == nil || got[idle] == nil {
				t.Errorf("%v", got)
			}
			if c, there := got[gone]; c != nil || !there {
				t.Error("a coupon that does not exist is taken for one that is held")
			}
			return Redeem(t.Context(), second, []Redemption{{newRef(), "FREE", "c"}})
		})
		if got := lock(first, false, free); got[free] == nil {
			t.Error(got)
		}
		return nil
	})
}

// TestWhatWaitedSeesTheNewState: under the lock a coupon is read again, and so are its uses.
func TestWhatWaitedSeesTheNewState(t *testing.T) {
	t.Parallel()
	f := setup(t, map[string]string{"A": `{"percentage": 10, "per_customer": 1}`, "B": `{"percentage": 10, "total": 1}`})
	results := make(chan error, 2)
	f.inTx(func(tx pgx.Tx) error {
		if _, err := Lock(t.Context(), tx, []Item{item("A", "c"), item("B", "c")}, false); err != nil {
			return err
		}
		for _, code := range []string{"A", "B"} {
			go func() {
				_, err := f.place(t.Context(), code, "c")
				results <- err
			}()
		}
		deadline := time.Now().Add(10 * time.Second)
		for waiting, tick := 0, time.Tick(time.Millisecond); waiting < 2; <-tick {
			if time.Now().After(deadline) {
				return errors.New("nobody waits for the lock")
			}
			if err := f.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&waiting); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(t.Context(), "UPDATE coupons SET active = false WHERE code = 'B'"); err != nil {
			return err
		}
		return Redeem(t.Context(), tx, []Redemption{{newRef(), "A", "c"}})
	})
	got := []string{(<-results).Error(), (<-results).Error()}
	slices.Sort(got)
	if got[0] != "CPN_002" || got[1] != "CPN_003" {
		t.Error(got)
	}
}

// TestReleaseIsHarmless: repeated, of orders without a coupon, and of another owner's order with the same id.
func TestReleaseIsHarmless(t *testing.T) {
	t.Parallel()
	f := setup(t, map[string]string{"A": `{"percentage": 10, "total": 9}`, "B": `{"percentage": 10, "total": 9}`, "ALL": `{"percentage": 10}`})
	var refs []order.Ref
	for _, code := range []string{"A", "B", "A", "ALL", "A"} {
		ref, err := f.place(t.Context(), code, "c")
		if err != nil {
			t.Fatal(err)
		}
		refs = append(refs, ref)
	}
	foreign := refs[4]
	foreign.Mode = "live"
	for _, orders := range [][]order.Ref{append(slices.Clone(refs[:4]), foreign, newRef()), refs[:4], nil} {
		f.inTx(func(tx pgx.Tx) error { return Release(t.Context(), tx, orders) })
		for code, want := range map[string]int64{"A": 1, "B": 0, "ALL": 0} {
			if used, n := f.count(code); used != want || n != want {
				t.Errorf("%s: %d are counted, %d stored", code, used, n)
			}
		}
	}
	err := pg.InTx(t.Context(), f, func(tx pgx.Tx) error { return Redeem(t.Context(), tx, []Redemption{{refs[4], "B", "c"}}) })
	if err == nil {
		t.Error("an order has two coupons")
	}
}

// TestARowThatCannotBeAppliedFailsItsOrdersAlone.
func TestARowThatCannotBeAppliedFailsItsOrdersAlone(t *testing.T) {
	t.Parallel()
	f := setup(t, map[string]string{"GOOD": `{"percentage": 10}`, "TORN": `{"percentage": 10}`, "UNLOCKED": `{"percentage": 10}`})
	f.exec(`UPDATE coupons SET rules = '{"percentage": 1000}' WHERE code = 'TORN'`)
	f.exec(`UPDATE coupons SET rules = '{"percentage": 10, "total": 1}' WHERE code = 'UNLOCKED'`)
	for code, want := range map[string]string{"GOOD": "", "TORN": "must be 1 to 100", "UNLOCKED": "stored as a coupon without one"} {
		if _, err := f.place(t.Context(), code, "c"); (err == nil) != (want == "") || err != nil && (apierr.From(err).Code != "SYS_001" || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", code, err)
		}
	}
	if _, err := f.place(t.Context(), "good", "c"); !errors.Is(err, errGone) {
		t.Error("a code in other letters:", err)
	}
}

// TestTheSchemaKnowsEveryRule: known_rules of the table coupons has the kinds of rules, no more and no fewer.
func TestTheSchemaKnowsEveryRule(t *testing.T) {
	t.Parallel()
	f := setup(t, nil)
	var definition string
	if err := f.QueryRow(t.Context(), "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'known_rules'").Scan(&definition); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, k := range coupon.Kinds() {
		names = append(names, k.Name)
	}
	known := regexp.MustCompile(`\{([a-z_,]+)\}`).FindStringSubmatch(definition)
	if known == nil || !slices.Equal(strings.Split(known[1], ","), names) {
		t.Errorf("%s, and there are the rules %s", definition, names)
	}
	if _, err := f.Exec(t.Context(), `INSERT INTO coupons (account, mode, code, rules, limited) VALUES (1, 'test', 'A', '{"percentages": 10}', false)`); err == nil || !strings.Contains(err.Error(), "known_rules") {
		t.Error("a rule that nobody knows is stored:", err)
	}
}

// TestTheMigrationOfTheManualWorks: with it the schema has the rule that docs/coupons.md adds, and still all others.
func TestTheMigrationOfTheManualWorks(t *testing.T) {
	t.Parallel()
	manual, err := os.ReadFile("../../docs/coupons.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(manual), "\n```sql\n")
	migration, _, found := strings.Cut(rest, "\n```\n")
	if !found {
		t.Fatal("docs/coupons.md has no migration")
	}
	f := setup(t, nil)
	insert := func(rule string) error {
		_, err := f.Exec(t.Context(), `INSERT INTO coupons (account, mode, code, rules, limited) VALUES (1, 'test', $1::text, jsonb_build_object($1::text, 1), false)`, rule)
		return err
	}
	unknown := func(err error) bool { return err != nil && strings.Contains(err.Error(), "known_rules") }
	added := slices.ContainsFunc(coupon.Kinds(), func(k coupon.Kind) bool { return k.Name == "weekday" }) // somebody has followed the manual
	if err := insert("weekday"); !added && !unknown(err) {
		t.Error("the schema has the rule already:", err)
	}
	f.exec("DELETE FROM coupons")
	f.exec(migration)
	for _, k := range coupon.Kinds() {
		if err := insert(k.Name); err != nil {
			t.Errorf("the migration of docs/coupons.md, Add a rule, lacks %s: %v", k.Name, err)
		}
	}
	if err := insert("weekday"); !added && err != nil {
		t.Error(err)
	}
	if err := insert("moon"); !unknown(err) {
		t.Error("a rule that nobody knows is stored:", err)
	}
}
