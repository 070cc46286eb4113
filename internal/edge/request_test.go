package edge

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/contrib/propagators/autoprop"
	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/command"
	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/check"
	"github.com/ordergate/ordergate/internal/panics"
	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/internal/signature"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/query"
)

// op is an operation of a test's own. Its one parameter is If-None-Match.
func op(id, method, path string, handle handler, with ...func(*operation)) *operation {
	o := &operation{Operation: api.Operation[*request, response]{ID: id, Method: method, Path: path, Produces: []string{"application/json"}}}
	o.Handle = func(ctx context.Context, r *request) (response, error) { // as the generated ones do
		sent := r.Parameters()
		for sent.Next() {
			sent.Unknown()
		}
		if v, ok := sent.Header("/header/If-None-Match", "If-None-Match", false).Text(&check.Text{}); ok {
			r.SetIfNoneMatch(v)
		}
		ctx, err := r.Checked(ctx)
		if err != nil {
			return response{}, err
		}
		return handle(ctx, r)
	}
	for _, w := range with {
		w(o)
	}
	return o
}

// answers are the statuses and codes of an operation.
func answers(statuses []int, codes ...errcode.Code) func(*operation) {
	return func(o *operation) { o.Statuses, o.Codes = statuses, codes }
}

// taking is a body of an operation.
func taking(mediaType string, required bool, body check.Body) func(*operation) {
	return func(o *operation) { o.MediaType, o.BodyRequired, o.Body = mediaType, required, body }
}

func streaming(o *operation) { o.Stream = true }

// finished handles each request by one response.
func finished(status int) handler {
	return func(context.Context, *request) (response, error) { return response{status: status}, nil }
}

// smallServer serves operations of the test's own.
func smallServer(t *testing.T, operations ...*operation) *Server {
	t.Helper()
	s := newServer(Config{
		Signer: token.NewSigner([]byte("k")), Timeline: func() uint32 { return 1 }, Log: zap.NewNop(),
		Tracer: noop.NewTracerProvider().Tracer(""), Registry: prometheus.NewRegistry(),
		Auth: NewAuthenticator(nil, nil, 8, map[string]*Key{testKey: {ID: "key_1", Owner: order.Owner{Account: 1, Mode: "test"}, Scopes: []string{"s"}}}, nil, time.Now, nil),
	})
	s.register(operations)
	return s
}

// samples are the values of a metric by the values of its labels; of a histogram the count.
func samples(t testing.TB, s *Server, name string) map[string]float64 {
	t.Helper()
	families, err := s.cfg.Registry.(*prometheus.Registry).Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			if f.GetName() == name {
				found[strings.Join(labels, " ")] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return found
}

func codeOf(w *httptest.ResponseRecorder) string {
	var p struct {
		Code string `json:"code"`
	}
	_ = json.Unmarshal(w.Body.Bytes(), &p)
	return fmt.Sprint(w.Code, " ", p.Code)
}

// A path is the contract's as a whole, whatever the method and with or without a key.
func TestPathsMatchAsAWhole(t *testing.T) {
	s := deadServer(t)
	for _, path := range []string{"/v1/products/LAMP-0001/reviews", "/v1/products/LAMP-0001/", "/v1/errors/PAY_003/", "/v1/inventory/a/b/c", "/v1/products/", "//v1/products", "/"} {
		for _, method := range []string{"GET", "HEAD", "POST", "DELETE", "OPTIONS", "PURGE"} {
			if got := codeOf(call(s, method, path, "", "Authorization", "")); got != "404 REQ_005" {
				t.Errorf("%s %s: %s", method, path, got)
			}
		}
	}
	for method, want := range map[string]string{"PURGE": "405 REQ_006", "OPTIONS": "204 ", "GET": "401 AUTH_001"} {
		if got := codeOf(call(s, method, "/v1/products/LAMP-0001", "", "Authorization", "")); got != want {
			t.Errorf("%s: %s", method, got)
		}
	}
}

// Every GET can be asked by HEAD, and a refusal of the method says so.
func TestAllowNamesHEAD(t *testing.T) {
	s := deadServer(t)
	for _, c := range []struct{ method, path, allow string }{
		{"DELETE", "/v1/products/LAMP-0001", "GET, HEAD, OPTIONS, PATCH"}, {"PUT", "/v1/orders", "GET, HEAD, OPTIONS, POST"},
		{"OPTIONS", "/v1/errors", "GET, HEAD, OPTIONS"}, {"HEAD", "/v1/orders/ord_1/cancel", "OPTIONS, POST"},
	} {
		w := call(s, c.method, c.path, "")
		if got := w.Header().Get("Allow"); got != c.allow {
			t.Errorf("%s %s: Allow is %q", c.method, c.path, got)
		}
		var p struct {
			Allowed []string `json:"allowed"`
		}
		if _ = json.Unmarshal(w.Body.Bytes(), &p); w.Code == 405 && strings.Join(p.Allowed, ", ") != c.allow {
			t.Errorf("%s %s: allowed is %q", c.method, c.path, p.Allowed)
		}
	}
}

// A header that is empty, once or twice, counts as left out: each header parameter of each operation, and those that are none.
func TestAnEmptyHeaderCountsAsLeftOut(t *testing.T) {
	s := deadServer(t)
	key := &Key{ID: "key_1", Owner: order.Owner{Account: 1, Mode: "test"}}
	for _, byMethod := range s.routes {
		for _, o := range byMethod {
			if o != nil {
				key.Scopes = append(key.Scopes, o.Scopes...)
			}
		}
	}
	s.cfg.Auth = NewAuthenticator(nil, nil, 8, map[string]*Key{testKey: key}, nil, time.Now, nil)
	id := strings.Repeat("0", 32)
	path := strings.NewReplacer(":order_id", "ord_"+id, ":payment_id", "pay_"+id, ":refund_id", "ref_"+id, ":shipment_id", "shp_"+id,
		":sku", "A", ":code", "PAY_003", ":provider", "psp")
	send := func(o *operation, header string, lines ...string) string {
		r := httptest.NewRequest(o.Method, path.Replace(o.Path), strings.NewReader("{}"))
		for name, value := range map[string]string{"Authorization": "Bearer " + testKey, "Content-Type": o.MediaType, "Idempotency-Key": "12345678"} {
			if value != "" && name != header {
				r.Header.Set(name, value)
			}
		}
		for _, line := range lines {
			r.Header.Add(header, line)
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		return codeOf(w)
	}
	for _, byMethod := range s.routes {
		for method, o := range byMethod {
			if o == nil || method != o.Method {
				continue
			}
			headers := strings.Fields("Accept Authorization Content-Type Content-Encoding Traceparent Uber-Trace-Id " + signature.Header)
			headers = append(headers, api.RequestHeaders...)
			for _, header := range headers {
				want := send(o, header)
				if one, two := send(o, header, ""), send(o, header, "", ""); one != want || two != want {
					t.Errorf("%s: without %s %s, with an empty one %s, with two %s", o.ID, header, want, one, two)
				}
			}
		}
	}
}

func TestMediaTypesHaveNoCase(t *testing.T) {
	s := deadServer(t)
	for accept, want := range map[string]string{
		"Application/JSON": "200 ", "APPLICATION/*": "200 ", "text/html, Application/Json;q=0.1": "200 ", "application/problem+json": "200 ",
		"application/yaml": "406 REQ_007", "Application/JSON;Q=0": "406 REQ_007",
	} {
		if got := codeOf(call(s, "GET", "/v1/errors", "", "Accept", accept)); got != want {
			t.Errorf("Accept %s: %s", accept, got)
		}
	}
	for contentType, want := range map[string]string{"Application/JSON; Charset=UTF-8": "503 SYS_002", "Application/XML": "415 REQ_009"} {
		if got := codeOf(call(s, "POST", "/v1/orders", goodOrder, "Content-Type", contentType)); got != want {
			t.Errorf("Content-Type %s: %s", contentType, got)
		}
	}
}

// withBodies serves an operation whose body may be left out, and one whose body may not.
func withBodies(t *testing.T) *Server {
	t.Helper()
	return smallServer(t,
		op("optional", "POST", "/optional", decoder, taking("application/json", false, anObject)),
		op("required", "POST", "/required", decoder, taking("application/json", true, anObject)),
	)
}

// anObject is the body {"type":"object","properties":{"at":{"type":"string","format":"date-time"}}}.
func anObject(r *check.Reader, _ any) {
	o := r.Object(check.NotNull)
	for o.Next() {
		if o.Name == "at" {
			o.Known(0)
			r.Text(&check.Text{DateTime: true})
		} else {
			o.Ignore()
		}
	}
}

func decoder(_ context.Context, r *request) (response, error) {
	var body map[string]any
	given, err := r.Decode(&body)
	r.add("X-Given", strconv.FormatBool(given))
	return response{status: 200, contentType: "text/plain"}, err
}

// An optional body may be left out, in every way that clients do that.
func TestOptionalBodies(t *testing.T) {
	server := httptest.NewServer(withBodies(t))
	defer server.Close()
	chunked := func(body string) io.Reader { return io.MultiReader(strings.NewReader(body)) } // of unknown length
	for _, c := range []struct {
		name, path, contentType string
		body                    io.Reader
		status                  int
		given                   string
	}{
		{"no body", "/optional", "", nil, 200, "false"},
		{"chunked without bytes or type", "/optional", "", chunked(""), 200, "false"},
		{"chunked without bytes, of another type", "/optional", "text/plain", chunked(""), 200, "false"},
		{"chunked without bytes", "/optional", "application/json", chunked(""), 200, "false"},
		{"null", "/optional", "application/json", strings.NewReader("null"), 200, "false"},
		{"null, chunked, with spaces", "/optional", "application/json", chunked(" null\n"), 200, "false"},
		{"an object", "/optional", "application/json", chunked("{}"), 200, "true"},
		{"chunked without type", "/optional", "", chunked("{}"), 415, ""},
		{"a number", "/optional", "application/json", chunked("7"), 400, ""},
		{"null where one is required", "/required", "application/json", strings.NewReader("null"), 400, ""},
		{"chunked without bytes where one is required", "/required", "", chunked(""), 400, ""},
	} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+c.path, c.body)
		if c.contentType != "" {
			req.Header.Set("Content-Type", c.contentType)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != c.status || res.Header.Get("X-Given") != c.given {
			t.Errorf("%s: %d, given: %q", c.name, res.StatusCode, res.Header.Get("X-Given"))
		}
	}
}

// A PATCH takes a merge patch and nothing else, and its handler sees which members are null and which are left out.
func TestAPatchIsAMergePatch(t *testing.T) {
	const mergePatch = "application/merge-patch+json"
	s := smallServer(t, op("patch", "PATCH", "/things/:name", func(_ context.Context, r *request) (response, error) {
		var patch api.MergePatch
		_, err := r.Decode(&patch)
		return response{status: 200, contentType: "application/json", body: string(patch)}, err
	}, taking(mergePatch, true, func(r *check.Reader, _ any) {
		o := r.Object(check.NotNull)
		for o.Next() {
			switch o.Name {
			case "n":
				o.Known(0)
				r.Integer(&check.Integer{Null: true, Max: 9})
			case "o":
				o.Known(1)
				r.Integer(&check.Integer{Max: 9})
			default:
				o.Unknown()
			}
		}
	})))
	for _, c := range []struct{ body, contentType, want string }{
		{`{}`, mergePatch, `200 {}`},
		{`{"n":null}`, mergePatch + "; charset=utf-8", `200 {"n":null}`},
		{`{"n":2.0, "o":3e0}`, "Application/Merge-Patch+JSON", `200 {"n":2,"o":3}`},
		{`{"o":null}`, mergePatch, `400 REQ_002`},
		{`{"p":1}`, mergePatch, `400 REQ_004`},
		{`[]`, mergePatch, `400 REQ_002`},
		{`null`, mergePatch, `400 REQ_002`},
		{`{"n":1,"n":2}`, mergePatch, `400 REQ_001`},
		{``, mergePatch, `400 REQ_001`},
		{`{}`, "application/json", `415 REQ_009`},
		{`{}`, "", `415 REQ_009`},
		{`{}`, mergePatch + "; charset=utf-16", `415 REQ_009`},
	} {
		w := call(s, "PATCH", "/things/a", c.body, "Content-Type", c.contentType)
		got := codeOf(w)
		if w.Code == http.StatusOK {
			got = "200 " + w.Body.String()
		}
		if got != c.want || (w.Header().Get("Accept-Patch") == mergePatch) != (w.Code == http.StatusUnsupportedMediaType) {
			t.Errorf("%s as %q: %s, Accept-Patch %q", c.body, c.contentType, got, w.Header().Get("Accept-Patch"))
		}
	}
	if got := codeOf(call(s, "PATCH", "/things/a", "{}", "Content-Type", mergePatch, "Content-Encoding", "gzip")); got != "415 REQ_009" {
		t.Error(got)
	}
}

// Times are RFC 3339 strictly, in bodies as in parameters.
func TestTimesAreStrict(t *testing.T) {
	s := withBodies(t)
	for at, good := range map[string]bool{
		"2026-11-26T07:10:13Z": true, "2026-11-26t00:00:00z": true, "2026-11-26T00:00:00.1234567%2B08:00": true, "0001-01-01T00:00:00Z": true,
		"2026-11-26T7:10:13Z": false, "2026-11-26T07:10:13,5Z": false, "2026-11-26T07:10:13%2B24:00": false, "2026-11-26 07:10:13Z": false,
	} {
		plain := strings.ReplaceAll(at, "%2B", "+")
		if got := codeOf(call(s, "POST", "/required", `{"at":"`+plain+`"}`)); (got == "200 ") != good || !good && got != "400 REQ_002" {
			t.Errorf("%s in a body: %s", plain, got)
		}
	}
}

func TestInstanceIsThePathAsItWasSent(t *testing.T) {
	s := deadServer(t)
	long := "/v1/errors/" + strings.Repeat("%C3%A9", 60)
	for sent, want := range map[string]string{
		"/v1/products/a%20b": "/v1/products/a%20b", "/v1/products/a%2Fb": "/v1/products/a%2Fb", "/v1/%e9?x=1": "/v1/%e9",
		long: long[:254], "/v1/errors/x" + long[11:]: "/v1/errors/x" + long[11:254], "/v1/errors/xy" + long[11:]: "/v1/errors/xy" + long[11:254],
	} {
		var p struct {
			Instance string `json:"instance"`
		}
		if w := call(s, "GET", sent, ""); json.Unmarshal(w.Body.Bytes(), &p) != nil || p.Instance != want {
			t.Errorf("%s: instance %s", sent, p.Instance)
		}
	}
}

// A value of a path is decoded once.
func TestPathsAreDecodedOnce(t *testing.T) {
	s := smallServer(t, op("get", "GET", "/things/:name", func(_ context.Context, r *request) (response, error) {
		name, _ := r.sent.Path("/path/name", 0).Text(&check.Text{})
		r.add("X-Name", name)
		return response{status: 200}, nil
	}))
	for sent, want := range map[string]string{
		"LAMP%2D0001": "LAMP-0001", "LAMP%252D0001": "LAMP%2D0001", "a%2Fb%252F": "a/b%2F", "%2525": "%25", "%C3%A9": "é", "a+b": "a+b",
	} {
		if got := call(s, "GET", "/things/"+sent, "").Header().Get("X-Name"); got != want {
			t.Errorf("%s: %q", sent, got)
		}
	}
	if got := codeOf(call(deadServer(t), "GET", "/v1/errors/PAY_00%2533", "")); got != "400 REQ_003" {
		t.Errorf("a code decoded twice: %s", got)
	}
}

func TestMessagesInChinese(t *testing.T) {
	s := deadServer(t)
	for _, c := range []struct {
		accept  []string
		chinese bool
	}{
		{[]string{"zh-CN"}, true}, {[]string{"zh"}, true}, {[]string{"de, zh-CN;q=0.5"}, true}, {[]string{"fr;q=0.5", "zh-CN"}, true},
		{[]string{"en"}, false}, {nil, false}, {[]string{"nonsense;;;"}, false}, {[]string{"zh;q=0.1", "en"}, false},
	} {
		r := httptest.NewRequest(http.MethodGet, "/v1/nothing", http.NoBody)
		r.Header["Accept-Language"] = c.accept
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if chinese := strings.ContainsFunc(w.Body.String(), func(r rune) bool { return r > 0x4e00 && r < 0x9fff }); chinese != c.chinese {
			t.Errorf("%q gets %s", c.accept, w.Body)
		}
	}
}

// No propagator that can be configured is overlooked.
func TestEveryPropagatorIsAsked(t *testing.T) {
	for _, name := range []string{"tracecontext", "baggage", "b3", "b3multi", "jaeger", "xray", "ottrace"} {
		p, err := autoprop.TextMapPropagator(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, field := range p.Fields() {
			if !carriesTrace(http.CanonicalHeaderKey(field)) {
				t.Errorf("%s: %s", name, field)
			}
		}
	}
}

// The caller's trace id is kept where its header is valid by its own standard.
func TestTraceID(t *testing.T) {
	const id, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	zeros := strings.Repeat("0", 32)
	for _, c := range []struct{ name, header, value, want string }{
		{"the caller's own", "X-Trace-ID", "checkout-1", "checkout-1"},
		{"a bad one", "X-Trace-ID", "a b\tc", ""},
		{"an underscore", "X-Trace-ID", "my_trace", ""},
		{"a dot", "X-Trace-ID", "a.b", ""},
		{"64 characters", "X-Trace-ID", strings.Repeat("Z", 64), strings.Repeat("Z", 64)},
		{"300 characters", "X-Trace-ID", strings.Repeat("a", 300), ""},
		{"Jaeger's", "Uber-Trace-Id", "4bf92f3577b34da6:1:0:1", "4bf92f3577b34da6"},
		{"Jaeger's of zeros", "Uber-Trace-Id", "0000:1:0:1", ""},
		{"Jaeger's without a span", "Uber-Trace-Id", "4bf92f3577b34da6:0:0:1", ""},
		{"Jaeger's in three parts", "Uber-Trace-Id", "4bf92f3577b34da6:1:0", ""},
		{"Jaeger's that is no number", "Uber-Trace-Id", "checkout:1:0:1", ""},
		{"W3C's", "Traceparent", "00-" + id + "-" + span + "-01", id},
		{"W3C's of a later version", "Traceparent", "cc-" + id + "-" + span + "-01-what-comes", id},
		{"W3C's of zeros", "Traceparent", "00-" + zeros + "-0000000000000000-01", ""},
		{"W3C's without a parent", "Traceparent", "00-" + id + "-0000000000000000-01", ""},
		{"W3C's in capitals", "Traceparent", "00-" + strings.ToUpper(id) + "-" + span + "-01", ""},
		{"W3C's of version ff", "Traceparent", "ff-" + id + "-" + span + "-01", ""},
		{"W3C's with a tail", "Traceparent", "00-" + id + "-" + span + "-01-x", ""},
		{"W3C's cut", "Traceparent", "00-" + id + "-" + span, ""},
	} {
		got := call(deadServer(t), "GET", "/v1/errors", "", c.header, c.value).Header().Get("X-Trace-ID")
		if c.want != "" && got != c.want || c.want == "" && len(got) != 36 {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

func TestPrefer(t *testing.T) {
	for header, want := range map[string]time.Duration{
		"wait=5": 5 * time.Second, "respond-async, wait=3": 3 * time.Second, `WAIT="2"; x=y`: 2 * time.Second, "wait=99": 10 * time.Second,
		"wait=-1": 0, "wait": 0, "wait=x": 0, "": 0, "wait=1, wait=9": time.Second, "wait=99999999999999999999": 0,
		`foo="a, wait=9"`: 0, `foo="a, wait=9", wait=4`: 4 * time.Second, `foo="a\", wait=9"`: 0, `foo="a;b", wait=4`: 4 * time.Second,
		`foo="never closed, wait=9`: 0, `foo; bar="x, wait=8", wait=2`: 2 * time.Second, strings.Repeat("rubbish ,;=\\", 2000): 0,
	} {
		if got, _ := waitOf(header); got != want {
			t.Errorf("%q waits %v", header, got)
		}
	}
	if got := codeOf(call(deadServer(t), "POST", "/v1/orders", goodOrder, "Prefer", strings.Repeat("x", 5000))); got != "503 SYS_002" {
		t.Errorf("rubbish is not ignored: %s", got)
	}
}

func TestIdempotencyKeysAreEightTo255Characters(t *testing.T) {
	n := func(n int) string { return strings.Repeat("k", n) }
	for key, want := range map[string]string{
		n(7): "400 IDEM_004", n(8): "503 SYS_002", n(255): "503 SYS_002", n(256): "400 IDEM_004", "12 45678": "400 IDEM_004",
		`"` + n(7) + `"`: "400 IDEM_004", `"` + n(8) + `"`: "503 SYS_002", `"` + n(255) + `"`: "503 SYS_002", `"` + n(256) + `"`: "400 IDEM_004",
		`"` + n(8): "400 IDEM_004", `""` + n(8) + `""`: "400 IDEM_004", "": "400 IDEM_001",
	} {
		if got := codeOf(call(deadServer(t), "POST", "/v1/orders", goodOrder, "Idempotency-Key", key)); got != want {
			t.Errorf("%d characters, %.12s: %s", len(key), key, got)
		}
	}
}

// Browsers of allowed origins may send every header that the contract or a tracing standard names, and read every header of ours.
func TestCORS(t *testing.T) {
	s := deadServer(t)
	s.cfg.Origins = []string{"https://shop.example"}
	for origin, allowed := range map[string]string{"": "", "https://other.example": "", "https://shop.example": "https://shop.example"} {
		for _, path := range []string{"/v1/errors", "/v1/orders", "/v1/nothing"} { // 200, 403, 404
			h := call(s, "GET", path, "", "Origin", origin).Header()
			if h.Get("Vary") != "Origin" || h.Get("Access-Control-Allow-Origin") != allowed {
				t.Errorf("%s from %q: %v", path, origin, h)
			}
		}
	}
	w := call(s, "OPTIONS", "/v1/orders", "", "Authorization", "", "Origin", "https://shop.example", "Access-Control-Request-Method", "POST")
	for header, names := range map[string]string{
		"Access-Control-Allow-Methods":  "GET, HEAD, POST",
		"Access-Control-Allow-Headers":  "Authorization, Content-Type, Idempotency-Key, If-None-Match, Prefer, X-Consistency-Token, X-Trace-ID, traceparent, tracestate, baggage, uber-trace-id, b3, X-B3-TraceId",
		"Access-Control-Expose-Headers": "Age, Allow, ETag, Idempotency-Replayed, Location, Preference-Applied, Retry-After, WWW-Authenticate, X-Consistency-Token, X-Served-By, X-Trace-ID",
	} {
		for name := range strings.SplitSeq(names, ", ") {
			if got := ", " + w.Header().Get(header) + ", "; w.Code != 204 || !strings.Contains(got, ", "+name+", ") {
				t.Errorf("%d, %s lacks %s: %s", w.Code, header, name, got)
			}
		}
	}
	s.cfg.Origins = []string{Localhost}
	for origin, allowed := range map[string]bool{
		"http://localhost:5173": true, "http://127.0.0.1:3000": true, "https://[::1]": true, "http://localhost": true, "http://127.0.0.2:3000": true,
		"http://localhost.shop.example": false, "http://localhost/": false, "http://localhost#.shop.example": false, "http://shop.example@localhost": false, "http://shop.example": false, "null": false,
		"ftp://localhost": false, "javascript://localhost": false, "chrome-extension://localhost": false, "http://localhost:": false,
	} {
		if got := call(s, "GET", "/v1/errors", "", "Origin", origin).Header().Get("Access-Control-Allow-Origin"); (got == origin) != allowed {
			t.Errorf("a page of %s: %q", origin, got)
		}
	}
	if h := call(deadServer(t), "GET", "/v1/errors", "", "Origin", "https://shop.example").Header(); h.Get("Vary") != "" {
		t.Error("Vary without origins")
	}
}

// A server for this machine alone knows no other host but those of its allowed origins, and leaves no page to one.
func TestForeignHostsAreRefused(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	s := deadServer(t)
	s.cfg.LocalOnly, s.cfg.Origins = true, []string{Localhost, "https://shop.example:8443"}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		done <- s.Serve(ctx, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // a page in front of the API
			if r.URL.Path != "/page" {
				s.ServeHTTP(w, r)
			}
		}), 0)
	}()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for host, served := range map[string]bool{
		"localhost:8080": true, "127.0.0.1:8080": true, "[::1]": true, "LOCALHOST": true, "shop.example:8443": true, "127.0.0.2:8080": true, "127.255.255.254": true, "[::ffff:127.0.0.1]:8080": true,
		"shop.example": false, "localhost.shop.example:8080": false, "127.0.0.1.shop.example": false, "192.0.2.1:8080": false, "0.0.0.0:8080": false, "[::]:8080": false,
	} {
		for _, path := range []string{"/v1/errors", "/page"} {
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.Addr().String()+path, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = host
			w, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(w.Body)
			_ = w.Body.Close()
			if (w.StatusCode == http.StatusOK) != served || !served && (w.StatusCode != http.StatusNotFound || !strings.Contains(string(body), `"code":"REQ_005"`)) {
				t.Errorf("%s of %s: %d %s", path, host, w.StatusCode, body[:min(len(body), 200)])
			}
		}
	}
	s.cfg.LocalOnly = false
	if s.foreignHost("shop.example") {
		t.Error("a server for everybody refuses a host")
	}
}

// A request that is refused before its body is read gets its response without a wait for the body, and the connection ends.
func TestRefusalsDoNotWaitForTheBody(t *testing.T) {
	server := httptest.NewServer(deadServer(t)) // without a read time-out: who waits for the body, waits for ever
	t.Cleanup(server.Close)
	const auth, key = "Authorization: Bearer " + testKey + "\r\n", "Idempotency-Key: 12345678\r\n"
	const five, json = "Content-Length: 5000\r\n", "Content-Type: application/json\r\n"
	for _, c := range []struct{ name, line, headers, want string }{
		{"no key", "POST /v1/orders", five + json, "401"},
		{"no such path", "POST /v1/nothing", five, "404"},
		{"no such method", "DELETE /v1/orders", five, "405"},
		{"too large", "POST /v1/orders", "Content-Length: 5000000\r\n" + json, "413"},
		{"a missing scope", "GET /v1/orders", five + auth, "403"},
		{"nothing acceptable", "POST /v1/orders", five + auth + json + "Accept: text/html\r\n", "406"},
		{"a wrong media type", "POST /v1/orders", five + auth + "Content-Type: text/plain\r\n", "415"},
		{"a wrong media type, chunked", "POST /v1/orders", "Transfer-Encoding: chunked\r\n" + auth, "415"},
		{"no idempotency key", "POST /v1/orders", five + auth + json, "400"},
		{"a bad parameter", "POST /v1/orders?x=1", five + auth + json + key, "400"},
		{"a body of a GET", "GET /v1/errors", five, "200"},
		{"a body of OPTIONS", "OPTIONS /v1/errors", five, "204"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: x\r\n%s\r\n", c.line, c.headers)
			if !strings.Contains(c.headers, "chunked") { // that client sends nothing at all
				fmt.Fprint(conn, "{")
			}
			sent, from := time.Now(), bufio.NewReader(conn)
			res, err := http.ReadResponse(from, nil)
			if err != nil {
				t.Fatal(err)
			}
			responded := time.Now()
			_, _ = io.Copy(io.Discard, res.Body)
			if _, err = from.ReadByte(); !strings.HasPrefix(res.Status, c.want) || !errors.Is(err, io.EOF) {
				t.Errorf("%s, then %v", res.Status, err)
			}
			if took, lingered := responded.Sub(sent), time.Since(responded); strings.HasPrefix(c.headers, five) && took > lingered {
				t.Errorf("the response took %v, as long as the body was waited for; the connection ended %v later", took, lingered)
			}
		})
	}
}

// Waiting requests are counted, and get the accepted result as soon as the server stops.
func TestStoppingEndsWaits(t *testing.T) {
	s := deadServer(t)
	r := &request{http: httptest.NewRequest(http.MethodPost, "/v1/orders", http.NoBody), key: &Key{}, op: &operation{}, scratch: new(scratch)}
	r.http.Header.Set("Prefer", "wait=10")
	waits := make(chan struct{})
	done := make(chan response)
	go func() {
		w, _ := s.commandResponse(t.Context(), r, command.Result{Status: 202}, nil, func(ctx context.Context, _ command.Envelope, accepted command.Result, _ time.Duration) command.Result {
			close(waits)
			<-ctx.Done()
			return accepted
		})
		done <- w
	}()
	<-waits
	if n := samples(t, s, "ordergate_waiting_requests")[""]; n != 1 {
		t.Errorf("%v requests wait", n)
	}
	s.stop()
	select {
	case w := <-done:
		if w.status != 202 {
			t.Error(w.status)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the wait goes on")
	}
	if n := samples(t, s, "ordergate_waiting_requests")[""]; n != 0 {
		t.Errorf("%v requests still wait", n)
	}
}

// A refusal of a read says how new the data is that it comes from, and is counted by its code.
func TestRefusalsOfReadsCarryATokenAndAreCounted(t *testing.T) {
	s := smallServer(t, op("get", "GET", "/thing", func(_ context.Context, r *request) (response, error) {
		return r.queryResponse(query.View{Token: "1.x", Tier: "replica"}, apierr.E(errcode.ORD001))
	}))
	w := call(s, "GET", "/thing", "")
	if h := w.Header(); w.Code != 404 || h.Get("X-Consistency-Token") != "1.x" || h.Get("X-Served-By") != "replica" {
		t.Errorf("%d %v", w.Code, h)
	}
	if n := samples(t, s, "ordergate_refusals_total")["ORD_001"]; n != 1 {
		t.Errorf("%v refusals", n)
	}
}

// A histogram has a dozen series: an operation has one for each class of statuses, however many statuses it answers.
func TestRequestsAreCountedByClassesOfStatuses(t *testing.T) {
	results := []error{nil, apierr.E(errcode.ORD001), apierr.E(errcode.ORD002), apierr.E(errcode.INV006), apierr.E(errcode.SYS002), apierr.E(errcode.SYS003)}
	next := 0
	s := smallServer(t, op("get", "GET", "/thing", func(context.Context, *request) (response, error) {
		next++
		return response{status: 200}, results[next-1]
	}, answers([]int{200, 202})))
	for range results {
		call(s, "GET", "/thing", "")
	}
	if got := samples(t, s, "ordergate_request_seconds"); got["get 2xx"] != 1 || got["get 4xx"] != 3 || got["get 5xx"] != 2 || len(got) != 3 {
		t.Errorf("requests: %v", got)
	}
}

// The first bucket of requests has those that the LRU answers and no others.
func TestTheFirstBucketIsTheLRU(t *testing.T) {
	s := smallServer(t, op("get", "GET", "/thing", finished(200), answers([]int{200})))
	call(s, "GET", "/thing", "")
	families, err := s.cfg.Registry.(*prometheus.Registry).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "ordergate_request_seconds" {
			if first := f.GetMetric()[0].GetHistogram().GetBucket()[0].GetUpperBound(); first != 0.0005 {
				t.Errorf("the first bucket ends at %v s", first)
			}
		}
	}
}

// No HEAD asks for a stream.
func TestHEADOfAStream(t *testing.T) {
	s := smallServer(t, op("events", "GET", "/events", finished(200), streaming), op("document", "GET", "/document", finished(200)))
	for path, want := range map[string]string{"/events": "405 REQ_006", "/document": "200 "} {
		w := call(s, http.MethodHead, path, "")
		if allow := w.Header().Get("Allow"); codeOf(w) != want || path == "/events" && allow != "GET, OPTIONS" {
			t.Errorf("HEAD %s: %s, Allow %s", path, codeOf(w), allow)
		}
	}
}

// A provider's signature over the bytes as they were sent stands in place of a key, and is checked before anything but the size.
func TestSignedBodies(t *testing.T) {
	type callback struct{ ID string }
	taken := 0
	s := smallServer(t, op("callback", "POST", "/callbacks/:provider", func(_ context.Context, r *request) (response, error) {
		var body callback
		_, err := r.Decode(&body)
		if err == nil && body.ID == "e1" {
			taken++
		}
		return response{status: http.StatusNoContent}, err
	}, answers([]int{204}), taking("application/json", true, func(r *check.Reader, to any) {
		body := check.As[callback](to)
		o := r.Object(check.NotNull)
		for o.Next() {
			if o.Name != "id" {
				o.Ignore()
				continue
			}
			o.Known(0)
			body.ID, _ = r.Text(&check.Text{})
		}
		o.Required("id")
	}), func(o *operation) { o.Signed = true }))
	const secret, sent, header = "shared", `{ "id" : "e1", "more": 1 }`, signature.Header
	s.cfg.ProviderSecrets = map[string]string{"psp": secret, "none": ""}
	now := time.Now()
	sign := func(secret, body string, at time.Time) string { return signature.Sign(secret, at, []byte(body)) }
	good := sign(secret, sent, now)
	for name, c := range map[string]struct {
		path, body, signature string
		headers               []string
		want                  string
	}{
		"signed":                        {"psp", sent, good, nil, "204 "},
		"accepts JSON":                  {"psp", sent, good, []string{"Accept", "application/json"}, "204 "},
		"4 minutes old":                 {"psp", sent, sign(secret, sent, now.Add(-4*time.Minute)), nil, "204 "},
		"4 minutes ahead":               {"psp", sent, sign(secret, sent, now.Add(4*time.Minute)), nil, "204 "},
		"6 minutes old":                 {"psp", sent, sign(secret, sent, now.Add(-6*time.Minute)), nil, "401 AUTH_007"},
		"6 minutes ahead":               {"psp", sent, sign(secret, sent, now.Add(6*time.Minute)), nil, "401 AUTH_007"},
		"not signed":                    {"psp", sent, "", nil, "401 AUTH_007"},
		"not signed, wrong in all":      {"psp", "broken", "", []string{"Accept", "image/png", "Content-Type", "text/plain"}, "401 AUTH_007"},
		"rubbish":                       {"psp", sent, "t=x,v1=y", nil, "401 AUTH_007"},
		"another secret":                {"psp", sent, sign("other", sent, now), nil, "401 AUTH_007"},
		"other bytes of the same JSON":  {"psp", `{"id":"e1","more":1}`, good, nil, "401 AUTH_007"},
		"no secret":                     {"none", sent, sign("", sent, now), nil, "401 AUTH_007"},
		"no such provider":              {"other", sent, good, nil, "404 REQ_005"},
		"signed, and not JSON":          {"psp", "broken", sign(secret, "broken", now), nil, "400 REQ_001"},
		"signed, and nothing":           {"psp", "", sign(secret, "", now), nil, "400 REQ_001"},
		"signed, and not by the schema": {"psp", "{}", sign(secret, "{}", now), nil, "400 REQ_002"},
		"signed, of another type":       {"psp", sent, good, []string{"Content-Type", "text/plain"}, "415 REQ_009"},
		"signed, wants an image":        {"psp", sent, good, []string{"Accept", "image/png"}, "406 REQ_007"},
		"signed, too large":             {"psp", strings.Repeat(" ", MaxBody) + sent, good, nil, "413 REQ_008"},
	} {
		before, want := taken, 0
		w := call(s, "POST", "/callbacks/"+c.path, c.body, append([]string{header, c.signature, "Authorization", ""}, c.headers...)...)
		if codeOf(w) != c.want {
			t.Errorf("%s: %s, want %s", name, codeOf(w), c.want)
		}
		if c.want == "204 " {
			want = 1
		}
		if taken-before != want {
			t.Errorf("%s: taken %d times", name, taken-before)
		}
		if w.Code == http.StatusUnauthorized && w.Header().Get("WWW-Authenticate") != `Signature realm="ordergate"` {
			t.Errorf("%s: WWW-Authenticate is %q", name, w.Header().Get("WWW-Authenticate"))
		}
	}
	chunked := httptest.NewRequest(http.MethodPost, "/callbacks/psp", io.MultiReader(strings.NewReader(sent)))
	chunked.Header.Set(header, good)
	chunked.Header.Set("Content-Type", "text/plain")
	w := httptest.NewRecorder()
	if s.ServeHTTP(w, chunked); codeOf(w) != "415 REQ_009" {
		t.Errorf("chunked, of another type: %s", codeOf(w))
	}
}

// TestADeprecatedOperationSaysItsEnd: each of its answers does, refusals too; other operations' do not.
func TestADeprecatedOperationSaysItsEnd(t *testing.T) {
	s := smallServer(t, op("old", "GET", "/old", finished(200), func(o *operation) {
		o.Headers = []string{"Deprecation", "@1798761600", "Sunset", "Fri, 31 Dec 2027 23:59:59 GMT"}
	}), op("new", "GET", "/new", finished(200)))
	for path, want := range map[string][2]string{
		"/old": {"@1798761600", "Fri, 31 Dec 2027 23:59:59 GMT"}, "/old?x=1": {"@1798761600", "Fri, 31 Dec 2027 23:59:59 GMT"}, "/new": {}, "/new?x=1": {},
	} {
		h := call(s, http.MethodGet, path, "").Header()
		if got := [2]string{h.Get("Deprecation"), h.Get("Sunset")}; got != want {
			t.Errorf("%s: %q", path, got)
		}
	}
}

// TestOneClock: Config.Now alone decides how old a signature is, what is in the future, and how long a stream goes on.
func TestOneClock(t *testing.T) {
	t.Parallel()
	s := deadServer(t)
	now := time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)
	s.now = func() time.Time { return now }
	s.cfg.ProviderSecrets = map[string]string{"psp": "shared"}
	const sent = "broken"
	for at, want := range map[time.Time]string{now: "400 REQ_001", time.Now(): "401 AUTH_007"} {
		if got := codeOf(call(s, "POST", "/v1/provider-callbacks/psp", sent, signature.Header, signature.Sign("shared", at, []byte(sent)))); got != want {
			t.Errorf("signed at %v: %s", at, got)
		}
	}
	for at, future := range map[time.Time]bool{now: false, now.Add(time.Second): true} {
		r := s.begin(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/v1/orders/ord_1", http.NoBody))
		err := panics.Catch(func() error { // there is nothing to read from
			_, err := handlers{s}.GetOrder(t.Context(), r, api.GetOrderParams{AsOf: new(rfc3339.New(at))})
			return err
		})
		if got := apierr.From(err).Code == errcode.REQ003; got != future {
			t.Errorf("as of %v: %v", at, err)
		}
	}
	read := func(context.Context, int64, token.Token) (query.News, error) {
		now = now.Add(streamFor)
		return query.News{More: true}, nil
	}
	client, server := net.Pipe()
	go io.Copy(io.Discard, client)
	st := &stream{conn: server, read: read, news: query.News{More: true}}
	if ended, err := s.follow(t.Context(), st); !ended || err != nil {
		t.Errorf("the stream ends by itself: %v, %v", ended, err)
	}
	server.Close()
	client.Close()
}

// A 304 needs a list of tags that has the present one, or "*" alone, as RFC 9110 has them.
func TestIfNoneMatch(t *testing.T) {
	for list, want := range map[string]bool{
		`"3-9f"`: true, `W/"3-9f"`: true, `*`: true, `"a", "3-9f"`: true, `"a","3-9f"`: true, ` , "a" ,, "3-9f" ,`: true, "\t\"3-9f\"\t": true, `"a,b", "3-9f"`: true, `"", "3-9f"`: true, `"3-9f", "a`: true,
		`"other"`: false, `W/*`: false, `W/ *`: false, `*, *`: false, `*,`: false, `"a", *`: false, `*, "3-9f"`: false, `"*"`: false, `3-9f`: false, `w/"3-9f"`: false, `W/ "3-9f"`: false, `W/W/"3-9f"`: false,
		`W/`: false, `,`: false, `,,`: false, `"`: false, `"a`: false, `"3-9f`: false, `"3-9f"x`: false, `"3-9f""b"`: false, `x"3-9f"`: false, `"a,"3-9f",b"`: false, `"a" "3-9f"`: false, `"x, "3-9f"`: false, ` `: false,
	} {
		if got := namesTag(list, `"3-9f"`); got != want {
			t.Errorf("If-None-Match: %s: %v, want %v", list, got, want)
		}
	}
	if namesTag(`"a", W/, ""`, "") {
		t.Error("a response without a tag has one")
	}
}

// Prefer is read as these expressions read it, which take 100 times as long for 32 KB.
func TestPreferIsReadAsExpressionsReadIt(t *testing.T) {
	quoted, hide := regexp.MustCompile(`"(?:\\.|[^"\\])*"?`), strings.NewReplacer(",", " ", ";", " ")
	preference := regexp.MustCompile(`(?i)(?:^|,)\s*wait\s*(?:=([^,;]*))?(?:[,;]|$)`)
	pieces := []string{"wait", "WAIT", "=", "5", "=5", ",", ";", `"`, `\`, " ", "\t", "a", "=\"7\"", "wait=3", ", wait", "é", "\xff", "x=", `","`, "99999999999", "-"}
	rng, found := rand.New(rand.NewPCG(1, 1)), 0
	for range 200_000 {
		var b strings.Builder
		for range rng.IntN(9) {
			b.WriteString(pieces[rng.IntN(len(pieces))])
		}
		var want time.Duration
		if part := preference.FindStringSubmatch(quoted.ReplaceAllStringFunc(b.String(), hide.Replace)); part != nil {
			if seconds, err := strconv.ParseUint(strings.Trim(part[1], " \t\""), 10, 31); err == nil {
				want = min(time.Duration(seconds)*time.Second, maxWait)
				found++
			}
		}
		if got, _ := waitOf(b.String()); got != want {
			t.Fatalf("Prefer: %q: %v, want %v", b.String(), got, want)
		}
	}
	if found < 3000 {
		t.Errorf("%d of them have a time", found)
	}
}

// The longest Prefer and Accept that are read cost a small multiple of what counting their characters costs.
func TestALongHeaderCostsLittle(t *testing.T) {
	o := &operation{Operation: api.Operation[*request, response]{Produces: []string{"application/json", "application/problem+json"}}}
	prefer, accept := func(s string) { _, _ = waitOf(s) }, func(s string) { _ = o.canProduce(s) }
	for _, c := range []struct {
		header string
		read   func(string)
		pieces []string
		most   float64
	}{
		{"Prefer", prefer, []string{"a", ",", `"`, `"a`, "wait=", ` wait ="`, "a=b,", " ", ", wait"}, 20},
		{"Accept", accept, []string{"a", ",", "*;q=0,", "a/b,", "a/b;q=0,", "*/a,", "a/b;x=y,", "*/*;q=0,", " ", ";"}, 75},
	} {
		for _, piece := range c.pieces {
			text, ratio := strings.Repeat(piece, 31<<10/len(piece)), 0.0
			least := [2]time.Duration{time.Hour, time.Hour}
			for range 100 {
				start := time.Now()
				runes := 0
				for range text {
					runes++
				}
				between := time.Now()
				c.read(text)
				least = [2]time.Duration{min(least[0], between.Sub(start)), min(least[1], time.Since(between))}
				if ratio = float64(least[1]) / float64(least[0]); ratio <= c.most {
					break
				}
			}
			if t.Logf("%s: %q: %.1f, %v", c.header, piece, ratio, least[1]); ratio > c.most {
				t.Errorf("%s: %q: %.1f times what counting its characters costs", c.header, piece, ratio)
			}
		}
	}
}
