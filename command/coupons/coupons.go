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

// Read reads the items' coupons as Lock does, and locks nothing: what it counts may be otherwise when an order uses the coupon. An item
// without a customer counts none of the uses by customers.
func Read(ctx context.Context, tx pgx.Tx, items []Item) (Coupons, error) {
	return send(ctx, tx, items, "")
}

// Lock reads the items' coupons in the transaction. It locks those that have a limit, in the order of (account, mode, code), and counts
// their uses under the lock. With onlyFree it does not wait: items whose coupon another transaction holds are left out. It has to lock
// all coupons of a transaction at once, those of the orders that Release takes, too.
func Lock(ctx context.Context, tx pgx.Tx, items []Item, onlyFree bool) (Coupons, error) {
	return send(ctx, tx, items, lockOf(onlyFree))
}

// QueueLock is Lock as statements of a batch. It puts the coupons into the map.
func QueueLock(to *pgx.Batch, items []Item, onlyFree bool, coupons Coupons) {
	queue(to, items, lockOf(onlyFree), coupons)
}

func lockOf(onlyFree bool) string {
	return pg.LockQuery(onlyFree, couponsdb.LockCoupons, couponsdb.LockFreeCoupons)
}

func send(ctx context.Context, tx pgx.Tx, items []Item, lock string) (Coupons, error) {
	coupons := Coupons{}
	if len(items) == 0 {
		return coupons, nil
	}
	batch := &pgx.Batch{}
	queue(batch, items, lock, coupons)
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return nil, fmt.Errorf("read coupons: %w", err)
	}
	return coupons, nil
}

// queue queues the statements that read items' coupons, those with a limit under the lock; empty: under none.
func queue(to *pgx.Batch, items []Item, lock string, coupons Coupons) {
	found, limited := map[key]*Coupon{}, map[key]bool{}
	p := keyParams(pg.Column(items, func(it Item) key { return key{it.Owner, it.Code} }))
	pg.Query(to, func(rows []couponsdb.ReadCouponsRow) error {
		for _, r := range rows {
			k, c := keyOf(r.Account, r.Mode, r.Code), coupon.Restore(r.Code, r.Active, r.Rules)
			if limited[k] = r.Limited; !r.Limited && c.Rules.Limited() {
				c.Fault = errNotLimited
			}
			if found[k] = (&Coupon{Coupon: c, total: &r.Used}); r.Limited && lock != "" {
				delete(found, k) // what is read before the lock does not count
			}
		}
		return nil
	}, couponsdb.ReadCoupons, p.Accounts, p.Modes, p.Codes)
	if lock != "" {
		pg.Query(to, func(rows []couponsdb.LockCouponsRow) error {
			for _, r := range rows {
				found[keyOf(r.Account, r.Mode, r.Code)] = &Coupon{Coupon: coupon.Restore(r.Code, r.Active, r.Rules), total: &r.Used}
			}
			return nil
		}, lock, p.Accounts, p.Modes, p.Codes)
	}
	pg.Query(to, func(rows []couponsdb.CountByCustomerRow) error {
		for _, it := range items {
			k := key{it.Owner, it.Code}
			switch c := found[k]; {
			case c != nil:
				coupons[it] = &Coupon{Coupon: c.Coupon, total: c.total}
			case !limited[k] || lock != couponsdb.LockFreeCoupons:
				coupons[it] = nil
			}
		}
		for _, r := range rows {
			if c := coupons[Item{order.Owner{Account: r.Account, Mode: r.Mode}, r.Code, r.CustomerRef}]; c != nil {
				c.byCustomer = r.Uses
			}
		}
		return nil
	}, couponsdb.CountByCustomer, p.Accounts, p.Modes, p.Codes, pg.Column(items, func(it Item) string { return it.CustomerRef }))
}

// Redemption is an order that uses a coupon.
type Redemption struct {
	order.Ref
	Code, CustomerRef string
}

// Redeem writes, or queues, which orders use which coupons, and their counts, in the transaction that locked the coupons. An order that has a coupon
// already is an error.
func Redeem(ctx context.Context, db couponsdb.DBTX, redemptions []Redemption) error {
	if len(redemptions) == 0 {
		return nil
	}
	q := couponsdb.New(db)
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
