package edge

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/text/language"

	"github.com/ordergate/ordergate/command"
	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/check"
	"github.com/ordergate/ordergate/internal/faults"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/query"
)

// request is one request from its first byte to its logged event. checkRequest fills it; handlers read it. It goes back to a pool when it is
// logged: nobody keeps it.
type request struct {
	server       *Server
	http         *http.Request
	response     *echo.Response
	path         echo.Context // holds the values of the path's parameters
	began        time.Time
	now          time.Time  // the present instant: began, or when the look-up of the key ended
	span         trace.Span // nil: it is not traced
	route        route      // nil: no such path
	op           *operation // nil: no such operation
	traceID      string
	carriesTrace bool // a header of it may have a caller's trace or id
	chinese      bool
	*scratch

	key            *Key // anonymous where the operation is public
	idempotencyKey string
	orderID        order.ID // of the path or, of a new order, of its result
	paymentID      order.ID
	refundID       order.ID
	shipmentID     order.ID
	sku            string
	page           query.Page
	token          token.Token // the response is at least as new
	ifNoneMatch    string
	ifMatch        string
	sent           check.Parameters
	raw            string // the body as it was sent
	bodyRead       bool   // to its end

	fault        faults.Name // that it asked to meet
	tier         string
	problemToken string // the consistency token of a refusal
	retryAfter   int64  // seconds; 0: the least
	code         errcode.Code
	cause        error // of an error response or a stream's last failure, for the log
}

// begin takes a request out of the pool. It makes one line of repeated headers, as RFC 9110 allows, and reads the headers that every response
// needs. An empty header counts as left out, here and wherever one is read.
func (s *Server) begin(hw http.ResponseWriter, hr *http.Request) *request {
	r, _ := s.pool.Get().(*request) // nothing else is there
	r.path.Reset(hr, hw)
	r.http, r.began = hr, s.now()
	r.now = r.began
	h := hr.Header
	for name, lines := range h {
		if len(lines) > 1 {
			h[name] = []string{strings.Join(slices.DeleteFunc(lines, func(line string) bool { return line == "" }), ", ")}
		}
		r.carriesTrace = r.carriesTrace || carriesTrace(name)
	}
	r.chinese = chinese(h)
	if r.carriesTrace {
		r.traceID = givenTraceID(hr.Context(), h)
	}
	if r.traceID == "" {
		r.traceID = r.newTraceID()
	}
	r.trace[0] = r.traceID
	r.response.Header()["X-Trace-Id"] = r.trace[:]
	return r
}

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

// end gives the request back to the pool.
func (s *Server) end(r *request) {
	clear(r.headers) // they hold texts of responses
	r.headers = r.headers[:0]
	*r = s.blank(r.path, r.scratch)
	s.pool.Put(r)
}

// blank is a request before anything is known of it. A list has 20 items by the contract's default.
func (s *Server) blank(path echo.Context, over *scratch) request {
	return request{server: s, path: path, response: path.Response(), key: &anonymous, page: query.Page{Limit: 20}, scratch: over}
}

func (s *Server) newRequest() any {
	return new(s.blank(s.paths.NewContext(nil, nil), new(scratch)))
}

// chinese tells whether Accept-Language prefers simplified Chinese to English.
func chinese(h http.Header) bool {
	accept := first(h, "Accept-Language")
	if accept == "" || len(accept) > 256 || english(accept) {
		return false
	}
	_, i := language.MatchStrings(languages, accept)
	return i == 1
}

// english recognizes without a matcher that no language but English is asked for: "en", "en-US,en;q=0.9".
func english(accept string) bool {
	for tag := range strings.SplitSeq(accept, ",") {
		if tag = strings.TrimSpace(tag); !strings.HasPrefix(tag, "en") || len(tag) > 2 && tag[2] != '-' && tag[2] != ';' {
			return false
		}
	}
	return true
}

var (
	languages = language.NewMatcher([]language.Tag{language.English, language.SimplifiedChinese})
	ownID     = check.MustPattern(`^[A-Za-z0-9-]{1,64}$`)
	jaegerID  = regexp.MustCompile(`^([0-9a-fA-F]{1,32}):([0-9a-fA-F]{1,16}):[0-9a-fA-F]{1,16}:[0-9a-fA-F]{1,2}$`)
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

// first is the value of a header by its canonical name; empty: there is none.
func first(h http.Header, name string) string {
	if lines := h[name]; len(lines) > 0 {
		return lines[0]
	}
	return ""
}

// Parameters implements api.Request.
func (r *request) Parameters() *check.Parameters {
	r.sent.Reset(r.path.ParamValues(), r.http.URL.RawPath != "", r.http.URL.RawQuery, r.http.Header) // without RawPath net/url has decoded the path
	return &r.sent
}

// Checked implements api.Request.
func (r *request) Checked(ctx context.Context) (context.Context, error) {
	if err := r.sent.Err(); err != nil {
		return ctx, err
	}
	if r.fault != "" {
		ctx = r.server.withFault(ctx, r)
	}
	return ctx, nil
}

// The parameters that operations share (api.Shared). An id that is formed as the contract demands may be none of ours: then it is the zero id,
// which nothing has.

// SetOrderID implements api.Shared, as the methods below do.
func (r *request) SetOrderID(value string) bool {
	r.orderID, _ = order.Parse(order.PrefixOrder, value)
	return true
}

func (r *request) SetPaymentID(value string) bool {
	r.paymentID, _ = order.Parse(order.PrefixPayment, value)
	return true
}

func (r *request) SetRefundID(value string) bool {
	r.refundID, _ = order.Parse(order.PrefixRefund, value)
	return true
}

func (r *request) SetShipmentID(value string) bool {
	r.shipmentID, _ = order.Parse(order.PrefixShipment, value)
	return true
}

func (r *request) SetSku(value string) bool {
	r.sku = value
	return true
}

func (r *request) SetLimit(value int32) bool {
	r.page.Limit = int(value)
	return true
}

func (r *request) SetCursor(value string) bool {
	r.page.Cursor = value
	return true
}

func (r *request) SetIfNoneMatch(value string) bool {
	r.ifNoneMatch = value
	return true
}

func (r *request) SetIfMatch(value string) bool {
	r.ifMatch = value
	return true
}

// SetXConsistencyToken is false for a token that is not ours.
func (r *request) SetXConsistencyToken(value string) (ok bool) {
	r.token, ok = r.server.cfg.Signer.Parse(value)
	return ok
}

// envelope is the part of the request that commands see.
func (r *request) envelope() command.Envelope {
	return command.Envelope{Owner: r.key.Owner, Operation: r.op.ID, Key: r.idempotencyKey, IfMatch: r.ifMatch, Problem: r.problemContext(), Actor: r.key.ID}
}

// maxInstance bounds `instance` in bytes.
const maxInstance = 256

// problemContext is the part of a problem that names the request. The instance is the path as it was sent.
func (r *request) problemContext() apierr.ProblemContext {
	path := r.http.URL.EscapedPath()
	if len(path) > maxInstance {
		path = path[:maxInstance]
		if i := strings.LastIndexByte(path, '%'); i > maxInstance-3 { // never cut inside an escape
			path = path[:i]
		}
	}
	return apierr.ProblemContext{TraceID: r.traceID, Instance: path, Chinese: r.chinese}
}

// Decode implements api.Request. The body is read once, into its type, and checked at the same time. An optional body may be left out, be empty or
// be null, which several generated clients send for one that is left out. An api.MergePatch is the body in its canonical form (RFC 8785).
// REQ_001, REQ_002, REQ_004, REQ_008.
func (r *request) Decode(to any) (given bool, err error) {
	if !r.bodyRead {
		if err = r.readBody(); err != nil {
			return false, err
		}
	}
	patch, ok := to.(*api.MergePatch)
	if !ok {
		return check.Decode(r.raw, !r.op.BodyRequired, r.op.Body, to)
	}
	if given, err = check.Decode(r.raw, !r.op.BodyRequired, r.op.Body, nil); given {
		text := jsontext.Value(r.raw)
		err, *patch = text.Canonicalize(), api.MergePatch(text)
	}
	return given, err
}

// MaxBody is the greatest request body in bytes; more is REQ_008.
const MaxBody = 256 << 10

// bodyBuffers hold bodies until they have ended. A body is copied out of its buffer once; all that is decoded shares the copy.
var bodyBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// maxKeptBuffer bounds the buffers that wait in the pool, in bytes.
const maxKeptBuffer = 16 << 10

// readBody reads the body to its end: REQ_008 if it is too large, REQ_001 if the client stops sending.
func (r *request) readBody() error {
	b, _ := bodyBuffers.Get().(*bytes.Buffer)
	b.Reset()
	_, err := b.ReadFrom(http.MaxBytesReader(r.response.Writer, r.http.Body, MaxBody))
	r.raw = b.String()
	if b.Cap() <= maxKeptBuffer {
		bodyBuffers.Put(b)
	}
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return apierr.E(errcode.REQ008)
	}
	if err != nil {
		return apierr.E(errcode.REQ001, apierr.At("", errcode.RuleComplete), apierr.Cause(err))
	}
	r.bodyRead = true
	return nil
}

// emptyBody tells whether a body of unknown length ends at once. It waits at most for lingering; a byte that it reads is lost.
func (r *request) emptyBody() bool {
	conn := http.NewResponseController(r.response.Writer)
	_ = conn.SetReadDeadline(connDeadline(lingering)) // a test's recorder has none
	n, err := r.http.Body.Read(make([]byte, 1))
	_ = conn.SetReadDeadline(time.Time{})
	r.bodyRead = n == 0 && errors.Is(err, io.EOF)
	return r.bodyRead
}

// lingering is the time that the rest of an unread body is read, so that a client which is still sending sees the response.
const lingering = 500 * time.Millisecond
