// Package coupons is the bounded context of coupons: their rules, and which orders use them. It owns the tables coupons and
// coupon_redemptions. Package order/coupon says what the rules mean.
package coupons

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/gen/couponsdb"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/order/coupon"
)

// Item identifies a coupon of an owner by its code, and the customer who uses it.
type Item struct {
	order.Owner
	Code, CustomerRef string
}

// Coupon is a coupon for one customer. A batch counts its uses as its commands are decided.
type Coupon struct {
	coupon.Coupon
	total      *int64 // of all customers of the batch
	byCustomer int64
}

// Uses is how often the coupon was used, those of this batch included. They are counted only if the coupon has a limit.
func (c *Coupon) Uses() coupon.Uses { return coupon.Uses{Total: *c.total, ByCustomer: c.byCustomer} }

// Use counts an order that was decided, so that the next one of the batch sees it; Redeem stores it.
func (c *Coupon) Use() { *c.total, c.byCustomer = *c.total+1, c.byCustomer+1 }

// Coupons are those of a batch. An item of which there is no coupon has nil.
type Coupons map[Item]*Coupon

var errNotLimited = errors.New("has a limit, and is stored as a coupon without one")

// key is a coupon's primary key.
type key struct {
	order.Owner
	code string
}

func keyOf(account int32, mode, code string) key {
	return key{order.Owner{Account: account, Mode: mode}, code}
}

func keyParams(keys []key) couponsdb.LockCouponsParams {
	return couponsdb.LockCouponsParams{
		Accounts: pg.Column(keys, func(k key) int32 { return k.Account }),
		Modes:    pg.Column(keys, func(k key) string { return k.Mode }),
		Codes:    pg.Column(keys, func(k key) string { return k.code }),
	}
}

// Lock reads the items' coupons in the transaction. It locks those that have a limit, in the order of (account, mode, code), and counts
// their uses under the lock. With onlyFree it does not wait: items whose coupon another transaction holds are left out. It has to lock
// all coupons of a transaction at once, those of the orders that Release takes, too.
func Lock(ctx context.Context, tx pgx.Tx, items []Item, onlyFree bool) (Coupons, error) {
	if len(items) == 0 {
		return Coupons{}, nil
	}
	q, p := couponsdb.New(tx), keyParams(pg.Column(items, func(it Item) key { return key{it.Owner, it.Code} }))
	rows, err := q.ReadCoupons(ctx, couponsdb.ReadCouponsParams(p))
	if err != nil {
		return nil, fmt.Errorf("read coupons: %w", err)
	}
	found := make(map[key]*Coupon, len(rows)) // as no customer has used them
	var limited []key
	for _, r := range rows {
		k := keyOf(r.Account, r.Mode, r.Code)
		if r.Limited {
			limited = append(limited, k)
			continue
		}
		c := coupon.Restore(r.Code, r.Active, r.Rules)
		if c.Rules.Limited() {
			c.Fault = errNotLimited
		}
		found[k] = &Coupon{Coupon: c, total: new(int64)}
	}
	var counted map[Item]int64
	if len(limited) > 0 {
		if counted, err = lockLimited(ctx, q, limited, items, onlyFree, found); err != nil {
			return nil, err
		}
	}
	held := map[key]bool{}
	for _, k := range limited {
		held[k] = onlyFree && found[k] == nil
	}
	coupons := make(Coupons, len(items))
	for _, it := range items {
		k := key{it.Owner, it.Code}
		switch c := found[k]; {
		case c != nil:
			coupons[it] = &Coupon{Coupon: c.Coupon, total: c.total, byCustomer: counted[it]}
		case !held[k]:
			coupons[it] = nil
		}
	}
	return coupons, nil
}

// lockLimited adds the coupons with a limit to found, and returns how often their customers have used them.
func lockLimited(ctx context.Context, q *couponsdb.Queries, limited []key, items []Item, onlyFree bool, found map[key]*Coupon) (map[Item]int64, error) {
	p := keyParams(limited)
	rows, err := pg.Lock(ctx, onlyFree, q.LockCoupons, p, q.LockFreeCoupons, couponsdb.LockFreeCouponsParams(p),
		func(r couponsdb.LockFreeCouponsRow) couponsdb.LockCouponsRow { return couponsdb.LockCouponsRow(r) })
	if err != nil {
		return nil, fmt.Errorf("lock coupons: %w", err)
	}
	locked := map[key]bool{}
	for _, r := range rows {
		k := keyOf(r.Account, r.Mode, r.Code)
		locked[k], found[k] = true, &Coupon{Coupon: coupon.Restore(r.Code, r.Active, r.Rules), total: &r.Used}
	}
	var users []Item
	for _, it := range items {
		if locked[key{it.Owner, it.Code}] {
			users = append(users, it)
		}
	}
	counts, err := q.CountByCustomer(ctx, couponsdb.CountByCustomerParams{
		Accounts:     pg.Column(users, func(it Item) int32 { return it.Account }),
		Modes:        pg.Column(users, func(it Item) string { return it.Mode }),
		Codes:        pg.Column(users, func(it Item) string { return it.Code }),
		CustomerRefs: pg.Column(users, func(it Item) string { return it.CustomerRef }),
	})
	if err != nil {
		return nil, fmt.Errorf("count uses of coupons: %w", err)
	}
	counted := make(map[Item]int64, len(counts))
	for _, r := range counts {
		counted[Item{order.Owner{Account: r.Account, Mode: r.Mode}, r.Code, r.CustomerRef}] = r.Uses
	}
	return counted, nil
}

// Redemption is an order that uses a coupon.
type Redemption struct {
	order.Ref
	Code, CustomerRef string
}

// Redeem stores which orders use which coupons, and counts them, in the transaction that locked the coupons. An order that has a coupon
// already is an error.
func Redeem(ctx context.Context, tx pgx.Tx, redemptions []Redemption) error {
	if len(redemptions) == 0 {
		return nil
	}
	q := couponsdb.New(tx)
	if err := q.InsertRedemptions(ctx, couponsdb.InsertRedemptionsParams{
		Accounts:     pg.Column(redemptions, func(r Redemption) int32 { return r.Account }),
		Modes:        pg.Column(redemptions, func(r Redemption) string { return r.Mode }),
		Codes:        pg.Column(redemptions, func(r Redemption) string { return r.Code }),
		OrderIds:     pg.Column(redemptions, func(r Redemption) uuid.UUID { return uuid.UUID(r.ID) }),
		CustomerRefs: pg.Column(redemptions, func(r Redemption) string { return r.CustomerRef }),
	}); err != nil {
		return fmt.Errorf("redeem coupons: %w", err)
	}
	deltas := map[key]int64{}
	for _, r := range redemptions {
		deltas[key{r.Owner, r.Code}]++
	}
	return moveUses(ctx, q, deltas)
}

// Release deletes the redemptions of orders and lowers the counts of their coupons. Repeating it does nothing, and so does an order without
// a coupon. The transaction has locked the orders. If it locks coupons, it has locked those of the orders with them.
func Release(ctx context.Context, tx pgx.Tx, orders []order.Ref) error {
	if len(orders) == 0 {
		return nil
	}
	q := couponsdb.New(tx)
	gone, err := q.DeleteRedemptions(ctx, couponsdb.DeleteRedemptionsParams{
		Accounts: pg.Column(orders, func(r order.Ref) int32 { return r.Account }),
		Modes:    pg.Column(orders, func(r order.Ref) string { return r.Mode }),
		OrderIds: pg.Column(orders, func(r order.Ref) uuid.UUID { return uuid.UUID(r.ID) }),
	})
	if err != nil {
		return fmt.Errorf("release coupons: %w", err)
	}
	if len(gone) == 0 {
		return nil
	}
	deltas, keys := map[key]int64{}, make([]key, len(gone))
	for i, r := range gone {
		keys[i] = keyOf(r.Account, r.Mode, r.Code)
		deltas[keys[i]] = -r.Uses
	}
	if _, err = q.LockCoupons(ctx, keyParams(keys)); err != nil {
		return fmt.Errorf("lock coupons: %w", err)
	}
	return moveUses(ctx, q, deltas)
}

// moveUses changes the counts of the coupons that have a limit, which are locked.
func moveUses(ctx context.Context, q *couponsdb.Queries, deltas map[key]int64) error {
	keys := make([]key, 0, len(deltas))
	for k := range deltas {
		keys = append(keys, k)
	}
	p := keyParams(keys)
	if err := q.MoveUses(ctx, couponsdb.MoveUsesParams{
		Accounts: p.Accounts,
		Modes:    p.Modes,
		Codes:    p.Codes,
		Deltas:   pg.Column(keys, func(k key) int64 { return deltas[k] }),
	}); err != nil {
		return fmt.Errorf("count uses of coupons: %w", err)
	}
	return nil
}
