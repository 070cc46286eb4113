package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/command/inventory"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/internal/app"
	"github.com/ordergate/ordergate/internal/bus"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/order"
)

// stockroom is the part of a worker that decides reservations: the relay, and the consumer of the inventory's commands. Messages to others are dropped.
type stockroom struct {
	stop func()
	done sync.WaitGroup
}

// onlyInventory publishes the inventory's commands, and drops the rest.
type onlyInventory struct{ *bus.Lanes }

func (o onlyInventory) Publish(topic string, messages ...*message.Message) error {
	if topic != inventory.TopicCommands {
		return nil
	}
	return o.Lanes.Publish(topic, messages...)
}

func (b *writeBench) stockroom(ctx context.Context) *stockroom {
	s := &stockroom{}
	pool := try(pg.Connect(ctx, b.primary, 16, pg.WorkerSession, nil))
	lanes := bus.NewLanes(map[string]int{inventory.TopicCommands: 1}, zap.NewNop())
	relay := bus.NewRelay(bus.RelayConfig{Pool: pool, Publisher: onlyInventory{lanes}, Log: zap.NewNop(), Metrics: prometheus.NewRegistry()})
	ids := order.NewIDs(app.SecretFor(secret, "ids"))
	stock := inventory.New(inventory.Config{Pool: pool, IDs: ids, TTL: time.Hour, Wake: relay.Wake, Log: zap.NewNop()})
	relaying, stopRelay := context.WithCancel(ctx)
	consuming, stopConsumer := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = func() {
		stopRelay()
		s.done.Wait()
		pool.Close()
	}
	consumer := stock.Consumers()[0]
	consumer.Subscriber, consumer.Pool, consumer.Log = lanes, pool, zap.NewNop()
	s.done.Go(func() { must(bus.Consume(consuming, consumer)) })
	s.done.Go(func() {
		defer stopConsumer()
		relay.Run(relaying)
	})
	return s
}

// measureDecisions compares orders that all want one sku with orders that are spread over many: orders whose reservation is decided, from the first that is placed
// to the last that is decided. Orders are placed in process. Beside them is a shop that locks the stock first, and has reserved when it commits.
func measureDecisions(ctx context.Context, b *writeBench) {
	n, spread := 5000, make([]string, 1000)
	if b.extent == trial {
		n = 50
	}
	for i := range spread {
		spread[i] = fmt.Sprintf("spread-%04d", i)
	}
	b.addProducts(ctx, onHand, append(slices.Clone(spread), "hot", "locked")...)
	p := b.pgbench(ctx, "decide", b.of(0, "locked"))
	owner := fmt.Sprintf("%d, '%s', ", b.owner.Account, b.owner.Mode)
	reserve := []string{
		"INSERT INTO stock_reservations (account, mode, order_id, attempt, status, expires_at) VALUES (" + owner + orderID + "::uuid, 1, 'held', now() + interval '1 hour')",
		"INSERT INTO stock_reservation_lines (account, mode, order_id, attempt, sku, quantity) VALUES (" + owner + orderID + "::uuid, 1, 'locked', 1)",
		fmt.Sprintf("UPDATE stock SET reserved = reserved + 1, rev = rev + 1, updated_at = now() WHERE account = %d AND mode = '%s' AND sku = 'locked' AND reserved + 1 <= on_hand",
			b.owner.Account, b.owner.Mode),
	}
	locking := b.script(legLocking+", with the reservation", p, p.locking("reserving", b.gateway, []string{"locked"}, reserve...))
	const legHot, legSpread = "one sku, in process", "1,000 skus, in process"
	decide := func(sku func(n int64) string) row {
		b.emptyOutbox(ctx)
		s := b.stockroom(ctx)
		defer s.stop()
		return b.decided(ctx, n, sku)
	}
	var rows []row //nolint:prealloc // of a few
	legs := []struct {
		name string
		row  func() row
	}{
		{legHot, func() row { return decide(func(int64) string { return "hot" }) }},
		{legSpread, func() row { return decide(func(n int64) string { return spread[n%int64(len(spread))] }) }},
		{locking.name, func() row { return b.once(ctx, locking, b.many) }},
	}
	for round := range b.pace.rounds {
		for _, l := range legs {
			r := l.row()
			r.Part, r.Leg, r.Clients, r.Round = "decisions", l.name, b.many, round+1
			rows = append(rows, r)
			sayf("decisions, round %d of %d: %s %.0f/s", round+1, b.pace.rounds, l.name, r.Rate)
		}
		slices.Reverse(legs)
	}
	b.emptyOutbox(ctx)
	b.keep(rows)
	of := func(leg string) []float64 { return each(rows, leg, rate) }
	b.add(
		newFigure("CPU of all for an order and its decision, one sku / 1,000", "us", "", each(rows, legHot, row.all), each(rows, legSpread, row.all)),
		newFigure("decisions, all orders want one sku / spread over 1,000", "/s", ">= 0.95", of(legHot), of(legSpread)),
		newFigure("decisions, all orders want one sku / SELECT FOR UPDATE", "/s", ">= 20", of(legHot), of(locking.name)),
	)
}

// decided places n orders of one piece and waits until each has its reservation.
func (b *writeBench) decided(ctx context.Context, n int, sku func(n int64) string) row {
	held := func() (held int) {
		must(b.db.QueryRow(ctx, "SELECT count(*) FROM stock_reservations WHERE account = $1 AND mode = $2", b.owner.Account, b.owner.Mode).Scan(&held))
		return held
	}
	before, accepts := held(), b.accepted.Load()
	l := b.callers(ctx, b.components.Commands, b.many, func(n int64) api.PlaceOrder { return b.of(n, sku(n)) })
	from := b.now(ctx, l)
	for b.accepted.Load()-accepts < int64(n) && ctx.Err() == nil {
		pause(ctx, time.Millisecond)
	}
	l.end()
	orders := int(b.accepted.Load() - accepts)
	for last := time.Now().Add(time.Minute); held()-before < orders; pause(ctx, 5*time.Millisecond) {
		if must(ctx.Err()); time.Now().After(last) {
			must(fmt.Errorf("%d of %d reservations are not decided after a minute", orders-held()+before, orders))
		}
	}
	return row{}.of(b.now(ctx, l).since(from), orders)
}
