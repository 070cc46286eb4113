package edge

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"golang.org/x/text/language"

	"github.com/ordergate/ordergate/order"
)

func chinese(h http.Header) bool {
	accept := h.Get("Accept-Language")
	if accept == "" || len(accept) > 256 {
		return false
	}
	_, i := language.MatchStrings(languages, accept)
	return i == 1
}

var (
	languages = language.NewMatcher([]language.Tag{language.English, language.SimplifiedChinese})
	ownID     = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)
	jaegerID  = regexp.MustCompile(`^([0-9a-fA-F]{1,32}):([0-9a-fA-F]{1,16}):[0-9a-fA-F]{1,16}:[0-9a-fA-F]{1,2}$`)
)

// traceID takes the caller's id: X-Trace-ID, else Jaeger's header, else W3C's, else a new UUID. A header that is invalid by its own
// standard counts as none.
func traceID(ctx context.Context, h http.Header) string {
	if id := h.Get("X-Trace-ID"); ownID.MatchString(id) {
		return id
	}
	zero := func(id string) bool { return strings.Trim(id, "0") == "" }
	if part := jaegerID.FindStringSubmatch(h.Get("Uber-Trace-Id")); part != nil && !zero(part[1]) && !zero(part[2]) {
		return part[1]
	}
	if h.Get("Traceparent") != "" {
		ctx = propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(h))
		if id := trace.SpanContextFromContext(ctx).TraceID(); id.IsValid() {
			return id.String()
		}
	}
	return uuid.NewString()
}

type metrics struct {
	requests, streams *prometheus.HistogramVec
	refusals          *prometheus.CounterVec
	waiting           prometheus.Gauge
}

func newMetrics(registry prometheus.Registerer) metrics {
	to, labels := promauto.With(registry), []string{"operation", "status"}
	return metrics{
		requests: to.NewHistogramVec(prometheus.HistogramOpts{
			Name: "ordergate_request_seconds", Help: "Time to answer a request.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
		}, labels),
		streams: to.NewHistogramVec(prometheus.HistogramOpts{
			Name: "ordergate_stream_seconds", Help: "Time that a stream was open.", Buckets: []float64{.1, 1, 5, 15, 30, 60, 300},
		}, labels),
		refusals: to.NewCounterVec(prometheus.CounterOpts{Name: "ordergate_refusals_total", Help: "Requests answered with an error, by its code."}, []string{"code"}),
		waiting:  to.NewGauge(prometheus.GaugeOpts{Name: "ordergate_waiting_requests", Help: "Requests with Prefer: wait that wait for their order to be decided."}),
	}
}

// clientGone is the status of metrics where a client did not wait for its answer: its impatience is no error of ours.
const clientGone = "client_gone"

// observe names the span, counts the request and logs the one event of it.
func (s *Server) observe(ctx context.Context, r *request, span trace.Span, took time.Duration) {
	operation, status := "none", r.response.Status
	outcome, histogram := strconv.Itoa(status), s.metrics.requests
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
	if outcome >= "500" && outcome < "600" {
		level = zap.ErrorLevel
	}
	e := s.cfg.Log.Check(level, "request")
	if e == nil {
		return
	}
	orderID := ""
	if !r.orderID.IsZero() {
		orderID = r.orderID.Format(order.PrefixOrder)
	}
	e.Write(zap.String("trace_id", r.traceID), zap.String("operation", operation), zap.String("method", r.http.Method),
		zap.Int("status", status), zap.Bool("client_gone", outcome == clientGone), zap.String("code", string(r.code)), zap.String("tier", r.tier),
		zap.String("order_id", orderID), zap.Int32("account", r.key.Owner.Account), zap.Duration("duration", took), zap.Error(r.cause))
}
