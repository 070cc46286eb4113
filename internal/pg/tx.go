package pg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ordergate/ordergate/internal/faults"
	"github.com/ordergate/ordergate/internal/panics"
)

var (
	// ErrConnectionLost marks an error after which the connection was gone: the transaction had no effect.
	ErrConnectionLost = errors.New("connection lost")
	// ErrTimeOver marks the end of the context before COMMIT: the transaction had no effect. The connection may be well.
	ErrTimeOver = errors.New("time was over before COMMIT")
	// ErrOutcomeUnknown marks an error or time-out of COMMIT: the transaction may have taken effect.
	ErrOutcomeUnknown = errors.New("outcome of COMMIT unknown")
	// ErrRefusedAtCommit marks an error of the server at COMMIT: it rolled back.
	ErrRefusedAtCommit = errors.New("COMMIT refused")
)

// commitTime is the least time that COMMIT has: a disk that is slow for a moment is no unknown outcome.
const commitTime = 200 * time.Millisecond

// Beginner is a pool, or one connection of it.
type Beginner interface {
	BeginTx(ctx context.Context, o pgx.TxOptions) (pgx.Tx, error)
}

// NotBegun marks the error of a transaction that got no connection or did not begin: ErrTimeOver if ctx has ended, else ErrConnectionLost.
func NotBegun(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: begin: %w", ErrTimeOver, err)
	}
	return fmt.Errorf("%w: begin: %w", ErrConnectionLost, err)
}

// InTx runs f in a READ COMMITTED transaction and commits it. ErrConnectionLost, ErrTimeOver and ErrOutcomeUnknown mark the errors of the
// connection and of ctx; every other error comes from f or is a refusal of the database. An EOF alone is no mark: a truncated payload gives one, too.
func InTx(ctx context.Context, db Beginner, f func(tx pgx.Tx) error) error {
	tx, err := db.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return NotBegun(ctx, err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = tx.Rollback(ctx) // after COMMIT it does nothing
	}()
	if err = f(tx); err != nil {
		if tx.Conn().IsClosed() {
			err = fmt.Errorf("%w: %w", ErrConnectionLost, err)
		}
		return err
	}
	// The connection is checked before: pgx 5.12 calls an error safe to retry if the connection is lost while COMMIT is in flight.
	if tx.Conn().IsClosed() {
		return fmt.Errorf("%w: before COMMIT", ErrConnectionLost)
	}
	if err = cmp.Or(ctx.Err(), late(ctx)); err != nil {
		return fmt.Errorf("%w: %w", ErrTimeOver, err)
	}
	deadline, _ := ctx.Deadline()
	ctx, cancel := forCommit(ctx, deadline)
	defer cancel()
	err = commit(ctx, tx)
	if err != nil {
		return notCommitted(err)
	}
	return nil
}

// refused tells that the server answered with an error. FATAL is none: it may follow a COMMIT that took effect.
func refused(err error) bool {
	answer, ok := errors.AsType[*pgconn.PgError](err)
	return ok && answer.SeverityUnlocalized == "ERROR"
}

// notCommitted marks an error of COMMIT as a refusal of the server, or as an unknown outcome.
func notCommitted(err error) error {
	if refused(err) || errors.Is(err, pgx.ErrTxCommitRollback) {
		return fmt.Errorf("%w: %w", ErrRefusedAtCommit, err)
	}
	return fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
}

// Ends are the statements that a transaction of Pipeline ends with.
type Ends struct {
	Last  Statements // before COMMIT
	After pgx.Batch  // other statements than those of Last, behind COMMIT, without the transaction. What fails of it says nothing of the transaction, but if it cannot be prepared
	By    time.Time  // their deadline instead of that of the context; zero: none
}

// Pipeline is InTx in two round trips, if f needs none and the connection has prepared the statements: what first queues goes out behind BEGIN, and what f
// queues before and behind COMMIT. The results of first have been read when f is called. A result of Last that f would not commit must be an error of the
// server.
func Pipeline(ctx context.Context, conn *pgx.Conn, first func(*pgx.Batch), f func(tx pgx.Tx, ends *Ends) error) error {
	if ctx.Err() != nil {
		return NotBegun(ctx, ctx.Err())
	}
	batch := &pgx.Batch{}
	batch.BeginTx(pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	first(batch)
	results := conn.SendBatch(ctx, batch)
	tx := results.Tx()
	defer func() {
		if tx == nil || conn.PgConn().TxStatus() == 'I' { // not begun, or over
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = tx.Rollback(ctx)
	}()
	ends := &Ends{}
	err := panics.Catch(results.Close)
	if err == nil {
		err = f(tx, ends)
	}
	switch {
	case conn.IsClosed():
		return fmt.Errorf("%w: %w", ErrConnectionLost, cmp.Or(err, errors.New("before COMMIT")))
	case err != nil:
		return err
	}
	if err = cmp.Or(ctx.Err(), late(ctx)); err != nil {
		return fmt.Errorf("%w: %w", ErrTimeOver, err)
	}
	deadline, _ := ctx.Deadline()
	if !ends.By.IsZero() {
		deadline = ends.By
	}
	ctx, cancel := forCommit(ctx, deadline)
	defer cancel()
	return ends.send(ctx, conn)
}

// InPipeline is Pipeline on a connection of the pool.
func InPipeline(ctx context.Context, pool *pgxpool.Pool, first func(*pgx.Batch), f func(tx pgx.Tx, ends *Ends) error) error {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return NotBegun(ctx, err)
	}
	defer conn.Release()
	return Pipeline(ctx, conn.Conn(), first, f)
}

// send sends all that is left of a transaction.
func (e *Ends) send(ctx context.Context, conn *pgx.Conn) error {
	last, done, committed := &e.Last.Batch, 0, false
	for _, q := range last.QueuedQueries {
		read := q.Fn
		q.Fn = func(results pgx.BatchResults) (err error) {
			if read != nil {
				err = read(results)
			} else {
				_, err = results.Exec()
			}
			if err == nil {
				done++
			}
			return err
		}
	}
	statements := last.Len()
	switch faults.In(ctx) {
	case faults.CommitLost:
		return fmt.Errorf("%w: %w", ErrOutcomeUnknown, cmp.Or(conn.SendBatch(ctx, last).Close(), faults.Err))
	default:
	}
	last.Queue("commit").Exec(func(tag pgconn.CommandTag) error {
		if committed = tag.String() == "COMMIT"; !committed {
			return pgx.ErrTxCommitRollback
		}
		return nil
	})
	last.QueuedQueries = append(last.QueuedQueries, e.After.QueuedQueries...)
	err := panics.Catch(conn.SendBatch(ctx, last).Close)
	switch {
	case committed && faults.In(ctx) == faults.CommitUnknown:
		return fmt.Errorf("%w: %w", ErrOutcomeUnknown, faults.Err)
	case committed:
		return nil
	case refused(err) && done < statements:
		return err
	}
	unsent, ok := errors.AsType[pgx.ErrPreprocessingBatch](err)
	if ok && !Infrastructure(err) && slices.ContainsFunc(last.QueuedQueries[:statements], func(q *pgx.QueuedQuery) bool { return q.SQL == unsent.SQL() }) {
		return err // such as an argument that cannot be encoded: what comes behind it was not sent
	}
	return notCommitted(err)
}

// forCommit is the context of a COMMIT, which the caller's deadline, zero if there is none, may not cut short: it has at least commitTime.
func forCommit(ctx context.Context, deadline time.Time) (context.Context, context.CancelFunc) {
	ctx = context.WithoutCancel(ctx)
	if deadline.IsZero() {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, max(time.Until(deadline), commitTime))
}

// commit commits, or loses the COMMIT or its answer on purpose.
func commit(ctx context.Context, tx pgx.Tx) error {
	switch faults.In(ctx) {
	case faults.CommitUnknown:
		return cmp.Or(tx.Commit(ctx), faults.Err)
	case faults.CommitLost:
		return cmp.Or(tx.Rollback(ctx), faults.Err)
	default:
		return tx.Commit(ctx)
	}
}

// late is the error of a transaction whose time is over before its COMMIT, on purpose.
func late(ctx context.Context) error {
	if faults.In(ctx) == faults.Deadline {
		return errors.Join(faults.Err, context.DeadlineExceeded)
	}
	return nil
}

// Snapshot runs f in a REPEATABLE READ, READ ONLY transaction: all that it reads was committed at one moment. ErrConnectionLost and
// ErrTimeOver mark the errors of the connection and of ctx; every other error comes from f.
func Snapshot(ctx context.Context, db Beginner, f func(tx pgx.Tx) error) error {
	tx, err := db.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return NotBegun(ctx, err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = tx.Rollback(ctx) // it wrote nothing
	}()
	if err = f(tx); err == nil {
		return late(ctx)
	}
	if tx.Conn().IsClosed() {
		err = fmt.Errorf("%w: %w", ErrConnectionLost, err)
	}
	return err
}
