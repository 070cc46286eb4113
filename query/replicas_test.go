package query

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/querydb"
	"github.com/ordergate/ordergate/internal/devstack"
	"github.com/ordergate/ordergate/internal/guard"
	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/order"
)

// followed is a process on these replicas that measures them until the end of the test. It has measured each of them.
func (w *world) followed(replicas ...*pgxpool.Pool) *process {
	w.Helper()
	p := w.process(withoutRedis, func(c *Config) { c.Replicas = replicas })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); p.FollowReplicas(ctx) }()
	w.Cleanup(func() { cancel(); <-done })
	for _, s := range p.replicas {
		w.until(func() bool { return s.watermark.Load() != nil })
	}
	return p
}

// places is when each replica is asked for any state.
func (p *process) places() (all []place) {
	for _, s := range p.replicas {
		all = append(all, p.place(s, anyToken))
	}
	return all
}

func asked(pool *pgxpool.Pool) int64 {
	return pool.Stat().AcquireCount() + pool.Stat().CanceledAcquireCount()
}

// writes updates an order every 50 ms until the end of the test.
func (w *world) writes(id order.ID) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() {
		for ; ctx.Err() == nil; pause(ctx, 50*time.Millisecond) {
			w.update(mine, id)
		}
	})
	w.Cleanup(func() { cancel(); all.Wait() })
}

func TestALaggingReplicaIsReadFromOnlyIfAllLagAlike(t *testing.T) {
	t.Parallel()
	w := setup(t)
	id, written := w.place(mine, time.Hour), w.place(mine, time.Hour)
	w.synced(w.ReplicaURL)
	w.synced(w.LaggingURL(t))
	near, late := w.pool(w.ReplicaURL), w.pool(w.LaggingURL(t))
	p := w.followed(late, near)
	w.writes(id)
	w.until(func() bool { return slices.Equal(p.places(), []place{lagging, inTurn}) })
	fresh, counted := asked(near), 0
	for range 300 {
		p.lru.Purge()
		chosen := slices.Equal(p.places(), []place{lagging, inTurn}) // a busy machine may leave out the near one for a moment
		before := asked(late)
		if _, tier := p.get(mine, id, anyToken); tier != "replica" {
			t.Errorf("served by %s", tier)
		}
		if n := asked(late) - before; chosen && slices.Equal(p.places(), []place{lagging, inTurn}) {
			if counted++; n > 0 {
				t.Errorf("the lagging replica was asked %d times", n)
			}
		}
	}
	tiers := map[string]int{}
	for range 50 {
		rev, _, lsn, _ := w.update(mine, written)
		p.lru.Purge()
		got, tier := p.get(mine, written, token.Token{Timeline: 1, LSN: lsn})
		if got != rev {
			t.Errorf("revision %d by %s after %d was written", got, tier, rev)
		}
		tiers[tier]++
	}
	if n := asked(near) - fresh; counted < 100 || n < 100 {
		t.Errorf("%d reads count, the near replica was asked %d times", counted, n)
	}
	if t.Logf("reads with the token of a write: %v", tiers); tiers["replica"] < 25 {
		t.Errorf("with the token of a write: %v", tiers)
	}

	t.Run("alone or with others that lag it is used", func(t *testing.T) {
		p := w.followed(late, w.pool(w.LaggingURL(t)), w.pool("postgres://ordergate@127.0.0.1:1/ordergate"))
		for range 3 {
			last := p.replicas[0].watermark.Load()
			w.until(func() bool { return p.replicas[0].watermark.Load().before > last.before })
			if places := p.places(); !slices.Equal(places, []place{inTurn, inTurn, leftOut}) {
				t.Errorf("places %v", places)
			}
			p.lru.Purge()
			if _, tier := p.get(mine, id, anyToken); tier != "replica" {
				t.Errorf("served by %s", tier)
			}
		}
	})
}

func TestAReplicaThatIsGoneIsLeftOutAndComesBack(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(*pgtest.TCPProxy){"cut": (*pgtest.TCPProxy).Cut, "silent": (*pgtest.TCPProxy).Freeze} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := setup(t)
			id := w.place(mine, time.Hour)
			w.synced(w.ReplicaURL)
			proxy, url := pgtest.Proxy(t, w.ReplicaURL)
			defer proxy.Cut() // else the end of its pool would wait for silent connections
			first := w.pool(url)
			p := w.followed(first, w.pool(w.ReplicaURL))
			read := func(tiers map[string]int) (took time.Duration) {
				p.lru.Purge()
				begin := time.Now()
				_, tier := p.get(mine, id, anyToken)
				tiers[tier]++
				return time.Since(begin)
			}
			isUsed := func() bool {
				before := asked(first)
				read(map[string]int{})
				read(map[string]int{})
				return asked(first) > before && p.places()[0] == inTurn
			}
			w.until(isUsed)

			begin, slowest, tiers := time.Now(), time.Duration(0), map[string]int{}
			harm(proxy)
			for p.places()[0] != leftOut {
				slowest = max(slowest, read(tiers))
				if time.Since(begin) > 10*time.Second {
					t.Fatal("it is not left out")
				}
			}
			t.Logf("left out after %v, the slowest read meanwhile took %v, served by %v", time.Since(begin), slowest, tiers)
			for !p.breakerOpen("replica_1") {
				_ = p.replicas[0].guard.Do(t.Context(), func(context.Context) error { return errors.New("away") })
			}
			before := asked(first)
			slowest, tiers = 0, map[string]int{}
			for range 100 {
				slowest = max(slowest, read(tiers))
			}
			if t.Logf("while it is left out the slowest read took %v", slowest); asked(first) > before || tiers["replica"] != 100 {
				t.Errorf("it is asked %d times, served by %v", asked(first)-before, tiers)
			}

			begin = time.Now()
			proxy.Heal()
			w.until(isUsed)
			if t.Logf("used again after %v", time.Since(begin)); p.breakerOpen("replica_1") {
				t.Error("its breaker is still open")
			}
		})
	}
}

// Of two replicas one is full: the other one is asked, without a wait, and the primary is not.
func TestAFullReplicaLeavesReadsToTheOther(t *testing.T) {
	t.Parallel()
	w := setup(t)
	id := w.place(mine, time.Hour)
	w.synced(w.ReplicaURL)
	p := w.process(withoutRedis, func(c *Config) { c.Replicas = append(c.Replicas, w.pool(w.ReplicaURL)) })
	held := make(chan struct{})
	var holders sync.WaitGroup
	for _, replica := range p.replicas { // a busy machine is given time
		replica.guard = guard.New(guard.Config{Concurrent: 2, Wait: queueFor, Timeout: 4 * time.Second, Failure: broken})
	}
	full := p.replicas[0]
	for range 2 {
		entered := make(chan struct{})
		holders.Go(func() {
			_ = full.guard.Do(t.Context(), func(context.Context) error { close(entered); <-held; return nil })
		})
		<-entered
	}
	for range 20 {
		p.lru.Purge()
		if _, tier := p.get(mine, id, anyToken); tier != tierReplica {
			t.Errorf("served by %s", tier)
		}
	}
	if n := p.loads(tierPrimary); n > 0 {
		t.Errorf("the primary was asked %d times", n)
	}
	t.Run("one that is alone is waited for", func(t *testing.T) {
		p.replicas = p.replicas[:1]
		time.AfterFunc(queueFor/4, func() { close(held) })
		p.lru.Purge()
		if _, tier := p.get(mine, id, anyToken); tier != tierReplica {
			t.Errorf("served by %s", tier)
		}
	})
	holders.Wait()
}

// The primary serves as many reads at once as its own bulkhead has places, and turns the others away.
func TestWithoutAReplicaThePrimaryServes(t *testing.T) {
	t.Parallel()
	w := setup(t)
	id := w.place(mine, time.Hour)
	w.synced(w.ReplicaURL)
	proxy, url := pgtest.Proxy(t, w.ReplicaURL)
	defer proxy.Cut()
	first, second := w.pool(url), w.pool(url)
	p := w.followed(first, second)
	proxy.Freeze()
	w.until(func() bool { return slices.Equal(p.places(), []place{leftOut, leftOut}) })
	before := asked(first) + asked(second)
	var served atomic.Int64
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			for range 5 {
				a, err := p.ListOrders(t.Context(), mine, orderFilter{}, Page{Limit: 1}, anyToken)
				switch {
				case err == nil && a.Tier == "primary":
					served.Add(1)
				case err == nil || !apierr.From(err).Retryable(): // a busy machine may refuse
					t.Errorf("served by %s: %v", a.Tier, err)
				}
			}
		})
	}
	all.Wait()
	t.Logf("%d of %d reads served by the primary", served.Load(), 64*5)
	if n := asked(first) + asked(second) - before; n > 0 || served.Load() < 64 {
		t.Errorf("%d reads served by the primary, %d asked a replica", served.Load(), n)
	}
	if _, tier := p.get(mine, id, anyToken); tier != "primary" {
		t.Errorf("served by %s", tier)
	}
}

func TestReadsDoNotStarveTheMeasurement(t *testing.T) {
	t.Parallel()
	w := setup(t)
	pool := w.pool(w.ReplicaURL)
	p := w.followed(pool)
	for range pool.Config().MaxConns {
		c, err := pool.Acquire(t.Context())
		w.must(err)
		defer c.Release()
	}
	for range 3 {
		last := p.replicas[0].watermark.Load()
		w.until(func() bool { return p.replicas[0].watermark.Load().at.After(last.at) })
		if w := p.replicas[0].watermark.Load(); w.err != nil {
			t.Error(w.err)
		}
	}
}

// A server that is silent does not keep the process from ending, and a connection that the server ended says nothing of the server.
func TestFollowReplicasEnds(t *testing.T) {
	t.Parallel()
	w := setup(t)
	proxy, url := pgtest.Proxy(t, w.ReplicaURL)
	p := w.process(withoutRedis, func(c *Config) { c.Replicas = []*pgxpool.Pool{w.pool(url)} })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); p.FollowReplicas(ctx) }()
	watermark := func() *watermark { return p.replicas[0].watermark.Load() }
	w.until(func() bool { return watermark() != nil && watermark().err == nil })
	proxy.Cut()
	proxy.Heal()
	for range 3 {
		last := watermark().at
		w.until(func() bool { return watermark().at.After(last) })
		w.must(watermark().err)
	}
	proxy.Freeze()
	w.until(func() bool { return watermark().err != nil })
	cancel()
	<-done
}

// A replica is promoted by mistake. The primary lives and takes writes: its word counts.
func TestAReplicaThatIsPromotedByMistake(t *testing.T) {
	t.Parallel()
	w := ownServers(t, devstack.Replica{Name: "other"})
	id := w.place(mine, time.Hour)
	w.synced(w.ReplicaURL)
	w.synced(w.otherReplica)
	wrong, good := w.pool(w.ReplicaURL), w.pool(w.otherReplica)
	alone, both := w.followed(wrong), w.followed(wrong, good)
	unmeasured := w.process(withoutRedis, func(c *Config) { c.Replicas = []*pgxpool.Pool{w.pool(w.ReplicaURL)} })
	w.on(w.ReplicaURL, "SELECT pg_promote()")
	w.until(func() bool {
		_, _, err := alone.ReplicaLag(0)
		_, _, other := both.ReplicaLag(0)
		return errors.Is(err, ErrPromoted) && errors.Is(other, ErrPromoted)
	})
	w.on(w.ReplicaURL, "UPDATE orders SET rev = 9, version = 9, state = jsonb_set(state::jsonb, '{metadata,rev}', '\"9\"')")
	before := asked(wrong)
	for _, c := range []struct {
		p    *process
		tier string
	}{{alone, tierPrimary}, {both, tierReplica}, {unmeasured, tierPrimary}} {
		rev, _, lsn, _ := w.update(mine, id)
		w.synced(w.otherReplica)
		for range 20 {
			for _, tok := range []token.Token{anyToken, {Timeline: 1, LSN: lsn}} {
				c.p.lru.Purge()
				if got, tier := c.p.get(mine, id, tok); got != rev || tier != c.tier {
					t.Errorf("token %+v: revision %d by %s, want %d by %s", tok, got, tier, rev, c.tier)
				}
			}
		}
		if n := c.p.timeline(); n != 1 {
			t.Errorf("timeline %d", n)
		}
	}
	if n := asked(wrong) - before; n > 0 {
		t.Errorf("it was asked %d times", n)
	}
	if _, receives, err := both.ReplicaLag(1); err != nil || !receives {
		t.Errorf("the good one: %v", err)
	}

	t.Run("the primary's own word for the timeline counts", func(t *testing.T) {
		after := w.process(withoutRedis, func(c *Config) { c.Primary, c.Replicas = w.pool(w.ReplicaURL), []*pgxpool.Pool{wrong} })
		if rev, tier := after.get(mine, id, token.Token{Timeline: 2, LSN: 1}); rev != 9 || tier != tierPrimary || after.timeline() != 2 {
			t.Errorf("revision %d by %s, timeline %d", rev, tier, after.timeline())
		}
		after.lru.Purge()
		if rev, tier := after.get(mine, id, anyToken); rev != 9 || tier != tierReplica {
			t.Errorf("revision %d by %s", rev, tier)
		}
	})
}

// After a failover replicas follow the new primary before we have reached it. While our primary answers it decides.
func TestAStandbyThatIsAhead(t *testing.T) {
	t.Parallel()
	now := time.Now()
	q := &Queries{cfg: Config{Timeline: func() uint32 { return 1 }, Now: func() time.Time { return now }}}
	q.markedAt.Store(now.UnixNano())
	replica, primary := &server{tier: tierReplica}, &server{tier: tierPrimary}
	want := func(what string, err, want error, timeline uint32) {
		t.Helper()
		if !errors.Is(err, want) || q.timeline() != timeline {
			t.Errorf("%s: %v, timeline %d, want %v and %d", what, err, q.timeline(), want, timeline)
		}
	}
	want("the feed of the primary goes on", q.believe(replica, true, 2), errAhead, 1)
	now = now.Add(primaryFor)
	want("reads of the primary go on", q.believe(primary, false, 1), nil, 1)
	now = now.Add(primaryFor - 1)
	want("reads of the primary went on", q.believe(replica, true, 2), errAhead, 1)
	now = now.Add(1)
	want("the primary is silent, and a replica is a primary", q.believe(replica, false, 2), ErrPromoted, 1)
	want("the primary is silent", q.believe(replica, true, 2), nil, 2)
	want("the lost primary is back", q.believe(primary, false, 1), errTimeline, 2)
	want("the new one is reached", q.believe(primary, false, 3), nil, 3)
	want("a standby is no primary", q.believe(primary, true, 4), errTimeline, 3)
}

// A replica that receives nothing is asked when no other is left and the primary is away.
func TestADisconnectedReplicaIsAskedLast(t *testing.T) {
	t.Parallel()
	w := ownServers(t, devstack.Replica{Name: "other"})
	id := w.place(mine, time.Hour)
	w.synced(w.ReplicaURL)
	w.synced(w.otherReplica)
	cut, other := w.pool(w.ReplicaURL), w.pool(w.otherReplica)
	proxy, url := pgtest.Proxy(t, w.PrimaryURL)
	p := w.process(withoutRedis, func(c *Config) { c.Primary, c.Replicas = w.pool(url), []*pgxpool.Pool{cut, other} })
	go p.FollowReplicas(t.Context())
	w.on(w.ReplicaURL, "ALTER SYSTEM SET primary_conninfo = ''")
	w.on(w.ReplicaURL, "SELECT pg_reload_conf()")
	w.until(func() bool { return slices.Equal(p.places(), []place{disconnected, inTurn}) })
	before := asked(cut)
	for range 20 {
		p.lru.Purge()
		if _, tier := p.get(mine, id, anyToken); tier != "replica" {
			t.Errorf("served by %s", tier)
		}
	}
	if n := asked(cut) - before; n > 0 {
		t.Errorf("it is asked %d times", n)
	}
	proxy.Cut()
	w.on(w.otherReplica, "ALTER SYSTEM SET primary_conninfo = ''")
	w.on(w.otherReplica, "SELECT pg_reload_conf()")
	w.until(func() bool { return slices.Equal(p.places(), []place{disconnected, disconnected}) })
	p.lru.Purge()
	if rev, tier := p.get(mine, id, anyToken); rev != 1 || tier != "replica" {
		t.Errorf("revision %d by %s", rev, tier)
	}
}

func TestTheOrderInWhichReplicasAreAsked(t *testing.T) {
	t.Parallel()
	now := time.Now()
	at := func(lsn, before int64) watermark {
		return watermark{WatermarkRow: querydb.WatermarkRow{Lsn: lsn, Timeline: 2}, at: now, before: before}
	}
	with := func(w watermark, change func(*watermark)) *watermark { change(&w); return &w }
	as := func(w watermark) *watermark { return &w }
	away := with(at(100, 90), func(w *watermark) { w.err = errors.New("away") })
	for name, c := range map[string]struct {
		replicas []*watermark
		token    uint64
		want     []string // of two choices
	}{
		"never measured":                     {[]*watermark{nil, nil}, 5, []string{"ab", "ba"}},
		"all fresh":                          {[]*watermark{as(at(100, 90)), as(at(101, 90)), as(at(102, 90))}, 0, []string{"abc", "bca"}},
		"those that reached the token first": {[]*watermark{as(at(100, 90)), as(at(110, 90)), as(at(111, 90))}, 105, []string{"bca", "cba"}},
		"else the freshest first":            {[]*watermark{as(at(100, 90)), as(at(110, 90)), as(at(105, 90))}, 200, []string{"bca", "bca"}},
		"away":                               {[]*watermark{away, as(at(100, 90)), away}, 0, []string{"b", "b"}},
		"all away":                           {[]*watermark{away, away}, 0, []string{"", ""}},
		"measured too long ago":              {[]*watermark{with(at(100, 90), func(w *watermark) { w.at = now.Add(-measuredFor) }), as(at(100, 90))}, 0, []string{"b", "b"}},
		"an older timeline":                  {[]*watermark{with(at(900, 800), func(w *watermark) { w.Timeline = 1 }), as(at(100, 90))}, 0, []string{"b", "b"}},
		"one that lags":                      {[]*watermark{as(at(89, 80)), as(at(100, 90)), as(at(90, 80))}, 0, []string{"bca", "cba"}},
		"one that lags and has the token":    {[]*watermark{as(at(89, 80)), as(at(100, 90))}, 85, []string{"ba", "ba"}},
		"all lag alike":                      {[]*watermark{as(at(100, 90)), as(at(95, 89))}, 0, []string{"ab", "ba"}},
		"it lags behind one that is away":    {[]*watermark{as(at(50, 40)), away}, 0, []string{"a", "a"}},
		"a disconnected one": {[]*watermark{with(at(100, 100), func(w *watermark) { w.Disconnected = true }), as(at(99, 80)), as(at(70, 60))}, 0,
			[]string{"bca", "bca"}},
	} {
		q := &Queries{cfg: Config{Timeline: func() uint32 { return 2 }}}
		q.nextReplica.Store(1<<32 - 1)
		for i, w := range c.replicas {
			s := &server{name: string(rune('a' + i))}
			s.watermark.Store(w)
			q.replicas = append(q.replicas, s)
		}
		for _, want := range c.want {
			var names []string
			for _, s := range q.choose(token.Token{Timeline: 2, LSN: c.token}) {
				names = append(names, s.name)
			}
			if got := strings.Join(names, ""); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	}
}

func TestWhatAWatermarkTells(t *testing.T) {
	t.Parallel()
	m, begin := &meter{}, time.Now()
	for _, c := range []struct {
		after                    time.Duration
		timeline, lsn            int64
		lag, wantLag, wantBefore float64
	}{
		{0, 1, 100, 70, 70, 0}, // it may have been behind for so long
		{250 * time.Millisecond, 1, 110, 0, 0, 0},
		{500 * time.Millisecond, 1, 120, 60, .25, 0}, // a transaction after a quiet minute
		{750 * time.Millisecond, 1, 130, .1, .1, 0},
		{1000 * time.Millisecond, 1, 140, 0, 0, 100},
		{1250 * time.Millisecond, 1, 150, 0, 0, 110},
		{9 * time.Second, 1, 150, 60, 7.75, 150}, // it was away
		{9250 * time.Millisecond, 2, 90, 0, 0, 0},
		{10250 * time.Millisecond, 2, 95, 0, 0, 90},
	} {
		w := m.note(querydb.WatermarkRow{Timeline: c.timeline, Lsn: c.lsn, Lag: c.lag}, begin.Add(c.after))
		if w.Lag != c.wantLag || float64(w.before) != c.wantBefore || w.Lsn != c.lsn {
			t.Errorf("after %v: %+v, want lag %v, before %v", c.after, w, c.wantLag, c.wantBefore)
		}
	}
}
