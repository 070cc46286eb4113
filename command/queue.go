package command

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/panics"
	"github.com/ordergate/ordergate/order"
)

const (
	// maxBatch bounds a batch; measured best.
	maxBatch = 64
	// secondFrom is how many must wait for a second batch to begin beside the first; measured better than two that take what there is, of which
	// half had one command.
	secondFrom = 8
	// maxWaiting bounds the commands that wait. Those of two rounds of full batches have their turn in time on any disk that keeps the budget.
	maxWaiting = 1024
)

// isUrgent tells that a call is about an order that is there: it comes before orders that are to come. None of these is about the same.
func (c *call) isUrgent() bool {
	return len(c.needs.orders)+len(c.needs.payments)+len(c.needs.shipments) > 0
}

// errFull refuses a command for which the queue has no place.
var errFull = apierr.E(errcode.RATE003, apierr.Cause(errors.New("the queue of commands is full")))

// names are what calls are about: no two calls of a batch, or of batches that run at the same time, have one in common. Each is a keyName, or the
// order.Ref of an order, a payment or a shipment.
type names map[any]bool

type keyName struct {
	order.Owner
	operation, key string
}

func namesOf(c *call) (all []any) {
	if c.Key != "" {
		all = append(all, keyName{c.Owner, c.Operation, c.Key})
	}
	for _, refs := range [][]order.Ref{c.needs.orders, c.needs.payments, c.needs.shipments} {
		for _, r := range refs {
			all = append(all, r)
		}
	}
	return all
}

// nextBatch takes the calls, in order, that may stand in one batch, beside calls that have the names busy. rest waits for the next. A name of a call
// that waits is no later call's: none overtakes it.
func nextBatch(waiting []*call, busy names) (batch, rest []*call) {
	taken := names{}
	for _, c := range waiting {
		held := len(batch) == maxBatch
		for _, n := range namesOf(c) {
			held = held || taken[n] || busy[n]
			taken[n] = true
		}
		if held {
			rest = append(rest, c)
		} else {
			batch = append(batch, c)
		}
	}
	return batch, rest
}

// queue commits together what waits at the same moment. Nothing waits for company: while no batch runs, a command begins at once.
type queue struct {
	execute func([]*call) // runs a batch until each of its calls is done
	size    prometheus.Observer
	mu      sync.Mutex
	waiting []*call
	busy    names // of the calls that were taken and have not ended
	batches int   // whose transaction is not over
}

func newQueue(registry prometheus.Registerer, execute func([]*call)) *queue {
	q := &queue{execute: execute, busy: names{}}
	m := promauto.With(registry)
	q.size = m.NewHistogram(prometheus.HistogramOpts{
		Name: "ordergate_command_batch_size", Help: "Commands that a transaction of commands began with.", Buckets: []float64{1, 2, 4, 8, 16, 32, 64},
	})
	m.NewGaugeFunc(prometheus.GaugeOpts{Name: "ordergate_commands_waiting", Help: "Commands that wait for their transaction."}, func() float64 {
		q.mu.Lock()
		defer q.mu.Unlock()
		return float64(len(q.waiting))
	})
	return q
}

// do runs a call and returns when it has ended. A caller that leaves before its call was taken takes it along: nothing was done.
func (q *queue) do(ctx context.Context, one *call) {
	if q.takeAlone(one) {
		q.run([]*call{one})
		return
	}
	if !q.add(one) {
		one.finish(Result{}, errFull)
		return
	}
	select {
	case <-one.ended:
	case <-ctx.Done():
		if q.leave(one) {
			one.finish(Result{}, apierr.E(errcode.SYS003, apierr.Cause(ctx.Err())))
			return
		}
		<-one.ended
	}
}

// run runs a batch that was taken. A panic ends the calls that are not done.
func (q *queue) run(batch []*call) {
	err := panics.Catch(func() error { q.execute(batch); return nil })
	for _, one := range batch {
		if !one.done {
			one.finish(Result{}, err)
		}
	}
	q.end(batch)
}

// takeAlone makes a call a batch that its caller runs, if nothing runs or waits: that spares a change of goroutines.
func (q *queue) takeAlone(one *call) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.batches > 0 || len(q.waiting) > 0 {
		return false
	}
	batch, _ := nextBatch([]*call{one}, q.busy)
	if len(batch) == 0 {
		return false
	}
	q.take(batch)
	return true
}

// add puts a call behind those that wait and are as urgent. If there is no place, an urgent one takes that of the last that is not.
func (q *queue) add(one *call) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	place := len(q.waiting)
	if one.isUrgent() {
		place = slices.IndexFunc(q.waiting, func(c *call) bool { return !c.isUrgent() })
		if place < 0 {
			place = len(q.waiting)
		}
	}
	if len(q.waiting) >= maxWaiting {
		last := len(q.waiting) - 1
		if place > last {
			return false
		}
		q.waiting[last].finish(Result{}, errFull)
		close(q.waiting[last].ended)
		q.waiting = q.waiting[:last]
	}
	q.waiting = slices.Insert(q.waiting, place, one)
	q.dispatch()
	return true
}

// leave takes a call out that no batch has taken. It tells whether it was there.
func (q *queue) leave(one *call) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	before := len(q.waiting)
	q.waiting = slices.DeleteFunc(q.waiting, func(c *call) bool { return c == one })
	defer q.dispatch() // others may have been held back by it
	return len(q.waiting) < before
}

// over tells that the transaction of a batch is over: the next may begin, while the end of this one goes on.
func (q *queue) over() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.batches--
	q.dispatch()
}

// end lets the callers of the calls that are done go on, and gives their names free. Repeating it is safe.
func (q *queue) end(calls []*call) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, one := range calls {
		if !one.done || !one.taken {
			continue
		}
		for _, n := range one.names {
			delete(q.busy, n)
		}
		one.taken = false
		close(one.ended)
	}
	q.dispatch()
}

// dispatch begins the batches that may begin. The caller holds mu.
func (q *queue) dispatch() {
	for q.batches == 0 && len(q.waiting) > 0 || q.batches == 1 && len(q.waiting) >= secondFrom {
		batch, rest := nextBatch(q.waiting, q.busy)
		if len(batch) == 0 || q.batches == 1 && len(batch) < secondFrom {
			return
		}
		q.waiting = rest
		q.take(batch)
		go q.run(batch)
	}
}

// take makes calls a batch. The caller holds mu.
func (q *queue) take(batch []*call) {
	q.batches++
	q.size.Observe(float64(len(batch)))
	for _, one := range batch {
		one.taken, one.names = true, namesOf(one)
		for _, n := range one.names {
			q.busy[n] = true
		}
	}
}
