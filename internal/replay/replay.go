// Package replay rebuilds orders, payments, refunds, shipments and stock from what they follow from: the events, and for stock the
// reservations, too. It works beside a running system.
//
// It walks over all histories twice. The first walk folds them and changes nothing: whatever is broken ends the run. The second folds
// them again, a page at a time, and compares each page with its rows. Those that are missing or differ are locked; what happened to them
// since is folded on top; then they are written, in one transaction a page. The shadow is thus the folds of a page, in memory.
package replay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ordergate/ordergate/gen/replaydb"
	"github.com/ordergate/ordergate/internal/pg"
)

const (
	pageSize     = 500                   // histories of a page, and rows of a transaction
	eventsAtOnce = 8 * pageSize          // events that one statement reads: some MB
	retryAfter   = 50 * time.Millisecond // what waited for a lock is tried again
	maxTries     = 1000
)

// ErrRunning says that another replay has the database.
var ErrRunning = errors.New("another replay is running on this database")

// Config is what Run needs.
type Config struct {
	Pool     *pgxpool.Pool  // its own; two connections at least, to the primary, with pg.ReplaySession
	PageSize int32          // histories of a page; 0: 500
	Progress func(Progress) // is called at the beginning of each step and after each page. May be nil
}

// Progress says how far a Run is.
type Progress struct {
	Step     string
	Number   int // of the step, from 1
	Steps    int
	Done     int64 // events; of stock: rows
	Expected int64 // Done at the end; 0: it is not known
}

// Report says what a Run did.
type Report struct {
	Generation int64 // of the caches since
	Tables     []Table
}

// Table says what a Run did to a table.
type Table struct {
	Name      string
	Histories int64 // that were folded: of rows that there must be
	Events    int64 // in them
	Written   int64 // rows that were missing or differed
	Deleted   int64 // rows that nothing says of
}

// step is one walk over the histories of a kind of rows, or the comparison of stock.
type step struct {
	name string
	kind string // of its events in CountHistory
	do   func(*run, context.Context) error
}

// steps are done in this order. Refunds come before the payments that have their sums, and parts of an order before it.
var steps = []step{
	{"check orders", "order", func(r *run, ctx context.Context) error { return check(ctx, r, orders) }},
	{"check shipments", "shipment", func(r *run, ctx context.Context) error { return check(ctx, r, shipments) }},
	{"check payments", "payment", func(r *run, ctx context.Context) error { return check(ctx, r, payments) }},
	{"check refunds", "refund", func(r *run, ctx context.Context) error { return check(ctx, r, refunds) }},
	{"check stock", "inventory", (*run).checkStock},
	{"rebuild refunds", "refund", func(r *run, ctx context.Context) error { return rebuild(ctx, r, refunds) }},
	{"rebuild payments", "payment", func(r *run, ctx context.Context) error { return rebuild(ctx, r, payments) }},
	{"rebuild shipments", "shipment", func(r *run, ctx context.Context) error { return rebuild(ctx, r, shipments) }},
	{"rebuild orders", "order", func(r *run, ctx context.Context) error { return rebuild(ctx, r, orders) }},
	{"rebuild stock", "", (*run).rebuildStock},
}

// checks is how many of the steps only read.
const checks = 5

// run is the state of one Run.
type run struct {
	Config

	queries    *replaydb.Queries // outside of transactions
	generation int64             // revs of this run are above all that were given out before
	progress   Progress
	table      Table // that the present step writes
	stock      Table // what checkStock looked at
}

// Run rebuilds all rows. It may be repeated at any time, also after it was killed: a row that is right is not touched. ErrRunning: another
// one runs. Any other error of a check, such as a history that is broken, changed nothing; after one of the second walk the pages before it
// are rebuilt.
func Run(ctx context.Context, c Config) (Report, error) {
	r := &run{Config: c, queries: replaydb.New(c.Pool)}
	r.PageSize = cmp.Or(c.PageSize, pageSize)
	lock, err := c.Pool.Acquire(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("cannot connect to the primary: %w", err)
	}
	defer lock.Release()
	session := replaydb.New(lock)
	if locked, err := session.LockReplay(ctx); err != nil || !locked {
		return Report{}, cmp.Or(err, ErrRunning)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = session.UnlockReplay(ctx) // a session that is lost has lost the lock, too
	}()
	counts, err := r.count(ctx)
	if err != nil {
		return Report{}, err
	}
	var report Report
	for n, s := range steps {
		r.progress = Progress{Step: s.name, Number: n + 1, Steps: len(steps), Expected: counts[s.kind]}
		r.table = Table{}
		r.done(0)
		if n == checks {
			// Rows get revs of this generation. It is raised before the first of them: a run that is killed then has used its own.
			if r.generation, err = r.raiseGeneration(ctx); err != nil {
				return Report{}, fmt.Errorf("raise the generation of the caches: %w", err)
			}
		}
		if err = s.do(r, ctx); err != nil {
			err = fmt.Errorf("%s: %w", s.name, err)
			if n < checks {
				return Report{}, fmt.Errorf("nothing was changed: %w", err)
			}
			return Report{}, fmt.Errorf("not finished, run it again: %w", err)
		}
		if n >= checks {
			report.Tables = append(report.Tables, r.table)
		}
	}
	// An entry that a cache read while rows were rebuilt is of the generation before.
	if report.Generation, err = r.raiseGeneration(ctx); err != nil {
		return Report{}, fmt.Errorf("all is rebuilt, but caches may have entries of before for 12 s: raise their generation: %w", err)
	}
	return report, nil
}

// raiseGeneration raises the generation of the caches, which every change by hand holds until its COMMIT.
func (r *run) raiseGeneration(ctx context.Context) (generation int64, err error) {
	err = r.inTx(ctx, func(q *replaydb.Queries) error {
		generation, err = q.RaiseCacheGeneration(ctx)
		return err
	})
	return generation, err
}

// count is how many events there are of each kind. Without a Progress nothing is counted.
func (r *run) count(ctx context.Context) (map[string]int64, error) {
	counts := map[string]int64{}
	if r.Progress == nil {
		return counts, nil
	}
	rows, err := r.queries.CountHistory(ctx)
	for _, row := range rows {
		counts[row.Kind] = row.Events
	}
	return counts, err
}

// done counts what the step has done.
func (r *run) done(n int64) {
	if r.progress.Done += n; r.Progress != nil {
		r.Progress(r.progress)
	}
}

// inTx runs f in a transaction, again while others hold a lock that it needs.
func (r *run) inTx(ctx context.Context, f func(*replaydb.Queries) error) error {
	for try := 1; ; try++ {
		err := pg.InTx(ctx, r.Pool, func(tx pgx.Tx) error { return f(replaydb.New(tx)) })
		if err == nil || !pg.Contention(err) || try == maxTries {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retryAfter):
		}
	}
}
