package contracttest

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// until lets a request hang until its client has gone.
func until(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	if strings.HasSuffix(r.URL.Path, "/stream") {
		_, _ = fmt.Fprint(w, ":\n\n")
		_ = http.NewResponseController(w).Flush()
	}
	<-r.Context().Done()
}

// hurried gives up on an answer at once.
func hurried() Options {
	return Options{Patience: 10 * time.Second, HTTP: &http.Client{Timeout: 100 * time.Millisecond}}
}

// TestAnOperationThatHangsIsAskedNoMore: it is told once, others are asked on, and the run goes on as long as one of them answers.
func TestAnOperationThatHangsIsAskedNoMore(t *testing.T) {
	t.Parallel()
	var hung atomic.Int32
	s := addressed(t, hurried(), func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/orders") {
			hung.Add(1)
			until(w, r)
		}
	})
	served := 0
	result := s.run(t.Context(), part{"asking", "", func(s *suite, ctx context.Context) {
		for _, op := range []string{"streamOrder", "getOrder", "placeOrder", "payOrder"} {
			for range 5 {
				s.send(ctx, call{op: op, arg: "ord_1"})
			}
		}
		if r, ok := s.send(ctx, call{op: "listProducts"}); ok && r.status == http.StatusOK {
			served++
		}
	}})
	if n := hung.Load(); s.dead || n != 4*maxHung || served != 1 {
		t.Errorf("it ended: %t (%s), %d requests hung, %d were served", s.dead, s.reason, n, served)
	}
	if got := strings.Count(messages(s), "gives no answer: it is asked no more"); got != 4 {
		t.Errorf("told %d times: %s", got, messages(s))
	}
	if got := messages(s); !strings.Contains(got, "no end of its answer") {
		t.Errorf("a stream that does not end is not told: %s", got)
	}
	again := s.run(t.Context(), part{"again", "", func(s *suite, ctx context.Context) { s.send(ctx, call{op: "getOrder", arg: "ord_1"}) }})
	if result.Result != Failed || again.Result != Skipped || !strings.Contains(again.Reason, "getOrder gives no answer") {
		t.Errorf("%+v, %+v", result, again)
	}
}

func TestAnAddressOfWhichNothingAnswersEndsTheRun(t *testing.T) {
	t.Parallel()
	s := addressed(t, hurried(), until)
	s.run(t.Context(), part{"asking", "", func(s *suite, ctx context.Context) {
		for _, op := range []string{"getOrder", "getPayment", "getRefund", "getShipment"} {
			s.send(ctx, call{op: op, arg: "x"})
		}
	}})
	if r := s.report(false); r.Verdict != CouldNotRun || !strings.Contains(r.Reason, "gives no answer any more") {
		t.Errorf("%s: %s", r.Verdict, r.Reason)
	}
}

// TestAnOperationThatIsAlwaysBusyIsAskedNoMore: it costs the run's patience twice.
func TestAnOperationThatIsAlwaysBusyIsAskedNoMore(t *testing.T) {
	t.Parallel()
	busy := refusing(http.StatusServiceUnavailable, "RATE_003", "1")
	s := addressed(t, Options{Patience: 500 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/orders") {
			busy(w, r)
		}
	})
	begin := s.requests
	for range 5 {
		s.send(t.Context(), call{op: "getOrder", arg: "x"})
		s.send(t.Context(), call{op: "listProducts"})
	}
	if asked := s.requests - begin; asked != 5+maxHung || s.dead || !strings.Contains(messages(s), "again and again") {
		t.Errorf("%d requests, %t, %s", asked, s.dead, messages(s))
	}
}

// TestTheTimeForAnAnswerGetsLess with each that hangs, and is never less than a request that waits may take.
func TestTheTimeForAnAnswerGetsLess(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		patience time.Duration
		hung     int
		prefer   string
		want     time.Duration
	}{
		{30 * time.Second, 0, "", 30 * time.Second},
		{time.Hour, 0, "", 30 * time.Second},
		{3 * time.Second, 0, "", 10 * time.Second},
		{30 * time.Second, 1, "", 15 * time.Second},
		{30 * time.Second, 9, "", 5 * time.Second},
		{30 * time.Second, 9, `handling=lenient, wait="10"`, 15 * time.Second},
	} {
		s := addressed(t, Options{Patience: tt.patience}, http.NotFound)
		s.hung = tt.hung
		if got := s.timeout(call{op: "placeOrder"}.with("Prefer", tt.prefer)); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}

// TestWhatIsMissedIsWaitedForTwice and no more after that.
func TestWhatIsMissedIsWaitedForTwice(t *testing.T) {
	t.Parallel()
	s := addressed(t, Options{}, http.NotFound)
	const patience = 500 * time.Millisecond
	var took []time.Duration
	for range 4 {
		begin := time.Now()
		s.poll(t.Context(), patience, reply{}, "what never comes", func() bool { return false })
		took = append(took, time.Since(begin))
	}
	if took[maxMissed-1] < patience || took[maxMissed] >= patience || took[maxMissed+1] >= patience {
		t.Error(took)
	}
}
