// Package guard protects calls to a remote part: bulkhead(breaker(timeout(call))).
package guard

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/timeout"
	"github.com/prometheus/client_golang/prometheus"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
)

// Config is a Guard's configuration. The breaker's thresholds are the same for every remote part; New has them.
type Config struct {
	Name       string                // of the remote part, for metrics
	Concurrent uint                  // most concurrent calls; a further call is refused with RATE_003
	Wait       time.Duration         // time that a further call waits for a free slot before it is refused
	Timeout    time.Duration         // limit of a call: its context ends, and the caller gets SYS_003
	Failure    func(error) bool      // tells the errors that the breaker counts; a business refusal is none
	Registry   prometheus.Registerer // may be nil
}

// Guard limits the concurrency and the time of the calls to one remote part, and stops them while the part fails. Its breaker opens when at least 60 % of at least 20 calls within
// 10 s failed, stays open for 5 s, then lets 3 probes through and closes when they succeed.
type Guard struct {
	exec    failsafe.Executor[any]
	breaker circuitbreaker.CircuitBreaker[any]
}

// New returns a Guard.
func New(c Config) *Guard {
	g := &Guard{}
	g.breaker = circuitbreaker.NewBuilder[any]().
		HandleIf(func(_ any, err error) bool {
			return err != nil && (errors.Is(err, timeout.ErrExceeded) || c.Failure(err))
		}).
		WithFailureRateThreshold(0.6, 20, 10*time.Second).
		WithDelay(5 * time.Second).
		WithSuccessThreshold(3).
		Build()
	g.exec = failsafe.With[any](bulkhead.NewBuilder[any](c.Concurrent).WithMaxWaitTime(c.Wait).Build(), g.breaker, timeout.New[any](c.Timeout))
	if c.Registry != nil {
		c.Registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "ordergate_breaker_open", Help: "1 while the breaker of the remote part is not closed.",
			ConstLabels: prometheus.Labels{"part": c.Name},
		}, func() float64 {
			if g.breaker.IsClosed() {
				return 0
			}
			return 1
		}))
	}
	return g
}

// Do calls fn with a context that ends at the timeout, and waits for it: fn must respect its context. A panic in fn becomes an
// error, so that no permit is lost. The guard itself refuses with RATE_003 (full), SYS_002 (breaker open) and SYS_003 (timeout).
func (g *Guard) Do(ctx context.Context, fn func(context.Context) error) error {
	err := g.exec.WithContext(ctx).RunWithExecution(func(e failsafe.Execution[any]) (err error) { //nolint:contextcheck // the execution's context is derived from ctx
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("panic: %v", r)
			}
		}()
		return fn(e.Context())
	})
	switch {
	case errors.Is(err, bulkhead.ErrFull):
		return apierr.E(errcode.RATE003, apierr.Cause(err))
	case errors.Is(err, circuitbreaker.ErrOpen):
		return apierr.E(errcode.SYS002, apierr.Cause(err))
	case errors.Is(err, timeout.ErrExceeded):
		return apierr.E(errcode.SYS003, apierr.Cause(err))
	}
	return err
}

// Closed tells whether the breaker lets calls through.
func (g *Guard) Closed() bool { return g.breaker.IsClosed() }
