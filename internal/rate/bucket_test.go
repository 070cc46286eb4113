package rate

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
	"pgregory.net/rapid"

	"github.com/ordergate/ordergate/internal/pgtest"
)

// TestABucketEmptiesAndFillsAgain: a full bucket has the whole limit, each interval gives one back, and never is there more than the limit.
func TestABucketEmptiesAndFillsAgain(t *testing.T) {
	const ms = time.Millisecond
	l := NewBucket(Limit{Requests: 4, Window: 2 * time.Second}) // one each 500 ms
	for i, c := range []struct {
		at, full, wait time.Duration
		left           int64
	}{
		{0, 500 * ms, 0, 3},
		{0, 1000 * ms, 0, 2},
		{0, 1500 * ms, 0, 1},
		{0, 2000 * ms, 0, 0},
		{0, 2000 * ms, 500 * ms, 0},
		{499 * ms, 1501 * ms, 1 * ms, 0}, // refusals cost nothing
		{500 * ms, 2000 * ms, 0, 0},
		{1250 * ms, 1750 * ms, 0, 0}, // half a token is left over
		{1500 * ms, 2000 * ms, 0, 0},
		{time.Hour, 500 * ms, 0, 3},
	} {
		if s := l.Take(c.at); s != (State{Left: c.left, Full: c.full, Wait: c.wait}) {
			t.Errorf("%d: at %v: %+v", i, c.at, s)
		}
	}
	if NewBucket(Limit{Window: time.Second}) != nil {
		t.Error("no requests are a limit")
	}
	for _, q := range []int64{3, 7, 999, 1_000_000} { // an interval that is no whole number of ns
		l, n := NewBucket(Limit{Requests: q, Window: time.Second}), int64(0)
		for l.Take(0).Wait == 0 {
			n++
		}
		if n != q {
			t.Errorf("%d of %d at once", n, q)
		}
		for at := time.Duration(0); at < time.Second; at += l.interval / 2 {
			if l.Take(at).Wait == 0 {
				n++
			}
		}
		if n > 2*q || n < 2*q-2 {
			t.Errorf("%d of %d in the first second", n, 2*q)
		}
	}
}

// TestABucketUnderManyCallers: however many take at once while the time goes on, no more than the limit and what came back is given out, and no
// less if they take enough.
func TestABucketUnderManyCallers(t *testing.T) {
	t.Parallel()
	const callers, tries = 32, 5000
	for _, limit := range []Limit{{100, time.Second}, {7, time.Minute}, {50_000, time.Second}} {
		l := NewBucket(limit)
		var now, given atomic.Int64
		var all sync.WaitGroup
		for range callers {
			all.Go(func() {
				for range tries {
					if l.Take(time.Duration(now.Add(int64(limit.Window)/(callers*tries)))).Wait == 0 { // one window in all
						given.Add(1)
					}
				}
			})
		}
		all.Wait()
		most := limit.Requests + now.Load()/int64(l.interval)
		least := min(most-1, callers*tries) // an instant that was read before another's
		if n := given.Load(); n > most || n < least-callers {
			t.Errorf("%d per %v: %d of %d were given", limit.Requests, limit.Window, n, most)
		}
	}
}

func TestABucketAllocatesNothing(t *testing.T) {
	l := shared(3)
	for name, b := range map[string]*Bucket{"alone": NewBucket(Limit{Requests: 100, Window: time.Second}), "shared": l.Bucket("key_1", Limit{Requests: 100, Window: time.Second})} {
		if n := testing.AllocsPerRun(1000, func() { b.Take(0) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// What was taken just before Redis was away comes back meanwhile like all else: a key does not owe it when Redis is back.
func TestWhatRedisWasNotToldIsNotOwedForEver(t *testing.T) {
	l := shared(1)
	b := l.Bucket("key_1", Limit{Requests: 100, Window: time.Minute})
	for range 50 {
		b.Take(0)
	}
	l.share.Store(-1)
	l.drawAll(t.Context())
	l.share.Store(1)
	b.Take(time.Hour)
	after := &bucketDraw{Bucket: b}
	after.prepare(time.Hour)
	if drawn, _ := after.args[0].(int64); drawn > 2*b.interval.Microseconds() { // of the one that was taken now, and of one that may be missing
		t.Errorf("%v us are drawn, and one token is %v", drawn, b.interval)
	}
}

// shared is Limits of so many processes, whose Run has yet to begin.
func shared(n int64) *Limits {
	l := New(Config{Now: time.Now, Log: zap.NewNop(), Registry: prometheus.NewRegistry()})
	l.share.Store(n)
	return l
}

func BenchmarkTake(b *testing.B) {
	bench := func(name string, l *Limits, limit Limit) {
		bucket, start := l.Bucket("key_1", limit), time.Now()
		if l != nil {
			start = l.Start()
		}
		b.Run(name+"/one", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				bucket.Take(time.Since(start))
			}
		})
		b.Run(name+"/many", func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(8)
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					bucket.Take(time.Since(start))
				}
			})
		})
	}
	plenty, few := Limit{Requests: 1e9, Window: time.Second}, Limit{Requests: 100, Window: time.Second}
	bench("alone", nil, plenty)
	bench("alone and refused", nil, few)
	w := &world{TB: b, url: pgtest.NewRedis(b).URL()}
	bench("shared", w.processes(1)[0].Limits, plenty)
	w = &world{TB: b, url: pgtest.NewRedis(b).URL()}
	one := w.processes(3)[0].Limits
	bench("one of three", one, plenty)
	bench("one of three and refused", one, few)
	bench("its share", shared(-3), plenty)
}

// model is processes that share the bucket of a key, with a clock and a Redis of its own.
type model struct {
	limit     Limit
	now       time.Duration
	full      int64 // the shared bucket, in µs
	processes []*modelled
	given     []time.Duration // when a token was given out
}

type modelled struct {
	*Bucket
	last       time.Duration // the last draw began
	sent       *bucketDraw   // that is under way
	at         time.Duration // it was sent
	acts, ends time.Duration // Redis acts on it, and its answer is there
	acted      bool
}

func newModel(limit Limit, n int) *model {
	m := &model{limit: limit, now: time.Hour}
	for range n {
		m.processes = append(m.processes, &modelled{Bucket: shared(int64(n)).Bucket("key_1", limit)})
	}
	return m
}

// draw is the script.
func (m *model) draw(args []any) *redis.Cmd {
	arg := func(i int) int64 { return args[i].(int64) }
	now := int64(m.now / time.Microsecond)
	m.full = max(m.full, min(arg(2), now+arg(3)), now-arg(1)) + arg(0)
	return redis.NewCmdResult([]any{m.full, now}, nil)
}

// left is what the shared bucket would have if it knew all.
func (m *model) left() int64 {
	interval := m.processes[0].interval
	left := m.limit.Requests - int64((max(0, time.Duration(m.full)*time.Microsecond-m.now)+interval-1)/interval)
	for _, p := range m.processes {
		left -= p.used.Load() - p.counted.Load()
		if p.sent != nil && p.acted {
			left += p.sent.tokens
		}
	}
	return left
}

// step lets what is due come to pass. delay is how long a message takes.
func (m *model) step(delay func() time.Duration) {
	for _, p := range m.processes {
		l := p.limits
		if p.sent != nil && !p.acted && m.now >= p.acts {
			p.sent.cmd, p.acted = m.draw(p.sent.args), true
		}
		if p.sent != nil && p.acted && m.now >= p.ends {
			p.sent.apply(p.at)
			p.sent = nil
		}
		due := m.now-p.last >= pace || len(l.pressed) > 0 && m.now-p.last >= hurried
		if p.sent == nil && due && l.queue.Load() != nil {
			<-l.filled
			if len(l.pressed) > 0 {
				<-l.pressed
			}
			l.queue.Store(nil)
			p.sent, p.acted, p.last, p.at = &bucketDraw{Bucket: p.Bucket}, false, m.now, m.now
			p.sent.prepare(m.now)
			p.acts = m.now + delay()
			p.ends = p.acts + delay()
		}
	}
}

// advance lets a time pass.
func (m *model) advance(d time.Duration, delay func() time.Duration) {
	for ; d > 0; m.step(delay) {
		by := d
		if slices.ContainsFunc(m.processes, func(p *modelled) bool { return p.sent != nil || p.limits.queue.Load() != nil }) {
			by = min(d, time.Millisecond/4)
		}
		m.now += by
		d -= by
	}
}

// take has a process ask for tokens until it has so many or is refused.
func (m *model) take(p *modelled, n int) (got int, s State) {
	for got < n {
		if s = p.Take(m.now); s.Wait > 0 {
			return got, s
		}
		m.given = append(m.given, m.now)
		got++
	}
	return got, s
}

// excess is by how much more was given out in the worst time than the limit and what came back in it.
func (m *model) excess() float64 {
	worst, interval := 0.0, float64(m.processes[0].interval)
	first := math.Inf(-1)
	for i, at := range m.given {
		first = max(first, float64(at)/interval-float64(i))
		worst = max(worst, float64(i+1)+first-float64(at)/interval-float64(m.limit.Requests))
	}
	return worst
}

// TestTheBoundOfSharedBuckets: whoever asks when, and however long Redis takes, the processes together keep to what Limits promises. A process is
// refused for want of a block alone if it has given out what it may, and for want of tokens alone if others than it and Redis's delay used them.
func TestTheBoundOfSharedBuckets(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "processes")
		limit := rapid.SampledFrom([]Limit{{5, time.Minute}, {100, time.Second}, {1000, time.Minute}, {2000, time.Second}, {30, time.Second}}).Draw(t, "limit")
		slow := rapid.SampledFrom([]time.Duration{200 * time.Microsecond, 2 * time.Millisecond, 24 * time.Millisecond}).Draw(t, "delay")
		m := newModel(limit, n)
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		delay := func() time.Duration { return time.Duration(random.Int64N(int64(slow))) }
		known := rapid.Bool().Draw(t, "known") // Redis has replied to all of them
		if known {
			for _, p := range m.processes {
				p.Take(m.now)
			}
			m.advance(2*limit.Window, delay)
		}
		for range rapid.IntRange(1, 60).Draw(t, "phases") {
			asks := rapid.SliceOfNDistinct(rapid.IntRange(0, n-1), 0, n, rapid.ID[int]).Draw(t, "who")
			many := rapid.SampledFrom([]int{1, 3, 30, 5000}).Draw(t, "many")
			length := rapid.SampledFrom([]time.Duration{0, 5 * time.Millisecond, 60 * time.Millisecond, limit.Window / 3, 2 * limit.Window}).Draw(t, "length")
			steps := 1 + min(length/time.Millisecond, 40)
			for range steps {
				for _, i := range asks {
					p := m.processes[i]
					if _, s := m.take(p, many); s.Wait == 0 {
						continue
					}
					uncounted, late := p.used.Load()-p.counted.Load(), int64((pace+timeout)/p.interval)
					if left := m.left(); p.answered.Load() != never && left > 1+late && (n == 1 || uncounted < p.block) {
						t.Fatalf("refused, although %d are left and only %d of this process are not counted", left, uncounted)
					}
				}
				m.advance(max(length/steps, time.Microsecond), delay)
			}
		}
		b := m.processes[0].Bucket
		bound := float64(n) * max(float64(b.block), float64(limit.Requests)/float64(2*n))
		if !known {
			bound = float64(n) * max(1, float64(b.block), float64(limit.Requests)/float64(n))
		}
		if n == 1 {
			bound = 0
		}
		bound += float64(pace+timeout) / float64(b.interval)
		if e := m.excess(); e > bound {
			t.Fatalf("%d processes gave out %v more than the limit of %v, and not %v", n, e, limit, bound)
		}
	})
}

// TestOneProcessMayGiveOutAll: a key that was not used for a while sends its whole limit at once through one of three processes. Of a slow key, the
// last of it may have to wait until Redis has counted the others.
func TestOneProcessMayGiveOutAll(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		limit       Limit
		burst       time.Duration
		waits, many int64
	}{
		{Limit{100, time.Second}, 20 * time.Millisecond, 0, 1},
		{Limit{1000, time.Second}, 20 * time.Millisecond, 0, 1},
		{Limit{20_000, time.Second}, 20 * time.Millisecond, 0, 10},
		{Limit{1000, time.Minute}, 200 * time.Millisecond, 50, 1},
		{Limit{5, time.Minute}, 20 * time.Millisecond, 0, 1},
	} {
		limit, m := c.limit, newModel(c.limit, 3)
		delay := func() time.Duration { return time.Millisecond / 2 } // each way
		for i := int64(0); i < limit.Requests; i += c.many {
			for got := int64(0); got < c.many; {
				n, s := m.take(m.processes[0], int(c.many-got))
				if got += int64(n); got < c.many {
					if i < limit.Requests-c.waits {
						t.Fatalf("%v: request %d is refused: %+v", limit, i+1, s)
					}
					m.advance(time.Millisecond, delay)
				}
			}
			m.advance(c.burst/time.Duration(limit.Requests/c.many), delay)
		}
		m.advance(timeout, delay)
		for _, p := range m.processes {
			m.take(p, int(limit.Requests))
			m.advance(timeout, delay)
		}
		p := m.processes[0]
		if e, most := m.excess(), 3*max(p.block, unconfirmed, limit.Requests/3)+int64((pace+timeout)/p.interval); e > float64(most) {
			t.Errorf("%v: %v too many were given out, and not %d", limit, e, most)
		}
	}
}

// TestASteadyClientIsNotRefused: a client that keeps to the rate is served by whichever process, however slow Redis is.
func TestASteadyClientIsNotRefused(t *testing.T) {
	t.Parallel()
	for _, limit := range []Limit{{5, time.Minute}, {100, time.Second}, {1000, time.Second}} {
		for _, each := range []time.Duration{0, 24 * time.Millisecond} {
			m := newModel(limit, 3)
			delay := func() time.Duration { return each + time.Microsecond }
			for i := range int(2 * limit.Requests) {
				if got, s := m.take(m.processes[i%3], 1); got == 0 {
					t.Fatalf("%v: request %d is refused: %+v", limit, i+1, s)
				}
				m.advance(m.processes[0].interval, delay)
			}
		}
	}
}

// TestTheWaitIsUntilATokenIsBack: a process that is refused has a token after the seconds that it tells, also when the processes together gave out
// more than the limit. That is never more than the window, nor than the time until the bucket is full.
func TestTheWaitIsUntilATokenIsBack(t *testing.T) {
	t.Parallel()
	for _, limit := range []Limit{{1, time.Second}, {5, time.Minute}, {60, time.Minute}, {5, time.Hour}} {
		for n := 1; n <= 4; n++ {
			m, owed := newModel(limit, n), false
			delay := func() time.Duration { return 20 * time.Millisecond }
			refused := func(p *modelled) (s State) { // for want of a token, not of a block
				for s = p.Take(m.now); s.Wait == 0 || s.Wait == pace; s = p.Take(m.now) {
					m.advance(4*timeout, delay)
				}
				return s
			}
			for range limit.Requests { // all take the last one
				for _, p := range m.processes {
					p.Take(m.now)
				}
				m.advance(4*timeout, delay)
			}
			for i, p := range slices.Backward(m.processes) { // Redis told the last one most
				s := refused(p)
				owed = owed || s.Wait > p.interval
				m.advance(time.Duration(Seconds(s.Wait))*time.Second, delay)
				after := p.Take(m.now)
				if s.Wait > limit.Window || s.Wait > s.Full || s.Wait < limit.Window && after.Wait > 0 {
					t.Errorf("%v, process %d of %d: refused with %+v, and after that with %+v", limit, i, n, s, after)
				}
				m.advance(4*timeout, delay)
			}
			if !owed && n > 1 && limit.Requests == 5 {
				t.Errorf("%v, %d processes: nothing was given out beyond the limit", limit, n)
			}
		}
	}
}

// TestWhileRedisIsAway each process keeps to its share, and after that the shared bucket lacks what has not come back.
func TestWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	for _, limit := range []Limit{{2, time.Minute}, {5, time.Minute}, {99, time.Second}} {
		m := newModel(limit, 3)
		delay := func() time.Duration { return time.Microsecond }
		begin, sum := m.now, 0
		for _, p := range m.processes {
			p.limits.share.Store(-3)
		}
		for m.now < begin+6*limit.Window {
			for _, p := range m.processes {
				got, s := m.take(p, 1000)
				if sum += got; s.Wait > min(3*p.interval, limit.Window) || int64(got) > max(1, limit.Requests/3) {
					t.Fatalf("%v: %d at once, then %+v", limit, got, s)
				}
			}
			m.advance(limit.Window/100, delay)
		}
		if most := 7*int(limit.Requests) + 1; sum > most || sum < most-3-int(limit.Requests) {
			t.Errorf("%v: %d of %d were given out in six windows", limit, sum, most)
		}
		for _, p := range m.processes {
			p.limits.share.Store(3)
		}
		got := 0
		for _, p := range m.processes {
			n, _ := m.take(p, 1000)
			got += n
		}
		m.advance(timeout, delay)
		if left := m.left(); left > 3+int64((timeout+limit.Window/100)/m.processes[0].interval) || got > 9 {
			t.Errorf("%v: %d were left, then %d", limit, got, left)
		}
		m.advance(2*limit.Window, delay)
		if left := m.left(); left != limit.Requests {
			t.Errorf("%v: the bucket has %d when it is full again", limit, left)
		}
	}
}

// TestATokenIsDrawnOnceAfterAnOutage: what was given out while Redis was away and has not come back, and what was given out since, each once.
func TestATokenIsDrawnOnceAfterAnOutage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		alone, share int64
		away, since  int // tokens
		later, drawn time.Duration
	}{
		{1, 1, 3, 1, 0, 4 * time.Second},
		{1, 1, 3, 1, 2 * time.Second, 2 * time.Second},
		{1, 1, 3, 1, 2500 * time.Millisecond, 1500 * time.Millisecond},
		{1, 1, 3, 2, time.Minute, 2 * time.Second},
		{1, 1, 3, 0, 2 * time.Second, time.Second},
		{2, 2, 3, 1, 0, 4 * time.Second}, // one of two processes: while Redis was away a token cost two
		{2, 2, 3, 1, 4 * time.Second, 2 * time.Second},
		{1, 3, 3, 1, 0, 4 * time.Second}, // it had never reached Redis, and is one of three now: each token cost one, and is owed whole
		{1, 3, 3, 1, 2 * time.Second, 2 * time.Second},
		{1, 3, 10, 0, 0, 10 * time.Second},
		{4, 2, 2, 0, 0, 2 * time.Second}, // others have ended
	} {
		l := New(Config{Now: time.Now, Log: zap.NewNop(), Registry: prometheus.NewRegistry()})
		b := l.Bucket("key_1", Limit{Requests: 10, Window: 10 * time.Second})
		b.answered.Store(0)
		l.share.Store(-c.alone)
		for range c.away {
			b.Take(0)
		}
		l.share.Store(c.share)
		for range c.since {
			b.Take(c.later)
		}
		drawn := &bucketDraw{Bucket: b}
		drawn.prepare(c.later)
		if got := drawn.args[0]; got != c.drawn.Microseconds() {
			t.Errorf("%+v: %v us are drawn", c, got)
		}
	}
}

// TestBeforeTheFirstReply of Redis processes keep to their shares: together they give out no more of a fresh key than its limit at once, also if draws are
// lost, and they are not refused more. No request waits. What a key has left it gets right after the reply.
func TestBeforeTheFirstReply(t *testing.T) {
	t.Parallel()
	for _, limit := range startLimits {
		for n := range int64(8) {
			n++
			m, given := newModel(limit, int(n)), int64(0)
			share := max(1, limit.Requests/n)
			for _, p := range m.processes {
				first, _ := m.take(p, int(limit.Requests))
				lost := &bucketDraw{Bucket: p.Bucket, cmd: redis.NewCmdResult(nil, redis.Nil)}
				lost.prepare(m.now)
				lost.apply(m.now)
				second, _ := m.take(p, int(limit.Requests))
				if int64(first) != share || second != 0 {
					t.Errorf("%v: one of %d gives out %d, and its share is %d; after a lost draw %d", limit, n, first, share, second)
				}
				given += int64(first)
			}
			if given > max(n, limit.Requests) {
				t.Errorf("%v: %d processes give out %d at once", limit, n, given)
			}
			m = newModel(limit, int(n))
			got, _ := m.take(m.processes[0], int(limit.Requests))
			m.advance(2*time.Millisecond, func() time.Duration { return time.Millisecond / 2 })
			if s := m.processes[0].Take(m.now); n > 1 && (s.Wait > 0 || s.Left < limit.Requests-int64(got)-2) {
				t.Errorf("%v: when Redis has replied: %+v", limit, s)
			}
		}
	}
}

// TestAProcessThatStartsBesideAnEmptyBucket gives out its share at most, before Redis has replied. That is owed: nobody gets a token before it has come back.
func TestAProcessThatStartsBesideAnEmptyBucket(t *testing.T) {
	t.Parallel()
	delay := func() time.Duration { return time.Millisecond / 2 }
	for _, limit := range startLimits {
		for n := range int64(4) {
			n++
			m := newModel(limit, int(n))
			m.full = int64((m.now + limit.Window) / time.Microsecond) // the others used up the limit
			p := m.processes[0]
			given, _ := m.take(p, int(limit.Requests))
			if share := max(1, limit.Requests/n); int64(given) > share {
				t.Errorf("%v: one of %d that starts gives out %d, and its share is %d", limit, n, given, share)
			}
			m.advance(2*time.Millisecond, delay)
			begin := m.now
			owed := time.Duration(m.full)*time.Microsecond - m.now - p.interval*time.Duration(limit.Requests)
			if owed < p.interval*time.Duration(given-1)-3*time.Millisecond {
				t.Errorf("%v: %d were given out, and %v are owed", limit, given, owed)
			}
			for m.now < begin+owed {
				if s := p.Take(m.now); s.Wait == 0 {
					t.Errorf("%v: a token after %v, and what is owed is back after %v", limit, m.now-begin, owed)
				}
				m.advance(owed/100+1, delay)
			}
			m.advance(2*p.interval, delay)
			if s := p.Take(m.now); s.Wait > 0 {
				t.Errorf("%v: what is owed is back: %+v", limit, s)
			}
		}
	}
}

var startLimits = []Limit{{300, time.Minute}, {100, time.Second}, {5, time.Minute}, {2000, time.Second}}
