package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ordergate/ordergate/gen/api"
)

const (
	readClients = 16
	missesIn    = 1000 // one answer in so many may be from below the LRU, which looks there every 1.5 s
	hotOrders   = 16   // that are read over and over
)

var normal = pace{rounds: 9, slices: 4, warm: 50 * time.Millisecond, measure: 250 * time.Millisecond}

// quick shows that the instrument works, and measures nothing.
var quick = pace{rounds: 1, slices: 1, warm: 20 * time.Millisecond, measure: 50 * time.Millisecond}

// readPart measures some figures of the read path.
type readPart struct {
	name    string
	measure func(context.Context, *readBench) []figure
}

var readParts = []readPart{
	{"cached", measureCached},
	{"streams", measureStreams},
}

// readBench is what the parts share.
type readBench struct {
	*gateway
	pace   pace
	orders []string // paths of the hot orders
}

// runRead measures the read path: all parts of it, or those that are named.
func runRead(ctx context.Context, parts []string) {
	pace := normal
	if os.Getenv("BENCH_QUICK") != "" {
		pace = quick
	}
	r := newResults(ctx, "read")
	for _, part := range parts {
		if !slices.ContainsFunc(readParts, func(p readPart) bool { return p.name == part }) {
			must(fmt.Errorf("there is no part %q", part))
		}
	}
	b := startRead(ctx, pace)
	defer b.stop()
	for _, part := range readParts {
		if len(parts) == 0 || slices.Contains(parts, part.name) {
			begin := time.Now()
			r.figures = append(r.figures, part.measure(ctx, b)...)
			sayf("%s took %.0f s", part.name, time.Since(begin).Seconds())
		}
	}
	r.print()
	if len(parts) == 0 && pace == normal {
		r.write(ctx)
	}
}

// startRead starts a gateway that exports its sampled spans, to this process, which drops them.
func startRead(ctx context.Context, pace pace) *readBench {
	spans := freeAddr()
	go func() {
		must(http.ListenAndServe(spans, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })))
	}()
	await(spans)
	b := &readBench{gateway: start(ctx, exporting(spans)...), pace: pace}
	w := dial(b.addr)
	defer func() { _ = w.Close() }()
	for range hotOrders {
		must(b.send(0, w))
		var placed api.Order
		must(json.Unmarshal(w.body, &placed))
		b.orders = append(b.orders, "/v1/orders/"+placed.ID)
	}
	return b
}

func exporting(spans string) []string {
	return []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + spans, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"}
}

func (b *readBench) authorization() string { return "Authorization: Bearer " + b.key + "\r\n" }

// answer is the response of the gateway to a GET, as it is sent.
func (b *readBench) answer(path string) (a answer) {
	w := dial(b.addr)
	defer func() { _ = w.Close() }()
	for range 2 { // the second is from the LRU
		must(w.do(fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", path, b.addr, b.authorization())))
	}
	if !w.hasStatus("200") {
		must(fmt.Errorf("read over HTTP: %s%s", w.head, w.body))
	}
	a.Header, a.Body = http.Header{}, slices.Clone(w.body)
	for line := range strings.SplitSeq(strings.TrimSpace(string(w.head)), "\r\n") {
		if name, value, is := strings.Cut(line, ": "); is && name != "Date" { // net/http adds it
			a.Header[name] = append(a.Header[name], value)
		}
	}
	return a
}

// measureCached compares GETs of orders from the LRU, all duties on, with a bare handler that sends the same bytes and headers.
func measureCached(ctx context.Context, b *readBench) []figure {
	answer, gogc := b.answer(b.orders[0]), b.serving.metric("go_gc_gogc_percent")
	bare := func(name string, settings ...string) *leg {
		return &leg{name: name, server: b.bare(ctx, name, bareConfig{Answer: answer}, settings...), targets: b.orders, headers: b.authorization(), status: "200"}
	}
	ours := &leg{name: "gateway", server: b.serving, targets: b.orders, headers: b.authorization(), status: "200", tier: "lru"}
	known := &leg{name: "gateway-304", server: b.serving, targets: b.orders[:1], headers: b.authorization() + "If-None-Match: " + answer.Header["Etag"][0] + "\r\n", status: "304", tier: "lru"}
	same, again, tuned := bare("bare"), bare("bare-again"), bare("bare-gogc", fmt.Sprint("GOGC=", gogc))
	defer same.server.end()
	defer again.server.end()
	defer tuned.server.end()

	takeTurns(ctx, "cached", b.pace, readClients, ours, same, again, tuned, known)
	clients := fmt.Sprintf(", %d clients", readClients)
	figures := slices.Concat(
		compare("cached GET / bare echo, CPU of a request"+clients, "<= 1.1", "cached GET / bare echo, requests/s"+clients, ">= 0.95", ours, same),
		compare(fmt.Sprintf("the same, equal GOGC on both sides (%s)", short(gogc)), "<= 1.15", "the same, equal GOGC, requests/s", "", ours, tuned),
		compare("bare echo / a second bare echo (A/A), CPU", "", "A/A, requests/s", "", again, same),
		compare("", "", "304 / bare echo's 200, requests/s", "", known, same),
	)
	perCPU := newFigure("304 / bare echo's 200, requests per CPU", "us, the other way round", ">= 1", same.cpus(), known.cpus())
	figures = append(figures, perCPU)
	for i, f := range figures {
		if strings.Contains(f.Name, "A/A") {
			figures[i].Note += fmt.Sprintf(", spread %.3f", f.Spread)
		}
	}
	sayf("the load generator takes %.1f us of CPU a request", median(ours.each(func(s sample) float64 { return s.client })))
	few := b.pace
	few.rounds = min(few.rounds, 3)
	for _, n := range []int{1, 64} {
		takeTurns(ctx, "cached", few, n, ours, same)
		figures = append(figures, compare(fmt.Sprintf("cached GET / bare echo, CPU, %d clients", n), "", fmt.Sprintf("the same, requests/s, %d clients", n), "", ours, same)...)
	}
	return append(figures, b.allocations(ctx, answer)...)
}

// allocations counts ours of a GET and of a 304, in this process.
func (b *readBench) allocations(ctx context.Context, a answer) (figures []figure) {
	path := b.orders[0]
	request := try(http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.addr+path, http.NoBody))
	request.Header.Set("Authorization", "Bearer "+b.key)
	for _, c := range []struct {
		name, etag string
		status     int
	}{{"allocations of the cached GET", "", http.StatusOK}, {"allocations of a 304", a.Header["Etag"][0], http.StatusNotModified}} {
		if request.Header.Set("X-Consistency-Token", a.Header["X-Consistency-Token"][0]); c.etag != "" {
			request.Header.Set("If-None-Match", c.etag)
		}
		w := &sink{header: http.Header{}}
		serve := func() {
			clear(w.header)
			b.server.ServeHTTP(w, request)
			if w.status != c.status {
				must(fmt.Errorf("read in process: %d: %s", w.status, w.body))
			}
		}
		for range 2000 { // into the LRU, and what is pooled into its pool
			serve()
		}
		const runs = 5000
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		whole := testing.AllocsPerRun(runs, serve)
		runtime.ReadMemStats(&after)
		exact := float64(after.Mallocs-before.Mallocs) / (runs + 1)
		figures = append(figures, figure{Name: c.name, Value: whole, Goal: "<= 0", Load: loadNow(), Note: fmt.Sprintf("%.2f on average, %.0f bytes: sampled requests have more", exact, float64(after.TotalAlloc-before.TotalAlloc)/(runs+1))})
	}
	return figures
}

// bare starts a bare server.
func (b *readBench) bare(ctx context.Context, name string, c bareConfig, settings ...string) *process {
	c.Addr = freeAddr()
	file := filepath.Join(b.dir, name+".json")
	must(os.WriteFile(file, try(json.Marshal(c)), 0o600))
	return b.child(ctx, c.Addr, settings, try(os.Executable()), bareArgument, file)
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

// cpu returns the CPU time of this process, the garbage collector's share included.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
