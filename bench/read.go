package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	peers = "bin/bench-peers"

	readClients = 16
	missesIn    = 1000 // one answer in so many may be from below the LRU, which looks there every 1.5 s
	hotOrders   = 16   // that are read over and over
)

var normal = pace{rounds: 9, slices: 4, warm: 50 * time.Millisecond, measure: 250 * time.Millisecond}

// quick shows that the instrument works (TestEachPartOfReadsMeasures), and measures nothing.
var quick = pace{rounds: 1, slices: 1, warm: 20 * time.Millisecond, measure: 50 * time.Millisecond}

// readPart measures some figures of the read path.
type readPart struct {
	name    string
	measure func(context.Context, *readBench) []figure
}

var readParts = []readPart{
	{"memory", measureMemory}, // first: it fills the LRU
	{"cached", measureCached},
	{"tiers", measureTiers},
	{"loads", measureLoads},
	{"peers", measurePeers},
	{"streams", measureStreams},
	{"hits", measureHits},
	{"parts", measureParts},
}

// readBench is what the parts share.
type readBench struct {
	*gateway
	pace   pace
	orders []string // paths of the hot orders
	spans  string   // address of the collector, as a setting
	filled []figure // of the LRU; nil until fill
	failed error    // of a part that found what may not be
}

// runRead measures the read path: all parts of it, or those that are named.
func runRead(ctx context.Context, parts []string, pace pace) *results {
	r := newResults(ctx, "read")
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
	must(b.failed)
	return r
}

// startRead starts a gateway that exports its sampled spans, to this process, which drops them.
func startRead(ctx context.Context, pace pace) *readBench {
	l := try(net.Listen("tcp", "127.0.0.1:0"))
	go func() {
		_ = http.Serve(l, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })) // until stop
	}()
	endpoint := "OTEL_EXPORTER_OTLP_ENDPOINT=http://" + l.Addr().String()
	b := &readBench{gateway: start(ctx, endpoint), pace: pace, spans: endpoint}
	b.also = append(b.also, l.Close)
	b.orders = b.copies(ctx, hotOrders)
	return b
}

// gogc is the gateway's, as a setting.
func (b *readBench) gogc() string {
	return fmt.Sprintf("GOGC=%.0f", b.serving.metric("go_gc_gogc_percent"))
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

// hot is a leg of the hot orders.
func (b *readBench) hot(name string, server *process) *leg {
	return &leg{name: name, server: server, targets: b.orders, headers: b.authorization(), status: "200"}
}

// cached is the leg of the gateway's LRU.
func (b *readBench) cached() *leg {
	l := b.hot("gateway", b.serving)
	l.tier = "lru"
	return l
}

// bare is the leg of a bare server; peer of one of bench/peers.
func (b *readBench) bare(ctx context.Context, name string, c bareConfig, settings ...string) *leg {
	return b.hot(name, b.other(ctx, name, c, settings, try(os.Executable()), bareArgument))
}

func (b *readBench) peer(ctx context.Context, name string, c bareConfig) *leg {
	return b.hot(name, b.other(ctx, name, c, []string{b.spans}, peers, name))
}

func (b *readBench) other(ctx context.Context, name string, c bareConfig, settings []string, program, argument string) *process {
	if c.Addr, c.Key = freeAddr(), b.key; c.Orders == nil {
		c.Orders = b.orders
	}
	c.Redis, c.Replica, c.Account, c.Mode = os.Getenv("ORDERGATE_TEST_REDIS"), os.Getenv("ORDERGATE_TEST_REPLICA"), b.owner.Account, b.owner.Mode
	file := filepath.Join(b.dir, name+".json")
	must(os.WriteFile(file, try(json.Marshal(c)), 0o600))
	return b.child(ctx, c.Addr, settings, program, argument, file)
}

// measureCached compares GETs of orders from the LRU, all duties on, with a bare handler that sends the same bytes and headers.
func measureCached(ctx context.Context, b *readBench) []figure {
	b.fill(ctx)
	answer, gogc := b.answer(b.orders[0]), b.serving.metric("go_gc_gogc_percent")
	etag := answer.Header["Etag"][0]
	ours, known, same := b.cached(), b.cached(), b.bare(ctx, "bare", bareConfig{Answer: answer})
	known.name, known.headers, known.status, known.targets = "gateway-304", known.headers+"If-None-Match: "+etag+"\r\n", "304", b.orders[:1]
	again, tuned := b.bare(ctx, "bare-again", bareConfig{Answer: answer}), b.bare(ctx, "bare-gogc", bareConfig{Answer: answer}, b.gogc())
	stock := b.peer(ctx, "stock", bareConfig{Answer: answer})
	for _, l := range []*leg{same, again, tuned, stock} {
		defer l.server.end()
	}

	takeTurns(ctx, "cached", b.pace, readClients, ours, same, again, tuned, known, stock)
	figures := []figure{
		perRequest(fmt.Sprintf("cached GET / bare echo, %d clients", readClients), "<= 1.1", ours, same), perSecond(">= 0.95", ours, same),
		perRequest(fmt.Sprintf("cached GET / bare echo with the gateway's GOGC (%.0f)", gogc), "<= 1.15", ours, tuned), perSecond("", ours, tuned),
		perRequest("bare echo / a second bare echo (A/A)", "", again, same), perSecond("", again, same),
		perCPU("304 / bare echo's 200", ">= 1", known, same), perSecond("", known, same),
		perCPU("cached GET / stock stack", ">= 4", ours, stock), perSecond("", ours, stock),
	}
	sayf("the load generator takes %.1f us of CPU a request", median(same.each(func(s sample) float64 { return s.client })))
	few := b.pace
	few.rounds = min(few.rounds, 3)
	for _, n := range []int{1, 64} {
		takeTurns(ctx, "cached", few, n, ours, same)
		figures = append(figures, perRequest(fmt.Sprintf("cached GET / bare echo, %d clients", n), "", ours, same), perSecond("", ours, same))
	}
	return append(figures, b.allocations(ctx, answer)...)
}

// measurePeers compares the same GET with bare handlers that take the same bytes from caches of others. They have no other duty.
func measurePeers(ctx context.Context, b *readBench) (figures []figure) {
	legs := []*leg{b.cached()} //nolint:prealloc // of a few
	others := [][2]string{
		{"go-zero-memory", "go-zero's cache in the process (collection.Cache)"}, {"go-zero-redis", "go-zero's cache in Redis (stores/cache)"},
		{"rueidis", "rueidis' client-side cache"},
	}
	for _, other := range others {
		l := b.peer(ctx, other[0], bareConfig{Answer: b.answer(b.orders[0])})
		defer l.server.end()
		legs = append(legs, l)
	}
	takeTurns(ctx, "peers", b.pace, readClients, legs...)
	for i, other := range others {
		figures = append(figures, perCPU("cached GET / "+other[1], ">= 1", legs[0], legs[i+1]))
	}
	return figures
}

// measureHits replays two traces of keys at two sizes of the cache.
func measureHits(ctx context.Context, _ *readBench) (figures []figure) {
	var all []struct {
		Trace    string             `json:"trace"`
		Capacity int                `json:"capacity"`
		Ratios   map[string]float64 `json:"ratios"`
	}
	out := try(exec.CommandContext(ctx, peers, "hits").Output())
	must(json.Unmarshal(out, &all))
	for _, h := range all {
		f := figure{Name: fmt.Sprintf("hit ratio on keys of %s, %d entries: points above the best of others", h.Trace, h.Capacity), Goal: ">= -0.5", Load: loadNow()}
		ours, best := 0.0, 0.0
		for _, policy := range slices.Sorted(maps.Keys(h.Ratios)) {
			ratio := h.Ratios[policy]
			if f.Note += fmt.Sprintf("%s %.3f  ", policy, ratio); strings.HasPrefix(policy, "2Q 0") {
				ours = ratio
			} else if !strings.HasPrefix(policy, "2Q") {
				best = max(best, ratio)
			}
		}
		f.Value = round(100 * (ours - best))
		figures = append(figures, f)
	}
	return figures
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

// sink is a ResponseWriter that costs nothing.
type sink struct {
	header http.Header
	status int
	body   []byte
}

func (s *sink) Header() http.Header { return s.header }

func (s *sink) WriteHeader(status int) { s.status = status }

func (s *sink) Write(b []byte) (int, error) { s.body = b; return len(b), nil }

// WriteString implements io.StringWriter, as net/http's ResponseWriter does.
func (s *sink) WriteString(text string) (int, error) { //nolint:unparam // of io.StringWriter
	return len(text), nil
}

// cpu returns the CPU time of this process, the garbage collector's share included.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
