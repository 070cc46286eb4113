package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	_ "net/http/pprof" //nolint:gosec // it adds itself to DefaultServeMux, which this listener alone serves
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/gen/busdb"
	"github.com/ordergate/ordergate/gen/paymentdb"
	"github.com/ordergate/ordergate/internal/panics"
	"github.com/ordergate/ordergate/query"
)

const (
	maxClockOffset = 5 * time.Second  // between us and the primary
	maxReplicaLag  = 10 * time.Second // without a single replica below it most reads fall on the primary
	maxOutboxAge   = 30 * time.Second // something is not being published
	maxCallAge     = 30 * time.Second // a payment call stands still
	healthTimeout  = 2 * time.Second  // of all queries for /readyz, and of each for /metrics

	redisHealthTimeout = 500 * time.Millisecond // of Redis's answer for /readyz: a silent cache keeps no probe waiting for long
)

// Rates of two profiles that are off by default: a contended lock in a hundred is recorded, and of what waits for a channel, a lock or a
// condition one event for each millisecond of waiting. All other waits take 10 to 15 ns longer.
const (
	mutexFraction = 100
	blockRate     = int(time.Millisecond)
)

// health is the body of /readyz.
type health struct {
	Status        string    `json:"status"`   // ready, degraded or not ready
	Faults        []string  `json:"faults"`   // the process cannot do its work: no balancer should send to it
	Degraded      []string  `json:"degraded"` // it does its work with less help: to take it out would help nobody
	OutboxSeconds float64   `json:"outbox_age_seconds"`
	CallSeconds   float64   `json:"payment_call_seconds"`
	LagSeconds    []float64 `json:"replica_lag_seconds"` // -1: it is left out
	Parked        int64     `json:"parked_messages"`
}

// admin answers operators on a listener of its own until ctx ends: /livez, /readyz, /metrics, /debug/pprof with all profiles. stopping has an error once
// the process has begun to stop. An old outbox is a fault of workers only: without one orders can still be taken. So is a primary that is
// away while replicas serve reads.
func (c *Components) admin(ctx context.Context, stopping func() error, worker bool) error {
	l, err := listen(ctx, "ORDERGATE_ADMIN_ADDR", c.cfg.AdminAddr)
	if err != nil {
		return err
	}
	c.tel.Log.Info("listening", zap.String("admin", l.Addr().String()))
	runtime.SetMutexProfileFraction(mutexFraction)
	runtime.SetBlockProfileRate(blockRate)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) { c.readyz(w, r, stopping, worker) })
	mux.Handle("GET /metrics", promhttp.HandlerFor(c.tel.Registry, promhttp.HandlerOpts{}))
	mux.Handle("/debug/pprof/", http.DefaultServeMux)
	srv := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 2 * time.Minute, IdleTimeout: time.Minute,
		ErrorLog: zap.NewStdLog(c.tel.Log),
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (c *Components) readyz(w http.ResponseWriter, r *http.Request, stopping func() error, worker bool) {
	h := c.health(r.Context(), stopping, worker)
	w.Header().Set("Content-Type", "application/json")
	switch {
	case len(h.Faults) > 0:
		h.Status = "not ready"
		w.WriteHeader(http.StatusServiceUnavailable)
	case len(h.Degraded) > 0:
		h.Status = "degraded"
	}
	if err := json.NewEncoder(w).Encode(h); err != nil {
		c.tel.Log.Warn("answer /readyz", zap.Error(err))
	}
}

// health asks the primary and Redis, and knows how far each replica was when it was last measured; worker adds the faults of a worker.
func (c *Components) health(ctx context.Context, stopping func() error, worker bool) health {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	redis := make(chan error, 1)
	go func() {
		defer panics.Sync(c.tel.Log)
		redis <- c.checkRedis(ctx)
	}()
	primary, err := busdb.New(c.Primary).PrimaryHealth(ctx)
	offset := time.Since(primary.Now).Abs()
	calls, _ := paymentdb.New(c.Primary).CallsHealth(ctx) // after an error the primary does not answer
	h := health{
		Status: "ready", Faults: []string{}, Degraded: []string{}, OutboxSeconds: primary.OutboxSeconds, CallSeconds: calls, LagSeconds: []float64{}, Parked: primary.Parked,
	}
	fresh, reads := len(c.replicas) == 0, false // reads: they go on without the primary
	for i := range c.replicas {
		lag, receives, err := c.Queries.ReplicaLag(i)
		if err != nil {
			lag = -1
		}
		if errors.Is(err, query.ErrPromoted) {
			h.Degraded = append(h.Degraded, fmt.Sprintf("replica_%d is a primary of its own", i+1))
		}
		h.LagSeconds = append(h.LagSeconds, lag)
		fresh, reads = fresh || receives && lag < maxReplicaLag.Seconds(), reads || err == nil
	}
	fault := func(is bool, text string) {
		if is {
			h.Faults = append(h.Faults, text)
		}
	}
	const noPrimary = "the primary does not answer"
	fault(err != nil && (worker || !reads), noPrimary)
	fault(err == nil && offset > maxClockOffset, "the clock is more than 5 s off the database's")
	fault(worker && primary.OutboxSeconds > maxOutboxAge.Seconds(), "the outbox is not being published")
	fault(worker && calls > maxCallAge.Seconds(), "payment calls stand still")
	fault(stopping() != nil, "stopping")
	if err != nil && !worker && reads {
		h.Degraded = append(h.Degraded, noPrimary)
	}
	if !fresh {
		h.Degraded = append(h.Degraded, "no replica is less than 10 s behind")
	}
	err = <-redis
	if other, ok := errors.AsType[query.OtherKindError](err); ok {
		h.Degraded = append(h.Degraded, other.Error())
	} else if err != nil {
		h.Degraded = append(h.Degraded, "redis does not answer")
	} else if limits := c.limits.Load(); limits != nil && !limits.Shared() {
		h.Degraded = append(h.Degraded, "the limits of keys are not shared")
	}
	return h
}

func (c *Components) checkRedis(ctx context.Context) error {
	if c.redis == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, redisHealthTimeout)
	defer cancel()
	return c.redis.Check(ctx, c.cfg.RedisPrefix)
}

// registerHealth makes the figures of /readyz metrics, which are asked for whenever /metrics is read until ctx ends.
func (c *Components) registerHealth(ctx context.Context) {
	gauge := func(opts prometheus.GaugeOpts, unknown float64, value func(context.Context) (float64, error)) {
		c.tel.Registry.MustRegister(prometheus.NewGaugeFunc(opts, func() float64 {
			defer panics.Sync(c.tel.Log) // the registry calls it in a goroutine of its own
			ctx, cancel := context.WithTimeout(ctx, healthTimeout)
			defer cancel()
			v, err := value(ctx)
			if err != nil {
				return unknown
			}
			return v
		}))
	}
	parked := prometheus.GaugeOpts{
		Name: "ordergate_parked_messages", Help: "Messages that could not be handled; NaN: the primary does not answer.",
	}
	gauge(parked, math.NaN(), func(ctx context.Context) (float64, error) {
		row, err := busdb.New(c.Primary).PrimaryHealth(ctx)
		return float64(row.Parked), err
	})
	calls := prometheus.GaugeOpts{
		Name: "ordergate_payment_call_seconds", Help: "How long a payment call stands still; NaN: the primary does not answer.",
	}
	gauge(calls, math.NaN(), paymentdb.New(c.Primary).CallsHealth)
	for i := range c.replicas {
		lag := prometheus.GaugeOpts{
			Name: "ordergate_replica_lag_seconds", Help: "How far a replica is behind; +Inf: it does not answer, or is not on the primary's timeline.",
			ConstLabels: prometheus.Labels{"replica": fmt.Sprintf("replica_%d", i+1)}, // in the order of the configuration, as for breakers
		}
		gauge(lag, math.Inf(1), func(context.Context) (float64, error) {
			seconds, _, err := c.Queries.ReplicaLag(i)
			return seconds, err
		})
	}
}
