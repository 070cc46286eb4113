package edge

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/ordergate/ordergate/command"
	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/query"
)

// undeclaredAnswers is the metric of them: code, operation, status.
const undeclaredAnswers = "ordergate_undeclared_answers_total"

// hijackable is a recorder whose connection can be taken.
type hijackable struct{ *httptest.ResponseRecorder }

func (hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	client, server := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, client) }()
	return server, nil, nil
}

// TestOnlyDeclaredAnswers: an answer that the contract does not list for its operation is refused by a strict server, and counted and logged by
// every server.
func TestOnlyDeclaredAnswers(t *testing.T) {
	answer := func(handle handler) []*operation {
		return []*operation{op("answer", "GET", "/answer/:what", handle, answers([]int{200, 304}, errcode.ORD001, errcode.ORD007, errcode.SYS001))}
	}
	stored := func(status int, code errcode.Code) command.Result {
		return command.Result{Status: status, Code: code, ContentType: "application/problem+json", Replayed: true}
	}
	for _, c := range []struct {
		what       string
		status     int
		undeclared string // status and code; empty: it is listed
	}{
		{"200", 200, ""},
		{"304", 304, ""},
		{"ORD_001", 404, ""},
		{"stored ORD_007", 409, ""},
		{"stream", 200, ""},
		{"201", 201, "201 "},
		{"204", 204, "204 "},
		{"409", 409, "409 "}, // a refusal without a code
		{"nothing", 500, "0 "},
		{"ORD_002", 409, "409 ORD_002"},
		{"time is over", 504, "504 SYS_003"},
		{"SYS_002 for another refusal", 503, "503 SYS_002"},
		{"stored 201", 201, "201 "},
		{"stored ORD_002", 409, "409 ORD_002"},
		{"stored ORD_007 as 200", 200, "200 ORD_007"},
		{"stream as 202", 202, "202 "},
	} {
		for _, strict := range []bool{true, false} {
			t.Run(c.what, func(t *testing.T) {
				core, logged := observer.New(zap.InfoLevel)
				s := newServer(Config{
					Log: zap.New(core), Tracer: noop.NewTracerProvider().Tracer(""), Registry: prometheus.NewRegistry(), Strict: strict,
					Signer: token.NewSigner([]byte("k")), Timeline: func() uint32 { return 1 },
				})
				s.register(answer(func(ctx context.Context, r *request) (response, error) {
					plain := map[string]int{"200": 200, "201": 201, "204": 204, "304": 304, "409": 409}
					results := map[string]command.Result{
						"stored 201": stored(201, ""), "stored ORD_002": stored(409, errcode.ORD002), "stored ORD_007": stored(409, errcode.ORD007),
						"stored ORD_007 as 200": stored(200, errcode.ORD007),
					}
					streams := map[string]int{"stream": 200, "stream as 202": 202}
					if status, ok := streams[c.what]; ok {
						read := func(context.Context, int64, token.Token) (query.News, error) { return query.News{Final: true}, nil }
						return response{status: status, stream: &stream{changed: closedChannel(), read: read, leave: func() {}}}, nil
					}
					if result, ok := results[c.what]; ok {
						return s.commandResponse(ctx, r, result, nil, nil)
					}
					if status := plain[c.what]; status > 0 || c.what == "nothing" {
						return response{status: status}, nil
					}
					causes := map[string]error{
						"time is over":                context.DeadlineExceeded,
						"SYS_002 for another refusal": apierr.E(errcode.SYS002, apierr.Cause(apierr.E(errcode.RATE003))),
					}
					if cause := causes[c.what]; cause != nil {
						return response{}, cause
					}
					return response{}, apierr.E(errcode.Code(c.what))
				}))
				w := httptest.NewRecorder()
				s.ServeHTTP(hijackable{w}, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/answer/x", http.NoBody))
				s.following.Wait()
				want := c.status
				if c.undeclared != "" && strict {
					want = 500
				}
				if body := w.Body.String(); w.Code != want || want == 500 && !strings.Contains(body, `"code":"SYS_001"`) || strings.Contains(body, "edge:") {
					t.Errorf("strict %v: %d %s", strict, w.Code, body)
				}
				status, code, _ := strings.Cut(c.undeclared, " ")
				counts, text := samples(t, s, undeclaredAnswers), strings.Builder{}
				for _, e := range logged.All() {
					text.WriteString(e.Level.String() + " ")
					for _, f := range e.Context {
						if err, ok := f.Interface.(error); ok && f.Key == "error" {
							text.WriteString(err.Error())
						}
					}
				}
				switch {
				case c.undeclared == "":
					if len(counts) > 0 || !strings.HasPrefix(text.String(), "info") {
						t.Errorf("strict %v: %v %s", strict, counts, text.String())
					}
				case counts[code+" answer "+status] != 1 || len(counts) != 1 || logged.Len() != 1 || !strings.HasPrefix(text.String(), "error ") ||
					!strings.Contains(text.String(), c.undeclared+" of answer"):
					t.Errorf("strict %v: %v %s", strict, counts, text.String())
				}
			})
		}
	}
	s := newServer(Config{Log: zap.NewNop(), Tracer: noop.NewTracerProvider().Tracer(""), Registry: prometheus.NewRegistry(), Strict: true})
	s.register(answer(finished(0)))
	s.elsewhere.Codes = []errcode.Code{errcode.REQ005}
	for method, status := range map[string]int{http.MethodGet: 404, http.MethodDelete: 404} {
		if w := call(s, method, "/nowhere", ""); w.Code != status {
			t.Errorf("%s of an unknown address: %d", method, w.Code)
		}
	}
	if w := call(s, http.MethodDelete, "/answer/x", ""); w.Code != 500 { // REQ_006 is not listed here
		t.Errorf("an unlisted refusal of the router: %d", w.Code)
	}
	if w := call(s, http.MethodOptions, "/answer/x", ""); w.Code != 204 {
		t.Errorf("OPTIONS: %d", w.Code)
	}
}
