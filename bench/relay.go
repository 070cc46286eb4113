package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/internal/bus"
	"github.com/ordergate/ordergate/internal/pg"
)

// published counts messages, and does nothing else.
type published struct{ n atomic.Int64 }

func (p *published) Publish(_ string, messages ...*message.Message) error {
	p.n.Add(int64(len(messages)))
	return nil
}

func (p *published) Close() error { return nil }

// messages are rows of the outbox as orders leave them: as large, each of an order of its own, over all shards.
const messages = `INSERT INTO outbox (shard, topic, key, message_id, trace_id, payload)
SELECT i % 256, 'orders', 'ord_' || md5(i::text), gen_random_uuid(), md5(i::text), rpad('{"id":"' || md5(i::text), 600, 'x')
FROM generate_series(1, $1::bigint) AS i`

// measureRelay has the relay publish to nobody: as many rows from a short backlog and from a long one.
func measureRelay(ctx context.Context, b *writeBench) {
	const short, long = "backlog of the rows alone", "backlog of a million"
	rows, backlog := 100_000, 1_000_000
	if b.extent == trial {
		rows, backlog = 2000, 4000
	}
	var all []row //nolint:prealloc // of a few
	for round := range b.pace.rounds {
		for _, c := range []struct {
			leg string
			n   int
		}{{short, rows}, {long, backlog}} {
			b.emptyOutbox(ctx)
			_ = try(b.db.Exec(ctx, messages, c.n))
			b.settle(ctx)
			r := b.relay(ctx, int64(rows))
			r.Part, r.Leg, r.Clients, r.Round = "relay", c.leg, 1, round+1
			all = append(all, r)
			sayf("relay, round %d of %d: %s %.0f/s", round+1, b.pace.rounds, c.leg, r.Rate)
		}
	}
	b.emptyOutbox(ctx)
	b.keep(all)
	b.add(
		newAmount("relay into a publisher that does nothing", "rows/s", ">= 40000", each(all, short, rate)),
		newFigure("the same at a backlog of a million", "rows/s", ">= 0.9", each(all, long, rate), each(all, short, rate)),
	)
}

// relay publishes n rows at least, and measures a row of them.
func (b *writeBench) relay(ctx context.Context, n int64) row {
	pool := try(pg.Connect(ctx, b.primary, 4, pg.WorkerSession, nil))
	defer pool.Close()
	must(pool.Ping(ctx))
	to := &published{}
	r := bus.NewRelay(bus.RelayConfig{Pool: pool, Publisher: to, Log: zap.NewNop(), Metrics: prometheus.NewRegistry()})
	running, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	l := &load{program: cpu}
	from := b.now(ctx, l)
	go func() {
		defer close(done)
		r.Run(running)
	}()
	for last := time.Now().Add(time.Minute); to.n.Load() < n; pause(ctx, time.Millisecond) {
		if must(ctx.Err()); time.Now().After(last) {
			must(fmt.Errorf("the relay published %d of %d rows in a minute", to.n.Load(), n))
		}
	}
	spent, rows := b.now(ctx, l).since(from), to.n.Load()
	stop()
	<-done
	return row{}.of(spent, int(rows))
}

// settle waits until the servers have nothing left to do of what was written.
func (b *writeBench) settle(ctx context.Context) {
	for _, command := range []string{"VACUUM ANALYZE outbox", "CHECKPOINT"} {
		_ = try(b.db.Exec(ctx, command))
	}
	written := ""
	must(b.db.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()::text").Scan(&written))
	b.await(ctx, "replicas behind", "SELECT COALESCE(bool_and(replay_lsn >= $1::text::pg_lsn), true) FROM pg_stat_replication", written)
}

// emptyOutbox deletes the messages of what was measured: no worker is to have them.
func (b *writeBench) emptyOutbox(ctx context.Context) { _ = try(b.db.Exec(ctx, "TRUNCATE outbox")) }
