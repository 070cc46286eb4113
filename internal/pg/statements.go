package pg

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Statements queues what :exec queries write, to go out in one round trip: it is their DBTX. A query that returns rows is an error.
type Statements struct{ pgx.Batch }

// Send sends what was queued, in one round trip. Nothing queued: none.
func (s *Statements) Send(ctx context.Context, tx pgx.Tx) error {
	if s.Len() == 0 {
		return nil
	}
	return tx.SendBatch(ctx, &s.Batch).Close()
}

var errNoRows = errors.New("pg: a queued statement returns no rows")

// Exec queues. The tag is empty.
func (s *Statements) Exec(_ context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	s.Queue(sql, args...)
	return pgconn.CommandTag{}, nil
}

// Query is an error.
func (s *Statements) Query(context.Context, string, ...any) (pgx.Rows, error) { return nil, errNoRows }

// QueryRow is a row whose Scan is an error.
func (s *Statements) QueryRow(context.Context, string, ...any) pgx.Row { return noRow{} }

type noRow struct{}

func (noRow) Scan(...any) error { return errNoRows }
