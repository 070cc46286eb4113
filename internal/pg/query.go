package pg

import "github.com/jackc/pgx/v5"

// Query queues a statement whose rows are read, by the order of their columns, when the batch's results are.
func Query[T any](to *pgx.Batch, read func([]T) error, sql string, args ...any) {
	to.Queue(sql, args...).Query(func(rows pgx.Rows) error {
		all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[T])
		if err != nil {
			return err
		}
		return read(all)
	})
}

// LockQuery is one of two statements that lock the same rows: the first waits for locks, its twin with SKIP LOCKED leaves out the rows that another
// transaction holds.
func LockQuery(onlyFree bool, waits, skips string) string {
	if onlyFree {
		return skips
	}
	return waits
}
