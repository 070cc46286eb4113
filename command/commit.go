package command

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ordergate/ordergate/gen/ordersdb"
	"github.com/ordergate/ordergate/internal/outbox"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/order"
)

// TopicOrders carries an OrderChanged for each event of an order, in the order of its versions.
const TopicOrders = "orders"

// TypeOrderChanged is the type of an OrderChanged's message. The message's id is the event's.
const TypeOrderChanged = "order.changed"

// OrderChanged is the data of a message which tells that an order has a new version.
type OrderChanged struct {
	Event   string `json:"event"` // the event's type
	Version int64  `json:"version"`
	Rev     int64  `json:"rev"`
}

// changed tells the other parts of an event.
func (c *orderChange) changed(e order.Event) outbox.Message {
	cause := outbox.Cause{ID: e.ID, TraceID: e.Cause.TraceID, Now: e.At}
	return outbox.New(TopicOrders, TypeOrderChanged, c.ref(), cause, OrderChanged{Event: e.Type, Version: e.Version, Rev: c.rev})
}

// positionTime bounds the look at the log after a COMMIT.
const positionTime = 300 * time.Millisecond

// position reads where the log stands after a COMMIT, or token.NoPosition.
func position(ctx context.Context, db ordersdb.DBTX) uint64 {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), positionTime)
	defer cancel()
	lsn, err := ordersdb.New(db).FlushLSN(ctx)
	if err != nil {
		return token.NoPosition
	}
	return uint64(lsn)
}

// writer is what Commands and Saga have in common.
type writer struct {
	cfg      Config
	onCommit func(*orderChange) // may be nil
	events   *prometheus.CounterVec
	steps    *prometheus.HistogramVec
}

func newWriter(c Config) writer {
	return writer{
		cfg: c,
		events: registered(c.Registry, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ordergate_order_events_total", Help: "Events of orders by type: how many orders came and how they ended.",
		}, []string{"type"})),
		steps: registered(c.Registry, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "ordergate_saga_step_seconds", Help: "Time from a saga step's start to its definite end.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
		}, []string{"step", "status"})),
	}
}

// registered registers a collector, or returns the one of its name: Commands and Saga count together.
func registered[C prometheus.Collector](r prometheus.Registerer, c C) C {
	if r == nil {
		return c
	}
	if known, ok := errors.AsType[prometheus.AlreadyRegisteredError](r.Register(c)); ok {
		if existing, ok := known.ExistingCollector.(C); ok {
			return existing
		}
	}
	return c
}

// afterCommit wakes the relay, hands the new states to the caches and counts. It fails nothing: what it misses is repaired by the
// orders' messages.
func (w *writer) afterCommit(ctx context.Context, changes []*orderChange, knownAt, lsn uint64) {
	if len(changes) == 0 {
		return
	}
	w.cfg.Wake()
	states := make([]Committed, 0, len(changes))
	for _, c := range changes {
		w.count(c)
		if len(c.events) == 0 {
			continue
		}
		if body, err := c.body(); err == nil {
			states = append(states, Committed{Ref: c.ref(), Rev: c.rev, KnownAt: knownAt, LSN: lsn, Body: body})
		}
		if w.onCommit != nil {
			w.onCommit(c)
		}
	}
	if w.cfg.WriteThrough != nil && len(states) > 0 {
		w.cfg.WriteThrough(context.WithoutCancel(ctx), states)
	}
}

func (w *writer) count(c *orderChange) {
	for _, e := range c.events {
		w.events.WithLabelValues(e.Type).Inc()
	}
	for _, st := range c.steps {
		if st.moved && (st.status == statusDone || st.status == statusFailed) && !st.started.IsZero() {
			w.steps.WithLabelValues(st.name, st.status).Observe(st.finished.Sub(st.started).Seconds())
		}
	}
}
