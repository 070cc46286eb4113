package contracttest

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ordergate/ordergate/gen/api"
)

// addressed is a suite against a handler, whose first part is over.
func addressed(t *testing.T, o Options, answer http.HandlerFunc) *suite {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	o.BaseURL, o.Key = server.URL, "og_test_x"
	s, err := newSuite(o)
	if err != nil {
		t.Fatal(err)
	}
	s.registry, s.began = map[string]api.ErrorCode{}, true
	s.goods, s.product = &goods{}, &created{} // nothing can be ordered
	return s
}

// refusing answers with a code and a Retry-After, if there is one.
func refusing(status int, code, retryAfter string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"status":%d,"code":%q}`, status, code)
	}
}

var fuzzing = part{"fuzzing", "*", (*suite).fuzz}

func TestTheFuzzingEnds(t *testing.T) {
	t.Parallel()
	t.Run("when nothing but requests to wait are answered, as could not run", func(t *testing.T) {
		t.Parallel()
		s := addressed(t, Options{Only: []string{"getError"}, Requests: 1000, Patience: 1100 * time.Millisecond}, refusing(503, "RATE_003", "1"))
		s.run(t.Context(), fuzzing)
		s.findings = nil // about the form of the answers
		if r := s.report(false); r.Verdict != CouldNotRun || r.Coverage.Fuzzed != 0 || !strings.Contains(r.Reason, "answered 503 again and again (RATE_003)") {
			t.Errorf("%s: %s, after %d answers", r.Verdict, r.Reason, r.Coverage.Fuzzed)
		}
	})
	t.Run("when it lasts too long, and says so", func(t *testing.T) {
		t.Parallel()
		s := addressed(t, Options{Only: []string{"getError"}, Requests: 1 << 30, Patience: 20 * time.Millisecond}, refusing(404, "ERR_001", ""))
		s.run(t.Context(), fuzzing)
		if fuzzed := s.coverage.Fuzzed; fuzzed == 0 || fuzzed >= 1<<30 || !strings.Contains(s.lacking, fmt.Sprintf("of %d requests", 1<<30)) {
			t.Errorf("%d answers, %q", fuzzed, s.lacking)
		}
	})
}

func TestTheFuzzingForgivesNothingButBusyness(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		found  bool
	}{
		"503 of a queue that is full":            {refusing(503, "RATE_003", "0"), false},
		"502 of a provider that fails":           {refusing(502, "PAY_006", ""), false},
		"504 of a provider that does not answer": {refusing(504, "PAY_003", ""), false},
		"503 of a database, with Retry-After":    {refusing(503, "SYS_002", "0"), true},
		"502 of a proxy":                         {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "Bad Gateway", http.StatusBadGateway) }, true},
		"504 of a proxy": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "Gateway Timeout", http.StatusGatewayTimeout)
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := addressed(t, Options{Only: []string{"getError"}, Requests: 20, Patience: 50 * time.Millisecond}, tt.answer)
			s.run(t.Context(), fuzzing)
			found := false
			for _, f := range s.findings {
				found = found || strings.Contains(f.Message, "nothing was wrong with the address")
			}
			if found != tt.found {
				t.Errorf("found: %t; %v", found, s.findings)
			}
		})
	}
}

// TestAPanicIsAFinding: wherever an answer leads a check into a panic, the run goes on, and names the answer.
func TestAPanicIsAFinding(t *testing.T) {
	t.Parallel()
	for name, run := range map[string]func(*suite, context.Context){
		"of one request":         func(s *suite, ctx context.Context) { s.send(ctx, call{op: "listErrors"}) },
		"of requests at once":    func(s *suite, ctx context.Context) { s.together(ctx, 8, call{op: "listErrors"}) },
		"of the fuzzing's, each": (*suite).fuzz,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := addressed(t, Options{Requests: 100}, refusing(404, "ORD_001", ""))
			s.now = func() time.Time { panic("no time") } // it is asked when an answer is held against the facts
			ended := make(chan bool)
			go func() {
				s.run(t.Context(), part{"panicking", "*", run})
				close(ended)
			}()
			select {
			case <-ended:
			case <-time.After(time.Minute):
				t.Fatal("the run does not end")
			}
			found := 0
			for _, f := range s.findings {
				if strings.Contains(f.Message, "breaks off the check") && strings.Contains(f.Message, "no time") {
					found++
				}
				if f.Request == "" || f.Status != 404 {
					t.Errorf("%v names no answer", f)
				}
			}
			if found == 0 {
				t.Errorf("no finding tells the panic: %v", s.findings)
			}
		})
	}
}

func TestAnAddressThatStopsAnsweringEndsTheRun(t *testing.T) {
	t.Parallel()
	s := addressed(t, Options{Patience: time.Second}, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_ = conn.Close()
		}
	})
	asked := 0
	s.run(t.Context(), part{"asking", "", func(s *suite, ctx context.Context) {
		for range 10 {
			if s.send(ctx, call{op: "listOrders"}); !s.dead {
				asked++
			}
		}
	}})
	r := s.report(false)
	if asked != maxWaitsInVain-1 || r.Code() != 2 || !strings.Contains(r.Reason, "gives no answer any more") {
		t.Errorf("%d requests, %s", asked, r)
	}
}

// bucket answers as an address whose keys may send some requests a second does, and counts those that it refuses.
type bucket struct {
	mu      sync.Mutex
	limit   float64
	left    float64
	at      time.Time
	refused int
}

func (b *bucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.left = min(b.limit, b.left+now.Sub(b.at).Seconds()*b.limit)
	b.at = now
	if b.left < 1 {
		b.refused++
		refusing(429, "RATE_001", "1")(w, r)
		return
	}
	b.left--
	w.Header().Set("RateLimit-Policy", fmt.Sprintf(`"default";q=%d;w=1`, int(b.limit)))
	w.Header().Set("RateLimit", fmt.Sprintf(`"default";r=%d;t=1`, int(b.left)))
	refusing(404, "ORD_001", "")(w, r)
}

func TestTheRunKeepsWithinTheLimitOfItsKey(t *testing.T) {
	t.Parallel()
	t.Run("a limit that is large enough slows the run down", func(t *testing.T) {
		t.Parallel()
		b := &bucket{limit: 40, left: 40, at: time.Now()}
		s := addressed(t, Options{}, b.ServeHTTP)
		for range 60 {
			s.send(t.Context(), call{op: "listOrders"})
		}
		s.together(t.Context(), 8, call{op: "listOrders"})
		if b.refused > 0 {
			t.Errorf("%d requests were beyond the limit", b.refused)
		}
	})
	t.Run("a limit that is too small ends it with a reason", func(t *testing.T) {
		t.Parallel()
		b := &bucket{limit: 5, left: 5, at: time.Now()}
		s := addressed(t, Options{}, b.ServeHTTP)
		s.began = false
		s.run(t.Context(), part{"key", "", (*suite).key})
		if r := s.report(false); r.Code() != 2 || !strings.Contains(r.Reason, `the limit of the key, "default";q=5;w=1, is too small: a run needs 10 requests a second`) {
			t.Errorf("%d: %s", r.Code(), r.Reason)
		}
	})
}

func TestTheVerdict(t *testing.T) {
	t.Parallel()
	found, passedKey := []Finding{{Message: "x"}}, PartResult{Name: "key", Result: Passed}
	for name, tt := range map[string]struct {
		s           *suite
		interrupted bool
		code        int
		reason      string
	}{
		"all is well":                                {&suite{results: []PartResult{passedKey, {Name: "placing", Result: Passed}}}, false, 0, ""},
		"something was found":                        {&suite{findings: found}, false, 1, ""},
		"something was found, then it was gone":      {&suite{findings: found, began: true, dead: true, reason: "gone"}, false, 1, "gone"},
		"something was found, then interrupted":      {&suite{findings: found, began: true}, true, 1, "it was interrupted"},
		"the run never began":                        {&suite{findings: found, dead: true, reason: "no key"}, false, 2, "no key"},
		"it was gone":                                {&suite{began: true, dead: true, reason: "gone"}, false, 2, "gone"},
		"interrupted":                                {&suite{began: true}, true, 2, "it was interrupted"},
		"all that was chosen was skipped":            {&suite{results: []PartResult{passedKey, {Name: "callbacks", Result: Skipped, Reason: "no secret"}}}, false, 2, "callbacks was not tested: no secret"},
		"nothing was chosen":                         {&suite{results: []PartResult{passedKey}}, false, 2, "no part was chosen"},
		"what was chosen was skipped, beside others": {&suite{Options: Options{Only: []string{"callbacks"}}, results: []PartResult{passedKey, {Name: "admission", Result: Passed}, {Name: "callbacks", Result: Skipped, Reason: "no secret"}}}, false, 2, "callbacks was not tested: no secret"},
		"one of all was skipped":                     {&suite{results: []PartResult{passedKey, {Name: "admission", Result: Passed}, {Name: "callbacks", Result: Skipped, Reason: "no secret"}}}, false, 0, ""},
		"the key alone was chosen":                   {&suite{Options: Options{Only: []string{"key"}}, results: []PartResult{passedKey}}, false, 0, ""},
		"the account lacks what a part cannot miss":  {&suite{reason: "no products", results: []PartResult{passedKey}}, false, 2, "no products"},
	} {
		tt.s.contract = things(t)
		tt.s.now = time.Now
		if r := tt.s.report(tt.interrupted); r.Code() != tt.code || r.Reason != tt.reason {
			t.Errorf("%s: %d %q, want %d %q", name, r.Code(), r.Reason, tt.code, tt.reason)
		}
	}
	if code := (&Report{Verdict: "some other"}).Code(); code != 2 {
		t.Errorf("a verdict that is none: %d", code)
	}
}

func TestAKeyThatLacksScopesEndsTheRunWithTheirNames(t *testing.T) {
	t.Parallel()
	s := addressed(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/shipments") || r.Method == http.MethodPatch {
			refusing(403, "AUTH_005", "")(w, r)
			return
		}
		refusing(406, "REQ_007", "")(w, r)
	})
	s.began = false
	s.run(t.Context(), part{"key", "", (*suite).key})
	const want = "the key lacks the scopes shipments:read, shipments:write, and a run needs all"
	if r := s.report(false); r.Code() != 2 || !strings.Contains(r.Reason, want) {
		t.Errorf("%d: %s", r.Code(), r.Reason)
	}
}

func TestAnotherSecretOfTheProviderIsNoFinding(t *testing.T) {
	t.Parallel()
	asked := 0
	s := addressed(t, Options{ProviderSecret: "another", Only: []string{providerCallback}}, func(w http.ResponseWriter, _ *http.Request) {
		asked++
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"status":401,"code":"AUTH_007"}`)
	})
	for _, name := range []string{"wrong bodies", "faults", "callbacks"} {
		s.lacking = ""
		for _, p := range derived {
			if p.name == name {
				p.run(s, t.Context())
			}
		}
	}
	if got := messages(s); strings.Contains(got, "is not REQ_") || asked != 2 || !strings.Contains(s.lacking, "refuses what --provider-secret signs") { // one asks for the secret, one for faults
		t.Errorf("%d requests, %q: %s", asked, s.lacking, got)
	}
}
