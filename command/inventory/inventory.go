// Package inventory is the bounded context of stock: it reserves, confirms, cancels and expires. It owns the tables stock and
// stock_reservations, takes commands and answers by messages. Everything is decided on the primary, under the locks of the
// skus in their order.
package inventory

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/gen/inventorydb"
	"github.com/ordergate/ordergate/internal/bus"
	"github.com/ordergate/ordergate/internal/outbox"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/order"
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

// Consumers are the context's subscriptions.
func (inv *Inventory) Consumers() []bus.Consumer {
	return []bus.Consumer{{Name: "inventory", Topic: TopicCommands, Handle: inv.Handle}}
}

// command is a command on its way through a batch.
type command struct {
	outbox.Envelope
	Command
}

func (c command) ref() ref { return ref{c.Ref(), c.Attempt} }

// Handle takes a batch of commands, no two of one order. In the given transaction it decides them one by one in their order, so
// that only what does not fit is refused, writes one UPDATE for each distinct sku, and sends a Reply for each. A command whose
// outcome is known sends nothing again: its reply is on its way.
//
// Reserve holds all lines or none. A Cancel that comes first leaves a tombstone, which refuses the Reserve. Confirm takes held
// pieces out of the stock; Cancel releases held pieces and gives confirmed ones back.
func (inv *Inventory) Handle(ctx context.Context, tx pgx.Tx, msgs []bus.Message) (func(), error) {
	commands, refs := make([]command, len(msgs)), make([]ref, len(msgs))
	for i, m := range msgs {
		c, err := open(m)
		if err != nil {
			return nil, err
		}
		commands[i], refs[i] = c, c.ref()
	}
	known, err := lockReservations(ctx, tx, refs)
	if err != nil {
		return nil, err
	}
	b := &batch{known: known}
	for _, c := range commands {
		lines := c.Lines
		if r := known[c.ref()]; r != nil {
			lines = r.lines
		}
		b.need(c.ref(), lines)
	}
	if err = b.lock(ctx, tx); err != nil {
		return nil, err
	}
	for _, c := range commands {
		inv.decide(b, c)
	}
	return inv.cfg.Wake, b.write(ctx, tx)
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
	case Reserve, Confirm, Cancel:
		return c, nil
	}
	return command{}, fmt.Errorf("unknown command %q", c.Type)
}

// batch is what one transaction locks, decides and writes.
type batch struct {
	known   map[ref]*reservation
	items   []order.Item
	stock   Stock
	now     time.Time // the database's clock
	changed []*reservation
	replies []outbox.Message
}

// need names the skus of lines.
func (b *batch) need(r ref, lines []Line) {
	for _, l := range lines {
		b.items = append(b.items, r.item(l))
	}
}

// lock locks the needed skus and reads the clock after that.
func (b *batch) lock(ctx context.Context, tx pgx.Tx) (err error) {
	if b.stock, err = Lock(ctx, tx, b.items, false); err != nil {
		return err
	}
	if b.now, err = inventorydb.New(tx).DatabaseNow(ctx); err != nil {
		return fmt.Errorf("read clock: %w", err)
	}
	return nil
}

func (b *batch) write(ctx context.Context, tx pgx.Tx) error {
	if err := b.stock.Write(ctx, tx); err != nil {
		return err
	}
	if err := writeReservations(ctx, tx, b.changed); err != nil {
		return err
	}
	if err := outbox.Send(ctx, tx, b.replies); err != nil {
		return fmt.Errorf("send replies: %w", err)
	}
	return nil
}

// decide decides one command.
func (inv *Inventory) decide(b *batch, c command) {
	r, reply := b.known[c.ref()], Reply{Attempt: c.Attempt}
	var kind string
	switch {
	case c.Type == Reserve && r == nil:
		r = &reservation{ref: c.ref(), status: refused, expires: b.now.Add(inv.cfg.TTL)}
		kind, reply.SKUs = ReserveRefused, short(b.stock, c.ref(), c.Lines)
		if len(reply.SKUs) == 0 {
			r.status, r.lines = held, c.Lines
			expires := rfc3339.New(r.expires)
			kind, reply.ExpiresAt = Reserved, &expires
			r.move(b.stock, 0, 1)
		}
	case c.Type == Reserve && r.status == cancelled && len(r.lines) == 0:
		kind = ReserveRefused
	case c.Type == Confirm && r != nil && r.status == held:
		kind, r.status = Confirmed, confirmed
		r.move(b.stock, -1, -1)
	case c.Type == Confirm && (r == nil || r.status != confirmed):
		kind = ConfirmRefused
	case c.Type == Cancel && r == nil:
		kind, r = Cancelled, &reservation{ref: c.ref(), status: cancelled, expires: b.now}
	case c.Type == Cancel && r.status == held:
		kind, r.status = Cancelled, cancelled
		r.move(b.stock, 0, -1)
	case c.Type == Cancel && r.status == confirmed:
		kind, r.status = Cancelled, cancelled
		r.move(b.stock, 1, 0)
	case c.Type == Cancel && (r.status == expired || r.status == refused):
		kind = Cancelled
	default:
		return
	}
	if r != nil && r.status != r.stored {
		b.changed = append(b.changed, r)
	}
	inv.reply(b, kind, c.ref(), reply, c.TraceID)
}

// reply sends a reply to the saga. An expiry has no request: its reply begins a trace.
func (inv *Inventory) reply(b *batch, kind string, about ref, data Reply, traceID string) {
	id := inv.cfg.IDs.Mint(b.now, about.Account)
	cause := outbox.Cause{ID: id, TraceID: cmp.Or(traceID, id.Format("")), Now: b.now}
	b.replies = append(b.replies, outbox.New(TopicReplies, kind, about.Ref, cause, data))
}

// expireBatch bounds how many reservations one transaction ends; LockExpired has the same figure.
const expireBatch = 100

// Expire ends reservations whose time is over by the database's clock, up to a hundred in one transaction, gives their pieces
// back and tells the saga. It returns how many. Safe to run in several processes. It has 5 s, as the database may have fallen silent.
func (inv *Inventory) Expire(ctx context.Context) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err = pg.InTx(ctx, inv.cfg.Pool, func(tx pgx.Tx) error {
		rows, err := inventorydb.New(tx).LockExpired(ctx)
		if err != nil || len(rows) == 0 {
			return err
		}
		refs := make([]ref, len(rows))
		for i, row := range rows {
			refs[i] = refOf(row.Account, row.Mode, row.OrderID, row.Attempt)
		}
		known, err := lockReservations(ctx, tx, refs)
		if err != nil {
			return err
		}
		b := &batch{known: known}
		for _, f := range refs {
			b.need(f, known[f].lines)
		}
		if err = b.lock(ctx, tx); err != nil {
			return err
		}
		for _, f := range refs {
			r := known[f]
			r.status = expired
			r.move(b.stock, 0, -1)
			b.changed = append(b.changed, r)
			inv.reply(b, Expired, f, Reply{Attempt: f.attempt}, "")
		}
		n = len(rows)
		return b.write(ctx, tx)
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
		if n == expireBatch {
			continue // more may be waiting
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
