package inventory

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/gen/inventorydb"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/order"
)

// Level is the stock of a sku. A batch moves it as its commands are decided.
type Level struct {
	OnHand, Reserved           int64
	onHandMoved, reservedMoved int64
}

// Move is a change of an item's level by pieces.
type Move struct {
	order.Item
	OnHand, Reserved int64
}

// Available is the number of pieces that can still be sold.
func (l *Level) Available() int64 { return l.OnHand - l.Reserved }

// Move changes the level by pieces; Write stores it.
func (l *Level) Move(onHand, reserved int64) {
	l.OnHand, l.onHandMoved = l.OnHand+onHand, l.onHandMoved+onHand
	l.Reserved, l.reservedMoved = l.Reserved+reserved, l.reservedMoved+reserved
}

// Stock is the locked levels of a batch. A sku without a stock row is not in it.
type Stock map[order.Item]*Level

func itemParams(items []order.Item) inventorydb.LockStockParams {
	return inventorydb.LockStockParams{
		Accounts: pg.Column(items, func(it order.Item) int32 { return it.Account }),
		Modes:    pg.Column(items, func(it order.Item) string { return it.Mode }),
		Skus:     pg.Column(items, func(it order.Item) string { return it.SKU }),
	}
}

// Lock locks the items' stock rows in the transaction, in the order of (account, mode, sku), and reads them. With onlyFree it does not
// wait: a row that another transaction holds is left out.
func Lock(ctx context.Context, tx pgx.Tx, items []order.Item, onlyFree bool) (Stock, error) {
	q, p := inventorydb.New(tx), itemParams(items)
	rows, err := pg.Lock(ctx, onlyFree, q.LockStock, p, q.LockFreeStock, inventorydb.LockFreeStockParams(p),
		func(r inventorydb.LockFreeStockRow) inventorydb.LockStockRow { return inventorydb.LockStockRow(r) })
	if err != nil {
		return nil, fmt.Errorf("lock stock: %w", err)
	}
	stock := make(Stock, len(rows))
	for _, row := range rows {
		stock[order.Item{Owner: order.Owner{Account: row.Account, Mode: row.Mode}, SKU: row.Sku}] = &Level{OnHand: row.OnHand, Reserved: row.Reserved}
	}
	return stock, nil
}

// lockedElsewhere are the items that have a stock row and are not in the stock that was locked without waiting.
func lockedElsewhere(ctx context.Context, tx pgx.Tx, items []order.Item, stock Stock) (map[order.Item]bool, error) {
	rows, err := inventorydb.New(tx).StockOf(ctx, inventorydb.StockOfParams(itemParams(items)))
	if err != nil {
		return nil, fmt.Errorf("look stock up: %w", err)
	}
	locked := map[order.Item]bool{}
	for _, r := range rows {
		if it := (order.Item{Owner: order.Owner{Account: r.Account, Mode: r.Mode}, SKU: r.Sku}); stock[it] == nil {
			locked[it] = true
		}
	}
	return locked, nil
}

// Write stores the levels that moved, one UPDATE of each row, in the transaction that locked them. The error is a level that could not
// be moved, which is a bug because the rows are locked. The transaction must be rolled back then.
func (s Stock) Write(ctx context.Context, tx pgx.Tx) error {
	var moved []order.Item
	for it, l := range s {
		if l.onHandMoved != 0 || l.reservedMoved != 0 {
			moved = append(moved, it)
		}
	}
	if len(moved) == 0 {
		return nil
	}
	keys := itemParams(moved)
	n, err := inventorydb.New(tx).MoveStock(ctx, inventorydb.MoveStockParams{
		Accounts:       keys.Accounts,
		Modes:          keys.Modes,
		Skus:           keys.Skus,
		OnHandDeltas:   pg.Column(moved, func(it order.Item) int64 { return s[it].onHandMoved }),
		ReservedDeltas: pg.Column(moved, func(it order.Item) int64 { return s[it].reservedMoved }),
	})
	if err != nil {
		return fmt.Errorf("move stock: %w", err)
	}
	if n != int64(len(moved)) {
		return fmt.Errorf("stock moved of %d skus instead of %d", n, len(moved))
	}
	return nil
}
