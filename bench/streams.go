package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ordergate/ordergate/gen/api"
)

const (
	openStreams   = 2000
	streamKB      = 40  // of each, at most
	streamMS      = 100 // from the answer of a write to its event at each client, at most
	streamWriters = 32
	mostFor       = 4 * time.Second // how long it is measured what the machine manages
	halfFor       = 8 * time.Second // and then half of that
)

// measureStreams opens streams on a serve process of its own, looks at what they cost it, and at how soon an event is with all its readers while half as
// many events are written as the machine can deliver: first each stream has an order of its own, then all have the same one.
func measureStreams(ctx context.Context, g *gateway) (figures []figure) {
	ids := g.placeMany(ctx, openStreams)
	for _, c := range []struct {
		name    string
		ids     []string
		writers int
	}{{"2,000 orders", ids, streamWriters}, {"one order", slices.Repeat(ids[:1], openStreams), 1}} {
		figures = append(figures, g.openAll(ctx, c.name, c.ids, c.writers)...)
	}
	return figures
}

// placeMany places orders and returns their ids.
func (g *gateway) placeMany(ctx context.Context, n int) (ids []string) {
	var mu sync.Mutex
	var begun atomic.Int64
	overHTTP(ctx, g.addr, streamWriters, func() bool { return begun.Add(1) <= int64(n) }, func(client int, w *wire) error {
		err := g.send(client, w)
		if err == nil {
			var placed api.Order
			err = json.Unmarshal(w.body, &placed)
			mu.Lock()
			ids = append(ids, placed.ID)
			mu.Unlock()
		}
		return err
	})
	if len(ids) != n {
		must(fmt.Errorf("%d orders of %d were placed", len(ids), n))
	}
	return ids
}

func (g *gateway) openAll(ctx context.Context, name string, ids []string, writers int) []figure {
	s := g.streamServer(ctx)
	defer s.end()
	for _, id := range ids { // the caches have each order, and the pools their connections, before any stream
		must(s.control.do(fmt.Appendf(nil, "GET /v1/orders/%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", id, g.key)))
	}
	s.collect()
	before := s.memory()
	l := &listeners{events: make([]event, 1<<18), each: int64(len(ids))}
	if writers > 1 {
		l.each = 1
	}
	begin := time.Now()
	l.open(s.addr, g.key, ids)
	sayf("%d streams of %s were opened in %.1f s", len(ids), name, time.Since(begin).Seconds())
	<-time.After(2 * time.Second)
	opened := s.memory()
	s.collect()
	settled := s.memory()
	must(os.WriteFile("/dev/shm/streams-heap-"+strconv.Itoa(writers)+".pb.gz", s.get("/debug/pprof/heap?gc=1"), 0o644))
	must(os.WriteFile("/dev/shm/streams-gor-"+strconv.Itoa(writers)+".txt", s.get("/debug/pprof/goroutine?debug=1"), 0o644))
	write := func(client int, w *wire) *event {
		n := l.next.Add(1)
		e := &l.events[n]
		e.left.Store(l.each)
		e.all = make(chan struct{})
		body := fmt.Sprintf(`{"metadata":{"n":"%d"}}`, n)
	again:
		must(w.do(fmt.Appendf(nil, "PATCH /v1/orders/%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nIf-Match: *\r\n"+
			"Content-Type: application/merge-patch+json\r\nContent-Length: %d\r\n\r\n%s", ids[int(n)%len(ids)], g.key, len(body), body)))
		if bytes.Contains(w.body, []byte(`"retryable":true`)) {
			goto again
		}
		if !w.hasStatus("200") {
			must(fmt.Errorf("update over HTTP: %s%s", w.head, w.body))
		}
		e.answered = time.Now()
		return e
	}
	most := overHTTP(ctx, s.addr, writers, func() bool {
		return time.Since(begin) < mostFor+20*time.Second && l.next.Load() < 1<<17 && time.Since(l.begun()) < mostFor
	}, func(client int, w *wire) error {
		e := write(client, w)
		<-e.all
		return nil
	})
	sayf("%s: %.0f events/s are delivered at most", name, most)
	first := l.next.Load() + 1
	var wg sync.WaitGroup
	tick := time.NewTicker(time.Duration(float64(time.Second) / (most / 2)))
	half := time.Now()
	for range 2 * writers {
		w := dial(s.addr)
		wg.Go(func() {
			defer w.Close()
			for time.Since(half) < halfFor {
				<-tick.C
				write(0, w)
			}
		})
	}
	wg.Wait()
	tick.Stop()
	last := l.next.Load()
	for n := first; n <= last; n++ {
		<-l.events[n].all
	}
	loaded := s.memory()
	s.collect()
	after := s.memory()
	var delays []float64
	for _, r := range l.readers {
		for _, a := range r.arrived {
			if a.n >= first && a.n <= last {
				delays = append(delays, float64(a.at.Sub(l.events[a.n].answered).Microseconds())/1000)
			}
		}
	}
	slices.Sort(delays)
	at := func(q float64) float64 { return delays[min(len(delays)-1, int(q*float64(len(delays))))] }
	each := func(kb float64) float64 { return kb / float64(len(ids)) }
	sayf("%s: at rest %.1f KB RSS each (after a collection %.1f); heap %.1f + stacks %.1f KB each after a collection; after the load RSS %.1f KB, heap %.1f + stacks %.1f KB each; %.1f goroutines each",
		name, each(opened.rss-before.rss), each(settled.rss-before.rss), each(settled.heap-before.heap), each(settled.stacks-before.stacks),
		each(loaded.rss-before.rss), each(after.heap-before.heap), each(after.stacks-before.stacks), each(settled.goroutines-before.goroutines))
	sayf("%s: %.0f events/s for %s: %d deliveries, p50 %.1f, p99 %.1f, max %.1f ms after the answer of the write", name, float64(last-first+1)/halfFor.Seconds(), halfFor, len(delays), at(.5), at(.99), at(1))
	l.close()
	return nil
}

func (l *listeners) begun() time.Time {
	if l.firstAt.IsZero() {
		l.firstAt = time.Now()
	}
	return l.firstAt
}

// streamServer is a serve process of which we know the process.
type streamServer struct {
	addr, admin string
	cmd         *exec.Cmd
	control     *wire
	end         func()
}

func (g *gateway) streamServer(ctx context.Context) *streamServer {
	s := &streamServer{addr: freeAddr(), admin: freeAddr()}
	ctx, cancel := context.WithCancel(ctx)
	s.cmd = exec.CommandContext(ctx, program, "serve")
	s.cmd.Env = append(slices.Clip(g.env), "ORDERGATE_ADDR="+s.addr, "ORDERGATE_ADMIN_ADDR="+s.admin)
	must(s.cmd.Start())
	await(s.addr)
	s.control = dial(s.addr)
	s.end = func() { cancel(); _ = s.cmd.Wait() }
	return s
}

func (s *streamServer) get(path string) []byte {
	r := try(http.Get("http://" + s.admin + path))
	defer r.Body.Close()
	return try(io.ReadAll(r.Body))
}

func (s *streamServer) collect() {
	for range 3 { // a stack is halved by each collection
		s.get("/debug/pprof/heap?gc=1")
	}
}

// memory of a process in KB.
type memory struct{ rss, heap, stacks, goroutines float64 }

func (s *streamServer) memory() (m memory) {
	metrics := s.get("/metrics")
	value := func(name string) float64 {
		_, rest, _ := bytes.Cut(metrics, []byte("\n"+name+" "))
		line, _, _ := bytes.Cut(rest, []byte("\n"))
		return try(strconv.ParseFloat(string(line), 64))
	}
	m.heap, m.stacks, m.goroutines = value("go_memstats_heap_inuse_bytes")/1024, value("go_memstats_stack_inuse_bytes")/1024, value("go_goroutines")
	_, _ = fmt.Sscan(proc(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid), "VmRSS:"), &m.rss)
	return m
}

// event is a change that we wrote.
type event struct {
	answered time.Time
	left     atomic.Int64 // readers that do not have it
	all      chan struct{}
}

type arrival struct {
	n  int64
	at time.Time
}

type listeners struct {
	next    atomic.Int64
	firstAt time.Time
	events  []event
	each    int64 // readers of an event
	readers []*listener
}

type listener struct {
	*wire
	arrived []arrival
}

func (l *listeners) open(addr, key string, ids []string) {
	l.readers = make([]*listener, len(ids))
	var wg sync.WaitGroup
	limit := make(chan struct{}, 64)
	for i, id := range ids {
		limit <- struct{}{}
		r := &listener{wire: dial(addr)}
		l.readers[i] = r
		wg.Add(1)
		go func() {
			_ = try(fmt.Fprintf(r, "GET /v1/orders/%s/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", id, key))
			opened := false
			for {
				line, err := r.in.ReadSlice('\n')
				if err != nil {
					return
				}
				if !opened && bytes.HasPrefix(line, []byte("data: {")) && bytes.Contains(line, []byte("order.created")) {
					opened = true
					wg.Done()
					<-limit
				}
				if _, rest, is := bytes.Cut(line, []byte(`"metadata":{"n":"`)); is {
					text, _, _ := bytes.Cut(rest, []byte(`"`))
					n := int64(try(strconv.Atoi(string(text))))
					r.arrived = append(r.arrived, arrival{n, time.Now()})
					if l.events[n].left.Add(-1) == 0 {
						close(l.events[n].all)
					}
				}
			}
		}()
	}
	wg.Wait()
}

func (l *listeners) close() {
	for _, r := range l.readers {
		_ = r.Close()
	}
}

var _ = math.Round
