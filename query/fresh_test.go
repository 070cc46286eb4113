package query

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/querydb"
	"github.com/ordergate/ordergate/internal/devstack"
	"github.com/ordergate/ordergate/internal/guard"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/sql"
)

// behindProxy is a process whose way to Redis can be broken.
func (w *world) behindProxy(change ...func(*Config)) (*pgtest.TCPProxy, *process) {
	proxy, url := pgtest.Proxy(w.TB, w.RedisURL)
	return proxy, w.process(append([]func(*Config){func(c *Config) { c.Redis = w.redisClient(url) }}, change...)...)
}

func TestAnIDThatWasGivenOutIsNever404(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(w.behind)
	for range 20 {
		id := w.place(mine, 0) // and the client has lost its token
		if rev, tier := p.get(mine, id, anyToken); rev != 1 || tier != "primary" {
			t.Errorf("revision %d by %s", rev, tier)
		}
		_, err := p.GetSaga(t.Context(), mine, id, anyToken)
		w.must(err)
	}
	t.Run("an old one is, until the replica has it", func(t *testing.T) {
		_, err := p.GetOrder(t.Context(), mine, w.place(mine, youngFor), anyToken)
		wantCode(t, err, errcode.ORD001)
	})
}

// calls counts what a client sends to Redis, and those of them that may take longer than redisTimeout.
type calls struct{ sent, unbounded atomic.Int64 }

func (c *calls) count(ctx context.Context, cmd redis.Cmder) {
	if name := cmd.Name(); name == "hello" || name == "client" { // the driver's own, of a new connection
		return
	}
	c.sent.Add(1)
	if end, ok := ctx.Deadline(); !ok || time.Until(end) > redisTimeout {
		c.unbounded.Add(1)
	}
}

func (c *calls) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *calls) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error { c.count(ctx, cmd); return next(ctx, cmd) }
}

func (c *calls) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error { c.count(ctx, cmds[0]); return next(ctx, cmds) }
}

func TestRedisDown(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(*pgtest.TCPProxy){"cut": (*pgtest.TCPProxy).Cut, "silent": (*pgtest.TCPProxy).Freeze} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := setup(t)
			proxy, p := w.behindProxy(impatient)
			id := w.place(mine, time.Hour)
			w.synced(w.ReplicaURL)
			p.get(mine, id, anyToken)
			calls := &calls{}
			p.cfg.Redis.AddHook(calls)
			harm(proxy)
			p.write(mine, id)
			if n := calls.sent.Load(); n > 1 {
				t.Errorf("a write asked Redis %d times", n)
			}
			w.synced(w.ReplicaURL)
			for range 40 {
				p.lru.Purge()
				before := calls.sent.Load()
				if rev, tier := p.get(mine, id, anyToken); rev != 2 || tier != "replica" {
					t.Errorf("revision %d by %s", rev, tier)
				}
				if n := calls.sent.Load() - before; n > 1 {
					t.Errorf("a read asked Redis %d times", n)
				}
			}
			if n := calls.unbounded.Load(); n > 0 {
				t.Errorf("%d of %d calls may take longer than %v", n, calls.sent.Load(), redisTimeout)
			}
			if !p.breakerOpen("redis") {
				t.Error("its breaker is not open")
			}
			before := calls.sent.Load()
			p.lru.Purge()
			p.get(mine, id, anyToken)
			p.write(mine, id)
			if n := calls.sent.Load() - before; n > 0 && p.breakerOpen("redis") {
				t.Errorf("an open breaker let %d calls pass", n)
			}
		})
	}
}

func TestReplicaDown(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(*pgtest.TCPProxy){"cut": (*pgtest.TCPProxy).Cut, "silent": (*pgtest.TCPProxy).Freeze} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := setup(t)
			proxy, url := pgtest.Proxy(t, w.ReplicaURL)
			replica := w.pool(url)
			p := w.process(withoutRedis, func(c *Config) { c.Replicas = []*pgxpool.Pool{replica} })
			id := w.place(mine, time.Hour)
			w.synced(w.ReplicaURL)
			p.get(mine, id, anyToken)
			harm(proxy)
			tried := func() int64 { return replica.Stat().AcquireCount() + replica.Stat().CanceledAcquireCount() }
			skipped := 0
			for range 25 {
				p.lru.Purge()
				before := tried()
				if rev, tier := p.get(mine, id, anyToken); rev != 1 || tier != "primary" {
					t.Errorf("revision %d by %s", rev, tier)
				}
				if tried() == before {
					skipped++
				}
			}
			if skipped == 0 || !p.breakerOpen("replica_1") {
				t.Error("its breaker is not open")
			}
			t.Run("the other replica goes on", func(t *testing.T) {
				p := w.process(withoutRedis, func(c *Config) { c.Replicas = append(c.Replicas, w.pool(url)) })
				tiers := map[string]int{}
				for range 60 {
					p.lru.Purge()
					_, tier := p.get(mine, id, anyToken)
					tiers[tier]++
				}
				if tiers["replica"] < 30 || tiers["primary"] > 25 {
					t.Errorf("served by %v", tiers)
				}
			})
		})
	}
}

func TestPrimaryDown(t *testing.T) {
	t.Parallel()
	w := setup(t)
	proxy, url := pgtest.Proxy(t, w.PrimaryURL)
	id := w.place(mine, time.Hour)
	w.synced(w.ReplicaURL)
	down := func(c *Config) { c.Primary = w.pool(url) }
	far := token.Token{Timeline: 1, LSN: 1 << 60}
	proxy.Cut()

	p := w.process(down, withoutRedis)
	if _, tier := p.get(mine, id, anyToken); tier != "replica" {
		t.Errorf("served by %s", tier)
	}
	_, err := p.GetOrder(t.Context(), mine, id, far)
	wantCode(t, err, errcode.SYS004)
	_, err = p.ListOrders(t.Context(), mine, orderFilter{}, Page{Limit: 20}, far)
	wantCode(t, err, errcode.SYS004)
	_, err = p.ListOrders(t.Context(), mine, orderFilter{}, Page{Limit: 20}, anyToken)
	w.must(err)
	_, err = p.GetOrder(t.Context(), mine, w.ids.Mint(w.now(), 7), anyToken) // young: nobody can say that there is none
	wantCode(t, err, errcode.SYS002)

	p = w.process(down, withoutRedis, withoutReplicas)
	_, err = p.GetOrder(t.Context(), mine, id, anyToken)
	wantCode(t, err, errcode.SYS002)
	_, err = p.GetOrder(t.Context(), mine, id, far)
	wantCode(t, err, errcode.SYS002)

	p = w.process(down, withoutReplicas)
	p.write(mine, id) // by the test's own pool
	p.lru.Purge()
	if rev, tier := p.get(mine, id, anyToken); rev != 2 || tier != "redis" {
		t.Errorf("revision %d by %s", rev, tier)
	}
	_, err = p.GetOrder(t.Context(), mine, id, far)
	wantCode(t, err, errcode.SYS004)
	if e := apierr.From(err); e.Cause == nil {
		t.Error("the log does not learn why")
	}
}

func TestAFullPrimaryTurnsReadsAway(t *testing.T) {
	t.Parallel()
	w := setup(t)
	proxy, url := pgtest.Proxy(t, w.PrimaryURL)
	p := w.process(withoutRedis, withoutReplicas, func(c *Config) { c.Primary = w.pool(url) })
	w.must(p.cfg.Primary.Ping(t.Context()))
	proxy.Freeze()
	var busy, down atomic.Int64
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			_, err := p.GetInventory(t.Context(), mine, "LAMP", anyToken)
			switch apierr.From(err).Code {
			case errcode.RATE003:
				busy.Add(1)
			case errcode.SYS002:
				down.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if busy.Load() == 0 || down.Load() < int64(p.cfg.Primary.Config().MaxConns) {
		t.Errorf("%d turned away, %d tried in vain", busy.Load(), down.Load())
	}
	proxy.Heal()
}

func TestAReplicaThatCatchesUpInTimeIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(withoutRedis)
	id := w.place(mine, time.Hour)
	tiers := map[string]int{}
	for range 100 {
		_, knownAt, lsn, _ := w.update(mine, id)
		a, err := p.ListOrders(t.Context(), mine, orderFilter{}, Page{Limit: 1}, token.Token{Timeline: 1, LSN: max(knownAt, lsn)})
		w.must(err)
		tiers[a.Tier]++
		if got := w.tokenOf(a); got.LSN < lsn {
			t.Errorf("token at %d after %d", got.LSN, lsn)
		}
	}
	t.Logf("served by %v", tiers)
	if tiers["replica"] < 50 {
		t.Errorf("served by %v", tiers)
	}
}

// A token whose position could not be read is later than every other, and the primary meets it.
func TestATokenWithoutAPositionGoesToThePrimary(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(withoutRedis, w.behind)
	id := w.place(mine, time.Hour)
	w.synced(w.LaggingURL(t))
	rev, knownAt, lsn, body := w.update(mine, id)
	lost, known := newEntry(p, mine, id, rev, knownAt, token.NoPosition, body), newEntry(p, mine, id, rev, knownAt, lsn, body)
	if lost.Token < known.Token {
		t.Error("a client drops it")
	}
	tok, _ := w.signer.Parse(lost.Token)
	a, err := p.ListOrders(t.Context(), mine, orderFilter{}, Page{Limit: 1}, tok)
	w.must(err)
	if got, tier := p.get(mine, id, tok); a.Tier != "primary" || got != rev || tier != "primary" {
		t.Errorf("the list by %s, revision %d by %s", a.Tier, got, tier)
	}
	writer := w.process()
	writer.WriteThrough(t.Context(), lost)
	b, err := w.process().GetOrder(t.Context(), mine, id, anyToken)
	w.must(err)
	if w.tokenOf(b).LSN == token.NoPosition {
		t.Error("it is handed to others")
	}
	writer.flushPending(t.Context())
	if e, err := writer.redis.get(t.Context(), orders.row(mine, id, "")); err != nil || e == nil || e.Rev != rev {
		t.Errorf("Redis has %+v, %v", e, err)
	}
}

func TestTokensOfReadsAskForWhatWasSeen(t *testing.T) {
	t.Parallel()
	w := setup(t)
	near, behind := w.process(withoutRedis), w.process(withoutRedis, w.behind)
	id := w.place(mine, time.Hour)
	w.synced(w.LaggingURL(t))
	for range 10 {
		rev, _, _, _ := w.update(mine, id)
		w.synced(w.ReplicaURL)
		near.lru.Purge()
		a, err := near.GetOrder(t.Context(), mine, id, anyToken)
		w.must(err)
		if revOf(t, a) != rev {
			t.Fatal("the near replica is behind")
		}
		seen := w.tokenOf(a)
		if got, _ := behind.get(mine, id, seen); got < rev {
			t.Errorf("read %d after %d", got, rev)
		}
		b, err := behind.ListOrders(t.Context(), mine, orderFilter{}, Page{Limit: 1}, token.Token{Timeline: seen.Timeline, LSN: seen.LSN})
		w.must(err)
		if b.Tier != "primary" {
			t.Errorf("the list was served by %s", b.Tier)
		}
		if _, tier := near.get(mine, id, seen); tier != "lru" {
			t.Errorf("its own token sends a reader to %s", tier)
		}
	}
}

// ownServers is a world of its own, whose servers may be changed.
func ownServers(t *testing.T, more ...devstack.Replica) *world {
	t.Helper()
	if testing.Short() {
		t.Skip("it starts servers")
	}
	dir, err := devstack.Scratch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stack, err := devstack.Start(t.Context(), devstack.Config{Dir: dir, Replicas: append([]devstack.Replica{{Name: "replica"}}, more...)})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.WithoutCancel(t.Context())
	t.Cleanup(func() { _, _ = stack.Stop(ctx), devstack.Remove(ctx, dir) })
	db := &pgtest.DB{PrimaryURL: stack.PrimaryURL, ReplicaURL: stack.ReplicaURLs[0], RedisURL: stack.RedisURL}
	w := &world{TB: t, DB: db, ids: order.NewIDs(nil), signer: token.NewSigner(nil)}
	if len(more) > 0 {
		w.otherReplica = stack.ReplicaURLs[1]
	}
	w.must(sql.Migrate(t.Context(), w.PrimaryURL))
	w.Pool, err = pgxpool.New(t.Context(), w.PrimaryURL)
	w.must(err)
	t.Cleanup(w.Pool.Close)
	return w
}

func (w *world) on(url, statement string) {
	w.Helper()
	c, err := pgx.Connect(context.Background(), url)
	w.must(err)
	defer c.Close(context.Background())
	_, err = c.Exec(context.Background(), statement)
	w.must(err)
}

// A client reads and writes an order at the same time. The read's statement sees the revision before the write, and its position is
// that of a later commit, so the read's token is the greater one. It must not let a cache serve the old revision.
func TestTheTokenOfAReadBesideAWriteDoesNotHideTheWrite(t *testing.T) {
	t.Parallel()
	w := setup(t)
	id := w.place(mine, time.Hour)
	p, between := w.stopsBetweenPositions()
	var old View
	written := token.Token{Timeline: 1, Key: orders.row(mine, id, "").tokenName(), Rev: 2}
	between(func() {
		var err error
		old, err = p.GetOrder(t.Context(), mine, id, anyToken)
		w.must(err)
	}, func(c *pgx.Conn) {
		w.execOn(c, `UPDATE order_rows SET rev = 2, version = 2, state = jsonb_set(state::jsonb, '{metadata,rev}', '"2"') WHERE id = $1`, id[:])
		w.must(c.QueryRow(t.Context(), "SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint").Scan(&written.LSN))
		w.execOn(c, "CREATE TABLE another_commit ()")
	})
	if rev := revOf(t, old); rev != 1 || old.Token < w.signer.Sign(written) {
		t.Fatalf("the read has revision %d and token %s, the write has %s", rev, old.Token, w.signer.Sign(written))
	}
	if rev, tier := p.get(mine, id, w.tokenOf(old)); rev != 2 {
		t.Errorf("revision %d by %s", rev, tier)
	}
}

// The second look after a position that moved is for the token alone: its failure is not the read's.
func TestASecondLookThatFailsCostsTheTokenItsRow(t *testing.T) {
	t.Parallel()
	w := setup(t)
	k := orders.row(mine, w.place(mine, time.Hour), "")
	p, between := w.stopsBetweenPositions()
	looks := 0
	between(func() {
		e, err := p.ask(t.Context(), p.primary, requirement{of: k}, func(ctx context.Context, db *querydb.Queries) (found, error) {
			if looks++; looks > 1 {
				return found{}, errors.New("lost")
			}
			return k.read(ctx, db)
		})
		w.must(err)
		if seen, _ := w.signer.Parse(e.Token); looks != 2 || e.Rev != 1 || seen.Key != "" || seen.LSN == 0 {
			t.Errorf("after %d looks revision %d with %+v", looks, e.Rev, seen)
		}
	}, func(c *pgx.Conn) { w.execOn(c, "CREATE TABLE another_commit ()") })
}

// stopsBetweenPositions is a process whose reads of orders can be stopped between the two positions. between runs a read and, while it
// is stopped there, meanwhile.
func (w *world) stopsBetweenPositions() (p *process, between func(read func(), meanwhile func(*pgx.Conn))) {
	w.Helper()
	w.on(w.PrimaryURL, "ALTER TABLE orders RENAME TO order_rows")
	w.on(w.PrimaryURL, `CREATE VIEW orders AS SELECT account, mode, id, version, rev, head_hash, state FROM order_rows
		WHERE (pg_advisory_xact_lock_shared(1) IS NULL) IS NOT NULL`)
	w.on(w.PrimaryURL, "GRANT SELECT ON orders TO PUBLIC")
	p = w.process(withoutReplicas, withoutRedis)
	p.primary.guard = guard.New(guard.Config{Concurrent: 1, Timeout: 4 * time.Second, Failure: broken})
	return p, func(read func(), meanwhile func(*pgx.Conn)) {
		c, err := pgx.Connect(w.Context(), w.PrimaryURL)
		w.must(err)
		defer c.Close(w.Context())
		w.execOn(c, "SELECT pg_advisory_lock(1)")
		done := make(chan struct{})
		go func() { defer close(done); read() }()
		w.until(func() (waits bool) {
			w.must(c.QueryRow(w.Context(), `SELECT count(*) > 0 FROM pg_locks l JOIN pg_database d ON d.oid = l.database
				WHERE d.datname = current_database() AND l.locktype = 'advisory' AND NOT l.granted`).Scan(&waits))
			return waits
		})
		meanwhile(c)
		w.execOn(c, "SELECT pg_advisory_unlock(1)")
		<-done
	}
}

func (w *world) execOn(c *pgx.Conn, statement string, args ...any) {
	w.Helper()
	_, err := c.Exec(w.Context(), statement, args...)
	w.must(err)
}

// The writer's COMMIT is durable on the primary and waits for a standby: nobody sees it yet, though its position is in the log.
func TestACommitThatIsNotYetVisibleIsNotKnown(t *testing.T) {
	t.Parallel()
	w := ownServers(t)
	id := w.place(mine, time.Hour)
	w.synced(w.ReplicaURL)
	p := w.process(withoutReplicas, withoutRedis)
	w.on(w.PrimaryURL, "ALTER SYSTEM SET synchronous_standby_names = '*'")
	w.on(w.PrimaryURL, "SELECT pg_reload_conf()")
	w.until(func() bool {
		var sync string
		w.must(w.Pool.QueryRow(t.Context(), "SELECT sync_state FROM pg_stat_replication").Scan(&sync))
		return sync == "sync"
	})
	w.on(w.ReplicaURL, "SELECT pg_wal_replay_pause()")
	c, err := pgx.Connect(t.Context(), w.PrimaryURL)
	w.must(err)
	defer c.Close(t.Context())
	_, err = c.Exec(t.Context(), "SET synchronous_commit = remote_apply")
	w.must(err)
	committed := make(chan error)
	go func() {
		_, err := c.Exec(t.Context(), `UPDATE orders SET rev = 2, version = 2, state = jsonb_set(state::jsonb, '{metadata,rev}', '"2"') WHERE id = $1`, id[:])
		committed <- err
	}()
	w.until(func() bool {
		var waits bool
		w.must(w.Pool.QueryRow(t.Context(), "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep'").Scan(&waits))
		return waits
	})
	if rev, tier := p.get(mine, id, anyToken); rev != 1 || tier != "primary" {
		t.Fatalf("revision %d by %s", rev, tier)
	}
	w.on(w.ReplicaURL, "SELECT pg_wal_replay_resume()")
	w.must(<-committed)
	var lsn uint64
	w.must(c.QueryRow(t.Context(), "SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint").Scan(&lsn))
	if rev, tier := p.get(mine, id, token.Token{Timeline: 1, LSN: lsn}); rev != 2 || tier != "primary" {
		t.Errorf("revision %d by %s, with the position after the COMMIT of 2", rev, tier)
	}
}

// A replica shows a commit that waits for a synchronous standby, which the primary shows to nobody. The replica's token is refused there until
// the commit is over; another read goes on.
func TestACommitThatAReplicaShowsFirst(t *testing.T) {
	t.Parallel()
	w := ownServers(t)
	id := w.place(mine, time.Hour)
	w.synced(w.ReplicaURL)
	proxy, cut := pgtest.Proxy(t, w.ReplicaURL)
	replicated, alone := w.process(withoutRedis), w.process(withoutReplicas, withoutRedis)
	lost := w.process(withoutRedis, func(c *Config) { c.Replicas = []*pgxpool.Pool{w.pool(cut)} })
	proxy.Cut()
	w.on(w.PrimaryURL, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
	w.on(w.PrimaryURL, "SELECT pg_reload_conf()")
	w.until(func() bool { // the checkpointer tells the others of the setting, and nothing says when it has
		c, err := pgx.Connect(t.Context(), w.PrimaryURL)
		w.must(err)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err = c.Exec(ctx, "SELECT pg_logical_emit_message(true, 'probe', '')")
		_ = c.Close(ctx)
		return err != nil
	})
	c, err := pgx.Connect(t.Context(), w.PrimaryURL)
	w.must(err)
	defer c.Close(t.Context())
	committed := make(chan error)
	go func() {
		_, err := c.Exec(t.Context(), `UPDATE orders SET rev = 2, version = 2, state = jsonb_set(state::jsonb, '{metadata,rev}', '"2"') WHERE id = $1`, id[:])
		committed <- err
	}()
	var row, position token.Token
	w.until(func() bool {
		v, err := replicated.GetOrder(t.Context(), mine, id, anyToken)
		w.must(err)
		replicated.lru.Purge()
		row = w.tokenOf(v)
		return revOf(t, v) == 2
	})
	position = token.Token{Timeline: row.Timeline, LSN: row.LSN}
	for what, read := range map[string]func() error{
		"the row's token": func() error { _, err := alone.GetOrder(t.Context(), mine, id, row); return err },
		"a position, where a replica has shown it": func() error {
			_, err := lost.ListOrders(t.Context(), mine, orderFilter{}, Page{Limit: 5}, position)
			return err
		},
	} {
		if err := read(); err == nil || apierr.From(err).Code != errcode.SYS004 {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err = alone.GetOrder(t.Context(), otherOwner, id, row)
	wantCode(t, err, errcode.ORD001)
	if rev, tier := alone.get(mine, id, anyToken); rev != 1 || tier != tierPrimary {
		t.Errorf("without a token: revision %d by %s", rev, tier)
	}
	if rev, tier := replicated.get(mine, id, position); rev != 2 || tier != tierReplica {
		t.Errorf("where the replica is: revision %d by %s", rev, tier)
	}
	w.on(w.PrimaryURL, "ALTER SYSTEM RESET synchronous_standby_names")
	w.on(w.PrimaryURL, "SELECT pg_reload_conf()")
	w.must(<-committed)
	for _, p := range []*process{alone, lost} {
		if rev, tier := p.get(mine, id, position); rev != 2 || tier != tierPrimary {
			t.Errorf("afterwards: revision %d by %s", rev, tier)
		}
	}
}

// A transaction that is at work may be committing: the primary is asked until it is over. One that waits for its client or for a lock is not.
func TestThePrimaryIsAskedUntilACommitIsOver(t *testing.T) {
	t.Parallel()
	w := setup(t)
	id := w.place(mine, time.Hour)
	p := w.process(withoutReplicas, withoutRedis)
	begin := func(statements ...string) (c *pgx.Conn, xid string) {
		c, err := pgx.Connect(t.Context(), w.PrimaryURL)
		w.must(err)
		t.Cleanup(func() { _ = c.Close(context.WithoutCancel(t.Context())) })
		w.execOn(c, "BEGIN")
		w.must(c.QueryRow(t.Context(), "SELECT pg_current_xact_id()::text").Scan(&xid))
		for _, statement := range statements {
			w.execOn(c, statement)
		}
		return c, xid
	}
	open := func(xid string) (is bool) {
		w.must(w.Pool.QueryRow(t.Context(), "SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_xid = $1", xid).Scan(&is))
		return is
	}
	idle, idleID := begin("LOCK coupons IN EXCLUSIVE MODE")
	waiting, waitingID := begin()
	var both sync.WaitGroup
	both.Go(func() { _, _ = waiting.Exec(t.Context(), "LOCK coupons IN EXCLUSIVE MODE; COMMIT") })
	working, workingID := begin()
	both.Go(func() { _, _ = working.Exec(t.Context(), "SELECT pg_sleep(0.8); COMMIT") })
	var xids []string
	w.until(func() bool {
		w.must(w.Pool.QueryRow(t.Context(), "SELECT open_transactions()").Scan(&xids))
		return slices.Contains(xids, workingID) && !slices.Contains(xids, waitingID)
	})
	if slices.Contains(xids, idleID) || !open(idleID) || !open(waitingID) {
		t.Errorf("%v may be committing: %s waits for its client, %s for a lock", xids, idleID, waitingID)
	}
	if rev, tier := p.get(mine, id, token.Token{Timeline: 1, LSN: w.flushLSN()}); rev != 1 || tier != tierPrimary {
		t.Errorf("revision %d by %s", rev, tier)
	}
	if open(workingID) || !open(idleID) || !open(waitingID) {
		t.Error("it was not asked until the one that was at work was over, and no longer")
	}
	w.execOn(idle, "ROLLBACK")
	both.Wait()
}

// Positions of entries and tokens are compared with the positions at which each revision was committed, whatever isolation the database has by
// default.
func TestPositionsStandAroundTheRead(t *testing.T) {
	t.Parallel()
	for _, isolation := range []string{"read committed", "repeatable read"} {
		t.Run(isolation, func(t *testing.T) {
			t.Parallel()
			positionsStandAroundTheRead(t, isolation)
		})
	}
}

func positionsStandAroundTheRead(t *testing.T, isolation string) {
	t.Helper()
	w := setup(t)
	w.exec(`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = ' || quote_literal('` + isolation + `'), current_database()); END $$`)
	id := w.place(mine, time.Hour)
	w.synced(w.ReplicaURL)
	var visible [100_000]atomic.Uint64 // by revision: the position right after its COMMIT
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	var all sync.WaitGroup
	all.Go(func() {
		for ctx.Err() == nil {
			rev, _, lsn, _ := w.update(mine, id)
			visible[rev].Store(lsn)
		}
	})
	claims := make(chan *Entry, 1<<20)
	for _, p := range []*process{w.process(withoutRedis), w.process(withoutRedis), w.process(withoutRedis, withoutReplicas)} {
		all.Go(func() {
			k := orders.row(mine, id, "")
			for ctx.Err() == nil {
				e, err := p.fromDatabase(ctx, requirement{of: k}, k.read)
				if ctx.Err() != nil {
					return
				}
				if err != nil && apierr.From(err).Retryable() {
					continue // a busy machine
				}
				w.must(err)
				claims <- e
			}
		})
	}
	all.Wait()
	close(claims)
	n := map[string]int{}
	for e := range claims {
		n[e.tier]++
		if next := visible[e.Rev+1].Load(); next > 0 && e.KnownAt >= next {
			t.Errorf("%s: revision %d claims to know %d, but %d was there at %d", e.tier, e.Rev, e.KnownAt, e.Rev+1, next)
		}
		tok, _ := w.signer.Parse(e.Token)
		if tok.LSN < e.KnownAt || tok.Key != "" && tok.Rev != e.Rev {
			t.Errorf("%s: %+v has token %+v", e.tier, e, tok)
		}
		if next := visible[e.Rev+1].Load(); tok.Key != "" && next > 0 && next < tok.LSN {
			t.Errorf("%s: the token names revision %d at %d, but %d was there at %d", e.tier, e.Rev, tok.LSN, e.Rev+1, next)
		}
		if tok.Key == "" {
			n[e.tier+" without a name"]++
		}
	}
	t.Log(n)
}

// A replica is promoted, and the old primary does not know.
func TestFailover(t *testing.T) {
	t.Parallel()
	w := ownServers(t)
	id := w.place(mine, time.Hour)
	before := w.process()
	_, old := before.write(mine, id)
	w.synced(w.ReplicaURL)

	promoted := w.pool(w.ReplicaURL)
	w.on(w.ReplicaURL, "SELECT pg_promote()")
	lost, _ := before.write(mine, id) // the old primary takes it

	after := w.process(withoutReplicas, func(c *Config) { c.Primary = promoted })
	if rev, tier := after.get(mine, id, old); rev != 3 || tier != "redis" {
		t.Errorf("revision %d by %s: nobody here has heard of the new timeline", rev, tier)
	}
	after.bumpMinRev(orders.row(mine, id, ""), lost)                                       // heard of it, too
	a, err := after.ListOrders(t.Context(), mine, orderFilter{}, Page{Limit: 1}, anyToken) // now they have
	w.must(err)
	next := w.tokenOf(a)
	if next.Timeline != 2 || after.timeline() != 2 {
		t.Fatalf("timeline %d, known %d", next.Timeline, after.timeline())
	}
	for range 2 {
		if rev, tier := after.get(mine, id, old); rev != 2 || tier != "primary" {
			t.Errorf("with a token of the old timeline: revision %d by %s", rev, tier)
		}
	}
	if rev, tier := after.get(mine, id, anyToken); rev != 2 || tier != "lru" {
		t.Errorf("without one: revision %d by %s", rev, tier)
	}
	_, err = before.GetOrder(t.Context(), mine, id, next)
	wantCode(t, err, errcode.SYS004)
	before.noteTimeline(2)
	before.replicas = nil
	_, err = before.ListOrders(t.Context(), mine, orderFilter{}, Page{Limit: 1}, anyToken)
	wantCode(t, err, errcode.SYS002) // its entries count for nothing
}

// A replica that follows the lost primary has more log than the new one, and says nothing of it.
func TestAReplicaThatFollowsTheLostPrimary(t *testing.T) {
	t.Parallel()
	w := ownServers(t, devstack.Replica{Name: "other"})
	id := w.place(mine, time.Hour)
	w.synced(w.ReplicaURL)
	w.on(w.otherReplica, "SELECT pg_promote()")
	w.on(w.PrimaryURL, "CREATE TABLE lost AS SELECT generate_series(1, 10000)")
	w.synced(w.ReplicaURL)
	writer, err := pgxpool.New(t.Context(), w.otherReplica)
	w.must(err)
	t.Cleanup(writer.Close)
	w.Pool = writer
	rev, _, lsn, _ := w.update(mine, id)
	p := w.process(withoutRedis, func(c *Config) { c.Primary = w.pool(w.otherReplica) })
	written := token.Token{Timeline: 2, LSN: lsn}
	for _, tok := range []token.Token{written, written, anyToken} { // the first makes the timeline known
		p.lru.Purge()
		if got, tier := p.get(mine, id, tok); got != rev || tier != "primary" {
			t.Errorf("token %+v: revision %d by %s", tok, got, tier)
		}
	}
}

// A replica whose stream has ended stands still and does not know how far it is behind.
func TestAReplicaWithoutAStream(t *testing.T) {
	t.Parallel()
	w := ownServers(t)
	known, history := w.place(mine, time.Hour), w.changed(mine, time.Hour, historyPage+2)
	w.synced(w.ReplicaURL)
	replica := w.pool(w.ReplicaURL)
	cut := func() bool {
		position, err := querydb.New(replica).Position(t.Context())
		w.must(err)
		return position.Disconnected
	}
	if cut() {
		t.Error("a replica that streams is cut")
	}
	// A receiver that hears nothing: its primary, or the way to it, fell silent.
	var receiver int
	w.must(replica.QueryRow(t.Context(), "SELECT pid FROM pg_stat_get_wal_receiver()").Scan(&receiver))
	w.must(syscall.Kill(receiver, syscall.SIGSTOP))
	w.on(w.ReplicaURL, "ALTER SYSTEM SET wal_receiver_timeout = '1s'")
	w.on(w.ReplicaURL, "SELECT pg_reload_conf()")
	w.until(cut)
	w.must(syscall.Kill(receiver, syscall.SIGCONT))
	w.until(func() bool { return !cut() })

	w.on(w.ReplicaURL, "ALTER SYSTEM SET primary_conninfo = ''")
	w.on(w.ReplicaURL, "SELECT pg_reload_conf()")
	owner, err := pgx.Connect(t.Context(), w.ReplicaURL)
	w.must(err)
	defer func() { _ = owner.Close(context.WithoutCancel(t.Context())) }()
	w.until(func() (ended bool) { // a receiver that is only between two connections would come back
		w.must(owner.QueryRow(t.Context(), "SELECT current_setting('primary_conninfo') = '' AND (SELECT pid FROM pg_stat_get_wal_receiver()) IS NULL").Scan(&ended))
		return ended && cut()
	})
	missed := w.place(mine, time.Hour)
	if rev, tier := w.process(withoutRedis).get(mine, missed, anyToken); rev != 1 || tier != "primary" {
		t.Errorf("what it missed: revision %d by %s", rev, tier)
	}
	w.until(func() bool {
		row, err := querydb.New(replica).Watermark(t.Context())
		return err == nil && row.Disconnected && row.Lag > 0.5
	})

	away := w.process(withoutRedis, func(c *Config) { c.Primary = w.pool("postgres://ordergate@127.0.0.1:1/ordergate") })
	if rev, tier := away.get(mine, known, anyToken); rev != 1 || tier != "replica" {
		t.Errorf("without a primary: revision %d by %s", rev, tier)
	}
	_, err = away.ListOrders(t.Context(), mine, orderFilter{}, Page{Limit: 1}, anyToken)
	w.must(err)
	for tok, code := range map[token.Token]errcode.Code{anyToken: errcode.SYS002, {Timeline: 1, LSN: 1}: errcode.SYS004} { // it cannot know that there is none
		_, err = away.GetOrder(t.Context(), mine, missed, tok)
		wantCode(t, err, code)
		_, err = away.ListOrderEvents(t.Context(), mine, missed, Page{Limit: 1}, tok)
		wantCode(t, err, code)
		_, err = away.GetSaga(t.Context(), mine, missed, tok)
		wantCode(t, err, code)
		_, err = away.GetInventory(t.Context(), mine, "MISSED", tok)
		wantCode(t, err, code)
	}
	for _, version := range []int64{1, historyPage, historyPage + 2} {
		v, err := away.GetOrderThen(t.Context(), mine, history, Then{Version: version}, anyToken)
		if o := decoded[api.Order](t, v, err); o.Version != version || v.Tier != tierReplica {
			t.Errorf("version %d by %s, want %d", o.Version, v.Tier, version)
		}
	}
	_, err = away.GetOrderThen(t.Context(), mine, history, Then{Version: historyPage + 3}, anyToken) // it may be there
	wantCode(t, err, errcode.SYS002)
	_, err = away.GetOrderThen(t.Context(), mine, history, Then{AsOf: w.now()}, anyToken)
	wantCode(t, err, errcode.SYS002)
	away.lru.Purge()
	_, err = away.GetOrder(t.Context(), mine, known, token.Token{Timeline: 1, LSN: 1 << 60})
	wantCode(t, err, errcode.SYS004)

	two := w.process(withoutRedis, func(c *Config) {
		c.Primary = w.pool("postgres://ordergate@127.0.0.1:1/ordergate")
		c.Replicas = append(c.Replicas, w.pool("postgres://ordergate@127.0.0.1:1/ordergate"))
	})
	for range 50 {
		two.lru.Purge()
		if _, err = two.GetOrder(t.Context(), mine, known, anyToken); err != nil {
			t.Fatalf("beside a dead replica: %v", err)
		}
	}

	full := w.process(withoutRedis)
	held := make(chan struct{})
	var holding sync.WaitGroup
	for range full.cfg.Primary.Config().MaxConns {
		entered := make(chan struct{})
		holding.Go(func() {
			_ = full.primary.guard.Do(t.Context(), func(ctx context.Context) error {
				close(entered)
				select {
				case <-held:
				case <-ctx.Done():
				}
				return nil
			})
		})
		<-entered
	}
	_, err = full.GetOrder(t.Context(), mine, known, anyToken)
	wantCode(t, err, errcode.RATE003) // the primary is there, and full
	close(held)
	holding.Wait()
}

// Clients read and write through any process, keep the greatest token and never see a row go back: with replicas at any distance, a
// Redis that comes and goes, and writers that die between COMMIT and write-through.
func TestWhatAClientHasSeenIsNeverUndone(t *testing.T) {
	t.Parallel()
	w := setup(t)
	proxy, near := w.behindProxy()
	processes := []*process{near, w.process(), w.process(w.behind), w.process(w.behind, withoutRedis), w.process(withoutReplicas)}
	for _, p := range processes[:3] {
		p.subscribe()
	}
	var ids [5]order.ID
	for i := range ids {
		ids[i] = w.place(mine, time.Hour)
	}
	w.synced(w.LaggingURL(t))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var all sync.WaitGroup
	var reads, refused atomic.Int64
	for range 12 {
		all.Go(func() {
			greatest, seen := "", map[order.ID]int64{}
			for ctx.Err() == nil {
				p, id := processes[rand.IntN(len(processes))], ids[rand.IntN(len(ids))]
				if rand.IntN(10) == 0 {
					rev, knownAt, lsn, body := w.update(mine, id)
					e := newEntry(p, mine, id, rev, knownAt, lsn, body)
					if rand.IntN(3) > 0 {
						p.WriteThrough(ctx, e)
					}
					seen[id], greatest = rev, max(greatest, e.Token)
					continue
				}
				tok, _ := w.signer.Parse(greatest)
				a, err := p.GetOrder(ctx, mine, id, tok)
				if ctx.Err() != nil {
					return
				}
				if err != nil && apierr.From(err).Retryable() { // a busy machine may refuse; what it returns must be right
					refused.Add(1)
					continue
				}
				w.must(err)
				reads.Add(1)
				rev := revOf(t, a)
				if rev < seen[id] {
					t.Errorf("saw revision %d, now %d by %s", seen[id], rev, a.Tier)
				}
				seen[id], greatest = rev, max(greatest, a.Token)
			}
		})
	}
	for ctx.Err() == nil {
		proxy.Cut()
		<-time.After(300 * time.Millisecond)
		proxy.Heal()
		<-time.After(300 * time.Millisecond)
	}
	all.Wait()
	t.Logf("%d reads, %d refused", reads.Load(), refused.Load())
	if refused.Load() > reads.Load()/10 {
		t.Error("most of them must succeed")
	}
}

func TestTimelines(t *testing.T) {
	t.Parallel()
	w := setup(t)
	id := w.place(mine, time.Hour)
	w.synced(w.ReplicaURL)
	at := func(timeline *atomic.Uint32) func(*Config) {
		return func(c *Config) { c.Timeline = timeline.Load }
	}
	var known atomic.Uint32
	known.Store(1)
	t.Run("a token of a newer one makes it known", func(t *testing.T) {
		var unknown atomic.Uint32
		p := w.process(withoutRedis, at(&unknown))
		if rev, tier := p.get(mine, id, token.Token{Timeline: 1, LSN: 1}); rev != 1 || tier != "primary" {
			t.Errorf("revision %d by %s", rev, tier)
		}
		if p.timeline() != 1 || p.loads("replica") > 0 {
			t.Errorf("timeline %d, %d looks at the replica", p.timeline(), p.loads("replica"))
		}
	})
	t.Run("a token of one that no server has is not met", func(t *testing.T) {
		_, err := w.process(withoutRedis).GetOrder(t.Context(), mine, id, token.Token{Timeline: 9, LSN: 1})
		wantCode(t, err, errcode.SYS004)
	})
	t.Run("a primary that lost a failover is not believed", func(t *testing.T) {
		var later atomic.Uint32
		later.Store(2)
		_, err := w.process(withoutRedis, withoutReplicas, at(&later)).GetOrder(t.Context(), mine, id, anyToken)
		wantCode(t, err, errcode.SYS002)
	})
	t.Run("a standby is no primary", func(t *testing.T) {
		_, err := w.process(withoutRedis, withoutReplicas, func(c *Config) { c.Primary = w.pool(w.ReplicaURL) }).GetOrder(t.Context(), mine, id, anyToken)
		wantCode(t, err, errcode.SYS002)
	})
	t.Run("a change empties the caches", func(t *testing.T) {
		p := w.process(at(&known))
		p.write(mine, id)
		if _, tier := p.get(mine, id, anyToken); tier != "lru" {
			t.Errorf("served by %s", tier)
		}
		known.Store(2)
		_, err := p.GetOrder(t.Context(), mine, id, anyToken) // all servers are on timeline 1
		wantCode(t, err, errcode.SYS002)
		if e, err := p.redis.get(t.Context(), orders.row(mine, id, "")); e != nil || err != nil {
			t.Errorf("Redis has %+v: %v", e, err)
		}
		if e := p.entry(orders.row(mine, id, "")).value.Load(); e != nil {
			t.Errorf("the LRU has %+v", e)
		}
	})
}

// A query of ours that writes is our fault: PostgreSQL refuses it, and neither a breaker opens nor is the client told to come again.
func TestAQueryThatWritesIsRefusedByPostgreSQL(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(withoutRedis)
	for part, s := range map[string]*server{"primary_reads": p.primary, "replica_1": p.replicas[0]} {
		writing := func(ctx context.Context, _ *querydb.Queries) (f found, err error) {
			q := &positionedQuery{pool: s.pool}
			defer q.close(&err)
			return f, q.QueryRow(ctx, `INSERT INTO inbox (consumer, message_id) VALUES ('c', gen_random_uuid()) RETURNING consumer`).Scan(new(string))
		}
		for range 30 {
			_, err := p.ask(t.Context(), s, requirement{}, writing)
			if refused, ok := errors.AsType[*pgconn.PgError](err); !ok || refused.Code != pg.ReadOnlyTransaction {
				t.Fatalf("%s: %v", s.tier, err)
			}
			if code := apierr.From(toClientError(err, false)).Code; code != errcode.SYS001 {
				t.Fatalf("%s: a client sees %s", s.tier, code)
			}
		}
		if p.breakerOpen(part) {
			t.Errorf("the breaker of %s is open", part)
		}
	}
}
