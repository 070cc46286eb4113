package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ordergate/ordergate/gen/api"
)

const (
	streamWriters = 32
	maxEvents     = 1 << 17 // of one measurement
)

// streamPace is how many streams are open, and how long it is measured what the machine manages and then half of it. A stream ends after 60 s.
type streamPace struct {
	streams    int
	most, half time.Duration
}

// measureStreams opens streams, looks at what they cost the process, and at how soon an event is with all its readers while half as many are
// written as can be delivered: first each stream has an order of its own, then all of them have the same one.
func measureStreams(ctx context.Context, b *readBench) []figure {
	pace := streamPace{2000, 4 * time.Second, 10 * time.Second}
	if b.pace.rounds == quick.rounds {
		pace = streamPace{100, 200 * time.Millisecond, 500 * time.Millisecond}
	}
	orders := b.placeOrders(ctx, pace.streams)
	return slices.Concat(
		b.streamsOf(ctx, pace, "on as many orders", orders, streamWriters),
		b.streamsOf(ctx, pace, "on one order", slices.Repeat(orders[:1], pace.streams), 1),
	)
}

// placeOrders places orders and returns their paths.
func (b *readBench) placeOrders(ctx context.Context, n int) []string {
	paths, next := make([]string, n), atomic.Int64{}
	overHTTP(ctx, b.addr, streamWriters, func() bool { return next.Load() < int64(n) }, func(client int, w *wire) error {
		i := next.Add(1) - 1
		if i >= int64(n) {
			return nil
		}
		err := b.send(client, w)
		for errors.Is(err, errRefused) {
			err = b.send(client, w)
		}
		var placed api.Order
		if err == nil {
			err = json.Unmarshal(w.body, &placed)
		}
		paths[i] = "/v1/orders/" + placed.ID
		return err
	})
	return paths
}

// streamsOf measures a serve process of its own. Before a stream is opened the process has read each order, so that its caches and connections are
// no growth.
func (b *readBench) streamsOf(ctx context.Context, pace streamPace, name string, orders []string, writers int) []figure {
	addr := freeAddr()
	server := b.child(ctx, addr, []string{"ORDERGATE_ADDR=" + addr}, program, "serve")
	defer server.end()
	var read atomic.Int64
	overHTTP(ctx, server.addr, readClients, func() bool { return read.Load() < int64(3*len(orders)) }, func(_ int, w *wire) error {
		path := orders[int(read.Add(1))%len(orders)]
		return w.do(fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", path, server.addr, b.authorization()))
	})
	server.collect()
	before := server.memory()
	d := &delivery{bench: b, addr: server.addr, orders: orders, readers: int64(len(orders)), events: make([]event, maxEvents)}
	if writers > 1 {
		d.readers = 1
	}
	listeners := d.open()
	<-time.After(time.Second)
	atRest := server.memory()
	server.collect()
	live := server.memory()

	most := overHTTP(ctx, server.addr, writers, d.until(pace.most), func(_ int, w *wire) error {
		e, err := d.write(w)
		if err == nil {
			<-e.everywhere
		}
		return err
	})
	first := d.next.Load() + 1
	d.pace(ctx, 2*writers, most/2, pace.half)
	last := d.next.Load()
	for n := first; n <= last; n++ {
		<-d.events[n].everywhere
	}
	loaded := server.memory()
	var delays []float64
	for _, l := range listeners {
		_ = l.Close()
		<-l.ended
		for _, a := range l.arrived {
			if first <= a.event && a.event <= last {
				delays = append(delays, float64(a.at.Sub(d.events[a.event].answered).Microseconds())/1000)
			}
		}
	}
	slices.Sort(delays)
	quantile := func(q float64) string { return short(delays[int(q*float64(len(delays)-1))]) }
	each := func(kb float64) float64 { return round(kb / float64(len(orders))) }
	name = fmt.Sprintf("%d streams %s", len(orders), name)
	return []figure{
		{Name: name + ": heap and stack of each, KB", Value: each(live.heap + live.stack - before.heap - before.stack), Goal: "<= 40", Load: loadNow(),
			Note: fmt.Sprintf("heap %s, stack %s, %s goroutines", short(each(live.heap-before.heap)), short(each(live.stack-before.stack)), short(each(live.goroutines-before.goroutines)))},
		{Name: name + ": RSS of each, KB", Value: each(atRest.rss - before.rss), Goal: "<= 40", Load: loadNow(),
			Note: fmt.Sprintf("after the events %s; GOGC %s", short(each(loaded.rss-before.rss)), short(before.gogc))},
		{Name: name + ": from a write's answer to the event at the last client, ms", Value: delays[len(delays)-1], Goal: "<= 100", Load: loadNow(),
			Note: fmt.Sprintf("p50 %s, p99 %s; %s events/s of at most %s", quantile(.5), quantile(.99), short(float64(last-first+1)/pace.half.Seconds()), short(most))},
	}
}

// delivery knows which events were written, and who has them.
type delivery struct {
	bench   *readBench
	addr    string
	orders  []string
	readers int64 // of an event
	next    atomic.Int64
	events  []event // by number
}

type event struct {
	answered   time.Time
	left       atomic.Int64 // readers that do not have it
	everywhere chan struct{}
}

// until is over when a time is, or when there are too many events.
func (d *delivery) until(most time.Duration) func() bool {
	begin, full := time.Now(), d.next.Load()+maxEvents/2
	return func() bool { return time.Since(begin) < warmFor+most && d.next.Load() < full }
}

// write makes the next event.
func (d *delivery) write(w *wire) (*event, error) {
	n := d.next.Add(1)
	e := &d.events[n]
	e.left.Store(d.readers)
	e.everywhere = make(chan struct{})
	body := fmt.Sprintf(`{"metadata":{"n":"%d"}}`, n)
	request := fmt.Appendf(nil, "PATCH %s HTTP/1.1\r\nHost: %s\r\n%sIf-Match: *\r\nContent-Type: application/merge-patch+json\r\nContent-Length: %d\r\n\r\n%s",
		d.orders[int(n)%len(d.orders)], d.addr, d.bench.authorization(), len(body), body)
	for {
		switch err := w.do(request); {
		case err != nil:
			return nil, err
		case w.hasStatus("200"):
			e.answered = time.Now()
			return e, nil
		case !bytes.Contains(w.body, []byte(`"retryable":true`)):
			return nil, fmt.Errorf("update over HTTP: %s%s", w.head, w.body)
		}
	}
}

// pace makes so many events a second, however late the one before is.
func (d *delivery) pace(ctx context.Context, writers int, rate float64, lasts time.Duration) {
	due := make(chan struct{}, maxEvents)
	var all errgroup.Group
	for range writers {
		w := dial(d.addr)
		all.Go(func() error {
			defer func() { _ = w.Close() }()
			for range due {
				if _, err := d.write(w); err != nil {
					return err
				}
			}
			return nil
		})
	}
	tick := time.NewTicker(time.Duration(float64(time.Second) / rate))
	defer tick.Stop()
	for begin := time.Now(); time.Since(begin) < lasts && ctx.Err() == nil; <-tick.C {
		due <- struct{}{}
	}
	close(due)
	must(all.Wait())
	must(ctx.Err())
}

// listener reads one stream.
type listener struct {
	*wire
	arrived []arrival
	ended   chan struct{}
}

type arrival struct {
	event int64
	at    time.Time
}

// open opens a stream of each order, and returns when each has had its first event.
func (d *delivery) open() []*listener {
	var opening errgroup.Group
	opening.SetLimit(readClients)
	listeners := make([]*listener, len(d.orders))
	for i, path := range d.orders {
		opening.Go(func() error {
			l := &listener{wire: dial(d.addr), ended: make(chan struct{})}
			listeners[i] = l
			begun := make(chan struct{})
			_, err := fmt.Fprintf(l, "GET %s/stream HTTP/1.1\r\nHost: %s\r\n%s\r\n", path, d.addr, d.bench.authorization())
			go d.listen(l, begun)
			<-begun
			return err
		})
	}
	must(opening.Wait())
	return listeners
}

func (d *delivery) listen(l *listener, begun chan struct{}) {
	defer close(l.ended)
	for opened := false; ; {
		line, err := l.in.ReadSlice('\n')
		if err != nil {
			return
		}
		if !opened && bytes.HasPrefix(line, []byte("event: order.created")) {
			opened = true
			close(begun)
		}
		if _, rest, is := bytes.Cut(line, []byte(`"metadata":{"n":"`)); is {
			digits, _, _ := bytes.Cut(rest, []byte(`"`))
			n := try(strconv.ParseInt(string(digits), 10, 64))
			l.arrived = append(l.arrived, arrival{n, time.Now()})
			if e := &d.events[n]; e.left.Add(-1) == 0 {
				close(e.everywhere)
			}
		}
	}
}

// memory is what a process uses, in KB.
type memory struct{ rss, heap, stack, goroutines, gogc float64 }

func (p *process) memory() (m memory) {
	_, err := fmt.Sscan(proc(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid), "VmRSS:"), &m.rss)
	must(err)
	for name, value := range map[string]*float64{"go_memstats_heap_inuse_bytes": &m.heap, "go_memstats_stack_inuse_bytes": &m.stack, "go_goroutines": &m.goroutines, "go_gc_gogc_percent": &m.gogc} {
		*value = p.metric(name)
	}
	m.heap, m.stack = m.heap/1024, m.stack/1024
	return m
}

// collect collects the garbage of a process: three times, as a stack is halved once in each.
func (p *process) collect() {
	for range 3 {
		r, err := http.Get("http://" + p.admin + "/debug/pprof/heap?gc=1")
		must(err)
		_, _ = io.Copy(io.Discard, r.Body)
		_ = r.Body.Close()
	}
}
