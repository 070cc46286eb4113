package psp

import (
	"fmt"
	"strings"
	"testing"
	"time"

	contract "github.com/ordergate/ordergate/gen/psp"
)

func TestParseFaults(t *testing.T) {
	for text, want := range map[string]Faults{
		"": {},
		"timeout=0.2,error=0.1,double=0.1,late=0.05,callback-lost=0.2,callback-double=0.2,callback-delay=2s": {
			Timeout: 0.2, Error: 0.1, Double: 0.1, Late: 0.05, CallbackLost: 0.2, CallbackDouble: 0.2, CallbackDelay: 2 * time.Second,
		},
		"late=1":                        {Late: 1},
		"error=0":                       {},
		"timeout=0.7,error=0.2,late=.1": {Timeout: 0.7, Error: 0.2, Late: 0.1},
	} {
		if got, err := ParseFaults(text); got != want || err != nil {
			t.Errorf("%q: %+v %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"rubbish":               `there is no fault "rubbish"; there are timeout, `,
		"timeouts=0.1":          `there is no fault "timeouts"`,
		"timeout=0.1,":          `there is no fault ""`,
		"timeout=0.1, error=1":  `there is no fault " error"`,
		"timeout":               `timeout="": a share from 0 to 1`,
		"timeout=x":             `timeout="x": a share from 0 to 1`,
		"timeout=1.1":           `timeout="1.1": a share from 0 to 1`,
		"timeout=-0.1":          `timeout="-0.1": a share from 0 to 1`,
		"timeout=NaN":           `timeout="NaN": a share from 0 to 1`,
		"timeout=20%":           `timeout="20%": a share from 0 to 1`,
		"late=0.1,late=0.2":     "late is named twice",
		"callback-delay=2":      `callback-delay="2": a duration from 0s to 1h0m0s`,
		"callback-delay=-1s":    `callback-delay="-1s": a duration`,
		"callback-delay=2h":     `callback-delay="2h": a duration`,
		"timeout=0.6,error=0.5": "more than 1 together",
	} {
		if got, err := ParseFaults(text); err == nil || !strings.Contains(err.Error(), want) || got != (Faults{}) {
			t.Errorf("%q: %+v %v, want %q", text, got, err, want)
		}
	}
}

// TestFaultsHaveTheirShares: of many keys each fault strikes about its share, the same keys again with the same seed, and only pm_ok.
func TestFaultsHaveTheirShares(t *testing.T) {
	f := Faults{Timeout: 0.2, Error: 0.1, Double: 0.1, Late: 0.05, Seed: 7}
	other := f
	other.Seed = 8
	count, differ := map[string]int{}, 0
	const keys = 10_000
	for i := range keys {
		key := fmt.Sprintf("pay_%032x-authorize", i)
		token := f.token(key, "pm_ok")
		count[token]++
		if token != f.token(key, "pm_ok") {
			t.Fatal("not the same again: ", key)
		}
		if token != other.token(key, "pm_ok") {
			differ++
		}
		for _, sent := range []string{"", "pm_declined", "pm_slow"} {
			if got := f.token(key, sent); got != sent {
				t.Fatalf("%q became %q", sent, got)
			}
		}
	}
	for token, share := range map[string]float64{"pm_timeout_charged": 0.2, "pm_flaky": 0.1, "pm_duplicate": 0.1, "pm_late": 0.05, "pm_ok": 0.55} {
		if got := float64(count[token]) / keys; got < share-0.02 || got > share+0.02 {
			t.Errorf("%s: %v, want %v", token, got, share)
		}
	}
	if differ < keys/4 {
		t.Errorf("another seed changes %d of %d", differ, keys)
	}
	for i := range 100 {
		if got := (Faults{}).token(fmt.Sprint("k", i), "pm_ok"); got != "pm_ok" {
			t.Fatalf("without faults %s", got)
		}
	}
}

// TestFaultsOfRequests: a fault does to pm_ok what its token does, and nothing to operations without a token.
func TestFaultsOfRequests(t *testing.T) {
	with := func(t *testing.T, f Faults) *provider {
		t.Helper()
		t.Parallel()
		p := start(t, Config{Dir: t.TempDir(), Faults: f})
		equal(t, "without a token", p.outcome("c", request(contract.KindCapture, "pay", 1000, "")), "422 not_authorized")
		equal(t, "another token", p.outcome("d", authorize("pay2", "pm_declined")), "declined insufficient_funds")
		return p
	}
	t.Run("timeout", func(t *testing.T) {
		p := with(t, Faults{Timeout: 1})
		equal(t, "wait", p.abandon("k", authorize("pay", "pm_ok")), time.Minute)
		equal(t, "GET", p.get("k").JSON200.Status, contract.StatusSucceeded)
		equal(t, "second", p.outcome("k", authorize("pay", "pm_ok")), "succeeded")
	})
	t.Run("error", func(t *testing.T) {
		p := with(t, Faults{Error: 1})
		equal(t, "first", p.outcome("k", authorize("pay", "pm_ok")), "500 internal")
		equal(t, "GET", p.get("k").StatusCode(), 404)
		equal(t, "second", p.outcome("k", authorize("pay", "pm_ok")), "500 internal")
		equal(t, "third", p.outcome("k", authorize("pay", "pm_ok")), "succeeded")
	})
	t.Run("double", func(t *testing.T) {
		p := with(t, Faults{Double: 1})
		equal(t, "first", p.outcome("k", authorize("pay", "pm_ok")), "succeeded")
		equal(t, "the next answer's key", p.put("other", authorize("pay3", "pm_ok")).JSON200.Key, "k")
	})
	t.Run("late", func(t *testing.T) {
		p := with(t, Faults{Late: 1})
		equal(t, "wait", p.abandon("k", authorize("pay", "pm_ok")), 30*time.Second)
		close(p.release)
		equal(t, "outcome", p.outcome("k", authorize("pay", "pm_ok")), "succeeded")
	})
}
