package query

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel/trace"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/querydb"
	"github.com/ordergate/ordergate/internal/guard"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/token"
)

const (
	readTimeout = 300 * time.Millisecond // of one read of one server
	catchUp     = 60 * time.Millisecond  // how long a replica may take to reach a token before the primary is asked
	queueFor    = 100 * time.Millisecond // how long a read waits for its turn at the primary
)

var (
	errBehind   = errors.New("query: not as new as the token")
	errTimeline = errors.New("query: the server is on an older timeline, or no primary")
	errCut      = errors.New("query: the replica receives nothing")
)

// server is a database that is read from.
type server struct {
	pool  *pgxpool.Pool
	tier  string
	guard *guard.Guard
}

func (r *Queries) server(pool *pgxpool.Pool, tier, name string, atOnce uint) *server {
	g := guard.New(guard.Config{Name: name, Concurrent: atOnce, Wait: queueFor, Timeout: readTimeout, Failure: broken, Registry: r.cfg.Metrics})
	return &server{pool: pool, tier: tier, guard: g}
}

// fetch runs one statement and returns the revision of the row that it found, 0 if there is none. A list has no revision.
type fetch func(ctx context.Context, q *querydb.Queries) (rev int64, err error)

// read fetches from a replica that is fresh enough for w, waiting for it a little, else from the primary, and if that is away from
// a replica that stands still, which is not believed that a row is missing. The entry says where that server stood; it has no body. Errors are what a client hears.
func (r *Queries) read(ctx context.Context, w want, get fetch) (e Entry, tier string, err error) {
	if w.key == "" { // what is one row has its span around all tiers
		var span trace.Span
		ctx, span = r.cfg.Tracer.Start(ctx, "query")
		defer span.End()
	}
	foreign := w.token.Timeline != 0 && w.token.Timeline != r.timeline() // only the primary knows what became of it
	behind, cut := w.short || foreign && len(r.replicas) > 0, false
	if len(r.replicas) > 0 && !foreign && !w.primary && w.token.LSN != token.NoPosition {
		for deadline := time.Now().Add(catchUp); ; time.Sleep(pollEvery) {
			if e, cut, err = r.askReplica(ctx, w.key, get, false); err == nil && w.metBy(&e) {
				return e, tierReplica, nil
			}
			waits := err == nil && !e.answers(w.token)
			behind = behind || waits
			if !waits || time.Now().After(deadline) {
				break
			}
		}
		if cut || err == nil {
			r.behind.Inc()
		}
	}
	if e, err = r.ask(ctx, r.primary, w.key, get); err != nil {
		if cut && broken(err) && apierr.From(err).Code != errcode.RATE003 { // it is away, not full
			e, _, again := r.askReplica(ctx, w.key, get, true)
			if again == nil && w.metBy(&e) && (e.Rev > 0 || !w.row) { // it cannot know that there is no such row
				return e, tierReplica, nil
			}
			behind = behind || again == nil
		}
		return e, tierPrimary, refusal(err, behind)
	}
	visible := e
	visible.KnownAt++ // a commit at the very position that is not yet visible has been seen by nobody
	if w.token.LSN == token.NoPosition || w.token.Timeline < e.Timeline || visible.answers(w.token) {
		return e, tierPrimary, nil
	}
	return e, tierPrimary, refusal(errBehind, true)
}

// askReplica asks the replicas in turn until one can speak for the primary, or, if evenCut, stands still. cut tells whether one did.
func (r *Queries) askReplica(ctx context.Context, key string, get fetch, evenCut bool) (e Entry, cut bool, err error) {
	for range r.replicas {
		next := r.replicas[int(r.turn.Add(1))%len(r.replicas)]
		e, err = r.ask(ctx, next, key, get)
		e.cut = errors.Is(err, errCut)
		cut = cut || e.cut
		if evenCut && e.cut {
			return e, cut, nil
		}
		if err == nil || !evenCut && !refusedAtOnce(err) {
			break // a server that was slow has cost enough time: the primary is next
		}
	}
	return e, cut, err
}

// refusedAtOnce tells failures that took no time: it does no harm to ask the next server.
func refusedAtOnce(err error) bool {
	for _, known := range []error{errCut, errTimeline, circuitbreaker.ErrOpen} {
		if errors.Is(err, known) {
			return true
		}
	}
	unreachable, ok := errors.AsType[*pgconn.ConnectError](err)
	return ok && !errors.Is(unreachable, context.DeadlineExceeded)
}

// ask fetches from one server, between two looks at its position: what it had replayed before the statement began is certainly in
// the answer, and nothing in the answer is later than its position after it. Of a primary, the last commit before the statement may
// be durable and not yet visible. With errCut the entry is whole.
func (r *Queries) ask(ctx context.Context, s *server, key string, get fetch) (e Entry, err error) {
	defer func(begin time.Time) { r.loads.WithLabelValues(s.tier).Observe(time.Since(begin).Seconds()) }(time.Now())
	known := r.timeline()
	b := &bracket{pool: s.pool}
	err = s.guard.Do(ctx, func(ctx context.Context) (err error) {
		defer b.close(&err)
		e.Rev, err = get(ctx, querydb.New(b))
		return err
	})
	if err != nil {
		return e, err
	}
	switch timeline := uint32(b.before.Timeline); {
	case timeline > known:
		r.learn(timeline)
		known = timeline
	case timeline < known, s.tier == tierPrimary && b.before.Standby:
		return e, errTimeline
	}
	e.Key, e.KnownAt, e.Timeline, e.LoadedAt = key, uint64(b.before.Lsn), known, r.cfg.Now()
	if !b.before.Standby {
		e.KnownAt--
	}
	e.Token = r.cfg.Signer.Sign(token.Token{Timeline: known, LSN: uint64(b.after.Lsn), Key: key, Rev: e.Rev})
	if b.before.Cut {
		err = errCut
	}
	return e, err
}

// timeline is the highest known.
func (r *Queries) timeline() uint32 { return max(r.cfg.Timeline(), r.seen.Load()) }

func (r *Queries) learn(timeline uint32) {
	for old := r.seen.Load(); timeline > old && !r.seen.CompareAndSwap(old, timeline); old = r.seen.Load() {
	}
}

// refusal is what a client hears of a failed read. behind: something could be read, but not as new as the token.
func refusal(err error, behind bool) error {
	switch {
	case !broken(err):
		return err
	case apierr.From(err).Code == errcode.RATE003:
		return err
	case behind:
		return apierr.E(errcode.SYS004, apierr.Cause(err))
	}
	return apierr.E(errcode.SYS002, apierr.Cause(err))
}

// broken tells a failure of a remote part from what a healthy one may say.
func broken(err error) bool {
	if said, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Failing(said.Code)
	}
	return err != nil && !errors.Is(err, context.Canceled)
}

func caught(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("query: panic: %v", p)
	}
}

// bracket is what sqlc's queries run on: it sends one statement between two looks at the server's position, in one round trip.
// All three are one implicit transaction, but at READ COMMITTED each sees what is there when it begins.
type bracket struct {
	pool          *pgxpool.Pool
	results       pgx.BatchResults
	before, after querydb.PositionRow
	err           error
}

func (b *bracket) send(ctx context.Context, sql string, args []any) {
	batch := &pgx.Batch{}
	batch.Queue(querydb.Position)
	batch.Queue(sql, args...)
	batch.Queue(querydb.Position)
	b.results = b.pool.SendBatch(ctx, batch)
	b.err = b.look(&b.before)
}

func (b *bracket) look(p *querydb.PositionRow) error {
	return b.results.QueryRow().Scan(&p.Standby, &p.Lsn, &p.Timeline, &p.Cut)
}

// Query implements querydb.DBTX.
func (b *bracket) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if b.send(ctx, sql, args); b.err != nil {
		return nil, b.err
	}
	return b.results.Query()
}

// QueryRow implements querydb.DBTX.
func (b *bracket) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	b.send(ctx, sql, args)
	return b.results.QueryRow() // after an error it returns the same
}

// Exec implements querydb.DBTX.
func (b *bracket) Exec(context.Context, string, ...any) (pgconn.CommandTag, error) {
	return pgconn.CommandTag{}, errors.New("query: the read side does not write")
}

// close takes the second look and gives the connection back.
func (b *bracket) close(err *error) {
	if b.results == nil {
		return
	}
	if *err == nil {
		*err = b.look(&b.after)
	}
	if closed := b.results.Close(); *err == nil {
		*err = closed
	}
}
