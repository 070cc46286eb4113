package edge

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
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

// observe names the span, counts the request and logs its one event.
func (s *Server) observe(ctx context.Context, r *request, span trace.Span, took time.Duration) {
	operation, status := "none", r.response.Status
	outcome, histogram := strconv.Itoa(status/100)+"xx", s.metrics.requests // a histogram for each status would be three times as many series
	if errors.Is(ctx.Err(), context.Canceled) {
		outcome = clientGone
	}
	if r.op != nil {
		operation = r.op.ID
		if r.op.Stream {
			histogram = s.metrics.streams
		}
	}
	if span.IsRecording() {
		span.SetName(operation)
		span.SetAttributes(attribute.String("http.request.method", r.http.Method), attribute.String("http.route", r.path.Path()),
			attribute.Int("http.response.status_code", status), attribute.String("ordergate.trace_id", r.traceID))
	}
	histogram.WithLabelValues(operation, outcome).Observe(took.Seconds())
	if r.code != "" {
		s.metrics.refusals.WithLabelValues(string(r.code)).Inc()
	}
	level := zap.InfoLevel
	brokenStream := r.op != nil && r.op.Stream && status == http.StatusOK && r.code != "" // it was sent before
	switch {
	case errors.Is(r.cause, errUndeclared), errors.Is(r.cause, panics.ErrPanic):
		level = zap.ErrorLevel
	case outcome == clientGone, r.code == errcode.SYS005: // each stop of a process refuses some
	case status >= http.StatusInternalServerError, brokenStream:
		level = zap.ErrorLevel
	}
	s.logRequest(level, r, accessEvent{
		at: time.Now(), traceID: r.traceID, operation: operation, method: r.http.Method, status: status, clientGone: outcome == clientGone,
		code: r.code, tier: r.tier, orderID: r.orderID, account: r.key.Owner.Account, took: took,
	})
}

// logRequest writes the event of a request. An unremarkable one of an operation goes into the sink as a finished line.
func (s *Server) logRequest(level zapcore.Level, r *request, e accessEvent) {
	if s.cfg.AccessLog != nil && level == zap.InfoLevel && r.cause == nil && r.op != nil {
		if s.cfg.Log.Core().Enabled(level) {
			r.line = e.appendLine(r.line[:0])
			_, _ = s.cfg.AccessLog.Write(r.line)
		}
		return
	}
	if ce := s.cfg.Log.Check(level, "request"); ce != nil {
		ce.Time = e.at
		ce.Write(append(e.fields(), zap.Error(r.cause))...)
	}
}
