package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ordergate/ordergate/internal/failpoint"
)

const (
	finalWithin = 10 * time.Second      // of a restart
	placeEvery  = 25 * time.Millisecond // in each lane
	hitWithin   = 30 * time.Second      // of the start with an armed failpoint
)

// pointsOf are the failpoints whose names begin so.
func pointsOf(begin string) (points []failpoint.Point) {
	for _, p := range failpoint.All {
		if strings.HasPrefix(string(p), begin) {
			points = append(points, p)
		}
	}
	return points
}

// failpoints kills the API or the worker at each failpoint while orders are placed, paid and cancelled, and starts it again. Within 10 s of
// the restart every order with a payment is final, each key that was answered has its order and no other, each accepted cancellation
// has taken place, and in the end `ordergate verify` finds nothing.
func failpoints(ctx context.Context, c *campaign) error {
	all := pointsOf(c.only)
	points := make(chan failpoint.Point, len(all))
	for _, p := range all {
		points <- p
	}
	close(points)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var lanes sync.WaitGroup
	for range c.lanes {
		lanes.Go(func() {
			i, err := c.install(ctx, killable, 8*time.Second)
			if err != nil {
				cancel(err)
				return
			}
			defer func() {
				if err := i.remove(ctx); err != nil {
					cancel(err)
				}
			}()
			for p := range points {
				if ctx.Err() != nil {
					return
				}
				if r := i.killAt(ctx, p); ctx.Err() == nil { // an interrupted round proves nothing
					i.report(r)
				}
			}
		})
	}
	lanes.Wait()
	return context.Cause(ctx)
}

// killAt kills a process at the point as often as the campaign says.
func (i *installation) killAt(ctx context.Context, p failpoint.Point) row {
	r := row{name: string(p)}
	orders, kills, slowest := 0, 0, time.Duration(0)
	for n := range i.c.kills {
		one := &round{i: i, point: p, customer: fmt.Sprintf("%s-%d", p, n), number: n}
		err := one.run(ctx)
		orders, slowest = orders+len(one.placed), max(slowest, one.took)
		if one.killed {
			kills++
		}
		if err != nil {
			r.broken = append(r.broken, fmt.Sprintf("kill %d: %v", n+1, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	if found := i.verify(ctx); found != "" {
		r.broken = append(r.broken, found)
	}
	r.counts = fmt.Sprintf("%d kills, %d orders, all final after %.1f s at most", kills, orders, slowest.Seconds())
	return r
}

// processOf is the subcommand that passes a point: every one but those of commands is the worker's. Rows are written by both; the saga has
// a point of its own behind it.
func processOf(p failpoint.Point) string {
	if strings.HasPrefix(string(p), "command.") || strings.HasPrefix(string(p), "rows.") {
		return "serve"
	}
	return "worker"
}

// settingsOf are the settings that make a point be passed.
func settingsOf(p failpoint.Point) []string {
	if strings.HasPrefix(string(p), "expire.") {
		return []string{"ORDERGATE_RESERVATION_TTL=1s"} // orders that nobody pays end then
	}
	return nil
}

// round is one kill at one point.
type round struct {
	i        *installation
	point    failpoint.Point
	customer string
	number   int

	killed bool
	took   time.Duration // from the restart until all was final

	mu     sync.Mutex
	placed []placed
	failed error // of a client
}

func (r *round) run(ctx context.Context) error {
	name, hit := processOf(r.point), 1+r.number*3%7
	if strings.HasPrefix(string(r.point), "purge.") || strings.HasPrefix(string(r.point), "expire.") {
		hit = 1 // once a minute, once a second
	}
	i := r.i
	i.kill(name)
	armed := fmt.Sprintf("ORDERGATE_FAILPOINTS=%s=kill@%d", r.point, hit)
	if err := i.start([]string{name}, append(settingsOf(r.point), armed)...); err != nil {
		return err
	}
	dying := i.process(name)
	if err := i.awaitReady(ctx, name); err != nil {
		return err
	}
	stop := make(chan struct{})
	clients := r.placeUntil(ctx, stop)
	select {
	case <-dying.ended:
		r.killed = dying.killed()
	case <-time.After(hitWithin):
	case <-ctx.Done():
	}
	close(stop)
	if !r.killed {
		defer clients.Wait()
		return fmt.Errorf("it was not killed at hit %d: %s", hit, i.lastLog(name))
	}
	if r.number%2 == 1 { // as if one program had both
		other := map[string]string{"serve": "worker", "worker": "serve"}[name]
		i.kill(other)
		if err := i.start([]string{other}); err != nil {
			return err
		}
	}
	restarted := time.Now()
	if err := i.start([]string{name}); err != nil {
		return err
	}
	clients.Wait()
	if r.failed != nil {
		return r.failed
	}
	return r.check(ctx, restarted)
}

// placeUntil has clients place and cancel orders until stop is closed; those that are under way then are gone through with.
func (r *round) placeUntil(ctx context.Context, stop <-chan struct{}) *sync.WaitGroup {
	var clients sync.WaitGroup
	for client := range r.i.c.load {
		clients.Go(func() {
			pace := time.NewTicker(time.Duration(r.i.c.load) * placeEvery)
			defer pace.Stop()
			for n := client; ctx.Err() == nil; n += r.i.c.load {
				select {
				case <-stop:
					return
				default:
				}
				<-pace.C
				p, err := r.i.play(ctx, r.customer, n)
				r.mu.Lock()
				if r.placed = append(r.placed, p); err != nil {
					r.failed = err
				}
				r.mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	return &clients
}

// check waits for the ends of the round's orders and compares them with what clients were told.
func (r *round) check(ctx context.Context, restarted time.Time) error {
	paid := map[string]bool{}
	for _, p := range r.placed {
		paid[p.id] = p.paid
	}
	all, err := r.i.awaitFinal(ctx, r.customer, paid, restarted.Add(finalWithin))
	r.took = time.Since(restarted)
	if err != nil {
		return err
	}
	if len(all) != len(r.placed) {
		return fmt.Errorf("%d keys have %d orders", len(r.placed), len(all))
	}
	for _, p := range r.placed {
		o, is := all[p.id]
		switch {
		case !is:
			return fmt.Errorf("%s was answered and is lost", p.id)
		case p.cancelled && p.paid && o.Status != "cancelled":
			return fmt.Errorf("the cancellation of %s was accepted, and it is %s", p.id, o.Status)
		}
	}
	return nil
}
