package guard

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/faults"
	"github.com/ordergate/ordergate/internal/panics"
)

const (
	concurrent = 20 // as many as the breaker needs to judge
	probes     = 3
)

var errDown = errors.New("down")

// setup returns a Guard that counts errDown as a failure, and its metric.
func setup(t *testing.T) (g *Guard, metric func() float64) {
	t.Helper()
	registry := prometheus.NewRegistry()
	g = New(Config{
		Name: "part", Concurrent: concurrent, Timeout: time.Second, Registry: registry,
		Failure: func(err error) bool { return errors.Is(err, errDown) },
	})
	return g, func() float64 {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		return families[0].GetMetric()[0].GetGauge().GetValue()
	}
}

// call makes a call that ends with a result. refused is the code that the guard refuses it with.
func call(t *testing.T, g *Guard, result error) (refused errcode.Code) {
	t.Helper()
	called := false
	err := g.Do(t.Context(), func(context.Context) error { called = true; return result })
	if !called {
		refused = apierr.From(err).Code
	}
	return refused
}

// queued makes a call that is refused by a queue of ours while it runs.
func queued(t *testing.T, g *Guard) (refused bool) {
	t.Helper()
	return call(t, g, apierr.E(errcode.RATE003)) != ""
}

// cancelled makes a call that the caller cancels while it runs.
func cancelled(t *testing.T, g *Guard) (refused bool) {
	t.Helper()
	refused = true
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_ = g.Do(ctx, func(context.Context) error { refused = false; cancel(); return errDown })
	return refused
}

// late makes a costly call that does not end within its limit.
func late(t *testing.T, g *Guard) (refused bool) {
	t.Helper()
	refused = true
	_ = g.DoCostly(t.Context(), time.Millisecond, func(ctx context.Context) error { refused = false; <-ctx.Done(); return errDown })
	return refused
}

// open opens the breaker with as few failures as can.
func open(t *testing.T, g *Guard) {
	t.Helper()
	for range 20 {
		if refused := call(t, g, errDown); refused != "" {
			t.Fatal("the breaker opened too early")
		}
	}
	if refused := call(t, g, nil); refused != errcode.SYS002 {
		t.Fatal("the breaker is not open")
	}
}

// halfOpen returns a Guard whose breaker lets probes through.
func halfOpen(t *testing.T) (g *Guard, metric func() float64) {
	t.Helper()
	g, metric = setup(t)
	open(t, g)
	<-time.After(openFor)
	return g, metric
}

// together makes calls until the guard refuses one with the code, lets the others end with a result, and counts them.
func together(t *testing.T, g *Guard, result error, code errcode.Code) (n int) {
	t.Helper()
	end := make(chan struct{})
	for before := -1; before < n; synctest.Wait() {
		before = n
		go func() {
			called := false
			err := g.Do(t.Context(), func(context.Context) error { n++; called = true; <-end; return result })
			if !called && apierr.From(err).Code != code {
				t.Errorf("refused: %v", err)
			}
		}()
	}
	close(end)
	synctest.Wait()
	return n
}

func TestABreakerOpensAndProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, metric := setup(t)
		if metric() != 0 {
			t.Error("the metric calls a new breaker open")
		}
		open(t, g)
		if metric() != 1 {
			t.Error("the metric calls it closed")
		}
		<-time.After(openFor)
		if n := together(t, g, nil, errcode.SYS002); n != probes {
			t.Errorf("%d probes", n)
		}
		if n := together(t, g, nil, errcode.RATE003); n != concurrent || metric() != 0 {
			t.Errorf("after successful probes it lets %d calls through; the metric is %v", n, metric())
		}
	})
}

func TestAFailedProbeOpensTheBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := halfOpen(t)
		if refused := call(t, g, errDown); refused != "" {
			t.Fatal(refused)
		}
		if refused := call(t, g, nil); refused != errcode.SYS002 {
			t.Error("it is not open")
		}
	})
}

func TestABusinessRefusalIsASuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, metric := halfOpen(t)
		for range 100 {
			if refused := call(t, g, errors.New("short stock")); refused != "" {
				t.Fatal(refused)
			}
		}
		if metric() != 0 {
			t.Error("the breaker is not closed")
		}
	})
}

func TestATimeoutIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, metric := setup(t)
		for range 20 {
			go func() {
				err := g.Do(t.Context(), func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
				if apierr.From(err).Code != errcode.SYS003 {
					t.Error(err)
				}
			}()
		}
		<-time.After(time.Second)
		synctest.Wait()
		if metric() != 1 {
			t.Error("the breaker is not open")
		}
	})
}

// A call that ends in a queue of ours, or with its caller, is neither a success nor a failure of the remote part.
func TestWhatSaysNothingOfTheRemotePartIsNotCounted(t *testing.T) {
	for name, c := range map[string]func(*testing.T, *Guard) (refused bool){
		"RATE_003 from within":  queued,
		"the caller cancelled":  cancelled,
		"a costly call is late": late,
	} {
		t.Run(name, func(t *testing.T) {
			t.Run("by a closed breaker", func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					g, _ := setup(t)
					for range 100 {
						if c(t, g) {
							t.Fatal("it opened")
						}
					}
					open(t, g) // by 20 failures, which 100 successes would outweigh
				})
			})
			t.Run("by a half-open breaker, which has its permits back", func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					g, metric := halfOpen(t)
					for range 100 {
						if c(t, g) {
							t.Fatal("a probe is refused")
						}
					}
					if n := together(t, g, errDown, errcode.SYS002); n != probes || metric() != 1 {
						t.Fatalf("%d probes; the metric is %v", n, metric())
					}
					<-time.After(openFor)
					if n := together(t, g, nil, errcode.SYS002); n != probes || metric() != 0 {
						t.Errorf("later %d probes; the metric is %v", n, metric())
					}
				})
			})
			t.Run("and its permit does not outlive the probes", func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					g, _ := halfOpen(t)
					_ = g.Do(t.Context(), func(context.Context) error { c(t, g); return errDown })
					<-time.After(openFor)
					if n := together(t, g, nil, errcode.SYS002); n != probes {
						t.Errorf("%d probes", n)
					}
				})
			})
		})
	}
}

// panicking are guards with a function each that panics, and what makes it do so.
func panicking(t *testing.T) map[string]*Guard {
	t.Helper()
	oh := func(error) bool { panic("oh") }
	all := map[string]*Guard{}
	for name, c := range map[string]Config{
		"the call, a failure":    {Failure: func(error) bool { return true }},
		"the call, no failure":   {Failure: func(error) bool { return false }},
		"the call, not counted":  {Uncounted: func(error) bool { return true }},
		"what tells the failure": {Failure: oh},
		"what tells the others":  {Uncounted: oh},
	} {
		if c.Failure == nil {
			c.Failure = func(error) bool { return true }
		}
		c.Name, c.Concurrent, c.Timeout = "part", concurrent, time.Second
		all[name] = New(c)
	}
	return all
}

// ways of a call through a guard.
var ways = map[string]func(*Guard, context.Context, func(context.Context) error) error{
	"Do": (*Guard).Do, "Try": (*Guard).Try, "DoCostly": func(g *Guard, ctx context.Context, fn func(context.Context) error) error {
		return g.DoCostly(ctx, time.Second, fn)
	},
}

// After a hundred panics all slots are free, and all permits of a half-open breaker.
func TestAPanicKeepsNoPermit(t *testing.T) {
	oh := func(context.Context) error { panic("oh") }
	for way, do := range ways {
		synctest.Test(t, func(t *testing.T) {
			for what, g := range panicking(t) {
				for range 100 {
					g.CloseBreaker()
					if err := do(g, t.Context(), oh); !errors.Is(err, panics.ErrPanic) {
						t.Fatal(way, what, err)
					}
				}
				g.CloseBreaker()
				if n := together(t, g, nil, errcode.RATE003); n != concurrent || g.inUse.Load() != 0 {
					t.Errorf("%s, %s: %d calls run at once, %d slots are in use", way, what, n, g.inUse.Load())
				}
				for range 100 {
					g.breaker.HalfOpen()
					if err := do(g, t.Context(), oh); !errors.Is(err, panics.ErrPanic) {
						t.Fatal(way, what, err)
					}
				}
				g.breaker.Open()
				<-time.After(openFor)
				if n := together(t, g, nil, errcode.SYS002); n != probes || g.state() != stateClosed {
					t.Errorf("%s, %s: %d probes, then %s", way, what, n, g.state())
				}
			}
		})
	}
}

// Its refusals cost nothing: no call, and no wait for the calls that hang.
func TestAnOpenBreakerRefusesAtOnce(t *testing.T) {
	for way, do := range ways {
		synctest.Test(t, func(t *testing.T) {
			g := New(Config{Name: "part", Concurrent: 3, Wait: time.Second, Timeout: 4 * time.Second, Failure: func(error) bool { return true }})
			for range 3 {
				go func() { _ = g.Do(t.Context(), func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }) }()
			}
			synctest.Wait()
			g.breaker.Open()
			begin, calls := time.Now(), 0
			for range 1000 {
				err := do(g, t.Context(), func(context.Context) error { calls++; return nil })
				if apierr.From(err).Code != errcode.SYS002 {
					t.Fatal(way, err)
				}
			}
			if calls > 0 || time.Since(begin) > 0 {
				t.Errorf("%s: %d calls, %v", way, calls, time.Since(begin))
			}
			<-time.After(openFor) // those that hang end
		})
	}
}

func TestMetricsOfAGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		g := New(Config{Name: "part", Concurrent: concurrent, Timeout: time.Second, Failure: func(error) bool { return true }, Registry: registry})
		shows := func(when, state string, open, inUse int) {
			t.Helper()
			want := fmt.Sprintf("breaker_open %d breaker_state closed=%v half_open=%v open=%v guard_permits %d guard_permits_in_use %d", open,
				oneIf(state == stateClosed), oneIf(state == stateHalfOpen), oneIf(state == stateOpen), concurrent, inUse)
			if got := metrics(t, registry); got != want {
				t.Errorf("%s:\n%s\n%s", when, got, want)
			}
		}
		shows("at first", stateClosed, 0, 0)
		end := make(chan struct{})
		for range 2 {
			go func() { _ = g.Do(t.Context(), func(context.Context) error { <-end; return nil }) }()
		}
		synctest.Wait()
		shows("with two calls", stateClosed, 0, 2)
		close(end)
		synctest.Wait()
		for range 30 {
			_ = g.Do(t.Context(), func(context.Context) error { return errDown })
		}
		shows("after failures", stateOpen, 1, 0)
		<-time.After(openFor)
		shows("when its time is over", stateHalfOpen, 1, 0)
		call(t, g, nil)
		shows("after a probe", stateHalfOpen, 1, 0)
		call(t, g, nil)
		call(t, g, nil)
		shows("after all probes", stateClosed, 0, 0)
	})
}

// metrics are those of a guard, in a line.
func metrics(t *testing.T, registry prometheus.Gatherer) string {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, f := range families {
		words = append(words, strings.TrimPrefix(f.GetName(), "ordergate_"))
		for _, m := range f.GetMetric() {
			value := fmt.Sprint(m.GetGauge().GetValue())
			for _, l := range m.GetLabel() {
				if l.GetName() == "state" {
					value = l.GetValue() + "=" + value
				}
			}
			words = append(words, value)
		}
	}
	return strings.Join(words, " ")
}

func TestACallWaitsForASlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{Concurrent: 1, Wait: time.Second, Timeout: 3 * time.Second, Failure: func(error) bool { return true }})
		end := make(chan struct{})
		go func() { _ = g.Do(t.Context(), func(context.Context) error { <-end; return nil }) }()
		synctest.Wait()
		if refused := call(t, g, nil); refused != errcode.RATE003 {
			t.Errorf("after its wait it is refused with %q", refused)
		}
		begin := time.Now()
		if err := g.Try(t.Context(), func(context.Context) error { return nil }); apierr.From(err).Code != errcode.RATE003 || time.Since(begin) > 0 {
			t.Errorf("one that does not wait is refused after %v with %v", time.Since(begin), err)
		}
		limited, cancel := context.WithTimeout(t.Context(), time.Second/4)
		defer cancel()
		if err := g.Do(limited, func(context.Context) error { return nil }); apierr.From(err).Code != errcode.RATE003 {
			t.Errorf("one whose time ends while it waits is refused with %v", err)
		}
		time.AfterFunc(time.Second/2, func() { close(end) })
		if refused := call(t, g, nil); refused != "" {
			t.Errorf("beside a call that ends in time it is refused with %s", refused)
		}
	})
}

// A part that few calls go to, each with the work of many: its breaker looks at the last ones, however many went well in the seconds before.
func TestABreakerOfTheLastCalls(t *testing.T) {
	t.Parallel()
	g := New(Config{Concurrent: 1, Timeout: time.Second, Failure: func(error) bool { return true }, Last: 10})
	for range 1000 {
		call(t, g, nil)
	}
	for n := range 6 {
		if refused := call(t, g, errDown); refused != "" {
			t.Fatalf("failure %d is refused with %s", n+1, refused)
		}
	}
	if refused := call(t, g, nil); refused != errcode.SYS002 {
		t.Error("it is not open after 6 of 10")
	}
}

func TestABreakerThatIsClosedByItsOwner(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, metric := setup(t)
		open(t, g)
		g.CloseBreaker()
		if metric() != 0 || g.Open() {
			t.Error("it is open")
		}
		for range 19 { // what it counted before is forgotten
			if refused := call(t, g, errDown); refused != "" {
				t.Fatal("a call is refused with", refused)
			}
		}
		open := call(t, g, errDown) == "" && call(t, g, nil) == errcode.SYS002
		if !open {
			t.Error("it does not open again")
		}
	})
}

// A costly call has a limit of its own, also a longer one.
func TestACostlyCallIsRefusedAtItsOwnLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, _ := setup(t)
		for takes, code := range map[time.Duration]errcode.Code{1500 * time.Millisecond: "", 3 * time.Second: errcode.RATE003} {
			begin := time.Now()
			err := g.DoCostly(t.Context(), 2*time.Second, func(ctx context.Context) error {
				select {
				case <-time.After(takes):
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			if took := time.Since(begin); took != min(takes, 2*time.Second) || err == nil && code != "" || err != nil && apierr.From(err).Code != code {
				t.Errorf("a call of %v ends after %v with %v", takes, took, err)
			}
		}
	})
}

// The time of a guard around another one says nothing of the inner one's part.
func TestTheTimeOfAnOuterGuard(t *testing.T) {
	t.Parallel()
	outer := New(Config{Name: "outer", Concurrent: 1, Timeout: 5 * time.Millisecond, Failure: func(error) bool { return true }})
	inner := New(Config{Name: "inner", Concurrent: 1, Timeout: time.Second, Failure: func(error) bool { return true }})
	for range 30 {
		_ = outer.Do(t.Context(), func(ctx context.Context) error {
			return inner.Do(ctx, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		})
	}
	if inner.Open() || !outer.Open() {
		t.Errorf("open: inner %v, outer %v", inner.Open(), outer.Open())
	}
}

// TestFailuresOnPurpose: they are refused as the guard refuses, or counted as neither success nor failure, so that no breaker opens.
func TestFailuresOnPurpose(t *testing.T) {
	g := New(Config{Name: "part", Concurrent: 1, Timeout: time.Second, Failure: func(error) bool { return true }, Registry: prometheus.NewRegistry()})
	for range 50 {
		for name, code := range map[faults.Name]errcode.Code{faults.PrimaryAway: errcode.SYS002, faults.QueueFull: errcode.RATE003} {
			called := false
			err := g.Do(faults.With(t.Context(), name), func(context.Context) error { called = true; return nil })
			if apierr.From(err).Code != code || called {
				t.Fatalf("%s: %v, called %v", name, err, called)
			}
		}
		if err := g.Do(faults.With(t.Context(), faults.Deadline), func(context.Context) error { return fmt.Errorf("deep: %w", faults.Err) }); !errors.Is(err, faults.Err) {
			t.Fatal(err)
		}
	}
	if err := g.Do(t.Context(), func(context.Context) error { return nil }); err != nil || g.Open() {
		t.Errorf("after them: %v", err)
	}
}
