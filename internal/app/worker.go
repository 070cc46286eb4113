package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/ordergate/ordergate/command"
	"github.com/ordergate/ordergate/command/inventory"
	"github.com/ordergate/ordergate/command/payment"
	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/busdb"
	"github.com/ordergate/ordergate/gen/ordersdb"
	"github.com/ordergate/ordergate/internal/bus"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/order"
)

// worker relays the outbox through the in-process lanes to all consumers, makes the saga's remote calls, expires reservations and
// keeps house, until ctx ends.
func (p *parts) worker(ctx context.Context) error {
	// A pool of its own: however many requests wait for a connection, what they have begun goes on.
	pool, err := pg.Connect(ctx, p.cfg.PrimaryURL, p.cfg.MaxConnections, p.checkPrimary)
	if err != nil {
		return fmt.Errorf("ORDERGATE_PRIMARY_URL: %w", err)
	}
	defer pool.Close()
	lanes := bus.NewLanes(map[string]int{
		command.TopicOrders: 1, inventory.TopicCommands: 1, inventory.TopicReplies: 1, payment.TopicCommands: 1, payment.TopicReplies: 1,
	})
	relay := bus.NewRelay(bus.RelayConfig{Pool: pool, Publisher: lanes, Log: p.tel.Log, Metrics: p.tel.Registry})
	p.relay.Store(relay)
	// The saga's own commands: their positions are read through the worker's pool.
	commands := command.New(command.Config{
		Pool: pool, IDs: p.ids, Now: time.Now, Concurrency: uint(p.cfg.MaxConnections), Wake: relay.Wake, Tracer: p.tel.Tracer, Publish: p.publish,
	})
	stock := inventory.New(inventory.Config{Pool: pool, IDs: p.ids, TTL: p.cfg.ReservationTTL, Wake: relay.Wake, Log: p.tel.Log})
	money, err := payment.New(payment.Config{
		Pool: pool, IDs: p.ids, Now: time.Now, ProviderURL: p.cfg.PSPURL, Deadline: p.cfg.PaymentTimeout, Wake: relay.Wake, Log: p.tel.Log, Registry: p.tel.Registry,
	})
	if err != nil {
		return err
	}
	// The relay ends first: its consumers finish the page that it has in work.
	consuming, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	for _, c := range []bus.Consumer{
		{Name: "inventory", Topic: inventory.TopicCommands, Handle: stock.Handle},
		{Name: "payment", Topic: payment.TopicCommands, Handle: money.Handle},
		{Name: "saga.inventory", Topic: inventory.TopicReplies, Handle: commands.InventoryReplied},
		{Name: "saga.payment", Topic: payment.TopicReplies, Handle: commands.PaymentReplied},
		{Name: "projection", Topic: command.TopicOrders, Prepare: p.project},
	} {
		c.Subscriber, c.Pool, c.Log = lanes, pool, p.tel.Log
		g.Go(func() error { return bus.Consume(consuming, c) })
	}
	g.Go(func() error {
		defer stop()
		relay.Run(ctx)
		return nil
	})
	for _, run := range []func(context.Context){money.Run, stock.Run, p.keepHouse} {
		g.Go(func() error { run(ctx); return nil })
	}
	return g.Wait()
}

// project makes sure that the read tiers have at least the versions that the notices tell of, even if who wrote them died before
// it could write through. Repeating changes nothing.
func (p *parts) project(ctx context.Context, msgs []bus.Message) error {
	for _, m := range msgs {
		var n command.Notice
		if err := json.Unmarshal(m.Payload, &n); err != nil {
			return fmt.Errorf("decode notice: %w", err)
		}
		id, ok := order.Parse(order.PrefixOrder, n.OrderID)
		if !ok {
			return fmt.Errorf("notice of %q", n.OrderID)
		}
		if err := p.reader.EnsureRev(ctx, n.Owner, id, n.Rev); err != nil {
			if apierr.From(err).Retryable() {
				err = fmt.Errorf("%w: %w", bus.ErrPassing, err)
			}
			return fmt.Errorf("repair caches: %w", err)
		}
	}
	return nil
}

// keepHouse forgets old idempotency keys and handled messages and makes the partitions of the coming months.
func (p *parts) keepHouse(ctx context.Context) {
	q := ordersdb.New(p.primary)
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	// Each has its own time: the primary may have fallen silent.
	attempt := func(what string, do func(context.Context) error) bool {
		limited, cancel := context.WithTimeout(ctx, 15*time.Second)
		defer cancel()
		err := do(limited)
		if err != nil && ctx.Err() == nil {
			p.tel.Log.Error(what, zap.Error(err))
		}
		return err == nil
	}
	for {
		attempt("make partitions", q.EnsurePartitions)
		for more := true; more; {
			var answers, messages int64
			more = attempt("forget old keys and messages", func(ctx context.Context) (err error) {
				var err1, err2 error
				answers, err1 = q.PurgeAnswers(ctx)
				messages, err2 = busdb.New(p.primary).PurgeInbox(ctx)
				return errors.Join(err1, err2)
			}) && (answers >= 1000 || messages >= 1000)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
