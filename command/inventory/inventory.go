// Package inventory is the bounded context of stock: it adjusts, reserves, confirms, cancels and expires. It owns the tables stock,
// stock_reservations and stock_reservation_lines, takes commands and replies by messages. It decides on the primary, under the locks
// of the skus in their order.
package inventory

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/gen/inventorydb"
	"github.com/ordergate/ordergate/internal/bus"
	"github.com/ordergate/ordergate/internal/failpoint"
	"github.com/ordergate/ordergate/internal/outbox"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/order"
)

// Config is what Inventory needs.
type Config struct {
	Pool *pgxpool.Pool
	IDs  order.IDs
	TTL  time.Duration // how long a reservation is held
	Wake func()        // tells the relay that the outbox has rows
	Log  *zap.Logger

	SoldOut *SoldOut // of this process; nil: one that nobody asks
}

// Inventory is the context's operations. It is safe for concurrent use.
type Inventory struct{ cfg Config }

// New returns an Inventory.
func New(c Config) *Inventory {
	c.SoldOut = cmp.Or(c.SoldOut, NewSoldOut(time.Now))
	return &Inventory{c}
}

// Consumers are the context's subscriptions.
func (inv *Inventory) Consumers() []bus.Consumer {
	return []bus.Consumer{{Name: "inventory", Topic: TopicCommands, Handle: inv.Handle}}
}

// command is a command on its way through a batch.
type command struct {
	outbox.Envelope
	Command
	items []order.Item
}

func (c command) ref() ref { return ref{c.Ref(), c.Attempt} }

// Handle takes a batch of commands, no two of one order. In the given transaction it decides them one by one in their order, so
// that only a command that does not fit is refused, writes one UPDATE for each distinct sku with the events of those that are low now,
// and sends a Reply for each. A command that has its outcome already gets no second reply. With skipLocked it leaves out the commands
// whose reservation or stock another transaction holds, and always those whose stock `ordergate replay` has yet to bring back. After COMMIT
// the skus that were short are marked as sold out; what comes back ends their marks before it.
//
// Reserve holds all lines or none. A Cancel that comes first leaves a tombstone, which refuses the Reserve. Confirm takes held
// pieces out of the stock; Cancel releases held pieces and gives confirmed ones back; Expire releases held pieces.
func (inv *Inventory) Handle(ctx context.Context, tx pgx.Tx, msgs []bus.Message, skipLocked bool) (h bus.Handled, err error) {
	commands := make([]command, len(msgs))
	for i, m := range msgs {
		if commands[i], err = open(m); err != nil {
			return h, err
		}
	}
	found, skipped, err := lockReservations(ctx, tx, pg.Column(commands, command.ref), skipLocked)
	if err != nil {
		return h, err
	}
	var items []order.Item
	for i := range commands {
		if !skipped[commands[i].ref()] {
			commands[i].items = commands[i].itemsOf(found)
			items = append(items, commands[i].items...)
		}
	}
	b := &batch{reservations: found, stock: Stock{}, refused: map[order.Item]bool{}}
	if err = b.lock(ctx, tx, items, skipLocked); err != nil {
		return h, err
	}
	locked := map[order.Item]bool{}
	if skipLocked {
		if locked, err = lockedElsewhere(ctx, tx, items, b.stock); err != nil {
			return h, err
		}
	}
	if err = addGone(ctx, tx, items, b.stock, locked); err != nil {
		return h, err
	}
	failpoint.Hit(failpoint.InventoryLocked)
	for i, c := range commands {
		if skipped[c.ref()] || slices.ContainsFunc(c.items, func(it order.Item) bool { return locked[it] }) {
			h.Blocked = append(h.Blocked, msgs[i])
		} else {
			b.take(c, inv.recorder(c, b.now), inv.cfg.TTL)
		}
	}
	inv.cfg.SoldOut.Released(b.stock)
	seen := make([]observation, 0, len(b.refused))
	for it := range b.refused {
		seen = append(seen, inv.cfg.SoldOut.observe(b.stock[it]))
	}
	if err = b.write(ctx, &h.Ends.Last); err != nil {
		return h, err
	}
	failpoint.Hit(failpoint.InventoryDecided)
	h.After = func() {
		inv.cfg.Wake()
		inv.cfg.SoldOut.mark(seen)
	}
	return h, nil
}

// itemsOf are the items that the command moves: those of the reservation if there is one.
func (c command) itemsOf(found map[ref]*Reservation) []order.Item {
	lines := c.Lines
	if r := found[c.ref()]; r != nil {
		lines = r.Lines
	}
	return pg.Column(lines, c.ref().item)
}

// open reads a command.
func open(m bus.Message) (command, error) {
	e, err := outbox.Open(m.Payload)
	if err != nil {
		return command{}, err
	}
	c := command{Envelope: e}
	if err = e.Decode(&c.Command); err != nil {
		return command{}, err
	}
	switch c.Type {
	case Reserve, Confirm, Cancel, Expire:
		return c, nil
	}
	return command{}, fmt.Errorf("unknown command %q", c.Type)
}

// batch is what one transaction locks, decides and writes.
type batch struct {
	reservations map[ref]*Reservation
	stock        Stock
	now          time.Time // the database's clock, read under the locks
	changed      []*Reservation
	replies      []outbox.Message
	refused      map[order.Item]bool // locked levels that were short
}

// lock locks the stock and reads the clock under the locks, in one round trip.
func (b *batch) lock(ctx context.Context, tx pgx.Tx, items []order.Item, onlyFree bool) error {
	batch := &pgx.Batch{}
	QueueLock(batch, items, onlyFree, b.stock)
	batch.Queue(inventorydb.DatabaseNow).QueryRow(func(row pgx.Row) error { return row.Scan(&b.now) })
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("lock stock: %w", err)
	}
	return nil
}

// write queues what the batch changes, and its replies.
func (b *batch) write(ctx context.Context, last *pg.Statements) error {
	if err := b.stock.Write(ctx, last); err != nil {
		return err
	}
	if err := writeReservations(ctx, last, b.changed); err != nil {
		return err
	}
	return outbox.Send(ctx, last, b.replies)
}

// take decides one command and puts what it changes and its reply into the batch.
func (b *batch) take(c command, rec order.Recorder, ttl time.Duration) {
	r, reply := Decide(c.Envelope, c.Command, b.reservations[c.ref()], b.stock, ttl, rec)
	if reply == nil {
		return
	}
	if r != nil && r.Status != r.stored {
		b.changed = append(b.changed, r)
		b.markShort(r, c)
	}
	b.replies = append(b.replies, *reply)
}

// markShort remembers the locked levels that were short for a reservation which was refused.
func (b *batch) markShort(r *Reservation, c command) {
	if c.Type != Reserve || r.Status != StatusRefused {
		return
	}
	for _, short := range shortages(b.stock, c.ref(), c.Lines) {
		if it := c.ref().item(Line{SKU: short.SKU}); b.stock[it] != nil {
			b.refused[it] = true
		}
	}
}

func (inv *Inventory) recorder(c command, now time.Time) order.Recorder {
	return order.Recorder{
		NewID: func() order.ID { return inv.cfg.IDs.Mint(now, c.Ref().Account) },
		Now:   now,
		Cause: order.Cause{TraceID: c.TraceID, Operation: TopicCommands, Actor: "saga"},
	}
}

// expireBatch bounds how many reservations one transaction claims.
const expireBatch = 100

// Expire sends an Expire command for each held reservation whose time is over by the database's clock, once, up to a hundred in one
// transaction, and returns how many. Reservations that a jump of that clock left in the far future get their time anew. It may run in
// several processes. It has 5 s, as the database may have fallen silent.
func (inv *Inventory) Expire(ctx context.Context) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err = pg.InTx(ctx, inv.cfg.Pool, func(tx pgx.Tx) error {
		q := inventorydb.New(tx)
		if _, err := q.RearmReservations(ctx, inv.cfg.TTL.Seconds()); err != nil {
			return fmt.Errorf("after a jump of the database's clock: %w", err)
		}
		rows, err := q.ClaimExpired(ctx, expireBatch)
		if n = len(rows); err != nil || n == 0 {
			return err
		}
		failpoint.Hit(failpoint.ExpireClaimed)
		return outbox.Send(ctx, tx, pg.Column(rows, func(r inventorydb.ClaimExpiredRow) outbox.Message {
			id := inv.cfg.IDs.Mint(r.Now, r.Account)
			cause := outbox.Cause{ID: id, TraceID: id.Format(""), Now: r.Now} // it begins a trace
			return outbox.New(TopicCommands, Expire, order.RefOf(r.Account, r.Mode, r.OrderID), cause, Command{Attempt: r.Attempt})
		}))
	})
	if err != nil {
		return 0, err
	}
	if n > 0 {
		failpoint.Hit(failpoint.ExpireCommitted)
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
		if n == expireBatch {
			continue // more may be due
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
