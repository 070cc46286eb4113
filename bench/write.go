package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

// extent is how much is measured.
type extent struct {
	pace      pace // pgbench begins anew in each slice
	few, many int  // clients
	sagas     int
}

var whole = extent{pace{rounds: 5, slices: 1, warm: 500 * time.Millisecond, measure: 2 * time.Second}, 16, 128, 1500}

// trial shows that the instrument works, and measures nothing.
var trial = extent{pace{rounds: 1, slices: 1, warm: 20 * time.Millisecond, measure: 200 * time.Millisecond}, 2, 4, 20}

// writeParts measure figures of the write path. The orders of pgbench are for no worker, so the saga is before them.
var writeParts = []struct {
	name    string
	measure func(context.Context, *writeBench)
}{{"saga", measureSaga}, {"place", measurePlace}}

// writeBench is what the parts share, and what they found.
type writeBench struct {
	*gateway
	extent
	figures []figure
	rows    []row
}

func (b *writeBench) add(f ...figure) { b.figures = append(b.figures, f...) }

// runWrite measures the write path: all parts of it, or those that are named.
func runWrite(ctx context.Context, parts []string, size extent) *results {
	r := newResults(ctx, "write")
	b := &writeBench{gateway: start(ctx), extent: size}
	defer b.stop(ctx)
	for _, part := range writeParts {
		if len(parts) == 0 || slices.Contains(parts, part.name) {
			begin := time.Now()
			part.measure(ctx, b)
			sayf("%s took %.0f s", part.name, time.Since(begin).Seconds())
		}
	}
	b.check(ctx)
	r.figures, r.rows = b.figures, b.rows
	r.print()
	if len(parts) == 0 && size == whole {
		r.write(ctx)
	}
	return r
}

// contender is a leg of the write path: load begins it.
type contender struct {
	name string
	load func(ctx context.Context, clients int) *load
}

// compare lets the contenders take turns, keeps a row of each in each round, prints the medians and returns the rows.
func (b *writeBench) compare(ctx context.Context, part string, clients int, contenders ...contender) (rows []row) {
	order := slices.Clone(contenders)
	for round := range b.pace.rounds {
		for _, c := range order {
			r := b.once(ctx, c, clients)
			r.Part, r.Leg, r.Clients, r.Round = part, c.name, clients, round+1
			rows = append(rows, r)
			sayf("%s, %d clients, round %d of %d: %s %.0f/s", part, clients, round+1, b.pace.rounds, c.name, r.Rate)
			must(b.serving.log.Truncate(0))
		}
		slices.Reverse(order)
	}
	b.rows = append(b.rows, rows...)
	w := tabwriter.NewWriter(os.Stderr, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, rowHeader)
	for _, c := range contenders {
		fmt.Fprintln(w, medians(rows, c.name, clients).line())
	}
	must(w.Flush())
	return rows
}

// once measures a contender. One that did nothing, on a machine that has too much to do, is measured once more.
func (b *writeBench) once(ctx context.Context, c contender, clients int) (r row) {
	for tries := 0; r.Orders == 0; tries++ {
		if r = b.measure(ctx, b.pace, c.load(ctx, clients)); tries == 10 {
			must(fmt.Errorf("the machine has too much to do for %s", c.name))
		}
	}
	return r
}

const (
	legHTTP     = "over HTTP"
	legInside   = "in process"
	legFunction = "pgbench, one function"
)

// function is the limit.
func (b *writeBench) function(p *pgbench) contender {
	return contender{legFunction, func(ctx context.Context, clients int) *load { return p.load(ctx, b.pace, p.function, clients) }}
}

// measurePlace compares orders placed, while no worker runs, with pgbench at as many clients.
func measurePlace(ctx context.Context, b *writeBench) {
	p := b.pgbench(ctx)
	for _, clients := range []int{b.few, b.many} {
		rows := b.compare(ctx, "place", clients,
			contender{legHTTP, func(ctx context.Context, clients int) *load { return b.clients(ctx, clients, b.order) }},
			b.function(p),
			contender{legInside, func(ctx context.Context, clients int) *load { return b.callers(ctx, clients, b.draft) }},
		)
		of := func(leg string, of func(row) float64) []float64 { return each(rows, leg, clients, of) }
		for _, goal := range []struct{ leg, few, many string }{{legHTTP, ">= 1.2", ">= 2.5"}, {legInside, "", ">= 3.7"}} {
			name := fmt.Sprintf("accepted %s / pgbench, %d clients", goal.leg, clients)
			b.add(newFigure(name, "orders/s", map[bool]string{true: goal.few, false: goal.many}[clients == b.few], of(goal.leg, rate), of(legFunction, rate)))
		}
		goal := func(text string) string { return map[bool]string{true: text}[clients == b.many] }
		at := fmt.Sprintf(" of an order over HTTP, %d clients", clients)
		b.add(
			newAmount("CPU of the gateway"+at, "us", goal("<= 180"), of(legHTTP, func(r row) float64 { return r.Program })),
			newAmount("CPU of the primary"+at, "us", goal("<= 90"), of(legHTTP, func(r row) float64 { return r.Primary })),
			newFigure("CPU of all"+at+" / pgbench's", "us", goal("<= 0.3"), of(legHTTP, row.all), of(legFunction, row.all)),
			newAmount("WAL"+at, "bytes", goal("<= 4608"), of(legHTTP, func(r row) float64 { return r.WAL })),
		)
	}
}

// measureSaga compares orders that are confirmed and paid with pgbench, which has the machine to itself. The orders are placed over HTTP
// while a worker, a process of its own, runs their sagas.
func measureSaga(ctx context.Context, b *writeBench) {
	provider := b.child(ctx, b.psp, nil, program, "psp")
	worker := b.child(ctx, "", nil, program, "worker")
	paid := func() {
		for n, last := 1, time.Now().Add(time.Minute); n > 0; <-time.After(20 * time.Millisecond) {
			must(b.db.QueryRow(ctx, "SELECT count(*) FROM orders WHERE (status, payment_status) <> ('confirmed', 'paid')").Scan(&n))
			if time.Now().After(last) {
				must(fmt.Errorf("%d orders are not confirmed and paid after a minute", n))
			}
		}
	}
	begin, before := time.Now(), b.accepted.Load()
	l := b.clients(ctx, b.few, b.order)
	for b.accepted.Load() < before+int64(b.sagas) && ctx.Err() == nil {
		pause(ctx, time.Millisecond)
	}
	l.end()
	placed, orders := time.Since(begin).Seconds(), float64(b.accepted.Load()-before)
	paid()
	took := time.Since(begin).Seconds()
	sayf("saga: %.0f orders placed after %.1f s, all of them confirmed and paid after %.1f s", orders, placed, took)
	worker.end()
	provider.end()
	p := b.pgbench(ctx)
	limit := b.once(ctx, b.function(p), b.few)
	b.add(newFigure(fmt.Sprintf("saga to confirmed and paid / pgbench, one function, %d clients", b.few), "orders/s", "",
		[]float64{orders / took}, []float64{limit.Rate}))
}
