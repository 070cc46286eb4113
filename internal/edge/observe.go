package edge

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel/attribute"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/panics"
)

type metrics struct {
	requests, streams *prometheus.HistogramVec
	refusals          *prometheus.CounterVec
	undeclared        *prometheus.CounterVec
	waiting, open     prometheus.Gauge
}

func newMetrics(registry prometheus.Registerer) metrics {
	to, labels := promauto.With(registry), []string{"operation", "status"}
	return metrics{
		requests: to.NewHistogramVec(prometheus.HistogramOpts{
			Name: "ordergate_request_seconds", Help: "Time to respond to a request.",
			Buckets: []float64{.0005, .001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
		}, labels),
		streams: to.NewHistogramVec(prometheus.HistogramOpts{
			Name: "ordergate_stream_seconds", Help: "Time that a stream was open.", Buckets: []float64{.1, 1, 5, 15, 30, 60, 300},
		}, labels),
		refusals: to.NewCounterVec(prometheus.CounterOpts{
			Name: "ordergate_refusals_total", Help: "Requests that ended in an error, by its code.",
		}, []string{"code"}),
		undeclared: to.NewCounterVec(prometheus.CounterOpts{
			Name: "ordergate_undeclared_answers_total", Help: "Answers that the contract does not list: a mistake of ours.",
		}, []string{"operation", "status", "code"}),
		waiting: to.NewGauge(prometheus.GaugeOpts{
			Name: "ordergate_waiting_requests", Help: "Requests with Prefer: wait that wait for their order to be decided.",
		}),
		open: to.NewGauge(prometheus.GaugeOpts{
			Name: "ordergate_streams", Help: "Streams that are open.",
		}),
	}
}

// clientGone is the status in metrics of a request whose client did not wait for the response, which is no error of ours.
const clientGone = "client_gone"

// outcomes are how a request can end in metrics, by the first digit of its status: a histogram for each status would be three times as many series.
var outcomes = [...]string{clientGone, "1xx", "2xx", "3xx", "4xx", "5xx"}

// observers are an operation's histograms by outcome. One that nothing was observed of is not made, and not shown.
type observers [len(outcomes)]atomic.Pointer[prometheus.Observer]

func (s *Server) observer(o *operation, outcome int) prometheus.Observer {
	place := &o.observers[outcome]
	if known := place.Load(); known != nil {
		return *known
	}
	histogram := s.metrics.requests
	if o.Stream {
		histogram = s.metrics.streams
	}
	made := histogram.WithLabelValues(o.ID, outcomes[outcome])
	place.Store(&made)
	return made
}

// observe names the span, counts the request and logs its one event.
func (s *Server) observe(ctx context.Context, r *request) {
	ended, op, status := s.now(), r.op, r.response.Status
	took := ended.Sub(r.began)
	if op == nil {
		op = &s.elsewhere
	}
	outcome := status / 100
	if errors.Is(ctx.Err(), context.Canceled) && !r.bodyLate {
		outcome = 0
	}
	if r.span != nil {
		r.span.SetName(op.ID)
		r.span.SetAttributes(attribute.String("http.request.method", r.http.Method), attribute.String("http.route", op.Path),
			attribute.Int("http.response.status_code", status), attribute.String("ordergate.trace_id", r.traceID))
		r.span.End()
	}
	s.observer(op, outcome).Observe(took.Seconds())
	if r.code != "" {
		s.metrics.refusals.WithLabelValues(string(r.code)).Inc()
	}
	level := zap.InfoLevel
	gone, brokenStream := outcomes[outcome] == clientGone, op.Stream && status == http.StatusOK && r.code != "" // it was sent before
	switch {
	case errors.Is(r.cause, errUndeclared), errors.Is(r.cause, panics.ErrPanic):
		level = zap.ErrorLevel
	case gone, r.code == errcode.SYS005, r.code == errcode.RATE003: // each stop of a process refuses some, and an overload many
	case status >= http.StatusInternalServerError, brokenStream:
		level = zap.ErrorLevel
	}
	s.logRequest(level, r, accessEvent{
		at: ended, traceID: r.traceID, operation: op.ID, method: r.http.Method, status: status, clientGone: gone,
		code: r.code, tier: r.tier, orderID: r.orderID, account: r.key.Owner.Account, took: took,
	})
}

// logRequest writes the event of a request. An unremarkable one of an operation goes into the sink as a finished line.
func (s *Server) logRequest(level zapcore.Level, r *request, e accessEvent) {
	if s.cfg.AccessLog != nil && level == zap.InfoLevel && r.cause == nil && r.op != nil {
		if s.cfg.Log.Core().Enabled(level) {
			r.bytes = e.appendLine(r.bytes[:0])
			_, _ = s.cfg.AccessLog.Write(r.bytes)
		}
		return
	}
	if ce := s.cfg.Log.Check(level, "request"); ce != nil {
		ce.Time = e.at
		ce.Write(append(e.fields(), zap.Error(r.cause))...)
	}
}
