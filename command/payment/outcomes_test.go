package payment

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ordergate/ordergate/gen/paymentdb"
	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/order/pay"
)

// TestOutcomesThatWaitAreOneTransaction: of six outcomes that wait at the same moment, one is of a payment that another transaction holds, one of a
// lost lease, one of a payment that is gone, and one is what the database refuses. The other two are written at once, in one transaction; the held one
// when its payment is free.
func TestOutcomesThatWaitAreOneTransaction(t *testing.T) {
	t.Parallel()
	s := sweeping(t, pgtest.New(t).Pool)
	ctx := t.Context()
	const good, also, held, lost, gone, refused = 0, 1, 2, 3, 4, 5
	open(t, s.Payment, "pm_ok", "0", "1", "2", "3", "4", "5")
	claimed, err := s.claim(ctx, paymentdb.ClaimCallsParams{MaxCalls: 9, MaxNew: 9, MaxRepeated: 9})
	s.must(err)
	slices.SortFunc(claimed, func(a, b paymentdb.ClaimCallsRow) int { return int(a.TraceID[0]) - int(b.TraceID[0]) })
	claimed[lost].Fence--
	s.exec("DELETE FROM payments WHERE id = $1", claimed[gone].PaymentID)
	s.exec(fmt.Sprintf("ALTER TABLE payments ADD CHECK (id <> '%s' OR status = 'pending')", claimed[refused].PaymentID))
	together := func(which ...int) (results []chan error) {
		s.completions.mu.Lock()
		s.completions.running = true // until all wait
		s.completions.mu.Unlock()
		for _, n := range which {
			done := make(chan error, 1)
			results = append(results, done)
			go func() { done <- s.complete(ctx, claimed[n], Outcome{Reference: "r"}) }()
		}
		for waiting := 0; waiting < len(which); <-time.After(time.Millisecond) {
			s.completions.mu.Lock()
			waiting = len(s.completions.waiting)
			s.completions.mu.Unlock()
		}
		go s.writeAll(ctx)
		return results
	}
	tx, err := s.pool.Begin(ctx)
	s.must(err)
	_, err = lock(ctx, tx, order.RefOf(1, "test", claimed[held].PaymentID))
	s.must(err)
	results := together(good, also, held, lost, gone)
	for n, want := range map[int]error{good: nil, also: nil, lost: errLeaseLost, gone: errGone} {
		if err := <-results[n]; !errors.Is(err, want) {
			t.Errorf("%d: %v, want %v", n, err, want)
		}
	}
	if n := look(t, s.Payment, "SELECT count(DISTINCT xmin::text)::text FROM payments WHERE status = 'authorized'"); n != "1" {
		t.Errorf("%s transactions wrote what waited together", n)
	}
	if n := look(t, s.Payment, "SELECT count(*)::text FROM payments WHERE status = 'authorized'"); n != "2" {
		t.Errorf("%s payments are authorized while one is held", n)
	}
	s.must(tx.Rollback(ctx))
	s.must(<-results[held])

	open(t, s.Payment, "pm_ok", "6")
	more, err := s.claim(ctx, paymentdb.ClaimCallsParams{MaxCalls: 9, MaxNew: 9, MaxRepeated: 9})
	s.must(err)
	claimed = append(claimed, more...)
	results = together(refused, 6)
	if e, ok := errors.AsType[*pgconn.PgError](<-results[0]); !ok || e.Code != "23514" {
		t.Errorf("what the database refuses: %v", e)
	}
	s.must(<-results[1])
	if got := look(t, s.Payment, "SELECT string_agg(trace_id || ' ' || (next_at IS NULL), ', ' ORDER BY trace_id) FROM payment_calls"); got != "0 true, 1 true, 2 true, 3 false, 4 false, 5 false, 6 true" {
		t.Errorf("definite calls: %s", got)
	}
	if got := look(t, s.Payment, heard); got != "authorize authorize authorize authorize" {
		t.Errorf("the saga heard %s", got)
	}
}

// TestTwoOutcomesOfAPaymentFollowEachOther: a batch has one outcome of a payment at most, and the second sees what the first made of it.
func TestTwoOutcomesOfAPaymentFollowEachOther(t *testing.T) {
	t.Parallel()
	s := sweeping(t, pgtest.New(t).Pool)
	ctx, ref := t.Context(), order.Ref{Owner: alice, ID: s.payment(pay.StatusCaptured)}
	for range 2 {
		s.giveBack(ref, &order.Money{Amount: 200, Currency: "EUR"}, "")
	}
	claimed, err := s.claim(ctx, paymentdb.ClaimCallsParams{MaxCalls: 9, MaxNew: 9, MaxRepeated: 9})
	s.must(err)
	s.completions.waiting = []*completion{{call: claimed[0], ended: make(chan struct{})}, {call: claimed[1], ended: make(chan struct{})}}
	both := slices.Clone(s.completions.waiting)
	if batch := s.completions.next(); len(batch) != 1 || batch[0] != both[0] {
		t.Errorf("a batch has %d outcomes of one payment", len(batch))
	}
	s.completions.waiting = slices.Clone(both)
	s.writeAll(ctx)
	for _, one := range both {
		s.must(one.err)
	}
	if got := look(t, s.Payment, "SELECT refunded || ' ' || refund_pending FROM payments"); got != "400 0" {
		t.Errorf("refunded and pending: %s", got)
	}
}
