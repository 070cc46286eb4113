package query

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

func TestFreshnessRule(t *testing.T) {
	e := Entry{Key: "ord_a", Rev: 5, KnownAt: 100, Timeline: 2}
	for name, c := range map[string]struct {
		token token.Token
		want  bool
	}{
		"no token asks for nothing":                 {token.Token{}, true},
		"position reached":                          {token.Token{Timeline: 2, LSN: 100}, true},
		"position not reached":                      {token.Token{Timeline: 2, LSN: 101}, false},
		"own row at its revision":                   {token.Token{Timeline: 2, LSN: 101, Key: "ord_a", Rev: 5}, true},
		"own row beyond its revision":               {token.Token{Timeline: 2, LSN: 101, Key: "ord_a", Rev: 4}, true},
		"own row below its revision":                {token.Token{Timeline: 2, LSN: 101, Key: "ord_a", Rev: 6}, false},
		"another row, position not reached":         {token.Token{Timeline: 2, LSN: 101, Key: "ord_b", Rev: 1}, false},
		"another row, position reached":             {token.Token{Timeline: 2, LSN: 100, Key: "ord_b", Rev: 9}, true},
		"a position that could not be read":         {token.Token{Timeline: 2, LSN: token.NoPosition, Key: "ord_b", Rev: 1}, false},
		"own row, position could not be read":       {token.Token{Timeline: 2, LSN: token.NoPosition, Key: "ord_a", Rev: 5}, false},
		"older timeline":                            {token.Token{Timeline: 1, LSN: 1}, false},
		"older timeline, own row":                   {token.Token{Timeline: 1, LSN: 1, Key: "ord_a", Rev: 1}, false},
		"newer timeline":                            {token.Token{Timeline: 3, LSN: 1}, false},
		"a list's token has no row that could help": {token.Token{Timeline: 2, LSN: 101, Rev: 0}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if e.satisfies(c.token) != c.want {
				t.Errorf("%+v satisfies %+v: %v", e, c.token, !c.want)
			}
		})
	}
	list := Entry{KnownAt: 100, Timeline: 2}
	if list.satisfies(token.Token{Timeline: 2, LSN: 101}) {
		t.Error("two empty keys are no row in common")
	}
}

func TestTheNewestEntryStays(t *testing.T) {
	q := &Queries{cfg: Config{Now: time.Now}}
	all := []*Entry{
		{Timeline: 1, Rev: 0, KnownAt: 900}, {Timeline: 1, Rev: 1, KnownAt: 10}, {Timeline: 1, Rev: 2, KnownAt: 20},
		{Timeline: 1, Rev: 2, KnownAt: 30}, {Timeline: 2, Rev: 1, KnownAt: 5}, {Timeline: 2, Rev: 2, KnownAt: 4},
	}
	for range 200 {
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		var s lruEntry
		for _, e := range all {
			q.store(&s, e)
		}
		if h := s.value.Load(); h.timeline != 2 || h.rev != 2 {
			t.Fatalf("%+v stays", h)
		}
	}
}

// An entry whose texts are longer than their lengths can say is served, and not stored cut.
func TestAnEntryWithLongTextsIsNotKept(t *testing.T) {
	q := &Queries{cfg: Config{Now: time.Now}}
	for _, c := range []struct {
		token, etag int
		kept        bool
	}{{100, 25, true}, {math.MaxUint16, math.MaxUint8, true}, {math.MaxUint16 + 1, 25, false}, {100, math.MaxUint8 + 1, false}} {
		e := &Entry{Token: strings.Repeat("t", c.token), Body: view.Body{ETag: strings.Repeat("e", c.etag), Bytes: []byte("body")}, Rev: 1}
		var s lruEntry
		if got := q.store(&s, e); got != e {
			t.Errorf("%+v: another entry is served", c)
		}
		v := s.value.Load()
		if (v != nil) != c.kept || c.kept && (v.token() != e.Token || v.etag() != e.Body.ETag || v.body() != "body") {
			t.Errorf("%+v: it is kept: %v", c, v != nil)
		}
	}
}

// A write of one process, then a read with its token in another one, whose replica is 2 s behind.
func TestReadWithTheTokenOfAWriteIsNeverStale(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		pairs, workers int
		change         func(*Config)
	}{
		"by Redis":                         {1000, 1, func(*Config) {}},
		"by Redis, side by side":           {1000, 16, func(*Config) {}},
		"without Redis":                    {200, 10, withoutRedis},
		"without anything but the primary": {500, 4, func(c *Config) { c.Redis, c.Replicas = nil, nil }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := setup(t)
			writer, reader := w.process(withoutReplicas), w.process(w.behind, c.change)
			ids := make([]order.ID, c.workers)
			for i := range ids {
				ids[i] = w.place(mine, time.Hour)
			}
			w.synced(w.LaggingURL(t))
			var stale, tiers sync.Map
			var all sync.WaitGroup
			for i := range c.workers {
				all.Go(func() {
					for range c.pairs / c.workers {
						rev, written := writer.write(mine, ids[i])
						got, tier := reader.get(mine, ids[i], written)
						if got < rev {
							stale.Store(rev, got)
						}
						n, _ := tiers.LoadOrStore(tier, new(atomic.Int64))
						n.(*atomic.Int64).Add(1)
						if rev%20 > 0 {
							continue
						}
						// as one who knows nothing of this row asks: the position alone must do
						got, _ = reader.get(mine, ids[i], token.Token{Timeline: written.Timeline, LSN: written.LSN})
						if got < rev {
							stale.Store(-rev, got)
						}
					}
				})
			}
			all.Wait()
			stale.Range(func(rev, got any) bool { t.Errorf("wrote %d, read %d", rev, got); return true })
			tiers.Range(func(tier, n any) bool { t.Logf("%s: %d", tier, n.(*atomic.Int64).Load()); return true })
		})
	}
}

func TestServedByIsTrueForEachTier(t *testing.T) {
	t.Parallel()
	w := setup(t)
	id := w.place(mine, time.Hour)
	w.synced(w.ReplicaURL)
	check := func(p *process, wantTier string, wantAge int) View {
		t.Helper()
		a, err := p.GetOrder(t.Context(), mine, id, anyToken)
		w.must(err)
		if a.Tier != wantTier || a.Age != wantAge {
			t.Errorf("served by %s at age %d, want %s at %d", a.Tier, a.Age, wantTier, wantAge)
		}
		return a
	}
	begin := time.Now()
	standsStill := func(c *Config) { c.Now = func() time.Time { return begin.Add(time.Duration(w.forward.Load())) } } // ages are whole seconds
	one, other := w.process(standsStill), w.process(standsStill)
	views := []View{check(one, "replica", 0), check(one, "lru", 0), check(other, "redis", 0), check(other, "lru", 0)}
	w.advance(1200 * time.Millisecond)
	views = append(views, check(one, "lru", 1))
	w.advance(4 * time.Second)
	views = append(views, check(one, "redis", 5), check(one, "lru", 5)) // the database was read then
	views = append(views, check(w.process(standsStill, withoutRedis), "replica", 0), check(w.process(standsStill, withoutRedis, withoutReplicas), "primary", 0))
	for _, a := range views[1:] {
		if a.Body != views[0].Body || a.ETag != views[0].ETag || a.ETag == "" || a.Token == "" {
			t.Errorf("the tiers differ: %s %s", a.ETag, a.Body)
		}
	}
}

func TestForeignOwnerNeverSeesAnEntry(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process()
	id := w.place(mine, time.Hour)
	_, written := p.write(mine, id) // in LRU and Redis
	w.synced(w.ReplicaURL)
	for _, owner := range []order.Owner{otherOwner, mineLive, {}} {
		for _, tok := range []token.Token{anyToken, written} {
			for range 2 { // the second time the 404 is remembered
				_, err := p.GetOrder(t.Context(), owner, id, tok)
				wantCode(t, err, errcode.ORD001)
				_, err = p.ListOrderEvents(t.Context(), owner, id, Page{Limit: 20}, tok)
				wantCode(t, err, errcode.ORD001)
				_, err = p.GetSaga(t.Context(), owner, id, tok)
				wantCode(t, err, errcode.ORD001)
			}
		}
	}
	if rev, _ := p.get(mine, id, written); rev != 2 {
		t.Errorf("its owner sees %d", rev)
	}
	w.product(mine, "LAMP", "mine")
	w.product(otherOwner, "LAMP", "theirs")
	w.synced(w.ReplicaURL)
	for range 2 {
		a, err := p.GetProduct(t.Context(), mine, "LAMP", anyToken)
		w.must(err)
		b, err := p.GetProduct(t.Context(), otherOwner, "LAMP", anyToken)
		w.must(err)
		if a.Body == b.Body {
			t.Error("two accounts have one product")
		}
		_, err = p.GetProduct(t.Context(), mineLive, "LAMP", anyToken)
		wantCode(t, err, errcode.CAT001)
	}
}

func TestForgedIDIsRefusedWithoutALook(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process()
	id := w.place(mine, 0)
	id[15]++
	_, err := p.GetOrder(t.Context(), mine, id, anyToken)
	wantCode(t, err, errcode.ORD001)
	_, err = p.ListOrderEvents(t.Context(), mine, id, Page{Limit: 20}, anyToken)
	wantCode(t, err, errcode.ORD001)
	_, err = p.GetSaga(t.Context(), mine, id, anyToken)
	wantCode(t, err, errcode.ORD001)
	if n := p.loads("redis") + p.loads("replica") + p.loads("primary"); n > 0 {
		t.Errorf("%d looks", n)
	}
}

func TestAStaleFillNeverReplacesANewerEntry(t *testing.T) {
	t.Parallel()
	w := setup(t)
	writer, reader := w.process(withoutReplicas), w.process(w.behind)
	var ids [20]order.ID
	for i := range ids {
		ids[i] = w.place(mine, time.Hour)
	}
	w.synced(w.LaggingURL(t))
	for _, id := range ids {
		k := orders.row(mine, id, "")
		// The reader looks at its old replica, the writer overtakes it, the reader's fill comes late.
		old, err := reader.fromDatabase(t.Context(), requirement{of: k}, k.read)
		w.must(err)
		rev, _ := writer.write(mine, id)
		w.must(reader.redis.put(t.Context(), false, old))
		if e, err := reader.redis.get(t.Context(), k); err != nil || e == nil || e.Rev != rev {
			t.Fatalf("Redis has %+v, %v, not revision %d", e, err, rev)
		}
		// and the other way round: what the LRU has stays too
		if got, _ := reader.get(mine, id, anyToken); got != rev {
			t.Fatalf("read %d", got)
		}
		if kept := reader.store(reader.entry(k), old); kept == old || kept.Rev != rev {
			t.Fatalf("the LRU has %d", kept.Rev)
		}
	}
	t.Run("in whatever order they come", func(t *testing.T) {
		p := w.process()
		for range 50 {
			k := orders.row(mine, w.ids.Mint(w.now(), 7), "")
			var best Entry
			for range 8 {
				e := Entry{of: k, Key: k.tokenName(), Rev: rand.Int64N(3), KnownAt: rand.Uint64N(3) + 1<<40, Timeline: 1, Generation: 1, Token: "t", LoadedAt: w.now()}
				if e.newer(&best) {
					best = e
				}
				w.must(p.redis.put(t.Context(), false, &e))
			}
			if e, err := p.redis.get(t.Context(), k); err != nil || e == nil || e.Rev != best.Rev || e.KnownAt != best.KnownAt {
				t.Fatalf("Redis has %+v, %v, not %+v", e, err, best)
			}
		}
	})
}

func (w *world) name(p *process, k key) string {
	w.Helper()
	master, err := p.redis.client.named(context.Background())
	w.must(err)
	return p.redis.name(*master, p.epoch(), k)
}

func TestEntriesInRedisLiveTenSeconds(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process()
	id := w.place(mine, time.Hour)
	w.synced(w.ReplicaURL)
	p.get(mine, id, anyToken)
	_, err := p.GetOrder(t.Context(), otherOwner, id, anyToken)
	wantCode(t, err, errcode.ORD001)
	written := w.place(mine, time.Hour)
	p.write(mine, written)
	client := w.redisClient(w.RedisURL)
	for k, most := range map[key]time.Duration{
		orders.row(mine, id, ""): 10 * time.Second, orders.row(otherOwner, id, ""): time.Second, orders.row(mine, written, ""): 10 * time.Second,
	} {
		if ttl := client.PTTL(t.Context(), w.name(p, k)).Val(); ttl <= most/2 || ttl > most {
			t.Errorf("%v lives %v, want at most %v", k, ttl, most)
		}
	}
}

func TestWhatIsMissingIsRememberedForASecond(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(withoutRedis)
	read := func(code errcode.Code, loads uint64) {
		t.Helper()
		_, err := p.GetProduct(t.Context(), mine, "LAMP", anyToken)
		if code != "" {
			wantCode(t, err, code)
		} else {
			w.must(err)
		}
		if n := p.loads("replica"); n != loads {
			t.Errorf("%d loads, want %d", n, loads)
		}
	}
	read(errcode.CAT001, 1)
	read(errcode.CAT001, 1)
	w.product(mine, "LAMP", "Lamp")
	w.synced(w.ReplicaURL)
	read(errcode.CAT001, 1)
	w.advance(time.Second)
	read("", 2)
}

func TestAnOldEntryIsServedWhileOneCallerLoads(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(withoutRedis)
	id := w.place(mine, time.Hour)
	w.synced(w.ReplicaURL)
	p.get(mine, id, anyToken)
	many := func(wantTier string) {
		t.Helper()
		start := make(chan struct{})
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				<-start
				if _, tier := p.get(mine, id, anyToken); tier != wantTier {
					t.Errorf("served by %s, want %s", tier, wantTier)
				}
			})
		}
		close(start)
		all.Wait()
	}
	many("lru")
	if n := p.loads("replica"); n != 1 {
		t.Fatalf("%d loads while fresh", n)
	}
	w.advance(refreshAfter)
	many("lru")
	w.until(func() bool {
		return p.loads("replica") >= 2 && !p.entry(orders.row(mine, id, "")).refreshing.Load()
	})
	many("lru")
	if n := p.loads("replica"); n != 2 {
		t.Fatalf("%d loads, want one more", n)
	}
	w.update(mine, id)
	w.synced(w.ReplicaURL)
	w.advance(staleAfter) // a caller that comes now waits
	if rev, tier := p.get(mine, id, anyToken); rev != 2 || tier != "replica" {
		t.Errorf("revision %d by %s", rev, tier)
	}
}

// TestAFailureIsSharedToo: a load that failed is the failure of all who waited for it, not a load of each.
func TestAFailureIsSharedToo(t *testing.T) {
	t.Parallel()
	w := setup(t)
	proxy, url := pgtest.Proxy(t, w.PrimaryURL)
	p := w.process(withoutRedis, withoutReplicas, func(c *Config) { c.Primary = w.pool(url) })
	id := w.place(mine, time.Hour)
	w.must(p.cfg.Primary.Ping(t.Context()))
	defer proxy.Cut()
	proxy.Freeze() // until the read's time is over
	before := p.loads("primary")
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			_, err := p.GetOrder(t.Context(), mine, id, anyToken)
			wantCode(t, err, errcode.SYS002)
		})
	}
	all.Wait()
	if n := p.loads("primary") - before; n > 5 { // a caller that comes when the first load has failed makes another
		t.Errorf("%d loads for 50 callers", n)
	}
}

func TestManyCallersOfAColdKeyCostOneLoad(t *testing.T) {
	t.Parallel()
	w := setup(t)
	processes := []*process{w.process(), w.process(), w.process()}
	const keys = 20
	for range keys {
		id := w.place(mine, time.Hour)
		w.synced(w.ReplicaURL)
		start := make(chan struct{})
		var all sync.WaitGroup
		for i := range 60 {
			all.Go(func() {
				<-start
				processes[i%3].get(mine, id, anyToken)
			})
		}
		close(start)
		all.Wait()
	}
	var n uint64
	for _, p := range processes {
		n += p.loads("replica")
	}
	t.Logf("%d loads of %d keys by three processes", n, keys)
	if n > keys*3/2 { // a lock lasts 50 ms; a busy machine may take longer now and then
		t.Errorf("%d loads", n)
	}
}

func TestACallerThatLeavesDoesNotEndTheLoad(t *testing.T) {
	t.Parallel()
	w := setup(t)
	id := w.place(mine, time.Hour)
	w.synced(w.ReplicaURL)
	p := w.process(withoutRedis)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.GetOrder(gone, mine, id, anyToken); err != nil {
		t.Error(err)
	}
	if h := p.entry(orders.row(mine, id, "")).value.Load(); h == nil || h.rev != 1 {
		t.Error("nothing was stored")
	}
}

// A strong caller joins the load of a weak one and must not be given its entry.
func TestWhoNeedsMoreThanTheLoadThatRunsAsksAgain(t *testing.T) {
	t.Parallel()
	w := setup(t)
	id := w.place(mine, time.Hour)
	p := w.process(w.behind, withoutRedis)
	w.synced(w.LaggingURL(t))
	for range 20 {
		rev, knownAt, lsn, body := w.update(mine, id)
		strong, _ := w.signer.Parse(newEntry(w.process(withoutRedis), mine, id, rev, knownAt, lsn, body).Token)
		p.lru.Purge()
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				if i%2 == 0 {
					p.get(mine, id, anyToken)
				} else if got, _ := p.get(mine, id, strong); got < rev {
					t.Errorf("read %d with the token of %d", got, rev)
				}
			})
		}
		all.Wait()
	}
}

func TestRevisionsHeardAreNotServedBelow(t *testing.T) {
	t.Parallel()
	w := setup(t)
	id := w.place(mine, time.Hour)
	w.synced(w.ReplicaURL)
	changes := make(chan string, 10)
	writer, listener := w.process(), w.process(func(c *Config) { c.OnChange = func(key string, rev int64) { changes <- fmt.Sprint(key, " ", rev) } })
	listener.subscribe()
	if rev, _ := listener.get(mine, id, anyToken); rev != 1 {
		t.Fatal(rev)
	}
	rev, _ := writer.write(mine, id)
	if got, want := <-changes, fmt.Sprint(id.Format(order.PrefixOrder), " ", rev); got != want {
		t.Errorf("told of %s, want %s", got, want)
	}
	if got, tier := listener.get(mine, id, anyToken); got != rev || tier != "redis" {
		t.Errorf("revision %d by %s", got, tier)
	}
	t.Run("also while the key is being loaded from a replica that is behind, and Redis lost it", func(t *testing.T) {
		p := w.process(w.behind, withoutRedis)
		w.synced(w.LaggingURL(t))
		p.get(mine, id, anyToken)
		rev, _, _, _ := w.update(mine, id)
		p.bumpMinRev(orders.row(mine, id, ""), rev)
		if got, tier := p.get(mine, id, anyToken); got != rev || tier != "primary" {
			t.Errorf("revision %d by %s", got, tier)
		}
	})
}

func TestAChannelThatComesBackEmptiesTheLRU(t *testing.T) {
	t.Parallel()
	w := setup(t)
	id := w.place(mine, time.Hour)
	w.synced(w.ReplicaURL)
	proxy, p := w.behindProxy()
	p.subscribe()
	p.get(mine, id, anyToken)
	proxy.Cut()
	writer := w.process()
	writer.write(mine, id) // not heard
	w.synced(w.ReplicaURL)
	if p.lru.Len() == 0 {
		t.Fatal("nothing is cached")
	}
	proxy.Heal()
	w.until(func() bool { return p.lru.Len() == 0 })
	if got, _ := p.get(mine, id, anyToken); got != 2 {
		t.Errorf("read %d", got)
	}
}

func TestWhatADeadRedisMissedItGetsLater(t *testing.T) {
	t.Parallel()
	w := setup(t)
	id := w.place(mine, time.Hour)
	w.synced(w.ReplicaURL)
	proxy, writer := w.behindProxy()
	writer.subscribe()
	writer.write(mine, id) // now Redis has revision 2 for 10 s
	proxy.Cut()
	rev, _ := writer.write(mine, id)
	if rev, tier := writer.get(mine, id, anyToken); rev != 3 || tier != "lru" {
		t.Errorf("the writer reads %d by %s", rev, tier)
	}
	w.must(writer.EnsureRevs(t.Context(), []Revision{{order.Ref{Owner: mine, ID: id}, rev}})) // Redis is down: no error
	other := w.process()
	if got, _ := other.get(mine, id, anyToken); got != 2 {
		t.Fatalf("read %d: Redis was not cut off", got)
	}
	proxy.Heal()
	w.until(func() bool {
		e, err := other.redis.get(t.Context(), orders.row(mine, id, ""))
		return err == nil && e.Rev == rev
	})
}

// A Redis that is read and takes nothing (full, or a master that was made a replica) is not asked again for each pending write.
func TestARedisThatTakesNothing(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(withoutReplicas)
	for range 100 {
		p.addPending(orders.row(mine, w.place(mine, time.Hour), ""), 1)
	}
	client := w.redisClient(w.RedisURL)
	w.must(client.Do(t.Context(), "ACL", "SETUSER", w.RedisPrefix, "on", ">secret", "~*", "&*", "+@read", "+info", "+ping").Err())
	t.Cleanup(func() { client.Do(context.WithoutCancel(t.Context()), "ACL", "DELUSER", w.RedisPrefix) })
	reading, err := url.Parse(w.RedisURL)
	w.must(err)
	reading.User = url.UserPassword(w.RedisPrefix, "secret")
	p.redis.client = w.redisClient(reading.String())
	p.flushPending(t.Context())
	if n := p.loads("primary"); n != 1 || p.pendingWrites.Len() != 100 {
		t.Errorf("%d reads of the primary, %d pending writes", n, p.pendingWrites.Len())
	}
	p.redis.client = client
	p.flushPending(t.Context())
	if p.pendingWrites.Len() != 0 {
		t.Errorf("%d pending writes are left", p.pendingWrites.Len())
	}
}

func TestEnsureRevs(t *testing.T) {
	t.Parallel()
	w := setup(t)
	id := w.place(mine, time.Hour)
	k := orders.row(mine, id, "")
	p, other := w.process(), w.process()
	other.subscribe()
	t.Run("a writer that died after COMMIT is made up for", func(t *testing.T) {
		p.write(mine, id)
		other.get(mine, id, anyToken)
		rev, _, _, _ := w.update(mine, id) // and dies
		w.must(p.EnsureRevs(t.Context(), []Revision{{order.Ref{Owner: mine, ID: id}, rev}}))
		if e, err := p.redis.get(t.Context(), k); err != nil || e == nil || e.Rev != rev {
			t.Errorf("Redis has %+v, %v", e, err)
		}
		w.until(func() bool { return other.entry(k).minRev.Load() == rev })
		for _, p := range []*process{p, other} {
			if got, _ := p.get(mine, id, anyToken); got != rev {
				t.Errorf("read %d", got)
			}
		}
	})
	t.Run("what Redis has is not read again", func(t *testing.T) {
		before := p.loads("primary")
		w.must(p.EnsureRevs(t.Context(), []Revision{{order.Ref{Owner: mine, ID: id}, 3}}))
		w.must(p.EnsureRevs(t.Context(), []Revision{{order.Ref{Owner: mine, ID: id}, 2}}))
		if n := p.loads("primary"); n != before {
			t.Errorf("%d reads", n-before)
		}
	})
	t.Run("of several, those that Redis lacks are read", func(t *testing.T) {
		missing, also, before := w.place(mine, 0), w.place(mine, 0), p.loads("primary")
		w.must(p.EnsureRevs(t.Context(), []Revision{{order.Ref{Owner: mine, ID: missing}, 1}, {order.Ref{Owner: mine, ID: id}, 2}, {order.Ref{Owner: mine, ID: also}, 1}}))
		if n := p.loads("primary"); n != before+2 {
			t.Errorf("%d reads", n-before)
		}
		for _, id := range []order.ID{missing, also} {
			if e, err := p.redis.get(t.Context(), orders.row(mine, id, "")); err != nil || e == nil || e.Rev != 1 {
				t.Errorf("Redis has %+v, %v", e, err)
			}
		}
	})
	t.Run("an order that nobody wrote through is", func(t *testing.T) {
		id := w.place(mine, 0)
		w.must(p.EnsureRevs(t.Context(), []Revision{{order.Ref{Owner: mine, ID: id}, 1}}))
		if got, tier := w.process().get(mine, id, anyToken); got != 1 || tier != "redis" {
			t.Errorf("revision %d by %s", got, tier)
		}
	})
}

func TestAnotherRedisMasterIsAnotherGeneration(t *testing.T) {
	t.Parallel()
	w := setup(t)
	id := w.place(mine, time.Hour)
	w.synced(w.ReplicaURL)
	p := w.process()
	p.get(mine, id, anyToken)
	promoted := "promoted"
	p.redis.client.master.Store(&promoted)
	p.lru.Purge()
	if _, tier := p.get(mine, id, anyToken); tier != "replica" {
		t.Errorf("served by %s: what the lost master said is still believed", tier)
	}
}

func TestRedisValues(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process()
	ours, theirs, other := w.place(mine, time.Hour), w.place(otherOwner, time.Hour), w.place(mine, time.Hour)
	w.synced(w.ReplicaURL)
	k := orders.row(mine, ours, "")
	name := w.name(p, k)
	e := Entry{Rev: 3, KnownAt: 1 << 50, Token: "1.token", LoadedAt: time.UnixMilli(1_800_000_000_123), Body: view.Body{Bytes: []byte("{}\n"), ETag: `"3-a"`}}
	b := e.encoded(name)
	if got := decode(name, b); got == nil || fmt.Sprint(*got) != fmt.Sprint(e) {
		t.Errorf("%+v, want %+v", got, e)
	}
	t.Run("a value cut anywhere, or with any bit flipped, is none", func(t *testing.T) {
		for n := range b {
			if decode(name, b[:n]) != nil {
				t.Errorf("%d of %d bytes are a value", n, len(b))
			}
			for bit := range 8 {
				flipped := bytes.Clone(b)
				flipped[n] ^= 1 << bit
				if decode(name, flipped) != nil {
					t.Errorf("bit %d of byte %d is not covered", bit, n)
				}
			}
		}
		if decode(name, append(bytes.Clone(b), 0)) != nil {
			t.Error("a longer value is a value")
		}
	})
	at := func(k key) []byte {
		t.Helper()
		b, err := p.cfg.Redis.Get(t.Context(), w.name(p, k)).Bytes()
		w.must(err)
		return b
	}
	p.write(otherOwner, theirs)
	p.write(mine, other)
	p.write(mine, ours)
	own := at(k)
	flipped := bytes.Clone(own)
	flipped[len(flipped)/2] ^= 1
	promoted := bytes.Clone(own)
	promoted[0] ^= 0x40 // a revision that no other entry reaches
	w.synced(w.ReplicaURL)
	for what, b := range map[string][]byte{
		"empty": {}, "cut in its body": own[:len(own)-10], "cut in its head": own[:10], "one bit flipped": flipped, "one bit of its revision flipped": promoted,
		"another account's": at(orders.row(otherOwner, theirs, "")), "another key's": at(orders.row(mine, other, "")),
	} {
		t.Run("a miss: "+what, func(t *testing.T) {
			w.must(p.cfg.Redis.Set(t.Context(), name, b, time.Minute).Err())
			reader := w.process()
			if rev, tier := reader.get(mine, ours, anyToken); rev != 2 || tier != "replica" {
				t.Errorf("revision %d by %s", rev, tier)
			}
			if n := reader.counter("ordergate_cache_corrupt_total"); n == 0 {
				t.Error("it is not counted")
			}
			if reader.breakerOpen("redis") {
				t.Error("it counts as a failure of Redis")
			}
		})
	}
	if n := p.counter("ordergate_cache_corrupt_total"); n != 0 {
		t.Errorf("%v sound entries are counted", n)
	}
}

// What a cached row takes beside its text: its place in the LRU, the state by which it is judged, token, ETag, and the allocator's rounding.
func TestACachedRowTakesLittleMoreThanItsText(t *testing.T) {
	if testing.Short() {
		t.Skip("it needs PostgreSQL")
	}
	w := setup(t)
	const rows = 10_000
	for _, size := range []int{600, 1200, 2400, 3300, 6000} {
		p := w.process(withoutRedis, func(c *Config) { c.LRUSize = 2 * rows })
		heap := func() uint64 {
			runtime.GC()
			runtime.GC() // what the first one found goes
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		before := heap()
		for range rows {
			id := w.ids.Mint(time.Now(), mine.Account)
			k := orders.row(mine, id, "")
			e := newEntry(p, mine, id, 1, 1, 1, view.Body{ETag: `"5d41402abc4b2a76"`, Bytes: make([]byte, size)})
			p.store(p.entry(k), &e)
		}
		more := float64(heap()-before)/rows - float64(size)
		runtime.KeepAlive(p)
		t.Logf("%d bytes: %.0f more, %.3f of it in all", size, more, 1+more/float64(size))
		if limit := 460 + float64(size)/8; more > limit { // size classes are up to an eighth apart
			t.Errorf("a row of %d bytes takes %.0f more", size, more)
		}
	}
}
