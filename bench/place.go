package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/ordergate/ordergate/command"
	"github.com/ordergate/ordergate/gen/api"
)

const (
	// Reached by an experiment with group commit, beside pgbench with the whole transaction as one function.
	goalHTTP   = 1.8
	goalInside = 3.4

	sagaOrders  = 1500
	sagaClients = 16
)

// measurePlace compares orders placed, while no worker runs, with pgbench at as many clients.
func measurePlace(ctx context.Context, g *gateway) (figures []figure) {
	p := g.pgbench(ctx)
	for _, clients := range []int{16, 128} {
		r := interleave(fmt.Sprintf("place, %d clients", clients),
			contender{"over HTTP", func() float64 { return overHTTP(ctx, g.addr, clients, nil, g.send) }},
			contender{"one function", func() float64 { return p.run(ctx, p.function, clients) }},
			contender{"in process", func() float64 {
				return drive(ctx, clients, nil, func(int) error {
					n := g.sent.Add(1)
					_, err := g.place(ctx, g.components.Commands, fmt.Sprintf("in-process-%012d", n), g.draft(n))
					return err
				})
			}},
			contender{"its statements", func() float64 { return p.run(ctx, p.statements, clients) }},
		)
		for _, limit := range []struct {
			name               string
			goalHTTP, goalCall float64
		}{{"one function", goalHTTP, goalInside}, {"its statements", 0, 0}} {
			name := fmt.Sprintf(" / pgbench, %s, %d clients", limit.name, clients)
			figures = append(figures, newFigure("place over HTTP"+name, "orders/s", limit.goalHTTP, r["over HTTP"], r[limit.name]),
				newFigure("place in process"+name, "orders/s", limit.goalCall, r["in process"], r[limit.name]))
		}
	}
	return figures
}

// measureSaga places orders over HTTP while a worker, a process of its own, runs their sagas, until all are confirmed and paid.
func measureSaga(ctx context.Context, g *gateway) []figure {
	endPSP, endWorker := g.child(ctx, g.psp, program, "psp"), g.child(ctx, "", program, "worker")
	paid := func() {
		for n, last := 1, time.Now().Add(time.Minute); n > 0; <-time.After(20 * time.Millisecond) {
			must(g.db.QueryRow(ctx, "SELECT count(*) FROM orders WHERE (status, payment_status) <> ('confirmed', 'paid')").Scan(&n))
			if time.Now().After(last) {
				must(fmt.Errorf("%d orders are not confirmed and paid after a minute", n))
			}
		}
	}
	paid() // the orders of the read measurement
	begin, accepted := time.Now(), g.accepted.Load()
	overHTTP(ctx, g.addr, sagaClients, func() bool { return g.accepted.Load() < accepted+sagaOrders }, g.send)
	placed, orders := time.Since(begin).Seconds(), float64(g.accepted.Load()-accepted)
	paid()
	took := time.Since(begin).Seconds()
	say("saga: %.0f orders placed after %.1f s, all of them confirmed and paid after %.1f s", orders, placed, took)
	endWorker()
	endPSP()
	p := g.pgbench(ctx)
	return []figure{newFigure(fmt.Sprintf("saga to confirmed and paid / pgbench, one function, %d clients", sagaClients), "orders/s", 0,
		[]float64{orders / took}, []float64{p.run(ctx, p.function, sagaClients)})}
}

// draft is the order of a number: two lines and a payment.
func (g *gateway) draft(n int64) api.PlaceOrder {
	sku := func(n int64) string { return g.skus[n%int64(len(g.skus))] }
	return api.PlaceOrder{
		Currency: "EUR", CustomerRef: fmt.Sprint("c-", n%1000), Payment: &api.PlaceOrderPayment{MethodToken: "pm_ok"},
		Lines: []api.PlaceOrderLine{{Sku: sku(n), Quantity: 1}, {Sku: sku(n + 7), Quantity: 2}},
	}
}

func (g *gateway) place(ctx context.Context, c *command.Commands, key string, w api.PlaceOrder) (command.Result, error) {
	r := command.Envelope{Owner: g.owner, Operation: "placeOrder", Key: key, Actor: "key_bench"}
	r.About.TraceID = uuid.NewString()
	a, err := c.PlaceOrder(ctx, r, w)
	if err == nil {
		g.accepted.Add(1)
	}
	var refusal interface{ Retryable() bool }
	if errors.As(err, &refusal) && refusal.Retryable() {
		err = errRefused
	}
	return a, err
}

func (g *gateway) send(_ int, w *wire) error {
	n := g.sent.Add(1)
	body, err := json.Marshal(g.draft(n))
	if err != nil {
		return err
	}
	err = w.do(fmt.Appendf(nil, "POST /v1/orders HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"+
		"Idempotency-Key: over-http-%012d\r\nContent-Length: %d\r\n\r\n%s", g.addr, g.key, n, len(body), body))
	switch {
	case err != nil:
	case w.hasStatus("202"):
		g.accepted.Add(1)
	case bytes.Contains(w.body, []byte(`"retryable":true`)):
		err = errRefused
	default:
		err = fmt.Errorf("place over HTTP: %s%s", w.head, w.body)
	}
	return err
}
