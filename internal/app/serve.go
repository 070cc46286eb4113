package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"go.uber.org/zap"

	"github.com/ordergate/ordergate/command"
	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/busdb"
	"github.com/ordergate/ordergate/gen/ordersdb"
	"github.com/ordergate/ordergate/internal/bus"
	"github.com/ordergate/ordergate/internal/edge"
	"github.com/ordergate/ordergate/internal/outbox"
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

// project repairs the caches of orders that changed: the writer may have died between COMMIT and write-through. Repeating it
// changes nothing.
func (c *Components) project(ctx context.Context, msgs []bus.Message) error {
	for _, m := range msgs {
		e, err := outbox.Open(m.Payload)
		if err != nil {
			return err
		}
		var changed command.OrderChanged
		if err = e.Decode(&changed); err != nil {
			return err
		}
		ref := e.Ref()
		if err = c.Queries.EnsureRev(ctx, ref.Owner, ref.ID, changed.Rev); err != nil {
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
				keys, err1 = q.PurgeResults(ctx)
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
