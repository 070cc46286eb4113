package pg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ordergate/ordergate/internal/faults"
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
	// The caller's deadline may not cut COMMIT short: it has at least commitTime.
	deadline, limited := ctx.Deadline()
	ctx = context.WithoutCancel(ctx)
	if limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, max(time.Until(deadline), commitTime))
		defer cancel()
	}
	err = commit(ctx, tx)
	answer, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case err == nil:
		return nil
	case ok && answer.SeverityUnlocalized == "ERROR", errors.Is(err, pgx.ErrTxCommitRollback): // FATAL may follow a commit that took effect
		return fmt.Errorf("%w: %w", ErrRefusedAtCommit, err)
	}
	return fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
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
