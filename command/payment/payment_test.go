package payment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/paymentdb"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/order/pay"
)

var (
	alice = order.Owner{Account: 1, Mode: "test"}
	ids   = order.NewIDs([]byte("k"))
)

// TestOnlyADefiniteAnswerIsOne: what a provider may say, and what is made of it. Whatever is not clearly yes or no leaves the
// operation in doubt.
func TestOnlyADefiniteAnswerIsOne(t *testing.T) {
	operation := func(key, status string) string {
		return fmt.Sprintf(`{"key":%q,"kind":"authorize","payment":"p","amount":{"amount":1,"currency":"EUR"},"status":%q,"reference":"r-1","decline_reason":"no","created_at":"2026-01-01T00:00:00Z"}`, key, status)
	}
	const jsonType, problem = "application/json", "application/problem+json"
	for name, c := range map[string]struct {
		status      int
		contentType string
		body        string
		want        string
	}{
		"done":                      {200, jsonType, operation("k-1", "succeeded"), "done r-1"},
		"with a NUL in its text":    {200, jsonType, strings.Replace(operation("k-1", "succeeded"), "r-1", `r\u0000-1`, 1), "done r-1"},
		"with a text of 2 kB":       {200, jsonType, strings.Replace(operation("k-1", "succeeded"), "r-1", "a"+strings.Repeat("é", 1000), 1), "done a" + strings.Repeat("é", 249)},
		"declined":                  {200, jsonType, operation("k-1", "declined"), "PAY_007"},
		"cancelled":                 {200, jsonType, operation("k-1", "cancelled"), "PAY_003"},
		"still running":             {200, jsonType, operation("k-1", "pending"), "in doubt PAY_006"},
		"another operation's":       {200, jsonType, operation("k-2", "succeeded"), "in doubt PAY_006"},
		"impossible":                {422, problem, `{"title":"no","status":422,"key":"k-1"}`, "PAY_006"},
		"impossible, for another":   {422, problem, `{"title":"no","status":422,"key":"k-2"}`, "in doubt PAY_006"},
		"impossible, for nobody":    {422, problem, `{"title":"no","status":422}`, "in doubt PAY_006"},
		"not found":                 {404, problem, `{"title":"no","status":404,"key":"k-1"}`, "in doubt PAY_006"},
		"failing":                   {500, problem, `{}`, "in doubt PAY_006"},
		"not JSON":                  {200, jsonType, "<html>", "in doubt PAY_006"},
		"no JSON by type":           {200, "text/html", operation("k-1", "succeeded"), "in doubt PAY_006"},
		"cut off":                   {200, jsonType, operation("k-1", "succeeded")[:40], "in doubt"},
		"endless":                   {200, jsonType, `"` + strings.Repeat("x", 3*maxResponse), "in doubt PAY_006"},
		"somewhere else":            {302, jsonType, "", "in doubt PAY_006"},
		"nothing, and no more said": {0, "", "", "in doubt PAY_003"},
	} {
		t.Run(name, func(t *testing.T) {
			psp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if c.status == 0 {
					panic(http.ErrAbortHandler)
				}
				w.Header().Set("Content-Type", c.contentType)
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			}))
			defer psp.Close()
			p, err := newProvider(psp.URL, 1)
			if err != nil {
				t.Fatal(err)
			}
			o, err := p.do(t.Context(), "k-1", Authorize, "p", order.Money{Amount: 1, Currency: "EUR"}, "pm_ok")
			got := "done " + o.Reference
			if o.Code != "" {
				got = string(o.Code)
			}
			if doubt, ok := errors.AsType[doubtError](err); ok {
				got = "in doubt " + string(doubt.code)
			} else if err != nil {
				t.Errorf("%v is no doubtError", err)
			}
			if !strings.HasPrefix(got, c.want) {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// refusing is a provider that refuses one kind of operation until it is willing; asked counts the requests of that kind.
func refusing(t *testing.T, kind string) (url string, asked, willing *atomic.Int32) {
	t.Helper()
	asked, willing = new(atomic.Int32), new(atomic.Int32)
	psp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		if strings.HasSuffix(key, "-"+kind) {
			asked.Add(1)
			if willing.Load() == 0 {
				w.Header().Set("Content-Type", "application/problem+json")
				w.WriteHeader(http.StatusUnprocessableEntity)
				fmt.Fprintf(w, `{"title":"impossible","status":422,"key":%q}`, key)
				return
			}
		}
		var op struct {
			Kind    string          `json:"kind"`
			Payment string          `json:"payment"`
			Amount  json.RawMessage `json:"amount"`
		}
		_ = json.NewDecoder(r.Body).Decode(&op)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"key":%q,"kind":%q,"payment":%q,"amount":%s,"status":"succeeded","reference":"r","created_at":"2026-01-01T00:00:00Z"}`, key, op.Kind, op.Payment, op.Amount)
	}))
	t.Cleanup(psp.Close)
	return psp.URL, asked, willing
}

// send asks for an operation on the one payment of an order, as the saga does.
func send(t *testing.T, p *Payment, of order.ID, op Operation) {
	t.Helper()
	amount := order.Money{Amount: 500, Currency: "EUR"}
	err := pg.InTx(t.Context(), p.cfg.Pool, func(tx pgx.Tx) error {
		if op == Authorize {
			_, ch := Start(order.Ref{Owner: alice, ID: of}, 1, amount, "pm_ok", p.recorder(1, "t", "test", "saga"))
			return ch.Write(t.Context(), tx, time.Minute)
		}
		ch := Request(&pay.Payment{Ref: paymentOfOrder(t, p, of), OrderID: of, Attempt: 1, Amount: amount}, op, "t")
		return ch.Write(t.Context(), tx, time.Minute)
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Wake()
}

// lock locks payments and reads them.
func lock(ctx context.Context, tx pgx.Tx, payments ...order.Ref) (map[order.Ref]Locked, error) {
	batch, found := &pgx.Batch{}, map[order.Ref]Locked{}
	QueueLock(batch, payments, false, found)
	return found, tx.SendBatch(ctx, batch).Close()
}

// giveBack opens a client's refund of a payment: of an amount, or of all that is left.
func (s *swept) giveBack(payment order.Ref, amount *order.Money, reason string) {
	s.t.Helper()
	s.must(pg.InTx(s.t.Context(), s.pool, func(tx pgx.Tx) error {
		found, err := lock(s.t.Context(), tx, payment)
		s.must(err)
		_, ch, err := GiveBack(found[payment], ids.Mint(time.Now(), 1), amount, reason, s.recorder(1, "client", "test", "test"))
		s.must(err)
		return ch.Write(s.t.Context(), tx, 0)
	}))
}

func paymentOfOrder(t *testing.T, p *Payment, of order.ID) order.Ref {
	t.Helper()
	var id [16]byte
	if err := p.cfg.Pool.QueryRow(t.Context(), "SELECT id FROM payments WHERE order_id = $1", [16]byte(of)).Scan(&id); err != nil {
		t.Fatal(err)
	}
	return order.Ref{Owner: alice, ID: id}
}

func look(t *testing.T, p *Payment, sql string) (s string) {
	t.Helper()
	if err := p.cfg.Pool.QueryRow(t.Context(), sql).Scan(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

func await(t *testing.T, p *Payment, sql, want string) {
	t.Helper()
	for end, tick := time.Now().Add(20*time.Second), time.Tick(20*time.Millisecond); look(t, p, sql) != want; <-tick {
		if time.Now().After(end) {
			t.Fatalf("%s is %s, want %s", sql, look(t, p, sql), want)
		}
	}
}

// running has Run make the calls until the test ends.
func running(t *testing.T, p *Payment) {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan struct{})
	go func() { p.Run(ctx); close(ended) }()
	t.Cleanup(func() { stop(); <-ended })
}

// heard is what the saga was told, in order.
const heard = "SELECT string_agg(COALESCE(payload::jsonb->'data'->>'operation', payload::jsonb->>'type') || COALESCE(payload::jsonb->'data'->>'code', ''), ' ' ORDER BY id) FROM outbox"

// TestARefusedVoidIsTriedUntilItIsDone: money that a provider does not want to give back is no end of a saga. The step stays in
// doubt, shows why, and is done when the provider changes its mind; the saga hears of it once.
func TestARefusedVoidIsTriedUntilItIsDone(t *testing.T) {
	t.Parallel()
	url, asked, willing := refusing(t, "void")
	core, logs := observer.New(zap.ErrorLevel)
	var bugs atomic.Int32
	now := func() time.Time {
		if bugs.Add(-1) == 0 { // the outcome is known then, and not written
			panic("a bug")
		}
		return time.Now()
	}
	p, err := New(Config{Pool: pgtest.New(t).Pool, IDs: ids, Now: now, ProviderURL: url, Deadline: time.Minute, Wake: func() {}, Log: zap.New(core)})
	if err != nil {
		t.Fatal(err)
	}
	running(t, p)
	id := ids.Mint(time.Now(), 1)
	bugs.Store(2) // send reads the clock first
	send(t, p, id, Authorize)
	await(t, p, "SELECT status FROM payments", "authorized") // claimed again when its lease had ended
	if n := logs.FilterMessage("payment call").FilterFieldKey("error").Len(); n != 1 {
		t.Errorf("a panic is logged %d times", n)
	}
	send(t, p, id, Void)
	await(t, p, "SELECT (tries >= 3)::text FROM payment_calls WHERE operation = 'void'", "true")
	if got := look(t, p, "SELECT in_doubt || ' ' || last_code || ' ' || (next_at IS NOT NULL) FROM payment_calls WHERE operation = 'void'"); got != "true "+string(errcode.PAY006)+" true" {
		t.Errorf("the refused step is %s", got)
	}
	if got := look(t, p, "SELECT status FROM payments"); got != "authorized" {
		t.Errorf("the payment is %s", got)
	}
	willing.Store(1)
	await(t, p, "SELECT status FROM payments", "voided")
	if got := look(t, p, heard); got != "authorize void" {
		t.Errorf("the saga heard %s", got)
	}
	if asked.Load() < 4 {
		t.Errorf("asked %d times", asked.Load())
	}
}

// TestARefusedRefundOfTheSagaComesAgainLaterEachTime: each one is another refund, because a provider keeps its answer to a key. An operator
// is told of each, and a jump of the clock is not taken for the longer delays.
func TestARefusedRefundOfTheSagaComesAgainLaterEachTime(t *testing.T) {
	t.Parallel()
	url, asked, willing := refusing(t, "refund")
	core, logs := observer.New(zap.ErrorLevel)
	p, err := New(Config{Pool: pgtest.New(t).Pool, IDs: ids, Now: time.Now, ProviderURL: url, Deadline: time.Minute, Wake: func() {}, Log: zap.New(core)})
	if err != nil {
		t.Fatal(err)
	}
	running(t, p)
	id := ids.Mint(time.Now(), 1)
	send(t, p, id, Authorize)
	await(t, p, "SELECT status FROM payments", "authorized")
	send(t, p, id, Capture)
	await(t, p, "SELECT status FROM payments", "captured")
	s := &swept{Payment: p, t: t, pool: p.cfg.Pool}
	for range 2 { // those of clients do not count
		s.giveBack(paymentOfOrder(t, p, id), nil, "client")
		p.Wake()
		await(t, p, "SELECT refund_pending::text FROM payments", "0")
	}
	send(t, p, id, Refund)
	for refusals, wait := range []string{"30", "60", "120", "240", "480", "960", "1920", "3600"} {
		await(t, p, "SELECT count(*)::text FROM refunds WHERE status = 'failed' AND reason <> 'client'", strconv.Itoa(refusals+1))
		if err = p.rearm(t.Context()); err != nil {
			t.Fatal(err)
		}
		next := look(t, p, "SELECT delay || ' ' || last_code || ' ' || (next_at BETWEEN now() + make_interval(secs => delay - 5) AND now() + make_interval(secs => delay)) FROM payment_calls WHERE next_at IS NOT NULL")
		if next != wait+" PAY_006 true" {
			t.Errorf("after %d refusals the next refund is due %s", refusals+1, next)
		}
		if refusals == 7 {
			willing.Store(1)
		}
		if _, err = p.cfg.Pool.Exec(t.Context(), "UPDATE payment_calls SET next_at = now() WHERE next_at IS NOT NULL"); err != nil {
			t.Fatal(err)
		}
		p.Wake()
	}
	await(t, p, "SELECT refunded || ' ' || refund_pending FROM payments", "500 0")
	if got := look(t, p, heard); got != "authorize capture payment.refunded refund" {
		t.Errorf("the saga heard %s", got)
	}
	if n := logs.FilterMessage("the provider refuses a refund that the saga needs").Len(); n != 8 || asked.Load() != 2+9 {
		t.Errorf("%d refusals of %d requests are logged", n, asked.Load())
	}
}

// TestARefundsOutcomeBeforeTheCompensationBegins: the saga has asked for all of a payment, and a client's refund of it ends before that is begun. The saga is
// replied to once, by what it asked for.
func TestARefundsOutcomeBeforeTheCompensationBegins(t *testing.T) {
	t.Parallel()
	for name, outcome := range map[string]Outcome{"done": {}, "refused": {Code: errcode.PAY006}} {
		s := sweeping(t, pgtest.New(t).Pool)
		ctx, ref := t.Context(), order.Ref{Owner: alice, ID: s.payment(pay.StatusCaptured)}
		s.giveBack(ref, nil, "")
		claimed, err := s.claim(ctx, paymentdb.ClaimCallsParams{MaxCalls: 9, MaxNew: 9, MaxRepeated: 9})
		s.must(err)
		s.must(pg.InTx(ctx, s.pool, func(tx pgx.Tx) error {
			found, err := lock(ctx, tx, ref)
			s.must(err)
			ch := Request(found[ref].Payment, Refund, "t")
			return ch.Write(ctx, tx, 0)
		}))
		s.must(s.complete(ctx, claimed[0], outcome))
		claimed, err = s.claim(ctx, paymentdb.ClaimCallsParams{MaxCalls: 9, MaxNew: 9, MaxRepeated: 9})
		s.must(err)
		if len(claimed) != 1 || claimed[0].Subject != claimed[0].PaymentID {
			t.Fatalf("%s: %d calls are due", name, len(claimed))
		}
		s.try(ctx, claimed[0])
		want, calls := "payment.refunded refund", "0"
		if outcome.Code != "" { // all of it is to be given back still
			want, calls = "", "1"
		}
		if told := look(t, s.Payment, "SELECT COALESCE(("+heard+"), '')"); told != want {
			t.Errorf("%s: the saga heard %q", name, told)
		}
		if got := look(t, s.Payment, "SELECT count(*)::text FROM payment_calls WHERE next_at <= now()"); got != calls {
			t.Errorf("%s: %s calls are due", name, got)
		}
	}
}

// TestARefundsOutcomeMeetsTheCompensation: the provider's answer to a client's refund waits while the saga asks for all of the payment. It
// knows of that when it has waited, or nobody would reply to the saga: it replies, or opens the refund that makes up for the refused one.
func TestARefundsOutcomeMeetsTheCompensation(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		outcome     Outcome
		told, calls string
	}{
		"that was done":    {Outcome{}, "payment.refunded refund", "0"},
		"that was refused": {Outcome{Code: errcode.PAY006}, "", "1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := sweeping(t, pgtest.New(t).Pool)
			ctx, ref := t.Context(), order.Ref{Owner: alice, ID: s.payment(pay.StatusCaptured)}
			s.giveBack(ref, nil, "")
			claimed, err := s.claim(ctx, paymentdb.ClaimCallsParams{MaxCalls: 9, MaxNew: 9, MaxRepeated: 9})
			s.must(err)
			completed := make(chan error, 1)
			s.must(pg.InTx(ctx, s.pool, func(tx pgx.Tx) error {
				found, err := lock(ctx, tx, ref)
				s.must(err)
				ch := Request(found[ref].Payment, Refund, "t")
				ch.Add(BeginRefundAll(found[ref], s.recorder(1, "t", "test", "test")))
				s.must(ch.Write(ctx, tx, 0))
				_, err = tx.Exec(ctx, "UPDATE payment_calls SET next_at = NULL WHERE subject = payment_id AND operation = 'refund'") // it has begun
				go func() { completed <- s.complete(ctx, claimed[0], c.outcome) }()
				await(t, s.Payment, "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'", "1")
				return err
			}))
			s.must(<-completed)
			if told := look(t, s.Payment, "SELECT COALESCE(("+heard+"), '')"); told != c.told {
				t.Errorf("the saga heard %q", told)
			}
			if calls := look(t, s.Payment, "SELECT count(*)::text FROM payment_calls WHERE next_at IS NOT NULL"); calls != c.calls {
				t.Errorf("%s open calls", calls)
			}
		})
	}
}

// open opens a payment of an order of its own for each trace id.
func open(t *testing.T, p *Payment, token string, traceIDs ...string) {
	t.Helper()
	var all Changes
	for _, id := range traceIDs {
		of := order.Ref{Owner: alice, ID: ids.Mint(time.Now(), 1)}
		_, ch := Start(of, 1, order.Money{Amount: 500, Currency: "EUR"}, token, p.recorder(1, id, "test", "test"))
		all.Add(ch)
	}
	if err := pg.InTx(t.Context(), p.cfg.Pool, func(tx pgx.Tx) error { return all.Write(t.Context(), tx, time.Minute) }); err != nil {
		t.Fatal(err)
	}
}

// TestHangingPaymentsDelayNoOther: 150 authorizations that the provider never answers have their first tries when others come. Those have
// theirs beside them, and the breaker stays closed: the provider is well.
func TestHangingPaymentsDelayNoOther(t *testing.T) {
	t.Parallel()
	var hanging, tried atomic.Int32
	psp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var op struct {
			Kind        string          `json:"kind"`
			Payment     string          `json:"payment"`
			Amount      json.RawMessage `json:"amount"`
			MethodToken string          `json:"method_token"`
		}
		_ = json.NewDecoder(r.Body).Decode(&op)
		if op.MethodToken == "hangs" {
			hanging.Add(1)
			<-r.Context().Done()
			tried.Add(1)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"key":%q,"kind":%q,"payment":%q,"amount":%s,"status":"succeeded","reference":"r","created_at":"2026-01-01T00:00:00Z"}`,
			r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:], op.Kind, op.Payment, op.Amount)
	}))
	defer psp.Close()
	db, registry := pgtest.New(t), prometheus.NewRegistry()
	p, err := New(Config{Pool: db.Pool, IDs: ids, Now: time.Now, ProviderURL: psp.URL, Deadline: time.Minute, Wake: func() {}, Log: zap.NewNop(), Registry: registry})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { p.Run(ctx); close(ended) }()
	defer func() { stop(); <-ended }()
	authorize := func(n int, token string) {
		t.Helper()
		open(t, p, token, slices.Repeat([]string{"t"}, n)...)
		p.Wake()
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for end, tick := time.Now().Add(20*time.Second), time.Tick(5*time.Millisecond); !ok(); <-tick {
			if time.Now().After(end) {
				t.Fatal("never: ", what)
			}
		}
	}
	authorized := func() (n int) {
		t.Helper()
		if err := db.Pool.QueryRow(t.Context(), "SELECT count(*) FROM payments WHERE status = 'authorized'").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	authorize(150, "hangs")
	until("150 hang", func() bool { return hanging.Load() == 150 })
	good := 0
	for tried.Load() < 200 { // until some of them hang for the second time
		good++
		authorize(1, "pm_ok")
		until("a good one is authorized", func() bool { return authorized() == good })
		if n := hanging.Load() - tried.Load(); good < 10 && n != 150 {
			t.Fatalf("%d good payments took longer than a try: %d hang now", good, n)
		}
		<-time.After(100 * time.Millisecond) // few enough for the breaker to see the others
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "ordergate_breaker_open" && f.GetMetric()[0].GetGauge().GetValue() != 0 {
			t.Error("the breaker is open while the provider does all good payments")
		}
	}
}

// TestInAQuietHourTheProviderIsAsked: many authorizations have no response and nothing else is asked of the provider. Its ledger tells whether
// it is well: then a good payment is made at once. The breaker opens of a provider that is silent, and of one that fails at each operation.
func TestInAQuietHourTheProviderIsAsked(t *testing.T) {
	for name, c := range map[string]struct {
		token        string
		silent, open bool
	}{
		"and gives its ledger":          {"pm_timeout", false, false},
		"and is silent":                 {"pm_timeout", true, true},
		"and fails, but for its ledger": {"pm_error", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := sweeping(t, pgtest.New(t).Pool)
			simulator := s.psp.Config.Handler
			s.psp.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if c.silent {
					_, _ = io.Copy(io.Discard, r.Body) // else nobody hears that the client leaves
					<-r.Context().Done()
					return
				}
				simulator.ServeHTTP(w, r)
			})
			s.lastGood.Store(new(time.Now().Add(-time.Hour)))
			running(t, s.Payment)
			open(t, s.Payment, c.token, slices.Repeat([]string{"t"}, 40)...)
			s.Wake()
			await(t, s.Payment, "SELECT (count(*) = 40)::text FROM payment_calls WHERE last_code <> ''", "true")
			if s.ProviderOpen() != c.open {
				t.Fatalf("the breaker is open: %t", s.ProviderOpen())
			}
			if c.open {
				return
			}
			begin := time.Now()
			open(t, s.Payment, "pm_ok", "t")
			s.Wake()
			await(t, s.Payment, "SELECT count(*)::text FROM payments WHERE status = 'authorized'", "1")
			if took := time.Since(begin); took > tryLimit {
				t.Errorf("a good payment took %v", took)
			}
		})
	}
}

// TestFirstFailuresOpenNoBreaker: of the calls that wait for a worker that starts, half fail at once, before any of the others succeeds. The
// breaker stays closed.
func TestFirstFailuresOpenNoBreaker(t *testing.T) {
	t.Parallel()
	const calls = 60
	db := pgtest.New(t)
	var failed atomic.Int32
	psp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if failed.Add(1) <= calls/2 {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		for postponed := 0; postponed < calls/2; <-time.After(5 * time.Millisecond) { // the failures come first
			if err := db.Pool.QueryRow(r.Context(), "SELECT count(*) FROM payment_calls WHERE last_code <> ''").Scan(&postponed); err != nil {
				return
			}
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"key":%q,"status":"succeeded","reference":"r","created_at":"2026-01-01T00:00:00Z"}`, r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:])
	}))
	defer psp.Close()
	p, err := New(Config{Pool: db.Pool, IDs: ids, Now: time.Now, ProviderURL: psp.URL, Deadline: time.Minute, Wake: func() {}, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	open(t, p, "pm_ok", slices.Repeat([]string{"t"}, calls)...)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { p.Run(ctx); close(ended) }()
	defer func() { stop(); <-ended }()
	begin := time.Now()
	for authorized := 0; authorized < calls; <-time.After(5 * time.Millisecond) {
		if err := db.Pool.QueryRow(t.Context(), "SELECT count(*) FROM payments WHERE status = 'authorized'").Scan(&authorized); err != nil {
			t.Fatal(err)
		}
		if time.Since(begin) > 4*time.Second { // an open breaker stays so for 5 s
			t.Fatalf("%d of %d are authorized", authorized, calls)
		}
	}
}

// A jump of the database's clock leaves times in the far future. They become due, and the deadlines are as long as they were to be.
func TestCallsSurviveAJumpOfTheClock(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	p, err := New(Config{Pool: db.Pool, IDs: ids, Now: time.Now, ProviderURL: "http://127.0.0.1:1", Deadline: time.Minute, Wake: func() {}, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	open(t, p, "pm_ok", "0", "1", "2", "3")
	for _, statement := range []string{
		"UPDATE payment_calls SET next_at = next_at + interval '1 hour', deadline = deadline + interval '1 hour' WHERE trace_id = '0'",
		"UPDATE payment_calls SET next_at = next_at + interval '1 hour', tries = 3 WHERE trace_id = '1'",
		"UPDATE payment_calls SET next_at = next_at + interval '30 seconds', tries = 9 WHERE trace_id = '2'", // as the longest delay sets it
		"UPDATE payment_calls SET next_at = next_at + interval '1 hour', tries = 3, operation = 'capture', deadline = NULL WHERE trace_id = '3'",
	} {
		if _, err = db.Pool.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	q := paymentdb.New(db.Pool)
	before, err := q.CallsHealth(t.Context())
	if err = errors.Join(err, p.rearm(t.Context())); err != nil {
		t.Fatal(err)
	}
	after, err := q.CallsHealth(t.Context())
	if err != nil || before < 3000 || after > 30 {
		t.Errorf("they stand still for %.0f s, and for %.0f s after that: %v", before, after, err)
	}
	var due string
	// A capture has no deadline and gets none: past one its key would be cancelled.
	if err = db.Pool.QueryRow(t.Context(), `SELECT string_agg(trace_id || ' ' || (next_at <= now()) || ' ' || COALESCE((deadline <= now() + interval '1 minute')::text, 'none'), ', '
		ORDER BY trace_id) FROM payment_calls`).Scan(&due); err != nil || due != "0 true true, 1 true true, 2 false true, 3 true none" {
		t.Error(due, err)
	}
}

// A server that falls silent ends no connection: only our own limit tells that it is away.
func TestASilentDatabaseIsNotWaitedForWithoutEnd(t *testing.T) {
	t.Parallel()
	proxy, pool := pgtest.New(t).BehindProxy(t)
	core, logs := observer.New(zap.ErrorLevel)
	p, err := New(Config{Pool: pool, IDs: ids, Now: time.Now, ProviderURL: "http://127.0.0.1:1", Deadline: time.Minute, Wake: func() {}, Log: zap.New(core)})
	if err != nil {
		t.Fatal(err)
	}
	if err = pool.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	proxy.Freeze()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { p.Run(ctx); close(ended) }()
	for end, tick := time.Now().Add(3*writeLimit), time.Tick(10*time.Millisecond); logs.Len() == 0; <-tick {
		if time.Now().After(end) {
			t.Fatal("the steps wait for a silent database")
		}
	}
	stop()
	<-ended
}

// An outcome that is known is written once the payment is free that another transaction holds: the provider is not asked again.
func TestAHeldPaymentIsWaitedFor(t *testing.T) {
	t.Parallel()
	url, asked, willing := refusing(t, "authorize")
	willing.Store(1)
	db := pgtest.New(t)
	pool, err := pg.Connect(t.Context(), db.PrimaryURL, 8, pg.WorkerSession, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	p, err := New(Config{Pool: pool, IDs: ids, Now: time.Now, ProviderURL: url, Deadline: time.Minute, Wake: func() {}, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	open(t, p, "pm_ok", "held")
	holder, err := db.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = holder.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err = holder.Exec(t.Context(), "SELECT FROM payments WHERE id = (SELECT payment_id FROM payment_calls WHERE trace_id = 'held') FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	claimed, err := p.claim(t.Context(), paymentdb.ClaimCallsParams{MaxCalls: 9, MaxNew: 9, MaxRepeated: 9})
	if err != nil {
		t.Fatal(err)
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		for _, c := range claimed {
			if c.TraceID == "held" {
				p.try(t.Context(), c)
			}
		}
	}()
	for asked.Load() == 0 {
		<-time.After(time.Millisecond)
	}
	<-time.After(3 * lockTimeout) // it has waited in vain more than once
	if err = holder.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-written
	var status string
	if err = db.Pool.QueryRow(t.Context(), "SELECT p.status FROM payments p JOIN payment_calls c ON c.payment_id = p.id WHERE c.trace_id = 'held'").Scan(&status); err != nil || status != "authorized" || asked.Load() != 1 {
		t.Errorf("%s after %d requests: %v", status, asked.Load(), err)
	}
}

// lockTimeout is that of pg.WorkerSession.
const lockTimeout = 50 * time.Millisecond

// A transaction claims the calls that it makes due, as many as there is room for, and its process makes them at once. One that it cannot make is given
// back, and one whose process died is claimed again when its lease has ended.
func TestATransactionClaimsItsCalls(t *testing.T) {
	t.Parallel()
	url, asked, willing := refusing(t, "authorize")
	willing.Store(1)
	p, err := New(Config{Pool: pgtest.New(t).Pool, IDs: ids, Now: time.Now, ProviderURL: url, Deadline: time.Minute, Wake: func() {}, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	write := func(n int, traceID string) (calls []Call, claimed int) {
		t.Helper()
		var all Changes
		for range n {
			_, ch := Start(order.Ref{Owner: alice, ID: ids.Mint(time.Now(), 1)}, 1, order.Money{Amount: 500, Currency: "EUR"}, "pm_ok", p.recorder(1, traceID, "test", "test"))
			all.Add(ch)
		}
		p.Claim(all.Calls)
		if err := pg.InTx(t.Context(), p.cfg.Pool, func(tx pgx.Tx) error { return all.Write(t.Context(), tx, time.Minute) }); err != nil {
			t.Fatal(err)
		}
		for _, c := range all.Calls {
			if !c.Claimed.IsZero() {
				claimed++
			}
		}
		return all.Calls, claimed
	}
	const tries = "SELECT COALESCE(string_agg(DISTINCT tries || ' ' || fence || ' ' || (next_at IS NULL), ', '), '') FROM payment_calls WHERE trace_id = "
	if _, n := write(1, "not running"); n != 0 {
		t.Errorf("%d are claimed by a process that makes none", n)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { p.Run(ctx); close(ended) }()
	await(t, p, tries+"'not running'", "1 1 true") // by a poll
	_, n := write(concurrency, "lost")
	if n != cap(p.first) {
		t.Errorf("%d are claimed, want %d", n, cap(p.first))
	}
	await(t, p, "SELECT count(*)::text FROM payment_calls WHERE trace_id = 'lost' AND next_at IS NULL", strconv.Itoa(concurrency-n)) // the others were due
	asked.Store(0)
	calls, n := write(10, "begun")
	p.Begin(t.Context(), calls)
	await(t, p, tries+"'begun'", "1 1 true")
	if n != 10 || asked.Load() != 10 {
		t.Errorf("%d are claimed, the provider is asked %d times", n, asked.Load())
	}
	look(t, p, "WITH ended AS (UPDATE payment_calls SET next_at = now() WHERE trace_id = 'lost' AND next_at IS NOT NULL RETURNING 1) SELECT count(*)::text FROM ended")
	p.Wake()
	await(t, p, tries+"'lost'", "1 1 true, 2 2 true")

	calls, _ = write(1, "no room")
	for range cap(p.first) {
		p.first <- struct{}{}
	}
	p.Begin(t.Context(), calls)
	await(t, p, tries+"'no room'", "0 1 false") // it was no try
	for range cap(p.first) {
		<-p.first
	}
	await(t, p, tries+"'no room'", "1 2 true")

	calls, _ = write(1, "late")
	calls[0].Claimed = time.Now().Add(-2 * startLimit)
	p.Begin(t.Context(), calls)
	await(t, p, tries+"'late'", "1 2 true")

	calls, _ = write(1, "ended")
	stored, err := paymentdb.New(p.cfg.Pool).ClaimCalls(t.Context(), paymentdb.ClaimCallsParams{MaxCalls: 9, MaxNew: 9, MaxRepeated: 9})
	if err != nil || len(stored) != 0 {
		t.Errorf("%d claimed calls are claimed: %v", len(stored), err)
	}
	stop()
	<-ended
	p.Begin(t.Context(), calls)
	if got := look(t, p, tries+"'ended'"); got != "0 1 false" {
		t.Errorf("a call that Run does not take is %s", got)
	}
	stored, err = paymentdb.New(p.cfg.Pool).ClaimCalls(t.Context(), paymentdb.ClaimCallsParams{MaxCalls: 9, MaxNew: 9, MaxRepeated: 9})
	if err != nil || len(stored) != 1 {
		t.Fatal(len(stored), err)
	}
	ours := p.claimedRow(calls[0])
	if d := stored[0].SecondsLeft - ours.SecondsLeft; d < 0 || d > 5 {
		t.Errorf("%v seconds are left, the row says %v", ours.SecondsLeft, stored[0].SecondsLeft)
	}
	ours.SecondsLeft, ours.Fence = stored[0].SecondsLeft, 2
	if ours != stored[0] {
		t.Errorf("the call is %+v, the row %+v", ours, stored[0])
	}
}
