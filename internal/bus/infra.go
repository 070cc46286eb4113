package bus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/puddle/v2"

	"github.com/ordergate/ordergate/internal/guard"
)

var (
	// ErrConnectionLost marks an error after which the connection was gone: the transaction had no effect.
	ErrConnectionLost = errors.New("connection lost")
	// ErrPassing marks what failed for a reason outside the message, which will pass.
	ErrPassing = errors.New("not possible now")
	// ErrOutcomeUnknown marks an error or time-out of COMMIT: the transaction may have taken effect.
	ErrOutcomeUnknown = errors.New("outcome of COMMIT unknown")
)

// Beginner is a pool, or one connection of it.
type Beginner interface {
	BeginTx(ctx context.Context, o pgx.TxOptions) (pgx.Tx, error)
}

// InTx runs f in a READ COMMITTED transaction and commits it. Its errors tell ErrConnectionLost and ErrOutcomeUnknown from what
// f or the database refused; a bare EOF does not (a torn payload gives the same).
func InTx(ctx context.Context, db Beginner, f func(tx pgx.Tx) error) error {
	tx, err := db.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return fmt.Errorf("%w: begin: %w", ErrConnectionLost, err)
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
	switch err = tx.Commit(ctx); {
	case err == nil || refused(err):
		return err
	case pgconn.SafeToRetry(err): // it was never sent
		return fmt.Errorf("%w: %w", ErrConnectionLost, err)
	}
	return fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
}

// refused tells that the server answered COMMIT and rolled back. A FATAL answer may come after the commit took effect.
func refused(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.SeverityUnlocalized == "ERROR" || errors.Is(err, pgx.ErrTxCommitRollback)
}

// Infrastructure tells errors of the machinery, which pass without anyone changing the message or the command, from those that
// come again: connections, time limits, shortage of resources, a read-only or stopping server, and Contention.
func Infrastructure(err error) bool {
	for _, mark := range []error{
		ErrConnectionLost, ErrOutcomeUnknown, ErrPassing, context.DeadlineExceeded, pgconn.ErrConnClosed, puddle.ErrClosedPool, net.ErrClosed,
	} {
		if errors.Is(err, mark) {
			return true
		}
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok { // whatever the server said to the new connection
		return true
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return guard.Failing(pg.Code) || Contention(err)
	}
	_, ok := errors.AsType[net.Error](err)
	return ok
}

// Contention tells rollbacks for the sake of a rival (deadlock, serialization, lock_timeout): alone the same work may pass. A
// breaker does not count them.
func Contention(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && len(pg.Code) == 5 && (pg.Code[:2] == "40" || pg.Code[:2] == "55")
}
