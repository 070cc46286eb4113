// Package catalogue is the bounded context of products: their names and prices. It owns the table products.
package catalogue

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/cataloguedb"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/order"
)

// Product is a product in the work of one transaction.
type Product struct {
	order.Product
	Description          string
	LowStockAt           *int64 // nil: no threshold
	Version              int64
	Rev                  int64 // of the row, after Write
	CreatedAt, UpdatedAt time.Time
	Superseded           bool // the row had a later revision already when the log's position was read
	created, changed     bool
}

// New is a product that Write inserts.
func New(now time.Time) *Product {
	at := now.UTC().Truncate(time.Microsecond)
	return &Product{Version: 1, CreatedAt: at, UpdatedAt: at, created: true}
}

// Touch counts a change of the product, which Write stores.
func (p *Product) Touch(now time.Time) {
	p.Version, p.UpdatedAt, p.changed = p.Version+1, now.UTC().Truncate(time.Microsecond), true
}

// Changed tells whether Write stores the product: it was created or changed.
func (p *Product) Changed() bool { return p.created || p.changed }

// PricesOf are prices by their currencies. REQ_002: currencies stand there twice.
func PricesOf(list []order.Money) (map[string]int64, error) {
	prices := make(map[string]int64, len(list))
	var faults []apierr.Fault
	for i, m := range list {
		if _, twice := prices[m.Currency]; twice {
			faults = append(faults, apierr.Fault{Pointer: fmt.Sprintf("/prices/%d/currency", i), Rule: errcode.RuleUnique})
		}
		prices[m.Currency] = m.Amount
	}
	if len(faults) > 0 {
		return nil, apierr.E(errcode.REQ002, apierr.Faults(faults...))
	}
	return prices, nil
}

// Products are the locked products of a batch. One that does not exist is not in it.
type Products map[order.Item]*Product

// Changed are the items whose product Write stores.
func (ps Products) Changed() (items []order.Item) {
	for it, p := range ps {
		if p.Changed() {
			items = append(items, it)
		}
	}
	return items
}

func itemParams(items []order.Item) cataloguedb.LockProductsParams {
	return cataloguedb.LockProductsParams{
		Accounts: pg.Column(items, func(it order.Item) int32 { return it.Account }),
		Modes:    pg.Column(items, func(it order.Item) string { return it.Mode }),
		Skus:     pg.Column(items, func(it order.Item) string { return it.SKU }),
	}
}

func itemOf(account int32, mode, sku string) order.Item {
	return order.Item{Owner: order.Owner{Account: account, Mode: mode}, SKU: sku}
}

// Read reads products in the transaction, without locks: an order takes the price of the moment. A product that does not exist is not
// in the result.
func Read(ctx context.Context, tx pgx.Tx, items []order.Item) (map[order.Item]*order.Product, error) {
	batch, products := &pgx.Batch{}, map[order.Item]*order.Product{}
	QueueRead(batch, items, products)
	return products, tx.SendBatch(ctx, batch).Close()
}

// QueueRead is Read as one of the statements of a batch. It puts the products into the map.
func QueueRead(to *pgx.Batch, items []order.Item, products map[order.Item]*order.Product) {
	p := itemParams(items)
	pg.Query(to, func(rows []cataloguedb.GetProductsRow) error {
		for _, row := range rows {
			p := &order.Product{Name: row.Name, Active: row.Active}
			if err := json.Unmarshal(row.Prices, &p.Prices); err != nil {
				return fmt.Errorf("prices of %s: %w", row.Sku, err)
			}
			products[itemOf(row.Account, row.Mode, row.Sku)] = p
		}
		return nil
	}, cataloguedb.GetProducts, p.Accounts, p.Modes, p.Skus)
}

// QueueLock queues the lock of the items' products, in the order of (account, mode, sku), and puts them into the map. With onlyFree it does not wait: a row
// that another transaction holds is left out.
func QueueLock(to *pgx.Batch, items []order.Item, onlyFree bool, products Products) {
	p, lock := itemParams(items), pg.LockQuery(onlyFree, cataloguedb.LockProducts, cataloguedb.LockFreeProducts)
	pg.Query(to, func(rows []cataloguedb.LockProductsRow) error {
		for _, row := range rows {
			p := &Product{
				Product: order.Product{Name: row.Name, Active: row.Active}, Description: row.Description, Version: row.Version, Rev: row.Rev,
				CreatedAt: row.CreatedAt, UpdatedAt: row.UpdatedAt,
			}
			if err := json.Unmarshal(row.Prices, &p.Prices); err != nil {
				return fmt.Errorf("prices of %s: %w", row.Sku, err)
			}
			if row.LowStockAt >= 0 {
				p.LowStockAt = &row.LowStockAt
			}
			products[itemOf(row.Account, row.Mode, row.Sku)] = p
		}
		return nil
	}, lock, p.Accounts, p.Modes, p.Skus)
}

// Write writes, or queues, the products that were created or changed, in the transaction that locked them. It is a serialization failure if another writer
// created one of them between our reading and our writing, or changed one under its lock: the command is decided again.
func (ps Products) Write(ctx context.Context, db cataloguedb.DBTX) error {
	q := cataloguedb.New(db)
	var created, changed []order.Item
	for _, it := range ps.Changed() {
		ps[it].Rev++
		if ps[it].created {
			created = append(created, it)
		} else {
			changed = append(changed, it)
		}
	}
	slices.SortFunc(created, order.Item.Compare) // two batches that create the same products cannot wait for each other
	if len(created) > 0 {
		r := ps.columns(created)
		if err := q.InsertProducts(ctx, cataloguedb.InsertProductsParams{
			Accounts:     r.Accounts,
			Modes:        r.Modes,
			Skus:         r.Skus,
			Names:        r.Names,
			Descriptions: r.Descriptions,
			Prices:       r.Prices,
			Actives:      r.Actives,
			LowStockAts:  r.LowStockAts,
			Versions:     r.Versions,
			CreatedAts:   pg.Column(created, func(it order.Item) time.Time { return ps[it].CreatedAt }),
			UpdatedAts:   r.UpdatedAts,
		}); err != nil {
			return fmt.Errorf("insert products: %w", err)
		}
	}
	if len(changed) > 0 {
		if err := q.UpdateProducts(ctx, ps.columns(changed)); err != nil {
			return fmt.Errorf("update products: %w", err)
		}
	}
	return nil
}

// columns are the products' columns, of which an INSERT takes a part.
func (ps Products) columns(items []order.Item) cataloguedb.UpdateProductsParams {
	keys := itemParams(items)
	return cataloguedb.UpdateProductsParams{
		Accounts:     keys.Accounts,
		Modes:        keys.Modes,
		Skus:         keys.Skus,
		Names:        pg.Column(items, func(it order.Item) string { return ps[it].Name }),
		Descriptions: pg.Column(items, func(it order.Item) string { return ps[it].Description }),
		Prices:       pg.Column(items, func(it order.Item) []byte { return ps[it].prices() }),
		Actives:      pg.Column(items, func(it order.Item) bool { return ps[it].Active }),
		LowStockAts:  pg.Column(items, func(it order.Item) int64 { return LowAt(ps[it].LowStockAt) }),
		Versions:     pg.Column(items, func(it order.Item) int64 { return ps[it].Version }),
		Revs:         pg.Column(items, func(it order.Item) int64 { return ps[it].Rev }),
		UpdatedAts:   pg.Column(items, func(it order.Item) time.Time { return ps[it].UpdatedAt }),
	}
}

func (p *Product) prices() []byte {
	b, err := json.Marshal(p.Prices)
	if err != nil {
		panic(fmt.Sprintf("catalogue: prices cannot be encoded: %v", err)) // a map of integers always can
	}
	return b
}

// LowAt is a threshold as arrays of SQL take it: -1 stands for none.
func LowAt(lowStockAt *int64) int64 {
	if lowStockAt == nil {
		return -1
	}
	return *lowStockAt
}

// QueueRevs adds to the batch a look at the products that were written, which marks those that have a later revision.
func (ps Products) QueueRevs(batch *pgx.Batch) {
	items := ps.Changed()
	if len(items) == 0 {
		return
	}
	p := itemParams(items)
	batch.Queue(cataloguedb.GetProductRevs, p.Accounts, p.Modes, p.Skus).Query(func(rows pgx.Rows) error {
		var it order.Item
		var rev int64
		_, err := pgx.ForEachRow(rows, []any{&it.Account, &it.Mode, &it.SKU, &rev}, func() error {
			ps[it].Superseded = ps[it].Superseded || ps[it].Rev != rev
			return nil
		})
		return err
	})
}
