package main

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ordergate/ordergate/internal/app"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/telemetry"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/query"
)

// variantArgument makes this program a gateway whose read side lacks a part. No setting of the program does that: nobody else has a use for it.
const variantArgument = "variant"

type variant struct {
	Name     string `json:"name"`
	Addr     string `json:"addr"`
	LRUSize  int    `json:"lru_size"`
	Redis    bool   `json:"redis"`
	SKUsSeen bool   `json:"skus_seen"` // the change feed is followed, so that there is a Bloom filter
}

const (
	noLRU    = 2 // entries; the fewest that 2Q takes
	wholeLRU = 50_000
)

// serve is `ordergate serve` with another read side, until it is killed.
func (v variant) serve(ctx context.Context) {
	tel := try(telemetry.New(ctx, os.Getenv, 0, os.Stderr))
	cfg := try(app.ReadConfig(os.Environ(), nil))
	c := try(app.Assemble(ctx, cfg, tel))
	connect := func(url string, most int32) *pgxpool.Pool {
		return try(pg.Connect(ctx, url, most, pg.ReadSession, nil))
	}
	q := query.Config{
		Primary: connect(cfg.PrimaryURL, 16), RedisPrefix: cfg.RedisPrefix, Signer: token.NewSigner(app.SecretFor(cfg.Secret, "tokens")),
		Cursors: token.NewSigner(app.SecretFor(cfg.Secret, "cursors")), IDs: order.NewIDs(app.SecretFor(cfg.Secret, "ids")),
		Timeline: func() uint32 { return 1 }, Generation: 1, LRUSize: v.LRUSize, OnChange: func(string, int64) {}, Now: time.Now, Log: tel.Log,
		Metrics: prometheus.NewRegistry(), Tracer: tel.Tracer,
	}
	for _, url := range cfg.ReplicaURLs {
		q.Replicas = append(q.Replicas, connect(url, cfg.MaxConnections))
	}
	if v.Redis {
		q.Redis = try(query.OpenRedis(cfg.RedisURL))
	}
	c.Queries = try(query.New(q))
	go c.Queries.FollowReplicas(ctx)
	go c.Queries.Subscribe(ctx)
	if v.SKUsSeen {
		go c.Queries.FollowChanges(ctx)
	}
	server := try(c.API(nil))
	must(server.Serve(ctx, try((&net.ListenConfig{}).Listen(ctx, "tcp", v.Addr)), server, 0))
}

// variant starts one, with the garbage collector of serve.
func (b *readBench) variant(ctx context.Context, v variant, targets []string, tier string) *leg {
	v.Addr = freeAddr()
	settings := []string{b.spans, b.gogc(), "ORDERGATE_ADDR=" + v.Addr}
	l := b.hot(v.Name, b.child(ctx, v.Addr, settings, try(os.Executable()), variantArgument, string(try(json.Marshal(v)))))
	l.targets, l.random, l.tier = targets, true, tier
	return l
}
