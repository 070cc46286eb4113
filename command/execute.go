package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.opentelemetry.io/otel/trace"

	"github.com/ordergate/ordergate/command/catalogue"
	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/ordersdb"
	"github.com/ordergate/ordergate/internal/failpoint"
	"github.com/ordergate/ordergate/internal/faults"
	"github.com/ordergate/ordergate/internal/guard"
	"github.com/ordergate/ordergate/internal/panics"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

const (
	// maxTries bounds how often a command is decided again after a concurrent change.
	maxTries = 3
	// leastTime must be left of the budget when a transaction begins. A command that waited longer for its turn is
	// refused: a transaction that runs out of time because of our queue would count as the primary's failure.
	leastTime = 200 * time.Millisecond
	// lockTime is the lock_timeout of our connections.
	lockTime = 300 * time.Millisecond
	// queuedLockTime is the lock_timeout of a batch of the queue, which waits for a row no longer than others can wait for it: what is not had by then is
	// waited for by its call alone.
	queuedLockTime = 10 * time.Millisecond
	// endTime is left of the budget for the end of a transaction: none waits for a lock in it, or begins.
	endTime = 100 * time.Millisecond
)

// call is one command on its way through batches.
type call struct {
	Envelope
	op       operation
	needs    needs
	hash     [32]byte
	deadline time.Time        // of the command's COMMIT
	short    []order.ShortSKU // of which it wants more than the sold-out mark has left
	span     trace.Span
	work     guard.Work // of the admission; zero: it has no place there
	effect
	err   error
	done  bool          // result or err is final
	ended chan struct{} // closed by the queue: the caller goes on
	taken bool          // a batch of the queue has it
	over  func()        // tells the queue that the batch's transaction is over; repeating it is safe
	names []any         // what it is about, for the queue
}

func (c *call) finish(r Result, err error) { c.result, c.err, c.done = r, err, true }

// execute runs one command. body is what a repetition under the key must send again. The command ends with a result or an error:
//
//   - IDEM_003 if a transaction of another process holds its key, and the same in this process is waited for; the stored result, or IDEM_002, if the key is known;
//   - what the operation decides; results, and refusals that are not retryable, are stored under the key in the same transaction;
//   - SYS_002, SYS_003, RATE_003: nothing changed, and a key is as it was;
//   - SYS_006: the COMMIT had no answer and could not be looked up.
func (c *Commands) execute(ctx context.Context, e Envelope, body any, op operation) (Result, error) {
	deadline := time.Now().Add(Budget)
	ctx, span := c.cfg.Tracer.Start(ctx, "command "+e.Operation)
	defer span.End()
	canonical, err := json.Marshal(body)
	if err != nil {
		return Result{}, fmt.Errorf("encode command: %w", err)
	}
	one := &call{Envelope: e, op: op, needs: op.needs(), hash: e.hash(canonical), deadline: deadline, span: span, ended: make(chan struct{})}
	switch {
	case faults.In(ctx) != "": // what fails on purpose has no neighbours
		c.executeBatch(context.WithoutCancel(ctx), []*call{one}, tryOptions{try: 1})
	case c.guard.Open(): // nobody waits for a turn to be told
		one.finish(Result{}, errPrimaryAway)
	default:
		priority := guard.Normal
		if one.isUrgent() {
			priority = guard.Urgent
		}
		if one.work, err = c.cfg.Admission.Begin(priority); err != nil {
			return Result{}, err
		}
		defer func() { one.endWork(one.done && !saysNothing(one.err)) }()
		c.queue.do(ctx, one)
	}
	failpoint.Hit(failpoint.CommandAnswered)
	return one.result, one.err
}

// errPrimaryAway refuses a command while the primary's breaker is open.
var errPrimaryAway = apierr.E(errcode.SYS002, apierr.Cause(errors.New("the primary's breaker is open")))

// endWork gives the call's place in the admission back; timed: its time tells of the primary. Repeating it is safe.
func (c *call) endWork(timed bool) {
	c.work.End(timed)
	c.work = guard.Work{}
}

// saysNothing tells errors whose time says nothing of the primary: refused at once, the caller has left, or a row was waited for.
func saysNothing(err error) bool {
	return err != nil && slices.Contains([]errcode.Code{errcode.SYS002, errcode.SYS003, errcode.SYS006, errcode.RATE003, errcode.IDEM003}, apierr.From(err).Code)
}

// executeQueued runs a batch of the queue.
func (c *Commands) executeQueued(calls []*call) {
	ctx, span := c.cfg.Tracer.Start(trace.ContextWithSpan(context.Background(), calls[0].span), "batch")
	defer span.End()
	c.retries.Earn(len(calls))
	for _, one := range calls {
		one.span.AddLink(trace.Link{SpanContext: span.SpanContext()})
	}
	c.executeBatch(ctx, calls, tryOptions{try: 1, queued: true})
}

// tryOptions say how calls are tried. The zero value is no try.
type tryOptions struct {
	try        int
	queued     bool // the calls are a batch of the queue
	skipLocked bool // calls whose rows another transaction holds are left out
	apart      bool // each call has a transaction of its own
}

// sameAgain tells that the same calls are tried again in the same way: a failure of the primary is repeated, and the budget of retries counts that. It does
// not count what finds the call that makes others fail, or leaves out the one that waits: each of them is tried so once.
func (o tryOptions) sameAgain() bool { return o.try > 0 && !o.apart && !o.skipLocked }

// batch is one transaction's work.
type batch struct {
	tryOptions
	calls     []*call
	undecided []*call // neither resolved by their key nor left out
	deferred  []*call // their order is another call's of the batch
	blocked   []*call // a row of theirs is locked
	loaded    *loaded
	all       bool // loaded has all that the calls need, and not only what is read without a lock
	rows      rows
	lsn       uint64 // where the log stood after COMMIT, or token.NoPosition
}

// executeBatch runs calls, which may stand in one batch, in one transaction, and again as the failure of it demands, until each is done. The queue
// hears of the end of the transaction and of each call as soon as may be.
func (c *Commands) executeBatch(ctx context.Context, calls []*call, o tryOptions) {
	b := &batch{tryOptions: o, calls: calls, lsn: token.NoPosition}
	txErr, err := c.transaction(ctx, b)
	ctx = context.WithoutCancel(ctx)
	c.finishKnown(ctx, b, txErr == nil)
	switch {
	case len(b.calls) == 0:
	case txErr == nil:
		c.finishDecided(ctx, b)
	case errors.Is(txErr, pg.ErrOutcomeUnknown):
		c.resolveCommit(ctx, b.undecided, txErr)
	default:
		c.queue.end(calls)
		c.retry(ctx, b, txErr, err)
	}
	c.queue.end(calls)
	var deferred sync.WaitGroup
	deferred.Go(func() {
		c.queue.endAll(b.deferred, panics.Catch(func() error {
			for rest := b.deferred; len(rest) > 0; {
				var next []*call
				next, rest = nextBatch(rest, nil, namesOf)
				c.executeBatch(ctx, next, tryOptions{try: 1})
			}
			return nil
		}))
	})
	c.eachAlone(ctx, b.blocked)
	deferred.Wait()
}

// transaction is the transaction of a batch: one execution of the breaker. The guard's own error, err, may hide what became of it.
func (c *Commands) transaction(ctx context.Context, b *batch) (txErr, err error) {
	if b.queued {
		defer b.calls[0].over()
	}
	if b.calls = withinBudget(b.calls, b.queued); len(b.calls) == 0 {
		return errNotBegun, errNotBegun
	}
	ctx, cancel := context.WithDeadline(ctx, slices.MaxFunc(b.calls, earlier).deadline)
	defer cancel()
	txErr = errNotBegun
	err = c.guard.Do(ctx, func(ctx context.Context) error {
		if b.calls = withinBudget(b.calls, b.queued); len(b.calls) == 0 { // the turn came too late
			return errQueued
		}
		deadline := slices.MinFunc(b.calls, earlier).deadline
		ctx, cancel := context.WithDeadline(ctx, deadline)
		defer cancel()
		conn, err := c.cfg.Pool.Acquire(ctx)
		if err != nil { // no queue of ours: New shares the connections out
			return pg.NotBegun(ctx, err)
		}
		defer conn.Release()
		open := func(first *pgx.Batch) { c.open(first, b, deadline, faults.In(ctx)) }
		if c.marked(b.calls) {
			txErr = c.refuse(ctx, conn.Conn(), b, open)
			return txErr
		}
		txErr = pg.Pipeline(ctx, conn.Conn(), open, func(tx pgx.Tx, ends *pg.Ends) error {
			return panics.Catch(func() error {
				err := c.transact(ctx, tx, b, ends)
				ends.By = slices.MaxFunc(b.calls, earlier).deadline // the one that has least time left must not cut the others' COMMIT short
				if err == nil {
					queuePosition(&ends.After, &b.rows, &b.lsn)
				}
				return err
			})
		})
		if txErr == nil {
			failpoint.Hit(failpoint.CommandCommitted)
		}
		return txErr
	})
	return txErr, err
}

func earlier(x, y *call) int { return x.deadline.Compare(y.deadline) }

// finishDecided ends the calls that were decided in a committed transaction.
func (c *Commands) finishDecided(ctx context.Context, b *batch) {
	for _, one := range b.undecided {
		one.result.LSN, one.done = b.lsn, true // of a refusal, too: a read may have to see why
		if i := slices.IndexFunc(one.orders, func(c *orderChange) bool { return c.order.ID == one.result.OrderID }); i >= 0 && !one.orders[i].superseded {
			one.result.Rev = one.orders[i].rev
		}
		if p := b.rows.products[order.Item{Owner: one.Owner, SKU: one.result.Product}]; p != nil && p.Changed() && !p.Superseded {
			one.result.Rev = p.Rev
		}
	}
	c.afterCommit(ctx, &b.rows, b.lsn)
	failpoint.Hit(failpoint.CommandWrittenThrough)
}

// retry tries the calls of a transaction without effect again, as classify says, or fails them with err.
func (c *Commands) retry(ctx context.Context, b *batch, txErr, err error) {
	rest := slices.DeleteFunc(slices.Clone(b.calls), func(one *call) bool { return one.done })
	b.deferred, b.blocked = nil, nil // the next try finds them again
	next := classify(txErr, b.tryOptions, len(rest) == 1)
	if pg.LockNotHad(txErr) && len(rest) == 1 {
		rest[0].endWork(false) // one row that is held must not be an overload
	}
	if next.sameAgain() && !pg.LockNotHad(txErr) && !c.retries.Spend(len(rest)) { // a wait for a row ends with the call's time
		next = tryOptions{}
	}
	switch {
	case next.apart:
		c.eachAlone(ctx, rest)
	case next.try > 0:
		c.executeBatch(ctx, rest, next)
	default:
		for _, one := range rest {
			one.finish(Result{}, toClientError(err))
		}
	}
}

// classify says how calls are tried again after a transaction that had no effect.
//
//   - The culprit of SQLSTATE 22 and 23, of a row that is gone and of a panic is found by trying each call alone. A COMMIT that was sent is never tried again for
//     these.
//   - A version conflict is decided again for each order alone, up to maxTries times.
//   - A deadlock repeats the batch once, then each alone.
//   - A lock that was not had in time (55P03) leaves out the calls that wait for it: these go on alone, up to their 800 ms. It uses up no
//     try of the others.
//   - All else fails every command, unretried.
func classify(txErr error, o tryOptions, alone bool) tryOptions {
	code := ""
	if e, ok := errors.AsType[*pgconn.PgError](txErr); ok {
		code = e.Code
	}
	switch {
	case code == pg.LockNotAvailable && (alone || !o.skipLocked):
		return tryOptions{try: o.try, skipLocked: !alone}
	case alone && pg.Contention(txErr) && o.try < maxTries, !alone && code == pg.Deadlock && o.try == 1:
		return tryOptions{try: o.try + 1}
	case alone:
		return tryOptions{}
	case pg.Contention(txErr), errors.Is(txErr, panics.ErrPanic), code == pg.NoDataFound || code == pg.InternalError, pg.Integrity(code) && !errors.Is(txErr, pg.ErrRefusedAtCommit):
		return tryOptions{try: 1, apart: true}
	}
	return tryOptions{}
}

// eachAlone runs calls side by side, each in a transaction of its own, so that none waits for another's lock. A call that finds no place beside others that
// are alone is refused with RATE_003 when its time is over: they leave places to the queue.
func (c *Commands) eachAlone(ctx context.Context, calls []*call) {
	var wg sync.WaitGroup
	for _, one := range calls {
		one.endWork(false) // as in retry
		wg.Go(func() {
			c.queue.endAll([]*call{one}, panics.Catch(func() error {
				select {
				case c.alone <- struct{}{}:
					defer func() { <-c.alone }()
					c.executeBatch(ctx, []*call{one}, tryOptions{try: 1})
				case <-time.After(time.Until(one.deadline) - endTime):
					one.finish(Result{}, errQueued)
				}
				return nil
			}))
		})
	}
	wg.Wait()
}

// withinBudget refuses the calls whose time is over with SYS_003, and those that came from the queue too late for a transaction with
// RATE_003. It returns the others.
func withinBudget(calls []*call, fromQueue bool) []*call {
	return slices.DeleteFunc(slices.Clone(calls), func(one *call) bool {
		left := time.Until(one.deadline)
		switch {
		case fromQueue && left < leastTime:
			one.finish(Result{}, errQueued)
		case left < endTime:
			one.finish(Result{}, apierr.E(errcode.SYS003, apierr.Cause(context.DeadlineExceeded)))
		}
		return one.done
	})
}

var (
	errNotBegun = errors.New("the transaction was not begun")
	// errQueued refuses a command whose budget was spent waiting for its turn.
	errQueued = apierr.E(errcode.RATE003, apierr.Cause(errors.New("no turn within the budget")))
)

// open queues what a transaction begins with: the keys, and what is read without a lock. A batch of the queue, which waits for no row for long, locks and
// reads the rest with it, unless a command names a shipment, whose order is not known yet.
func (c *Commands) open(first *pgx.Batch, b *batch, deadline time.Time, fault faults.Name) {
	limitLocks(first, b, deadline)
	resolveKeys(first, b.calls, fault)
	var n needs
	for _, one := range b.calls {
		if one.short == nil {
			n.add(one.needs)
		}
	}
	if b.loaded = newLoaded(); len(n.products) > 0 {
		catalogue.QueueRead(first, n.products, b.loaded.products)
	}
	if b.all = b.queued && len(n.shipments) == 0; b.all {
		b.loaded.queue(first, n, false)
	}
	queueLogState(first, &b.rows)
}

func queueLogState(batch *pgx.Batch, r *rows) {
	batch.Queue(ordersdb.LogState).QueryRow(func(row pgx.Row) error { return row.Scan(&r.log.Lsn, &r.log.Timeline, &r.log.Generation) })
}

// marked asks the sold-out mark about each call, and tells whether it refuses all of them.
func (c *Commands) marked(calls []*call) bool {
	all := true
	for _, one := range calls {
		one.short = c.cfg.SoldOut.Short(one.Owner, one.needs.pieces)
		all = all && one.short != nil
	}
	return all
}

// refuse is the transaction of calls that the sold-out mark refuses, unless their key is known: one round trip, which locks no row and writes nothing.
func (c *Commands) refuse(ctx context.Context, conn *pgx.Conn, b *batch, open func(*pgx.Batch)) error {
	only := &pgx.Batch{}
	open(only)
	queuePosition(only, &b.rows, &b.lsn)
	err := conn.SendBatch(ctx, only).Close()
	switch {
	case err != nil && conn.IsClosed():
		return fmt.Errorf("%w: %w", pg.ErrConnectionLost, err)
	case err != nil:
		return err
	}
	for _, one := range b.calls {
		one.soldOut()
	}
	return nil
}

// transact is the transaction of a batch, between what open queued and its COMMIT.
func (c *Commands) transact(ctx context.Context, tx pgx.Tx, b *batch, ends *pg.Ends) error {
	failpoint.Hit(failpoint.CommandKeysResolved)
	b.undecided = slices.DeleteFunc(slices.Clone(b.calls), func(one *call) bool { return one.done || one.soldOut() })
	var err error
	if b.undecided, b.deferred, err = findOrders(ctx, tx, b.undecided); err != nil {
		return err
	}
	if len(b.undecided) == 0 {
		return nil
	}
	l := b.loaded
	if !b.all {
		var n needs
		for _, one := range b.undecided {
			n.add(one.needs)
		}
		if err = l.load(ctx, tx, n, b.skipLocked); err != nil {
			return err
		}
		b.rows.locked = n.locked() > 0
	}
	failpoint.Hit(failpoint.CommandRowsLocked)
	if b.skipLocked { // a missing row is locked by another transaction, or does not exist: its call goes on alone
		b.blocked = slices.DeleteFunc(slices.Clone(b.undecided), func(one *call) bool { return l.has(one.needs) })
		b.undecided = slices.DeleteFunc(b.undecided, func(one *call) bool { return !l.has(one.needs) })
	}
	if len(b.undecided) == 0 {
		return nil
	}
	b.rows.products, b.rows.stock, b.rows.soldOut, b.rows.deadline = l.catalogue, l.stock, c.cfg.SoldOut, c.cfg.Deadline
	for _, one := range b.undecided {
		switch err := l.gone(ctx, tx, one.needs); {
		case errors.Is(err, errRowGone):
			one.finish(Result{}, err)
		case err != nil:
			return err
		default:
			c.decide(one, l, b)
		}
	}
	failpoint.Hit(failpoint.CommandDecided)
	return b.rows.queue(ctx, tx, &ends.Last)
}

// soldOut refuses a call that asks for more pieces than were left a moment ago. Nothing is stored under its key, which may succeed later.
func (c *call) soldOut() bool {
	if c.short != nil && !c.done {
		c.finish(Result{}, apierr.E(errcode.INV002, apierr.Extra("skus", c.short)))
	}
	return c.done
}

// decide lets one call decide and adds what it writes to the batch.
func (c *Commands) decide(one *call, l *loaded, b *batch) {
	if one.effect, one.err = one.op.decide(l, one.recorder(c.cfg.IDs, c.cfg.Now())); one.err != nil {
		refusal := apierr.From(one.err)
		one.effect, one.err = effect{}, refusal
		if one.Key != "" && !refusal.Retryable() && refusal.Code != errcode.SYS001 {
			status, body := refusal.Problem(one.Problem)
			b.rows.store(one, Result{Status: status, Code: refusal.Code, ContentType: "application/problem+json", Body: view.Body{Bytes: body}})
		}
		return
	}
	for _, change := range one.orders {
		b.rows.add(change)
	}
	b.rows.payments.Add(one.payments)
	b.rows.shipments = append(b.rows.shipments, one.shipments...)
	if one.Key != "" {
		b.rows.store(one, one.result)
	}
}

// limitLocks keeps the waits for the rows of a call from outlasting the deadline: the server then tells of the lock, instead of falling
// silent. A row may cost two waits, for the row's turn and for the transaction that holds it.
func limitLocks(first *pgx.Batch, b *batch, deadline time.Time) {
	locked := 0
	for _, one := range b.calls {
		locked = max(locked, one.needs.locked())
	}
	left := (time.Until(deadline) - endTime) / 2 / time.Duration(max(1, locked))
	if b.queued && locked > 0 {
		left = min(left, queuedLockTime)
	}
	if left < lockTime {
		first.Queue(ordersdb.SetLockTimeout, max(left, time.Millisecond).Milliseconds())
	}
}

// toClientError is the error that a client sees of a transaction that had no effect.
func toClientError(err error) error {
	if e, ok := errors.AsType[*apierr.Error](err); ok {
		return e
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return apierr.E(errcode.SYS003, apierr.Cause(err))
	}
	if pg.Infrastructure(err) {
		return apierr.E(errcode.SYS002, apierr.Cause(err))
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == pg.NoDataFound { // as errRowGone
		return apierr.E(errcode.SYS002, apierr.Cause(err))
	}
	return apierr.From(err)
}

// primaryFailed tells the breaker what is the primary's failure: a concurrent transaction that was in the way is not.
func primaryFailed(err error) bool { return pg.Infrastructure(err) && !pg.Contention(err) }
