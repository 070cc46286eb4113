package edge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"golang.org/x/text/language"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
)

// meta is what is known of a request while it is served; the one event that is logged of it comes from here.
type meta struct {
	traceID string
	chinese bool
	op      *operation
	key     *Key
	orderID string
	tier    string
	token   string // of a refusal
	code    errcode.Code
	err     error // the cause of an error answer
}

type metaKey struct{}

func metaOf(ctx context.Context) *meta {
	m, _ := ctx.Value(metaKey{}).(*meta)
	if m == nil {
		return &meta{} // a request that failed before the first middleware
	}
	return m
}

func (m *meta) about(path string) apierr.ProblemContext {
	if len(path) > 256 {
		path = path[:256]
	}
	return apierr.ProblemContext{TraceID: m.traceID, Instance: strings.ToValidUTF8(path, "?"), Chinese: m.chinese}
}

var (
	validTraceID = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)
	languages    = language.NewMatcher([]language.Tag{language.English, language.SimplifiedChinese})
)

// traceID takes the caller's id: X-Trace-ID, else Jaeger's header, else W3C's, else a new UUID.
func traceID(h http.Header) string {
	for _, id := range []string{h.Get("X-Trace-ID"), before(h.Get("Uber-Trace-Id"), ":"), between(h.Get("Traceparent"), "-")} {
		if id != "" && validTraceID.MatchString(id) {
			return id
		}
	}
	return uuid.NewString()
}

func before(s, sep string) string { head, _, _ := strings.Cut(s, sep); return head }

func between(s, sep string) string { _, tail, _ := strings.Cut(s, sep); return before(tail, sep) }

func chinese(h http.Header) bool {
	accept := h.Get("Accept-Language")
	if accept == "" || len(accept) > 256 {
		return false
	}
	_, i := language.MatchStrings(languages, accept)
	return i == 1
}

// observe is the one middleware that watches: trace id, panic, error answer, log event, metrics and the request's span.
func (s *Server) observe(registry prometheus.Registerer) echo.MiddlewareFunc {
	duration := promauto.With(registry).NewHistogramVec(prometheus.HistogramOpts{
		Name: "ordergate_request_seconds", Help: "Time to answer a request.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
	}, []string{"operation", "status"})
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			begin := time.Now()
			r := c.Request()
			m := &meta{traceID: traceID(r.Header), chinese: chinese(r.Header)}
			c.Response().Header().Set("X-Trace-ID", m.traceID)
			ctx := r.Context()
			if r.Method == http.MethodGet { // who has closed its sending half still reads, and a query is short
				ctx = context.WithoutCancel(ctx)
			}
			ctx = context.WithValue(ctx, metaKey{}, m)
			ctx = otel.GetTextMapPropagator().Extract(ctx, propagation.HeaderCarrier(r.Header))
			ctx, span := s.cfg.Tracer.Start(ctx, "request", trace.WithSpanKind(trace.SpanKindServer))
			c.SetRequest(r.WithContext(ctx))
			if err := protect(next, c); err != nil {
				s.renderError(err, c)
			}
			operation, status, outcome := "none", c.Response().Status, strconv.Itoa(c.Response().Status)
			if errors.Is(ctx.Err(), context.Canceled) {
				outcome = clientGone // its impatience is no error of ours
			}
			if m.op != nil {
				operation = m.op.id
			}
			if span.IsRecording() {
				span.SetName(operation)
				span.SetAttributes(attribute.String("http.request.method", r.Method), attribute.String("http.route", c.Path()),
					attribute.Int("http.response.status_code", status), attribute.String("ordergate.trace_id", m.traceID))
			}
			span.End()
			took := time.Since(begin)
			duration.WithLabelValues(operation, outcome).Observe(took.Seconds())
			s.log(c, m, operation, status, outcome, took)
			return nil
		}
	}
}

const clientGone = "client gone"

func (s *Server) log(c echo.Context, m *meta, operation string, status int, outcome string, took time.Duration) {
	level := zap.InfoLevel
	if outcome >= "500" && outcome < "600" {
		level = zap.ErrorLevel
	}
	if e := s.cfg.Log.Check(level, "request"); e != nil {
		var account int32
		if m.key != nil {
			account = m.key.Owner.Account
		}
		e.Write(zap.String("trace_id", m.traceID), zap.String("operation", operation), zap.String("method", c.Request().Method),
			zap.Int("status", status), zap.Bool("client_gone", outcome == clientGone), zap.String("code", string(m.code)), zap.String("tier", m.tier), zap.String("order_id", m.orderID),
			zap.Int32("account", account), zap.Duration("duration", took), zap.Error(m.err))
	}
}

// protect turns a panic into an error.
func protect(next echo.HandlerFunc, c echo.Context) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = apierr.E(errcode.SYS001, apierr.Cause(fmt.Errorf("panic: %v\n%s", r, debug.Stack())))
		}
	}()
	return next(c)
}
