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
	// maxBatches bounds the batches that run at the same time.
	maxBatches = 2
	// maxWaiting bounds the commands that wait: 16 full batches.
	maxWaiting = 1024
	// maxNamed bounds those of them that are about the same, which go one after another.
	maxNamed = 16
	// notUrgent is how many places of a batch urgent calls leave to others.
	notUrgent = 16
)

// isUrgent tells that a call is about an order that is there: it comes before orders that are to come. None of these is about the same.
func (c *call) isUrgent() bool {
	return len(c.needs.orders)+len(c.needs.payments)+len(c.needs.shipments) > 0
}

// errFull refuses a command for which the queue has no place, beside all others or beside those about the same.
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

// known are the names of a call of the queue.
func known(c *call) []any { return c.names }

// nextBatch takes the calls, in order, that may stand in one batch, beside calls that have the names busy. rest waits for the next. A name of a call
// that waits is no later call's: none overtakes it. about gives the names of a call.
func nextBatch(waiting []*call, busy names, about func(*call) []any) (batch, rest []*call) {
	taken, urgent := names{}, 0
	mixed := len(waiting) > 0 && !waiting[len(waiting)-1].isUrgent()
	for i, c := range waiting {
		if len(batch) == maxBatch {
			return batch, append(rest, waiting[i:]...)
		}
		held := mixed && c.isUrgent() && urgent == maxBatch-notUrgent
		for _, n := range about(c) {
			held = held || taken[n] || busy[n]
			taken[n] = true
		}
		if held {
			rest = append(rest, c)
			continue
		}
		if batch = append(batch, c); c.isUrgent() {
			urgent++
		}
	}
	return batch, rest
}

// queue commits together what waits at the same moment. Nothing waits for company: while no batch runs, a command begins at once.
type queue struct {
	execute func([]*call) // runs a batch until each of its calls is done; it calls over of its first one when its transaction is
	size    prometheus.Observer
	mu      sync.Mutex
	waiting []*call
	busy    names       // of the calls that were taken and have not ended
	named   map[any]int // how many wait, by their names
	batches int         // whose transaction is not over
}

func newQueue(registry prometheus.Registerer, execute func([]*call)) *queue {
	q := &queue{execute: execute, busy: names{}, named: map[any]int{}}
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

// do runs a call and returns when it has ended. A caller that leaves before its call was taken takes it along: nothing was done. So does the end of the time
// in which a transaction may begin, with RATE_003.
func (q *queue) do(ctx context.Context, one *call) {
	one.names = namesOf(one)
	if q.takeAlone(one) {
		q.run([]*call{one})
		return
	}
	if err := q.add(one); err != nil {
		one.finish(Result{}, err)
		return
	}
	ctx, cancel := context.WithDeadlineCause(ctx, one.deadline.Add(-leastTime), errQueued)
	defer cancel()
	select {
	case <-one.ended:
	case <-ctx.Done():
		if q.leave(one) {
			if errors.Is(context.Cause(ctx), errQueued) {
				one.finish(Result{}, errQueued)
			} else {
				one.finish(Result{}, apierr.E(errcode.SYS003, apierr.Cause(ctx.Err())))
			}
			return
		}
		<-one.ended
	}
}

// run runs a batch that was taken. A panic ends the calls that are not done, and the batch, wherever it was.
func (q *queue) run(batch []*call) {
	err := panics.Catch(func() error { q.execute(batch); return nil })
	batch[0].over()
	q.endAll(batch, err)
}

// takeAlone makes a call a batch that its caller runs, if nothing runs or waits: that spares a change of goroutines.
func (q *queue) takeAlone(one *call) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.batches > 0 || len(q.waiting) > 0 {
		return false
	}
	batch, _ := nextBatch([]*call{one}, q.busy, known)
	if len(batch) == 0 {
		return false
	}
	q.take(batch)
	return true
}

// add puts a call behind those that wait and are as urgent. If there is no place, an urgent one takes that of the last that is not. IDEM_003 or RATE_003
// refuses the call.
func (q *queue) add(one *call) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, n := range one.names {
		if q.named[n] < maxNamed {
			continue
		}
		if _, ok := n.(keyName); ok {
			return apierr.E(errcode.IDEM003)
		}
		return errFull
	}
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
			return errFull
		}
		q.waiting[last].finish(Result{}, errFull)
		close(q.waiting[last].ended)
		q.count(-1, q.waiting[last])
		q.waiting = q.waiting[:last]
	}
	q.waiting = slices.Insert(q.waiting, place, one)
	q.count(1, one)
	q.dispatch()
	return nil
}

// count counts calls among those that wait, or no longer. The caller holds mu.
func (q *queue) count(by int, calls ...*call) {
	for _, one := range calls {
		for _, n := range one.names {
			if q.named[n] += by; q.named[n] == 0 {
				delete(q.named, n)
			}
		}
	}
}

// leave takes a call out that no batch has taken. It tells whether it was there.
func (q *queue) leave(one *call) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.waiting, one)
	if i < 0 {
		return false
	}
	q.waiting = slices.Delete(q.waiting, i, i+1)
	q.count(-1, one)
	q.dispatch() // others may have been held back by it
	return true
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

// endAll is end of all calls, those that are not done with the error of a panic.
func (q *queue) endAll(calls []*call, err error) {
	for _, one := range calls {
		if !one.done {
			one.finish(Result{}, err)
		}
	}
	q.end(calls)
}

// dispatch begins the batches that may begin. The caller holds mu.
func (q *queue) dispatch() {
	for q.batches < maxBatches && len(q.waiting) > 0 {
		least := 1
		if q.batches > 0 {
			least = secondFrom
		}
		if len(q.waiting) < least {
			return
		}
		batch, rest := nextBatch(q.waiting, q.busy, known)
		if len(batch) < least {
			return
		}
		q.waiting = rest
		q.count(-1, batch...)
		q.take(batch)
		go q.run(batch)
	}
}

// take makes calls a batch. The caller holds mu.
func (q *queue) take(batch []*call) {
	q.batches++
	q.size.Observe(float64(len(batch)))
	over := sync.OnceFunc(q.over)
	for _, one := range batch {
		one.taken, one.over = true, over
		for _, n := range one.names {
			q.busy[n] = true
		}
	}
}
