package edge

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/otel/trace"

	"github.com/ordergate/ordergate/command"
	apierr "github.com/ordergate/ordergate/errors"
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
	bodyLate       bool   // its time was over before that: net/http cancels the request's context as if the client had left

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

// first is the value of a header by its canonical name; empty: there is none.
func first(h http.Header, name string) string {
	if lines := h[name]; len(lines) > 0 {
		return lines[0]
	}
	return ""
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
