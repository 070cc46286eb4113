package query

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/querydb"
	"github.com/ordergate/ordergate/internal/guard"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/token"
)

const (
	readTimeout = 300 * time.Millisecond // of one read of one server
	catchUp     = 60 * time.Millisecond  // a replica may take this long to reach a token before the primary is asked
	queueFor    = 100 * time.Millisecond // a read waits this long for a connection to one server
	costlyFor   = time.Second            // limit of a costly read
	costlyReads = 4                      // that run at once in a process
)

var errTimeline = errors.New("query: the server is on an older timeline, or no primary")

// server is a database that is read from.
type server struct {
	pool      *pgxpool.Pool
	tier      string
	name      string // in metrics
	guard     *guard.Guard
	watermark atomic.Pointer[watermark] // of a replica; nil until it is measured
}

// newServer guards a pool. As many reads run at once as the pool has connections, so that a wait for one never counts as the server's
// failure.
func newServer(pool *pgxpool.Pool, tier, name string, registry prometheus.Registerer) *server {
	return &server{pool: pool, tier: tier, name: name, guard: guard.New(guard.Config{
		Name: name, Concurrent: uint(pool.Config().MaxConns), Wait: queueFor, Timeout: readTimeout, Failure: broken, Registry: registry,
	})}
}

// fromDatabase reads and encodes an entry that no cache has. The errors are those that a client sees.
func (q *Queries) fromDatabase(ctx context.Context, r requirement, get fetch) (*Entry, error) {
	priority := guard.Low
	if r.of != (key{}) { // a cache takes the entry: it is read once for many
		priority = guard.Normal
	}
	if !r.ours {
		work, err := q.cfg.Admission.Begin(priority)
		if err != nil {
			return nil, err
		}
		defer work.End(false)
	}
	e, err := q.read(ctx, r, get)
	if err != nil {
		return nil, err
	}
	if e.Rev > 0 {
		e.Body, err = e.encode()
	}
	e.encode = nil
	return e, err
}

// read asks a replica that satisfies r, for which it waits up to catchUp, else the primary. If the primary is away, a disconnected
// replica may serve a row, but not the lack of one.
func (q *Queries) read(ctx context.Context, r requirement, get fetch) (*Entry, error) {
	otherTimeline := r.token.Timeline != 0 && r.token.Timeline != q.timeline() // only the primary knows its end
	behind := r.behind || otherTimeline && len(q.replicas) > 0
	var disconnected *Entry
	if !otherTimeline && !r.primary && r.token.LSN != token.NoPosition {
		var e *Entry
		for deadline := time.Now().Add(catchUp); ; pause(ctx, pollEvery) {
			var err error
			if e, disconnected, err = q.askReplicas(ctx, r, get); e != nil && r.satisfiedBy(e) {
				return e, nil
			}
			if r.costly && err != nil && apierr.From(err).Code == errcode.RATE003 {
				return nil, err // it would cost the primary as much
			}
			lagging := e != nil && !e.satisfies(r.token)
			behind = behind || lagging
			if !lagging || time.Now().After(deadline) {
				break
			}
		}
		if disconnected != nil || e != nil {
			q.behind.Inc()
		}
	}
	e, err := q.askPrimary(ctx, r, get)
	if err != nil {
		if broken(err) && disconnected != nil && disconnected.Rev > 0 && r.satisfiedBy(disconnected) {
			return disconnected, nil
		}
		return nil, toClientError(err, behind || disconnected != nil && r.token != (token.Token{}))
	}
	t := r.token
	// An order below the token's revision is older: no other owner has one of its id, and none is not an older one. Where there are no replicas,
	// nobody has shown what is not seen here.
	older := !e.of.id.IsZero() && t.Key == e.Key && 0 < e.Rev && e.Rev < t.Rev || e.unseen && len(q.replicas) > 0
	if t.LSN == token.NoPosition || t.Timeline < e.Timeline || e.satisfies(t) {
		return e, nil
	}
	if t.Timeline == e.Timeline && e.durable >= t.LSN && !older {
		e.answers = t.LSN
		return e, nil
	}
	return nil, toClientError(errors.New("query: not as new as the token"), true)
}

// askPrimary asks the primary. A commit that a replica has shown may be durable there, and not yet seen: while that can be, it is asked again, for up
// to openFor. For one that waits for a synchronous standby, which may be away, it is asked for up to catchUp.
func (q *Queries) askPrimary(ctx context.Context, r requirement, get fetch) (*Entry, error) {
	for begin, after := time.Now(), invisibleFor; ; after = min(2*after, catchUp) {
		e, err := q.ask(ctx, q.primary, r, get)
		if err != nil || r.token.Timeline != e.Timeline || e.durable < r.token.LSN {
			return e, err
		}
		waited := time.Since(begin)
		if e.satisfies(r.token) || e.KnownAt+1 >= r.token.LSN || waited > openFor || e.unseen && waited > catchUp { // no two commits are one byte apart
			return e, nil
		}
		pause(ctx, after)
	}
}

// askReplicas asks the chosen replicas until a connected one has an entry, or fails in a way that takes time: that is the error. One that is
// full is waited for only if no other one is left. The entry of a disconnected one is returned beside.
func (q *Queries) askReplicas(ctx context.Context, r requirement, get fetch) (e, disconnected *Entry, err error) {
	chosen := q.choose(r.token)
	for i, next := range chosen {
		r.atOnce = i+1 < len(chosen) && q.place(chosen[i+1], r.token) <= behindToken
		e, err := q.ask(ctx, next, r, get)
		switch {
		case err == nil && e.disconnected:
			disconnected = e
		case err == nil:
			return e, disconnected, nil
		case !refusedAtOnce(err) || (r.costly || !r.atOnce) && apierr.From(err).Code == errcode.RATE003:
			return nil, disconnected, err // a slow server has cost enough time: the primary is next
		}
	}
	return nil, disconnected, nil
}

// refusedAtOnce tells failures that took no time, an open breaker and a full server among them: the next server may be asked.
func refusedAtOnce(err error) bool {
	unreachable, ok := errors.AsType[*pgconn.ConnectError](err)
	if ok {
		return !errors.Is(unreachable, context.DeadlineExceeded)
	}
	return errors.Is(err, errTimeline) || errors.Is(err, ErrPromoted) || errors.Is(err, errAhead) || slices.Contains([]errcode.Code{errcode.SYS002, errcode.RATE003}, apierr.From(err).Code)
}

// ask fetches from one server and notes the server's position before and after the statement. A commit that was replayed before the
// statement is in the entry; nothing in the entry is later than the position after it. On a primary the last commit before the
// statement may be durable and not yet visible. If the position moved, the row is read again: the token names its revision only if
// that was still the latest at the token's position.
func (q *Queries) ask(ctx context.Context, s *server, r requirement, get fetch) (*Entry, error) {
	of, t := r.of, r.token
	defer func(begin time.Time) {
		q.loads.WithLabelValues(cmp.Or(r.countedAs, s.tier)).Observe(time.Since(begin).Seconds())
	}(time.Now())
	known := q.epoch()
	visible, since := q.visible.upTo(known.timeline), time.Now()
	p, f, latest := &positionedQuery{pool: s.pool, transactions: s.tier == tierPrimary && t.LSN > visible}, found{}, true
	do := s.guard.Do
	switch {
	case r.costly:
		do = func(ctx context.Context, fn func(context.Context) error) error {
			return s.guard.DoCostly(ctx, costlyFor, fn)
		}
	case r.atOnce:
		do = s.guard.Try
	}
	err := do(ctx, func(ctx context.Context) (err error) {
		f, err = p.fetch(ctx, get)
		if err == nil && of != (key{}) && p.before.Lsn != p.after {
			again, failed := get(ctx, querydb.New(s.pool)) // of no row: revision 0
			latest = (failed == nil || errors.Is(failed, pgx.ErrNoRows)) && again.rev == f.rev
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	timeline := uint32(p.before.Timeline)
	if err = q.believe(s, p.before.Standby, timeline); err == nil && timeline < known.timeline {
		err = errTimeline
	}
	if err != nil {
		return nil, err
	}
	e := &Entry{
		Key: of.tokenName(), of: of, tier: s.tier, Rev: f.rev, KnownAt: uint64(p.before.Lsn), Timeline: timeline, Generation: p.before.Generation, LoadedAt: q.cfg.Now(),
		encode: f.encode, disconnected: p.before.Disconnected,
	}
	if q.noteGeneration(timeline, e.Generation); e.Generation < known.generation { // a replica that does not have the flush yet: no cache takes the entry,
		e.Key = "" // and its revision proves nothing: the row may be another one since
	}
	if timeline != known.timeline || s.tier != tierPrimary {
		visible = 0 // it is of another log
	}
	if e.durable = e.KnownAt; !p.before.Standby {
		switch e.KnownAt = visible; {
		case p.transactions:
			seen, waits := q.visible.note(timeline, e.durable, t.LSN, parseTransactions(p.open), since, time.Now())
			e.KnownAt, e.unseen = max(visible, seen), waits
		case s.tier == tierPrimary && q.visible.isUntold():
			e.KnownAt = e.durable - 1
		}
	}
	next := token.Token{Timeline: timeline, LSN: uint64(p.after)}
	if latest && e.Rev > 0 { // any revision satisfies a token with none
		next.Key, next.Rev = e.Key, e.Rev
	}
	e.Token = q.cfg.Signer.Sign(next)
	return e, nil
}

// timeline is the highest that this process knows.
func (q *Queries) timeline() uint32 { return max(q.cfg.Timeline(), q.newest.Load()) }

// noteTimeline keeps the highest timeline.
func (q *Queries) noteTimeline(timeline uint32) {
	for old := q.newest.Load(); timeline > old; old = q.newest.Load() {
		q.newest.CompareAndSwap(old, timeline)
	}
}

// toClientError is the error that a client sees of a failed read. behind: something could be read, but not as new as the token.
func toClientError(err error, behind bool) error {
	switch {
	case !broken(err):
		return err
	case behind:
		return apierr.E(errcode.SYS004, apierr.Cause(err))
	}
	return apierr.E(errcode.SYS002, apierr.Cause(err))
}

// broken tells the failures of a remote part from errors that a healthy one may return, and from our own queue for it, which is full.
// Our sessions are read-only, so 25006 is about a query of ours that writes, not about a primary that became read-only.
func broken(err error) bool {
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
		return refused.Code != pg.ReadOnlyTransaction && pg.Unavailable(refused.Code)
	}
	return err != nil && !errors.Is(err, context.Canceled) && apierr.From(err).Code != errcode.RATE003
}

// positionedQuery runs one statement between two queries of the server's position, in one round trip. All are one implicit
// transaction, but at READ COMMITTED each sees what was committed when it began. It implements querydb.DBTX.
type positionedQuery struct {
	pool         *pgxpool.Pool
	transactions bool // open ones are asked for, too, after the first position
	results      pgx.BatchResults
	before       querydb.PositionRow
	after        int64 // position
	open         []string
	err          error
}

func (p *positionedQuery) send(ctx context.Context, sql string, args []any) {
	batch := &pgx.Batch{}
	batch.Queue(querydb.Position)
	if p.transactions {
		batch.Queue(querydb.OpenTransactions)
	}
	batch.Queue(sql, args...)
	batch.Queue(querydb.Lsn)
	p.results = p.pool.SendBatch(ctx, batch)
	p.err = p.results.QueryRow().Scan(&p.before.Standby, &p.before.Lsn, &p.before.Timeline, &p.before.Disconnected, &p.before.Generation)
	if p.transactions && p.err == nil {
		p.err = p.results.QueryRow().Scan(&p.open)
	}
}

// Query implements querydb.DBTX.
func (p *positionedQuery) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	p.send(ctx, sql, args)
	return p.results.Query()
}

// QueryRow implements querydb.DBTX.
func (p *positionedQuery) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	p.send(ctx, sql, args)
	return p.results.QueryRow()
}

// Exec implements querydb.DBTX.
func (p *positionedQuery) Exec(context.Context, string, ...any) (pgconn.CommandTag, error) {
	return pgconn.CommandTag{}, errors.New("query: the read side does not write")
}

// fetch runs get between the two positions.
func (p *positionedQuery) fetch(ctx context.Context, get fetch) (f found, err error) {
	defer p.close(&err)
	if f, err = get(ctx, querydb.New(p)); errors.Is(err, pgx.ErrNoRows) {
		f, err = found{}, nil
	}
	return f, err
}

// close reads the second position and gives the connection back.
func (p *positionedQuery) close(err *error) {
	if p.results == nil {
		return
	}
	if *err == nil && p.err == nil {
		p.err = p.results.QueryRow().Scan(&p.after)
	}
	*err = cmp.Or(*err, p.err, p.results.Close())
}
