package command

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/command/payment"
	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/ordersdb"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

// positionTime bounds the look at the log after a COMMIT.
const positionTime = 300 * time.Millisecond

// position reads where the log stands after a COMMIT, or token.NoPosition, and then which of the changed rows have a later revision: a
// token may name a revision only if it was still the latest at the token's position.
func position(ctx context.Context, db sender, r *rows) (lsn uint64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), positionTime)
	defer cancel()
	batch := &pgx.Batch{}
	queuePosition(batch, r, &lsn)
	if err := db.SendBatch(ctx, batch).Close(); err != nil {
		return token.NoPosition
	}
	return lsn
}

// queuePosition is position as statements of a batch. lsn is set when all of them have succeeded.
func queuePosition(batch *pgx.Batch, r *rows, lsn *uint64) {
	var found uint64
	batch.Queue(ordersdb.FlushLSN).QueryRow(func(row pgx.Row) error { return row.Scan(&found) })
	if refs := refParams(pg.Column(r.orders, (*orderChange).ref)); len(r.orders) > 0 { // a replay or a refusal changed none
		batch.Queue(ordersdb.GetRevs, refs.Accounts, refs.Modes, refs.Ids).Query(func(rows pgx.Rows) error {
			var id uuid.UUID
			var rev int64
			_, err := pgx.ForEachRow(rows, []any{&id, &rev}, func() error {
				for _, c := range r.orders {
					c.superseded = c.superseded || c.order.ID == order.ID(id) && c.rev != rev
				}
				return nil
			})
			return err
		})
	}
	r.products.QueueRevs(batch)
	last := batch.QueuedQueries[batch.Len()-1]
	read := last.Fn
	last.Fn = func(results pgx.BatchResults) error {
		err := read(results)
		if err == nil {
			*lsn = found
		}
		return err
	}
}

// sender is a pool, or one connection of it.
type sender interface {
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// Limits of the look-up after a COMMIT without an answer.
const (
	resolveTime     = time.Second
	resolveLockTime = 200 * time.Millisecond
)

// resolveCommit finds out how a COMMIT ended that had no answer, on a new connection. Only under the keys' locks does absence prove
// anything: the transaction holds them until its end. Found: the stored result. Absent: nothing changed and the key is free. Locks not
// had in time: SYS_006. A visible row is not yet safe: giving up on a COMMIT ends PostgreSQL's wait for a synchronous standby, so the
// look-up has a COMMIT of its own that must get through. A call without a key cannot be looked up: SYS_006.
func (c *Commands) resolveCommit(ctx context.Context, calls []*call, cause error) {
	for _, one := range calls {
		if one.Key == "" {
			one.finish(Result{}, apierr.E(errcode.SYS006, apierr.Cause(cause)))
		}
	}
	if calls = keyed(calls); len(calls) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	var lsn int64
	look := func(tx pgx.Tx) (err error) {
		q := ordersdb.New(tx)
		if err := q.SetLockTimeout(ctx, resolveLockTime.Milliseconds()); err != nil {
			return err
		}
		keys := pg.Column(calls, func(c *call) int64 { return c.lockID() })
		slices.Sort(keys) // two look-ups with common keys do not wait for each other
		if err := q.LockKeys(ctx, keys); err != nil {
			return err
		}
		if err := findResults(ctx, q, calls); err != nil {
			return err
		}
		if lsn, err = q.FlushLSN(ctx); err != nil {
			return err
		}
		return q.WaitForStandbys(ctx)
	}
	err := c.onLookupConn(ctx, func() error { return pg.InTx(ctx, c.cfg.Pool, look) })
	for _, one := range calls {
		switch {
		case err != nil:
			one.finish(Result{}, apierr.E(errcode.SYS006, apierr.Cause(errors.Join(cause, err))))
		case !one.done:
			one.finish(Result{LSN: uint64(lsn)}, toClientError(cause))
		default:
			one.result.LSN = uint64(lsn)
			one.result.Replayed = false // to this caller it is the first answer
		}
	}
}

// finishKnown ends the calls that their key alone resolved. They are final, also if the transaction was rolled back. A visible row is not
// yet safe (resolveCommit): a stored result needs a later COMMIT to get through, the transaction's own if it wrote something; else
// SYS_006.
func (c *Commands) finishKnown(ctx context.Context, b *batch, committed bool) {
	known := slices.DeleteFunc(slices.Clone(b.calls), func(one *call) bool { return !one.done })
	for _, one := range known {
		if one.err == nil || committed {
			one.result.LSN = b.lsn
		}
	}
	stored := slices.ContainsFunc(known, func(one *call) bool { return one.err == nil })
	if !stored || committed && len(b.rows.results) > 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	if err := c.onLookupConn(ctx, func() error { return ordersdb.New(c.cfg.Pool).WaitForStandbys(ctx) }); err != nil {
		for _, one := range known {
			if one.err == nil {
				one.finish(Result{}, apierr.E(errcode.SYS006, apierr.Cause(err)))
			}
		}
	}
}

func (r *rows) committed(owner order.Owner, key string, rev int64, lsn uint64, body view.Body) Committed {
	return Committed{
		Owner: owner, Key: key, Rev: rev, KnownAt: uint64(r.log.Lsn), Timeline: uint32(r.log.Timeline), Generation: r.log.Generation, LSN: lsn, Body: body,
	}
}

// afterCommit wakes the relay and payment, hands the new states to the caches and counts. It fails nothing: what it misses of an order is repaired by
// the order's messages, what it misses of a product by the change feed.
func (w *writer) afterCommit(ctx context.Context, r *rows, lsn uint64) {
	if len(r.orders) > 0 {
		w.cfg.Wake()
	}
	if slices.ContainsFunc(r.payments.Calls, func(c payment.Call) bool { return c.Claimed.IsZero() }) {
		w.cfg.WakePayments()
	}
	states := make([]Committed, 0, len(r.orders))
	for _, c := range r.orders {
		w.count(c)
		if len(c.events) == 0 {
			continue
		}
		if body, err := c.body(); err == nil && !c.superseded { // a later writer has written something newer through
			states = append(states, r.committed(c.owner, c.order.ID.Format(order.PrefixOrder), c.rev, lsn, body))
		}
		w.waiters.Wake(c.order.ID)
	}
	for _, it := range r.products.Changed() {
		if p := r.products[it]; !p.Superseded {
			if body, err := productBody(it, p); err == nil {
				states = append(states, r.committed(it.Owner, order.PrefixProduct+it.SKU, p.Rev, lsn, body))
			}
		}
	}
	if w.cfg.WriteThrough != nil && len(states) > 0 {
		w.cfg.WriteThrough(context.WithoutCancel(ctx), states)
	}
}

func (w *writer) count(c *orderChange) {
	for _, e := range c.events {
		w.events.WithLabelValues(e.Type).Inc()
	}
	for _, st := range c.steps {
		if st.moved && (st.status == statusDone || st.status == statusFailed) && !st.started.IsZero() {
			w.steps.WithLabelValues(st.name, st.status).Observe(st.finished.Sub(st.started).Seconds())
		}
	}
}
