package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/ordergate/ordergate/command"
	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/busdb"
	"github.com/ordergate/ordergate/gen/ordersdb"
	"github.com/ordergate/ordergate/internal/bus"
	"github.com/ordergate/ordergate/internal/edge"
	"github.com/ordergate/ordergate/order"
)

// serve answers the API until ctx ends. static are API keys that are valid beside the database's.
func (c *Components) serve(ctx context.Context, static map[string]*edge.Key) error {
	server, err := c.API(static)
	if err != nil {
		return err
	}
	l, err := listen(ctx, "ORDERGATE_ADDR", c.cfg.Addr)
	if err != nil {
		return err
	}
	c.tel.Log.Info("listening", zap.String("api", l.Addr().String()))
	return server.Serve(ctx, l, c.cfg.DrainDelay)
}

func listen(ctx context.Context, name, addr string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return l, nil
}

// work relays the outbox through the in-process lanes to all consumers, makes the saga's remote calls, expires reservations and
// does the maintenance, until ctx ends. The relay ends first: its consumers finish the page that it has in work.
func (c *Components) work(ctx context.Context) error {
	w, err := c.newWorker(ctx)
	if err != nil {
		return err
	}
	defer w.pool.Close()
	consuming, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	for _, consumer := range w.consumers {
		g.Go(func() error { return bus.Consume(consuming, consumer) })
	}
	g.Go(func() error {
		defer stop()
		w.relay.Run(ctx)
		return nil
	})
	for _, job := range w.jobs {
		g.Go(func() error { job(ctx); return nil })
	}
	return g.Wait()
}

// project repairs the caches of orders that changed: the writer may have died between COMMIT and write-through. Repeating it
// changes nothing.
func (c *Components) project(ctx context.Context, msgs []bus.Message) error {
	for _, m := range msgs {
		var changed command.Notice
		if err := json.Unmarshal(m.Payload, &changed); err != nil {
			return fmt.Errorf("decode message: %w", err)
		}
		id, ok := order.Parse(order.PrefixOrder, changed.OrderID)
		if !ok {
			return fmt.Errorf("message of order %q", changed.OrderID)
		}
		if err := c.Queries.Repair(ctx, changed.Owner, id, changed.Rev); err != nil {
			if apierr.From(err).Retryable() {
				err = fmt.Errorf("%w: %w", bus.ErrPassing, err)
			}
			return fmt.Errorf("repair caches: %w", err)
		}
	}
	return nil
}

// maintenance makes the partitions of the coming months and deletes old idempotency keys and inbox rows, every minute.
func (c *Components) maintenance(ctx context.Context) {
	q := ordersdb.New(c.Primary)
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	// Each attempt has a time limit: the primary may have fallen silent.
	attempt := func(name string, do func(context.Context) error) bool {
		limited, cancel := context.WithTimeout(ctx, 15*time.Second)
		defer cancel()
		err := do(limited)
		if err != nil && ctx.Err() == nil {
			c.tel.Log.Error(name, zap.Error(err))
		}
		return err == nil
	}
	for {
		attempt("make partitions", q.EnsurePartitions)
		for more := true; more; {
			var keys, messages int64
			more = attempt("delete old keys and messages", func(ctx context.Context) error {
				var err1, err2 error
				keys, err1 = q.PurgeAnswers(ctx)
				messages, err2 = busdb.New(c.Primary).PurgeInbox(ctx)
				return errors.Join(err1, err2)
			}) && (keys >= 1000 || messages >= 1000)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
