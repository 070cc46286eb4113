package bus

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/ordergate/ordergate/gen/busdb"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/pgtest"
)

const deadline = 10 * time.Second

// transport is one end to end connection.
type transport struct {
	pub message.Publisher
	sub message.Subscriber
}

func (tr transport) close() { _, _ = tr.pub.Close(), tr.sub.Close() }

// numbered makes n messages of each key, interleaved; the payload is the number within the key.
func numbered(keys []string, n int) []*message.Message {
	var out []*message.Message
	for i := range n {
		for _, k := range keys {
			m := message.NewMessage(uuid.Must(uuid.NewV7()).String(), fmt.Appendf(nil, "%d", i))
			m.Metadata.Set(MetaKey, k)
			out = append(out, m)
		}
	}
	return out
}

// fixture is a database with its outbox, and a transport.
type fixture struct {
	testing.TB
	transport
	pool *pgxpool.Pool
	logs *observer.ObservedLogs
	log  *zap.Logger
}

func setup(t testing.TB, open func() transport) *fixture {
	t.Helper()
	f := &fixture{TB: t, pool: pgtest.New(t).Pool}
	if open != nil {
		f.transport = open()
		t.Cleanup(f.close)
	}
	var core, logs = observer.New(zap.InfoLevel)
	f.log, f.logs = zap.New(core), logs
	f.exec(`CREATE TABLE effects (seq bigserial, consumer text, key text, payload text)`)
	return f
}

func (f *fixture) exec(sql string, args ...any) {
	f.Helper()
	if _, err := f.pool.Exec(context.Background(), sql, args...); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) count(sql string, args ...any) (n int) {
	f.Helper()
	if err := f.pool.QueryRow(context.Background(), sql, args...).Scan(&n); err != nil {
		f.Fatal(err)
	}
	return n
}

// until polls, because what it waits for happens in another goroutine's transaction.
func (f *fixture) until(what string, ok func() bool) {
	f.Helper()
	for end, tick := time.Now().Add(deadline), time.Tick(2*time.Millisecond); !ok(); <-tick {
		if time.Now().After(end) {
			f.Fatalf("it never happens that %s; log: %v", what, f.logs.All())
		}
	}
}

func (f *fixture) untilEmpty() {
	f.Helper()
	f.until("the outbox is empty", func() bool { return f.count(`SELECT count(*) FROM outbox`) == 0 })
}

// send writes one message "key/payload" after the other in one transaction.
func (f *fixture) send(msgs ...string) {
	f.Helper()
	var out []outgoing
	for _, m := range msgs {
		key, payload, _ := strings.Cut(m, "/")
		out = append(out, row(key, payload))
	}
	if err := write(f.pool, out...); err != nil {
		f.Fatal(err)
	}
}

// outgoing is a row for the outbox.
type outgoing struct {
	topic, key, payload string
	id                  uuid.UUID
}

func row(key, payload string) outgoing {
	return outgoing{"orders", key, payload, uuid.Must(uuid.NewV7())}
}

// write puts rows into the outbox, in their order.
func write(db busdb.DBTX, rows ...outgoing) error {
	return busdb.New(db).InsertOutbox(context.Background(), busdb.InsertOutboxParams{
		Shards:     pg.Column(rows, func(o outgoing) int16 { return shardOf(o.key) }),
		Topics:     pg.Column(rows, func(o outgoing) string { return o.topic }),
		Keys:       pg.Column(rows, func(o outgoing) string { return o.key }),
		MessageIds: pg.Column(rows, func(o outgoing) uuid.UUID { return o.id }),
		TraceIds:   pg.Column(rows, func(o outgoing) string { return "trace-" + o.key }),
		Payloads:   pg.Column(rows, func(o outgoing) string { return o.payload }),
	})
}

func shardOf(key string) int16 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	return int16(h.Sum32() % 256)
}

// background runs f until the returned function has stopped it, at the latest at the end of the test.
func (f *fixture) background(run func(ctx context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); run(ctx) }()
	stop = func() {
		cancel()
		select {
		case <-done:
		case <-time.After(deadline):
			f.Error("does not stop")
		}
	}
	f.Cleanup(stop)
	return stop
}

func (f *fixture) consume(sub message.Subscriber, handle Handler) (stop func()) {
	return f.background(func(ctx context.Context) {
		c := Consumer{Name: "c", Topic: "orders", Subscriber: sub, Pool: f.pool, Handle: handle, Log: f.log}
		if err := Consume(ctx, c); err != nil {
			f.Error(err)
		}
	})
}

func (f *fixture) relay(pub message.Publisher) (r *Relay, stop func()) {
	r = NewRelay(RelayConfig{Pool: f.pool, Publisher: pub, Log: f.log, Metrics: prometheus.NewRegistry()})
	return r, f.background(r.Run)
}

// effect is the usual handler.
func effect(ctx context.Context, tx pgx.Tx, msgs []Message, _ bool) (Handled, error) {
	for _, m := range msgs {
		if _, err := tx.Exec(ctx, `INSERT INTO effects (consumer, key, payload) VALUES ('c', $1, $2)`, m.Key, string(m.Payload)); err != nil {
			return Handled{}, err
		}
	}
	return Handled{}, nil
}

func (f *fixture) effects(key string) string {
	f.Helper()
	return f.list(`SELECT payload FROM effects WHERE key = $1 ORDER BY seq`, key)
}

func (f *fixture) parked(key string) string {
	f.Helper()
	return f.list(`SELECT payload FROM parked_messages WHERE key = $1 ORDER BY id`, key)
}

func (f *fixture) list(sql string, args ...any) string {
	f.Helper()
	rows, err := f.pool.Query(context.Background(), sql, args...)
	if err != nil {
		f.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		f.Fatal(err)
	}
	return strings.Join(out, " ")
}

func (f *fixture) expect(what, got, want string) {
	f.Helper()
	if got != want {
		f.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// outcomes counts the events of a key by outcome.
func (f *fixture) outcomes(key string) map[string]int {
	out := map[string]int{}
	for _, e := range f.logs.FilterMessage("message").FilterField(zap.String("key", key)).All() {
		out[e.ContextMap()["outcome"].(string)]++
	}
	return out
}

// testConsumers is what must hold with relay and consumers over any transport.
func testConsumers(t *testing.T, open func() transport) {
	t.Helper()
	run := func(name string, test func(f *fixture)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(setup(t, open))
		})
	}

	run("every message has its effect once, in the order of its key", func(f *fixture) {
		var all []string
		for i := range 30 {
			for k := range 20 {
				all = append(all, fmt.Sprintf("k%d/%d", k, i))
			}
		}
		f.consume(f.sub, effect)
		r, _ := f.relay(f.pub)
		for part := range slices.Chunk(all, 50) {
			f.send(part...)
			r.Wake()
		}
		f.untilEmpty()
		want := strings.Trim(fmt.Sprint(slices.Collect(numbers(30))), "[]")
		for k := range 20 {
			f.expect("effects", f.effects(fmt.Sprintf("k%d", k)), want)
		}
		e := f.logs.FilterMessage("message").All()[0].ContextMap()
		if e["consumer"] != "c" || e["topic"] != "orders" || e["outcome"] != "handled" || e["trace_id"] != "trace-"+e["key"].(string) {
			f.Errorf("event %v", e)
		}
		if n := f.logs.FilterMessage("message").Len(); n < len(all) {
			f.Errorf("%d events", n)
		}
	})

	run("poison is parked with later messages of its key, other keys go on, a retry brings them back in order", func(f *fixture) {
		var poison atomic.Bool
		var tries atomic.Int32
		poison.Store(true)
		f.consume(f.sub, func(ctx context.Context, tx pgx.Tx, msgs []Message, _ bool) (Handled, error) {
			for _, m := range msgs {
				if string(m.Payload) == "bad" && poison.Load() {
					if len(msgs) == 1 {
						tries.Add(1)
					}
					return Handled{}, errors.New("cannot be handled\x00\xff")
				}
			}
			return effect(ctx, tx, msgs, false)
		})
		_, stop := f.relay(f.pub)
		f.send("p/bad", "p/1", "q/0", "r/0", "q/1", "p/2", "r/1")
		f.untilEmpty()
		f.expect("q", f.effects("q"), "0 1")
		f.expect("r", f.effects("r"), "0 1")
		f.expect("p", f.effects("p"), "")
		f.expect("parked", f.parked("p"), "bad 1 2")
		f.expect("causes", f.list(`SELECT cause FROM parked_messages ORDER BY id`),
			"cannot be handled?? behind a parked message behind a parked message")
		if tries.Load() != 5 {
			f.Errorf("%d tries", tries.Load())
		}
		if o := f.outcomes("p"); o[parked] != 3 {
			f.Errorf("outcomes %v", o)
		}
		rows, err := busdb.New(f.pool).ListParked(f.Context(), busdb.ListParkedParams{})
		if err != nil || len(rows) != 1 || rows[0].Consumer != "c" || rows[0].TraceID != "trace-p" || rows[0].Messages != 3 {
			f.Errorf("list: %v %v", rows, err)
		}

		stop()
		f.send("p/3", "q/2")
		poison.Store(false)
		if n, err := RetryParked(f.Context(), f.pool, []Queue{{"c", "p"}}, shardOf); n != 3 || err != nil {
			f.Fatal(n, err)
		}
		f.relay(f.pub)
		f.untilEmpty()
		f.expect("p", f.effects("p"), "bad 1 2 3")
		f.expect("q", f.effects("q"), "0 1 2")
		f.expect("parked", f.parked("p"), "")
	})

	run("a message that comes while its queue is retried waits for the retry and is not parked", func(f *fixture) {
		var poison atomic.Bool
		poison.Store(true)
		f.consume(f.sub, func(ctx context.Context, tx pgx.Tx, msgs []Message, _ bool) (Handled, error) {
			if poison.Load() {
				return Handled{}, errors.New("cannot be handled")
			}
			return effect(ctx, tx, msgs, false)
		})
		f.relay(f.pub)
		f.send("p/0", "p/1")
		f.untilEmpty()
		f.expect("parked", f.parked("p"), "0 1")
		poison.Store(false)
		queue := busdb.UnparkParams{Consumers: []string{"c"}, Keys: []string{"p"}, Shards: []int16{shardOf("p")}}
		if err := pg.InTx(f.Context(), f.pool, func(tx pgx.Tx) error { // what RetryParked does, between its statements
			q := busdb.New(tx)
			if err := q.LockQueues(f.Context(), busdb.LockQueuesParams{Consumers: queue.Consumers, Keys: queue.Keys}); err != nil {
				return err
			}
			f.send("p/2")
			f.until("the consumer waits for the retry", func() bool {
				return f.count(`SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'
					AND database IS NULL AND pid IN (SELECT pid FROM pg_stat_activity WHERE datname = current_database())`) > 0
			})
			_, err := q.Unpark(f.Context(), queue)
			return err
		}); err != nil {
			f.Fatal(err)
		}
		f.untilEmpty()
		f.expect("p", f.effects("p"), "0 1 2")
		f.expect("parked", f.parked("p"), "")
	})

	run("what waits behind a message that is dropped goes on by a retry, and the dropped one never comes", func(f *fixture) {
		f.consume(f.sub, func(ctx context.Context, tx pgx.Tx, msgs []Message, _ bool) (Handled, error) {
			for _, m := range msgs {
				if string(m.Payload) == "bad" {
					return Handled{}, errors.New("cannot be handled")
				}
			}
			return effect(ctx, tx, msgs, false)
		})
		f.relay(f.pub)
		bad := row("p", "bad")
		if err := write(f.pool, bad, row("p", "1"), row("p", "2")); err != nil {
			f.Fatal(err)
		}
		f.untilEmpty()
		if dropped, err := DropParked(f.Context(), f.pool, "another", bad.id); dropped || err != nil {
			f.Error("of another consumer:", dropped, err)
		}
		for _, want := range []bool{true, false} {
			if dropped, err := DropParked(f.Context(), f.pool, "c", bad.id); dropped != want || err != nil {
				f.Error(dropped, err)
			}
		}
		if err := write(f.pool, bad); err != nil { // it comes again
			f.Fatal(err)
		}
		f.untilEmpty()
		f.expect("parked", f.parked("p"), "1 2")
		for range 2 {
			if _, err := RetryParked(f.Context(), f.pool, []Queue{{"c", "p"}, {"c", "q"}}, shardOf); err != nil {
				f.Fatal(err)
			}
		}
		f.untilEmpty()
		f.expect("p", f.effects("p"), "1 2")
	})

	run("what Prepare cannot do is parked, what it cannot do now comes again", func(f *fixture) {
		var passing atomic.Int32
		f.background(func(ctx context.Context) {
			c := Consumer{Name: "c", Topic: "orders", Subscriber: f.sub, Pool: f.pool, Log: f.log, Prepare: func(_ context.Context, msgs []Message) error {
				for _, m := range msgs {
					switch string(m.Payload) {
					case "bad":
						return errors.New("not a notice")
					case "panic":
						panic("out of luck")
					case "away":
						if passing.Add(1) <= maxTries {
							return fmt.Errorf("%w: the cache is away", ErrTransient)
						}
					}
				}
				return nil
			}}
			if err := Consume(ctx, c); err != nil {
				f.Error(err)
			}
		})
		f.relay(f.pub)
		f.send("a/bad", "b/panic", "c/away", "d/0")
		f.untilEmpty()
		f.expect("a", f.parked("a"), "bad")
		f.expect("b", f.parked("b"), "panic")
		f.expect("c", f.parked("c"), "")
		if f.outcomes("c")[handled] != 1 || f.outcomes("d")[handled] != 1 {
			f.Errorf("outcomes %v, %v", f.outcomes("c"), f.outcomes("d"))
		}
	})

	run("a panic is parked, a torn payload too", func(f *fixture) {
		f.consume(f.sub, func(ctx context.Context, tx pgx.Tx, msgs []Message, _ bool) (Handled, error) {
			for _, m := range msgs {
				switch string(m.Payload) {
				case "panic":
					panic("out of luck")
				case "torn":
					return Handled{}, fmt.Errorf("decode: %w", io.ErrUnexpectedEOF)
				}
			}
			return effect(ctx, tx, msgs, false)
		})
		f.relay(f.pub)
		f.send("a/panic", "b/torn", "c/0")
		f.untilEmpty()
		f.expect("c", f.effects("c"), "0")
		if cause := f.list(`SELECT cause FROM parked_messages WHERE key = 'a'`); !strings.HasPrefix(cause, "panic: out of luck\ngoroutine") {
			f.Errorf("cause %q", cause)
		}
		f.expect("b", f.parked("b"), "torn")
	})

	run("a duplicate is dropped", func(f *fixture) {
		f.consume(f.sub, effect)
		f.relay(f.pub)
		o := row("a", "0")
		for range 3 {
			if err := write(f.pool, o, row("b", "0")); err != nil {
				f.Fatal(err)
			}
		}
		f.untilEmpty()
		f.expect("a", f.effects("a"), "0")
		f.expect("b", f.effects("b"), "0 0 0")
		if got := f.outcomes("a"); got[handled] != 1 || got[duplicate] != 2 {
			f.Errorf("outcomes %v", got)
		}
	})

	for name, fail := range map[string]func(ctx context.Context, tx pgx.Tx) error{
		"a lock_timeout": func(context.Context, pgx.Tx) error { return &pgconn.PgError{Code: "55P03"} },
		"a lost connection": func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `SELECT pg_terminate_backend(pg_backend_pid())`)
			return err
		},
		"an aborted COMMIT": func(ctx context.Context, tx pgx.Tx) error { return tx.Conn().PgConn().Conn().Close() },
	} {
		run(name+" is nacked and comes again, in order", func(f *fixture) {
			var tries atomic.Int32
			f.consume(f.sub, func(ctx context.Context, tx pgx.Tx, msgs []Message, _ bool) (Handled, error) {
				h, err := effect(ctx, tx, msgs, false)
				if slices.ContainsFunc(msgs, func(m Message) bool { return m.Key == "a" }) && tries.Add(1) <= 3 {
					err = fail(ctx, tx)
				}
				return h, err
			})
			f.relay(f.pub)
			f.send("a/0", "a/1", "b/0", "b/1")
			f.untilEmpty()
			f.expect("a", f.effects("a"), "0 1")
			f.expect("b", f.effects("b"), "0 1")
			if got := f.outcomes("a"); got[nacked] == 0 || got[parked] != 0 {
				f.Errorf("outcomes %v", got)
			}
		})
	}

	run("a message whose row is locked comes again at once, and delays no other", func(f *fixture) {
		f.exec("CREATE TABLE rows (key text PRIMARY KEY)")
		f.exec("INSERT INTO rows VALUES ('a'), ('b'), ('c')")
		holder, err := f.pool.Begin(f.Context())
		if err != nil {
			f.Fatal(err)
		}
		defer func() { _ = holder.Rollback(context.WithoutCancel(f.Context())) }()
		if _, err = holder.Exec(f.Context(), "SELECT FROM rows WHERE key = 'a' FOR UPDATE"); err != nil {
			f.Fatal(err)
		}
		var waited atomic.Int32
		f.consume(f.sub, func(ctx context.Context, tx pgx.Tx, msgs []Message, skipLocked bool) (h Handled, err error) {
			free := []Message{}
			for _, m := range msgs {
				if skipLocked {
					tag, err := tx.Exec(ctx, "SELECT FROM rows WHERE key = $1 FOR UPDATE SKIP LOCKED", m.Key)
					if err != nil {
						return h, err
					}
					if tag.RowsAffected() == 0 {
						h.Blocked = append(h.Blocked, m)
						continue
					}
				} else {
					waited.Add(1)
					if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '50ms'"); err != nil {
						return h, err
					}
					if _, err := tx.Exec(ctx, "SELECT FROM rows WHERE key = $1 FOR UPDATE", m.Key); err != nil {
						return h, err
					}
				}
				free = append(free, m)
			}
			_, err = effect(ctx, tx, free, false)
			return h, err
		})
		f.relay(f.pub)
		f.send("a/0", "b/0", "c/0", "a/1")
		f.until("the others", func() bool { return f.effects("b") == "0" && f.effects("c") == "0" })
		f.send("b/1")
		f.until("a later one", func() bool { return f.effects("b") == "0 1" })
		f.until("a second try", func() bool { return f.outcomes("a")[nacked] >= 2 })
		if n := f.count("SELECT count(*) FROM inbox"); f.effects("a") != "" || n != 3 {
			f.Errorf("effects of the blocked %q, %d inbox rows", f.effects("a"), n)
		}
		if err = holder.Rollback(f.Context()); err != nil {
			f.Fatal(err)
		}
		f.untilEmpty()
		f.expect("a", f.effects("a"), "0 1")
		if got := f.outcomes("a"); got[parked] != 0 || got[handled] != 2 {
			f.Errorf("outcomes %v", got)
		}
	})

	run("at the end a running handler commits and acks, and after runs once it is visible", func(f *fixture) {
		entered, leave, seen := make(chan struct{}), make(chan struct{}), make(chan int, 1)
		stop := f.consume(f.sub, func(ctx context.Context, tx pgx.Tx, msgs []Message, _ bool) (Handled, error) {
			close(entered)
			<-leave
			_, err := effect(ctx, tx, msgs, false)
			return Handled{After: func() { seen <- f.count(`SELECT count(*) FROM effects`); panic("late") }}, err
		})
		f.relay(f.pub)
		f.send("a/0")
		select {
		case <-entered:
		case <-time.After(deadline):
			f.Fatal("no message")
		}
		stopped := make(chan struct{})
		go func() { stop(); close(stopped) }()
		select {
		case <-stopped:
			f.Fatal("Consume left its handler")
		case <-time.After(20 * time.Millisecond): // cannot be waited for: that nothing happens
		}
		close(leave)
		<-stopped
		if <-seen != 1 {
			f.Error("after ran before COMMIT")
		}
		f.untilEmpty()
		if got := f.outcomes("a"); got[handled] != 1 || len(got) != 1 {
			f.Errorf("outcomes %v", got)
		}
	})
}

func numbers(n int) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	}
}

func TestConsumersOverLanes(t *testing.T) {
	testConsumers(t, func() transport { l := NewLanes(nil, zap.NewNop()); return transport{pub: l, sub: l} })
}

// channel is a Subscriber that hands over whatever is in it, also several messages of a key, as Kafka does.
type channel chan *message.Message

func (c channel) Subscribe(context.Context, string) (<-chan *message.Message, error) { return c, nil }
func (c channel) Close() error                                                       { return nil }

func TestConsumeManyOfAKey(t *testing.T) {
	f := setup(t, nil)
	in := make(channel, 200)
	page := numbered([]string{"a", "b", "c"}, 40)
	for _, m := range page {
		in <- m
	}
	var failures atomic.Int32
	f.consume(in, func(ctx context.Context, tx pgx.Tx, msgs []Message, _ bool) (Handled, error) {
		seen := map[string]bool{}
		for _, m := range msgs {
			if seen[m.Key] {
				f.Errorf("two messages of %s in a batch", m.Key)
			}
			seen[m.Key] = true
			if m.Key == "a" && failures.Add(1) <= 3 {
				return Handled{}, errors.New("not yet")
			}
		}
		return effect(ctx, tx, msgs, false)
	})
	for _, m := range page {
		select {
		case <-m.Acked():
		case <-time.After(deadline):
			f.Fatal("not acked")
		}
	}
	want := strings.Trim(fmt.Sprint(slices.Collect(numbers(40))), "[]")
	for _, k := range []string{"a", "b", "c"} {
		f.expect(k, f.effects(k), want)
	}
	first := f.list(`SELECT key FROM effects ORDER BY seq LIMIT 3`)
	if strings.Contains(first, "a") {
		f.Errorf("the other keys waited: %s", first)
	}
}

func TestConsumeStops(t *testing.T) {
	f := setup(t, nil)
	in := make(channel, 2)
	page := numbered([]string{"a"}, 2)
	in <- page[0]
	in <- page[1]
	tried := make(chan struct{}, maxTries)
	stop := f.consume(in, func(context.Context, pgx.Tx, []Message, bool) (Handled, error) {
		tried <- struct{}{}
		return Handled{}, errors.New("never")
	})
	<-tried
	stop()
	for _, m := range page {
		select {
		case <-m.Nacked():
		case <-time.After(deadline):
			t.Error("what was not handled is not nacked")
		}
	}
	f.expect("parked", f.parked("a"), "")
}

// publisher is a Publisher that is a function.
type publisher func(topic string, msgs []*message.Message) error

func (p publisher) Publish(topic string, msgs ...*message.Message) error { return p(topic, msgs) }
func (p publisher) Close() error                                         { return nil }

func TestRelay(t *testing.T) {
	run := func(name string, test func(f *fixture)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(setup(t, nil))
		})
	}
	// record is a publisher that records payloads by key.
	record := func() (publisher, func(key string) string) {
		var mu sync.Mutex
		byKey := map[string][]string{}
		return func(_ string, msgs []*message.Message) error {
				mu.Lock()
				defer mu.Unlock()
				for _, m := range msgs {
					key := m.Metadata.Get(MetaKey)
					byKey[key] = append(byKey[key], string(m.Payload))
				}
				return nil
			}, func(key string) string {
				mu.Lock()
				defer mu.Unlock()
				return strings.Join(byKey[key], " ")
			}
	}

	run("two relays publish each row once and keep the order of each key", func(f *fixture) {
		pub, got := record()
		a, _ := f.relay(pub)
		b, _ := f.relay(pub)
		for i := range 60 {
			var msgs []string
			for k := range 100 {
				msgs = append(msgs, fmt.Sprintf("k%d/%d", k, i))
			}
			f.send(msgs...)
			a.Wake()
			b.Wake()
		}
		f.untilEmpty()
		want := strings.Trim(fmt.Sprint(slices.Collect(numbers(60))), "[]")
		for k := range 100 {
			f.expect("published", got("k"+strconv.Itoa(k)), want)
		}
	})

	run("a relay that dies between publish and delete loses nothing", func(f *fixture) {
		publish, got := record()
		var killed atomic.Bool
		pub := publisher(func(topic string, msgs []*message.Message) error {
			err := publish(topic, msgs)
			if killed.CompareAndSwap(false, true) {
				f.exec(`SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = $1
					AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`, shardClass)
			}
			return err
		})
		f.send("a/0", "a/1", "b/0")
		f.relay(pub)
		f.untilEmpty()
		f.expect("a", got("a"), "0 1 0 1")
		f.expect("b", got("b"), "0 0")
		if f.logs.FilterMessage("outbox page failed").Len() != 1 {
			f.Error("not logged once")
		}
	})

	run("a relay that is stopped while it publishes finishes its page", func(f *fixture) {
		entered, leave := make(chan struct{}), make(chan struct{})
		publish, got := record()
		_, stop := f.relay(publisher(func(topic string, msgs []*message.Message) error {
			close(entered)
			<-leave
			return publish(topic, msgs)
		}))
		f.send("a/0", "a/1")
		<-entered
		stopped := make(chan struct{})
		go func() { stop(); close(stopped) }()
		close(leave)
		<-stopped
		f.expect("a", got("a"), "0 1")
		if n := f.count(`SELECT count(*) FROM outbox`); n != 0 {
			f.Errorf("%d rows left", n)
		}
	})

	run("a row that commits late, with a lower id, is not skipped", func(f *fixture) {
		pub, got := record()
		tx, err := f.pool.Begin(f.Context())
		if err != nil {
			f.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.WithoutCancel(f.Context())) }()
		if err = write(tx, row("late", "0")); err != nil {
			f.Fatal(err)
		}
		f.send("early/0")
		f.relay(pub)
		f.until("the later row is published", func() bool { return got("early") == "0" })
		f.untilEmpty()
		f.expect("late", got("late"), "")
		if err = tx.Commit(f.Context()); err != nil {
			f.Fatal(err)
		}
		f.until("the late row is published", func() bool { return got("late") == "0" })
	})

	run("a key that fails holds up no other and is not asked without end", func(f *fixture) {
		publish, got := record()
		var tries atomic.Int32
		var tried time.Time
		r, _ := f.relay(publisher(func(topic string, msgs []*message.Message) error {
			e := &PublishError{Err: ErrNacked}
			for _, m := range msgs {
				if m.Metadata.Get(MetaKey) == "bad" {
					e.Failed = append(e.Failed, m.UUID)
				} else if err := publish(topic, []*message.Message{m}); err != nil {
					return err
				}
			}
			if e.Failed == nil {
				return nil
			}
			if tries.Add(1) > 1 && time.Since(tried) < minDelay {
				f.Errorf("the bad key is published again after %v", time.Since(tried))
			}
			tried = time.Now()
			return e
		}))
		f.send("bad/0", "bad/1")
		start := time.Now()
		for i := range 100 {
			f.send(fmt.Sprintf("good/%d", i))
			r.Wake()
			f.until("the good one is published", func() bool { return strings.HasSuffix(got("good"), strconv.Itoa(i)) })
		}
		f.until("the bad key is published again", func() bool { return tries.Load() > 1 })
		f.until("only the bad ones are left", func() bool { return f.count(`SELECT count(*) FROM outbox`) == 2 })
		f.until("the age is theirs", func() bool { return r.Age() >= time.Since(start) })
	})

	run("a topic that fails altogether holds up no other", func(f *fixture) {
		publish, got := record()
		var pages atomic.Int32
		var failed time.Time
		r, _ := f.relay(publisher(func(topic string, msgs []*message.Message) error {
			if topic == "orders" {
				if pages.Add(1) > 1 && time.Since(failed) < minDelay {
					f.Errorf("the topic is published again after %v", time.Since(failed))
				}
				failed = time.Now()
				return ErrNoSubscriber
			}
			return publish(topic, msgs)
		}))
		var stuck []string
		for i := range 5000 {
			stuck = append(stuck, fmt.Sprintf("k%d/0", i))
		}
		f.send(stuck...)
		r.Wake()
		f.until("a page has failed", func() bool { return pages.Load() > 0 })
		for i := range 50 {
			o := row("saga", strconv.Itoa(i))
			o.topic = "replies"
			if err := write(f.pool, o); err != nil {
				f.Fatal(err)
			}
			r.Wake()
			f.until("the other topic goes on", func() bool { return strings.HasSuffix(got("saga"), strconv.Itoa(i)) })
		}
	})

	run("what fails stays until it is published, and Publish gets no longer than its limit", func(f *fixture) {
		l := NewLanes(nil, zap.NewNop())
		r, _ := f.relay(publisher(func(topic string, msgs []*message.Message) error {
			if d, ok := msgs[0].Context().Deadline(); !ok || time.Until(d) > publishLimit {
				f.Error("no limit")
			}
			return l.Publish(topic, msgs...)
		}))
		f.send("a/0", "a/1")
		f.until("a page has failed", func() bool { return f.logs.FilterMessage("not published").Len() > 0 })
		f.until("the outbox ages", func() bool { return r.Age() > 0 })
		f.consume(l, effect)
		f.untilEmpty()
		f.expect("a", f.effects("a"), "0 1")
		f.until("the age is gone", func() bool { return r.Age() == 0 })
	})

	run("Wake is enough", func(f *fixture) {
		pub, got := record()
		r := NewRelay(RelayConfig{Pool: f.pool, Publisher: pub, Log: f.log, Poll: time.Hour})
		f.background(r.Run)
		f.until("the relay waits", func() bool { return f.pool.Stat().AcquireCount() > 1 && f.pool.Stat().AcquiredConns() == 0 })
		f.send("a/0")
		r.Wake()
		f.untilEmpty()
		f.expect("a", got("a"), "0")
	})

	run("Send keeps the order of its messages in the ids", func(f *fixture) {
		var msgs []string
		for i := range 2000 {
			msgs = append(msgs, fmt.Sprintf("k%d/%d", i%7, i))
		}
		f.send(msgs...)
		f.expect("payloads", f.list(`SELECT payload FROM outbox ORDER BY id`), strings.Trim(fmt.Sprint(slices.Collect(numbers(2000))), "[]"))
	})
}

// BenchmarkHop measures a hop of the saga: insert into the outbox, Wake, relay, lanes, inbox, handler with one insert, COMMIT.
func BenchmarkHop(b *testing.B) {
	l := NewLanes(nil, zap.NewNop())
	f := setup(b, func() transport { return transport{pub: l, sub: l} })
	done := make(chan struct{}, 1)
	f.consume(l, func(ctx context.Context, tx pgx.Tx, msgs []Message, _ bool) (Handled, error) {
		_, err := effect(ctx, tx, msgs, false)
		return Handled{After: func() { done <- struct{}{} }}, err
	})
	r, _ := f.relay(l)
	var took []time.Duration
	b.ResetTimer()
	for i := range b.N {
		f.send("k" + strconv.Itoa(i%100) + "/x")
		start := time.Now()
		r.Wake()
		<-done
		took = append(took, time.Since(start))
	}
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
}

// BenchmarkDrain measures how fast a full outbox is handled, the handler writing one row per message in one statement.
func BenchmarkDrain(b *testing.B) {
	l := NewLanes(nil, zap.NewNop())
	f := setup(b, func() transport { return transport{pub: l, sub: l} })
	for from := 0; from < b.N; from += 1000 {
		var msgs []string
		for i := from; i < min(from+1000, b.N); i++ {
			msgs = append(msgs, fmt.Sprintf("k%d/%d", i%5000, i))
		}
		f.send(msgs...)
	}
	f.consume(l, func(ctx context.Context, tx pgx.Tx, msgs []Message, _ bool) (Handled, error) {
		keys, payloads := make([]string, len(msgs)), make([]string, len(msgs))
		for i, m := range msgs {
			keys[i], payloads[i] = m.Key, string(m.Payload)
		}
		_, err := tx.Exec(ctx, `INSERT INTO effects (consumer, key, payload) SELECT 'c', unnest($1::text[]), unnest($2::text[])`, keys, payloads)
		return Handled{}, err
	})
	b.ResetTimer()
	f.relay(l)
	f.untilEmpty()
	b.StopTimer()
	if n := f.count(`SELECT count(*) FROM effects`); n != b.N {
		b.Errorf("%d of %d", n, b.N)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}

// TestThePurgeForgetsNoMessageThatMayComeAgain: a parked message may be retried after a week. Without its inbox row a consumer that handled it
// would do so twice.
func TestThePurgeForgetsNoMessageThatMayComeAgain(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	if _, err := db.Pool.Exec(t.Context(), `WITH m AS (
			SELECT what, (left(uuidv7_lower_bound(now() - age)::text, -12) || lpad(n::text, 12, '0'))::uuid AS id
			FROM (VALUES (1, 'young', interval '6 days'), (2, 'old', '8 days'), (3, 'retried', '8 days'), (4, 'parked', '8 days')) v (n, what, age)
		), i AS (INSERT INTO inbox SELECT what, id FROM m
		), o AS (INSERT INTO outbox (shard, topic, key, message_id, trace_id, payload) SELECT 1, 't', 'k', id, '', '' FROM m WHERE what = 'retried')
		INSERT INTO parked_messages (consumer, topic, key, message_id, trace_id, payload, cause) SELECT 'c', 't', 'k', id, '', '', '' FROM m WHERE what = 'parked'`); err != nil {
		t.Fatal(err)
	}
	purged, err := busdb.New(db.Pool).PurgeInbox(t.Context())
	var kept string
	if err = errors.Join(err, db.Pool.QueryRow(t.Context(), "SELECT string_agg(consumer, ' ' ORDER BY consumer) FROM inbox").Scan(&kept)); err != nil || purged != 1 || kept != "parked retried young" {
		t.Errorf("%d are deleted, %s are kept: %v", purged, kept, err)
	}
}
