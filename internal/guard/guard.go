// Package guard protects calls to a remote part: bulkhead(breaker(timeout(call))).
package guard

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/faults"
	"github.com/ordergate/ordergate/internal/panics"
)

// Config is a Guard's configuration. The breaker's thresholds are the same for every remote part; New has them.
type Config struct {
	Name       string           // of the remote part, for metrics
	Concurrent uint             // most concurrent calls; a further call is refused with RATE_003
	Wait       time.Duration    // time that a further call waits for a free slot before it is refused
	Timeout    time.Duration    // limit of a call, below 5 s: its context ends, and the caller gets SYS_003
	Failure    func(error) bool // tells the errors that the breaker counts; a business refusal is none
	// Uncounted tells the errors that say nothing of the remote part. It may ask that part, as long as that and Timeout together are below 5 s: it
	// is called after the call, within its slot and permit. It may be nil.
	Uncounted func(error) bool
	// Last is how many calls the breaker looks at: the last ones, for a part that few calls go to, each with the work of many. 0: those of 10 s.
	Last     uint
	Registry prometheus.Registerer // may be nil
}

// openFor is how long the breaker stays open. Every timeout is shorter, so no call that began before it opened ends among the probes.
const openFor = 5 * time.Second

var errTimeout = errors.New("guard: timeout")

// Guard limits the concurrency and the time of the calls to one remote part, and stops them while the part fails. Its breaker opens
// when at least 60 % of at least 20 calls within 10 s failed, or of the Last ones, stays open for 5 s, then lets 3 probes through and closes when they
// succeed.
type Guard struct {
	cfg      Config
	bulkhead bulkhead.Bulkhead[any]
	breaker  circuitbreaker.CircuitBreaker[any]
	inUse    atomic.Int64 // slots
	mu       sync.Mutex
	unused   int // permits of the half-open breaker of which nothing was recorded
}

// New returns a Guard. It panics if the timeout is not below 5 s.
func New(c Config) *Guard {
	if c.Timeout >= openFor {
		panic("guard: the timeout of " + c.Name + " is not below the time for which the breaker stays open")
	}
	g := &Guard{cfg: c, bulkhead: bulkhead.New[any](c.Concurrent)}
	b := circuitbreaker.NewBuilder[any]().WithFailureRateThreshold(0.6, 20, 10*time.Second)
	if c.Last > 0 {
		b = circuitbreaker.NewBuilder[any]().WithFailureThresholdRatio((c.Last*6+9)/10, c.Last)
	}
	g.breaker = b.
		WithDelay(openFor).
		WithSuccessThreshold(3).
		Build()
	g.register(promauto.With(c.Registry))
	return g
}

// register makes the metrics of the guard.
func (g *Guard) register(m promauto.Factory) {
	gauge := func(name, help, state string, value func() float64) {
		labels := prometheus.Labels{"part": g.cfg.Name}
		if state != "" {
			labels["state"] = state
		}
		m.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, value)
	}
	gauge("ordergate_breaker_open", "1 while the breaker of the remote part is not closed.", "", func() float64 { return oneIf(!g.breaker.IsClosed()) })
	for _, state := range []string{stateClosed, stateHalfOpen, stateOpen} {
		gauge("ordergate_breaker_state", "1 at the state of the remote part's breaker.", state, func() float64 { return oneIf(g.state() == state) })
	}
	gauge("ordergate_guard_permits_in_use", "Calls to the remote part that run.", "", func() float64 { return float64(g.inUse.Load()) })
	gauge("ordergate_guard_permits", "Calls to the remote part that may run at once.", "", func() float64 { return float64(g.cfg.Concurrent) })
}

// States of a breaker, as the metric names them.
const stateClosed, stateHalfOpen, stateOpen = "closed", "half_open", "open"

// state is the breaker's. One whose time is over lets probes pass, before the first has come, too.
func (g *Guard) state() string {
	switch {
	case g.breaker.IsClosed():
		return stateClosed
	case g.Open():
		return stateOpen
	}
	return stateHalfOpen
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// Open tells that calls are refused now. It lets probes pass: once the breaker's time is over it is false.
func (g *Guard) Open() bool { return g.breaker.IsOpen() && g.breaker.RemainingDelay() > 0 }

// CloseBreaker lets calls pass at once. It is for a caller that has found out in another way that the remote part is well.
func (g *Guard) CloseBreaker() { g.breaker.Close() }

// Do calls fn with a context that ends at the timeout, and waits for it: fn must respect its context. A panic in fn, or in the functions of the
// Config, becomes an error, so that no permit is lost. While the breaker is open nothing is waited for. The guard itself refuses with RATE_003 (full, also if ctx has no more time to wait), SYS_002 (breaker open) and SYS_003 (timeout).
// RATE_003 from fn (a queue of ours), any error after the caller cancelled ctx, failures on purpose, and those that Uncounted names say nothing of
// the remote part: for the breaker they are neither a success nor a failure.
func (g *Guard) Do(ctx context.Context, fn func(context.Context) error) error {
	return g.do(ctx, g.cfg.Wait, g.cfg.Timeout, fn, g.late)
}

// Try is Do without the wait for a free slot: it is for a caller that may ask another part instead.
func (g *Guard) Try(ctx context.Context, fn func(context.Context) error) error {
	return g.do(ctx, 0, g.cfg.Timeout, fn, g.late)
}

// DoCostly is Do for a call that may take long on a remote part that is well. Its limit, below 5 s, is its own, and past it the call is refused
// with RATE_003: for the breaker that is neither a success nor a failure.
func (g *Guard) DoCostly(ctx context.Context, limit time.Duration, fn func(context.Context) error) error {
	return g.do(ctx, g.cfg.Wait, limit, fn, func() error {
		g.leavePermit()
		return apierr.E(errcode.RATE003, apierr.Cause(errTimeout))
	})
}

// late is a call whose time is over.
func (g *Guard) late() error {
	g.breaker.RecordFailure()
	return apierr.E(errcode.SYS003, apierr.Cause(errTimeout))
}

func (g *Guard) do(ctx context.Context, wait, limit time.Duration, fn func(context.Context) error, late func() error) error {
	switch faults.In(ctx) {
	case faults.QueueFull:
		return apierr.E(errcode.RATE003, apierr.Cause(errors.Join(faults.Err, bulkhead.ErrFull)))
	case faults.PrimaryAway:
		return apierr.E(errcode.SYS002, apierr.Cause(errors.Join(faults.Err, circuitbreaker.ErrOpen)))
	default:
	}
	if g.Open() { // nobody waits for a slot to be told
		return apierr.E(errcode.SYS002, apierr.Cause(circuitbreaker.ErrOpen))
	}
	if err := g.bulkhead.AcquirePermitWithMaxWait(ctx, wait); errors.Is(err, bulkhead.ErrFull) || errors.Is(err, context.DeadlineExceeded) {
		return apierr.E(errcode.RATE003, apierr.Cause(err))
	} else if err != nil {
		return err
	}
	g.inUse.Add(1)
	defer func() {
		g.inUse.Add(-1)
		g.bulkhead.ReleasePermit()
	}()
	if !g.tryAcquirePermit() {
		return apierr.E(errcode.SYS002, apierr.Cause(circuitbreaker.ErrOpen))
	}
	limited, cancel := context.WithTimeoutCause(ctx, limit, errTimeout)
	defer cancel()
	err := panics.Catch(func() error { return fn(limited) })
	judged := false
	if broken := panics.Catch(func() error { err, judged = g.judge(ctx, limited, err, late), true; return nil }); !judged {
		g.leavePermit()
		return errors.Join(err, broken)
	}
	return err
}

// judge tells the breaker how a call ended, once, and returns what the caller gets of it.
func (g *Guard) judge(ctx, limited context.Context, err error, late func() error) error {
	switch {
	case err == nil:
		g.breaker.RecordSuccess()
	case errors.Is(context.Cause(ctx), errTimeout): // the time of a guard around this one is over
		g.leavePermit()
	case errors.Is(context.Cause(limited), errTimeout):
		return late()
	case errors.Is(err, faults.Err) || errors.Is(ctx.Err(), context.Canceled) || apierr.From(err).Code == errcode.RATE003 || g.cfg.Uncounted != nil && g.cfg.Uncounted(err):
		g.leavePermit()
	case g.cfg.Failure(err):
		g.breaker.RecordFailure()
	default:
		g.breaker.RecordSuccess()
	}
	return err
}

// leavePermit is for a call of which nothing is recorded.
func (g *Guard) leavePermit() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unused++
}

// tryAcquirePermit asks the breaker whether a call may pass. A half-open breaker counts a permit as in use until a success or a failure
// is recorded, so a permit of which nothing is recorded goes to the next call here. Other states count none.
func (g *Guard) tryAcquirePermit() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.breaker.IsHalfOpen() {
		g.unused = 0
	}
	if g.unused > 0 {
		g.unused--
		return true
	}
	return g.breaker.TryAcquirePermit()
}
