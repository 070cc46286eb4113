package command

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/ordersdb"
	"github.com/ordergate/ordergate/internal/faults"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

// hash covers the parts that a repetition under the key must send again: the path's parameters and the canonical body.
func (e Envelope) hash(canonical []byte) [32]byte {
	return sha256.Sum256(append([]byte(e.Subject+"\x00"), canonical...))
}

// lockID identifies the key's advisory lock.
func (e Envelope) lockID() int64 {
	return advisoryLock("%d\x00%s\x00%s\x00%s", e.Owner.Account, e.Owner.Mode, e.Operation, e.Key)
}

// advisoryLock identifies the advisory lock of a name that has no row to lock yet: the first 64 bits of its SHA-256. All gateways of a database
// must agree on it.
func advisoryLock(format string, parts ...any) int64 {
	sum := sha256.Sum256(fmt.Appendf(nil, format, parts...))
	return int64(binary.BigEndian.Uint64(sum[:]))
}

// keyed are the calls that have a key.
func keyed(calls []*call) []*call {
	return slices.DeleteFunc(slices.Clone(calls), func(c *call) bool { return c.Key == "" })
}

// resolveKeys locks the calls' keys without waiting and finishes the calls that their key alone resolves: with the stored result or IDEM_002 if it is known,
// whoever holds its lock, since a stored result does not change; else IDEM_003 if another transaction holds it.
//
// It queues two statements, the results of which do that.
func resolveKeys(batch *pgx.Batch, calls []*call, fault faults.Name) {
	if calls = keyed(calls); len(calls) == 0 {
		return
	}
	var locked []bool
	batch.Queue(ordersdb.TryLockKeys, pg.Column(calls, func(c *call) int64 { return c.lockID() })).Query(func(rows pgx.Rows) (err error) {
		locked, err = pgx.CollectRows(rows, pgx.RowTo[bool])
		return err
	})
	p := findResultsParams(calls)
	pg.Query(batch, func(found []ordersdb.FindResultsRow) error {
		if fault == faults.InProgress {
			clear(locked)
		} else {
			finishFound(calls, found)
		}
		for i, c := range calls {
			if !locked[i] && !c.done {
				c.finish(Result{}, apierr.E(errcode.IDEM003))
			}
		}
		return nil
	}, ordersdb.FindResults, p.Accounts, p.Modes, p.Operations, p.Keys)
}

// findResults finishes the calls whose key is known: with the stored result, or with IDEM_002 if something else was asked for then.
// It must be a later statement than the one that locked the keys.
func findResults(ctx context.Context, q *ordersdb.Queries, calls []*call) error {
	if len(calls) == 0 {
		return nil
	}
	found, err := q.FindResults(ctx, findResultsParams(calls))
	if err != nil {
		return fmt.Errorf("look keys up: %w", err)
	}
	finishFound(calls, found)
	return nil
}

func findResultsParams(calls []*call) ordersdb.FindResultsParams {
	return ordersdb.FindResultsParams{
		Accounts:   pg.Column(calls, func(c *call) int32 { return c.Owner.Account }),
		Modes:      pg.Column(calls, func(c *call) string { return c.Owner.Mode }),
		Operations: pg.Column(calls, func(c *call) string { return c.Operation }),
		Keys:       pg.Column(calls, func(c *call) string { return c.Key }),
	}
}

func finishFound(calls []*call, found []ordersdb.FindResultsRow) {
	for _, row := range found {
		owner := order.Owner{Account: row.Account, Mode: row.Mode}
		i := slices.IndexFunc(calls, func(c *call) bool { return c.Key == row.Key && c.Operation == row.Operation && c.Owner == owner })
		if i < 0 {
			continue
		}
		if string(row.RequestHash) != string(calls[i].hash[:]) {
			calls[i].finish(Result{}, apierr.E(errcode.IDEM002))
			continue
		}
		r := Result{
			Status: int(row.Status), Code: errcode.Code(row.Code), ContentType: row.ContentType, Location: row.Location,
			Body: view.Body{Bytes: row.Body, ETag: row.Etag}, Replayed: true, OrderID: order.ID(row.OrderID),
		}
		calls[i].finish(r, nil)
	}
}

// resultRow is one row of idempotency_keys.
type resultRow struct {
	*call
	Result
}

func insertResults(ctx context.Context, q *ordersdb.Queries, rows []resultRow) error {
	return q.InsertResults(ctx, ordersdb.InsertResultsParams{
		Accounts:      pg.Column(rows, func(r resultRow) int32 { return r.Owner.Account }),
		Modes:         pg.Column(rows, func(r resultRow) string { return r.Owner.Mode }),
		Operations:    pg.Column(rows, func(r resultRow) string { return r.Operation }),
		Keys:          pg.Column(rows, func(r resultRow) string { return r.Key }),
		RequestHashes: pg.Column(rows, func(r resultRow) []byte { return r.hash[:] }),
		Statuses:      pg.Column(rows, func(r resultRow) int32 { return int32(r.Status) }),
		Codes:         pg.Column(rows, func(r resultRow) string { return string(r.Code) }),
		ContentTypes:  pg.Column(rows, func(r resultRow) string { return r.ContentType }),
		Etags:         pg.Column(rows, func(r resultRow) string { return r.Body.ETag }),
		Locations:     pg.Column(rows, func(r resultRow) string { return r.Location }),
		Bodies:        pg.Column(rows, func(r resultRow) []byte { return r.Body.Bytes }),
		OrderIds:      pg.Column(rows, func(r resultRow) uuid.UUID { return uuid.UUID(r.OrderID) }),
	})
}
