package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// extent is how much is measured.
type extent struct {
	pace      pace // pgbench begins anew in each slice
	few, many int  // clients
	sagas     int
	flash     int64 // pieces that a storm sells
}

var whole = extent{pace{rounds: 5, slices: 1, warm: 500 * time.Millisecond, measure: 2 * time.Second}, 16, 128, 1500, 200}

// trial shows that the instrument works, and measures nothing.
var trial = extent{pace{rounds: 1, slices: 1, warm: 20 * time.Millisecond, measure: 200 * time.Millisecond}, 2, 4, 20, 10}

// writePart measures some figures of the write path.
type writePart struct {
	name    string
	measure func(context.Context, *writeBench)
}

// writeParts are in this order because the orders of pgbench are for no worker: before one begins, their messages are deleted.
var writeParts = []writePart{
	{"saga", measureSaga},
	{"relay", measureRelay},
	{"storm", measureStorm},
	{"decisions", measureDecisions},
	{"place", measurePlace},
	{"alone", measureAlone},
	{"shed", measureShed},
}

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
	defer b.stop()
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

// contender is a leg of the write path: load begins it. one, if it is not nil, places one order.
type contender struct {
	name    string
	clients int // 0: as many as the others
	load    func(ctx context.Context, clients int) *load
	one     func(ctx context.Context)
}

// compare lets the contenders take turns, keeps a row of each in each round, prints the medians and returns the rows.
func (b *writeBench) compare(ctx context.Context, part string, clients int, contenders ...contender) (rows []row) {
	order := slices.Clone(contenders)
	for round := range b.pace.rounds {
		for _, c := range order {
			r := b.once(ctx, c, clients)
			r.Part, r.Round = part, round+1
			rows = append(rows, r)
			sayf("%s, %d clients, round %d of %d: %s %.0f/s", part, r.Clients, round+1, b.pace.rounds, c.name, r.Rate)
			must(b.serving.log.Truncate(0))
		}
		slices.Reverse(order)
	}
	b.keep(rows)
	return rows
}

// keep keeps rows and prints their medians, of each leg.
func (b *writeBench) keep(rows []row) {
	b.rows = append(b.rows, rows...)
	w := tabwriter.NewWriter(os.Stderr, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, rowHeader)
	printed := map[string]bool{}
	for _, r := range rows {
		if !printed[r.Leg] {
			printed[r.Leg] = true
			fmt.Fprintln(w, medians(rows, r.Leg).line())
		}
	}
	must(w.Flush())
}

// once measures a contender. One that did nothing, on a machine that has too much to do, is measured once more.
func (b *writeBench) once(ctx context.Context, c contender, clients int) (r row) {
	clients = cmp.Or(c.clients, clients)
	for tries := 0; r.Orders == 0; tries++ {
		if r = b.measure(ctx, b.pace, c.load(ctx, clients)); tries == 10 {
			must(fmt.Errorf("the machine has too much to do for %s", c.name))
		}
	}
	r.Leg, r.Clients = c.name, clients
	return r
}

const (
	legHTTP       = "over HTTP"
	legInside     = "in process"
	legFunction   = "pgbench, one function"
	legStatements = "pgbench, each statement a round trip"
	legLocking    = "pgbench, SELECT FOR UPDATE first"
	legBest       = "pgbench, one function, at its best"
)

// httpLeg and insideLeg are ours: orders of two lines.
func (b *writeBench) httpLeg() contender {
	return contender{name: legHTTP, load: func(ctx context.Context, clients int) *load { return b.clients(ctx, b.serving, clients, b.order) },
		one: func(context.Context) {
			w := dial(b.addr)
			defer func() { _ = w.Close() }()
			must(b.send(0, w))
		}}
}

func (b *writeBench) insideLeg() contender {
	return contender{name: legInside, load: func(ctx context.Context, clients int) *load {
		return b.callers(ctx, b.components.Commands, clients, b.draft)
	},
		one: func(ctx context.Context) { _ = try(b.place(ctx, b.components.Commands, uuid.NewString(), b.draft(0))) }}
}

// script is a leg of pgbench.
func (b *writeBench) script(name string, p *pgbench, script string) contender {
	return contender{name: name, load: func(ctx context.Context, clients int) *load { return p.load(ctx, b.pace, script, clients) },
		one: func(ctx context.Context) { p.one(ctx, script) }}
}

// pgbenchClients are the numbers of clients among which pgbench's best is looked for.
var pgbenchClients = []int{4, 8, 16, 32}

// measurePlace compares orders placed, while no worker runs, with pgbench at as many clients.
func measurePlace(ctx context.Context, b *writeBench) {
	p := b.pgbench(ctx, "place", b.draft(0))
	skus := []string{b.draft(0).Lines[0].Sku, b.draft(0).Lines[1].Sku}
	legs := []contender{ //nolint:prealloc // of a few
		b.httpLeg(), b.script(legFunction, p, p.function), b.insideLeg(), b.script(legStatements, p, p.statements),
		b.script(legLocking, p, p.locking("locking", b.gateway, skus)),
	}
	b.writeTheSame(ctx, legs)
	best := b.script(legBest, p, p.function)
	most := 0.0
	numbers := []int{b.few, b.many}
	for _, clients := range pgbenchClients {
		if b.extent == trial && clients != b.many {
			continue
		}
		r := b.once(ctx, best, clients)
		sayf("place: pgbench with %d clients %.0f/s", clients, r.Rate)
		if r.Rate > most {
			best.clients, most = clients, r.Rate
		}
	}
	if b.extent == trial {
		numbers = numbers[1:]
	}
	for _, clients := range numbers {
		goal := func(few, many string) string {
			if clients == b.few {
				return few
			}
			return many
		}
		rows := b.compare(ctx, "place", clients, append(legs, best)...)
		of := func(leg string, of func(row) float64) []float64 { return each(rows, leg, of) }
		at := fmt.Sprintf(", %d clients", clients)
		bestName := fmt.Sprintf(" / pgbench at its best, %d clients", best.clients)
		b.add(
			newFigure("accepted over HTTP / pgbench"+at, "/s", goal(">= 1.2", ">= 2.5"), of(legHTTP, rate), of(legFunction, rate)),
			newFigure("accepted over HTTP"+at+bestName, "/s", goal("", ">= 2"), of(legHTTP, rate), of(legBest, rate)),
			newFigure("accepted in process / pgbench"+at, "/s", goal("", ">= 3.7"), of(legInside, rate), of(legFunction, rate)),
			newFigure("accepted in process"+at+bestName, "/s", "", of(legInside, rate), of(legBest, rate)),
			newFigure(legStatements+" / one function"+at, "/s", "", of(legStatements, rate), of(legFunction, rate)),
			newFigure(legLocking+" / one function"+at, "/s", "", of(legLocking, rate), of(legFunction, rate)),
			newAmount("CPU of the gateway for an order over HTTP"+at, "us", goal("", "<= 180"), of(legHTTP, func(r row) float64 { return r.Program })),
			newAmount("CPU of the primary for an order over HTTP"+at, "us", goal("", "<= 90"), of(legHTTP, func(r row) float64 { return r.Primary })),
			newFigure("CPU of all for an order over HTTP / for pgbench's"+at, "us", goal("", "<= 0.3"), of(legHTTP, row.all), of(legFunction, row.all)),
			newAmount("WAL of an order over HTTP"+at, "bytes", goal("", "<= 4608"), of(legHTTP, func(r row) float64 { return r.WAL })),
			newAmount("allocations of the gateway for an order"+at, "", "", of(legHTTP, func(r row) float64 { return r.Allocations })),
			newFigure("p99 / p50 of an order over HTTP"+at, "ms", goal("", "<= 2.5"), of(legHTTP, func(r row) float64 { return r.P99 }), of(legHTTP, func(r row) float64 { return r.P50 })),
			newFigure("p99 / p50 of an order in process"+at, "ms", "", of(legInside, func(r row) float64 { return r.P99 }), of(legInside, func(r row) float64 { return r.P50 })),
		)
	}
}

// writeTheSame fails unless one order of each contender leaves as many rows in each table, and as many bytes but for the lengths of keys.
func (b *writeBench) writeTheSame(ctx context.Context, all []contender) {
	var first map[string]written
	for _, c := range all {
		before := b.written(ctx)
		c.one(ctx)
		grown := map[string]written{}
		for table, now := range b.written(ctx) {
			if now.rows -= before[table].rows; now.rows != 0 {
				grown[table] = written{now.rows, now.bytes - before[table].bytes}
			}
		}
		if first == nil {
			first = grown
			sayf("place: an order is rows and bytes in %v", grown)
		}
		for table, is := range grown {
			want := first[table]
			if len(grown) != len(first) || is.rows != want.rows || float64(is.bytes) < 0.85*float64(want.bytes) || float64(is.bytes) > 1.15*float64(want.bytes) {
				must(fmt.Errorf("%s leaves other rows than %s: %v, not %v", c.name, all[0].name, grown, first))
			}
		}
	}
}

// written are the rows of a table, and the bytes of their text.
type written struct{ rows, bytes int64 }

func (b *writeBench) written(ctx context.Context) map[string]written {
	const tables = "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition AND relnamespace = 'public'::regnamespace"
	all := map[string]written{}
	for _, table := range try(pgx.CollectRows(try(b.db.Query(ctx, tables)), pgx.RowTo[string])) {
		var w written
		must(b.db.QueryRow(ctx, "SELECT count(*), COALESCE(sum(octet_length(t::text)), 0) FROM "+pgx.Identifier{table}.Sanitize()+" t").Scan(&w.rows, &w.bytes))
		all[table] = w
	}
	return all
}
