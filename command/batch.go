package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ordergate/ordergate/gen/ordersdb"
	"github.com/ordergate/ordergate/internal/bus"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

// change is what a transaction does to one order.
type change struct {
	owner   order.Owner
	order   *order.Order  // after the events
	events  []order.Event // none: only steps moved
	decided int64         // the version that was decided on; 0 for a new order
	rev     int64         // after the change
	address []byte        // JSON, nil if there is none
	steps   steps
	sends   []bus.Outgoing // commands to inventory and payment
	body    *view.Body
}

// finished is the order's body after the change, encoded once.
func (c *change) finished() (view.Body, error) {
	if c.body == nil {
		b, err := view.OrderBody(c.order, c.address)
		if err != nil {
			return view.Body{}, err
		}
		c.body = &b
	}
	return *c.body, nil
}

// batch collects what the commands or messages of one transaction decided and writes it.
type batch struct {
	changes []*change
	answers ordersdb.InsertAnswersParams
	knownAt uint64
	lsn     uint64
}

func (b *batch) add(c *change) { b.changes = append(b.changes, c) }

// store keeps an answer under the request's key.
func (b *batch) store(r Envelope, hash [32]byte, a Result) {
	p := &b.answers
	p.Accounts, p.Modes = append(p.Accounts, r.Owner.Account), append(p.Modes, r.Owner.Mode)
	p.Operations, p.Keys = append(p.Operations, r.Operation), append(p.Keys, r.Key)
	p.RequestHashes, p.Statuses = append(p.RequestHashes, hash[:]), append(p.Statuses, int32(a.Status))
	p.ContentTypes, p.Etags = append(p.ContentTypes, a.ContentType), append(p.Etags, a.Body.ETag)
	p.Locations, p.Bodies = append(p.Locations, a.Location), append(p.Bodies, a.Body.Bytes)
	p.OrderIds = append(p.OrderIds, pgID(a.OrderID))
}

// errConflict: somebody else changed the order between our reading and our writing, although we held its lock. What was decided
// is decided again.
var errConflict = &pgconn.PgError{Code: "40001", Message: "order changed under its lock"}

// write sends everything in two round trips: the log's position under the locks, then all rows at once.
func (b *batch) write(ctx context.Context, tx pgx.Tx) error {
	q := ordersdb.New(tx)
	lsn, err := q.FlushLSN(ctx)
	if err != nil {
		return fmt.Errorf("read log position: %w", err)
	}
	b.knownAt = uint64(lsn)
	var inserts ordersdb.InsertOrdersParams
	var updates ordersdb.UpdateOrdersParams
	var events ordersdb.InsertEventsParams
	var addresses ordersdb.InsertAddressesParams
	var moved ordersdb.PutStepsParams
	var out []bus.Outgoing
	for _, c := range b.changes {
		o, id := c.order, pgID(c.order.ID)
		state, err := json.Marshal(o)
		if err != nil {
			return fmt.Errorf("encode order: %w", err)
		}
		if c.decided == 0 {
			c.rev = 1
			inserts.Accounts, inserts.Modes, inserts.Ids = append(inserts.Accounts, c.owner.Account), append(inserts.Modes, c.owner.Mode), append(inserts.Ids, id)
			inserts.Shards, inserts.CustomerRefs = append(inserts.Shards, o.ID.Shard()), append(inserts.CustomerRefs, o.CustomerRef)
			inserts.Statuses, inserts.PaymentStatuses = append(inserts.Statuses, string(o.Status)), append(inserts.PaymentStatuses, string(o.PaymentStatus))
			inserts.Versions, inserts.HeadHashes, inserts.States = append(inserts.Versions, o.Version), append(inserts.HeadHashes, o.HeadHash), append(inserts.States, state)
			inserts.CreatedAts, inserts.UpdatedAts = append(inserts.CreatedAts, o.CreatedAt), append(inserts.UpdatedAts, o.UpdatedAt)
			if c.address != nil {
				addresses.Accounts, addresses.Modes = append(addresses.Accounts, c.owner.Account), append(addresses.Modes, c.owner.Mode)
				addresses.OrderIds, addresses.Addresses = append(addresses.OrderIds, id), append(addresses.Addresses, c.address)
			}
		} else if len(c.events) > 0 {
			c.rev++
			updates.Accounts, updates.Modes, updates.Ids = append(updates.Accounts, c.owner.Account), append(updates.Modes, c.owner.Mode), append(updates.Ids, id)
			updates.ExpectedVersions, updates.Versions = append(updates.ExpectedVersions, c.decided), append(updates.Versions, o.Version)
			updates.Statuses, updates.PaymentStatuses = append(updates.Statuses, string(o.Status)), append(updates.PaymentStatuses, string(o.PaymentStatus))
			updates.HeadHashes, updates.States, updates.UpdatedAts = append(updates.HeadHashes, o.HeadHash), append(updates.States, state), append(updates.UpdatedAts, o.UpdatedAt)
		}
		for _, e := range c.events {
			events.Accounts, events.Modes, events.OrderIds = append(events.Accounts, c.owner.Account), append(events.Modes, c.owner.Mode), append(events.OrderIds, id)
			events.Versions, events.Ids, events.Types = append(events.Versions, e.Version), append(events.Ids, uuid.UUID(e.ID)), append(events.Types, e.Type)
			events.SchemaVersions, events.Payloads = append(events.SchemaVersions, e.Schema), append(events.Payloads, string(e.Payload))
			events.TraceIds, events.Operations, events.Actors = append(events.TraceIds, e.Cause.TraceID), append(events.Operations, e.Cause.Operation), append(events.Actors, e.Cause.Actor)
			events.CreatedAts = append(events.CreatedAts, e.At)
			events.PrevHashes, events.Hashes = append(events.PrevHashes, notNil(e.PrevHash)), append(events.Hashes, e.Hash)
			notice, err := json.Marshal(Notice{Owner: c.owner, OrderID: o.ID.Format(order.PrefixOrder), Type: e.Type, Version: e.Version, Rev: c.rev})
			if err != nil {
				return fmt.Errorf("encode notice: %w", err)
			}
			out = append(out, bus.Outgoing{Topic: TopicOrders, Key: o.ID.Format(order.PrefixOrder), Shard: o.ID.Shard(), TraceID: e.Cause.TraceID, ID: uuid.UUID(e.ID), Payload: notice})
		}
		c.steps.write(c.owner, id, &moved)
		out = append(out, c.sends...)
	}
	var updated int64
	p := &pipeline{}
	pq := ordersdb.New(p)
	p.add(len(inserts.Ids), func() error { return pq.InsertOrders(ctx, inserts) })
	p.add(len(addresses.OrderIds), func() error { return pq.InsertAddresses(ctx, addresses) })
	p.add(len(updates.Ids), func() error {
		_, err := pq.UpdateOrders(ctx, updates)
		p.last().Exec(func(tag pgconn.CommandTag) error { updated = tag.RowsAffected(); return nil })
		return err
	})
	p.add(len(events.Ids), func() error { return pq.InsertEvents(ctx, events) })
	p.add(len(moved.Steps), func() error { return pq.PutSteps(ctx, moved) })
	p.add(len(b.answers.Keys), func() error { return pq.InsertAnswers(ctx, b.answers) })
	p.add(len(out), func() error { return bus.Send(ctx, p, out) })
	if err = p.send(ctx, tx); err != nil {
		return fmt.Errorf("write batch: %w", err)
	}
	if updated != int64(len(updates.Ids)) {
		return errConflict
	}
	return nil
}

// position reads where the log stands after the COMMIT, on the connection that committed.
func (b *batch) position(ctx context.Context, db ordersdb.DBTX) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 300*time.Millisecond)
	defer cancel()
	b.lsn = token.NoPosition
	if lsn, err := ordersdb.New(db).FlushLSN(ctx); err == nil {
		b.lsn = uint64(lsn)
	}
}

// published wakes the relay and hands the new states to the caches. It fails nothing: what it misses is repaired by the orders'
// messages.
func (b *batch) published(ctx context.Context, c *Commands) {
	c.cfg.Wake()
	states := make([]Published, 0, len(b.changes))
	for _, ch := range b.changes {
		if body, err := ch.finished(); err == nil && len(ch.events) > 0 {
			states = append(states, Published{Owner: ch.owner, ID: ch.order.ID, Rev: ch.rev, KnownAt: b.knownAt, LSN: b.lsn, Body: body})
			c.waiters.wake(ch.order.ID)
		}
	}
	if c.cfg.Publish != nil && len(states) > 0 {
		c.cfg.Publish(context.WithoutCancel(ctx), states)
	}
}

// pipeline is a DBTX that only queues: the statements of several queries then go out in one round trip. It serves queries that
// return no rows.
type pipeline struct {
	batch pgx.Batch
	err   error
}

// add queues a query if it has elements.
func (p *pipeline) add(elements int, query func() error) {
	if elements > 0 && p.err == nil {
		p.err = query()
	}
}

func (p *pipeline) last() *pgx.QueuedQuery {
	return p.batch.QueuedQueries[len(p.batch.QueuedQueries)-1]
}

func (p *pipeline) send(ctx context.Context, tx pgx.Tx) error {
	if p.err != nil || p.batch.Len() == 0 {
		return p.err
	}
	return tx.SendBatch(ctx, &p.batch).Close()
}

// Exec queues.
func (p *pipeline) Exec(_ context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	p.batch.Queue(sql, args...)
	return pgconn.CommandTag{}, nil
}

// Query and QueryRow cannot wait for an answer.
func (p *pipeline) Query(context.Context, string, ...any) (pgx.Rows, error) {
	return nil, errors.New("a pipeline returns no rows")
}

// QueryRow never returns a row: its Scan fails.
func (p *pipeline) QueryRow(context.Context, string, ...any) pgx.Row { return noRow{} }

type noRow struct{}

func (noRow) Scan(...any) error { return errors.New("a pipeline returns no rows") }

// notNil keeps an empty hash from becoming NULL.
func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
