package app

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/command"
	"github.com/ordergate/ordergate/command/inventory"
	"github.com/ordergate/ordergate/command/payment"
	"github.com/ordergate/ordergate/gen/accountsdb"
	"github.com/ordergate/ordergate/gen/busdb"
	"github.com/ordergate/ordergate/gen/ordersdb"
	"github.com/ordergate/ordergate/internal/bus"
	"github.com/ordergate/ordergate/internal/edge"
	"github.com/ordergate/ordergate/internal/failpoint"
	"github.com/ordergate/ordergate/internal/guard"
	"github.com/ordergate/ordergate/internal/panics"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/rate"
	"github.com/ordergate/ordergate/internal/telemetry"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/query"
)

// Components are the parts of one process, whether it serves the API, works, or does both. Assemble alone makes them.
type Components struct {
	Primary  *pgxpool.Pool // of the API's commands, key look-ups and maintenance; the worker has a pool of its own
	Commands *command.Commands
	Queries  *query.Queries

	cfg         Config
	faults      bool // requests of test keys may ask for failures
	local       bool // the API is for this machine alone
	tel         *telemetry.Telemetry
	ids         order.IDs
	signer      token.Signer
	timeline    atomic.Uint32
	reads       *pgxpool.Pool   // of the primary, read-only
	replicas    []*pgxpool.Pool // read-only
	redis       *query.Redis    // nil without Redis
	limitsRedis *query.Redis    // of the limits of keys: a client of its own, so that nobody else keeps its connections busy
	soldOut     *inventory.SoldOut
	admission   *guard.Admission
	relay       atomic.Pointer[bus.Relay]       // of this process; nil without a worker
	payments    atomic.Pointer[payment.Payment] // likewise
	stop        func()                          // ends the background work
	follow      func(func(context.Context))     // runs background work

	limits    atomic.Pointer[rate.Limits] // of a process that serves the API and has a Redis
	followers sync.WaitGroup              // of the background work that uses the connections
}

// primaryReads is how many connections to the primary reads have.
const primaryReads = 16

// Assemble connects to everything and subscribes to cache invalidations until Close. It fails if the primary cannot be reached or
// is not one that Ordergate can work on; replicas, Redis and the provider may be away.
func Assemble(ctx context.Context, cfg Config, tel *telemetry.Telemetry) (_ *Components, err error) {
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	c := &Components{
		cfg: cfg, tel: tel, stop: stop, ids: order.NewIDs(SecretFor(cfg.Secret, "ids")), signer: token.NewSigner(SecretFor(cfg.Secret, "tokens")),
		soldOut: inventory.NewSoldOut(failpoint.Now), admission: guard.NewAdmission(tel.Registry),
	}
	c.follow = func(work func(context.Context)) {
		c.followers.Go(func() {
			defer panics.Sync(tel.Log)
			work(background)
		})
	}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	if c.Primary, err = pg.Connect(ctx, cfg.PrimaryURL, cfg.MaxConnections, pg.Session, c.checkPrimary); err != nil {
		return nil, err
	}
	if err = c.Primary.Ping(ctx); err != nil {
		return nil, fmt.Errorf("cannot connect to the primary: %w", err)
	}
	if _, err = busdb.New(c.Primary).PrimaryHealth(ctx); err != nil {
		return nil, fmt.Errorf("the primary does not have the schema of this version, run `ordergate migrate`: %w", err)
	}
	if c.reads, err = pg.Connect(ctx, cfg.PrimaryURL, primaryReads, pg.ReadSession, c.checkPrimary); err != nil {
		return nil, err
	}
	generation, err := ordersdb.New(c.Primary).CacheGeneration(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the generation of the caches: %w", err)
	}
	for _, url := range cfg.ReplicaURLs {
		replica, err := pg.Connect(ctx, url, cfg.MaxConnections, pg.ReadSession, nil)
		if err != nil {
			return nil, err
		}
		c.replicas = append(c.replicas, replica)
	}
	if cfg.RedisURL != "" {
		redis.SetLogger(redisLog{tel.Log})
		if c.redis, err = query.OpenRedis(cfg.RedisURL); err != nil {
			return nil, errors.New("cannot parse ORDERGATE_REDIS_URL") // the driver's words may hold the password
		}
	}
	c.Queries, err = query.New(query.Config{
		Primary: c.reads, Replicas: c.replicas, Redis: c.redis, RedisPrefix: cfg.RedisPrefix,
		Signer: c.signer, Cursors: token.NewSigner(SecretFor(cfg.Secret, "cursors")), IDs: c.ids,
		Timeline: c.timeline.Load, Generation: generation, LRUSize: 50_000, Now: failpoint.Now, Log: tel.Log, Admission: c.admission, Metrics: tel.Registry, Tracer: tel.Tracer,
		OnChange: func(key string, _ int64) {
			if id, ok := order.Parse(order.PrefixOrder, key); ok {
				c.Commands.Changed(id)
			}
		},
		OnMessage: c.hearSoldOut,
	})
	if err != nil {
		return nil, err
	}
	c.soldOut.Tell = c.tellSoldOut
	c.Commands = c.NewCommands(c.Primary, tel.Registry)
	c.registerHealth(background)
	for _, work := range []func(context.Context){c.Queries.Subscribe, c.Queries.FollowChanges, c.Queries.FollowReplicas} {
		c.follow(work)
	}
	return c, nil
}

// NewCommands makes a write side on a pool, without metrics if there is no registry.
func (c *Components) NewCommands(pool *pgxpool.Pool, registry prometheus.Registerer) *command.Commands {
	return command.New(command.Config{
		Pool: pool, IDs: c.ids, Now: failpoint.Now, Wake: c.wake, WakePayments: c.wakePayments, ProviderOpen: c.providerOpen, Deadline: c.cfg.PaymentTimeout,
		Tracer: c.tel.Tracer, Registry: registry, WriteThrough: c.writeThrough, SoldOut: c.soldOut, Admission: c.admission,
	})
}

// API makes the server of the API. static are API keys that are valid beside the database's.
func (c *Components) API(static map[string]*edge.Key) (*edge.Server, error) {
	var onReplica func(context.Context, []byte) (*edge.Key, error)
	if len(c.replicas) > 0 {
		onReplica = c.findKeyOnReplica
	}
	limits, err := c.shareLimits()
	if err != nil {
		return nil, err
	}
	return edge.New(edge.Config{
		Commands: c.Commands, Queries: c.Queries, Admission: c.admission, Signer: c.signer,
		Auth:     edge.NewAuthenticator(c.findKey, onReplica, max(1, uint(c.cfg.MaxConnections)/8), static, limits, failpoint.Now, c.tel.Registry),
		Timeline: c.timeline.Load, Origins: c.cfg.Origins, ProviderSecrets: map[string]string{payment.Provider: c.cfg.ProviderSecret}, Log: c.tel.Log, AccessLog: c.tel.AccessLog,
		Tracer: c.tel.Tracer, Sample: telemetry.Sample, Registry: c.tel.Registry, Strict: c.cfg.Env == development, Faults: c.faults, LocalOnly: c.local,
	}), nil
}

// shareLimits shares the limits of keys with the other processes that serve the API, until Close. It waits a second at most for Redis, so that
// the first request meets limits that are shared. nil: without Redis they are not.
func (c *Components) shareLimits() (_ *rate.Limits, err error) {
	if c.redis == nil {
		return nil, nil
	}
	if c.limitsRedis, err = query.OpenRedis(c.cfg.RedisURL); err != nil {
		return nil, errors.New("cannot parse ORDERGATE_REDIS_URL") // the driver's words may hold the password
	}
	limits := rate.New(rate.Config{Redis: c.limitsRedis, Prefix: c.cfg.RedisPrefix, Now: failpoint.Now, Log: c.tel.Log, Registry: c.tel.Registry})
	c.follow(limits.Run)
	c.limits.Store(limits)
	<-limits.Joined()
	return limits, nil
}

// serve answers the API and its pages until ctx ends and calls listening when it can be reached. static are API keys that are valid beside
// the database's, pageKey is the one of them that the pages may use ("": none).
func (c *Components) serve(ctx context.Context, static map[string]*edge.Key, pageKey string, listening func()) error {
	server, err := c.API(static)
	if err != nil {
		return err
	}
	pages, err := c.pages(server, pageKey)
	if err != nil {
		return err
	}
	l, err := listen(ctx, "ORDERGATE_ADDR", c.cfg.Addr)
	if err != nil {
		return err
	}
	debug.FreeOSMemory() // 8 MB that the start alone needed
	c.tel.Log.Info("listening", zap.String("api", l.Addr().String()))
	listening()
	return server.Serve(ctx, l, pages, c.cfg.DrainDelay)
}

func listen(ctx context.Context, name, addr string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return l, nil
}

// Close ends the background work, waits for its end and closes all connections.
func (c *Components) Close() {
	c.stop()
	c.followers.Wait()
	for _, pool := range append(c.replicas, c.reads, c.Primary) {
		if pool != nil {
			pool.Close()
		}
	}
	for _, client := range []*query.Redis{c.redis, c.limitsRedis} {
		if client != nil {
			_ = client.Close()
		}
	}
}

// wake tells the relay of this process, if there is one; others poll.
func (c *Components) wake() {
	if r := c.relay.Load(); r != nil {
		r.Wake()
	}
}

// wakePayments tells the payment context of this process, if there is one; others poll.
func (c *Components) wakePayments() {
	if p := c.payments.Load(); p != nil {
		p.Wake()
	}
}

// providerOpen tells that the provider's breaker of this process refuses calls. A process without a worker has none.
func (c *Components) providerOpen() bool {
	p := c.payments.Load()
	return p != nil && p.ProviderOpen()
}

// tellSoldOut tells the processes that take orders which skus are sold out. If a message is lost they take orders that the saga rejects.
func (c *Components) tellSoldOut(marks []inventory.Mark) {
	messages := make([]string, len(marks))
	for i, m := range marks {
		messages[i] = fmt.Sprintf("sold-out %d %s %d %s", m.Account, m.Mode, m.Left, m.SKU)
	}
	_ = c.Queries.Publish(context.Background(), messages...) // it has a limit, and Redis' breaker counts the error
}

// hearSoldOut takes what tellSoldOut told.
func (c *Components) hearSoldOut(message string) {
	var m inventory.Mark
	if _, err := fmt.Sscanf(message, "sold-out %d %s %d %s", &m.Account, &m.Mode, &m.Left, &m.SKU); err == nil {
		c.soldOut.Heard(m)
	}
}

func (c *Components) writeThrough(ctx context.Context, states []command.Committed) {
	if err := panics.Catch(func() error {
		entries := make([]query.Entry, 0, len(states))
		for _, s := range states {
			if e, ok := c.Queries.NewEntry(query.Committed(s)); ok {
				entries = append(entries, e)
			}
		}
		c.Queries.WriteThrough(ctx, entries...)
		return nil
	}); err != nil {
		c.tel.Log.Error("write through the caches", zap.Error(err))
	}
}

// findKey looks an API key up on the primary; nil: there is none.
func (c *Components) findKey(ctx context.Context, hash []byte) (*edge.Key, error) {
	return findKeyOn(ctx, c.Primary, hash)
}

// findKeyOnReplica looks an API key up on the replica that a read would ask, and if that fails on the next one; nil: it has none.
func (c *Components) findKeyOnReplica(ctx context.Context, hash []byte) (key *edge.Key, err error) {
	err = c.Queries.AskReplica(ctx, func(ctx context.Context, replica *pgxpool.Pool) (err error) {
		key, err = findKeyOn(ctx, replica, hash)
		return err
	})
	return key, err
}

func findKeyOn(ctx context.Context, pool *pgxpool.Pool, hash []byte) (*edge.Key, error) {
	row, err := accountsdb.New(pool).FindKey(ctx, hash)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &edge.Key{
		ID: order.ID(row.ID).Format(order.PrefixKey), Owner: order.Owner{Account: row.Account, Mode: row.Mode}, Scopes: row.Scopes,
		ExpiresAt: row.ExpiresAt, RevokedAt: row.RevokedAt, Limit: rate.Limit{Requests: int64(row.Rate), Window: time.Duration(row.RateWindow) * time.Second},
	}, nil
}

// checkPrimary looks at each new connection to the primary. It refuses a server that may forget commits, and one on a timeline
// behind the highest that was seen: a former primary that was replaced in a failover.
func (c *Components) checkPrimary(ctx context.Context, conn *pgx.Conn) error {
	row, err := ordersdb.New(conn).Timeline(ctx)
	if err != nil {
		return fmt.Errorf("not a primary: %w", err)
	}
	if row.SynchronousCommit == "off" {
		return errors.New("synchronous_commit is off: a crash could lose orders that were confirmed")
	}
	for {
		seen := c.timeline.Load()
		if uint32(row.Timeline) < seen {
			return fmt.Errorf("timeline %d is behind %d: this server is no longer the primary", row.Timeline, seen)
		}
		if c.timeline.CompareAndSwap(seen, uint32(row.Timeline)) {
			return nil
		}
	}
}

// SecretFor derives the key for one purpose (ids, tokens, cursors) from the configured secret. Equal arguments give equal keys, in every process.
func SecretFor(secret, purpose string) []byte {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte("ordergate " + purpose))
	return mac.Sum(nil)
}

// redisLog takes what the driver says of its connections and of the master that Sentinels name. Failures are logged by those who meet them.
type redisLog struct{ log *zap.Logger }

func (l redisLog) Printf(_ context.Context, format string, a ...any) {
	l.log.Info("redis", zap.String("message", fmt.Sprintf(format, a...)))
}
