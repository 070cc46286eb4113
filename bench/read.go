package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/ordergate/ordergate/gen/api"
)

const (
	goalReads = 0.89 // of bare echo's requests per second: reached by a lean stack with the same duties
	goalCPU   = 0.10 // of its CPU: 161 ns to 1.6 us

	readClients  = 16
	missesIn     = 1000   // one answer in so many may be from below the LRU, which looks there every 1.5 s
	bareArgument = "bare" // makes this program the bare server
)

// measureRead compares GETs of orders from the LRU with a bare handler that sends the same bytes.
func measureRead(ctx context.Context, g *gateway) []figure {
	w := dial(g.addr)
	defer func() { _ = w.Close() }()
	requests := make([][]byte, readClients)
	for i := range requests {
		must(g.send(0, w))
		var placed api.Order
		must(json.Unmarshal(w.body, &placed))
		requests[i] = fmt.Appendf(nil, "GET /v1/orders/%s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n", placed.ID, g.addr, g.key)
	}
	placed, served := try(g.place(ctx, g.components.Commands, "in-process-read", g.draft(0))), &sink{header: http.Header{}}
	request := try(http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.addr+placed.Location, http.NoBody))
	request.Header.Set("Authorization", "Bearer "+g.key)
	served.serve(g.server, request)
	limit, file, bareAddr := response{served.header, served.body}, filepath.Join(g.dir, "response.json"), freeAddr()
	must(os.WriteFile(file, try(json.Marshal(limit)), 0o600))
	defer g.child(ctx, bareAddr, try(os.Executable()), bareArgument, bareAddr, file)()
	over := func(addr string) func() float64 {
		return func() float64 {
			var all, missed atomic.Int64
			rate := overHTTP(ctx, addr, readClients, nil, func(client int, w *wire) error {
				err := w.do(requests[client])
				if err == nil && !w.hasStatus("200") {
					err = fmt.Errorf("read over HTTP: %s%s", w.head, w.body)
				}
				if all.Add(1); !bytes.Contains(w.head, []byte("X-Served-By: lru")) {
					missed.Add(1)
				}
				return err
			})
			checkHits(missed.Load(), all.Load())
			return rate
		}
	}
	network := interleave("read over HTTP", contender{"gateway", over(g.addr)}, contender{"bare", over(bareAddr)})
	echoed := limit.handler()
	inside := interleave("read in process",
		contender{"gateway", func() float64 { return measure(g.server, request) }},
		contender{"bare", func() float64 { return measure(echoed, request) }})
	allocs := func(h http.Handler) float64 {
		w := &sink{header: http.Header{}}
		return testing.AllocsPerRun(1000, func() { w.serve(h, request) })
	}
	ours := allocs(g.server)
	return []figure{
		newFigure(fmt.Sprintf("read from the LRU over HTTP / bare echo, %d clients", readClients), "requests/s", goalReads,
			network["gateway"], network["bare"]),
		newFigure("read from the LRU in process / bare echo", "requests per CPU second", goalCPU, inside["gateway"], inside["bare"]),
		{Name: "read from the LRU, allocations of a request", Unit: "bare", Value: ours, Ours: []float64{ours}, Limit: []float64{allocs(echoed)}},
	}
}

// checkHits fails if reads were answered by another tier than the LRU.
func checkHits(missed, all int64) {
	if missed > readClients+all/missesIn {
		must(fmt.Errorf("%d of %d reads were not answered from the LRU", missed, all))
	}
}

type response struct {
	Header http.Header `json:"header"`
	Body   []byte      `json:"body"`
}

// handler is the limit of the read path: echo, its router and a response that is ready.
func (r response) handler() http.Handler {
	e := echo.New()
	e.GET("/v1/orders/:order_id", func(c echo.Context) error {
		maps.Copy(c.Response().Header(), r.Header)
		c.Response().WriteHeader(http.StatusOK)
		_, err := c.Response().Write(r.Body)
		return err
	})
	return e
}

// bare serves the response in a file, and never returns.
func bare(addr, file string) {
	var r response
	must(json.Unmarshal(try(os.ReadFile(file)), &r))
	must((&http.Server{Addr: addr, Handler: r.handler(), ReadHeaderTimeout: time.Minute}).ListenAndServe())
}

// sink is a ResponseWriter that costs nothing.
type sink struct {
	header http.Header
	status int
	body   []byte
}

func (s *sink) Header() http.Header { return s.header }

func (s *sink) WriteHeader(status int) { s.status = status }

func (s *sink) Write(b []byte) (int, error) { s.body = b; return len(b), nil }

// serve has a handler answer a request, which must succeed.
func (s *sink) serve(h http.Handler, request *http.Request) {
	clear(s.header)
	h.ServeHTTP(s, request)
	if s.status != http.StatusOK {
		must(fmt.Errorf("read in process: %d: %s", s.status, s.body))
	}
}

// measure returns the requests that a handler answers per second of this process's CPU.
func measure(h http.Handler, request *http.Request) float64 {
	w := &sink{header: http.Header{}}
	n, missed, begin, stop := int64(0), int64(0), cpu(), time.Now().Add(measureFor/4)
	for ; time.Now().Before(stop); n++ {
		w.serve(h, request)
		if w.header["X-Served-By"][0] != "lru" {
			missed++
		}
	}
	took := cpu() - begin
	checkHits(missed, n)
	return float64(n) / took.Seconds()
}

// cpu returns the CPU time of this process, the garbage collector's share included.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
