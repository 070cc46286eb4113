package query

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

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
		"redis://h:1": 128, "redis://h:1?pool_size=5": 5, "redis+cluster://h:1": 128, "redis+cluster://h:1?pool_size=5": 5,
		"redis+sentinel://h:1?master_name=m": 128, "redis+sentinel://h:1?master_name=m&pool_size=5": 5,
	} {
		if got := size(address); got != want {
			t.Errorf("%s has %d connections", address, got)
		}
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
		first, err1 := writer.redis.lock(w.Context(), k)
		second, err2 := reader.redis.lock(w.Context(), k)
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
		if checked := p.entry(e.of).store(e, now); checked == nil {
			t.Fatal("not stored")
		}
		if age := now.Sub(p.entry(e.of).value.Load().checked); age < 0 || age > refreshAfter/5 {
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
