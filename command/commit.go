package command

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

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
	onCommit func(order.ID) // wakes the requests that wait for the order
	events   *prometheus.CounterVec
	steps    *prometheus.HistogramVec
}

func newWriter(c Config) writer {
	m := promauto.With(c.Registry)
	return writer{
		cfg: c,
		events: m.NewCounterVec(prometheus.CounterOpts{
			Name: "ordergate_order_events_total", Help: "Events of orders by type: how many orders came and how they ended.",
		}, []string{"type"}),
		steps: m.NewHistogramVec(prometheus.HistogramOpts{
			Name: "ordergate_saga_step_seconds", Help: "Time from a saga step's start to its definite end.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
		}, []string{"step", "status"}),
	}
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
		w.onCommit(c.order.ID)
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
