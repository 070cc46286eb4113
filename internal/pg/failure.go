package pg

import (
	"context"
	"errors"
	"net"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/puddle/v2"
)

// Infrastructure tells errors that pass without a change of the message or the command from those that come again: connections, time
// limits, shortage of resources, a read-only or stopping server, and Contention.
func Infrastructure(err error) bool {
	for _, mark := range []error{
		ErrConnectionLost, ErrOutcomeUnknown, context.DeadlineExceeded, pgconn.ErrConnClosed, puddle.ErrClosedPool, net.ErrClosed,
	} {
		if errors.Is(err, mark) {
			return true
		}
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok { // whatever the server said to the new connection
		return true
	}
	if said, ok := errors.AsType[*pgconn.PgError](err); ok {
		return Failing(said.Code) || Contention(err)
	}
	_, ok := errors.AsType[net.Error](err)
	return ok
}

// Contention tells rollbacks because of a concurrent transaction (deadlock, serialization, lock_timeout): alone the same work may pass.
// A breaker does not count them.
func Contention(err error) bool {
	said, ok := errors.AsType[*pgconn.PgError](err)
	return ok && len(said.Code) == 5 && (said.Code[:2] == "40" || said.Code[:2] == "55")
}

// ReadOnlyTransaction is the SQLSTATE of a write in a read-only transaction.
const ReadOnlyTransaction = "25006"

// Failing tells the SQLSTATEs of a PostgreSQL that cannot work now, whatever it is asked: lost connections (08), no resources
// (53), being stopped or out of time (57), its system failing (58), and having become read-only (25006, on a connection that may write).
// They pass, or another server must be asked; all others speak of the statement or the data.
func Failing(sqlstate string) bool {
	switch sqlstate[:min(2, len(sqlstate))] {
	case "08", "53", "57", "58":
		return true
	}
	return sqlstate == ReadOnlyTransaction
}
