package payment

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/devstack"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/internal/psp"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/order/pay"
	"github.com/ordergate/ordergate/sql"
)

// swept is a payment context on a database and a simulator of its own.
type swept struct {
	*Payment
	t        *testing.T
	pool     *pgxpool.Pool
	psp      *httptest.Server
	registry *prometheus.Registry
	logs     *observer.ObservedLogs
}

func sweeping(t *testing.T, pool *pgxpool.Pool) *swept {
	t.Helper()
	simulator, err := psp.New(psp.Config{Dir: t.TempDir(), Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	s := &swept{t: t, pool: pool, psp: httptest.NewServer(simulator.Handler()), registry: prometheus.NewRegistry()}
	t.Cleanup(func() { s.psp.Close(); _ = simulator.Close() })
	s.Payment = s.process(pool)
	return s
}

// process is another process of the same installation.
func (s *swept) process(pool *pgxpool.Pool) *Payment {
	s.t.Helper()
	core, logs := observer.New(zap.WarnLevel)
	s.logs = logs
	p, err := New(Config{Pool: pool, IDs: ids, Now: time.Now, ProviderURL: s.psp.URL, Deadline: time.Minute, Wake: func() {}, Log: zap.New(core)})
	s.must(err)
	return p
}

func (s *swept) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *swept) exec(sql string, args ...any) {
	s.t.Helper()
	_, err := s.pool.Exec(s.t.Context(), sql, args...)
	s.must(err)
}

// payment opens a payment of 500 and gives it a status and definite calls.
func (s *swept) payment(status pay.Status) order.ID {
	s.t.Helper()
	of := order.Ref{Owner: alice, ID: ids.Mint(time.Now(), 1)}
	rec := s.recorder(1, "trace", "test", "test")
	p, ch := Start(of, 1, order.Money{Amount: 500, Currency: "EUR"}, "pm_ok", rec)
	id := p.ID
	s.must(pg.InTx(s.t.Context(), s.pool, func(tx pgx.Tx) error { return ch.Write(s.t.Context(), tx, time.Minute) }))
	events := map[pay.Status]pay.Data{pay.StatusAuthorized: pay.Authorized{}, pay.StatusCaptured: pay.Captured{}, pay.StatusVoided: pay.Voided{}, pay.StatusFailed: pay.Failed{Code: "PAY_006"}}
	if status == pay.StatusPending {
		return id
	}
	ch = Changes{Payments: []*pay.Payment{p}, Events: []order.ResourceEvent{p.Record(rec, events[status])}}
	s.must(pg.InTx(s.t.Context(), s.pool, func(tx pgx.Tx) error { return ch.Write(s.t.Context(), tx, 0) }))
	s.exec("UPDATE payment_calls SET next_at = NULL, method_token = '', tries = 1 WHERE subject = $1", [16]byte(id))
	return id
}

// at does operations at the provider: "authorize", or "refund 200" of a part.
func (s *swept) at(payment string, operations ...string) {
	s.t.Helper()
	for _, text := range operations {
		name, amount := text, int64(500)
		_, _ = fmt.Sscanf(text, "%s %d", &name, &amount)
		if o, err := s.provider.do(s.t.Context(), payment+"-"+name, Operation(name), payment, order.Money{Amount: amount, Currency: "EUR"}, "pm_ok"); err != nil || o.Code != "" {
			s.t.Fatal(text, o, err)
		}
	}
}

// sweeps are the operations of the sweep that the provider has, by their keys without the payment.
func (s *swept) sweeps() map[string][]string {
	s.t.Helper()
	found := map[string][]string{}
	for after, more := int64(0), true; more; {
		entries, next, err := s.provider.ledger(s.t.Context(), nil, after)
		s.must(err)
		for _, e := range entries {
			if payment, key, is := strings.Cut(e.Key, "-sweep-"); is {
				found[payment] = append(found[payment], key+" "+string(e.Status))
			}
		}
		if more = next != nil; more {
			after = *next
		}
	}
	return found
}

func (s *swept) position() (position int64) {
	s.t.Helper()
	s.must(s.pool.QueryRow(s.t.Context(), "SELECT position FROM ledger_sweeps").Scan(&position))
	return position
}

// due makes the next sweep due, which begins anew.
func (s *swept) due() { s.exec("UPDATE ledger_sweeps SET next_at = now(), position = 0") }

// TestEachOrphanIsSweptOnce: money at the provider that nobody here will move is taken back, by two processes that sweep at once, and again
// and again. Everything else is left alone.
func TestEachOrphanIsSweptOnce(t *testing.T) {
	t.Parallel()
	s := sweeping(t, pgtest.New(t).Pool)
	unknown := func() string { return ids.Mint(time.Now(), 1).Format(order.PrefixPayment) }
	want := map[string][]string{}
	for _, c := range []struct {
		payment string
		at, key string // what the provider has; the sweep's operation
	}{
		{unknown(), "authorize", "void"},
		{unknown(), "authorize,capture", "refund-500"},
		{unknown(), "authorize,capture,refund 200", "refund-300"},
		{unknown(), "authorize,void", ""},
		{unknown(), "authorize,capture,refund", ""},
		{s.payment(pay.StatusFailed).Format(order.PrefixPayment), "authorize", "void"},
		{s.payment(pay.StatusFailed).Format(order.PrefixPayment), "authorize,capture", "refund-500"},
		{s.payment(pay.StatusVoided).Format(order.PrefixPayment), "authorize", "void"},
		{s.payment(pay.StatusVoided).Format(order.PrefixPayment), "authorize,void", ""},
		{s.payment(pay.StatusCaptured).Format(order.PrefixPayment), "authorize,capture", ""},
		{s.payment(pay.StatusAuthorized).Format(order.PrefixPayment), "authorize", ""},
		{s.payment(pay.StatusPending).Format(order.PrefixPayment), "authorize", ""},
		{order.NewIDs([]byte("another")).Mint(time.Now(), 1).Format(order.PrefixPayment), "authorize,capture", ""},
		{"somebody-elses", "authorize,capture", ""},
	} {
		s.at(c.payment, strings.Split(c.at, ",")...)
		if c.key != "" {
			want[c.payment] = []string{c.key + " succeeded"}
		}
	}
	processes := []*Payment{s.Payment, s.process(s.pool)}
	for range 3 {
		var both sync.WaitGroup
		for _, p := range processes {
			both.Go(func() {
				if err := p.sweepLedger(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		if got := s.sweeps(); !maps.EqualFunc(got, want, slices.Equal) {
			t.Fatalf("the provider has %v, want %v", got, want)
		}
		s.due()
	}
}

// TestAWorkerThatClaimsTheSweepIsNoFailure: another worker has it, whether it is due or not, and the next poll asks again.
func TestAWorkerThatClaimsTheSweepIsNoFailure(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	s := sweeping(t, db.Pool)
	worker, err := pg.Connect(t.Context(), db.PrimaryURL, 2, pg.WorkerSession, nil)
	s.must(err)
	defer worker.Close()
	s.Payment = s.process(worker)
	payment := s.payment(pay.StatusFailed).Format(order.PrefixPayment)
	s.must(s.sweepLedger(t.Context()))
	s.at(payment, "authorize")
	for _, due := range []string{"1 minute", "0"} {
		s.exec("UPDATE ledger_sweeps SET next_at = now() + $1::text::interval", due)
		other, err := s.pool.Begin(t.Context())
		s.must(err)
		_, err = other.Exec(t.Context(), "SELECT FROM ledger_sweeps FOR UPDATE")
		s.must(err)
		if err = s.sweepLedger(t.Context()); err != nil || len(s.sweeps()) > 0 {
			t.Errorf("due in %s: %v, swept %v", due, err, s.sweeps())
		}
		s.must(other.Rollback(t.Context()))
	}
	if s.must(s.sweepLedger(t.Context())); len(s.sweeps()[payment]) != 1 {
		t.Errorf("swept %v", s.sweeps())
	}
}

// TestAPaymentWhoseRowIsGoneIsNoOrphan: its events tell that it is ours. Nothing is taken back before `ordergate replay` has made the row
// anew; then it is judged like any other.
func TestAPaymentWhoseRowIsGoneIsNoOrphan(t *testing.T) {
	t.Parallel()
	s := sweeping(t, pgtest.New(t).Pool)
	captured, failed := s.payment(pay.StatusCaptured).Format(order.PrefixPayment), s.payment(pay.StatusFailed).Format(order.PrefixPayment)
	s.at(captured, "authorize", "capture")
	s.at(failed, "authorize")
	s.exec("CREATE TABLE kept AS TABLE payments")
	s.exec("DELETE FROM payments")
	s.due()
	s.must(s.sweepLedger(t.Context()))
	if got := s.sweeps(); len(got) != 0 {
		t.Errorf("taken back although the rows were gone: %v", got)
	}
	s.exec("INSERT INTO payments TABLE kept")
	s.due()
	s.must(s.sweepLedger(t.Context()))
	if got := s.sweeps(); len(got) != 1 || len(got[failed]) != 1 {
		t.Errorf("taken back: %v", got)
	}
}

// TestAnOrphanIsCountedAndLogged: an operator sees what was taken back, and that the payment's row stays as it was.
func TestAnOrphanIsCountedAndLogged(t *testing.T) {
	t.Parallel()
	s := sweeping(t, pgtest.New(t).Pool)
	core, logs := observer.New(zap.InfoLevel)
	p, err := New(Config{Pool: s.pool, IDs: ids, Now: time.Now, ProviderURL: s.psp.URL, Log: zap.New(core), Registry: s.registry})
	s.must(err)
	failed := s.payment(pay.StatusFailed)
	s.at(failed.Format(order.PrefixPayment), "authorize", "capture")
	s.must(p.sweepLedger(t.Context()))
	entry := logs.FilterMessage("orphan").All()
	if len(entry) != 1 || entry[0].ContextMap()["payment_id"] != failed.Format(order.PrefixPayment) || entry[0].ContextMap()["payment_status"] != "failed" || entry[0].ContextMap()["result"] != "done" {
		t.Errorf("logged: %v", entry)
	}
	families, err := s.registry.Gather()
	s.must(err)
	counted := 0.0
	for _, f := range families {
		if f.GetName() == "ordergate_orphans_total" {
			counted = f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	var status string
	var version int64
	s.must(s.pool.QueryRow(t.Context(), "SELECT status, version FROM payments WHERE id = $1", [16]byte(failed)).Scan(&status, &version))
	if counted != 1 || status != "failed" || version != 2 {
		t.Errorf("counted %v; the payment is %s, version %d", counted, status, version)
	}
}

// TestACallWithoutAnOutcomeIsNoOrphan: while a call is open nothing is judged, and the ledger's position waits for it. Once its outcome
// leaves money behind, that is swept.
func TestACallWithoutAnOutcomeIsNoOrphan(t *testing.T) {
	t.Parallel()
	s := sweeping(t, pgtest.New(t).Pool)
	captured, id := s.payment(pay.StatusCaptured).Format(order.PrefixPayment), s.payment(pay.StatusFailed)
	payment := id.Format(order.PrefixPayment)
	s.at(captured, "authorize", "capture")
	s.at(payment, "authorize")
	s.at(s.payment(pay.StatusCaptured).Format(order.PrefixPayment), "authorize", "capture")
	s.exec("UPDATE payment_calls SET next_at = now() + interval '20 seconds', in_doubt = true WHERE subject = $1", [16]byte(id))
	s.must(s.sweepLedger(t.Context()))
	if got := s.sweeps(); len(got) > 0 || s.position() != 2 {
		t.Errorf("swept %v, and the position is %d", got, s.position())
	}
	s.exec("UPDATE payment_calls SET next_at = NULL, method_token = '', in_doubt = false WHERE subject = $1", [16]byte(id))
	s.exec("UPDATE ledger_sweeps SET next_at = now()")
	s.must(s.sweepLedger(t.Context()))
	if got := s.sweeps(); !slices.Equal(got[payment], []string{"void succeeded"}) || s.position() != 5 {
		t.Errorf("swept %v, and the position is %d", got, s.position())
	}
}

// TestAVoidThatACaptureStandsAgainstEnds: a failover lost that the payment was captured, and its order was cancelled. The provider refuses
// the void until the sweep has refunded the capture; then the void is done.
func TestAVoidThatACaptureStandsAgainstEnds(t *testing.T) {
	t.Parallel()
	s := sweeping(t, pgtest.New(t).Pool)
	id := s.payment(pay.StatusAuthorized)
	payment := id.Format(order.PrefixPayment)
	s.at(payment, "authorize", "capture")
	ref := order.Ref{Owner: alice, ID: id}
	s.must(pg.InTx(t.Context(), s.pool, func(tx pgx.Tx) error {
		found, err := lock(t.Context(), tx, ref)
		if err != nil {
			return err
		}
		ch := Request(found[ref].Payment, Void, "trace")
		return ch.Write(t.Context(), tx, 0)
	}))
	ctx, stop := context.WithCancel(t.Context())
	var working sync.WaitGroup
	working.Go(func() { s.Run(ctx) })
	working.Go(func() { s.Sweep(ctx) })
	defer func() { stop(); working.Wait() }()
	for end, tick := time.Now().Add(20*time.Second), time.Tick(20*time.Millisecond); ; <-tick {
		var status string
		s.must(s.pool.QueryRow(t.Context(), "SELECT status FROM payments WHERE id = $1", [16]byte(id)).Scan(&status))
		if status == "voided" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the payment is %s", status)
		}
		s.exec("UPDATE ledger_sweeps SET next_at = now() WHERE next_at > now() + interval '31 seconds'") // not that of a running one
	}
	if got := s.sweeps()[payment]; !slices.Equal(got, []string{"refund-500 succeeded"}) {
		t.Errorf("swept %v", got)
	}
}

// TestAProviderThatIsAwayOnlyDelaysTheSweep: nothing is taken for compared, and the next sweep goes on.
func TestAProviderThatIsAwayOnlyDelaysTheSweep(t *testing.T) {
	t.Parallel()
	s := sweeping(t, pgtest.New(t).Pool)
	payment := ids.Mint(time.Now(), 1).Format(order.PrefixPayment)
	s.at(payment, "authorize")
	away, err := New(Config{Pool: s.pool, IDs: ids, Now: time.Now, ProviderURL: "http://127.0.0.1:1", Log: zap.NewNop()})
	s.must(err)
	if err = away.sweepLedger(t.Context()); err == nil || s.position() != 0 {
		t.Fatalf("%v, and the position is %d", err, s.position())
	}
	s.exec("UPDATE ledger_sweeps SET next_at = now() WHERE next_at < now() + interval '11 seconds'")
	s.must(s.sweepLedger(t.Context()))
	if got := s.sweeps()[payment]; !slices.Equal(got, []string{"void succeeded"}) || s.position() != 1 {
		t.Errorf("swept %v, and the position is %d", got, s.position())
	}
}

// TestAFailoverLosesNoCharge: a payment that only the lost primary had is taken back as soon as the promoted one is swept, although no
// sweep was due. The sweep of the lost timeline keeps nothing there.
func TestAFailoverLosesNoCharge(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it starts servers")
	}
	dir, err := devstack.Scratch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stack, err := devstack.Start(t.Context(), devstack.Config{Dir: dir, Replicas: []devstack.Replica{{Name: "replica"}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.WithoutCancel(t.Context())
	t.Cleanup(func() { _, _ = stack.Stop(ctx), devstack.Remove(ctx, dir) })
	connect := func(url string) *pgxpool.Pool {
		pool, err := pgxpool.New(ctx, url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		return pool
	}
	if err = sql.Migrate(ctx, stack.PrimaryURL); err != nil {
		t.Fatal(err)
	}
	primary, replica := connect(stack.PrimaryURL), connect(stack.ReplicaURLs[0])
	s := sweeping(t, primary)
	kept := s.payment(pay.StatusCaptured).Format(order.PrefixPayment)
	s.at(kept, "authorize", "capture")
	s.must(s.sweepLedger(ctx))
	old := &sweep{Payment: s.process(replica), position: 77}
	s.must(primary.QueryRow(ctx, "SELECT fence FROM ledger_sweeps").Scan(&old.fence))
	for synced, end := false, time.Now().Add(20*time.Second); !synced; <-time.After(5 * time.Millisecond) {
		s.must(primary.QueryRow(ctx, "SELECT count(*) > 0 FROM pg_stat_replication WHERE replay_lsn >= pg_current_wal_lsn()").Scan(&synced))
		if time.Now().After(end) {
			t.Fatal("the replica never follows")
		}
	}
	_, err = replica.Exec(ctx, "SELECT pg_promote()")
	s.must(err)
	lost := s.payment(pay.StatusCaptured).Format(order.PrefixPayment) // the old primary takes it
	s.at(lost, "authorize", "capture")

	s.pool = replica
	if err = old.save(ctx, time.Minute); !errors.Is(err, errLeaseLost) || s.position() == 77 {
		t.Errorf("a sweep of the lost timeline goes on: %v", err)
	}
	s.must(old.sweepLedger(ctx))
	if got := s.sweeps(); len(got) != 1 || !slices.Equal(got[lost], []string{"refund-500 succeeded"}) {
		t.Errorf("swept %v, want the refund of %s alone", got, lost)
	}
	before := s.position()
	s.at(ids.Mint(time.Now(), 1).Format(order.PrefixPayment), "authorize")
	s.must(old.sweepLedger(ctx))
	if s.position() != before {
		t.Error("it is swept again, and the timeline is no longer new")
	}
}

// TestACallbackLetsTheProviderBeAsked: it makes the open calls of its payment due, once, and changes nothing else; a call that was never
// sent, or has its outcome, stays as it is.
func TestACallbackLetsTheProviderBeAsked(t *testing.T) {
	t.Parallel()
	s := sweeping(t, pgtest.New(t).Pool)
	id := s.payment(pay.StatusPending)
	payment := id.Format(order.PrefixPayment)
	take := func(event, payment, status string) (result CallbackResult) {
		t.Helper()
		batch := &pgx.Batch{}
		QueueCallback(batch, ids, Callback{Provider: Provider, EventID: event, Key: payment + "-authorize", Kind: "authorize", Payment: payment, Status: status, Body: "{}"}, &result)
		s.must(s.pool.SendBatch(t.Context(), batch).Close())
		return result
	}
	next := func() (seconds float64) {
		t.Helper()
		s.must(s.pool.QueryRow(t.Context(), "SELECT COALESCE(extract(epoch FROM next_at - now()), -1) FROM payment_calls WHERE subject = $1", [16]byte(id)).Scan(&seconds))
		return seconds
	}
	later := func(tries int) {
		s.exec("UPDATE payment_calls SET next_at = now() + interval '20 seconds', tries = $2 WHERE subject = $1", [16]byte(id), tries)
	}
	later(3)
	if got := take("evt_1", payment, "succeeded"); got != CallbackStored || next() > 0.5 {
		t.Errorf("%s, and the call is due in %.1f s", got, next())
	}
	later(3)
	for range 1000 {
		if got := take("evt_1", payment, "succeeded"); got != CallbackRepeated || next() < 15 {
			t.Fatalf("a repetition is %s, and the call is due in %.1f s", got, next())
		}
	}
	if take("evt_2", payment, "declined"); next() > 0.5 {
		t.Errorf("another event: the call is due in %.1f s", next())
	}
	later(0)
	if take("evt_3", payment, "succeeded"); next() < 15 {
		t.Errorf("a call that was not sent is due in %.1f s", next())
	}
	s.exec("UPDATE payment_calls SET next_at = NULL, method_token = '' WHERE subject = $1", [16]byte(id))
	if take("evt_4", payment, "succeeded"); next() != -1 {
		t.Errorf("a call with an outcome is due in %.1f s", next())
	}
	unknown := ids.Mint(time.Now(), 1).Format(order.PrefixPayment)
	forged := order.NewIDs([]byte("another")).Mint(time.Now(), 1).Format(order.PrefixPayment)
	for i, payment := range []string{unknown, forged, "x", ""} {
		if got := take(fmt.Sprint("evt_parked_", i), payment, "succeeded"); got != CallbackParked {
			t.Errorf("a callback about %q is %s", payment, got)
		}
	}
	var rows, parked, due int
	var status string
	s.must(s.pool.QueryRow(t.Context(), "SELECT count(*), count(*) FILTER (WHERE parked), count(*) FILTER (WHERE parked AND next_at IS NOT NULL), (SELECT status FROM payments) FROM provider_callbacks").
		Scan(&rows, &parked, &due, &status))
	if rows != 8 || parked != 4 || due != 1 || status != "pending" {
		t.Errorf("%d callbacks, %d parked, %d of these to be looked at; the payment is %s", rows, parked, due, status)
	}
}

// TestACallbackHasItsPaymentSwept: without a sweep of the ledger, and not while a call is open. A callback that lies costs a look at the
// ledger and no more.
func TestACallbackHasItsPaymentSwept(t *testing.T) {
	t.Parallel()
	s := sweeping(t, pgtest.New(t).Pool)
	unknown := ids.Mint(time.Now(), 1).Format(order.PrefixPayment)
	open, lied := s.payment(pay.StatusFailed), s.payment(pay.StatusFailed)
	s.exec("UPDATE payment_calls SET next_at = now() + interval '20 seconds' WHERE subject = $1", [16]byte(open))
	s.at(unknown, "authorize")
	s.at(open.Format(order.PrefixPayment), "authorize")
	batch := &pgx.Batch{}
	for _, payment := range []string{unknown, open.Format(order.PrefixPayment), lied.Format(order.PrefixPayment)} {
		for _, event := range []string{"1", "2"} {
			QueueCallback(batch, ids, Callback{
				Provider: Provider, EventID: payment + event, Key: payment + "-authorize", Kind: "authorize", Payment: payment, Status: "succeeded", Body: "{}",
			}, new(CallbackResult))
		}
	}
	s.must(s.pool.SendBatch(t.Context(), batch).Close())
	look := func() {
		t.Helper()
		s.exec("UPDATE provider_callbacks SET next_at = now() WHERE next_at IS NOT NULL")
		if _, err := s.inspectCallbacks(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	waiting := func() (n int) {
		s.must(s.pool.QueryRow(t.Context(), "SELECT count(*) FROM provider_callbacks WHERE next_at IS NOT NULL").Scan(&n))
		return n
	}
	look()
	if got := s.sweeps(); len(got) != 1 || !slices.Equal(got[unknown], []string{"void succeeded"}) || waiting() != 2 {
		t.Errorf("swept %v, %d callbacks wait", got, waiting())
	}
	s.exec("UPDATE payment_calls SET next_at = NULL, method_token = ''")
	look()
	if got := s.sweeps(); len(got) != 2 || !slices.Equal(got[open.Format(order.PrefixPayment)], []string{"void succeeded"}) || waiting() != 0 {
		t.Errorf("swept %v, %d callbacks wait", got, waiting())
	}
}

// TestCandidates: which payments are looked at, by outcomes of any order.
func TestCandidates(t *testing.T) {
	id := ids.Mint(time.Now(), 1)
	for text, want := range map[string]bool{
		"authorize": true, "!authorize": false, "authorize void": false, "void authorize": false, "authorize capture": true, "authorize capture refund": true,
		"authorize !capture": true, "!void": true, "refund": false, "!refund": false, "authorize !void": true, "": false,
	} {
		var hints []hint
		for word := range strings.FieldsSeq(text) {
			kind, refused := strings.CutPrefix(word, "!")
			hints = append(hints, hint{id, Operation(kind), !refused})
		}
		if got := candidates(hints)[id]; got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// TestARefusedSweepIsAnOperatorsMatter: it is told of once, and holds up nothing.
func TestARefusedSweepIsAnOperatorsMatter(t *testing.T) {
	t.Parallel()
	s := sweeping(t, pgtest.New(t).Pool)
	payment := ids.Mint(time.Now(), 1).Format(order.PrefixPayment)
	if o, err := s.provider.do(t.Context(), payment+"-sweep-void", Void, payment, order.Money{Amount: 500, Currency: "EUR"}, ""); err != nil || o.Code != errcode.PAY006 {
		t.Fatal(o, err) // the key has a refusal
	}
	s.at(payment, "authorize")
	s.must(s.sweepLedger(t.Context()))
	if logged := s.logs.FilterMessage("orphan").FilterField(zap.String("result", "refused")).Len(); logged != 1 || s.position() != 2 {
		t.Errorf("logged %d times, and the position is %d", logged, s.position())
	}
}

// TestAVoidDuringTheSweepIsNoOrphan: the payment's own void succeeds after the sweep read the ledger and before it reads the row. Nothing is
// left to take back, and no operator is called.
func TestAVoidDuringTheSweepIsNoOrphan(t *testing.T) {
	t.Parallel()
	s := sweeping(t, pgtest.New(t).Pool)
	id := s.payment(pay.StatusAuthorized)
	payment := id.Format(order.PrefixPayment)
	s.at(payment, "authorize")
	var met atomic.Bool
	simulator := s.psp.Config.Handler
	s.psp.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		before := httptest.NewRecorder()
		simulator.ServeHTTP(before, r)
		if !met.Swap(true) {
			s.at(payment, "void")
			s.exec("UPDATE payments SET status = 'voided'")
		}
		maps.Copy(w.Header(), before.Header())
		w.WriteHeader(before.Code)
		_, _ = w.Write(before.Body.Bytes())
	})
	if swept, err := s.inspect(t.Context(), id); swept || err != nil {
		t.Error(swept, err)
	}
	if n := s.logs.FilterMessage("orphan").Len(); n != 0 {
		t.Errorf("%d orphans are logged", n)
	}
}
