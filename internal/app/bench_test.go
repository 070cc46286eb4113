package app

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/ordergate/ordergate/internal/edge"
	"github.com/ordergate/ordergate/internal/rate"
	"github.com/ordergate/ordergate/internal/telemetry"
	"github.com/ordergate/ordergate/order"
)

// sink is a ResponseWriter that costs nothing.
type sink struct {
	header http.Header
	status int
}

func (s *sink) Header() http.Header { return s.header }

func (s *sink) WriteHeader(status int) { s.status = status }

func (s *sink) Write(b []byte) (int, error) { return len(b), nil }

func (s *sink) WriteString(text string) (int, error) { return len(text), nil }

// BenchmarkGetOrder is a GET of an order from the LRU with every duty: a key with a limit, a trace for one in a hundred, log line, metrics, a
// consistency token.
func BenchmarkGetOrder(b *testing.B) {
	g := startGateway(b, nil)
	g.stock("A", 10)
	id := g.reserved("A")
	tel, err := telemetry.New(b.Context(), func(string) string { return "" }, zapcore.InfoLevel, zapcore.AddSync(io.Discard))
	must(b, err)
	b.Cleanup(func() { tel.Close(context.WithoutCancel(b.Context())) })
	components, err := Assemble(b.Context(), g.cfg, tel)
	must(b, err)
	b.Cleanup(components.Close)
	handler, err := components.API(map[string]*edge.Key{aliceKey: {
		ID: "key_1", Owner: order.Owner{Account: 1, Mode: "test"}, Scopes: Scopes, Limit: rate.Limit{Requests: 1e9, Window: time.Second},
	}})
	must(b, err)
	first := g.do("GET", "/v1/orders/"+id, nil)
	headers := map[string]string{"Authorization": "Bearer " + aliceKey, "X-Consistency-Token": first.header.Get("X-Consistency-Token"), "Accept": "*/*", "User-Agent": "bench"}
	for status, etag := range map[int]string{http.StatusOK: "", http.StatusNotModified: first.header.Get("ETag")} {
		b.Run(strconv.Itoa(status), func(b *testing.B) {
			r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, g.url+"/v1/orders/"+id, http.NoBody)
			must(b, err)
			for name, value := range headers {
				r.Header.Set(name, value)
			}
			if etag != "" {
				r.Header.Set("If-None-Match", etag)
			}
			w := &sink{header: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.header)
				handler.ServeHTTP(w, r)
				if w.status != status {
					b.Fatal(w.status)
				}
			}
		})
	}
}
