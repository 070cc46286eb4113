package command

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/ordersdb"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

// hash is what a repetition under the key must send again: the path's parameters and the canonical body.
func (e Envelope) hash(canonical []byte) [32]byte {
	return sha256.Sum256(append([]byte(e.Subject+"\x00"), canonical...))
}

// lockID is what the key's advisory lock is taken on.
func (e Envelope) lockID() int64 {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d\x00%s\x00%s\x00%s", e.Owner.Account, e.Owner.Mode, e.Operation, e.Key))
	return int64(binary.BigEndian.Uint64(sum[:]))
}

// refusalResult is a refusal as it is stored under a key.
func refusalResult(refusal *apierr.Error, about apierr.ProblemContext) Result {
	status, body := refusal.Problem(about)
	return Result{Status: status, Code: refusal.Code, ContentType: "application/problem+json", Body: view.Body{Bytes: body}}
}

// resolveKeys locks the calls' keys without waiting and finishes the calls that their key alone resolves: IDEM_003 if another
// transaction holds it, the stored result or IDEM_002 if it is known.
func resolveKeys(ctx context.Context, tx pgx.Tx, calls []*call) error {
	q := ordersdb.New(tx)
	locked, err := q.TryLockKeys(ctx, pg.Column(calls, func(c *call) int64 { return c.lockID() }))
	if err != nil {
		return fmt.Errorf("lock keys: %w", err)
	}
	var ours []*call
	for i, c := range calls {
		if locked[i] {
			ours = append(ours, c)
		} else {
			c.finish(Result{}, apierr.E(errcode.IDEM003))
		}
	}
	return findResults(ctx, q, ours)
}

// findResults finishes the calls whose key is known: with the stored result, or with IDEM_002 if something else was asked for then.
// It must be a later statement than the one that locked the keys.
func findResults(ctx context.Context, q *ordersdb.Queries, calls []*call) error {
	if len(calls) == 0 {
		return nil
	}
	rows, err := q.FindResults(ctx, ordersdb.FindResultsParams{
		Accounts:   pg.Column(calls, func(c *call) int32 { return c.Owner.Account }),
		Modes:      pg.Column(calls, func(c *call) string { return c.Owner.Mode }),
		Operations: pg.Column(calls, func(c *call) string { return c.Operation }),
		Keys:       pg.Column(calls, func(c *call) string { return c.Key }),
	})
	if err != nil {
		return fmt.Errorf("look keys up: %w", err)
	}
	for _, row := range rows {
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
			Status: int(row.Status), Code: errcode.Code(row.Code), ContentType: row.ContentType, Location: row.Location, Body: view.Body{Bytes: row.Body, ETag: row.Etag}, Replayed: true,
		}
		if row.OrderID != nil {
			r.OrderID = order.ID(*row.OrderID)
		}
		calls[i].finish(r, nil)
	}
	return nil
}

// Limits of the look-up after a COMMIT without an answer.
const (
	resolveTime     = time.Second
	resolveLockTime = 200 * time.Millisecond
)

// resolveCommit finds out how a COMMIT ended that had no answer, on a new connection. Only under the keys' locks does absence prove
// anything: the transaction holds them until its end. Found: the stored result. Absent: nothing changed and the key is free. Locks not
// had in time: SYS_006. What is visible is not yet safe: giving up on a COMMIT ends PostgreSQL's wait for a synchronous standby, so the
// look-up has a COMMIT of its own that must get through.
func (c *Commands) resolveCommit(ctx context.Context, calls []*call, cause error) {
	if len(calls) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	var lsn int64
	err := pg.InTx(ctx, c.cfg.Pool, func(tx pgx.Tx) error {
		q := ordersdb.New(tx)
		if err := q.SetLockTimeout(ctx, milliseconds(resolveLockTime)); err != nil {
			return err
		}
		keys := pg.Column(calls, func(c *call) int64 { return c.lockID() })
		slices.Sort(keys) // two look-ups with common keys do not wait for each other
		if err := q.LockKeys(ctx, keys); err != nil {
			return err
		}
		if err := findResults(ctx, q, calls); err != nil {
			return err
		}
		var err error
		if lsn, err = q.FlushLSN(ctx); err != nil {
			return err
		}
		return q.WaitForStandbys(ctx)
	})
	for _, one := range calls {
		switch {
		case err != nil:
			one.finish(Result{}, apierr.E(errcode.SYS006, apierr.Cause(errors.Join(cause, err))))
		case !one.done:
			one.finish(Result{LSN: uint64(lsn)}, toClientError(cause))
		default:
			one.result.LSN = uint64(lsn)
			one.result.Replayed = false // to this caller it is the first answer
		}
	}
}

// limitLocks keeps a wait for a lock from outlasting the deadline: the server then tells of the lock, instead of falling silent.
func limitLocks(ctx context.Context, tx pgx.Tx, deadline time.Time) error {
	left := time.Until(deadline) - endTime
	if left >= lockTime {
		return nil
	}
	return ordersdb.New(tx).SetLockTimeout(ctx, milliseconds(max(left, time.Millisecond)))
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// resultRows are the results that a batch stores under keys.
type resultRows []resultRow

type resultRow struct {
	*call
	Result
}

// write stores results under their keys.
func (rs resultRows) write(ctx context.Context, q *ordersdb.Queries) error {
	return q.InsertResults(ctx, ordersdb.InsertResultsParams{
		Accounts:      pg.Column(rs, func(r resultRow) int32 { return r.Owner.Account }),
		Modes:         pg.Column(rs, func(r resultRow) string { return r.Owner.Mode }),
		Operations:    pg.Column(rs, func(r resultRow) string { return r.Operation }),
		Keys:          pg.Column(rs, func(r resultRow) string { return r.Key }),
		RequestHashes: pg.Column(rs, func(r resultRow) []byte { return r.hash[:] }),
		Statuses:      pg.Column(rs, func(r resultRow) int32 { return int32(r.Status) }),
		Codes:         pg.Column(rs, func(r resultRow) string { return string(r.Code) }),
		ContentTypes:  pg.Column(rs, func(r resultRow) string { return r.ContentType }),
		Etags:         pg.Column(rs, func(r resultRow) string { return r.Body.ETag }),
		Locations:     pg.Column(rs, func(r resultRow) string { return r.Location }),
		Bodies:        pg.Column(rs, func(r resultRow) []byte { return r.Body.Bytes }),
		OrderIds:      pg.Column(rs, func(r resultRow) uuid.UUID { return uuid.UUID(r.OrderID) }),
	})
}
