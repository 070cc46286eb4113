package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/ordergate/ordergate/command"
	"github.com/ordergate/ordergate/gen/api"
)

// draft is the order of a number: two lines and a payment.
func (g *gateway) draft(n int64) api.PlaceOrder {
	sku := func(n int64) string { return g.skus[n%int64(len(g.skus))] }
	return api.PlaceOrder{
		Currency: "EUR", CustomerRef: fmt.Sprint("c-", n%1000), Payment: &api.PlaceOrderPayment{MethodToken: "pm_ok"},
		Lines: []api.PlaceOrderLine{{Sku: sku(n), Quantity: 1}, {Sku: sku(n + 7), Quantity: 2}},
	}
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
	var refusal interface{ Retryable() bool }
	switch {
	case err == nil:
		return accepted, nil
	case errors.As(err, &refusal) && refusal.Retryable():
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
	err := w.do(g.post(n, g.order(n)))
	switch {
	case err != nil:
	case w.hasStatus("202"):
		g.accepted.Add(1)
	case w.retryable():
		err = errRefused
	default:
		err = fmt.Errorf("place over HTTP: %s%s", w.head, w.body)
	}
	return err
}

// clients place orders at the gateway, each the next as soon as the last was answered. body makes that of a number.
func (g *gateway) clients(ctx context.Context, clients int, body func(n int64) []byte) *load {
	var all []answered
	l := &leg{name: legHTTP, server: g.serving, clients: clients}
	l.next = func(int) []byte {
		n := g.sent.Add(1)
		return g.post(n, body(n))
	}
	l.answered = func(_ int, answer []byte, asked time.Time) error {
		now := time.Now()
		a := answered{now, now.Sub(asked), refused}
		switch {
		case bytes.HasPrefix(answer, []byte("HTTP/1.1 202")):
			a.kind = accepted
			g.accepted.Add(1)
		case !isRetryable(answer):
			return fmt.Errorf("place over HTTP: %s", answer)
		}
		all = append(all, a)
		return nil
	}
	l.open()
	var stop atomic.Bool
	done := make(chan error, 1)
	go func() { done <- l.drive(func() bool { return stop.Load() || ctx.Err() != nil }) }()
	return &load{
		program: g.serving.cpu, clients: cpu,
		allocations: func() float64 { return g.serving.metric("go_memstats_mallocs_total") },
		end: func() []answered {
			stop.Store(true)
			if err := <-done; err != nil {
				said, _ := os.ReadFile(g.serving.log.Name())
				must(fmt.Errorf("%w\nthe last that it said: %s", err, said[max(0, len(said)-2000):]))
			}
			l.close()
			return all
		},
	}
}

// callers place orders in this process, likewise.
func (g *gateway) callers(ctx context.Context, callers int, draft func(n int64) api.PlaceOrder) *load {
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
				_, err := g.place(ctx, g.components.Commands, fmt.Sprintf("in-process-%012d", n), draft(n))
				kind, err := kindOf(err)
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
		end: func() (sum []answered) {
			stop.Store(true)
			wg.Wait()
			if err := fault.Load(); err != nil && ctx.Err() == nil {
				must(fmt.Errorf("place in process: %w", *err))
			}
			for _, some := range all {
				sum = append(sum, some...)
			}
			return sum
		},
	}
}
