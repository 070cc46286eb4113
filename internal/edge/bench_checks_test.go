package edge

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/query"
)

// BenchmarkChecks measures what stands before a handler, each alone.
func BenchmarkChecks(b *testing.B) {
	o := &operation{Operation: api.Operation[*request, response]{MediaType: "application/json", Produces: []string{"application/json", "application/problem+json"}}}
	auth := NewAuthenticator(nil, nil, 8, map[string]*Key{testKey: {ID: "key_1"}}, nil, time.Now, nil)
	now := time.Now()
	header := func(name, value string) http.Header { return http.Header{name: {value}} }
	json, english, browser, traced := header("Content-Type", "application/json"), header("Accept-Language", "en"), header("Accept-Language", "en-US,en;q=0.9"), header("X-Trace-Id", "checkout-7c9e6679")
	for _, c := range []struct {
		name string
		run  func() bool
	}{
		{"authorization", func() bool {
			key, _, err := auth.authenticate(b.Context(), "Bearer "+testKey, now)
			return err == nil && key != nil
		}},
		{"shape of a key", func() bool { return keyShaped(testKey) }},
		{"accept what is produced", func() bool { return o.canProduce("application/json") }},
		{"content type", func() bool { return o.takes(json) }},
		{"idempotency key", func() bool { _, err := idempotencyKey("0198f3c2-a4b5-7d3e-8c1f-2a3b4c5d6e90"); return err == nil }},
		{"no language", func() bool { return !chinese(nil) }},
		{"English", func() bool { return !chinese(english) }},
		{"English of a browser", func() bool { return !chinese(browser) }},
		{"no preference", func() bool { wait, _ := waitOf(""); return wait == 0 }},
		{"no trace id", func() bool { return givenTraceID(b.Context(), json) == "" }},
		{"own trace id", func() bool { return givenTraceID(b.Context(), traced) != "" }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !c.run() {
					b.Fatal("it is refused")
				}
			}
		})
	}
}

// BenchmarkParameters measures how the parameters of a request are read and checked.
func BenchmarkParameters(b *testing.B) {
	s := deadServer(b)
	table := map[string]func(context.Context, *probe) (any, error){}
	for _, o := range api.Operations[*probe, any](own{}) {
		table[o.ID] = o.Handle
	}
	seen := s.sign(token.Token{LSN: 7})
	const order = "/v1/orders/ord_0198f3c2a4b57d3e8c1f2a3b4c5d6e90"
	for _, c := range []struct {
		name, operation string
		request         *http.Request
	}{
		{"an order with a token", "getOrder", get(order, "X-Consistency-Token", seen)},
		{"an order with an ETag", "getOrder", get(order, "If-None-Match", `"3-9f2c61d07a3be410"`)},
		{"an order at a version", "getOrder", get(order + "?version=2")},
		{"a list with four filters", "listOrders", get("/v1/orders?status=confirmed&customer_ref=customer-42&created_from=2026-11-01T00:00:00Z&limit=50")},
		{"an unknown name", "getOrder", get(order + "?limt=5")},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := s.begin(httptest.NewRecorder(), c.request)
			s.find(r)
			p, handle := &probe{request: r}, table[c.operation]
			b.ReportAllocs()
			for b.Loop() {
				_, _ = handle(b.Context(), p)
			}
			s.end(r)
		})
	}
}

// stored answers a GET of an order by what is at hand, as the LRU would. All other operations are the real ones.
type stored struct {
	handlers
	view query.View
}

func (h stored) GetOrder(_ context.Context, r *request, _ api.GetOrderParams) (response, error) {
	return r.queryResponse(h.view, nil)
}

// BenchmarkManyOperations sends one GET to a server of 25 operations and to one of 500, in turn: the real ones, and others on addresses that begin
// as theirs do. It reports what the GET costs with 500 in units of what it costs with 25, and of the second server in those of its like.
func BenchmarkManyOperations(b *testing.B) {
	server := func(many int) *Server {
		s := deadServer(b)
		s.routes, s.paths = map[string]route{}, echo.New()
		const body = `{"id":"ord_0198f3c2a4b57d3e8c1f2a3b4c5d6e90"}`
		var operations []*operation
		for _, o := range api.Operations[*request, response](stored{handlers{s}, query.View{Body: body, Token: "1.x", Tier: "lru"}}) {
			operations = append(operations, &operation{Operation: o})
		}
		for i := 0; len(operations) < many; i++ {
			at := fmt.Sprintf("/v1/%s%d", []string{"orders", "order-lines", "o", "payments", "returns", "x"}[i%6], i)
			for method, path := range map[string]string{"GET": at, "POST": at, "PUT": at + "/:id", "PATCH": at + "/:id", "DELETE": at + "/:id/parts/:part"} {
				operations = append(operations, op(method+path, method, path, finished(200)))
			}
		}
		s.register(operations[:many])
		s.cfg.Auth = NewAuthenticator(nil, nil, 8, map[string]*Key{testKey: {ID: "key_1", Scopes: []string{"orders:read"}}}, nil, time.Now, nil)
		return s
	}
	few, same, many := server(25), server(25), server(500)
	hr := get("/v1/orders/ord_0198f3c2a4b57d3e8c1f2a3b4c5d6e90", "Authorization", "Bearer "+testKey)
	const batch = 200
	took := func(s *Server) float64 {
		begin := time.Now()
		for range batch {
			w := httptest.NewRecorder()
			if s.ServeHTTP(w, hr); w.Code != http.StatusOK {
				b.Fatal(w.Code, w.Body)
			}
		}
		return float64(time.Since(begin))
	}
	var ratios, control []float64
	for b.Loop() {
		one, two, three := took(few), took(many), took(same)
		ratios, control = append(ratios, two/one), append(control, three/one)
	}
	median := func(of []float64) float64 { slices.Sort(of); return of[len(of)/2] }
	b.ReportMetric(median(ratios), "500/25")
	b.ReportMetric(median(control), "25/25")
}
