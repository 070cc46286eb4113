package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/ordergate/ordergate/command"
	"github.com/ordergate/ordergate/command/inventory"
	"github.com/ordergate/ordergate/command/payment"
	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/busdb"
	"github.com/ordergate/ordergate/gen/ordersdb"
	"github.com/ordergate/ordergate/gen/paymentdb"
	"github.com/ordergate/ordergate/internal/bus"
	"github.com/ordergate/ordergate/internal/failpoint"
	"github.com/ordergate/ordergate/internal/outbox"
	"github.com/ordergate/ordergate/internal/panics"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/query"
)

// Work relays the outbox through the in-process lanes to all consumers, makes the saga's remote calls, sweeps the provider's ledger,
// expires reservations and does the maintenance, until ctx ends. Its pool is its own: however many requests wait for a connection, orders that were taken
// go on.
func (c *Components) Work(ctx context.Context) error {
	pool, err := pg.Connect(ctx, c.cfg.PrimaryURL, c.cfg.MaxConnections, pg.WorkerSession, c.checkPrimary)
	if err != nil {
		return err
	}
	defer pool.Close()
	stock := inventory.New(inventory.Config{Pool: pool, IDs: c.ids, TTL: c.cfg.ReservationTTL, Wake: c.wake, Log: c.tel.Log, SoldOut: c.soldOut})
	payments, err := payment.New(payment.Config{
		Pool: pool, IDs: c.ids, Now: failpoint.Now, ProviderURL: c.cfg.PSPURL, Deadline: c.cfg.PaymentTimeout,
		Wake: c.wake, Log: c.tel.Log, Registry: c.tel.Registry,
	})
	if err != nil {
		return err
	}
	c.payments.Store(payments)
	saga := c.Commands.Saga(pool, payments)
	consumers := allConsumers(stock, saga, c.project)
	subscribers := map[string]int{} // of each topic
	for _, consumer := range consumers {
		subscribers[consumer.Topic]++
	}
	lanes := bus.NewLanes(subscribers, c.tel.Log)
	relay := bus.NewRelay(bus.RelayConfig{Pool: pool, Publisher: lanes, Log: c.tel.Log, Metrics: c.tel.Registry})
	c.relay.Store(relay)

	// The relay ends first: its consumers finish the page that it has in work.
	consuming, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	for _, consumer := range consumers {
		consumer.Subscriber, consumer.Pool, consumer.Log = lanes, pool, c.tel.Log
		g.Go(func() error {
			defer panics.Sync(c.tel.Log)
			return bus.Consume(consuming, consumer)
		})
	}
	g.Go(func() error {
		defer panics.Sync(c.tel.Log)
		defer stop()
		return c.keepRunning(ctx, relay.Run)
	})
	for _, run := range []func(context.Context){payments.Run, payments.Sweep, stock.Run, c.maintenance} {
		g.Go(func() error {
			defer panics.Sync(c.tel.Log)
			return c.keepRunning(ctx, run)
		})
	}
	return g.Wait()
}

// allConsumers are all subscriptions. Every topic of the outbox has one at least.
func allConsumers(stock *inventory.Inventory, saga *command.Saga, project func(context.Context, []bus.Message) error) []bus.Consumer {
	return slices.Concat(stock.Consumers(), saga.Consumers(), []bus.Consumer{
		{Name: "projection", Topic: command.TopicOrders, Prepare: project},
	})
}

// keepRunning runs a loop until ctx ends. A panic ends one round of it, not the process: the next begins a second later.
func (c *Components) keepRunning(ctx context.Context, run func(context.Context)) error {
	for ctx.Err() == nil {
		if err := panics.Catch(func() error { run(ctx); return nil }); err != nil {
			c.tel.Log.Error("worker", zap.Error(err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

// project repairs the caches of orders that changed: the writer may have died between COMMIT and write-through. Repeating it
// changes nothing.
func (c *Components) project(ctx context.Context, msgs []bus.Message) error {
	revisions := make([]query.Revision, len(msgs))
	for i, m := range msgs {
		e, err := outbox.Open(m.Payload)
		if err != nil {
			return err
		}
		var changed command.OrderChanged
		if err = e.Decode(&changed); err != nil {
			return err
		}
		revisions[i] = query.Revision{Of: e.Ref(), Rev: changed.Rev}
	}
	if err := c.Queries.EnsureRevs(ctx, revisions); err != nil {
		if apierr.From(err).Retryable() {
			err = fmt.Errorf("%w: %w", bus.ErrTransient, err)
		}
		return fmt.Errorf("repair caches: %w", err)
	}
	failpoint.Hit(failpoint.ProjectionRepaired)
	return nil
}

// maintenance makes the partitions of the coming months and deletes old idempotency keys, inbox rows and callbacks, every minute.
func (c *Components) maintenance(ctx context.Context) {
	for ctx.Err() == nil {
		more, err := c.maintain(ctx)
		if err != nil && ctx.Err() == nil {
			c.tel.Log.Error("make partitions, delete old keys, messages and callbacks", zap.Error(err))
		}
		if more {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Minute):
		}
	}
}

// maintain deletes one batch; more tells that there is another. It has a time limit: the primary may have fallen silent.
func (c *Components) maintain(ctx context.Context) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	q := ordersdb.New(c.Primary)
	errPartitions := q.EnsurePartitions(ctx)
	keys, errKeys := q.PurgeResults(ctx)
	failpoint.Hit(failpoint.PurgeKeysDeleted)
	messages, errMessages := busdb.New(c.Primary).PurgeInbox(ctx)
	if pg.LockNotHad(errMessages) { // another worker deletes some of them
		errMessages = nil
	}
	callbacks, errCallbacks := paymentdb.New(c.Primary).PurgeCallbacks(ctx)
	failpoint.Hit(failpoint.PurgeDone)
	return keys >= 1000 || messages >= 1000 || callbacks >= 1000, errors.Join(errPartitions, errKeys, errMessages, errCallbacks)
}
