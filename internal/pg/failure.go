package pg

import (
	"context"
	"errors"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/puddle/v2"
)

// Infrastructure tells the errors that a later try of the same work may not meet: lost connections, time-outs, lack of resources, a
// read-only or stopping server, and Contention.
func Infrastructure(err error) bool {
	for _, known := range []error{
		ErrConnectionLost, ErrTimeOver, ErrOutcomeUnknown, context.DeadlineExceeded, pgconn.ErrConnClosed, puddle.ErrClosedPool, net.ErrClosed,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok { // also with an SQLSTATE that Unavailable does not have
		return true
	}
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return Unavailable(pgErr.Code) || Contention(err)
	}
	_, ok := errors.AsType[net.Error](err)
	return ok
}

// Contention tells rollbacks because of a concurrent transaction: deadlock, serialization failure, lock_timeout. A breaker does not
// count them.
func Contention(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && len(pgErr.Code) == 5 && (pgErr.Code[:2] == "40" || pgErr.Code[:2] == "55")
}

// LockNotHad tells that a statement waited for a lock longer than lock_timeout: another transaction holds it.
func LockNotHad(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pgErr.Code == LockNotAvailable
}

// Integrity tells the SQLSTATEs that the data of a statement provoke: values that cannot be represented (22), and constraints (23).
func Integrity(sqlstate string) bool {
	return strings.HasPrefix(sqlstate, "22") || strings.HasPrefix(sqlstate, "23")
}

// SQLSTATEs by PostgreSQL's names.
const (
	ReadOnlyTransaction = "25006"
	Deadlock            = "40P01"
	LockNotAvailable    = "55P03" // of a lock_timeout
	NoDataFound         = "P0002" // of a write to a row that is gone
	InternalError       = "XX000" // of a write that finds a locked row otherwise than it was read: a bug
)

// Unavailable tells the SQLSTATEs of a server that can execute no statement now: connection (08), resources (53), shutdown or
// cancellation (57), system error (58), read-only (25006, on a connection that may write). All other SQLSTATEs are about the statement or
// its data.
func Unavailable(sqlstate string) bool {
	switch sqlstate[:min(2, len(sqlstate))] {
	case "08", "53", "57", "58":
		return true
	}
	return sqlstate == ReadOnlyTransaction
}
