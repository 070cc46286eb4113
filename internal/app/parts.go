package app

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/extra/redisotel/v9"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/command"
	"github.com/ordergate/ordergate/gen/busdb"
	"github.com/ordergate/ordergate/gen/ordersdb"
	"github.com/ordergate/ordergate/internal/bus"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/telemetry"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/query"
)

// primaryReads is how many queries read from the primary at once, each on a connection of its own.
const primaryReads = 16

// parts are what the API server and the worker share in one process.
type parts struct {
	cfg      Config
	tel      *telemetry.Telemetry
	ids      order.IDs
	signer   token.Signer
	timeline atomic.Uint32
	primary  *pgxpool.Pool
	reads    *pgxpool.Pool // of the primary, for queries
	replicas []*pgxpool.Pool
	redis    redis.UniversalClient // nil without Redis
	reader   *query.Queries
	commands *command.Commands
	relay    atomic.Pointer[bus.Relay] // of this process; nil without a worker
}

// redisLog takes what the driver would print.
type redisLog struct{ log *zap.Logger }

// Printf implements the driver's logger.
func (l redisLog) Printf(_ context.Context, format string, a ...any) {
	l.log.Warn("redis", zap.String("said", fmt.Sprintf(format, a...)))
}

// secretFor derives a key for one purpose from the configured secret.
func secretFor(secret, purpose string) []byte {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte("ordergate " + purpose))
	return mac.Sum(nil)
}

// newParts connects to everything. It fails if the primary cannot be reached or is not one that Ordergate can work on.
func newParts(ctx context.Context, cfg Config, tel *telemetry.Telemetry) (p *parts, err error) {
	p = &parts{cfg: cfg, tel: tel, ids: order.NewIDs(secretFor(cfg.Secret, "ids")), signer: token.NewSigner(secretFor(cfg.Secret, "tokens"))}
	opened := p
	defer func() {
		if err != nil {
			opened.close()
		}
	}()
	if p.primary, err = pg.Connect(ctx, cfg.PrimaryURL, cfg.MaxConnections, p.checkPrimary); err != nil {
		return nil, fmt.Errorf("ORDERGATE_PRIMARY_URL: %w", err)
	}
	if err = p.primary.Ping(ctx); err != nil {
		return nil, fmt.Errorf("primary: %w", err)
	}
	if _, err = busdb.New(p.primary).PrimaryHealth(ctx); err != nil {
		return nil, fmt.Errorf("the primary has not the schema of this version, run `ordergate migrate`: %w", err)
	}
	if p.reads, err = pg.ConnectReader(ctx, cfg.PrimaryURL, primaryReads, p.checkPrimary); err != nil {
		return nil, fmt.Errorf("ORDERGATE_PRIMARY_URL: %w", err)
	}
	for _, url := range cfg.ReplicaURLs {
		replica, err := pg.ConnectReader(ctx, url, cfg.MaxConnections, nil)
		if err != nil {
			return nil, fmt.Errorf("ORDERGATE_REPLICA_URLS: %w", err)
		}
		p.replicas = append(p.replicas, replica)
	}
	if cfg.RedisURL != "" {
		options, err := redis.ParseURL(cfg.RedisURL)
		if err != nil {
			return nil, errors.New("ORDERGATE_REDIS_URL cannot be understood")
		}
		options.ContextTimeoutEnabled = true
		redis.SetLogger(redisLog{tel.Log})
		client := redis.NewClient(options)
		if err = redisotel.InstrumentTracing(client, redisotel.WithDBStatement(false)); err != nil {
			return nil, err
		}
		p.redis = client
	}
	p.reader, err = query.New(query.Config{
		Primary: p.reads, Replicas: p.replicas, Redis: p.redis, RedisPrefix: cfg.RedisPrefix, Signer: p.signer, CursorKey: secretFor(cfg.Secret, "cursors"),
		IDs: p.ids, Timeline: p.timeline.Load, LRUSize: 50_000, Log: tel.Log, Metrics: tel.Registry, Tracer: tel.Tracer,
		OnChange: func(key string, _ int64) {
			if id, ok := order.Parse(order.PrefixOrder, key); ok {
				p.commands.Changed(id)
			}
		},
	})
	if err != nil {
		return nil, err
	}
	p.commands = command.New(command.Config{
		Pool: p.primary, IDs: p.ids, Now: time.Now, Concurrency: uint(cfg.MaxConnections) * 8, Wake: p.wake, Tracer: tel.Tracer, Registry: tel.Registry,
		Publish: p.publish,
	})
	return p, nil
}

// wake tells the relay of this process, if there is one; others poll.
func (p *parts) wake() {
	if r := p.relay.Load(); r != nil {
		r.Wake()
	}
}

// publish writes committed states through the caches.
func (p *parts) publish(ctx context.Context, states []command.Published) {
	entries := make([]query.Entry, len(states))
	for i, s := range states {
		entries[i] = p.reader.NewEntry(s.Owner, s.ID, s.Rev, s.KnownAt, s.LSN, s.Body)
	}
	p.reader.WriteThrough(ctx, entries...)
}

func (p *parts) close() {
	for _, pool := range append(p.replicas, p.primary, p.reads) {
		if pool != nil {
			pool.Close()
		}
	}
	if p.redis != nil {
		_ = p.redis.Close()
	}
}

// checkPrimary looks at each new connection to the primary: it refuses a server whose timeline is behind the highest that was
// seen (a primary that lost a failover and does not know), and one that may forget what it committed.
func (p *parts) checkPrimary(ctx context.Context, conn *pgx.Conn) error {
	row, err := ordersdb.New(conn).Timeline(ctx)
	if err != nil {
		return fmt.Errorf("not a primary: %w", err)
	}
	if row.SynchronousCommit == "off" {
		return errors.New("synchronous_commit is off: a crash could lose orders that were confirmed")
	}
	for {
		seen := p.timeline.Load()
		if uint32(row.Timeline) < seen {
			return fmt.Errorf("timeline %d is behind %d: this server is no longer the primary", row.Timeline, seen)
		}
		if p.timeline.CompareAndSwap(seen, uint32(row.Timeline)) {
			return nil
		}
	}
}
