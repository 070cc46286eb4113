package edge

import (
	"context"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strings"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/ordergate/ordergate/internal/check"
)

// carriesTrace tells whether a caller's trace or its id may come in a header, by its canonical name: those of all propagators that OTEL_PROPAGATORS
// can name are here.
func carriesTrace(name string) bool {
	switch name {
	case "X-Trace-Id", "Traceparent", "Tracestate", "Baggage", "Uber-Trace-Id", "B3", "X-B3-Traceid", "X-B3-Spanid", "X-B3-Sampled", "X-B3-Flags",
		"X-Amzn-Trace-Id", "Ot-Tracer-Traceid", "Ot-Tracer-Spanid", "Ot-Tracer-Sampled":
		return true
	}
	return false
}

var (
	ownID    = check.MustPattern(`^[A-Za-z0-9-]{1,64}$`)
	jaegerID = regexp.MustCompile(`^([0-9a-fA-F]{1,32}):([0-9a-fA-F]{1,16}):[0-9a-fA-F]{1,16}:[0-9a-fA-F]{1,2}$`)
)

// givenTraceID is the caller's id: X-Trace-ID, else Jaeger's header, else W3C's; empty: there is none. A header that is invalid by its own
// standard counts as none.
func givenTraceID(ctx context.Context, h http.Header) string {
	if id := first(h, "X-Trace-Id"); ownID.Match(id) {
		return id
	}
	zero := func(id string) bool { return strings.Trim(id, "0") == "" }
	if text := first(h, "Uber-Trace-Id"); text != "" {
		if part := jaegerID.FindStringSubmatch(text); part != nil && !zero(part[1]) && !zero(part[2]) {
			return part[1]
		}
	}
	if first(h, "Traceparent") != "" {
		ctx = propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(h))
		if id := trace.SpanContextFromContext(ctx).TraceID(); id.IsValid() {
			return id.String()
		}
	}
	return ""
}

// newTraceID is a UUID of version 4. It is no secret, so that the runtime's generator is good enough.
func (s *scratch) newTraceID() string {
	var id [16]byte
	high, low := rand.Uint64(), rand.Uint64() //nolint:gosec // no secret
	for i := range 8 {
		id[i], id[8+i] = byte(high>>(8*i)), byte(low>>(8*i))
	}
	id[6], id[8] = 0x40|id[6]&0x0f, 0x80|id[8]&0x3f
	const digits = "0123456789abcdef"
	s.bytes = append(s.bytes[:0], "00000000-0000-0000-0000-000000000000"...)
	text, at := s.bytes, 0
	for _, b := range id {
		if text[at] == '-' {
			at++
		}
		text[at], text[at+1] = digits[b>>4], digits[b&0x0f]
		at += 2
	}
	return s.keep(text)
}
