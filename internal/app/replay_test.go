package app

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/internal/replay"
	"github.com/ordergate/ordergate/internal/verify"
	"github.com/ordergate/ordergate/order"
)

// rebuilt are the tables that a replay rebuilds.
var rebuilt = []string{"orders", "payments", "refunds", "shipments", "stock"}

// live leads an order of a sku through one of several lives, and moves stock beside it.
func (g *gateway) live(sku string, n int) {
	g.t.Helper()
	ok := func(a answer) answer {
		g.t.Helper()
		if a.status/100 != 2 {
			g.t.Errorf("%d %s", a.status, a.raw)
		}
		return a
	}
	place := func(token string) (path string) {
		return "/v1/orders/" + ok(g.do("POST", "/v1/orders", draft(sku, 2, token), "Prefer", "wait=10")).body.ID
	}
	switch n % 6 {
	case 0: // shipped in two parts, of which one has arrived
		path := place("pm_ok")
		part := map[string]any{"lines": []map[string]any{{"sku": sku, "quantity": 1}}, "tracking": map[string]string{"carrier": "c", "number": "n"}}
		first := ok(g.do("POST", path+"/shipments", part))
		ok(g.do("POST", path+"/shipments", nil))
		ok(g.do("POST", "/v1/shipments/"+first.body.ID+"/deliver", nil))
	case 1: // paid by a second card, refunded in part
		path := place("")
		if a := g.do("POST", path+"/payments", `{"method_token":"pm_declined"}`, "Prefer", "wait=10"); a.body.Code != "PAY_007" {
			g.t.Errorf("%d %s", a.status, a.raw)
		}
		paid := ok(g.do("POST", path+"/payments", `{"method_token":"pm_ok"}`, "Prefer", "wait=10"))
		until(g.t, "the order is paid", func() bool { return g.do("GET", path, nil).body.PaymentStatus == "paid" })
		for range 2 {
			ok(g.do("POST", "/v1/payments/"+paid.body.ID+"/refunds", `{"amount":{"amount":300,"currency":"EUR"},"reason":"late"}`, "Prefer", "wait=10"))
		}
	case 2:
		ok(g.do("POST", place("pm_ok")+"/cancel", "", "Prefer", "wait=10"))
	case 3:
		ok(g.do("POST", place("")+"/cancel", "", "Prefer", "wait=10"))
	case 4:
		place("pm_declined")
		ok(g.do("POST", "/v1/inventory/"+sku+"/adjustments", `{"delta":3,"reason":"found"}`))
	case 5:
		ok(g.do("PATCH", place(""), fmt.Sprintf(`{"metadata":{"n":"%d"}}`, n), "If-Match", "*"))
		ok(g.do("PATCH", "/v1/products/"+sku, fmt.Sprintf(`{"low_stock_at":%d}`, 20+n), "If-Match", "*"))
	}
}

// settled waits until nothing is in flight.
func (g *gateway) settled() {
	g.t.Helper()
	until(g.t, "nothing is in flight", func() bool {
		return g.count("outbox")+g.count("saga_steps WHERE status = 'running'")+g.count("payment_calls WHERE next_at IS NOT NULL") == 0
	})
}

func (g *gateway) exec(sql string, args ...any) {
	g.t.Helper()
	if _, err := g.db.Pool.Exec(g.t.Context(), sql, args...); err != nil {
		g.t.Fatalf("%s: %v", sql, err)
	}
}

func (g *gateway) number(query string, args ...any) (n int64) {
	g.t.Helper()
	if err := g.db.Pool.QueryRow(g.t.Context(), query, args...).Scan(&n); err != nil {
		g.t.Fatalf("%s: %v", query, err)
	}
	return n
}

// keep copies the tables.
func (g *gateway) keep() {
	g.t.Helper()
	for _, table := range rebuilt {
		g.exec("DROP TABLE IF EXISTS kept_" + table)
		g.exec("CREATE TABLE kept_" + table + " AS TABLE " + table)
	}
}

// asKept compares all columns but rev of the tables, in the rows that were kept, and makes sure that no rev fell and that a row that was
// restored has a new one.
func (g *gateway) asKept(restored bool) {
	g.t.Helper()
	for _, table := range rebuilt {
		var columns, key string
		must(g.t, g.db.Pool.QueryRow(g.t.Context(), `SELECT string_agg(column_name || CASE data_type WHEN 'json' THEN '::jsonb' ELSE '' END, ', ') FROM information_schema.columns
			WHERE table_schema = 'public' AND table_name = $1 AND column_name <> 'rev'`, table).Scan(&columns))
		if key = "account, mode, id"; table == "stock" {
			key = "account, mode, sku"
		}
		if n := g.number(fmt.Sprintf("SELECT count(*) FROM (SELECT %s FROM kept_%s EXCEPT SELECT %s FROM %s) x", columns, table, columns, table)); n > 0 {
			g.t.Errorf("%d of %d rows of %s are not what they were", n, g.count("kept_"+table), table)
		}
		compare := "<"
		if restored {
			compare = "<="
		}
		if n := g.number(fmt.Sprintf("SELECT count(*) FROM %s n JOIN kept_%s k USING (%s) WHERE n.rev %s k.rev", table, table, key, compare)); n > 0 {
			g.t.Errorf("the rev of %d rows of %s did not rise", n, table)
		}
	}
}

// replay runs one with small pages, and returns how many rows it wrote and deleted.
func (g *gateway) replay(c replay.Config) (written, deleted int64, err error) {
	if c.PageSize == 0 {
		c.PageSize = 3
	}
	cfg := g.cfg
	cfg.PrimaryURL = g.db.PrimaryURL
	report, err := replayOnce(g.t.Context(), cfg, c)
	for _, t := range report.Tables {
		written, deleted = written+t.Written, deleted+t.Deleted
	}
	return written, deleted, err
}

// replayed is a replay that must succeed.
func (g *gateway) replayed() (written, deleted int64) {
	g.t.Helper()
	written, deleted, err := g.replay(replay.Config{})
	must(g.t, err)
	return written, deleted
}

// lived starts a gateway with orders that have lived.
func lived(t *testing.T) *gateway {
	t.Helper()
	g := startGateway(t, nil)
	g.stock("A", 100)
	g.stock("UNSOLD", 7)
	var wg sync.WaitGroup
	for n := range 12 {
		wg.Go(func() { g.live("A", n) })
	}
	wg.Wait()
	g.settled()
	if t.Failed() {
		t.FailNow()
	}
	g.keep()
	return g
}

// TestReplay: rows that are gone come back equal in every column but rev, which rises; rows that are right stay untouched.
func TestReplay(t *testing.T) {
	t.Parallel()
	g := lived(t)
	clean := func(t *testing.T) {
		t.Helper()
		for _, v := range g.verify(verify.Config{}) {
			t.Error(v)
		}
	}
	all := g.count("orders") + g.count("payments") + g.count("refunds") + g.count("shipments") + g.count("stock")
	for _, table := range rebuilt {
		if g.count(table) < 2 {
			t.Fatalf("%s has %d rows", table, g.count(table))
		}
	}
	t.Run("rows that are right are not touched", func(t *testing.T) {
		if written, deleted := g.replayed(); written+deleted != 0 {
			t.Errorf("%d written, %d deleted", written, deleted)
		}
		g.asKept(false)
	})
	for range 2 { // the second time above the revs of the first
		t.Run("all rows are gone", func(t *testing.T) {
			g.keep()
			g.exec("TRUNCATE " + strings.Join(rebuilt, ", "))
			if written, deleted := g.replayed(); written != int64(all) || deleted != 0 {
				t.Errorf("%d of %d written, %d deleted", written, all, deleted)
			}
			g.asKept(true)
			clean(t)
		})
	}
	t.Run("rows that were changed by hand are set right", func(t *testing.T) {
		g.keep()
		for _, change := range []string{
			`UPDATE orders SET customer_ref = 'x' WHERE status = 'confirmed'`,
			`UPDATE orders SET state = jsonb_set(state::jsonb, '{metadata}', '{"a":"b"}'), version = version + 3 WHERE status = 'cancelled'`,
			`UPDATE payments SET refunded = 0, status = 'captured' WHERE refunded > 0`,
			`UPDATE payments SET head_hash = 'x', updated_at = now() WHERE status = 'failed'`,
			`UPDATE refunds SET amount = amount + 1, order_id = gen_random_uuid()`,
			`UPDATE shipments SET delivered_at = NULL, tracking = NULL WHERE status = 'delivered'`,
			`UPDATE stock SET on_hand = on_hand + 4, reserved = 1, low_at = 3 WHERE sku = 'A'`,
			`UPDATE stock SET version = 5, head_hash = 'x', updated_at = '2030-01-01' WHERE sku = 'UNSOLD'`,
		} {
			g.exec(change)
		}
		if written, deleted := g.replayed(); written == 0 || deleted != 0 {
			t.Errorf("%d written, %d deleted", written, deleted)
		}
		g.asKept(false)
		clean(t)
	})
	t.Run("rows that no event tells of are deleted", func(t *testing.T) {
		g.keep()
		for _, table := range rebuilt {
			key, id := "id", "gen_random_uuid()"
			if table == "stock" {
				key, id = "sku", "'NONE'"
			}
			g.exec(fmt.Sprintf("CREATE TABLE extra AS TABLE %s LIMIT 1", table))
			g.exec(fmt.Sprintf("UPDATE extra SET %s = %s", key, id))
			if table == "payments" {
				g.exec("UPDATE extra SET attempt = 99")
			}
			g.exec(fmt.Sprintf("INSERT INTO %s TABLE extra", table))
			g.exec("DROP TABLE extra")
		}
		if written, deleted := g.replayed(); written != 0 || deleted != int64(len(rebuilt)) {
			t.Errorf("%d written, %d deleted", written, deleted)
		}
		g.asKept(false)
		clean(t)
	})
	t.Run("a second one at the same time says so", func(t *testing.T) {
		second := errors.New("it was not tried")
		_, _, err := g.replay(replay.Config{Progress: func(p replay.Progress) {
			if p.Number == p.Steps {
				_, _, second = g.replay(replay.Config{})
			}
		}})
		if err != nil || !errors.Is(second, replay.ErrRunning) {
			t.Error(err, second)
		}
	})
	t.Run("the subcommand", func(t *testing.T) {
		g.exec("DELETE FROM refunds")
		var out, logs bytes.Buffer
		cfg := g.cfg
		err := replayAll(t.Context(), process{cfg: cfg, stdout: &out, logs: &logs})
		if err != nil || !strings.Contains(out.String(), fmt.Sprintf("generation %d", g.number("SELECT generation FROM cache_generation"))) || logs.Len() > 0 {
			t.Errorf("%v\n%s\n%s", err, &out, &logs)
		}
		stock := ""
		for line := range strings.Lines(out.String()) {
			if strings.HasPrefix(line, "stock ") {
				stock = strings.Join(strings.Fields(line), " ")
			}
		}
		if want := fmt.Sprintf("stock %d %d 0 0", g.number("SELECT count(DISTINCT (account, mode, resource)) FROM resource_events WHERE kind = 'inventory'"),
			g.number("SELECT count(*) FROM resource_events WHERE kind = 'inventory'")); stock != want || g.count("stock") < 2 {
			t.Errorf("%q, want %q", stock, want)
		}
		g.asKept(false)
	})
	g.broken = true // from here on
	t.Run("a history that is broken changes nothing", func(t *testing.T) {
		g.exec("UPDATE orders SET customer_ref = 'x'")
		g.exec("DELETE FROM stock")
		g.keep()
		generation := g.number("SELECT generation FROM cache_generation")
		for name, c := range map[string]struct{ sql, undo, want string }{
			"an event of an order was changed": {"UPDATE order_events SET trace_id = 'x' || trace_id WHERE version = 2",
				"UPDATE order_events SET trace_id = substr(trace_id, 2) WHERE version = 2", "version 2 was changed"},
			"an event of an order is gone": {"UPDATE order_events SET version = 99 WHERE version = 1", "UPDATE order_events SET version = 1 WHERE version = 99",
				"version 2 stands where 1 belongs"},
			"an event of a refund was changed": {"UPDATE resource_events SET payload = payload || ' ' WHERE kind = 'refund'",
				"UPDATE resource_events SET payload = trim(payload) WHERE kind = 'refund'", "ref_"},
			"an event of a stock was changed": {"UPDATE resource_events SET payload = payload || ' ' WHERE kind = 'inventory' AND resource = 'UNSOLD'",
				"UPDATE resource_events SET payload = trim(payload) WHERE kind = 'inventory' AND resource = 'UNSOLD'", "UNSOLD: version 1 was changed"},
			"a shipment of nobody": {"UPDATE resource_events SET resource = 'x' || resource WHERE kind = 'shipment'",
				"UPDATE resource_events SET resource = substr(resource, 2) WHERE kind = 'shipment'", "which is no id"},
			"more pieces were sold than came": {"UPDATE stock_reservation_lines SET quantity = quantity + 1000", "UPDATE stock_reservation_lines SET quantity = quantity - 1000",
				"A: its adjustments and reservations give -"},
		} {
			g.exec(c.sql)
			_, _, err := g.replay(replay.Config{})
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "nothing was changed: ") {
				t.Errorf("%s: %v", name, err)
			}
			g.exec(c.undo)
		}
		for _, table := range rebuilt {
			if n := g.number(fmt.Sprintf("SELECT count(*) FROM (SELECT t::text FROM %s t EXCEPT SELECT t::text FROM kept_%s t) x", table, table)); n > 0 {
				t.Errorf("%d rows of %s changed", n, table)
			}
		}
		if now := g.number("SELECT generation FROM cache_generation"); now != generation {
			t.Errorf("generation %d after %d", now, generation)
		}
		if written, _ := g.replayed(); written == 0 {
			t.Error("nothing is rebuilt after the repair")
		}
	})
	t.Run("an event that this program does not know changes nothing", func(t *testing.T) {
		id, rec := order.ID(uuid.Must(uuid.NewV7())), order.Recorder{NewID: func() order.ID { return order.ID(uuid.Must(uuid.NewV7())) }, Now: time.Now()}
		for _, c := range []struct {
			name   string
			schema int32
			want   string
		}{{"order.danced", 1, `unknown event type "order.danced"`}, {"order.created", 9, "unknown schema version 9"}} {
			e := rec.Event(id[:], 0, nil, c.name, c.schema, map[string]any{})
			g.insert(id, e)
			_, _, err := g.replay(replay.Config{})
			if err == nil || !strings.Contains(err.Error(), id.Format(order.PrefixOrder)) || !strings.Contains(err.Error(), c.want) {
				t.Error(err)
			}
			g.exec("DELETE FROM order_events WHERE order_id = $1", uuid.UUID(id))
		}
	})
	t.Run("a command on a row that is gone keeps its key free until the row is back", func(t *testing.T) {
		first := func(query string, prefix string) string {
			var id [16]byte
			must(t, g.db.Pool.QueryRow(t.Context(), query).Scan(&id))
			return order.ID(id).Format(prefix)
		}
		commands := []struct{ path, body string }{
			{"/v1/orders/" + first("SELECT id FROM orders WHERE status = 'reserved' LIMIT 1", order.PrefixOrder) + "/cancel", ""},
			{"/v1/payments/" + first("SELECT id FROM payments WHERE status = 'captured' AND refunded < amount LIMIT 1", order.PrefixPayment) + "/refunds", `{"reason":"late"}`},
			{"/v1/inventory/A/adjustments", `{"delta":1,"reason":"found"}`},
			{"/v1/shipments/" + first("SELECT id FROM shipments WHERE status = 'shipped' LIMIT 1", order.PrefixShipment) + "/deliver", ""},
		}
		send := func(i int) answer {
			return g.do("POST", commands[i].path, commands[i].body, "Idempotency-Key", fmt.Sprintf("while-gone-%d", i))
		}
		g.exec("TRUNCATE orders, payments, refunds, shipments, stock")
		placed := g.do("POST", "/v1/orders", draft("A", 1, ""), "Prefer", "wait=1")
		if placed.body.Status != "pending" {
			t.Errorf("an order of stock that is gone: %d %s", placed.status, placed.raw)
		}
		for i, c := range commands {
			if a := send(i); a.body.Code != "SYS_002" {
				t.Errorf("%s: %d %s", c.path, a.status, a.raw)
			}
		}
		g.replayed()
		for i, c := range commands {
			if a := send(i); a.status/100 != 2 {
				t.Errorf("%s: %d %s", c.path, a.status, a.raw)
			}
		}
		g.settled()
		until(t, "its stock is back", func() bool { return g.do("GET", "/v1/orders/"+placed.body.ID, nil).body.Status == "reserved" })
		clean(t)
	})
	t.Run("an order that an earlier version placed is rebuilt", func(t *testing.T) {
		id, rec := order.ID(uuid.Must(uuid.NewV7())), order.Recorder{NewID: func() order.ID { return order.ID(uuid.Must(uuid.NewV7())) }, Now: time.Now()}
		e := rec.Event(id[:], 0, nil, "order.created", 1, map[string]any{
			"currency": "EUR", "customer_ref": "old", "with_payment": true, "metadata": map[string]string{}, "total": order.Money{Amount: 700, Currency: "EUR"},
			"lines": []map[string]any{{"sku": "A", "name": "A", "quantity": 7, "unit_price": order.Money{Amount: 100, Currency: "EUR"}}},
		})
		g.insert(id, e)
		if written, _ := g.replayed(); written != 1 {
			t.Errorf("%d rows are written", written)
		}
		if n := g.number("SELECT (state->'subtotal'->>'amount')::bigint + rev - version FROM orders WHERE id = $1 AND customer_ref = 'old'", uuid.UUID(id)); n <= 700 {
			t.Errorf("its subtotal and the generation are %d", n)
		}
	})
}

// insert stores the first event of an order.
func (g *gateway) insert(id order.ID, e order.Event) {
	g.t.Helper()
	g.exec(`INSERT INTO order_events VALUES (1, 'test', $1, $2, $3, $4, $5, $6, '', '', '', $7, '', $8)`, uuid.UUID(id), e.Version, uuid.UUID(e.ID), e.Type, e.Schema,
		string(e.Payload), e.At, e.Hash)
}

// TestReplayWhileOrdersComeIn: rows that are gone come back while orders are placed, paid, refunded, shipped and cancelled, and a stock
// that sells is corrected. In the end every row is the fold of its events.
func TestReplayWhileOrdersComeIn(t *testing.T) {
	t.Parallel()
	g := lived(t)
	g.stock("B", 100_000)
	var stop atomic.Bool
	var wg sync.WaitGroup
	lives := atomic.Int64{}
	for worker := range 6 {
		wg.Go(func() {
			for n := worker; !stop.Load() && !t.Failed(); n++ {
				g.live("B", n)
				lives.Add(1)
			}
		})
	}
	rounds := 0
	for end := time.Now().Add(6 * time.Second); rounds < 3 || time.Now().Before(end); rounds++ {
		must(t, pgx.BeginFunc(t.Context(), g.db.Pool, func(tx pgx.Tx) error {
			var err error
			for _, table := range rebuilt {
				key := "id"
				if table == "stock" {
					key = "sku"
				}
				_, failed := tx.Exec(t.Context(), fmt.Sprintf("DELETE FROM %s WHERE %s IN (SELECT %s FROM kept_%s)", table, key, key, table))
				err = errors.Join(err, failed)
			}
			return err
		}))
		g.exec("UPDATE stock SET on_hand = on_hand + 5, reserved = reserved + 1, low_at = 1, updated_at = updated_at - interval '1 minute' WHERE sku = 'B'")
		g.exec(`WITH locked AS (SELECT id FROM orders ORDER BY id FOR UPDATE), n AS (UPDATE orders SET customer_ref = 'x' WHERE id IN (SELECT id FROM locked))
			UPDATE payments SET currency = 'XXX' WHERE id IN (SELECT id FROM payments WHERE status = 'failed' ORDER BY id FOR UPDATE)`)
		written, _, err := g.replay(replay.Config{PageSize: 40})
		must(t, err)
		if written < int64(g.count("kept_orders")) {
			t.Errorf("%d rows were written", written)
		}
		g.asKept(true)
	}
	stop.Store(true)
	wg.Wait()
	g.settled()
	t.Logf("%d rounds, %d lives, %d orders", rounds, lives.Load(), g.count("orders"))
	if written, deleted := g.replayed(); written+deleted != 0 {
		t.Errorf("%d written, %d deleted, although each row had been rebuilt or written since", written, deleted)
	}
}

// TestReplayChild is the process that TestReplayThatIsKilled kills.
func TestReplayChild(t *testing.T) {
	url := os.Getenv("ORDERGATE_TEST_REPLAY")
	if url == "" {
		t.Skip("it is a child of TestReplayThatIsKilled")
	}
	_, err := replayOnce(t.Context(), Config{PrimaryURL: url}, replay.Config{PageSize: 1})
	must(t, err)
}

// TestReplayThatIsKilled: the pages that it had rebuilt are right, the others as they were, and the next one does the rest.
func TestReplayThatIsKilled(t *testing.T) {
	t.Parallel()
	g := lived(t)
	g.exec("UPDATE orders SET customer_ref = 'x'")
	g.exec("DELETE FROM payments")
	lock, err := g.db.Pool.Begin(t.Context())
	must(t, err)
	defer func() { _ = lock.Rollback(t.Context()) }()
	_, err = lock.Exec(t.Context(), "SELECT FROM orders ORDER BY id DESC LIMIT 1 FOR UPDATE")
	must(t, err)
	child := exec.Command(os.Args[0], "-test.run=^TestReplayChild$")
	child.Env = append(os.Environ(), "ORDERGATE_TEST_REPLAY="+g.db.PrimaryURL)
	must(t, child.Start())
	until(t, "it comes to the order that is locked", func() bool { return g.count("orders WHERE customer_ref = 'x'") == 1 })
	must(t, child.Process.Kill())
	_ = child.Wait()
	if n := g.count("payments"); n != g.count("kept_payments") {
		t.Errorf("%d payments are rebuilt", n)
	}
	must(t, lock.Rollback(t.Context()))
	until(t, "the lock of the dead one is free", func() bool {
		return g.number(`SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = hashtext('ordergate replay')::oid
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`) == 0
	})
	if written, _ := g.replayed(); written != 1 {
		t.Errorf("%d rows were left", written)
	}
	g.asKept(false)
}

// Somebody who changes a row by hand holds the generation of the caches until his COMMIT.
func TestReplayWaitsForTheGeneration(t *testing.T) {
	t.Parallel()
	g := lived(t)
	held, err := g.db.Pool.Begin(t.Context())
	must(t, err)
	defer func() { _ = held.Rollback(t.Context()) }()
	_, err = held.Exec(t.Context(), "SELECT FROM cache_generation FOR UPDATE")
	must(t, err)
	released := make(chan error)
	time.AfterFunc(500*time.Millisecond, func() { released <- held.Rollback(t.Context()) })
	_, _, err = g.replay(replay.Config{})
	must(t, err)
	must(t, <-released)
}

// TestReplayEmptiesTheCaches: a row that comes back with a lower rev than the caches have seen is served by every instance, and a token of
// before can be satisfied.
func TestReplayEmptiesTheCaches(t *testing.T) {
	t.Parallel()
	g := startGateway(t, func(c *Config, _ *pgtest.DB) { c.ReplicaURLs = nil })
	g.stock("A", 100)
	other := g.at(g.serve(g.assemble()))
	placed := g.do("POST", "/v1/orders", draft("A", 1, "pm_ok"), "Prefer", "wait=10")
	path := "/v1/orders/" + placed.body.ID
	g.settled()
	right := g.do("GET", path, nil, "X-Consistency-Token", placed.header.Get("X-Consistency-Token"))
	if right.body.Status != "confirmed" {
		t.Fatal(right.raw)
	}
	// Somebody breaks the row and gives it a rev that no event explains. Every cache takes it.
	g.exec("UPDATE orders SET rev = 1000, state = jsonb_set(state::jsonb, '{customer_ref}', '\"x\"')")
	broken := strings.Replace(right.raw, `"c-1"`, `"x"`, 1)
	later := g.do("POST", "/v1/inventory/A/adjustments", `{"delta":1,"reason":"found"}`).header.Get("X-Consistency-Token")
	tokens := map[*gateway]string{}
	for _, instance := range []*gateway{g, other} {
		a := instance.do("GET", path, nil, "X-Consistency-Token", later)
		if tokens[instance] = a.header.Get("X-Consistency-Token"); a.raw != broken {
			t.Fatal(a.raw)
		}
	}
	g.exec("DELETE FROM orders")
	if written, _ := g.replayed(); written != 1 {
		t.Fatalf("%d rows were written", written)
	}
	if rev := g.number("SELECT rev FROM orders"); rev >= 1000 {
		t.Fatal("its rev is", rev)
	}
	for _, instance := range []*gateway{g, other} {
		until(t, "the rebuilt row is served", func() bool { return instance.do("GET", path, nil).raw == right.raw })
	}
	tiers := []string{}
	for range 10 { // and nothing else any more
		for _, instance := range []*gateway{g, other} {
			a := instance.do("GET", path, nil)
			if tiers = append(tiers, a.header.Get("X-Served-By")); a.raw != right.raw {
				t.Errorf("%s serves %s", a.header.Get("X-Served-By"), a.raw)
			}
		}
	}
	if !slices.Contains(tiers, "lru") {
		t.Error(tiers)
	}
	for instance, token := range tokens {
		if a := instance.do("GET", path, nil, "X-Consistency-Token", token); a.status != http.StatusOK || a.raw != right.raw {
			t.Errorf("a token of before: %d %s", a.status, a.raw)
		}
	}
}
