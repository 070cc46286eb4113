package query

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bits-and-blooms/bloom/v3"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/querydb"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/order"
)

// follow runs FollowChanges and returns once it listens and all skus are known.
func (p *process) follow() {
	p.w.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); p.FollowChanges(ctx) }()
	p.w.Cleanup(func() { cancel(); <-done })
	p.w.until(p.knowsSKUs)
}

// knowsSKUs tells whether a sku that there is not needs no look-up.
func (p *process) knowsSKUs() bool {
	_, lacks := p.skus.Load().lacks(products.row(mine, order.ID{}, "none"), anyToken, p.epoch(), p.cfg.Now())
	return lacks
}

// timeless stops the process's clock, so that no entry of its LRU grows old.
func (w *world) timeless(c *Config) {
	now := w.now()
	c.Now = func() time.Time { return now }
}

// name is the name that a process shows of a product; empty: there is none.
func (p *process) productName(sku string) string {
	v, err := p.GetProduct(context.Background(), mine, sku, anyToken)
	if err != nil {
		wantCode(p.w, err, errcode.CAT001)
		return ""
	}
	return decoded[struct{ Name string }](p.w.TB.(*testing.T), v, err).Name
}

func (w *world) flushLSN() (lsn uint64) {
	w.Helper()
	w.must(w.Pool.QueryRow(w.Context(), `SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint`).Scan(&lsn))
	return lsn
}

// asProgram runs a statement as our own path does.
func (w *world) asProgram(statement string, args ...any) {
	w.Helper()
	w.must(pgx.BeginFunc(context.Background(), w.Pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(context.Background(), "SET LOCAL role = "+pg.Session["role"]); err != nil {
			return err
		}
		_, err := tx.Exec(context.Background(), statement, args...)
		return err
	}))
}

// A change by hand reaches every cache. The clocks stand still, so that it is no entry's age that brings it.
func TestAChangeByHandReachesEveryCache(t *testing.T) {
	t.Parallel()
	w := setup(t)
	here, there := w.process(w.timeless), w.process(w.timeless, withoutRedis)
	here.subscribe()
	here.follow()
	there.follow()
	both := []*process{here, there}
	id := w.place(mine, time.Hour)
	w.product(mine, "CUP", "cup")
	w.product(mine, "PLATE", "plate")
	w.synced(w.ReplicaURL)
	shown := func(p *process) string {
		rev, _ := p.get(mine, id, anyToken)
		return fmt.Sprintf("%s %s %d", p.productName("CUP"), p.productName("PLATE"), rev)
	}
	want := func(after, state string) {
		t.Helper()
		for _, p := range both {
			for deadline, tick := time.Now().Add(10*time.Second), time.Tick(5*time.Millisecond); shown(p) != state; <-tick {
				if time.Now().After(deadline) {
					t.Fatalf("after %s: %q, not %q", after, shown(p), state)
				}
			}
		}
	}
	var partition string
	w.must(w.Pool.QueryRow(t.Context(), `SELECT tableoid::regclass::text FROM orders`).Scan(&partition))
	want("the beginning", "cup plate 1")
	setOrder := func(table string, rev int64) {
		t.Helper()
		w.exec(`UPDATE `+table+` SET state = jsonb_set(state::jsonb, '{metadata,rev}', to_jsonb($1::text)), version = $2`, strconv.FormatInt(rev, 10), rev)
	}
	for _, c := range []struct {
		what  string
		do    func()
		state string
	}{
		{"a product", func() { w.exec(`UPDATE products SET name = 'mug' WHERE sku = 'CUP'`) }, "mug plate 1"},
		{"a product whose writer died", func() { w.asProgram(`UPDATE products SET name = 'tray', rev = rev + 1 WHERE sku = 'PLATE'`) }, "mug tray 1"},
		{"a product again", func() { w.asProgram(`UPDATE products SET name = 'plate', rev = rev + 1 WHERE sku = 'PLATE'`) }, "mug plate 1"},
		{"an order", func() { setOrder("orders", 2) }, "mug plate 2"},
		{"an order's partition", func() { setOrder(partition, 3) }, "mug plate 3"},
		{"a new name", func() { w.exec(`UPDATE products SET sku = 'SAUCER' WHERE sku = 'PLATE'`) }, "mug  3"},
		{"an insert", func() { w.product(mine, "PLATE", "plate") }, "mug plate 3"},
		{"a delete", func() { w.exec(`DELETE FROM products WHERE sku = 'CUP'`) }, " plate 3"},
		{"many rows", func() {
			w.exec(`INSERT INTO products (account, mode, sku, name, description, prices) SELECT 7, 'test', 'P' || n, '', '', '{}' FROM generate_series(1, 20000) AS n`)
			w.exec(`UPDATE products SET name = 'all'`)
		}, " all 3"},
		{"many rows, one of them inserted", func() {
			w.exec(`WITH many AS (UPDATE products SET name = 'every' RETURNING 1)
				INSERT INTO products (account, mode, sku, name, description, prices) SELECT 7, 'test', 'CUP', 'cup ' || count(*), '', '{}' FROM many`)
		}, "cup 20002 every 3"},
		{"TRUNCATE", func() { w.exec(`TRUNCATE products`) }, "  3"},
	} {
		c.do()
		w.synced(w.ReplicaURL)
		want(c.what, c.state)
	}
	for what, do := range map[string]func(){
		"TRUNCATE of a partition": func() { w.exec(`TRUNCATE ` + partition) }, "TRUNCATE of the default partition": func() { w.exec(`TRUNCATE orders_default`) },
		"TRUNCATE of addresses": func() { w.exec(`TRUNCATE order_addresses`) }, "an address": func() {
			w.exec(`INSERT INTO order_addresses (account, mode, order_id, address) VALUES (7, 'test', $1, '{}')`, id[:])
		},
		"TRUNCATE of orders": func() { w.exec(`TRUNCATE orders`) },
	} {
		before := here.generation.Load()
		do()
		for _, p := range both {
			w.until(func() bool { return p.generation.Load() > before })
		}
		if here.generation.Load() != before+1 {
			t.Errorf("%s: generation %d after %d", what, here.generation.Load(), before)
		}
	}
}

// A row that was deleted by hand is shown by a replica that is behind. Once that has the DELETE, so has everybody, and a token that covers it sees
// it at once.
func TestADeleteByHandOnALaggingReplica(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(w.behind)
	p.subscribe()
	p.follow()
	id := w.place(mine, time.Hour)
	w.update(mine, id)
	w.product(mine, "CUP", "old")
	w.exec(`UPDATE products SET name = 'older'`)
	w.synced(w.LaggingURL(t))
	p.get(mine, id, anyToken)
	before := p.generation.Load()
	w.exec(`DELETE FROM orders; DELETE FROM products`)
	deleted := token.Token{Timeline: 1, LSN: w.flushLSN()}
	w.until(func() bool { return p.generation.Load() > before })
	if rev, _ := p.get(mine, id, anyToken); rev != 2 {
		t.Fatalf("revision %d: the replica does have the DELETE", rev)
	}
	if name := p.productName("CUP"); name != "older" {
		t.Fatalf("%q: the replica does have the DELETE", name)
	}
	_, err := p.GetOrder(t.Context(), mine, id, deleted)
	wantCode(t, err, errcode.ORD001)
	w.asProgram(`INSERT INTO products (account, mode, sku, name, description, prices) VALUES (7, 'test', 'CUP', 'new', '', '{}')`)
	v, err := p.GetProduct(t.Context(), mine, "CUP", token.Token{Timeline: 1, LSN: w.flushLSN(), Key: products.row(mine, order.ID{}, "CUP").tokenName(), Rev: 1})
	if name := decoded[struct{ Name string }](t, v, err).Name; name != "new" {
		t.Errorf("with the token of the new product: %q by %s", name, v.Tier)
	}
	w.synced(w.LaggingURL(t))
	w.until(func() bool {
		w.advance(staleAfter)
		v, err := p.GetOrder(t.Context(), mine, id, anyToken)
		return err != nil && v.Tier != "" && p.productName("CUP") == "new"
	})
}

// The token of a miss names no revision, which any entry would satisfy.
func TestTheTokenOfAMiss(t *testing.T) {
	t.Parallel()
	w := setup(t)
	id := w.place(mine, time.Hour)
	here, there := w.process(withoutRedis, withoutReplicas), w.process(withoutRedis, withoutReplicas)
	there.get(mine, id, anyToken)
	w.exec(`DELETE FROM orders`)
	v, err := here.GetOrder(t.Context(), mine, id, anyToken)
	wantCode(t, err, errcode.ORD001)
	_, err = there.GetOrder(t.Context(), mine, id, w.tokenOf(v))
	wantCode(t, err, errcode.ORD001)
}

// A revision that was told of, and whose row is gone, sends one read to the primary and not each.
func TestARevisionThatIsNoMore(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(withoutReplicas)
	p.follow()
	id := w.place(mine, time.Hour)
	p.get(mine, id, anyToken)
	generation := p.generation.Load()
	w.exec(`DELETE FROM orders`)
	w.until(func() bool { return p.generation.Load() > generation })
	_, err := p.GetOrder(t.Context(), mine, id, anyToken)
	wantCode(t, err, errcode.ORD001)
	p.bumpMinRev(orders.row(mine, id, ""), 7)
	before := p.loads(tierPrimary)
	for range 50 {
		_, err := p.GetOrder(t.Context(), mine, id, anyToken)
		wantCode(t, err, errcode.ORD001)
	}
	if n := p.loads(tierPrimary) - before; n > 3 {
		t.Errorf("%d of 50 reads of a row that is gone went to the primary", n)
	}
}

// A state that is written through after a flush was heard of is of the generation before.
func TestAWriteThroughAfterAFlush(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process()
	p.follow()
	id := w.place(mine, time.Hour)
	rev, knownAt, lsn, body := w.update(mine, id)
	late := newEntry(p, mine, id, rev, knownAt, lsn, body)
	before := p.generation.Load()
	w.exec(`DELETE FROM orders`)
	w.until(func() bool { return p.generation.Load() > before })
	w.synced(w.ReplicaURL)
	p.WriteThrough(t.Context(), late)
	_, err := p.GetOrder(t.Context(), mine, id, anyToken)
	wantCode(t, err, errcode.ORD001)
}

// Redis has what was changed by hand, for processes that have no entry of it.
func TestAChangeByHandReachesRedis(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process()
	p.subscribe()
	p.follow()
	id := w.place(mine, time.Hour)
	w.synced(w.ReplicaURL)
	p.get(mine, id, anyToken)
	k := orders.row(mine, id, "")
	if e, err := p.redis.get(t.Context(), k); err != nil || e.Rev != 1 {
		t.Fatalf("%v %v", e, err)
	}
	w.exec(`UPDATE orders SET customer_ref = 'x'`)
	w.until(func() bool {
		e, err := p.redis.get(t.Context(), k)
		return err == nil && e != nil && e.Rev == 2
	})
}

// TestWhatTheFeedSays: each row of a small change, a flush of a big one, nothing of our own path but a new product; and revs rise by hand.
func TestWhatTheFeedSays(t *testing.T) {
	t.Parallel()
	w, ctx := setup(t), t.Context()
	c, err := pgx.Connect(ctx, w.PrimaryURL)
	w.must(err)
	defer c.Close(ctx)
	w.execOn(c, `LISTEN ordergate_changes`)
	heard := func() (all []string) {
		t.Helper()
		w.exec(`NOTIFY ordergate_changes, 'end'`)
		for {
			n, err := c.WaitForNotification(ctx)
			w.must(err)
			if n.Payload == "end" {
				return all
			}
			all = append(all, n.Payload)
		}
	}
	want := func(what string, messages ...string) {
		t.Helper()
		if got := heard(); strings.Join(got, ", ") != strings.Join(messages, ", ") {
			t.Errorf("%s: %q", what, got)
		}
	}
	id := w.place(mine, time.Hour)
	name := id.Format(order.PrefixOrder)
	want("an order is inserted", "1 7 test "+name)
	w.product(mine, "CUP", "cup")
	want("a product is inserted", "1 7 test prd_CUP")
	w.exec(`UPDATE products SET name = 'mug'; UPDATE products SET rev = 7; UPDATE products SET rev = 5; UPDATE orders SET rev = 3`)
	want("updates", "2 7 test prd_CUP", "7 7 test prd_CUP", "8 7 test prd_CUP", "3 7 test "+name)
	w.asProgram(`UPDATE orders SET rev = rev + 1`)
	w.asProgram(`UPDATE stock SET rev = rev`)
	want("our own updates")
	w.asProgram(`INSERT INTO products (account, mode, sku, name, description, prices) VALUES (7, 'test', 'OURS', '', '', '{}')`)
	w.asProgram(`UPDATE products SET rev = rev + 1 WHERE sku = 'OURS'`)
	want("our own product", "1 7 test prd_OURS", "2 7 test prd_OURS")
	w.exec(`INSERT INTO stock (account, mode, sku) VALUES (7, 'test', 'CUP')`)
	w.exec(`UPDATE stock SET on_hand = 4`)
	want("stock, which no cache has")
	var rev int64
	w.must(w.Pool.QueryRow(ctx, `SELECT rev FROM stock`).Scan(&rev))
	if rev != 2 {
		t.Errorf("stock has rev %d", rev)
	}
	w.exec(`INSERT INTO products (account, mode, sku, name, description, prices) SELECT 7, 'test', 'P' || n, '', '', '{}' FROM generate_series(1, 100) AS n`)
	if got := heard(); len(got) != 100 || got[99] != "1 7 test prd_P100" {
		t.Errorf("100 rows: %d messages, %q", len(got), got)
	}
	begin := time.Now()
	w.exec(`UPDATE products SET name = 'all'; DELETE FROM products; TRUNCATE products`)
	if got := heard(); len(got) != 101 || got[100] != "flush 2" {
		t.Errorf("all rows: %d messages, the last is %q", len(got), got[len(got)-1])
	}
	t.Logf("102 rows took %v", time.Since(begin))
	w.exec(`BEGIN; DELETE FROM orders; SAVEPOINT x; UPDATE orders SET rev = 0; ROLLBACK TO x; COMMIT`)
	want("a delete", "flush 3")
	w.exec(`BEGIN; SAVEPOINT x; TRUNCATE orders; ROLLBACK TO x; INSERT INTO products (account, mode, sku, name, description, prices) VALUES (7, 'test', 'LATE', '', '', '{}'); COMMIT`)
	want("an insert after a flush that was taken back", "1 7 test prd_LATE")
}

// A process that did not hear of a change by hand has no entry of before once it listens again.
func TestAFeedThatComesBackEmptiesTheLRU(t *testing.T) {
	t.Parallel()
	w := setup(t)
	proxy, url := pgtest.Proxy(t, w.PrimaryURL)
	p := w.process(w.timeless, withoutRedis, func(c *Config) { c.Primary = w.pool(url) })
	p.follow()
	w.product(mine, "CUP", "cup")
	w.synced(w.ReplicaURL)
	w.until(func() bool { return p.productName("CUP") == "cup" })
	proxy.Cut()
	w.exec(`UPDATE products SET name = 'mug'`)
	w.synced(w.ReplicaURL)
	if name := p.productName("CUP"); name != "cup" {
		t.Errorf("%q: the LRU has it", name)
	}
	proxy.Heal()
	w.until(func() bool { return p.productName("CUP") == "mug" })
}

// A sku that there is not costs no look-up, once all skus are known.
func TestUnknownSKUsReachNoDatabase(t *testing.T) {
	t.Parallel()
	w, ctx := setup(t), t.Context()
	w.product(mine, "OLD", "old")
	proxy, url := pgtest.Proxy(t, w.PrimaryURL)
	p := w.process(withoutRedis, func(c *Config) { c.Primary = w.pool(url) })
	ask := func(sku string) (tier string) {
		t.Helper()
		v, err := p.GetProduct(ctx, mine, sku, anyToken)
		wantCode(t, err, errcode.CAT001)
		if _, err = p.GetInventory(ctx, mine, sku, anyToken); err == nil {
			t.Error("there is an inventory")
		}
		return v.Tier
	}
	w.synced(w.ReplicaURL)
	if tier := ask("NONE-0"); tier == "" {
		t.Error("a filter that knows nothing has refused it")
	}
	p.follow()
	if name := p.productName("OLD"); name != "old" {
		t.Errorf("a product that was there before is %q", name)
	}
	before := p.loads(tierReplica) + p.loads(tierPrimary)
	for n := range 1000 {
		w.until(p.knowsSKUs)
		ask(fmt.Sprintf("NONE-%d", n))
	}
	if loads := p.loads(tierReplica) + p.loads(tierPrimary) - before; loads > 10 {
		t.Errorf("%d look-ups of 1,000 unknown skus", loads)
	}
	// A product of another process is there for whoever has its token, though the feed is late, and soon for all.
	for n, late := 0, false; !late; n++ {
		w.until(p.knowsSKUs)
		sku := fmt.Sprintf("NEW-%d", n)
		v, err := p.GetProduct(ctx, mine, sku, anyToken)
		wantCode(t, err, errcode.CAT001)
		proxy.Freeze()
		w.asProgram(`INSERT INTO products (account, mode, sku, name, description, prices) VALUES (7, 'test', $1, 'new', '', '{}')`, sku)
		written := w.tokenOf(v)
		w.must(w.Pool.QueryRow(ctx, `SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint`).Scan(&written.LSN))
		w.synced(w.ReplicaURL)
		if _, err = p.GetProduct(ctx, mine, sku, written); err != nil {
			t.Errorf("with its token: %v", err)
		}
		late = p.knowsSKUs() // the filter did go on
		proxy.Heal()
	}
	w.asProgram(`INSERT INTO products (account, mode, sku, name, description, prices) VALUES (7, 'test', 'NEXT', 'next', '', '{}')`)
	w.synced(w.ReplicaURL)
	w.until(func() bool { return p.productName("NEXT") == "next" })
	// Without the feed nothing is said not to be.
	proxy.Cut()
	w.advance(filterFresh)
	if p.knowsSKUs() {
		t.Error("a filter without a feed goes on")
	}
	if tier := ask("NONE-X"); tier != tierReplica {
		t.Errorf("%q has it looked up", tier)
	}
	proxy.Heal()
	w.until(p.knowsSKUs)
}

// A commit that is visible before it is flushed lies behind the tokens of the reads that saw it. A change by hand, and one of a product, waits for the
// flush whatever its session says, and a stricter setting stays.
func TestNoChangeIsSeenBeforeItIsFlushed(t *testing.T) {
	t.Parallel()
	w := setup(t)
	id := w.place(mine, time.Hour)
	w.product(mine, "CUP", "cup")
	w.exec(`INSERT INTO stock (account, mode, sku) VALUES (7, 'test', 'CUP')`)
	w.synced(w.ReplicaURL)
	primary, near := w.process(withoutRedis, withoutReplicas), w.process(withoutRedis)
	near.get(mine, id, anyToken)
	stale := 0
	for n := range 50 {
		w.exec(fmt.Sprintf(`BEGIN; SET LOCAL synchronous_commit = off; UPDATE orders SET version = %d, state = jsonb_set(state::jsonb, '{metadata,rev}', '"%[1]d"'); COMMIT`, n+2))
		primary.lru.Purge()
		near.lru.Purge()
		v, err := primary.GetOrder(t.Context(), mine, id, anyToken)
		w.must(err)
		if rev, _ := near.get(mine, id, w.tokenOf(v)); rev < revOf(t, v) {
			stale++
		}
	}
	if stale > 0 {
		t.Errorf("%d of 50 reads with the token of a read showed an older state", stale)
	}
	for _, statement := range []string{
		`UPDATE orders SET version = version`, `UPDATE products SET name = 'mug'`, `INSERT INTO stock (account, mode, sku) VALUES (7, 'test', 'MUG')`,
		`DELETE FROM stock`, `SELECT flush_caches()`, `TRUNCATE order_addresses`,
		`SET LOCAL role = ordergate_app; UPDATE products SET name = 'cup'`,
	} {
		for before, want := range map[string]string{"off": "on", "local": "local", "remote_apply": "remote_apply"} {
			tx, err := w.Pool.Begin(t.Context())
			w.must(err)
			_, err = tx.Exec(t.Context(), `SET LOCAL synchronous_commit = `+before+`; `+statement)
			w.must(err)
			var after string
			w.must(tx.QueryRow(t.Context(), `SELECT current_setting('synchronous_commit')`).Scan(&after))
			w.must(tx.Rollback(t.Context()))
			if after != want {
				t.Errorf("%s with %s commits with %s", statement, before, after)
			}
		}
	}
}

// The output of pg_dump begins with an empty search_path. Statements by hand that touch no row flush nothing.
func TestTriggersNeedNoSearchPath(t *testing.T) {
	t.Parallel()
	w := setup(t)
	id := w.place(mine, time.Hour)
	w.exec(`INSERT INTO order_addresses (account, mode, order_id, address) VALUES (7, 'test', $1, '{}')`, id[:])
	c, err := pgx.Connect(t.Context(), w.PrimaryURL)
	w.must(err)
	defer c.Close(t.Context())
	w.execOn(c, `SELECT pg_catalog.set_config('search_path', '', false)`)
	generation := func() (n int64) {
		w.must(w.Pool.QueryRow(t.Context(), `SELECT generation FROM cache_generation`).Scan(&n))
		return n
	}
	var partition string
	w.must(w.Pool.QueryRow(t.Context(), `SELECT tableoid::regclass::text FROM orders`).Scan(&partition))
	rows := &strings.Builder{}
	for n := range 200 {
		fmt.Fprintf(rows, "7\ttest\tP%d\tname\t\t{}\n", n)
	}
	for _, s := range []struct {
		statement string
		flushes   int64
	}{
		{`COPY public.products (account, mode, sku, name, description, prices) FROM STDIN`, 1},
		{`UPDATE public.products SET name = 'x' WHERE sku < 'P11'`, 0},
		{`DELETE FROM public.products WHERE sku = 'P1'`, 1},
		{`DELETE FROM public.products WHERE false`, 0},
		{`TRUNCATE public.products`, 1},
		{`UPDATE public.order_addresses SET address = '[]' WHERE false`, 0},
		{`DELETE FROM public.order_addresses WHERE false`, 0},
		{`UPDATE public.order_addresses SET address = '[]'`, 1},
		{`DELETE FROM public.order_addresses`, 1},
		{`UPDATE public.` + partition + ` SET version = 2`, 0},
		{`DELETE FROM public.` + partition, 1},
		{`TRUNCATE public.` + partition, 1},
		{`SELECT public.flush_caches()`, 1},
	} {
		before := generation()
		if strings.HasPrefix(s.statement, "COPY") {
			_, err = c.PgConn().CopyFrom(t.Context(), strings.NewReader(rows.String()), s.statement)
		} else {
			_, err = c.Exec(t.Context(), s.statement)
		}
		if n := generation() - before; err != nil || n != s.flushes {
			t.Errorf("%s: %d flushes, %v", s.statement, n, err)
		}
	}
	var left int
	w.must(w.Pool.QueryRow(t.Context(), `SELECT count(*) FROM order_addresses`).Scan(&left))
	if left != 0 {
		t.Errorf("%d addresses were not deleted", left)
	}
}

// The connections that a pool has when a path falls silent are silent, too. The feed makes a new one.
func TestAFeedWhosePathFallsSilentIsBackSoon(t *testing.T) {
	t.Parallel()
	w := setup(t)
	silent, silentURL := pgtest.Proxy(t, w.PrimaryURL)
	u, err := url.Parse(silentURL)
	w.must(err)
	direct, err := url.Parse(w.PrimaryURL)
	w.must(err)
	var moved atomic.Bool
	c := w.pool(silentURL).Config()
	c.MaxConns = 16
	c.ConnConfig.DialFunc = func(ctx context.Context, network, _ string) (net.Conn, error) {
		addr := u.Host
		if moved.Load() {
			addr = direct.Host
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	var checked atomic.Int32
	c.AfterConnect = func(context.Context, *pgx.Conn) error { checked.Add(1); return nil }
	pool, err := pgxpool.NewWithConfig(t.Context(), c)
	w.must(err)
	t.Cleanup(func() { silent.Cut(); pool.Close() })
	p := w.process(withoutRedis, withoutReplicas, func(c *Config) { c.Primary = pool })
	p.follow()
	held := make([]*pgxpool.Conn, c.MaxConns)
	for i := range held {
		held[i], err = pool.Acquire(t.Context())
		w.must(err)
	}
	for _, conn := range held {
		conn.Release()
	}
	w.until(func() bool { return pool.Stat().IdleConns() == c.MaxConns })
	before, checks, acquired := p.generation.Load(), checked.Load(), pool.Stat().AcquireCount()
	moved.Store(true)
	silent.Freeze()
	w.exec(`TRUNCATE products`)
	begin := time.Now()
	w.until(func() bool { return p.generation.Load() > before })
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("the generation is known after %v", took)
	} else {
		t.Logf("the generation is known after %v", took)
	}
	if pool.Stat().AcquireCount() > acquired {
		t.Error("the feed took a connection from the pool")
	}
	if checked.Load() == checks {
		t.Error("the new connection was not checked")
	}
}

// Any role may NOTIFY, so the row says which generation it is, and a flood of messages asks for few marks.
func TestAMessageOfAnybodyIsAHint(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(withoutRedis, withoutReplicas)
	p.follow()
	before := p.generation.Load()
	w.asProgram(`SELECT pg_notify('ordergate_changes', 'flush 9223372036854775807')`)
	w.asProgram(`SELECT pg_notify('ordergate_changes', 'flush ' || n) FROM generate_series(1, 1000) AS n`)
	w.product(mine, "CUP", "cup")
	begin := time.Now()
	w.exec(`DELETE FROM products`)
	w.until(func() bool { return p.generation.Load() > before })
	if took := time.Since(begin); took > 900*time.Millisecond {
		t.Errorf("a flush is known after %v", took)
	} else {
		t.Logf("a flush is known after %v", took)
	}
	if n := p.generation.Load(); n != before+1 {
		t.Errorf("generation %d after %d", n, before)
	}
	marks := map[int64]bool{}
	for begin, n := time.Now(), 0; time.Since(begin) < 2*time.Second; n++ {
		w.asProgram(`SELECT pg_notify('ordergate_changes', 'flush ' || $1::integer)`, n)
		marks[p.markedAt.Load()] = true
	}
	if len(marks) < 3 || len(marks) > 12 {
		t.Errorf("%d marks in 2 s", len(marks))
	}
	t.Logf("%d marks in 2 s", len(marks))
}

// Rows that came without triggers are told by nobody. They are found when all skus are read anew; until then the filter of before serves.
func TestSKUsThatNobodyToldAreFound(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(withoutRedis, withoutReplicas)
	p.follow()
	w.exec(`BEGIN; SET LOCAL session_replication_role = replica; INSERT INTO products (account, mode, sku, name, description, prices) VALUES (7, 'test', 'CUP', 'cup', '', '{}'); COMMIT`)
	f := p.skus.Load()
	w.advance(skusFor)
	w.until(func() bool { return p.productName("CUP") == "cup" })
	w.until(func() bool { return p.skus.Load() != f && p.knowsSKUs() })
}

// A filter that is read anew leaves no gap, whether it ends well or not, and one of another generation serves nobody.
func TestAFilterServesUntilTheNextIsComplete(t *testing.T) {
	t.Parallel()
	signer, now := token.NewSigner([]byte("tokens")), time.Now()
	sku := func(n int) key { return products.row(mine, order.ID{}, strconv.Itoa(n)) }
	lacks := func(f *skuFilter, n int, generation int64) bool {
		_, lacks := f.lacks(sku(n), anyToken, epoch{1, generation}, now)
		return lacks
	}
	mark := querydb.MarkFeedRow{Timeline: 1, Lsn: 7, Generation: 1}
	old := newSKUFilter(1, nil, now)
	old.complete = true
	next := newSKUFilter(1, old, now)
	next.reached(mark, signer, now)
	next.add(sku(1))
	if !lacks(next, 2, 1) || lacks(next, 1, 1) {
		t.Error("the filter of before does not serve, or has not what came since")
	}
	next.failed = true
	third := newSKUFilter(1, next, now)
	if !lacks(third, 2, 1) || next.usable(1, now) {
		t.Error("a reading that failed ends the filter of before")
	}
	if !third.usable(1, now) || third.usable(2, now) {
		t.Error("a filter that is being read is replaced, or one of another generation is not")
	}
	if other := newSKUFilter(2, third, now); lacks(other, 2, 2) || lacks(other, 2, 1) || lacks(third, 2, 2) {
		t.Error("a filter of another generation serves")
	}
	if old.usable(1, now.Add(skusFor)) {
		t.Error("a filter is never read anew")
	}
}

// A script that deletes row by row does not have all skus read for each, and a reading that was replaced ends.
func TestFlushesDoNotReadAllSKUsEach(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(withoutRedis, withoutReplicas)
	p.follow()
	w.exec(`INSERT INTO products (account, mode, sku, name, description, prices) SELECT 7, 'test', 'P' || n, '', '', '{}' FROM generate_series(1, 15) AS n`)
	filters := map[*skuFilter]bool{}
	begin := time.Now()
	for n := range 15 {
		before := p.generation.Load()
		w.exec(`DELETE FROM products WHERE sku = $1`, fmt.Sprintf("P%d", n+1))
		w.until(func() bool { return p.generation.Load() > before })
		filters[p.skus.Load()] = true
	}
	if most := 2 + int(time.Since(begin)/skusPause); len(filters) > most {
		t.Errorf("%d readings in %v", len(filters), time.Since(begin))
	}
	w.until(p.knowsSKUs)
	replaced := newSKUFilter(p.generation.Load(), nil, w.now())
	before := p.loads(tierPrimary)
	p.readSKUs(t.Context(), replaced, querydb.MarkFeedRow{Timeline: 1})
	if n := p.loads(tierPrimary) - before; n > 0 || replaced.complete {
		t.Errorf("a filter that was replaced is read on: %d loads", n)
	}
}

func TestSKUFilter(t *testing.T) {
	t.Parallel()
	sku := func(n int) key { return products.row(mine, order.ID{}, strconv.Itoa(n)) }
	now := time.Now()
	var none *skuFilter
	none.add(sku(1))
	if none.usable(1, now) || none.size() != leastSKUs {
		t.Error("no filter is one")
	}
	f := newSKUFilter(1, nil, now)
	f.capacity, f.bits, f.complete = 1000, bloom.NewWithEstimates(1000, falseSKUs), true
	for n := range 1000 {
		f.add(sku(n), sku(n))
	}
	if !f.usable(1, now) || f.usable(2, now) || f.added < 990 {
		t.Errorf("%d of 1,000 added", f.added)
	}
	hits := 0
	for n := range 100_000 {
		if known := f.bits.TestString(sku(n).String()); n < 1000 && !known {
			t.Fatalf("%d is lost", n)
		} else if known {
			hits++
		}
	}
	if hits > 1000+300 {
		t.Errorf("%d of 99,000 skus that there are not are taken for some", hits-1000)
	}
	for n := range 1100 {
		f.add(sku(n))
	}
	if f.usable(1, now) {
		t.Error("a filter that is too small is kept")
	}
}
