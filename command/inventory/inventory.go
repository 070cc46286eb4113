// Package inventory is the bounded context of stock: it reserves, confirms, cancels and expires. It owns the tables stock and
// stock_reservations, takes commands and answers by messages. Everything is decided on the primary, under the locks of the
// skus in their order.
package inventory

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/gen/inventorydb"
	"github.com/ordergate/ordergate/internal/bus"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/order"
)

// Statuses of a reservation.
const (
	held      = "held"
	refused   = "refused"
	confirmed = "confirmed"
	cancelled = "cancelled"
	expired   = "expired"
)

// Config is what Inventory needs.
type Config struct {
	Pool *pgxpool.Pool
	IDs  order.IDs
	TTL  time.Duration // how long a reservation is held
	Wake func()        // tells the relay that the outbox has something
	Log  *zap.Logger
}

// Inventory is the context's operations. Safe for concurrent use.
type Inventory struct{ cfg Config }

// New returns an Inventory.
func New(c Config) *Inventory { return &Inventory{c} }

// ref names one attempt to reserve an order's stock.
type ref struct {
	owner   order.Owner
	orderID order.ID
	attempt int32
}

// item is a sku of an account.
type item struct {
	owner order.Owner
	sku   string
}

// level is an item's stock, moved as the batch is decided.
type level struct{ onHand, reserved, onHandDelta, reservedDelta int64 }

// reservation is a header with its lines.
type reservation struct {
	ref
	status  string
	expires time.Time
	lines   []Line
	from    string // the status in the database; empty: not there yet
}

// Handle takes a batch of commands, no two of one order. In the given transaction it decides them one by one in their order, so
// that only what does not fit is refused, writes one UPDATE for each distinct sku, and sends a Reply for each. A command whose
// outcome is known sends nothing again: the reply of then is on its way.
//
// Reserve holds all lines or none. A Cancel that comes first leaves a tombstone, which refuses the Reserve. Confirm takes held
// pieces out of the stock; Cancel releases held pieces and gives confirmed ones back.
func (inv *Inventory) Handle(ctx context.Context, tx pgx.Tx, msgs []bus.Message) (func(), error) {
	q := inventorydb.New(tx)
	commands, refs := make([]Command, len(msgs)), make([]ref, len(msgs))
	for i, m := range msgs {
		if err := json.Unmarshal(m.Payload, &commands[i]); err != nil {
			return nil, fmt.Errorf("decode command: %w", err)
		}
		if k := commands[i].Kind; k != Reserve && k != Confirm && k != Cancel {
			return nil, fmt.Errorf("unknown command %q", k)
		}
		refs[i] = ref{commands[i].Owner, commands[i].OrderID, commands[i].Attempt}
	}
	known, err := load(ctx, q, refs)
	if err != nil {
		return nil, err
	}
	items := map[item]*level{}
	for i, c := range commands {
		lines := c.Lines
		if r := known[refs[i]]; r != nil {
			lines = r.lines
		}
		for _, l := range lines {
			items[item{c.Owner, l.SKU}] = nil
		}
	}
	now, err := lockStock(ctx, q, items)
	if err != nil {
		return nil, err
	}
	var moved []*reservation
	var out []bus.Outgoing
	for i, c := range commands {
		r := known[refs[i]]
		reply := Reply{Owner: c.Owner, OrderID: c.OrderID, Attempt: c.Attempt}
		switch {
		case c.Kind == Reserve && r == nil:
			r = &reservation{ref: refs[i], status: refused, expires: now.Add(inv.cfg.TTL).Truncate(time.Microsecond)}
			reply.Kind, reply.SKUs = ReserveRefused, short(items, c)
			if len(reply.SKUs) == 0 {
				r.status, r.lines = held, c.Lines
				reply.Kind, reply.ExpiresAt = Reserved, r.expires
				r.move(items, 0, 1)
			}
		case c.Kind == Reserve && r.status == cancelled && len(r.lines) == 0:
			reply.Kind = ReserveRefused
		case c.Kind == Confirm && r != nil && r.status == held:
			reply.Kind, r.status = Confirmed, confirmed
			r.move(items, -1, -1)
		case c.Kind == Confirm && (r == nil || r.status != confirmed):
			reply.Kind = ConfirmRefused
		case c.Kind == Cancel && r == nil:
			reply.Kind, r = Cancelled, &reservation{ref: refs[i], status: cancelled, expires: now}
		case c.Kind == Cancel && r.status == held:
			reply.Kind, r.status = Cancelled, cancelled
			r.move(items, 0, -1)
		case c.Kind == Cancel && r.status == confirmed:
			reply.Kind, r.status = Cancelled, cancelled
			r.move(items, 1, 0)
		case c.Kind == Cancel && (r.status == expired || r.status == refused):
			reply.Kind = Cancelled
		default:
			continue
		}
		if r != nil {
			moved = append(moved, r)
		}
		m, err := inv.message(reply, now, msgs[i].TraceID)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	if err = write(ctx, q, items, moved); err != nil {
		return nil, err
	}
	if err = bus.Send(ctx, tx, out); err != nil {
		return nil, fmt.Errorf("send replies: %w", err)
	}
	return inv.cfg.Wake, nil
}

// Expire ends reservations whose time is over by the database's clock, up to a hundred in one transaction, gives their pieces
// back and tells the saga. It returns how many. Safe to run in several processes. It has 5 s, as the database may have fallen silent.
func (inv *Inventory) Expire(ctx context.Context) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err = pg.InTx(ctx, inv.cfg.Pool, func(tx pgx.Tx) error {
		q := inventorydb.New(tx)
		rows, err := q.LockExpired(ctx)
		if err != nil || len(rows) == 0 {
			return err
		}
		refs := make([]ref, len(rows))
		for i, row := range rows {
			refs[i] = ref{order.Owner{Account: row.Account, Mode: row.Mode}, order.ID(row.OrderID), row.Attempt}
		}
		known, err := load(ctx, q, refs)
		if err != nil {
			return err
		}
		items := map[item]*level{}
		for _, r := range known {
			for _, l := range r.lines {
				items[item{r.owner, l.SKU}] = nil
			}
		}
		now, err := lockStock(ctx, q, items)
		if err != nil {
			return err
		}
		var moved []*reservation
		var out []bus.Outgoing
		for _, f := range refs {
			r := known[f]
			r.status = expired
			r.move(items, 0, -1)
			moved = append(moved, r)
			m, err := inv.message(Reply{Kind: ReservationEnded, Owner: f.owner, OrderID: f.orderID, Attempt: f.attempt}, now, "")
			if err != nil {
				return err
			}
			out = append(out, m)
		}
		if err = write(ctx, q, items, moved); err != nil {
			return err
		}
		n = len(rows)
		return bus.Send(ctx, tx, out)
	})
	if err != nil {
		return 0, err
	}
	if n > 0 {
		inv.cfg.Wake()
	}
	return n, nil
}

// Run expires reservations every second until ctx ends.
func (inv *Inventory) Run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		n, err := inv.Expire(ctx)
		if err != nil && ctx.Err() == nil {
			inv.cfg.Log.Error("expire reservations", zap.Error(err))
		}
		if n == 100 {
			continue // more may be waiting
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// load locks and reads the reservations that exist.
func load(ctx context.Context, q *inventorydb.Queries, refs []ref) (map[ref]*reservation, error) {
	var p inventorydb.LockReservationsParams
	for _, r := range refs {
		p.Accounts, p.Modes = append(p.Accounts, r.owner.Account), append(p.Modes, r.owner.Mode)
		p.OrderIds, p.Attempts = append(p.OrderIds, uuid.UUID(r.orderID)), append(p.Attempts, r.attempt)
	}
	headers, err := q.LockReservations(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("lock reservations: %w", err)
	}
	known := make(map[ref]*reservation, len(headers))
	for _, h := range headers {
		f := ref{order.Owner{Account: h.Account, Mode: h.Mode}, order.ID(h.OrderID), h.Attempt}
		known[f] = &reservation{ref: f, status: h.Status, from: h.Status, expires: h.ExpiresAt}
	}
	if len(known) == 0 {
		return known, nil
	}
	lines, err := q.GetReservationLines(ctx, inventorydb.GetReservationLinesParams(p))
	if err != nil {
		return nil, fmt.Errorf("read reservation lines: %w", err)
	}
	for _, l := range lines {
		r := known[ref{order.Owner{Account: l.Account, Mode: l.Mode}, order.ID(l.OrderID), l.Attempt}]
		r.lines = append(r.lines, Line{l.Sku, l.Quantity})
	}
	return known, nil
}

// lockStock locks the items in their order and fills in their levels; an item without stock stays nil. It returns the
// database's clock.
func lockStock(ctx context.Context, q *inventorydb.Queries, items map[item]*level) (time.Time, error) {
	var p inventorydb.LockStockParams
	for it := range items {
		p.Accounts, p.Modes, p.Skus = append(p.Accounts, it.owner.Account), append(p.Modes, it.owner.Mode), append(p.Skus, it.sku)
	}
	rows, err := q.LockStock(ctx, p)
	if err != nil {
		return time.Time{}, fmt.Errorf("lock stock: %w", err)
	}
	for _, row := range rows {
		items[item{order.Owner{Account: row.Account, Mode: row.Mode}, row.Sku}] = &level{onHand: row.OnHand, reserved: row.Reserved}
	}
	now, err := q.DatabaseNow(ctx)
	if err != nil {
		return time.Time{}, fmt.Errorf("read clock: %w", err)
	}
	return now.UTC(), nil
}

// short is what of the command's lines cannot be had.
func short(items map[item]*level, c Command) (skus []order.ShortSKU) {
	for _, l := range c.Lines {
		available := int64(0)
		if lv := items[item{c.Owner, l.SKU}]; lv != nil {
			available = lv.onHand - lv.reserved
		}
		if available < l.Quantity {
			skus = append(skus, order.ShortSKU{SKU: l.SKU, Requested: l.Quantity, Available: available})
		}
	}
	return skus
}

// move changes the levels by the reservation's lines, times the given signs.
func (r *reservation) move(items map[item]*level, onHand, reserved int64) {
	for _, l := range r.lines {
		lv := items[item{r.owner, l.SKU}]
		lv.onHand, lv.onHandDelta = lv.onHand+onHand*l.Quantity, lv.onHandDelta+onHand*l.Quantity
		lv.reserved, lv.reservedDelta = lv.reserved+reserved*l.Quantity, lv.reservedDelta+reserved*l.Quantity
	}
}

// write stores levels and reservations. It fails if a level could not be moved: the rows are locked, so that would be a bug, and
// nothing is written then.
func write(ctx context.Context, q *inventorydb.Queries, items map[item]*level, moved []*reservation) error {
	var stock inventorydb.MoveStockParams
	for it, lv := range items {
		if lv == nil || lv.onHandDelta == 0 && lv.reservedDelta == 0 {
			continue
		}
		stock.Accounts, stock.Modes, stock.Skus = append(stock.Accounts, it.owner.Account), append(stock.Modes, it.owner.Mode), append(stock.Skus, it.sku)
		stock.OnHandDeltas, stock.ReservedDeltas = append(stock.OnHandDeltas, lv.onHandDelta), append(stock.ReservedDeltas, lv.reservedDelta)
	}
	if len(stock.Skus) > 0 {
		n, err := q.MoveStock(ctx, stock)
		if err != nil {
			return fmt.Errorf("move stock: %w", err)
		}
		if n != int64(len(stock.Skus)) {
			return fmt.Errorf("stock moved of %d skus instead of %d", n, len(stock.Skus))
		}
	}
	// Sorted, so that two batches that lay tombstones for the same orders cannot wait for each other.
	slices.SortFunc(moved, func(a, b *reservation) int {
		return cmp.Or(slices.Compare(a.orderID[:], b.orderID[:]), cmp.Compare(a.attempt, b.attempt))
	})
	var inserts inventorydb.InsertReservationsParams
	var moves inventorydb.MoveReservationsParams
	var lines inventorydb.InsertReservationLinesParams
	for _, r := range moved {
		id := uuid.UUID(r.orderID)
		if r.from != "" {
			moves.Accounts, moves.Modes, moves.OrderIds = append(moves.Accounts, r.owner.Account), append(moves.Modes, r.owner.Mode), append(moves.OrderIds, id)
			moves.Attempts, moves.FromStatuses, moves.Statuses = append(moves.Attempts, r.attempt), append(moves.FromStatuses, r.from), append(moves.Statuses, r.status)
			continue
		}
		inserts.Accounts, inserts.Modes, inserts.OrderIds = append(inserts.Accounts, r.owner.Account), append(inserts.Modes, r.owner.Mode), append(inserts.OrderIds, id)
		inserts.Attempts, inserts.Statuses, inserts.ExpiresAts = append(inserts.Attempts, r.attempt), append(inserts.Statuses, r.status), append(inserts.ExpiresAts, r.expires)
		for _, l := range r.lines {
			lines.Accounts, lines.Modes, lines.OrderIds = append(lines.Accounts, r.owner.Account), append(lines.Modes, r.owner.Mode), append(lines.OrderIds, id)
			lines.Attempts, lines.Skus, lines.Quantities = append(lines.Attempts, r.attempt), append(lines.Skus, l.SKU), append(lines.Quantities, l.Quantity)
		}
	}
	if len(inserts.OrderIds) > 0 {
		if err := q.InsertReservations(ctx, inserts); err != nil {
			return fmt.Errorf("write reservations: %w", err)
		}
	}
	if len(moves.OrderIds) > 0 {
		n, err := q.MoveReservations(ctx, moves)
		if err != nil {
			return fmt.Errorf("move reservations: %w", err)
		}
		if n != int64(len(moves.OrderIds)) {
			return fmt.Errorf("%d reservations moved instead of %d", n, len(moves.OrderIds))
		}
	}
	if len(lines.Skus) > 0 {
		if err := q.InsertReservationLines(ctx, lines); err != nil {
			return fmt.Errorf("write reservation lines: %w", err)
		}
	}
	return nil
}

// message is a reply on its way to the saga. What no request caused begins a trace of its own.
func (inv *Inventory) message(r Reply, now time.Time, traceID string) (bus.Outgoing, error) {
	payload, err := json.Marshal(r)
	if err != nil {
		return bus.Outgoing{}, fmt.Errorf("encode reply: %w", err)
	}
	id := uuid.UUID(inv.cfg.IDs.Mint(now, r.Owner.Account))
	return bus.Outgoing{
		Topic: TopicReplies, Key: r.OrderID.Format(order.PrefixOrder), Shard: r.OrderID.Shard(), TraceID: cmp.Or(traceID, id.String()), ID: id, Payload: payload,
	}, nil
}
