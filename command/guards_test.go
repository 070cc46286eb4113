package command

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/ordergate/ordergate/internal/guard"
	"github.com/ordergate/ordergate/internal/panics"
	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/order"
)

// mine panics where it is armed: at a statement, by its number, or at a span, by its name.
type mine struct {
	noop.Tracer

	span       string
	statements atomic.Int64 // that are let through before it; below 0: all are
}

func (m *mine) step() {
	if m.statements.Add(-1) == -1 {
		panic("a mine")
	}
}

func (m *mine) Start(ctx context.Context, name string, o ...trace.SpanStartOption) (context.Context, trace.Span) {
	if name == m.span {
		panic("a mine")
	}
	return m.Tracer.Start(ctx, name, o...)
}

func (m *mine) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	m.step()
	return ctx
}

func (m *mine) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (m *mine) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	m.step()
	return ctx
}

func (m *mine) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) { m.step() }

func (m *mine) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// mined is a bundle whose statements and spans go through a mine.
func mined(t *testing.T) (*bundle, *mine) {
	t.Helper()
	db := pgtest.New(t)
	m := &mine{}
	m.statements.Store(-1)
	config := connect(t, db.PrimaryURL).Config()
	config.ConnConfig.Tracer = m
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	b := setup(t, pool, db)
	registry := prometheus.NewRegistry()
	c := b.cfg
	c.Tracer, c.Registry, c.Admission = m, registry, guard.NewAdmission(registry)
	b.Commands = New(c)
	return b, m
}

// idle fails unless everything that commands hold while they run is free again, soon: a broken connection is closed beside.
func (b *bundle) idle(when string) {
	b.t.Helper()
	var held string
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); <-time.After(time.Millisecond) {
		if held = b.held(); held == "" {
			return
		}
	}
	b.t.Error(when, ": ", held)
}

// held is what commands hold; empty: nothing.
func (b *bundle) held() (all string) {
	say := func(what string, n int) {
		if n != 0 {
			all += fmt.Sprintf("%d %s; ", n, what)
		}
	}
	say("permits of the guard", int(b.gauge("ordergate_guard_permits_in_use")))
	say("places of the admission", int(b.gauge("ordergate_admission_running")))
	say("commands wait, by the metric", int(b.gauge("ordergate_commands_waiting")))
	say("calls are alone", len(b.Commands.alone))
	say("calls look up", len(b.lookups))
	say("connections", int(b.cfg.Pool.Stat().AcquiredConns()))
	q := b.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	say("batches", q.batches)
	say("calls wait", len(q.waiting))
	say("names are busy", len(q.busy))
	say("names wait", len(q.named))
	return all
}

func (b *bundle) gauge(name string) float64 {
	b.t.Helper()
	families, err := b.cfg.Registry.(prometheus.Gatherer).Gather()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	b.t.Fatal("there is no metric ", name)
	return 0
}

// After a hundred panics, wherever they were, nothing is counted as running and commands go on.
func TestAPanicHoldsNothing(t *testing.T) {
	t.Parallel()
	b, m := mined(t)
	placed := b.placed()
	for name, c := range map[string]struct {
		span string
		op   operation
	}{
		"in decide":                {op: buggy{adjust("B", 1)}},
		"after decide":             {op: unwritable{b.place("A").(placeOrder)}},
		"before the transaction":   {op: adjust("B", 1), span: "batch"},
		"before the queue":         {op: adjust("B", 1), span: "command test"},
		"in what the call needs":   {op: needy{adjust("B", 1)}},
		"at a statement, at any":   {op: adjust("B", 1)},
		"at a statement, of order": {op: cancelOrder{ref: placed}},
	} {
		m.span = c.span
		armed := int64(0)
		for n := range 100 {
			if strings.HasPrefix(name, "at a statement") {
				armed = int64(n % 10)
				m.statements.Store(armed)
			}
			e := Envelope{Owner: alice, Operation: "test", Key: fmt.Sprintf("%s-%d", strings.ReplaceAll(name, " ", "-"), n), Actor: "key_1"}
			err := panics.Catch(func() error { _, err := b.execute(t.Context(), e, n, c.op); return err }) // as the edge does
			if m.statements.Load() < 0 && !errors.Is(err, panics.ErrPanic) && armed < 4 {
				t.Fatal(name, armed, err)
			}
			m.statements.Store(-1)
		}
		m.span = ""
		b.guard.CloseBreaker()
		b.idle(name)
		var together []*call
		for range 3 * maxBatch {
			together = append(together, b.call("placeOrder", b.place("A")))
		}
		b.executeAll(together...)
		if ends := ends(together); strings.Trim(ends, "20, ") != "" {
			t.Error(name, ends)
		}
		b.idle("afterwards")
	}
}

// needy is an operation that panics when it tells what it needs.
type needy struct{ adjustInventory }

func (needy) needs() needs { panic("a bug") }

// While the primary's breaker is open commands are refused at once: no connection is taken, none is made, and nothing waits.
func TestAnOpenBreakerCostsNoRoundTrip(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	proxy, pool := db.BehindProxy(t)
	b := setup(t, pool, db)
	placed := b.placed()
	proxy.Cut()
	for n := 0; !b.guard.Open(); n++ {
		if c := b.call("adjust", adjust("B", 1)); n < 30 {
			b.queue.do(t.Context(), c)
		} else {
			t.Fatal("the breaker is closed after 30 failures")
		}
	}
	before := pool.Stat()
	b.queue.mu.Lock()
	b.queue.batches = maxBatches // they hang
	b.queue.mu.Unlock()
	refused := map[string]int{}
	for n := range 1000 {
		op := b.place("A")
		if n%2 == 0 {
			op = cancelOrder{ref: placed}
		}
		e := Envelope{Owner: alice, Operation: "test", Key: fmt.Sprint("while-it-is-open-", n), Actor: "key_1"}
		_, err := b.execute(t.Context(), e, n, op)
		if refused[got(&call{err: err, done: true})]++; refused["SYS_002"] <= n {
			break
		}
	}
	after := pool.Stat()
	if refused["SYS_002"] != 1000 {
		t.Error(refused)
	}
	if taken, made := after.AcquireCount()-before.AcquireCount(), after.NewConnsCount()-before.NewConnsCount(); taken > 0 || made > 0 {
		t.Errorf("%d connections were taken, %d made", taken, made)
	}
	if empty := after.EmptyAcquireCount() - before.EmptyAcquireCount(); empty > 0 {
		t.Errorf("%d waited for a connection", empty)
	}
}

// A command that waits alone for a row has no place among those that an overload is made of, however many they are, nor has one that has ended.
func TestARowThatIsHeldIsNoOverload(t *testing.T) {
	t.Parallel()
	b, _ := mined(t)
	placed := b.placed()
	free := b.hold("SELECT FROM orders WHERE id = $1 FOR UPDATE", pgtestID(placed.ID))
	done := make(chan error)
	go func() {
		_, err := b.execute(t.Context(), Envelope{Owner: alice, Operation: "cancelOrder", Key: "held", Actor: "key_1"}, nil, cancelOrder{ref: placed})
		done <- err
	}()
	const waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
	for end := time.Now().Add(10 * time.Second); b.count(waiting) == 0 || b.gauge("ordergate_admission_running") > 0; {
		if time.Now().After(end) {
			t.Fatalf("%d wait, %v have places", b.count(waiting), b.gauge("ordergate_admission_running"))
		}
	}
	free()
	if err := <-done; err != nil {
		t.Error(err)
	}
	b.idle("in the end")
}

// A saga whose row is gone is not moved on: its order stays as it is, and the key is free.
func TestASagaThatIsGone(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	placed := b.placed()
	before := b.count("SELECT version FROM orders")
	if _, err := db.Pool.Exec(t.Context(), "CREATE TABLE kept AS TABLE sagas"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Pool.Exec(t.Context(), "DELETE FROM sagas"); err != nil {
		t.Fatal(err)
	}
	plan := replan{placed}
	one := b.call("payOrder", plan)
	if b.executeAll(one); got(one) != "SYS_002" || b.count("SELECT version FROM orders") != before {
		t.Error(got(one), one.err)
	}
	if _, err := db.Pool.Exec(t.Context(), "INSERT INTO sagas TABLE kept"); err != nil {
		t.Fatal(err)
	}
	again := b.call("payOrder", plan, one.Key)
	if b.executeAll(again); got(again) != "202" {
		t.Error(got(again), again.err)
	}
}

// replan plans the steps of another payment of an order, and changes nothing else.
type replan struct{ of order.Ref }

func (r replan) needs() needs { return needs{orders: []order.Ref{r.of}} }

func (r replan) decide(l *loaded, _ order.Recorder) (effect, error) {
	o := l.orders[r.of]
	o.steps.planPayment("pm_ok").set(statusRunning, "")
	return o.accepted()
}

// However much fails, only a share is tried again. The others end as after their last try, and their keys are free.
func TestRetriesHaveABudget(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	placed := b.placed()
	const commands = 150
	decided, begin := 0, time.Now()
	for n := range commands {
		op := &conflicting{cancelOrder: cancelOrder{ref: placed}, times: 100}
		one := b.call("cancelOrder", op, fmt.Sprint("under-a-key-", n))
		b.executeAll(one)
		if decided += 100 - op.times; got(one) != "SYS_002" {
			t.Fatal(n, got(one), one.err)
		}
	}
	earned := float64(retryLeast) + retryShare*(commands+1)
	if retries := decided - commands; float64(retries) < earned-1 || float64(retries) > earned+float64(retryLeast)*time.Since(begin).Seconds()/10 {
		t.Errorf("%d commands were tried again %d times", commands, retries)
	}
	if n := b.count("SELECT count(*) FROM idempotency_keys WHERE key LIKE 'under-a-key-%'"); n != 0 {
		t.Errorf("%d keys are taken", n)
	}
	again := b.call("cancelOrder", cancelOrder{ref: placed}, "under-a-key-0")
	if b.executeAll(again); got(again) != "202" {
		t.Error(got(again), again.err)
	}
}

// A batch of which one command cannot be stored is tried one by one, whatever is left of the budget.
func TestTheBudgetDoesNotCountWhatFindsABadCommand(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	for b.retries.Spend(1) { // until nothing is left
	}
	const neighbours = 9 // few, so that all of them have their turn on a busy machine
	for range 20 {
		calls := []*call{b.call("adjust", poison{adjust("B", 1)})}
		for range neighbours {
			calls = append(calls, b.call("placeOrder", b.place("A")))
		}
		b.executeAll(calls...)
		if got := ends(calls); got != "SYS_001"+strings.Repeat(", 202", neighbours) {
			t.Error(got)
		}
	}
}
