package inventory

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/inventorydb"
	"github.com/ordergate/ordergate/internal/events"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/order"
)

// Level is the stock of a sku. A batch moves it as its commands are decided.
type Level struct {
	order.Item
	OnHand, Reserved           int64
	lowAt                      int64 // an event tells when Available falls to it or below; -1: never
	head                       order.Head
	onHandMoved, reservedMoved int64
	lowAtMoved                 bool
	reserving                  bool      // a reservation changed, also if the pieces did not move in the end
	created                    time.Time // of a level without a row: when its product was made
	events                     []order.ResourceEvent
}

// Types of events, and their data.
const (
	eventAdjusted = "inventory.adjusted"
	eventLow      = "inventory.low"
)

type (
	adjusted struct {
		AdjustmentID string `json:"adjustment_id"`
		Delta        int64  `json:"delta"`
		Reason       string `json:"reason"`
		OnHand       int64  `json:"on_hand"`
		Reserved     int64  `json:"reserved"`
	}
	low struct {
		OnHand     int64 `json:"on_hand"`
		Reserved   int64 `json:"reserved"`
		Available  int64 `json:"available"`
		LowStockAt int64 `json:"low_stock_at"`
	}
)

// History reads a sku's events one by one, as a check that this program understands them.
type History struct{ version int64 }

// Apply takes the next event. It fails on an unknown type or schema version, data that cannot be decoded, or a gap.
func (h *History) Apply(e order.Event) error {
	data := map[string]any{eventAdjusted: &adjusted{}, eventLow: &low{}}[e.Type]
	switch {
	case e.Version != h.version+1:
		return fmt.Errorf("sequence %d follows %d", e.Version, h.version)
	case data == nil:
		return fmt.Errorf("sequence %d: unknown event type %q", e.Version, e.Type)
	case e.Schema != schema:
		return fmt.Errorf("sequence %d: %s of unknown schema version %d", e.Version, e.Type, e.Schema)
	}
	h.version = e.Version
	if err := json.Unmarshal(e.Payload, data); err != nil {
		return fmt.Errorf("sequence %d: %s: %w", e.Version, e.Type, err)
	}
	return nil
}

// schema is the version of the events' data.
const schema = 1

// maxOnHand is the greatest number of pieces that every client can represent.
const maxOnHand = 1<<53 - 1

// Available is the number of pieces that can still be sold.
func (l *Level) Available() int64 { return l.OnHand - l.Reserved }

// move changes the level by pieces; Write stores it. It records inventory.low if the pieces that can still be sold fall to the threshold
// or below it.
func (l *Level) move(rec order.Recorder, onHand, reserved int64) {
	above := l.Available() > l.lowAt
	l.OnHand, l.onHandMoved = l.OnHand+onHand, l.onHandMoved+onHand
	l.Reserved, l.reservedMoved = l.Reserved+reserved, l.reservedMoved+reserved
	l.recordLow(rec, above)
}

func (l *Level) recordLow(rec order.Recorder, wasAbove bool) {
	if wasAbove && l.Available() <= l.lowAt {
		l.record(rec, eventLow, low{l.OnHand, l.Reserved, l.Available(), l.lowAt})
	}
}

// lastEvent is the instant of the batch's last event; zero without one.
func (l *Level) lastEvent() (at time.Time) {
	for _, e := range l.events {
		at = e.At
	}
	return at
}

func (l *Level) record(rec order.Recorder, eventType string, data any) {
	r := order.Resource{Owner: l.Owner, Kind: order.KindInventory, ID: l.SKU}
	l.events = append(l.events, l.head.Next(r, rec, eventType, schema, data))
}

// Adjust changes the pieces on hand by delta and records inventory.adjusted. INV_006: more would be taken off than can still be sold, or
// more added than can be counted. It says what can be.
func (l *Level) Adjust(rec order.Recorder, id order.ID, delta int64, reason string) error {
	least, most := -l.Available(), maxOnHand-l.OnHand
	outside := func(rule errcode.Rule, bound int64) error {
		return apierr.E(errcode.INV006, apierr.Faults(apierr.Fault{Pointer: "/delta", Rule: rule, Expected: strconv.FormatInt(bound, 10)}))
	}
	switch {
	case delta < least:
		return outside(errcode.RuleMinimum, least)
	case delta > most:
		return outside(errcode.RuleMaximum, most)
	}
	// The event of the adjustment comes before that of the low stock which it leads to.
	l.record(rec, eventAdjusted, adjusted{id.Format(order.PrefixAdjustment), delta, reason, l.OnHand + delta, l.Reserved})
	l.move(rec, delta, 0)
	return nil
}

// SetLowAt changes the threshold; -1: none. It records inventory.low if what can still be sold was above the old one and is not above the
// new one.
func (l *Level) SetLowAt(rec order.Recorder, lowAt int64) {
	if lowAt == l.lowAt {
		return
	}
	above := l.Available() > l.lowAt
	l.lowAt, l.lowAtMoved = lowAt, true
	l.recordLow(rec, above && l.created.IsZero())
}

// Stock is the locked levels of a batch. A sku without a stock row is not in it.
type Stock map[order.Item]*Level

// Add makes a level without pieces of an item that has none. at is when the product was made.
func (s Stock) Add(it order.Item, at time.Time) *Level {
	l := &Level{Item: it, lowAt: -1, created: at.UTC().Truncate(time.Microsecond)}
	s[it] = l
	return l
}

func itemParams(items []order.Item) inventorydb.LockStockParams {
	return inventorydb.LockStockParams{
		Accounts: pg.Column(items, func(it order.Item) int32 { return it.Account }),
		Modes:    pg.Column(items, func(it order.Item) string { return it.Mode }),
		Skus:     pg.Column(items, func(it order.Item) string { return it.SKU }),
	}
}

func itemOf(account int32, mode, sku string) order.Item {
	return order.Item{Owner: order.Owner{Account: account, Mode: mode}, SKU: sku}
}

// Lock locks the items' stock rows in the transaction, in the order of (account, mode, sku), and reads them. With onlyFree it does not
// wait: a row that another transaction holds is left out.
func Lock(ctx context.Context, tx pgx.Tx, items []order.Item, onlyFree bool) (Stock, error) {
	batch, stock := &pgx.Batch{}, Stock{}
	QueueLock(batch, items, onlyFree, stock)
	return stock, tx.SendBatch(ctx, batch).Close()
}

// QueueLock is Lock as one of the statements of a batch. It puts the levels into the stock.
func QueueLock(to *pgx.Batch, items []order.Item, onlyFree bool, stock Stock) {
	p, lock := itemParams(items), pg.LockQuery(onlyFree, inventorydb.LockStock, inventorydb.LockFreeStock)
	pg.Query(to, func(rows []inventorydb.LockStockRow) error {
		for _, row := range rows {
			it := itemOf(row.Account, row.Mode, row.Sku)
			stock[it] = &Level{
				Item: it, OnHand: row.OnHand, Reserved: row.Reserved, lowAt: row.LowAt, head: order.Head{Version: row.Version, Hash: row.HeadHash},
			}
		}
		return nil
	}, lock, p.Accounts, p.Modes, p.Skus)
}

// Available reads how many pieces of each item can still be sold, in the transaction, without locks. An item without stock is not in the
// result.
func Available(ctx context.Context, tx pgx.Tx, items []order.Item) (map[order.Item]int64, error) {
	rows, err := inventorydb.New(tx).ReadStock(ctx, inventorydb.ReadStockParams(itemParams(items)))
	if err != nil {
		return nil, fmt.Errorf("read stock: %w", err)
	}
	available := make(map[order.Item]int64, len(rows))
	for _, r := range rows {
		available[itemOf(r.Account, r.Mode, r.Sku)] = r.OnHand - r.Reserved
	}
	return available, nil
}

// lockedElsewhere are the items that have a stock row and are not in the stock that was locked without waiting.
func lockedElsewhere(ctx context.Context, tx pgx.Tx, items []order.Item, stock Stock) (map[order.Item]bool, error) {
	rows, err := inventorydb.New(tx).StockOf(ctx, inventorydb.StockOfParams(itemParams(items)))
	if err != nil {
		return nil, fmt.Errorf("look stock up: %w", err)
	}
	locked := map[order.Item]bool{}
	for _, r := range rows {
		if it := itemOf(r.Account, r.Mode, r.Sku); stock[it] == nil {
			locked[it] = true
		}
	}
	return locked, nil
}

// addGone adds the items that have no stock row, although they have events: their commands wait until the row is back.
func addGone(ctx context.Context, tx pgx.Tx, items []order.Item, stock Stock, to map[order.Item]bool) error {
	for _, it := range items {
		if stock[it] != nil || to[it] {
			continue
		}
		recorded, err := events.Any(ctx, tx, it.Owner, order.KindInventory, []string{it.SKU})
		if err != nil {
			return err
		}
		if recorded {
			to[it] = true
		}
	}
	return nil
}

// Write writes, or queues, the levels that moved, one UPDATE of each row, and their events, in the transaction that locked them. The errors of the database:
// a serialization failure if another writer made one of the rows since; an internal error for a level that could not be moved, which is a bug because the
// rows are locked.
func (s Stock) Write(ctx context.Context, db inventorydb.DBTX) error {
	var created, moved []order.Item
	var happened []order.ResourceEvent
	for it, l := range s {
		if !l.created.IsZero() {
			created = append(created, it)
		}
		if l.onHandMoved != 0 || l.reservedMoved != 0 || l.lowAtMoved || l.reserving || len(l.events) > 0 {
			moved = append(moved, it)
			happened = append(happened, l.events...)
		}
	}
	q := inventorydb.New(db)
	if len(created) > 0 {
		slices.SortFunc(created, order.Item.Compare) // two batches that make the same rows cannot wait for each other
		keys := itemParams(created)
		if err := q.InsertStock(ctx, inventorydb.InsertStockParams{
			Accounts:   keys.Accounts,
			Modes:      keys.Modes,
			Skus:       keys.Skus,
			UpdatedAts: pg.Column(created, func(it order.Item) time.Time { return s[it].created }),
		}); err != nil {
			return fmt.Errorf("insert stock: %w", err)
		}
	}
	if len(moved) == 0 {
		return nil
	}
	keys := itemParams(moved)
	if err := q.MoveStock(ctx, inventorydb.MoveStockParams{
		Accounts:       keys.Accounts,
		Modes:          keys.Modes,
		Skus:           keys.Skus,
		OnHandDeltas:   pg.Column(moved, func(it order.Item) int64 { return s[it].onHandMoved }),
		ReservedDeltas: pg.Column(moved, func(it order.Item) int64 { return s[it].reservedMoved }),
		LowAts:         pg.Column(moved, func(it order.Item) int64 { return s[it].lowAt }),
		Versions:       pg.Column(moved, func(it order.Item) int64 { return s[it].head.Version }),
		HeadHashes:     pg.Column(moved, func(it order.Item) []byte { return append([]byte{}, s[it].head.Hash...) }), // never NULL
		Ats:            pg.Column(moved, func(it order.Item) time.Time { return s[it].lastEvent() }),
		Reserving:      pg.Column(moved, func(it order.Item) bool { return s[it].reserving }),
	}); err != nil {
		return fmt.Errorf("move stock: %w", err)
	}
	return events.Append(ctx, db, happened)
}

// Opening is the first stock of an item.
type Opening struct {
	order.Item
	OnHand int64
	LowAt  int64 // -1: no threshold
}

// Open makes stock rows in the transaction that makes their products, each with its pieces as an adjustment. An item that has a row keeps
// it.
func Open(ctx context.Context, tx pgx.Tx, rec order.Recorder, openings ...Opening) error {
	stock, err := Lock(ctx, tx, pg.Column(openings, func(o Opening) order.Item { return o.Item }), false)
	if err != nil {
		return err
	}
	for _, o := range openings {
		if stock[o.Item] != nil {
			continue
		}
		level := stock.Add(o.Item, rec.Now)
		level.SetLowAt(rec, o.LowAt)
		if o.OnHand == 0 {
			continue
		}
		if err = level.Adjust(rec, rec.NewID(), o.OnHand, "Opening stock"); err != nil {
			return err
		}
	}
	return stock.Write(ctx, tx)
}
