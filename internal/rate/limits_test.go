package rate

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/query"
)

// world is processes that share a Redis.
type world struct {
	testing.TB
	url     string
	forward atomic.Int64 // of the processes' clock
}

// process is Limits as another process would have it, and the end of it.
type process struct {
	*Limits
	w        *world
	registry *prometheus.Registry
	logs     *observer.ObservedLogs
	stop     func()
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.forward.Load())) }

// start has so many processes run.
func (w *world) start(n int) (all []*process) {
	w.Helper()
	for range n {
		client, err := query.OpenRedis(w.url)
		if err != nil {
			w.Fatal(err)
		}
		core, logs := observer.New(zap.InfoLevel)
		p := &process{w: w, registry: prometheus.NewRegistry(), logs: logs}
		p.Limits = New(Config{Redis: client, Prefix: "t:", Now: w.now, Log: zap.New(core), Registry: p.registry})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); p.Run(ctx) }()
		p.stop = sync.OnceFunc(func() { cancel(); <-done; _ = client.Close() })
		w.Cleanup(p.stop)
		all = append(all, p)
	}
	return all
}

// processes start and know of each other.
func (w *world) processes(n int) []*process {
	w.Helper()
	all := w.start(n)
	w.until(func() bool {
		return !slices.ContainsFunc(all, func(p *process) bool { return p.share.Load() != int64(n) })
	})
	return all
}

func (w *world) until(condition func() bool) {
	w.Helper()
	for deadline := time.Now().Add(15 * time.Second); !condition(); <-time.After(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.Fatal("it did not come to pass")
		}
	}
}

func (p *process) take(b *Bucket) State { return b.Take(p.w.now().Sub(p.Start())) }

// drain takes what there is at once.
func (p *process) drain(b *Bucket) (n int) {
	for p.take(b).Wait == 0 {
		n++
	}
	return n
}

// counter is the value of a counter with a label.
func (p *process) counter(name, label string) float64 {
	p.w.Helper()
	families, err := p.registry.Gather()
	if err != nil {
		p.w.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetValue() == label }) {
				return m.GetCounter().GetValue()
			}
		}
	}
	p.w.Fatalf("there is no %s of %s", name, label)
	return 0
}

// drawn waits until Redis has replied for all that was used.
func (p *process) drawn(b *Bucket) {
	p.w.Helper()
	p.w.until(func() bool { return !b.queued.Load() && b.used.Load() == b.counted.Load() && b.offline.Load() == 0 })
}

// drawnUndisturbed is drawn, but false as soon as Redis was away: what was given out then is drawn only when the bucket is used again.
func (p *process) drawnUndisturbed(b *Bucket) bool {
	p.w.Helper()
	p.w.until(func() bool {
		return !undisturbed(p) || !b.queued.Load() && b.used.Load() == b.counted.Load() && b.offline.Load() == 0
	})
	return undisturbed(p)
}

// undisturbed tells whether Redis was there all the time and replied to each draw. On a busy machine it may take longer than 50 ms.
func undisturbed(all ...*process) bool {
	return !slices.ContainsFunc(all, func(p *process) bool {
		return p.logs.Len() > 0 || p.counter("ordergate_limit_blocks_total", "failed") > 0
	})
}

// tries repeats what needs a Redis that answers in time.
func tries(t *testing.T, f func(try int) (done bool)) {
	t.Helper()
	for try := range 10 {
		if f(try) {
			return
		}
	}
	t.Fatal("it did not come to pass")
}

// left is what the shared bucket of a key has; what is asked takes up to two.
func (p *process) left(key string, limit Limit) (n int64) {
	p.w.Helper()
	p.w.until(func() bool {
		b := p.Bucket(key, limit)
		p.take(b)
		p.drawn(b)
		n = p.take(b).Left
		return b.answered.Load() > 0
	})
	return n
}

func setup(t *testing.T) (*world, *pgtest.Redis) {
	t.Helper()
	r := pgtest.NewRedis(t)
	return &world{TB: t, url: r.URL()}, r
}

// TestProcessesShareALimit: three processes under load give out the limit and what comes back, no more than the bound in any time and no less.
func TestProcessesShareALimit(t *testing.T) {
	t.Parallel()
	for _, limit := range []Limit{{Requests: 100, Window: time.Second}, {Requests: 600, Window: time.Minute}, {Requests: 2000, Window: time.Second}} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) { //nolint:paralleltest // it loads the machine
			w, _ := setup(t)
			tries(t, func(int) bool {
				all := w.processes(3)
				defer func() {
					for _, p := range all {
						p.stop()
					}
					w.forward.Add(int64(time.Hour))
				}()
				given := load(all, limit)
				b := NewBucket(limit)
				m := model{limit: limit, given: given, processes: []*modelled{{Bucket: b}}}
				most := 3*max(b.block, unconfirmed) + int64((pace+timeout)/b.interval)
				least := limit.Requests + int64((given[len(given)-1]-50*time.Millisecond)/b.interval) - 3*b.block
				if limit.Requests > 1000 {
					least = limit.Requests // a busy machine does not ask for more
				}
				t.Logf("%d were given out in %v: %.1f more than the limit in the worst time, at most %d", len(given), given[len(given)-1], m.excess(), most)
				if !undisturbed(all...) { // of what the others gave out before, a process that keeps to its share may not know
					most, least = most+limit.Requests, 0
				}
				if e := m.excess(); e > float64(most) || len(given) < int(least) {
					t.Errorf("%d were given out and at least %d should; in the worst time %.1f more than the limit, and not %d", len(given), least, e, most)
				}
				return undisturbed(all...)
			})
		})
	}
}

// load asks all processes for tokens and returns when each was given out.
func load(all []*process, limit Limit) (given []time.Duration) {
	var mu sync.Mutex
	begin := time.Now()
	var askers sync.WaitGroup
	var buckets []*Bucket
	for _, p := range all { // Redis has replied to all of them
		b := p.Bucket("key_"+all[0].id, limit)
		p.take(b)
		given = append(given, time.Since(begin))
		p.drawn(b)
		buckets = append(buckets, b)
	}
	for i, p := range all {
		b := buckets[i]
		for range 4 {
			askers.Go(func() {
				for time.Since(begin) < 1200*time.Millisecond {
					if s := p.take(b); s.Wait == 0 {
						mu.Lock()
						given = append(given, time.Since(begin))
						mu.Unlock()
					}
					<-time.After(100 * time.Microsecond)
				}
			})
		}
	}
	askers.Wait()
	slices.Sort(given)
	return given
}

// TestOneProcessGetsAll: the whole limit is for one process while the others are idle, without a refusal if no more than a block comes between two
// replies of Redis, and then the others have no more than what a process gives out before its first reply.
func TestOneProcessGetsAll(t *testing.T) { //nolint:paralleltest // what runs beside it would delay Redis's answers
	w, _ := setup(t)
	limit := Limit{Requests: 100, Window: 10 * time.Minute} // on a busy machine too no token comes back meanwhile
	tries(t, func(int) bool {
		all := w.processes(3)
		defer func() {
			for _, p := range all {
				p.stop()
			}
			w.forward.Add(int64(time.Hour))
		}()
		key, got, refused, rounds := "key_"+all[0].id, 0, 0, 0
		b := all[0].Bucket(key, limit)
		for got+refused < 100 {
			for range max(1, (100-got-refused)/6) { // a block is the 2n-th part of what is left
				if all[0].take(b).Wait == 0 {
					got++
				} else {
					refused++
				}
			}
			if !all[0].drawnUndisturbed(b) {
				return false
			}
			rounds++
		}
		empty := all[0].take(b)
		given := []int{0, 0, 0}
		var after State
		for i, p := range all[1:] {
			b := p.Bucket(key, limit)
			given[i+1] = p.drain(b)
			if !p.drawnUndisturbed(b) {
				return false
			}
			after = p.take(b)
		}
		t.Logf("%d were refused on the way of %d rounds, then the processes gave out %d", refused, rounds, given)
		if !undisturbed(all...) {
			return false
		}
		if refused > 0 {
			t.Errorf("%d of 100 were refused", refused)
		}
		if empty.Wait == 0 || given[1] > 33 || given[2] > 33 {
			t.Errorf("the bucket is empty: %+v, and then %d were given out", empty, given)
		}
		if after.Wait == 0 || after.Wait > after.Full || after.Wait > limit.Window || after.Full < limit.Window || after.Full > 2*limit.Window {
			t.Errorf("what was too much is owed: %+v", after)
		}
		return true
	})
}

// TestRedisGoesAndComesBack: without Redis each process keeps to its share, and a Redis that is back, empty, is shared again.
func TestRedisGoesAndComesBack(t *testing.T) {
	t.Parallel()
	for how, f := range map[string]struct{ away, back func(*pgtest.Redis) }{
		"killed": {(*pgtest.Redis).Kill, (*pgtest.Redis).Start},
		"frozen": {(*pgtest.Redis).Freeze, (*pgtest.Redis).Thaw},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			w, r := setup(t)
			all := w.processes(3)
			limit := Limit{Requests: 90, Window: 10 * time.Minute}
			f.away(r)
			w.until(func() bool {
				return !slices.ContainsFunc(all, func(p *process) bool { return p.share.Load() != -3 })
			})
			for _, p := range all {
				b := p.Bucket("key_1", limit)
				if n := p.drain(b); n != 30 {
					t.Errorf("its share is %d", n)
				}
				if p.counter("ordergate_limit_refusals_total", "share") == 0 {
					t.Error("the refusal does not count")
				}
			}
			last := all[0].Bucket("key_2", limit)
			n := all[0].drain(last)
			f.back(r)
			w.until(func() bool {
				return !slices.ContainsFunc(all, func(p *process) bool { return p.share.Load() != 3 })
			})
			if n += all[0].drain(last); n > 32 {
				t.Errorf("%d were given out before Redis knew of it", n)
			}
			all[0].drawn(last)
			w.until(func() bool { n := all[1].left("key_2", limit); return n > 40 && n < 64 }) // 90 without what the share lacked
			w.until(func() bool {
				return slices.Equal(messages(all[0].logs), []string{"the limits of keys are not shared: Redis is away, or takes longer than 50 ms", "the limits of keys are shared"})
			})
		})
	}
}

func messages(logs *observer.ObservedLogs) (all []string) {
	for _, l := range logs.All() {
		all = append(all, l.Message)
	}
	return all
}

// TestAFrozenRedisCostsNothing: neither requests nor memory nor goroutines, however many keys are used.
func TestAFrozenRedisCostsNothing(t *testing.T) { //nolint:paralleltest // it counts goroutines
	w, r := setup(t)
	p := w.processes(1)[0]
	r.Freeze()
	before, slowest := 0, time.Duration(0)
	for round := range 40 {
		for i := range 2000 {
			b := p.Bucket(fmt.Sprintf("key_%d_%d", round, i), Limit{Requests: 100, Window: time.Second})
			begin := time.Now()
			if s := p.take(b); s.Wait > 0 {
				t.Fatalf("refused: %+v", s)
			}
			slowest = max(slowest, time.Since(begin))
		}
		if <-time.After(50 * time.Millisecond); round == 10 {
			before = runtime.NumGoroutine()
		}
	}
	kept := 0
	for b := p.queue.Load(); b != nil; b = b.next {
		kept++
	}
	if after := runtime.NumGoroutine(); kept > 2000 || after > before+20 {
		t.Errorf("%d buckets wait for Redis, %d goroutines were %d", kept, after, before)
	}
	t.Logf("the slowest of 80000 requests took %v", slowest)
	r.Thaw()
	b := p.Bucket("key_1", Limit{Requests: 100, Window: time.Second})
	w.until(func() bool { p.take(b); return p.counter("ordergate_limit_blocks_total", "counted") > 0 })
}

// TestAFlushedRedisHearsOfTheBuckets again from the processes that use them. Another limit is another bucket, and a Redis that is sent to sleep by a flush of its
// scripts gets them again.
func TestAFlushedRedisHearsOfTheBuckets(t *testing.T) {
	t.Parallel()
	w, r := setup(t)
	all := w.processes(2)
	limit := Limit{Requests: 100, Window: 10 * time.Minute}
	b := all[0].Bucket("key_1", limit)
	w.until(func() bool { all[0].take(b); all[0].drawn(b); return b.answered.Load() > 0 && all[0].take(b).Left < 10 })
	all[0].drawn(b)
	r.Do("FLUSHALL")
	r.Do("SCRIPT FLUSH")
	tries(t, func(int) bool {
		all[0].take(b)
		all[0].drawn(b)
		return all[1].left("key_1", limit) < 12
	})
	if n := all[0].share.Load(); n != 2 && n != -2 {
		t.Errorf("%d processes", n)
	}
	if s := all[0].take(all[0].Bucket("key_1", Limit{Requests: 1000, Window: 10 * time.Minute})); s.Left != 999 {
		t.Errorf("of another limit %d are left", s.Left)
	}
	if ttl, ok := r.Do("PTTL t:rate:{key_1:100:600}").(int64); !ok || ttl <= 0 || ttl > 600_000 {
		t.Errorf("the bucket lives %v ms", ttl)
	}
}

// TestAProcessThatEndsIsNotCounted: at once if it says so, else after a while.
func TestAProcessThatEndsIsNotCounted(t *testing.T) {
	t.Parallel()
	w, r := setup(t)
	all := w.processes(2)
	all[1].stop()
	if n := r.Do("ZCARD t:processes"); n != int64(1) {
		t.Errorf("Redis knows %v", n)
	}
	if n := all[0].share.Load(); n != 2 {
		t.Errorf("it is believed at once: %d", n)
	}
	w.forward.Store(int64(goneAfter + time.Second))
	w.until(func() bool { return all[0].share.Load() == 1 })
}

// TestACluster has the buckets of all keys, wherever they are.
func TestACluster(t *testing.T) {
	t.Parallel()
	w := &world{TB: t, url: pgtest.NewRedisCluster(t).URL}
	all := w.processes(2)
	limit := Limit{Requests: 30, Window: 10 * time.Minute}
	for i := range 20 {
		key := fmt.Sprint("key_", i)
		b := all[0].Bucket(key, limit)
		w.until(func() bool { all[0].take(b); all[0].drawn(b); return all[0].take(b).Left < 15 })
		all[0].drawn(b)
		if n := all[1].left(key, limit); n > 15 {
			t.Errorf("%s: %d are left", key, n)
		}
	}
}

// TestAUserOfRedisWithFewRights needs no more than docs/running.md says.
func TestAUserOfRedisWithFewRights(t *testing.T) {
	t.Parallel()
	w, r := setup(t)
	r.Do("ACL SETUSER few on >few ~* +info +get +set +eval +evalsha +ping +time +zadd +zcard +zrem +zremrangebyscore +pexpire")
	w.url = "redis://few:few@" + r.Addr
	p := w.processes(1)[0]
	b := p.Bucket("key_1", Limit{Requests: 100, Window: time.Minute})
	tries(t, func(int) bool {
		p.take(b)
		p.drawn(b)
		return p.counter("ordergate_limit_blocks_total", "counted") > 0
	})
	w.until(func() bool { return p.share.Load() > 0 })
	if p.stop(); r.Do("ZCARD t:processes") != int64(0) {
		t.Error("the process is counted after its end")
	}
}

// TestADrawIsSentOnce: it took effect perhaps when its connection breaks, and would count twice.
func TestADrawIsSentOnce(t *testing.T) {
	t.Parallel()
	w, r := setup(t)
	direct, err := query.OpenRedis(w.url)
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close()
	if err = draw.Load(t.Context(), direct).Err(); err != nil {
		t.Fatal(err)
	}
	var draws atomic.Int64
	client, err := query.OpenRedis(strings.Replace(w.url, r.Addr, breaking(t, r.Addr, &draws), 1))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	l := New(Config{Redis: client, Prefix: "t:", Now: w.now, Log: zap.NewNop(), Registry: prometheus.NewRegistry()})
	l.share.Store(1)
	b := l.Bucket("key_1", Limit{Requests: 10, Window: 10 * time.Minute})
	b.Take(w.now().Sub(l.Start()))
	l.drawAll(t.Context())
	if draws.Load() != 1 {
		t.Errorf("it is sent %d times", draws.Load())
	}
	w.until(func() bool { ttl, _ := r.Do("PTTL t:rate:{key_1:10:600}").(int64); return ttl > 0 })
	if ttl, _ := r.Do("PTTL t:rate:{key_1:10:600}").(int64); ttl > 60_000 {
		t.Errorf("one token comes back in %d ms", ttl)
	}
}

// TestARedisThatIsFar is shared from the first beat on, and again when its connections were lost: those take several round trips.
func TestARedisThatIsFar(t *testing.T) {
	t.Parallel()
	w, r := setup(t)
	w.url = strings.Replace(w.url, r.Addr, far(t, r.Addr, 10*time.Millisecond), 1)
	limit := Limit{Requests: 100, Window: 10 * time.Minute}
	tries(t, func(try int) bool {
		all := w.start(2)
		defer func() {
			for _, p := range all {
				p.stop()
			}
		}()
		for _, p := range all {
			<-p.Joined()
			if !p.Shared() { // on a busy machine
				return false
			}
		}
		r.Do("CLIENT KILL TYPE normal SKIPME yes")
		key := fmt.Sprint("key_", try)
		b := all[0].Bucket(key, limit)
		counted := func() float64 { return all[0].counter("ordergate_limit_blocks_total", "counted") }
		before := counted()
		w.until(func() bool { all[0].take(b); return counted() >= before+3 })
		w.until(func() bool { return all[0].Shared() && all[1].Shared() })
		return true
	})
}

// far is a way to Redis on which everything takes so long, each way.
func far(t *testing.T, to string, delay time.Duration) (addr string) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); running.Wait() })
	type piece struct {
		due  time.Time
		data []byte
	}
	pass := func(from, to net.Conn) {
		pieces := make(chan piece, 1000)
		running.Go(func() {
			defer to.Close()
			for p := range pieces {
				<-time.After(time.Until(p.due))
				_, _ = to.Write(p.data)
			}
		})
		defer close(pieces)
		for {
			data := make([]byte, 4096)
			n, err := from.Read(data)
			if err != nil {
				return
			}
			pieces <- piece{time.Now().Add(delay), data[:n]}
		}
	}
	running.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := (&net.Dialer{}).DialContext(context.WithoutCancel(t.Context()), "tcp", to)
			if err != nil {
				_ = client.Close()
				continue
			}
			running.Go(func() { pass(client, server) })
			running.Go(func() { pass(server, client) })
		}
	})
	return l.Addr().String()
}

// TestLimitsThatWereNeverSharedAreLogged: once when that begins, and once when it ends. A process that starts knows it before it serves.
func TestLimitsThatWereNeverSharedAreLogged(t *testing.T) {
	t.Parallel()
	w, r := setup(t)
	r.Freeze()
	p := w.start(1)[0]
	<-p.Joined()
	if got := messages(p.logs); p.Shared() || !slices.Equal(got, []string{"the limits of keys are not shared: Redis is away, or takes longer than 50 ms"}) {
		t.Errorf("shared: %v, logged: %q", p.Shared(), got)
	}
	r.Thaw()
	w.until(p.Shared)
	w.until(func() bool { return slices.Equal(messages(p.logs)[1:], []string{"the limits of keys are shared"}) })
}

// TestNoRequestWaitsForRedis: beside a Redis that never replies a burst gets the share of a process at once, and then is refused at once.
func TestNoRequestWaitsForRedis(t *testing.T) {
	t.Parallel()
	w, r := setup(t)
	tries(t, func(int) bool {
		p := w.start(1)[0]
		defer p.stop()
		<-p.Joined()
		p.share.Store(3) // as if there were two more
		r.Freeze()
		defer r.Thaw()
		b := p.Bucket("key_1", Limit{Requests: 300, Window: 10 * time.Minute})
		begin := time.Now()
		n := p.drain(b)
		took := time.Since(begin)
		if p.share.Load() != 3 || took > 20*time.Millisecond { // a beat, or a busy machine
			return false
		}
		if n != 100 {
			t.Errorf("%d were given out in %v", n, took)
		}
		return true
	})
}

// breaking is a way to Redis whose connections break after each draw, before its answer.
func breaking(t *testing.T, to string, draws *atomic.Int64) (addr string) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); running.Wait() })
	pass := func(client net.Conn) {
		defer client.Close()
		server, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", to)
		if err != nil {
			return
		}
		defer server.Close()
		running.Go(func() { defer client.Close(); _, _ = io.Copy(client, server) })
		for b := make([]byte, 4096); ; {
			n, err := client.Read(b)
			if err != nil {
				return
			}
			if bytes.Contains(b[:n], []byte("evalsha")) {
				draws.Add(1)
				_ = client.Close()
				_, _ = server.Write(b[:n])
				<-time.After(5 * time.Millisecond) // it takes effect
				return
			}
			if _, err = server.Write(b[:n]); err != nil {
				return
			}
		}
	}
	running.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { pass(client) })
		}
	})
	return l.Addr().String()
}
