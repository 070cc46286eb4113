package main

import (
	"context"
	"fmt"
	"time"
)

const (
	connections = 64              // of the clients of an open loop
	rateSteps   = 5               // each halves the interval in which the highest rate lies
	stepWarm    = 3 * time.Second // of a step, in which its backlog becomes what it is at the rate; and as long is it looked at twice
	mostGrowth  = 0.04            // of the arrivals may be added to the backlog, and what arrives in 100 ms
)

const legAll = "confirmed and paid, open loop"

// sagas are the orders that were placed and paid since some moment.
type sagas struct {
	*writeBench
	accepts   int64
	confirmed int64
	processes []*process
}

// newSagas counts from now on.
func (b *writeBench) newSagas(ctx context.Context, processes ...*process) *sagas {
	s := &sagas{writeBench: b, processes: processes, accepts: b.accepted.Load()}
	s.confirmed = s.paid(ctx)
	return s
}

// paid is how many orders are confirmed and paid.
func (s *sagas) paid(ctx context.Context) (n int64) {
	const count = "SELECT count(*) FROM orders WHERE account = $1 AND (status, payment_status) = ('confirmed', 'paid')"
	must(s.db.QueryRow(ctx, count, s.owner.Account).Scan(&n))
	return n - s.confirmed
}

// backlog is how many orders are accepted, and not yet confirmed and paid.
func (s *sagas) backlog(ctx context.Context) int64 {
	paid := s.paid(ctx)
	return s.accepted.Load() - s.accepts - paid
}

// drain waits until none is.
func (s *sagas) drain(ctx context.Context) {
	for last := time.Now().Add(2 * time.Minute); s.backlog(ctx) > 0; pause(ctx, 100*time.Millisecond) { // each look reads all orders
		if must(ctx.Err()); time.Now().After(last) {
			must(fmt.Errorf("%d orders are not confirmed and paid after two minutes", s.backlog(ctx)))
		}
	}
}

// load is orders at a rate; the CPU is that of all processes of ours.
func (s *sagas) load(ctx context.Context, rate float64) *load {
	l := s.paced(ctx, s.serving, rate, connections, s.order)
	l.program = func() (sum time.Duration) {
		for _, p := range s.processes {
			sum += p.cpu()
		}
		return sum
	}
	return l
}

// isFlat tells whether a backlog that grew so much, while so many arrived at a rate, does not grow.
func isFlat(growth, arrivals int64, rate float64) bool {
	return float64(growth) <= mostGrowth*float64(arrivals)+rate/10
}

// flat tells whether the backlog does not grow at a rate.
func (s *sagas) flat(ctx context.Context, rate float64, half time.Duration) bool {
	l := s.load(ctx, rate)
	pause(ctx, half)
	before, arrived := s.backlog(ctx), s.accepted.Load()
	pause(ctx, 2*half)
	growth, arrivals := s.backlog(ctx)-before, s.accepted.Load()-arrived
	l.end()
	s.drain(ctx)
	flat := isFlat(growth, arrivals, rate) && float64(arrivals) >= 0.9*rate*2*half.Seconds()
	sayf("saga: at %.0f/s %d orders arrived and the backlog of %d grew by %d: flat %v", rate, arrivals, before, growth, flat)
	return flat
}

// measureSaga places orders over HTTP at a constant rate, whether or not the worker comes after, and looks for the highest at which it does: the orders that are
// not yet confirmed and paid become no more. API, worker and provider are a process each.
func measureSaga(ctx context.Context, b *writeBench) {
	accept := b.compare(ctx, "saga", b.many, b.httpLeg())
	b.emptyOutbox(ctx)
	provider := b.child(ctx, b.psp, nil, program, "psp")
	worker := b.child(ctx, "", nil, program, "worker")
	s := b.newSagas(ctx, b.serving, worker, provider)
	half, window, steps := stepWarm, 4*time.Second, rateSteps
	if b.extent == trial {
		half, window, steps = 200*time.Millisecond, 500*time.Millisecond, 1
	}

	// What it does when it has nothing else to do is near the rate.
	begin := time.Now()
	l := b.clients(ctx, b.serving, b.few, b.order)
	for b.accepted.Load()-s.accepts < int64(b.sagas) && ctx.Err() == nil {
		pause(ctx, time.Millisecond)
	}
	l.end()
	orders := float64(b.accepted.Load() - s.accepts)
	s.drain(ctx)
	drained := orders / time.Since(begin).Seconds()
	sayf("saga: %.0f orders, as fast as they were accepted, are confirmed and paid after %.1f s: %.0f/s", orders, time.Since(begin).Seconds(), drained)
	low, high := 0.3*drained, 1.5*drained
	for range steps {
		if middle := (low + high) / 2; s.flat(ctx, middle, half) {
			low = middle
		} else {
			high = middle
		}
	}

	// The rounds are windows of one run at that rate, or at the highest below it that is flat for so long, too.
	s = b.newSagas(ctx, b.serving, worker, provider)
	before := b.counters(ctx)
	rows, flat := s.rounds(ctx, low, half, window)
	for !flat && b.extent != trial {
		low *= 0.85
		sayf("saga: that was not flat: again at %.0f/s", low)
		rows, flat = s.rounds(ctx, low, half, window)
	}
	pause(ctx, 1500*time.Millisecond) // the sessions report what they did once a second
	after, paid := b.counters(ctx), float64(s.paid(ctx))
	worker.end()
	provider.end()
	b.keep(rows)
	primary := func(r row) float64 { return r.Primary }
	b.add(
		newFigure("confirmed and paid at a flat backlog / accepted over HTTP", "/s", ">= 0.2", each(rows, legAll, rate), each(accept, legHTTP, rate)),
		newFigure("CPU of all for a confirmed order / for an accepted one", "us", "<= 4", each(rows, legAll, row.all), each(accept, legHTTP, row.all)),
		newAmount("CPU of the primary for a confirmed order", "us", "<= 700", each(rows, legAll, primary)),
		newAmount("WAL of a confirmed order", "bytes", "", each(rows, legAll, func(r row) float64 { return r.WAL })),
	)
	for i, name := range counted {
		b.add(newAmount(name+" of a confirmed order", "", "", []float64{round(float64(after[i]-before[i]) / paid)}))
	}
}

// rounds measures orders that come at a rate. flat tells whether the backlog did not grow from the first round to the last.
func (s *sagas) rounds(ctx context.Context, rate float64, half, window time.Duration) (rows []row, flat bool) {
	b := s.writeBench
	l := s.load(ctx, rate)
	pause(ctx, 2*half)
	first, arrived := s.backlog(ctx), s.accepted.Load()
	for round := range b.pace.rounds {
		from, paid, backlog := b.now(ctx, l), s.paid(ctx), s.backlog(ctx)
		pause(ctx, window)
		n := int(s.paid(ctx) - paid)
		if n == 0 {
			must(fmt.Errorf("no order was confirmed and paid in %v", window))
		}
		r := row{Part: "saga", Leg: legAll, Clients: connections, Round: round + 1}.of(b.now(ctx, l).since(from), n)
		rows = append(rows, r)
		sayf("saga, round %d of %d: %.0f/s confirmed and paid, the backlog was %d and is %d", round+1, b.pace.rounds, r.Rate, backlog, s.backlog(ctx))
	}
	flat = isFlat(s.backlog(ctx)-first, s.accepted.Load()-arrived, rate)
	l.end()
	s.drain(ctx)
	return rows, flat
}

// counted are the counters. The transactions are all that were committed, looks of the relay into an empty outbox among them.
var counted = []string{"transactions", "messages", "writes of the saga's row", "updates of the order's row", "inbox rows"}

func (b *writeBench) counters(ctx context.Context) []int64 {
	const counters = `SELECT (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()),
    sum(n_tup_ins) FILTER (WHERE relname = 'outbox')::bigint, sum(n_tup_ins + n_tup_upd) FILTER (WHERE relname = 'sagas')::bigint,
    sum(n_tup_upd) FILTER (WHERE relname LIKE 'orders\_%')::bigint, sum(n_tup_ins) FILTER (WHERE relname LIKE 'inbox\_%')::bigint
FROM pg_stat_user_tables`
	all := make([]int64, len(counted))
	must(b.db.QueryRow(ctx, counters).Scan(&all[0], &all[1], &all[2], &all[3], &all[4]))
	return all
}
