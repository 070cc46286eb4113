package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/internal/app"
	"github.com/ordergate/ordergate/internal/telemetry"
)

// togetherArgument makes this program the API and a worker in one process, as `ordergate run` has them, on the servers that there are.
const togetherArgument = "together"

// together serves the API at an address and works, until a signal.
func together(ctx context.Context, addr string) {
	tel := try(telemetry.New(ctx, os.Getenv, 0, os.Stderr))
	c := try(app.Assemble(ctx, try(app.ReadConfig(os.Environ(), nil)), tel))
	defer c.Close()
	server := try(c.API(nil))
	admin := http.Server{Addr: os.Getenv("ORDERGATE_ADMIN_ADDR"), Handler: promhttp.HandlerFor(tel.Registry, promhttp.HandlerOpts{}), ReadHeaderTimeout: time.Second}
	go func() { _ = admin.ListenAndServe() }() // until the end
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.Work(ctx) })
	g.Go(func() error {
		return server.Serve(ctx, try((&net.ListenConfig{}).Listen(ctx, "tcp", addr)), server, 0)
	})
	if err := g.Wait(); ctx.Err() == nil {
		must(err)
	}
}

func (g *gateway) together(ctx context.Context) *process {
	addr := freeAddr()
	return g.child(ctx, addr, []string{"ORDERGATE_ADDR=" + addr, "GOGC=400"}, try(os.Executable()), togetherArgument, addr)
}

const (
	othersRate = 100 // orders of other skus a second
	othersLeg  = "orders of other skus"
)

// addProducts makes products with pieces.
func (g *gateway) addProducts(ctx context.Context, pieces int64, skus ...string) {
	const product = `INSERT INTO products (account, mode, sku, name, description, prices)
SELECT account, mode, new, name, description, prices FROM products, unnest($3::text[]) AS new WHERE account = $1 AND mode = $2 AND sku = $4`
	_ = try(g.db.Exec(ctx, product, g.owner.Account, g.owner.Mode, skus, g.skus[0]))
	_ = try(g.db.Exec(ctx, "INSERT INTO stock (account, mode, sku) SELECT $1, $2, unnest($3::text[])", g.owner.Account, g.owner.Mode, skus))
	g.fillTo(ctx, pieces, skus)
}

// measureStorm sells an article out, while it is asked for over and over.
func measureStorm(ctx context.Context, b *writeBench) {
	provider := b.child(ctx, b.psp, nil, program, "psp")
	defer provider.end()
	const (
		accepts, refusals             = "accepts over HTTP", "refusals over HTTP"
		acceptsInside, refusalsInside = "accepts in process", "refusals in process"
		late, lateInside              = "accepted in the storm over HTTP, rejected by the saga", "accepted in the storm in process, rejected by the saga"
		calm                          = othersLeg + ", no storm"
		stormy                        = othersLeg + ", in the storm"
	)
	var rows []row
	add := func(round int, leg string, r row) {
		if r.Part, r.Leg, r.Round = "storm", leg, round+1; r.Clients == 0 {
			r.Clients = b.many
		}
		rows = append(rows, r)
		sayf("storm, round %d of %d: %s %.0f/s, p99 %.1f ms", round+1, b.pace.rounds, leg, r.Rate, r.P99)
	}
	for round := range b.pace.rounds {

		add(round, accepts, b.once(ctx, b.httpLeg(), b.many))
		add(round, acceptsInside, b.once(ctx, b.insideLeg(), b.many))
		b.emptyOutbox(ctx)

		flash := fmt.Sprintf("flash-%d", round)
		b.addProducts(ctx, b.flash, flash)
		server := b.together(ctx)
		others := b.paced(ctx, server, othersRate, b.few, b.order)
		from, to := b.watch(ctx, b.pace, others, others)
		begin := func() *load {
			return b.clients(ctx, server, b.many, func(n int64) []byte { return try(json.Marshal(b.of(n, flash))) })
		}
		b.sellOut(ctx, flash, begin())
		storm := begin()
		stormFrom, stormTo := b.watch(ctx, b.pace, storm, others)
		answers, all := storm.end(), others.end()
		add(round, refusals, newRow(stormFrom, stormTo, answers, soldOut))
		add(round, late, newRow(stormFrom, stormTo, answers, accepted))
		for leg, r := range map[string]row{calm: newRow(from, to, all, accepted), stormy: newRow(stormFrom, stormTo, all, accepted)} {
			r.Clients = b.few
			add(round, leg, r)
		}
		b.sold(ctx, flash)
		server.end()

		flash = fmt.Sprintf("flash-inside-%d", round)
		b.addProducts(ctx, b.flash, flash)
		working, stop := context.WithCancel(ctx)
		worked := make(chan error, 1)
		inside, end := b.assemble(ctx, fmt.Sprintf("bench-storm-%d:", round))
		go func() { worked <- inside.Work(working) }()
		begin = func() *load {
			return b.callers(ctx, inside.Commands, b.many, func(n int64) api.PlaceOrder { return b.of(n, flash) })
		}
		b.sellOut(ctx, flash, begin())
		storm = begin()
		stormFrom, stormTo = b.watch(ctx, b.pace, storm)
		answers = storm.end()
		add(round, refusalsInside, newRow(stormFrom, stormTo, answers, soldOut))
		add(round, lateInside, newRow(stormFrom, stormTo, answers, accepted))
		b.sold(ctx, flash)
		stop()
		must(<-worked)
		end()
	}
	b.keep(rows)
	p99 := func(leg string) []float64 { return each(rows, leg, func(r row) float64 { return r.P99 }) }
	b.add(
		newFigure("sold-out storm over HTTP: refusals / accepts", "/s", ">= 2.5", each(rows, refusals, rate), each(rows, accepts, rate)),
		newFigure("sold-out storm in process: refusals / accepts", "/s", ">= 5", each(rows, refusalsInside, rate), each(rows, acceptsInside, rate)),
		newFigure(fmt.Sprintf("p99 of orders of other skus, %d/s, with the storm / without", othersRate), "ms", "<= 1.5", p99(stormy), p99(calm)),
	)
}

// sellOut ends the first rush once three times as many orders of a sku are accepted as there are pieces, and waits until one is refused for want of them.
func (b *writeBench) sellOut(ctx context.Context, sku string, rush *load) {
	for before := b.accepted.Load(); b.accepted.Load()-before < 3*b.flash && ctx.Err() == nil; {
		pause(ctx, time.Millisecond)
	}
	rush.end()
	const rejected = "SELECT EXISTS (SELECT FROM orders WHERE account = $1 AND mode = $2 AND status = 'rejected' AND state->'lines'->0->>'sku' = $3)"
	b.await(ctx, "no rejected orders of "+sku, rejected, b.owner.Account, b.owner.Mode, sku)
}

// sold waits until each order of a sku has ended, and fails unless exactly the stock was sold.
func (b *writeBench) sold(ctx context.Context, sku string) {
	const over = `SELECT NOT EXISTS (SELECT FROM orders WHERE account = $1 AND mode = $2 AND status NOT IN ('confirmed', 'rejected', 'cancelled') AND state->'lines'->0->>'sku' = $3)`
	b.await(ctx, "unfinished orders of "+sku, over, b.owner.Account, b.owner.Mode, sku)
	const count = `SELECT count(*) FROM orders WHERE account = $1 AND mode = $2 AND status = 'confirmed' AND state->'lines'->0->>'sku' = $3`
	var sold int64
	must(b.db.QueryRow(ctx, count, b.owner.Account, b.owner.Mode, sku).Scan(&sold))
	if sold != b.flash {
		must(fmt.Errorf("of %d pieces of %s %d were sold", b.flash, sku, sold))
	}
}

// await waits until a query is true.
func (b *writeBench) await(ctx context.Context, what, query string, arguments ...any) {
	for done, last := false, time.Now().Add(2*time.Minute); !done; pause(ctx, 20*time.Millisecond) {
		must(ctx.Err())
		must(b.db.QueryRow(ctx, query, arguments...).Scan(&done))
		if time.Now().After(last) {
			must(fmt.Errorf("after two minutes there are still %s", what))
		}
	}
}
