package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/ordergate/ordergate/command"
	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
)

// draft is the order of a number: two lines and a payment.
func (g *gateway) draft(n int64) api.PlaceOrder {
	sku := func(n int64) string { return g.skus[n%int64(len(g.skus))] }
	return api.PlaceOrder{
		Currency: "EUR", CustomerRef: fmt.Sprint("c-", n%1000), Payment: &api.PlaceOrderPayment{MethodToken: "pm_ok"},
		Lines: []api.PlaceOrderLine{{Sku: sku(n), Quantity: 1}, {Sku: sku(n + 7), Quantity: 2}},
	}
}

// of is an order of one piece of a sku.
func (g *gateway) of(n int64, sku string) api.PlaceOrder {
	d := g.draft(n)
	d.Lines = []api.PlaceOrderLine{{Sku: sku, Quantity: 1}}
	return d
}

// order is the body of draft.
func (g *gateway) order(n int64) []byte { return try(json.Marshal(g.draft(n))) }

func (g *gateway) place(ctx context.Context, c *command.Commands, key string, w api.PlaceOrder) (command.Result, error) {
	r := command.Envelope{Owner: g.owner, Operation: "placeOrder", Key: key, Actor: "key_bench"}
	r.Problem.TraceID = uuid.NewString()
	a, err := c.PlaceOrder(ctx, r, w)
	if err == nil {
		g.accepted.Add(1)
	}
	return a, err
}

// kindOf is what became of an order in this process. An error is one that may not be.
func kindOf(err error) (kind, error) {
	refusal, known := errors.AsType[*apierr.Error](err)
	switch {
	case err == nil:
		return accepted, nil
	case known && refusal.Code == errcode.INV002:
		return soldOut, nil
	case known && refusal.Retryable():
		return refused, nil
	}
	return refused, err
}

// post is the request that places an order.
func (g *gateway) post(n int64, body []byte) []byte {
	return fmt.Appendf(nil, "POST /v1/orders HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"+
		"Idempotency-Key: over-http-%012d\r\nContent-Length: %d\r\n\r\n%s", g.addr, g.key, n, len(body), body)
}

// send places an order over one connection.
func (g *gateway) send(_ int, w *wire) error {
	n := g.sent.Add(1)
	kind, err := g.ask(w, n, g.order(n))
	if err == nil && kind != accepted {
		err = errRefused
	}
	return err
}

// ask sends the order of a number over one connection.
func (g *gateway) ask(w *wire, n int64, body []byte) (kind, error) {
	if err := w.do(g.post(n, body)); err != nil {
		return refused, err
	}
	return g.judge(slices.Concat(w.head, w.body))
}

// judge is what became of an order, by its response, and counts it.
func (g *gateway) judge(response []byte) (kind, error) {
	switch {
	case bytes.HasPrefix(response, []byte("HTTP/1.1 202")):
		g.accepted.Add(1)
		return accepted, nil
	case bytes.HasPrefix(response, []byte("HTTP/1.1 409")) && bytes.Contains(response, []byte(`"INV_002"`)):
		return soldOut, nil
	case isRetryable(response):
		return refused, nil
	}
	return refused, fmt.Errorf("place over HTTP: %s", response)
}

// clients place orders at a server, each the next as soon as the last was answered. body makes that of a number.
func (g *gateway) clients(ctx context.Context, server *process, clients int, body func(n int64) []byte) *load {
	var all []answered
	l := &leg{name: legHTTP, server: server, clients: clients}
	l.next = func(int) []byte {
		n := g.sent.Add(1)
		return g.post(n, body(n))
	}
	l.answered = func(_ int, answer []byte, asked time.Time) error {
		now := time.Now()
		kind, err := g.judge(answer)
		all = append(all, answered{now, now.Sub(asked), kind})
		return err
	}
	l.open()
	var stop atomic.Bool
	done := make(chan error, 1)
	go func() { done <- l.drive(func() bool { return stop.Load() || ctx.Err() != nil }) }()
	return &load{
		program: server.cpu, clients: cpu,
		allocations: func() float64 { return server.metric("go_memstats_mallocs_total") },
		end: func() []answered {
			stop.Store(true)
			if err := <-done; err != nil {
				said, _ := os.ReadFile(server.log.Name())
				must(fmt.Errorf("%w\nthe last that it said: %s", err, said[max(0, len(said)-2000):]))
			}
			l.close()
			return all
		},
	}
}

// paced sends orders to a server at a rate, whether it answers or not: each by the first of some connections that is free, none of them if the
// server is late. An answer is counted from the moment at which its order was due.
func (g *gateway) paced(ctx context.Context, server *process, rate float64, connections int, body func(n int64) []byte) *load {
	var (
		stop  atomic.Bool
		next  atomic.Int64
		wg    sync.WaitGroup
		all   = make([][]answered, connections)
		fault atomic.Pointer[error]
		count atomic.Int64
		begin = time.Now()
	)
	for i := range connections {
		w := dial(server.addr)
		wg.Go(func() {
			defer func() { _ = w.Close() }()
			for !stop.Load() && ctx.Err() == nil {
				due := begin.Add(time.Duration(float64(next.Add(1)) / rate * float64(time.Second)))
				if pause(ctx, time.Until(due)); stop.Load() {
					return
				}
				n := g.sent.Add(1)
				kind, err := g.ask(w, n, body(n))
				if err != nil {
					fault.Store(&err)
					return
				}
				now := time.Now()
				all[i] = append(all[i], answered{now, now.Sub(due), kind})
				count.Add(1)
			}
		})
	}
	return &load{program: server.cpu, clients: cpu, end: ended(ctx, &stop, &wg, &fault, all), answers: &count}
}

// ended stops clients, waits for them and returns their answers.
func ended(ctx context.Context, stop *atomic.Bool, clients *sync.WaitGroup, fault *atomic.Pointer[error], all [][]answered) func() []answered {
	return func() []answered {
		stop.Store(true)
		clients.Wait()
		if err := fault.Load(); err != nil && ctx.Err() == nil {
			must(fmt.Errorf("place orders: %w", *err))
		}
		return slices.Concat(all...)
	}
}

// callers place orders in this process, each the next as soon as the last was answered.
func (g *gateway) callers(ctx context.Context, c *command.Commands, callers int, draft func(n int64) api.PlaceOrder) *load {
	return g.calls(ctx, callers, func(n int64) error {
		_, err := g.place(ctx, c, fmt.Sprintf("in-process-%012d", n), draft(n))
		return err
	})
}

// calls has callers do some work in this process over and over. It gets the number of an order.
func (g *gateway) calls(ctx context.Context, callers int, work func(n int64) error) *load {
	var (
		stop  atomic.Bool
		wg    sync.WaitGroup
		all   = make([][]answered, callers)
		fault atomic.Pointer[error]
	)
	for caller := range callers {
		wg.Go(func() {
			for !stop.Load() && ctx.Err() == nil {
				n, asked := g.sent.Add(1), time.Now()
				kind, err := kindOf(work(n))
				if err != nil {
					fault.Store(&err)
					return
				}
				now := time.Now()
				all[caller] = append(all[caller], answered{now, now.Sub(asked), kind})
			}
		})
	}
	return &load{
		program: cpu,
		allocations: func() float64 {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return float64(m.Mallocs)
		},
		end: ended(ctx, &stop, &wg, &fault, all),
	}
}
