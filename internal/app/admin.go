package app

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/gen/busdb"
	"github.com/ordergate/ordergate/gen/querydb"
)

const (
	maxClockOffset = 5 * time.Second  // between us and the primary
	maxReplicaLag  = 10 * time.Second // without a single replica below it reads would all fall on the primary
	maxOutboxAge   = 30 * time.Second // something is not being published
	healthTimeout  = 2 * time.Second  // of all queries for /readyz, and for /metrics
)

// health is the body of /readyz.
type health struct {
	Status        string    `json:"status"` // ready or not ready
	Faults        []string  `json:"faults"`
	OutboxSeconds float64   `json:"outbox_age_seconds"`
	LagSeconds    []float64 `json:"replica_lag_seconds"` // -1: it cannot be reached
	Parked        int64     `json:"parked_messages"`
	primaryDown   bool
}

// admin answers operators on a listener of its own until ctx ends: /livez, /readyz, /metrics, /debug/pprof. draining is done when
// the process has begun to stop. An old outbox is a fault of workers only: without one orders can still be taken.
func (c *Components) admin(ctx context.Context, draining <-chan struct{}, worker bool) error {
	l, err := listen(ctx, "ORDERGATE_ADMIN_ADDR", c.cfg.AdminAddr)
	if err != nil {
		return err
	}
	c.tel.Log.Info("listening", zap.String("admin", l.Addr().String()))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		h := c.health(r.Context(), worker)
		select {
		case <-draining:
			h.Faults = append(h.Faults, "stopping")
		default:
		}
		h.Status = "ready"
		w.Header().Set("Content-Type", "application/json")
		if len(h.Faults) > 0 {
			h.Status = "not ready"
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(h)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(c.tel.Registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return serveHTTP(ctx, l, mux, c.tel.Log)
}

// serveHTTP serves h until ctx ends.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler, log *zap.Logger) error {
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 2 * time.Minute, IdleTimeout: time.Minute,
		ErrorLog: zap.NewStdLog(log),
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (c *Components) health(ctx context.Context, worker bool) (h health) {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	h.Faults, h.LagSeconds = []string{}, []float64{}
	row, err := busdb.New(c.Primary).PrimaryHealth(ctx)
	if h.primaryDown = err != nil; h.primaryDown {
		h.Faults = append(h.Faults, "the primary does not answer")
	} else {
		h.OutboxSeconds, h.Parked = row.OutboxSeconds, row.Parked
		if offset := time.Since(row.Now).Abs(); offset > maxClockOffset {
			h.Faults = append(h.Faults, "the clock is more than 5 s off the database's")
		}
		if worker && row.OutboxSeconds > maxOutboxAge.Seconds() {
			h.Faults = append(h.Faults, "the outbox is not being published")
		}
	}
	fresh := len(c.replicas) == 0
	for _, replica := range c.replicas {
		lag, err := querydb.New(replica).ReplicaLag(ctx)
		if err != nil {
			lag = -1
		}
		h.LagSeconds = append(h.LagSeconds, lag)
		fresh = fresh || err == nil && lag < maxReplicaLag.Seconds()
	}
	if !fresh {
		h.Faults = append(h.Faults, "no replica is less than 10 s behind")
	}
	return h
}

// healthMetrics asks the servers for the figures of /readyz whenever /metrics is read.
type healthMetrics struct{ *Components }

var (
	parkedMessages = prometheus.NewDesc("ordergate_parked_messages", "Messages that could not be handled; absent: the primary does not answer.", nil, nil)
	replicaLag     = prometheus.NewDesc("ordergate_replica_lag_seconds", "How far a replica is behind; +Inf: it does not answer.", []string{"replica"}, nil)
)

// Describe implements prometheus.Collector.
func (m healthMetrics) Describe(descs chan<- *prometheus.Desc) {
	descs <- parkedMessages
	descs <- replicaLag
}

// Collect implements prometheus.Collector.
func (m healthMetrics) Collect(metrics chan<- prometheus.Metric) {
	h := m.health(context.Background(), false)
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	if !h.primaryDown {
		gauge(parkedMessages, float64(h.Parked))
	}
	for i, lag := range h.LagSeconds {
		if lag < 0 {
			lag = math.Inf(1)
		}
		gauge(replicaLag, lag, replicaName(m.replicas[i]))
	}
}

// replicaName is the address of a replica as it was configured.
func replicaName(pool *pgxpool.Pool) string {
	at := pool.Config().ConnConfig
	return net.JoinHostPort(at.Host, strconv.Itoa(int(at.Port)))
}
