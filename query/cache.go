package query

import (
	"context"
	"math"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/faults"
	"github.com/ordergate/ordergate/internal/panics"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/internal/view"
)

// The greatest ages of an entry. Without a token a read is at most staleAfter behind the tier below the LRU (docs/caching.md). Each entry ends a little
// earlier, by spread: those that were filled together do not end together.
const (
	refreshAfter = 1500 * time.Millisecond // one caller loads the entry anew while the others still get it
	staleAfter   = 2 * time.Second         // every caller waits for the load
	missFor      = time.Second             // a 404, in every tier
	redisFor     = 10 * time.Second        // TTL in Redis. After a lost invalidation a read without a token is at most redisFor + staleAfter behind
)

// spread is a time from four fifths of most to most.
func spread(most time.Duration) time.Duration { return most - rand.N(most/5) } //nolint:gosec // no secret

// Entry is the finished response of one row, and the state of the database that it shows.
type Entry struct {
	Body         view.Body
	Token        string // X-Consistency-Token
	Key          string // the row, as tokens name it; empty for lists, rows that are not cached, and of a generation before
	Rev          int64  // counts the row's changes; 0: there is no row
	KnownAt      uint64 // no commit up to this position of the log can be missing
	Timeline     uint32 // of that log
	Generation   int64  // of the caches, as the database had it that this was read from, or committed to
	LoadedAt     time.Time
	of           key
	tier         string                    // that it was read from
	encode       func() (view.Body, error) // makes the body; nil once it is made
	durable      uint64                    // read from a database: its position before the statement, which KnownAt may not have reached
	answers      uint64                    // a token's position that it was accepted for, although it could not be proven to have reached it
	unseen       bool                      // read from a primary on which a commit up to durable waits for a standby: nobody sees it there
	disconnected bool                      // read from a replica that receives nothing: not for other processes
	noLSN        bool                      // its token has no position: not for other clients
}

// satisfies is the rule of freshness: an entry satisfies a token of its own timeline if it has reached the token's position, or if it
// is the token's row with at least its revision. The zero token demands nothing. A token without a position is the greatest that its
// client ever has: the client keeps it and may have seen later revisions, so its row's revision proves nothing.
func (e *Entry) satisfies(t token.Token) bool {
	ownRow := t.Key != "" && t.Key == e.Key && e.Rev >= t.Rev && t.LSN != token.NoPosition
	return t.Timeline == 0 || t.Timeline == e.Timeline && (e.KnownAt >= t.LSN || ownRow)
}

// newer tells which of two entries of a row stays.
func (e *Entry) newer(than *Entry) bool {
	if e.Timeline != than.Timeline {
		return e.Timeline > than.Timeline
	}
	if e.Generation != than.Generation {
		return e.Generation > than.Generation
	}
	return e.Rev > than.Rev || e.Rev == than.Rev && e.KnownAt > than.KnownAt
}

// epoch is what the entries of a cache have in common: another timeline may have lost commits that they show, and another generation
// means that rows were rebuilt (`ordergate replay`), or that more were changed by hand than are told of one by one.
type epoch struct {
	timeline   uint32
	generation int64
}

func (e *Entry) epoch() epoch { return epoch{e.Timeline, e.Generation} }

// epoch is the latest that this process knows.
func (q *Queries) epoch() epoch { return epoch{q.timeline(), q.generation.Load()} }

// lruEntry is a key's place in the LRU. It exists before the key's first load, so that no invalidation during the load is lost.
type lruEntry struct {
	value      atomic.Pointer[stored]
	minRev     atomic.Int64 // a value below this revision is not served: a newer one is known to exist
	refreshing atomic.Bool
}

// stored is an Entry in the LRU: 64 bytes and one string, because there are 50,000 of them.
type stored struct {
	text       string // token, ETag and body: one behind the other
	tokenLen   uint16
	etagLen    uint8
	named      bool // the entry has the row's Key
	timeline   uint32
	rev        int64
	knownAt    uint64
	generation int64
	loadedAt   time.Duration // on the clock of this process, which no step of the machine's touches
	checked    time.Duration // likewise: when the tiers below last had nothing newer, or a little before
}

func (v *stored) token() string { return v.text[:v.tokenLen] }

func (v *stored) etag() string { return v.text[v.tokenLen:][:v.etagLen] }

func (v *stored) body() string { return v.text[int(v.tokenLen)+int(v.etagLen):] }

func (v *stored) epoch() epoch { return epoch{v.timeline, v.generation} }

// state is the Entry without its texts.
func (v *stored) state() Entry {
	return Entry{Rev: v.rev, KnownAt: v.knownAt, Timeline: v.timeline, Generation: v.generation, tier: tierLRU}
}

func (v *stored) newerThan(e *Entry) bool {
	kept := v.state()
	return kept.newer(e)
}

// satisfies is Entry's, of the row with this key.
func (v *stored) satisfies(of key, t token.Token) bool {
	e := v.state()
	if v.named && of.is(t.Key) {
		e.Key = t.Key
	}
	return e.satisfies(t)
}

// entryOf is the Entry that was stored under a key.
func (q *Queries) entryOf(v *stored, of key) *Entry {
	e := v.state()
	e.Body, e.Token, e.LoadedAt, e.of = view.Body{Bytes: []byte(v.body()), ETag: v.etag()}, v.token(), q.start.Add(v.loadedAt), of
	if v.named {
		e.Key = of.tokenName()
	}
	return &e
}

func (q *Queries) entry(k key) *lruEntry {
	if s, ok := q.lru.Get(k); ok {
		return s
	}
	q.slotMu.Lock()
	defer q.slotMu.Unlock()
	s, ok := q.lru.Peek(k)
	if !ok {
		s = &lruEntry{}
		k.text = strings.Clone(k.text) // it is cut from a request, which would stay as long as the key
		q.lru.Add(k, s)
	}
	return s
}

// store replaces the value by an entry, unless the value is newer, and returns the newer of them. Either counts as checked at this moment. An entry
// whose token or ETag is longer than a stored one can be is served, and not kept.
func (q *Queries) store(s *lruEntry, e *Entry) *Entry {
	if len(e.Token) > math.MaxUint16 || len(e.Body.ETag) > math.MaxUint8 {
		return e
	}
	now := q.cfg.Now()
	next := &stored{
		text: e.Token + e.Body.ETag + string(e.Body.Bytes), tokenLen: uint16(len(e.Token)), etagLen: uint8(len(e.Body.ETag)), named: e.Key != "",
		timeline: e.Timeline, rev: e.Rev, knownAt: e.KnownAt, generation: e.Generation, loadedAt: q.clock(now) - now.Sub(e.LoadedAt),
		checked: q.clock(now) + spread(refreshAfter) - refreshAfter,
	}
	for {
		old := s.value.Load()
		if old == nil || !old.newerThan(e) {
			if s.value.CompareAndSwap(old, next) {
				return e
			}
			continue
		}
		kept := *old
		if kept.checked = next.checked; s.value.CompareAndSwap(old, &kept) {
			return q.entryOf(old, e.of)
		}
	}
}

// clock is an instant on the clock of this process.
func (q *Queries) clock(at time.Time) time.Duration { return at.Sub(q.start) }

// requirement has the conditions that an entry must satisfy to be served.
type requirement struct {
	token   token.Token
	of      key   // the row; zero if it is not cached
	minRev  int64 // an entry below this revision is known to be old
	primary bool  // only the primary may be read
	costly  bool  // that of a request
	behind  bool  // a cache has an entry that is only not as new as the token
	atOnce  bool  // a server that is full refuses at once: another one is left
	ours    bool  // no client asks: an overload does not refuse it

	countedAs string // in the metric of loads; empty: as the tier
}

func (r requirement) satisfiedBy(e *Entry) bool { return e.Rev >= r.minRev && e.satisfies(r.token) }

// sharedBy tells whether an entry that was loaded for another caller will do: a load for this one would accept it, too.
func (r requirement) sharedBy(e *Entry) bool {
	accepted := e.Rev >= r.minRev && e.Timeline == r.token.Timeline && e.answers >= r.token.LSN && (r.token.Key != e.Key || e.Rev >= r.token.Rev)
	return accepted || r.satisfiedBy(e)
}

// get serves one row from the first tier that is fresh enough: the LRU, Redis, a replica, the primary. If there is no such row the
// error is the resource's notFound, at once for a forged id. now is the present instant, which the caller has read already.
func (q *Queries) get(ctx context.Context, k key, t token.Token, now time.Time) (View, error) {
	r := &resources[k.kind]
	if faults.In(ctx) != "" { // alone and without the caches: nobody shares what it meets
		return q.serve(ctx, request{operation: r.operation, token: t, id: k.id, notFound: r.notFound}, func(ctx context.Context) (*Entry, error) {
			return q.fromDatabase(ctx, requirement{token: t, of: k, minRev: q.minRev(k.id)}, k.read)
		})
	}
	if s, ok := q.lru.Get(k); ok {
		at := q.clock(now)
		if v := q.servable(s, k, t, at, staleAfter); v != nil {
			if at-v.checked >= refreshAfter && s.refreshing.CompareAndSwap(false, true) {
				go func() {
					defer panics.Sync(q.cfg.Log)
					defer s.refreshing.Store(false)
					_, _ = q.load(context.WithoutCancel(ctx), k, token.Token{}) // the caller that finds the entry stale gets the error
				}()
			}
			q.hits[k.kind].Inc()
			found := View{Body: v.body(), ETag: v.etag(), Token: v.token(), Tier: tierLRU, Age: max(0, int((at-v.loadedAt)/time.Second))}
			if v.rev == 0 {
				return found, apierr.E(r.notFound)
			}
			return found, nil
		}
	}
	asked := request{operation: r.operation, token: t, id: k.id, notFound: r.notFound}
	if !r.ownIDs {
		asked.product = k
	}
	return q.serve(ctx, asked, func(ctx context.Context) (*Entry, error) { return q.load(ctx, k, t) })
}

// servable is the LRU's value of a key if it may be served for a token, at an instant when it was checked less than an age ago; nil: it may not.
func (q *Queries) servable(s *lruEntry, k key, t token.Token, at, age time.Duration) *stored {
	v := s.value.Load()
	if v == nil || v.epoch() != q.epoch() || v.rev < s.minRev.Load() || !v.satisfies(k, t) {
		return nil
	}
	if v.rev == 0 {
		age = missFor
	}
	if at-v.checked >= age {
		return nil
	}
	return v
}

// load asks the tiers below the LRU, once for all callers of the same key. A caller whose requirement the shared entry does not
// satisfy asks again, the third time alone. A caller that leaves does not end the load that others wait for.
func (q *Queries) load(ctx context.Context, k key, t token.Token) (*Entry, error) {
	if now := q.epoch(); q.lruTimeline.Swap(now.timeline) != now.timeline || q.lruGeneration.Swap(now.generation) != now.generation {
		q.lru.Purge() // revisions of a lost timeline mean nothing, and those of another generation are of rows that were replaced
	}
	for try := 1; ; try++ {
		s := q.entry(k)
		r := requirement{token: t, of: k, minRev: max(s.minRev.Load(), q.minRev(k.id))}
		through := func(ctx context.Context) (e *Entry, err error) {
			if v := q.servable(s, k, t, q.clock(q.cfg.Now()), refreshAfter); v != nil { // another load has just ended
				return q.entryOf(v, k), nil
			}
			err = panics.Catch(func() (err error) { e, err = q.loadThrough(ctx, s, r); return err })
			return e, err
		}
		if try == 3 {
			return through(ctx)
		}
		found, mine, err := q.flight(ctx, k.String(), func(ctx context.Context) (any, error) { return through(ctx) })
		e, _ := found.(*Entry)
		if mine || err == nil && r.sharedBy(e) || err != nil && apierr.From(err).Code != errcode.SYS004 {
			return e, err // an error is that of all callers; only SYS_004 depends on a caller's token
		}
	}
}

// flight calls do once for all callers of a name that come meanwhile; mine: for this one, on its own goroutine, whose stack has grown already. A
// caller that has left does not end the call, which the time-outs of the tiers bound, and waits for it.
func (q *Queries) flight(ctx context.Context, name string, do func(context.Context) (any, error)) (found any, mine bool, err error) {
	found, err, _ = q.flights.Do(name, func() (any, error) { mine = true; return do(context.WithoutCancel(ctx)) })
	return found, mine, err
}

// loadThrough asks Redis, then the databases, and stores the entry in the tiers above. It returns the LRU's entry if that is newer.
func (q *Queries) loadThrough(ctx context.Context, s *lruEntry, r requirement) (*Entry, error) {
	e, err := q.fromRedis(ctx, r.of)
	healthy := err == nil && q.redis != nil
	if e == nil || !r.satisfiedBy(e) {
		v := s.value.Load()
		r.behind = e != nil && !e.satisfies(r.token) || v != nil && !v.satisfies(r.of, r.token)
		if e, err = q.fromDatabase(ctx, r, r.of.read); err != nil {
			return nil, err
		}
		if e.tier == tierPrimary && e.Rev < r.minRev { // the row that had the revision is gone
			s.minRev.CompareAndSwap(r.minRev, e.Rev)
		}
		if healthy && !e.disconnected { // a Redis that has just failed is not tried again
			_ = q.redis.put(ctx, false, e)
		}
	}
	return q.store(s, e), nil
}
