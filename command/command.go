// Package command is the write side: it takes commands in, decides them on the primary and drives the saga. One file a command;
// batch.go writes what they decided, saga.go goes on where they end.
package command

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/ordersdb"
	"github.com/ordergate/ordergate/internal/guard"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

// Budget is the time a command has until its COMMIT.
const Budget = 800 * time.Millisecond

// Published is a new state of an order, ready to be served: written through the caches after its COMMIT.
type Published struct {
	Owner   order.Owner
	ID      order.ID
	Rev     int64
	KnownAt uint64 // position in the log read under the row's lock: no commit before it can be missing here
	LSN     uint64 // flush position after the COMMIT, for the consistency token, or token.NoPosition
	Body    view.Body
}

// Config is what Commands need.
type Config struct {
	Pool        *pgxpool.Pool // the primary, as ordergate_app
	IDs         order.IDs
	Now         func() time.Time
	Concurrency uint                               // commands at once; one more is RATE_003
	Publish     func(context.Context, []Published) // write-through; may be nil
	Wake        func()                             // tells the relay that the outbox has something
	Tracer      trace.Tracer
	Registry    prometheus.Registerer // may be nil
}

// Commands are the write side's operations. Safe for concurrent use.
type Commands struct {
	cfg     Config
	guard   *guard.Guard
	waiters waiters
	looking chan struct{} // bounds the connections that waiters take from commands
}

// New returns Commands.
func New(c Config) *Commands {
	return &Commands{cfg: c, looking: make(chan struct{}, max(1, c.Pool.Config().MaxConns/4)), guard: guard.New(guard.Config{
		Name: "primary", Concurrent: c.Concurrency, Timeout: Budget, Failure: func(err error) bool { return pg.Infrastructure(err) && !pg.Contention(err) }, Registry: c.Registry,
	})}
}

// Envelope is what every command carries: whose it is, its idempotency key, and who to name as its cause.
type Envelope struct {
	Owner     order.Owner
	Operation string // the operationId
	Key       string // the idempotency key
	Subject   string // the path's parameters; part of what must be equal in a repetition
	About     apierr.ProblemContext
	Actor     string // the API key's id
}

// Result is the answer of a command: what is stored under its key and given again to every repetition.
type Result struct {
	Status      int
	ContentType string
	Body        view.Body
	Location    string
	Replayed    bool
	OrderID     order.ID // zero for a refusal
	Rev         int64
	LSN         uint64 // for the consistency token; of a refusal, too, where 0 means none
}

// call is one command of a batch on its way through the transaction.
type call[C any] struct {
	Envelope
	command C
	hash    [32]byte
	answer  Result
	err     error // a refusal or failure; of answer then only LSN counts
	change  *change
}

// settled tells whether the key alone decided the call.
func (c *call[C]) settled() bool { return c.err != nil || c.answer.Status != 0 }

// lockID is what the key's advisory lock is taken on.
func (r Envelope) lockID() int64 {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d\x00%s\x00%s\x00%s", r.Owner.Account, r.Owner.Mode, r.Operation, r.Key))
	return int64(binary.BigEndian.Uint64(sum[:]))
}

// decide decides the calls that their keys did not settle: each gets an err or a change that is also added to the batch.
type decide[C any] func(ctx context.Context, tx pgx.Tx, calls []*call[C], b *batch) error

// execute runs one command: a batch of one, for now.
func execute[C any](ctx context.Context, c *Commands, r Envelope, command C, d decide[C]) (Result, error) {
	canonical, err := json.Marshal(command)
	if err != nil {
		return Result{}, err
	}
	one := &call[C]{Envelope: r, command: command, hash: sha256.Sum256(append([]byte(r.Subject+"\x00"), canonical...))}
	executeBatch(ctx, c, []*call[C]{one}, d)
	return one.answer, one.err
}

// maxTries bounds how often a batch that met a rival is decided.
const maxTries = 3

var errNotBegun = errors.New("the transaction was not begun")

// executeBatch runs commands, no two with the same key or order, in one transaction. Each call ends with an answer or an err:
//
//   - IDEM_003 if another transaction holds its key, the stored answer or IDEM_002 if the key is known;
//   - what decide says; answers and refusals that are not retryable are stored under the key in the same transaction;
//   - a rival is met up to three times, then SYS_002;
//   - a failure of the transaction fails all calls, and their keys stay free: SYS_002, SYS_003 (nothing changed);
//   - a COMMIT without an answer is looked up; if that fails too: SYS_006.
//
// It runs under its own deadline, never a caller's context: who goes away does not undo what others wait for.
func executeBatch[C any](ctx context.Context, c *Commands, calls []*call[C], d decide[C]) {
	ctx, span := c.cfg.Tracer.Start(ctx, "command "+calls[0].Operation)
	defer span.End()
	var b *batch
	outcome := errNotBegun // of the transaction; the guard's own answer may hide it
	err := c.guard.Do(context.WithoutCancel(ctx), func(ctx context.Context) error {
		conn, err := c.cfg.Pool.Acquire(ctx)
		if err != nil {
			outcome = fmt.Errorf("%w: %w", pg.ErrConnectionLost, err)
			return outcome
		}
		defer conn.Release()
		for try := 1; ; try++ {
			b = &batch{}
			for _, call := range calls {
				call.answer, call.err, call.change = Result{}, nil, nil
			}
			outcome = pg.InTx(ctx, conn, func(tx pgx.Tx) error { return attempt(ctx, tx, calls, d, b) })
			if !pg.Contention(outcome) || try == maxTries {
				break
			}
		}
		if outcome == nil {
			b.position(ctx, conn)
		}
		return outcome
	})
	switch {
	case outcome == nil:
		if len(b.changes) > 0 {
			b.published(ctx, c)
		}
		for _, call := range calls {
			call.answer.LSN = b.lsn // of a refusal, too: a read may have to see why
			if call.change != nil {
				call.answer.Rev = call.change.rev
			}
		}
	case errors.Is(outcome, pg.ErrOutcomeUnknown):
		for _, call := range calls {
			lookUp(context.WithoutCancel(ctx), c, call, outcome)
		}
	default:
		for _, call := range calls {
			call.answer, call.err = Result{}, failure(err)
		}
	}
}

// attempt is the transaction of a batch.
func attempt[C any](ctx context.Context, tx pgx.Tx, calls []*call[C], d decide[C], b *batch) error {
	q := ordersdb.New(tx)
	hashes := make([]int64, len(calls))
	for i, call := range calls {
		hashes[i] = call.lockID()
	}
	locked, err := q.TryLockKeys(ctx, hashes)
	if err != nil {
		return fmt.Errorf("lock keys: %w", err)
	}
	for i, ok := range locked {
		if !ok {
			calls[i].err = apierr.E(errcode.IDEM003)
		}
	}
	if err = findAnswers(ctx, q, calls); err != nil {
		return err
	}
	var fresh []*call[C]
	for _, call := range calls {
		if !call.settled() {
			fresh = append(fresh, call)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	if err = d(ctx, tx, fresh, b); err != nil {
		return err
	}
	for _, call := range fresh {
		if err = answerOf(call, b); err != nil {
			return err
		}
	}
	return b.write(ctx, tx)
}

// answerOf makes the answer of a decided call and stores it under its key, unless it is a refusal that may be repeated.
func answerOf[C any](call *call[C], b *batch) error {
	if call.err != nil {
		refusal := apierr.From(call.err)
		if refusal.Retryable() || refusal.Code == errcode.SYS001 {
			return nil
		}
		status, body := refusal.Problem(call.About)
		b.store(call.Envelope, call.hash, Result{Status: status, ContentType: "application/problem+json", Body: view.Body{Bytes: body}})
		return nil
	}
	body, err := call.change.finished()
	if err != nil {
		return err
	}
	id := call.change.order.ID
	call.answer = Result{
		Status: 202, ContentType: "application/json", Body: body, OrderID: id, Location: "/v1/orders/" + id.Format(order.PrefixOrder),
	}
	b.store(call.Envelope, call.hash, call.answer)
	return nil
}

// findAnswers gives the calls whose key is known their stored answer, or IDEM_002 if what was asked then was something else.
func findAnswers[C any](ctx context.Context, q *ordersdb.Queries, calls []*call[C]) error {
	var p ordersdb.FindAnswersParams
	for _, call := range calls {
		p.Accounts, p.Modes = append(p.Accounts, call.Owner.Account), append(p.Modes, call.Owner.Mode)
		p.Operations, p.Keys = append(p.Operations, call.Operation), append(p.Keys, call.Key)
	}
	rows, err := q.FindAnswers(ctx, p)
	if err != nil {
		return fmt.Errorf("look keys up: %w", err)
	}
	for _, row := range rows {
		for _, call := range calls {
			if call.settled() || call.Key != row.Key || call.Operation != row.Operation || call.Owner != (order.Owner{Account: row.Account, Mode: row.Mode}) {
				continue
			}
			if string(row.RequestHash) != string(call.hash[:]) {
				call.err = apierr.E(errcode.IDEM002)
				continue
			}
			call.answer = Result{
				Status: int(row.Status), ContentType: row.ContentType, Body: view.Body{Bytes: row.Body, ETag: row.Etag},
				Location: row.Location, Replayed: true,
			}
			if row.OrderID != nil {
				call.answer.OrderID = order.ID(*row.OrderID)
			}
		}
	}
	return nil
}

// lookUp finds out how a COMMIT ended that gave no answer. Only under the key's lock does absence prove anything: whoever
// committed holds it until the end. Found: that answer. Absent: nothing changed and the key is free. No lock in time: SYS_006.
func lookUp[C any](ctx context.Context, c *Commands, one *call[C], cause error) {
	if one.err != nil && apierr.From(one.err).Code == errcode.IDEM003 {
		return // it had no part in the transaction
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	one.answer, one.err, one.change = Result{}, nil, nil
	err := pg.InTx(ctx, c.cfg.Pool, func(tx pgx.Tx) error {
		q := ordersdb.New(tx)
		if err := q.SetLockTimeout(ctx, "200"); err != nil {
			return err
		}
		if _, err := q.LockKeyWithin(ctx, one.lockID()); err != nil {
			return err
		}
		if err := findAnswers(ctx, q, []*call[C]{one}); err != nil {
			return err
		}
		lsn, err := q.FlushLSN(ctx)
		one.answer.LSN = uint64(lsn)
		return err
	})
	switch {
	case err != nil:
		one.answer, one.err = Result{}, apierr.E(errcode.SYS006, apierr.Cause(errors.Join(cause, err)))
	case !one.settled():
		one.answer, one.err = Result{}, failure(cause)
	default:
		one.answer.Replayed = false // to this caller it is the first answer
	}
}

// failure is what a client hears of a transaction that was rolled back.
func failure(err error) error {
	if e, ok := errors.AsType[*apierr.Error](err); ok {
		return e
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) { // the guard ends a context by cancelling it
		return apierr.E(errcode.SYS003, apierr.Cause(err))
	}
	if pg.Infrastructure(err) {
		return apierr.E(errcode.SYS002, apierr.Cause(err))
	}
	return err
}

// pgID is an id as the queries take it.
func pgID(id order.ID) uuid.UUID { return uuid.UUID(id) }
