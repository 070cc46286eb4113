// Package query is the read side. It reads from an in-process LRU, then Redis, then a replica, then the primary, and never shows a
// state that is older than the caller's consistency token. Orders have a file a query, products, payments with their refunds, and shipments
// a file each. resource.go lists the rows that are cached, cache.go asks the tiers in their order, redis.go and fresh.go are the tiers
// below the LRU, replicas.go chooses the replica, evict.go and feed.go replace the entries of changed rows, skus.go knows which skus there
// are, and list.go pages the lists, which are not cached.
package query

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/guard"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/internal/waiters"
	"github.com/ordergate/ordergate/order"
)

// Config has the dependencies and settings of a Queries.
type Config struct {
	Primary     *pgxpool.Pool   // for reads alone: as many reads run at once as it has connections. So for each replica
	Replicas    []*pgxpool.Pool // those that FollowReplicas finds fresh are asked in turn; none: the primary is read
	Redis       *Redis          // nil: no such tier
	RedisPrefix string          // of every key and channel
	Signer      token.Signer    // of consistency tokens
	Cursors     token.Signer    // of the cursors of lists
	IDs         order.IDs
	Timeline    func() uint32               // the primary's, as far as this process knows
	Generation  int64                       // of all caches, as the primary has it now
	LRUSize     int                         // entries
	OnChange    func(key string, rev int64) // called for every change of a row that this process hears of, at least once; must not block
	OnMessage   func(message string)        // called with what another process, or this one, gave Publish; must not block. May be nil
	Now         func() time.Time
	Log         *zap.Logger
	Admission   *guard.Admission // of reads of a database; nil: an overload refuses none
	Metrics     prometheus.Registerer
	Tracer      trace.Tracer
}

// View is the response to a query, ready to be sent. A not-found error comes with a View without a body.
type View struct {
	Body  string // JSON
	ETag  string
	Token string // X-Consistency-Token
	Tier  string // X-Served-By: lru, redis, replica or primary. empty: an id that was never given out, or a sku that there is not, without a look-up
	Age   int    // whole seconds since a database was read, or written
}

const tierLRU, tierRedis, tierReplica, tierPrimary = "lru", "redis", "replica", "primary"

const tierFilter = "filter" // for metrics

// readOnce is the share of a full LRU for keys that were read once. With the library's quarter fewer reads are hits, of orders and of Zipf's keys, by 1 to
// 5 in a hundred (`make bench-read PART=hits`).
const readOnce = 0.02

// Queries are the read side's operations. Safe for concurrent use. Every query may refuse with SYS_002 (no database can be read),
// SYS_004 (a database can be read, but not in a state as new as the token) and RATE_003 (too many reads wait for a database), all
// retryable.
type Queries struct {
	cfg           Config
	start         time.Time // of the process's clock
	lru           *lru.TwoQueueCache[key, *lruEntry]
	slotMu        sync.Mutex // held while a key gets its place in the LRU
	lruTimeline   atomic.Uint32
	lruGeneration atomic.Int64
	generation    atomic.Int64  // of all caches, as far as this process knows; never falls on one timeline
	generationOf  atomic.Uint32 // the timeline
	generationMu  sync.Mutex    // of writers of both
	markedAt      atomic.Int64  // when the last mark of the change feed that came back was sent, in ns
	skus          atomic.Pointer[skuFilter]
	skusReadAt    time.Time // when the last reading of all skus began; of FollowChanges alone
	flights       singleflight.Group
	redis         *redisTier // nil without Redis
	pendingWrites *lru.Cache[key, int64]
	pendingMu     sync.Mutex // held while a pending revision is raised
	primary       *server
	replicas      []*server
	costly        chan struct{} // has one for each costly read that runs
	nextReplica   atomic.Uint32
	visible       visible              // of the primary
	newest        atomic.Uint32        // the highest timeline that a server reported and that was believed
	primaryAt     atomic.Int64         // when a read last had an answer of the primary, in ns
	watchers      waiters.Waiters[key] // streams, of a row
	watched       map[key]*watched     // orders that have streams
	watchedMu     sync.Mutex

	served *prometheus.CounterVec
	hits   [kinds]prometheus.Counter // served from the LRU
	loads  prometheus.ObserverVec
	behind prometheus.Counter
}

// New returns a Queries. FollowChanges, FollowReplicas and Subscribe must run beside it.
func New(c Config) (*Queries, error) {
	m := promauto.With(c.Metrics)
	q := &Queries{
		cfg: c, start: c.Now(), costly: make(chan struct{}, costlyReads), watched: map[key]*watched{},
		served: m.NewCounterVec(prometheus.CounterOpts{
			Name: "ordergate_reads_total", Help: "Reads by query and tier.",
		}, []string{"query", "tier"}),
		loads: m.NewHistogramVec(prometheus.HistogramOpts{
			Name: "ordergate_read_load_seconds", Help: "Time that a tier below the LRU took, successful or not.",
			Buckets: []float64{.0002, .0005, .001, .002, .005, .01, .025, .05, .1, .3},
		}, []string{"tier"}),
		behind: m.NewCounter(prometheus.CounterOpts{
			Name: "ordergate_replica_behind_total", Help: "Reads for which a replica was not fresh enough.",
		}),
	}
	m.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ordergate_change_feed_seconds", Help: "Age of the last mark that came back on the change feed.",
	}, func() float64 { return c.Now().Sub(time.Unix(0, q.markedAt.Load())).Seconds() })
	for k, r := range resources {
		q.hits[k] = q.served.WithLabelValues(r.operation, tierLRU)
	}
	q.primary = newServer(c.Primary, tierPrimary, "primary_reads", c.Metrics)
	for i, pool := range c.Replicas {
		q.replicas = append(q.replicas, newServer(pool, tierReplica, fmt.Sprintf("replica_%d", i+1), c.Metrics))
	}
	q.registerUse(c.Metrics)
	if c.Redis != nil {
		c.Redis.AddHook(spans{c.Tracer})
		q.redis = newRedisTier(c, q.epoch)
	}
	q.lruTimeline.Store(c.Timeline())
	q.lruGeneration.Store(c.Generation)
	q.generation.Store(c.Generation)
	q.generationOf.Store(c.Timeline())
	q.markedAt.Store(c.Now().UnixNano())
	q.pendingWrites, _ = lru.New[key, int64](maxPending) // fails for a size below one alone
	var err error
	q.lru, err = lru.New2QParams[key, *lruEntry](c.LRUSize, readOnce, lru.Default2QGhostEntries)
	return q, err
}

// request is one read of an operation.
type request struct {
	operation string       // operationId
	token     token.Token  // the response is at least as new
	id        order.ID     // of the resource; zero: it has no id of ours
	product   key          // without which there is no resource; zero: it needs none
	notFound  errcode.Code // if there is no such resource; empty: there always is one
	costly    bool         // may take long on a database that is well: it has few places and no second try, and opens no breaker. RATE_003: it took 1 s
}

// serve returns the View of the entry that load reads. A forged id is refused without a look-up: its token demands nothing, because
// nothing was read. So is a sku that there is not; its token is that of the change feed.
func (q *Queries) serve(ctx context.Context, r request, load func(context.Context) (*Entry, error)) (View, error) {
	if !r.id.IsZero() && !q.cfg.IDs.Genuine(r.id) {
		return View{Token: q.cfg.Signer.Sign(token.Token{})}, apierr.E(r.notFound)
	}
	if r.product != (key{}) {
		if answer, lacks := q.skus.Load().lacks(r.product, r.token, q.epoch(), q.cfg.Now()); lacks {
			q.served.WithLabelValues(r.operation, tierFilter).Inc()
			return View{Token: answer}, apierr.E(r.notFound)
		}
	}
	ctx, span := q.cfg.Tracer.Start(ctx, "query "+r.operation)
	defer span.End()
	e, err := load(ctx)
	if err != nil {
		return View{}, err
	}
	return show(q.served.WithLabelValues(r.operation, e.tier), e, r.notFound, q.cfg.Now())
}

// serveUncached serves from a database a response that is not cached.
func (q *Queries) serveUncached(ctx context.Context, r request, get fetch) (View, error) {
	return q.serve(ctx, r, func(ctx context.Context) (*Entry, error) {
		if r.costly {
			select {
			case q.costly <- struct{}{}:
				defer func() { <-q.costly }()
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(queueFor):
				return nil, apierr.E(errcode.RATE003)
			}
		}
		return q.fromDatabase(ctx, requirement{token: r.token, minRev: q.minRev(r.id), costly: r.costly}, get)
	})
}

// show makes the View of an entry and counts it.
func show(served prometheus.Counter, e *Entry, notFound errcode.Code, now time.Time) (View, error) {
	served.Inc()
	v := View{Body: string(e.Body.Bytes), ETag: e.Body.ETag, Token: e.Token, Tier: e.tier, Age: max(0, int(now.Sub(e.LoadedAt)/time.Second))}
	if e.Rev == 0 {
		return v, apierr.E(notFound)
	}
	return v, nil
}
