package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/ordergate/ordergate/command"
	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/check"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/order"
)

const testKey = "og_test_key_for_tests_of_the_edge"

// deadServer is a Server whose PostgreSQL is down.
func deadServer(t testing.TB, configure ...func(*pgxpool.Config)) *Server {
	t.Helper()
	config, err := pgxpool.ParseConfig("postgres://nobody@127.0.0.1:1/none?connect_timeout=1")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range configure {
		c(config)
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	tracer := noop.NewTracerProvider().Tracer("")
	ids := order.NewIDs([]byte("k"))
	static := map[string]*Key{testKey: {ID: "key_1", Owner: order.Owner{Account: 1, Mode: "test"}, Scopes: []string{"orders:write"}}}
	s := New(Config{
		Commands: command.New(command.Config{Pool: pool, IDs: ids, Now: time.Now, Wake: func() {}, Tracer: tracer}),
		Auth: NewAuthenticator(func(context.Context, []byte) (*Key, error) {
			return nil, errors.New("dial tcp 10.1.2.3:5432: password=secret")
		}, nil, 8, static, nil, time.Now, nil),
		Signer: token.NewSigner([]byte("k")), Timeline: func() uint32 { return 1 }, Log: zap.NewNop(), Tracer: tracer, Registry: prometheus.NewRegistry(),
		Strict: true,
	})
	t.Cleanup(func() {
		for answer := range samples(t, s, undeclaredAnswers) {
			t.Errorf("the contract does not list %s, which was answered", answer)
		}
	})
	return s
}

func call(s http.Handler, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+testKey)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", "12345678")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Del(headers[i])
		if headers[i+1] != "" {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	maps.Copy(w.Header(), w.Result().Header) // the server's own values are those of another request by now
	return w
}

const goodOrder = `{"currency":"EUR","customer_ref":"c","lines":[{"sku":"A","quantity":1}]}`

// TestAMissingScopeIsNamed: the refusal says which scopes the operation needs.
func TestAMissingScopeIsNamed(t *testing.T) {
	if w := call(deadServer(t), "GET", "/v1/products", ""); w.Code != 403 || !strings.Contains(w.Body.String(), `"required_scopes":["catalog:read"]`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestEveryKindOfFailure sends every kind of failure through the one renderer and reads the body.
func TestEveryKindOfFailure(t *testing.T) {
	s := deadServer(t)
	secret := "password=secret host=10.1.2.3"
	thrown := map[string]error{
		"ours":                apierr.E(errcode.ORD001),
		"ours-wrapped":        fmt.Errorf("deep: %w", apierr.E(errcode.INV002, apierr.Extra("skus", []order.ShortSKU{{SKU: "A", Requested: 2, Available: 1}}))),
		"unknown":             errors.New(secret),
		"context-deadline":    fmt.Errorf("%s: %w", secret, context.DeadlineExceeded),
		"postgres-error":      &pgconn.PgError{Code: "XX000", Message: secret, Detail: secret},
		"unencodable-extra":   apierr.E(errcode.ORD002, apierr.Extra("from", func() {})),
		"code-without-a-name": apierr.E("NO_999"),
	}
	thrower := smallServer(t,
		op("throw", "GET", "/throw/:what", func(_ context.Context, r *request) (response, error) {
			return response{}, thrown[r.path.Param("what")]
		}, answers(nil, errcode.ORD001, errcode.INV002, errcode.SYS001, errcode.REQ003, errcode.SYS003)),
		op("panic", "GET", "/panic", func(context.Context, *request) (response, error) { panic(secret) }, answers(nil, errcode.SYS001)),
	)
	thrower.cfg.Strict = true
	for _, c := range []struct {
		name     string
		response *httptest.ResponseRecorder
		status   int
		code     errcode.Code
		pointer  string
		header   string
	}{
		{"ours", call(thrower, "GET", "/throw/ours", ""), 404, "ORD_001", "", ""},
		{"ours, wrapped", call(thrower, "GET", "/throw/ours-wrapped", ""), 409, "INV_002", "", ""},
		{"unknown", call(thrower, "GET", "/throw/unknown", ""), 500, "SYS_001", "", ""},
		{"a context's deadline", call(thrower, "GET", "/throw/context-deadline", ""), 504, "SYS_003", "", ""},
		{"PostgreSQL's", call(thrower, "GET", "/throw/postgres-error", ""), 500, "SYS_001", "", ""},
		{"an extra that cannot be encoded", call(thrower, "GET", "/throw/unencodable-extra", ""), 500, "SYS_001", "", ""},
		{"a code without a name", call(thrower, "GET", "/throw/code-without-a-name", ""), 500, "SYS_001", "", ""},
		{"a panic", call(thrower, "GET", "/panic", ""), 500, "SYS_001", "", ""},
		{"an unknown route", call(s, "GET", "/v1/nothing", ""), 404, "REQ_005", "", ""},
		{"an encoded slash in an id", call(s, "GET", "/v1/errors/a%2Fb", ""), 400, "REQ_003", "/path/code", ""},
		{"a wrong method", call(s, "DELETE", "/v1/orders", ""), 405, "REQ_006", "", "Allow"},
		{"no key", call(s, "POST", "/v1/orders", goodOrder, "Authorization", ""), 401, "AUTH_001", "", "Www-Authenticate"},
		{"another scheme", call(s, "POST", "/v1/orders", goodOrder, "Authorization", "Basic eDp5"), 401, "AUTH_001", "", "Www-Authenticate"},
		{"a key of another shape", call(s, "POST", "/v1/orders", goodOrder, "Authorization", "Bearer x"), 401, "AUTH_002", "", "Www-Authenticate"},
		{"a key while the database is down", call(s, "POST", "/v1/orders", goodOrder, "Authorization", "Bearer og_test_another_key_of_the_right_shape"), 503, "SYS_002", "", "Retry-After"},
		{"a missing scope", call(s, "GET", "/v1/orders", ""), 403, "AUTH_005", "", ""},
		{"a media type that is not produced", call(s, "POST", "/v1/orders", goodOrder, "Accept", "text/html"), 406, "REQ_007", "", ""},
		{"a wrong media type", call(s, "POST", "/v1/orders", goodOrder, "Content-Type", "text/plain"), 415, "REQ_009", "", ""},
		{"a compressed body", call(s, "POST", "/v1/orders", goodOrder, "Content-Encoding", "gzip"), 415, "REQ_009", "", "Accept-Encoding"},
		{"a body too large", call(s, "POST", "/v1/orders", `{"x":"`+strings.Repeat("x", MaxBody)+`"}`), 413, "REQ_008", "", ""},
		{"no idempotency key", call(s, "POST", "/v1/orders", goodOrder, "Idempotency-Key", ""), 400, "IDEM_001", "", ""},
		{"a malformed idempotency key", call(s, "POST", "/v1/orders", goodOrder, "Idempotency-Key", "short"), 400, "IDEM_004", "", ""},
		{"a key with half a quote", call(s, "POST", "/v1/orders", goodOrder, "Idempotency-Key", `"12345678`), 400, "IDEM_004", "", ""},
		{"the only media type ruled out", call(s, "GET", "/v1/errors", "", "Accept", "application/json;q=0"), 406, "REQ_007", "", ""},
		{"almost an integer", call(s, "POST", "/v1/orders", strings.Replace(goodOrder, `:1}`, `:1.00000000000000001}`, 1)), 400, "REQ_002", "/lines/0/quantity", ""},
		{"a tiny number", call(s, "POST", "/v1/orders", strings.Replace(goodOrder, `:1}`, `:1e-999999999}`, 1)), 400, "REQ_001", "/lines/0/quantity", ""},
		{"a bad parameter", call(s, "GET", "/v1/errors/abc", ""), 400, "REQ_003", "/path/code", ""},
		{"an unknown parameter", call(s, "GET", "/v1/errors?limt=5", ""), 400, "REQ_003", "/query/limt", ""},
		{"no body", call(s, "POST", "/v1/orders", ""), 400, "REQ_001", "", ""},
		{"malformed JSON", call(s, "POST", "/v1/orders", `{"currency":`), 400, "REQ_001", "", ""},
		{"two documents", call(s, "POST", "/v1/orders", goodOrder+goodOrder), 400, "REQ_001", "", ""},
		{"a name twice", call(s, "POST", "/v1/orders", strings.Replace(goodOrder, `"quantity":1`, `"quantity":1,"quantity":2`, 1)), 400, "REQ_001", "/lines/0/quantity", ""},
		{"a NUL", call(s, "POST", "/v1/orders", strings.Replace(goodOrder, `"c"`, `"\u0000"`, 1)), 400, "REQ_001", "/customer_ref", ""},
		{"a lone surrogate", call(s, "POST", "/v1/orders", strings.Replace(goodOrder, `"c"`, `"\ud800"`, 1)), 400, "REQ_001", "/customer_ref", ""},
		{"an immense number", call(s, "POST", "/v1/orders", strings.Replace(goodOrder, `:1}`, `:1e999999999}`, 1)), 400, "REQ_001", "/lines/0/quantity", ""},
		{"an abyss", call(s, "POST", "/v1/orders", strings.Repeat("[", 20000)), 400, "REQ_001", "", ""},
		{"a name in another case", call(s, "POST", "/v1/orders", strings.Replace(goodOrder, `"quantity":1`, `"quantity":1,"Quantity":-5`, 1)), 400, "REQ_004", "/lines/0/Quantity", ""},
		{"an unknown field", call(s, "POST", "/v1/orders", `{"surprise":1,`+goodOrder[1:]), 400, "REQ_004", "/surprise", ""},
		{"an unknown field and a fault", call(s, "POST", "/v1/orders", `{"surprise":1,`+strings.Replace(goodOrder[1:], `:1}`, `:0}`, 1)), 400, "REQ_002", "/lines/0/quantity", ""},
		{"a quantity of 0", call(s, "POST", "/v1/orders", strings.Replace(goodOrder, `:1}`, `:0}`, 1)), 400, "REQ_002", "/lines/0/quantity", ""},
		{"a quantity of 10^9", call(s, "POST", "/v1/orders", strings.Replace(goodOrder, `:1}`, `:1000000000}`, 1)), 400, "REQ_002", "/lines/0/quantity", ""},
		{"a fraction", call(s, "POST", "/v1/orders", strings.Replace(goodOrder, `:1}`, `:1.5}`, 1)), 400, "REQ_002", "/lines/0/quantity", ""},
		{"a wrong type", call(s, "POST", "/v1/orders", strings.Replace(goodOrder, `"c"`, `7`, 1)), 400, "REQ_002", "/customer_ref", ""},
		{"a missing field", call(s, "POST", "/v1/orders", `{"currency":"EUR","customer_ref":"c"}`), 400, "REQ_002", "/lines", ""},
		{"a list for an object", call(s, "POST", "/v1/orders", `[]`), 400, "REQ_002", "", ""},
		{"PostgreSQL down, an integer written 1.0", call(s, "POST", "/v1/orders", strings.Replace(goodOrder, `:1}`, `:1.0}`, 1)), 503, "SYS_002", "", "Retry-After"},
		{"PostgreSQL down", call(s, "POST", "/v1/orders", goodOrder), 503, "SYS_002", "", "Retry-After"},
	} {
		t.Run(c.name+" is "+string(c.code), func(t *testing.T) {
			var p struct {
				Code      string `json:"code"`
				Message   string `json:"message"`
				Detail    string `json:"detail"`
				Type      string `json:"type"`
				Title     string `json:"title"`
				Instance  string `json:"instance"`
				Status    int    `json:"status"`
				Retryable *bool  `json:"retryable"`
				TraceID   string `json:"trace_id"`
				Errors    []struct {
					Pointer string `json:"pointer"`
				} `json:"errors"`
			}
			if err := json.Unmarshal(c.response.Body.Bytes(), &p); err != nil {
				t.Fatalf("%v in %s", err, c.response.Body)
			}
			if c.response.Code != c.status || p.Code != string(c.code) || p.Status != c.status {
				t.Errorf("%d %s", c.response.Code, c.response.Body)
			}
			h := c.response.Header()
			if h.Get("Content-Type") != "application/problem+json" || h.Get("X-Trace-ID") == "" || p.TraceID != h.Get("X-Trace-ID") {
				t.Errorf("headers %v, trace id %s", h, p.TraceID)
			}
			if p.Message == "" || p.Detail == "" || p.Title == "" || p.Type != "/docs/errors/"+p.Code || p.Retryable == nil || p.Instance == "" {
				t.Errorf("incomplete: %s", c.response.Body)
			}
			if c.pointer != "" && !strings.Contains(fmt.Sprint(p.Errors), "{"+c.pointer+"}") {
				t.Errorf("no fault at %s: %s", c.pointer, c.response.Body)
			}
			if c.header != "" && h.Get(c.header) == "" {
				t.Errorf("no header %s", c.header)
			}
			for _, leak := range []string{"secret", "10.1.2.3", "127.0.0.1", "goroutine", "pgx", "SQLSTATE", ".go:"} {
				if strings.Contains(c.response.Body.String(), leak) {
					t.Errorf("the body leaks %q: %s", leak, c.response.Body)
				}
			}
		})
	}
}

func TestAnOpenBreakerAsksNobody(t *testing.T) {
	var dials atomic.Int32
	s := deadServer(t, func(c *pgxpool.Config) {
		c.ConnConfig.DialFunc = func(context.Context, string, string) (net.Conn, error) {
			dials.Add(1)
			return nil, errors.New("refused")
		}
	})
	for i := range 25 {
		if w := call(s, "POST", "/v1/orders", goodOrder); w.Code != 503 {
			t.Fatalf("call %d: %d %s", i, w.Code, w.Body)
		}
	}
	before := dials.Load()
	for range 1000 {
		if w := call(s, "POST", "/v1/orders", goodOrder); w.Code != 503 || !strings.Contains(w.Body.String(), "SYS_002") || w.Header().Get("Retry-After") == "" {
			t.Fatal(w.Code, w.Header(), w.Body)
		}
	}
	if after := dials.Load(); before == 0 || after != before {
		t.Errorf("PostgreSQL was dialled %d times, and %d times more behind an open breaker", before, after-before)
	}
}

func TestTheRegistryNamesOurLimits(t *testing.T) {
	for code, limit := range map[errcode.Code]string{
		errcode.REQ001: fmt.Sprintf("%ddeep", check.MaxDepth),
		errcode.REQ008: fmt.Sprintf("%dKiB", MaxBody>>10),
		errcode.ORD008: strconv.Itoa(order.MaxTotal),
	} {
		if info, _ := errcode.Lookup(code); !strings.Contains(strings.ReplaceAll(info.Description, " ", ""), limit) {
			t.Errorf("%s does not name its limit %s: %s", code, limit, info.Description)
		}
	}
}

func TestMalformedTextIsLocated(t *testing.T) {
	s := deadServer(t)
	for body, message := range map[string]string{
		`{"currency":`:        "cannot be read at byte offset 12",
		`{"currency":"EUR",}`: "cannot be read at byte offset 17",
		`{"a":1,"a":2}`:       "stands there twice",
	} {
		if a := call(s, "POST", "/v1/orders", body); !strings.Contains(a.Body.String(), `"message":"`+message+`"`) {
			t.Errorf("%s: %s", body, a.Body)
		}
	}
	if a := call(s, "GET", "/v1/errors?x=%zz", ""); !strings.Contains(a.Body.String(), `"message":"must be a query string"`) {
		t.Error(a.Body)
	}
}

func TestHead(t *testing.T) {
	s := httptest.NewServer(deadServer(t))
	defer s.Close()
	res, err := http.Head(s.URL + "/v1/errors")
	if err != nil || res.StatusCode != 200 || res.ContentLength < 1000 || res.Header.Get("ETag") == "" {
		t.Error(err, res)
	}
}

// Bad names of properties cost what the body costs, however many there are, and each is named where it stands.
func TestManyBadNames(t *testing.T) {
	s := deadServer(t)
	bad := func(n int) string {
		var names, lines strings.Builder
		for i := range n {
			fmt.Fprintf(&names, `"bad %d":"x",`, i)
			lines.WriteString("{},{},{},{},")
		}
		return `{"currency":"EUR","customer_ref":"c","bad 1":0,"metadata":{` + strings.TrimSuffix(names.String(), ",") +
			`},"lines":[` + strings.TrimSuffix(lines.String(), ",") + `]}`
	}
	allocations := func(n int) float64 {
		body := bad(n)
		return testing.AllocsPerRun(1, func() {
			if a := call(s, "POST", "/v1/orders", body); a.Code != 400 {
				t.Errorf("%d %s", a.Code, a.Body)
			}
		})
	}
	if few, many := allocations(100), allocations(1000); many > 20*few {
		t.Errorf("ten times as many names took %.0f allocations instead of %.0f", many, few)
	}
	a := call(s, "POST", "/v1/orders", `{"currency":"EUR","customer_ref":"c","a b":0,"metadata":{"a b":"x"},"lines":[{"sku":"A","quantity":1}]}`)
	if !strings.Contains(a.Body.String(), `"pointer":"/metadata/a b"`) {
		t.Errorf("%s", a.Body)
	}
}

// A process that stops refuses requests until balancers have noticed: that is no error of ours, unlike a panic.
func TestADrainIsNoErrorInTheLog(t *testing.T) {
	t.Parallel()
	s := deadServer(t)
	core, logs := observer.New(zap.InfoLevel)
	s.cfg.Log = zap.New(core)
	if w := call(s, "POST", "/v1/orders", goodOrder); w.Code != http.StatusServiceUnavailable {
		t.Errorf("without a database: %d", w.Code)
	}
	s.stop()
	if w := call(s, "POST", "/v1/orders", goodOrder); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "SYS_005") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	lines := logs.FilterMessage("request").All()
	if len(lines) != 2 || lines[0].Level != zap.ErrorLevel || lines[1].Level != zap.InfoLevel {
		t.Errorf("%+v", lines)
	}
}
