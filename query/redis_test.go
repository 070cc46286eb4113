package query

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/guard"
	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/order"
)

func TestRedisURLs(t *testing.T) {
	t.Parallel()
	for address, good := range map[string]bool{
		"redis://h:1/2": true, "rediss://u:p@h:1": true, "redis+cluster://:p@h:1?addr=i:2&addr=j:3": true, "rediss+cluster://h": true,
		"redis+sentinel://h:1?master_name=m": true, "rediss+sentinel://:p@h:1?addr=i:2&master_name=m&password=q": true,
		"": false, "redis://h/x": false, "http://h": false, "redis+ring://h": false, "redis+cluster://h?addr=i": false, "redis+cluster://h?master_name=m": false,
		"redis+sentinel://h:1": false, "redis+cluster://h?read_only=true": false, "redis+cluster://h?route_randomly=true": false,
		"redis+sentinel://h?master_name=m&replica_only=true": false, "redis+sentinel://h?master_name=m&route_by_latency=true": false,
		"redis+cluster://h/0": true, "redis+cluster://h?read_only=false": true, "redis://[::1]:1/2?pool_size=5": true,
	} {
		if err := CheckRedis(address); (err == nil) != good {
			t.Errorf("%s: %v", address, err)
		}
	}
	for address, reason := range map[string]string{
		"redis+sentinel://u:secret@h:1?addr=secret:2":                  "master_name",
		"redis+sentinel://u:secret@h:1?master_name=secret&db=secret":   "parameter db",
		"redis+cluster://u:secret@h:1?read_only=secret":                "parameter read_only is refused",
		"redis+sentinel://secret?master_name=secret&replica_only=true": "parameter replica_only is refused",
		"redis+cluster://u:secret@h?addr=secret":                       "parameter addr must be host:port",
		"redis+cluster://u:secret@h?addr=secret:65536":                 "parameter addr must be host:port",
		"redis+cluster://u:secret@h?master_name=secret":                "parameter master_name is not one of this scheme",
		"redis+cluster://u:secret@h/1":                                 "database 0 alone",
		"redis://u:secret@h/secret":                                    "number of a database",
		"redis://u:secret@h/-1":                                        "number of a database",
		"redis://u:secret@h:65536/0":                                   "port is not a number from 1 to 65535",
		"redis://u:secret@h:0/0":                                       "port is not a number from 1 to 65535",
		"redis://u:secret@h:secret/0":                                  "a port is a number",
		"redis://u:sec#ret/secret@h:1/0":                               "a port is a number",
		"redis+ring://u:secret@h":                                      "redis, rediss, redis+cluster, rediss+cluster, redis+sentinel, rediss+sentinel",
		"secret":                                                       "the scheme must be one of",
		"redis://u:secret@h?pool_size=secret":                          "parameter pool_size does not have a value of its type",
		"redis+cluster://h?pool_size=-1":                               "parameter pool_size must be greater than 0",
		"redis://u:secret@h?secret=1":                                  "a parameter that is not known",
		"redis://u:secret@h?pool_size=%":                               "name=value&name=value",
	} {
		if err := CheckRedis(address); err == nil || !strings.Contains(err.Error(), reason) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, and not %s", address, err, reason)
		}
	}
	size := func(address string) int {
		r, err := OpenRedis(address)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		switch client := r.UniversalClient.(type) {
		case *redis.Client:
			return client.Options().PoolSize
		case *redis.ClusterClient:
			return client.Options().PoolSize
		}
		return 0
	}
	for address, want := range map[string]int{
		"redis://h:1": 32, "redis://h:1?pool_size=5": 5, "redis+cluster://h:1": 32, "redis+cluster://h:1?pool_size=5": 5,
		"redis+sentinel://h:1?master_name=m": 32, "redis+sentinel://h:1?master_name=m&pool_size=5": 5,
	} {
		if got := size(address); got != want {
			t.Errorf("%s has %d connections", address, got)
		}
	}
}

// herd has so many callers ask Redis for a key each at one instant.
func (p *process) herd(n int) (answered, full, failed int64) {
	var all sync.WaitGroup
	start := make(chan struct{})
	for range n {
		k := orders.row(mine, p.w.ids.Mint(p.w.now(), 7), "")
		all.Go(func() {
			<-start
			switch _, err := p.redis.get(p.w.Context(), k); {
			case err == nil:
				atomic.AddInt64(&answered, 1)
			case apierr.From(err).Code == errcode.RATE003:
				atomic.AddInt64(&full, 1)
			default:
				atomic.AddInt64(&failed, 1)
			}
		})
	}
	close(start)
	all.Wait()
	return answered, full, failed
}

// A herd on a cold client waits for connections that are being made, which says nothing of Redis.
func TestAHerdOnAColdClientLeavesTheBreakerClosed(t *testing.T) { //nolint:paralleltest // what runs beside it would take the time of its connections
	w := setup(t)
	for try := 1; ; try++ {
		p := w.process(withoutReplicas, impatient)
		answered, full, failed := p.herd(900)
		t.Logf("%d answered, %d had no place, %d failed", answered, full, failed)
		if size := p.cfg.Redis.PoolStats().TotalConns; size > redisConnections {
			t.Errorf("%d connections", size)
		}
		if !p.breakerOpen("redis") {
			return
		}
		if try == 3 { // a busy machine
			t.Fatal("the breaker of a healthy Redis is open")
		}
	}
}

// So does a herd on few connections, each command of which takes its time.
func TestAHerdOnFewConnectionsLeavesTheBreakerClosed(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(withoutReplicas, func(c *Config) { c.Redis = w.redisClient(w.RedisURL + "?pool_size=4") }, impatient)
	w.until(func() bool { _, _, failed := p.herd(4); return failed == 0 })
	p.redis.guard.CloseBreaker()
	p.cfg.Redis.AddHook(&slow{takes: 10 * time.Millisecond, places: make(chan struct{}, 4)})
	answered, full, failed := p.herd(300)
	if t.Logf("%d answered, %d had no place, %d failed", answered, full, failed); p.breakerOpen("redis") {
		t.Error("the breaker of a healthy Redis is open")
	}
}

// A caller that gets no place goes on to the databases.
func TestWithoutAPlaceInTheQueueForRedisTheDatabasesAreAsked(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(withoutReplicas, func(c *Config) { c.Redis = w.redisClient(w.RedisURL + "?pool_size=1") })
	id := w.place(mine, time.Hour)
	held, entered := make(chan struct{}), make(chan struct{})
	var holder sync.WaitGroup
	p.redis.guard = guard.New(guard.Config{Concurrent: 1, Wait: redisQueueFor, Timeout: 4 * time.Second, Failure: broken})
	holder.Go(func() {
		_ = p.redis.guard.Do(t.Context(), func(context.Context) error { close(entered); <-held; return nil })
	})
	<-entered
	for range 25 {
		if rev, tier := p.fromBelow(id); rev != 1 || tier != tierPrimary {
			t.Errorf("revision %d by %s", rev, tier)
		}
	}
	if p.redis.guard.Open() {
		t.Error("the breaker is open")
	}
	close(held)
	holder.Wait()
}

// slow is a Redis whose GET takes a while, and counts them.
type slow struct {
	takes  time.Duration
	places chan struct{} // the driver's connections, which its hooks stand before; nil: as many as there are callers
	gets   atomic.Int64
}

func (s *slow) DialHook(next redis.DialHook) redis.DialHook { return next }

func (s *slow) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "get" {
			s.gets.Add(1)
			if s.places != nil {
				select {
				case s.places <- struct{}{}:
					defer func() { <-s.places }()
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			pause(ctx, s.takes)
		}
		return next(ctx, cmd)
	}
}

func (s *slow) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// The lock's holder does not fill the key. The others wait for lockWait, however long each of their looks takes.
func TestTheWaitForALockEnds(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(withoutReplicas)
	k, slow := orders.row(mine, w.place(mine, time.Hour), ""), &slow{takes: 4 * redisTimeout / 5}
	w.until(func() bool { return p.cfg.Redis.Set(t.Context(), w.name(p, k)+":lock", "", time.Minute).Err() == nil })
	p.cfg.Redis.AddHook(slow)
	p.get(mine, k.id, anyToken)
	if n := slow.gets.Load(); n > 3 {
		t.Errorf("Redis was asked %d times", n)
	}
}

// A URL of another kind of Redis than the server is refused with a word that says so, by the check of /readyz and in the log, which is told once.
func TestAnotherKindOfRedisIsNamed(t *testing.T) {
	t.Parallel()
	w := setup(t)
	id := w.place(mine, time.Hour)
	cluster, sentinel, single := pgtest.NewRedisCluster(t), pgtest.NewRedisSentinel(t), pgtest.NewRedis(t)
	for name, c := range map[string]struct{ url, want string }{
		"a node of a Cluster":    {cluster.Nodes[0].URL(), "a node of a Cluster: use redis+cluster://"},
		"a Sentinel":             {sentinel.Sentinels[0].URL(), "a Sentinel: use redis+sentinel://"},
		"a Cluster of one Redis": {strings.Replace(single.URL(), "redis", "redis+cluster", 1), "no Cluster: use redis:// or redis+sentinel://"},
		"what the URL promises":  {single.URL(), ""},
		"a Cluster, as promised": {cluster.URL, ""},
		"Sentinels, as promised": {sentinel.URL, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seen, logs := observer.New(zap.InfoLevel)
			p := w.process(withoutReplicas, func(config *Config) { config.Redis, config.Log = w.redisClient(c.url), zap.New(seen) })
			if c.want == "" {
				w.until(func() bool { return p.cfg.Redis.Check(t.Context(), "") == nil })
				return
			}
			err := p.cfg.Redis.Check(t.Context(), "")
			if other, ok := errors.AsType[OtherKindError](err); !ok || string(other) != c.want {
				t.Errorf("the check: %v", err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
			defer cancel()
			p.Subscribe(ctx)
			if lines := logs.All(); len(lines) != 1 || !strings.HasSuffix(fmt.Sprint(lines[0].ContextMap()["error"]), c.want) {
				t.Errorf("the log: %+v", lines)
			}
			if rev, tier := p.fromBelow(id); rev != 1 || tier != tierPrimary {
				t.Errorf("revision %d by %s", rev, tier)
			}
		})
	}
}

func TestTheLogSaysOnceThatTheChannelIsLostAndBack(t *testing.T) {
	t.Parallel()
	w := setup(t)
	seen, logs := observer.New(zap.InfoLevel)
	proxy, p := w.behindProxy(func(c *Config) { c.Log = zap.New(seen) })
	p.subscribe()
	said := func() (all []string) {
		for _, l := range logs.All() {
			all = append(all, l.Message)
		}
		return all
	}
	proxy.Cut()
	w.until(func() bool { return len(said()) > 0 })
	<-time.After(time.Second) // several tries
	proxy.Heal()
	p.entry(key{})
	w.until(func() bool { return p.lru.Len() == 0 })
	w.until(func() bool {
		return slices.Equal(said(), []string{"the cache channel of Redis is lost", "the cache channel of Redis is back"})
	})
}

// blocked is a Redis of which a pipeline that begins with a GET waits.
type blocked struct {
	slow
	entered, goOn chan struct{}
}

func (b *blocked) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if cmds[0].Name() == "get" {
			close(b.entered)
			<-b.goOn
		}
		return next(ctx, cmds)
	}
}

// The connections are closed after Subscribe has returned.
func TestSubscribeReturnsAfterItsFlush(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(withoutReplicas)
	b := &blocked{entered: make(chan struct{}), goOn: make(chan struct{})}
	p.cfg.Redis.AddHook(b)
	p.addPending(orders.row(mine, w.place(mine, time.Hour), ""), 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wentOn atomic.Bool
	done := make(chan struct{})
	go func() { defer close(done); p.Subscribe(ctx) }()
	<-b.entered
	cancel()
	time.AfterFunc(100*time.Millisecond, func() { wentOn.Store(true); close(b.goOn) })
	if <-done; !wentOn.Load() {
		t.Error("it returned before")
	}
}

// onRedis is a process on another Redis than that of all tests. It reads the primary, so that an old state can only come from a cache.
func (w *world) onRedis(url string) *process {
	w.Helper()
	return w.process(withoutReplicas, func(c *Config) { c.Redis = w.redisClient(url) })
}

// fromBelow reads an order past the LRU.
func (p *process) fromBelow(id order.ID) (rev int64, tier string) {
	p.w.Helper()
	p.lru.Purge()
	return p.get(mine, id, anyToken)
}

// sees polls until a process reads a revision from Redis, and never another one. A busy machine may take more than Redis' 50 ms.
func (p *process) sees(id order.ID, rev int64) {
	p.w.Helper()
	p.w.until(func() bool {
		got, tier := p.fromBelow(id)
		if got != rev {
			p.w.Fatalf("revision %d by %s, want %d", got, tier, rev)
		}
		return tier == tierRedis
	})
}

// flushed gives Redis the pending writes.
func (p *process) flushed() {
	p.w.Helper()
	p.w.until(func() bool {
		p.flushPending(p.w.Context())
		return p.pendingWrites.Len() == 0
	})
}

// tiersWork reads, writes through, misses, locks and publishes.
func (w *world) tiersWork(writer, reader, listener *process, ids []order.ID) {
	w.Helper()
	w.until(func() bool {
		k := orders.row(mine, w.ids.Mint(w.now(), 7), "")
		e, err := writer.redis.get(w.Context(), k)
		begun := time.Now()
		first, err1 := writer.redis.lock(w.Context(), k)
		second, err2 := reader.redis.lock(w.Context(), k)
		if second && time.Since(begun) > lockFor { // its time was over
			return false
		}
		if e != nil || errors.Join(err, err1, err2) == nil && (!first || second) {
			w.Fatalf("a miss is %+v; the lock is had %v and %v", e, first, second)
		}
		return errors.Join(err, err1, err2) == nil
	})
	entries := make([]Entry, len(ids)) // one pipeline
	for i, id := range ids {
		rev, knownAt, lsn, body := w.update(mine, id)
		entries[i] = newEntry(writer, mine, id, rev, knownAt, lsn, body)
	}
	writer.WriteThrough(w.Context(), entries...)
	writer.flushed()
	for i, id := range ids {
		reader.sees(id, entries[i].Rev)
	}
	w.until(func() bool { // a listener whose channel has just come back hears it the next time
		for _, id := range ids {
			listener.get(mine, id, anyToken)
		}
		writer.WriteThrough(w.Context(), entries...)
		heard := 0
		for tries := 0; tries < 20 && heard < len(ids); tries++ {
			<-time.After(10 * time.Millisecond)
			heard = 0
			for i, id := range ids {
				if listener.entry(orders.row(mine, id, "")).minRev.Load() == entries[i].Rev {
					heard++
				}
			}
		}
		return heard == len(ids)
	})
	writer.flushed()
	other := w.place(mine, time.Hour)
	if _, tier := reader.fromBelow(other); tier != tierPrimary {
		w.Errorf("served by %s", tier)
	}
	w.until(func() bool { _, tier := writer.fromBelow(other); return tier == tierRedis }) // what the reader, or itself, filled
}

func (w *world) places(n int) (ids []order.ID) {
	w.Helper()
	for range n {
		ids = append(ids, w.place(mine, time.Hour))
	}
	return ids
}

// A Redis that is started again with the data of an earlier SAVE has entries that were replaced since.
func TestARedisWithOldDataServesNothingOfIt(t *testing.T) {
	t.Parallel()
	w := setup(t)
	server := pgtest.NewRedis(t)
	writer, reader, listener := w.onRedis(server.URL()), w.onRedis(server.URL()), w.onRedis(server.URL())
	listener.subscribe()
	ids := w.places(2)
	w.tiersWork(writer, reader, listener, ids)
	listener.get(mine, ids[0], anyToken)
	server.Do("SAVE")
	for _, id := range ids {
		writer.write(mine, id)
	}
	server.Kill()
	server.Start()
	if n := server.Do("DBSIZE").(int64); n < 2 {
		t.Fatalf("the server has %d keys of before", n)
	}
	// The first command of each process goes to the new server under the old name.
	if rev, tier := reader.fromBelow(ids[0]); rev != 3 || tier != tierPrimary {
		t.Errorf("revision %d by %s", rev, tier)
	}
	if rev, _ := writer.write(mine, ids[1]); writer.pendingWrites.Len() != 1 {
		t.Errorf("revision %d counts as taken", rev)
	}
	writer.flushed()
	reader.sees(ids[1], 4)
	w.until(func() bool { return listener.lru.Len() == 0 })
	w.tiersWork(writer, reader, listener, ids)
}

// The id also changes while all connections go on: a first replica comes, and by hand a master is made a replica and back.
func TestAnIDThatChangesWithoutARestart(t *testing.T) {
	t.Parallel()
	w := setup(t)
	server := pgtest.NewRedis(t)
	old, listener := w.onRedis(server.URL()), w.onRedis(server.URL())
	listener.subscribe()
	ids := w.places(1)
	w.tiersWork(old, old, listener, ids)
	listener.get(mine, ids[0], anyToken)
	before := listener.redis.client.master.Load()
	server.Do("REPLICAOF 127.0.0.1 1")
	w.until(func() bool { return listener.redis.client.master.Load() == nil })
	if _, err := w.onRedis(server.URL()).redis.get(t.Context(), orders.row(mine, ids[0], "")); !errors.Is(err, errNotMaster) {
		t.Errorf("a replica is read: %v", err)
	}
	server.Do("REPLICAOF NO ONE")
	w.until(func() bool { m := listener.redis.client.master.Load(); return m != nil && *m != *before })
	w.until(func() bool { return listener.lru.Len() == 0 })
	w.must(old.redis.refresh(t.Context()))
	w.tiersWork(old, w.onRedis(server.URL()), listener, ids)
}

func TestAScriptThatRedisLostIsSentAgain(t *testing.T) {
	t.Parallel()
	w := setup(t)
	server := pgtest.NewRedis(t)
	writer, reader := w.onRedis(server.URL()), w.onRedis(server.URL())
	evals := func(name string) bool { return server.Has("cmdstat_"+name+":", "INFO commandstats") }
	id := w.place(mine, time.Hour)
	writer.write(mine, id) // the first one brings the script
	server.Do("CONFIG RESETSTAT")
	writer.write(mine, id)
	if evals("eval") || !evals("evalsha") {
		t.Error("each write sends the script")
	}
	server.Do("SCRIPT FLUSH")
	rev, _ := writer.write(mine, id)
	if n := writer.pendingWrites.Len(); n > 0 {
		t.Errorf("%d writes are pending", n)
	}
	reader.sees(id, rev)
}

func TestEntriesThatWereFilledTogetherEndApart(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(withoutReplicas)
	var entries []*Entry
	for range 200 {
		k := orders.row(mine, w.ids.Mint(w.now(), 7), "")
		entries = append(entries, &Entry{of: k, Rev: 1, Timeline: p.epoch().timeline, Generation: p.epoch().generation, LoadedAt: w.now()})
	}
	now := w.now()
	w.must(p.redis.put(t.Context(), false, entries...))
	ends := map[int64]int{} // by 200 ms
	first, last := redisFor, time.Duration(0)
	for _, e := range entries {
		ttl := p.cfg.Redis.PTTL(t.Context(), w.name(p, e.of)).Val()
		ends[ttl.Milliseconds()/200]++
		first, last = min(first, ttl), max(last, ttl)
		stored := w.now()
		p.store(p.entry(e.of), e)
		if age := p.clock(w.now()) - p.entry(e.of).value.Load().checked; age < 0 || age > refreshAfter/5+w.now().Sub(stored) {
			t.Fatalf("in the LRU it begins at age %v", age)
		}
	}
	if took := w.now().Sub(now); first < redisFor*4/5-took || last > redisFor || last-first < time.Second {
		t.Errorf("they live from %v to %v", first, last)
	}
	for _, n := range ends {
		if n > 60 {
			t.Errorf("%d of 200 end in the same 200 ms", n)
		}
	}
}

// A master of a Cluster is killed while clients read and write. Then a second one, whose replica lacks the last write.
func TestACluster(t *testing.T) {
	t.Parallel()
	w := setup(t)
	c := pgtest.NewRedisCluster(t)
	writer, reader, listener := w.onRedis(c.URL), w.onRedis(c.URL), w.onRedis(c.URL)
	listener.subscribe()
	writer.subscribe()
	ids := w.places(20)
	w.tiersWork(writer, reader, listener, ids)
	for _, node := range c.Nodes {
		node.Do("SCRIPT FLUSH")
	}
	w.tiersWork(writer, reader, listener, ids)

	t.Run("revisions of keys on different nodes", func(t *testing.T) {
		all, before := make([]Revision, len(ids)), writer.loads(tierPrimary)
		for i, id := range ids {
			rev, _, _, _ := w.update(mine, id) // and its writer dies
			all[i] = Revision{order.Ref{Owner: mine, ID: id}, rev}
		}
		for range 2 {
			w.must(writer.EnsureRevs(t.Context(), all))
		}
		if n := writer.loads(tierPrimary) - before; n != uint64(len(ids)) || writer.pendingWrites.Len() > 0 {
			t.Errorf("%d reads of the primary for %d revisions, %d pending", n, len(ids), writer.pendingWrites.Len())
		}
	})
	t.Run("a master that is killed", func(t *testing.T) {
		latest, stale := map[order.ID]int64{}, 0
		master, _ := c.Owner(w.name(reader, orders.row(mine, ids[0], "")))
		master.Kill()
		killed := time.Now()
		for _, id := range ids {
			latest[id], _ = writer.write(mine, id)
		}
		newest, slowest := map[order.ID]bool{}, time.Duration(0)
		for len(newest) < len(ids) {
			if time.Since(killed) > 2*redisFor {
				t.Fatal("it does not come back")
			}
			for _, id := range ids {
				begun := time.Now()
				rev, tier := reader.fromBelow(id)
				slowest = max(slowest, time.Since(begun))
				switch {
				case rev == latest[id] && tier == tierRedis:
					newest[id] = true
				case rev != latest[id] && (tier != tierRedis || newest[id]):
					t.Errorf("revision %d by %s, want %d", rev, tier, latest[id])
				case rev != latest[id]: // the new master has it, and the write is pending
					stale++
				}
			}
			<-time.After(20 * time.Millisecond)
		}
		t.Logf("all is in Redis after %v, the slowest read took %v, %d reads saw an old entry", time.Since(killed), slowest, stale)
		w.tiersWork(writer, reader, listener, ids)
	})
	t.Run("a master whose replica lacks the last write", func(t *testing.T) {
		i := slices.IndexFunc(ids, func(id order.ID) bool {
			_, replica := c.Owner(w.name(reader, orders.row(mine, id, "")))
			return replica != nil // it has not lost its master yet
		})
		id, name := ids[i], w.name(reader, orders.row(mine, ids[i], ""))
		master, replica := c.Owner(name)
		old, _ := writer.write(mine, id)
		writer.flushed()
		stored := time.Now()
		replica.Detach(master)
		rev, written := writer.write(mine, id)
		reader.sees(id, rev)
		master.Kill()
		var got int64
		var tier string
		w.until(func() bool { got, tier = reader.fromBelow(id); return tier == tierRedis })
		if got != old {
			t.Errorf("revision %d: the replica had it", got)
		}
		ttl := reader.cfg.Redis.PTTL(t.Context(), name).Val()
		if most := redisFor - time.Since(stored) + 100*time.Millisecond; ttl <= 0 || ttl > most {
			t.Errorf("the old entry lives %v, want at most %v", ttl, most)
		}
		if got, tier := reader.get(mine, id, written); got != rev || tier != tierPrimary {
			t.Errorf("with the token of the write: revision %d by %s", got, tier)
		}
		reader.sees(id, rev) // a read replaced it, and the old one does not come back
	})
}

// The master of Sentinels is killed, with a Sentinel that a process listens to. Its replica lacks the last write.
func TestSentinels(t *testing.T) {
	t.Parallel()
	w := setup(t)
	s := pgtest.NewRedisSentinel(t)
	writer, reader, listener := w.onRedis(s.URL), w.onRedis(s.URL), w.onRedis(s.URL)
	listener.subscribe()
	ids := w.places(2)
	w.tiersWork(writer, reader, listener, ids)
	if rev, _ := listener.get(mine, ids[0], anyToken); rev != 2 {
		t.Fatal(rev)
	}
	master, replica := s.Roles()
	replica.Detach(master)
	latest := map[order.ID]int64{}
	for _, id := range ids {
		latest[id], _ = writer.write(mine, id)
	}
	for _, sentinel := range s.Sentinels {
		if sentinel.Has("+switch-master", "PUBSUB CHANNELS") {
			sentinel.Kill()
			break
		}
	}
	master.Kill()
	killed := time.Now()
	listener.get(mine, ids[0], anyToken)
	var all sync.WaitGroup
	for _, p := range []*process{writer, reader} {
		all.Go(func() {
			for tier := ""; tier != tierRedis; <-time.After(20 * time.Millisecond) {
				for _, id := range ids {
					var rev int64
					if rev, tier = p.fromBelow(id); rev != latest[id] {
						t.Errorf("revision %d by %s, want %d", rev, tier, latest[id])
					}
				}
				if time.Since(killed) > 20*time.Second {
					t.Error("the new master is not found")
					return
				}
			}
			t.Logf("Redis serves again after %v", time.Since(killed))
		})
	}
	all.Wait()
	w.until(func() bool { return listener.lru.Len() == 0 })
	t.Logf("the LRU is empty after %v", time.Since(killed))
	if !replica.Has("role:master", "INFO replication") || !replica.Has(w.RedisPrefix, "KEYS *") {
		t.Error("the replica is no master with old entries")
	}
	w.tiersWork(writer, reader, listener, ids)
}
