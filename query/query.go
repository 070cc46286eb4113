// Package query is the read side. It answers from an in-process LRU, then Redis, then a replica, then the primary, never with less
// than the caller's consistency token asks for. One file a query; cache.go holds the tiers, evict.go what makes entries old,
// fresh.go the databases.
package query

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"

	"github.com/ordergate/ordergate/internal/guard"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

// Config is what a Queries needs. Metrics, Tracer, Log, OnChange and Now may be nil.
type Config struct {
	Primary     *pgxpool.Pool
	Replicas    []*pgxpool.Pool       // asked in turn; none: the primary is
	Redis       redis.UniversalClient // nil: no such tier. Needs ContextTimeoutEnabled, else a silent Redis costs its own time-outs
	RedisPrefix string                // of every key and channel
	Signer      token.Signer
	CursorKey   []byte
	IDs         order.IDs
	Timeline    func() uint32               // the primary's, as far as this process knows
	LRUSize     int                         // entries
	OnChange    func(key string, rev int64) // hears of every change of a row that this process hears of, some twice; must not block
	Now         func() time.Time
	Log         *zap.Logger
	Metrics     prometheus.Registerer
	Tracer      trace.Tracer
}

// View is what a client is sent, as it is.
type View struct {
	view.Body
	Token string // X-Consistency-Token
	Tier  string // X-Served-By: lru, redis, replica or primary
	Age   int    // whole seconds since a database was read, or written
}

const (
	tierLRU     = "lru"
	tierRedis   = "redis"
	tierReplica = "replica"
	tierPrimary = "primary"
)

// Queries answers queries. Safe for concurrent use. Every query may refuse with SYS_002 (a database is down), SYS_004 (only what
// the token asks for cannot be read) and RATE_003 (too many reads wait for the primary), all retryable.
type Queries struct {
	cfg      Config
	lru      *lru.TwoQueueCache[key, *slot]
	making   sync.Mutex // of slots
	flights  singleflight.Group
	shared   *shared // nil without Redis
	debts    *lru.Cache[key, int64]
	owing    sync.Mutex // of raising a debt
	primary  *server
	replicas []*server
	turn     atomic.Uint32 // whose it is among the replicas
	seen     atomic.Uint32 // the highest timeline that a server told
	era      atomic.Uint32 // the timeline that the LRU was filled on

	served *prometheus.CounterVec
	hits   map[string]prometheus.Counter // those of served that count LRU hits
	loads  prometheus.ObserverVec
	behind prometheus.Counter
}

// New returns a Queries. Run its Hear beside it.
func New(c Config) (*Queries, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Tracer == nil {
		c.Tracer = noop.NewTracerProvider().Tracer("")
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.OnChange == nil {
		c.OnChange = func(string, int64) {}
	}
	m := promauto.With(c.Metrics)
	r := &Queries{
		cfg:    c,
		served: m.NewCounterVec(prometheus.CounterOpts{Name: "ordergate_reads_total", Help: "Answers by query and tier."}, []string{"query", "tier"}),
		loads: m.NewHistogramVec(prometheus.HistogramOpts{
			Name: "ordergate_read_load_seconds", Help: "How long a tier below the LRU took, successful or not.",
			Buckets: []float64{.0002, .0005, .001, .002, .005, .01, .025, .05, .1, .3},
		}, []string{"tier"}),
		behind: m.NewCounter(prometheus.CounterOpts{Name: "ordergate_replica_behind_total", Help: "Reads for which a replica was not fresh enough."}),
	}
	r.hits = map[string]prometheus.Counter{"getOrder": r.served.WithLabelValues("getOrder", tierLRU), "getProduct": r.served.WithLabelValues("getProduct", tierLRU)}
	r.primary = r.server(c.Primary, tierPrimary, "primary_reads", 16)
	for i, pool := range c.Replicas {
		r.replicas = append(r.replicas, r.server(pool, tierReplica, fmt.Sprintf("replica_%d", i+1), 256))
	}
	if c.Redis != nil {
		g := guard.New(guard.Config{Name: "redis", Concurrent: 1000, Timeout: redisTimeout, Failure: broken, Registry: c.Metrics})
		r.shared = &shared{client: c.Redis, prefix: c.RedisPrefix, timeline: r.timeline, guard: g}
	}
	r.era.Store(c.Timeline())
	var err1, err2 error
	r.lru, err1 = lru.New2Q[key, *slot](c.LRUSize)
	r.debts, err2 = lru.New[key, int64](maxDebts)
	return r, errors.Join(err1, err2)
}

// answer hands an entry out and counts it. query is the operationId.
func (r *Queries) answer(query, tier string, e *Entry, now time.Time) View {
	if tier == tierLRU {
		r.hits[query].Inc()
	} else {
		r.served.WithLabelValues(query, tier).Inc()
	}
	return View{Body: e.Body, Token: e.Token, Tier: tier, Age: max(0, int(now.Sub(e.LoadedAt)/time.Second))}
}

// finish encodes what is not cached and hands it out. version is 0 for a list.
func (r *Queries) finish(query, tier string, e Entry, answer any, version int64) (_ View, err error) {
	if e.Body, err = view.Finish(answer, version); err != nil {
		return View{}, err
	}
	return r.answer(query, tier, &e, e.LoadedAt), nil
}

// unlessNone drops the error that means: no row.
func unlessNone(err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	return err
}
