// Package command is the write side: it takes commands in, decides them on the primary and drives the saga. One file a command.
// A command says what it needs, load.go locks and reads that, the command decides, rows.go writes; execute.go is the transaction
// around them.
package command

import (
	"cmp"
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel/trace"

	"github.com/ordergate/ordergate/command/inventory"
	"github.com/ordergate/ordergate/command/payment"
	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/guard"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/internal/waiters"
	"github.com/ordergate/ordergate/order"
)

// Budget is the time from a command's arrival until its COMMIT is sent.
const Budget = 800 * time.Millisecond

// The primary's transactions of commands that are tried again are at most this share of the commands, and so many more: a full batch, twice.
const (
	retryShare = 0.2
	retryLeast = 2 * maxBatch
)

// Committed is a new state of a row, ready to be served: it is written through the caches after its COMMIT.
type Committed struct {
	order.Owner
	Key        string // as tokens name the row
	Rev        int64
	KnownAt    uint64 // position in the log read under the row's lock: no commit before it can be missing here
	Timeline   uint32 // of that log
	Generation int64  // of the caches, read with it: this is of none that began later
	LSN        uint64 // flush position after the COMMIT, for the consistency token, or token.NoPosition
	Body       view.Body
}

// Config has the dependencies of Commands.
type Config struct {
	Pool         *pgxpool.Pool // the primary, as ordergate_app
	IDs          order.IDs
	Now          func() time.Time
	WriteThrough func(context.Context, []Committed) // may be nil; does not panic: the COMMIT stands
	Wake         func()                             // tells the relay that the outbox has rows
	WakePayments func()                             // tells the payment context that a call is due
	ProviderOpen func() bool                        // tells that the provider's breaker refuses calls
	Deadline     time.Duration                      // of an authorization
	SoldOut      *inventory.SoldOut                 // of this process, as its inventory has it; nil: nothing is marked
	Admission    *guard.Admission                   // nil: an overload refuses nothing
	Tracer       trace.Tracer
	Registry     prometheus.Registerer // may be nil
}

// Commands are the write side's operations. Safe for concurrent use.
type Commands struct {
	writer
	guard     *guard.Guard
	queue     *queue
	retries   *guard.RetryBudget
	alone     chan struct{} // a place for each command outside of the queue's batches
	lookups   chan struct{} // a place for each connection that is kept for look-ups
	callbacks *prometheus.CounterVec
}

// New returns Commands. The connections of the pool are shared out, so that nobody waits in the pool and a wait that ends there is the
// primary's failure: commands have half of them, their look-ups and waiters an eighth, the look-ups of API keys a quarter; the rest is
// for maintenance.
func New(c Config) *Commands {
	connections := uint(c.Pool.Config().MaxConns)
	c.SoldOut = cmp.Or(c.SoldOut, inventory.NewSoldOut(c.Now))
	// The guard's time-out stands behind the budget, which each batch has as its deadline.
	commands := &Commands{writer: newWriter(c), lookups: make(chan struct{}, max(1, connections/8)), guard: guard.New(guard.Config{
		Name: "primary", Concurrent: max(1, connections/2), Wait: Budget - leastTime, Timeout: Budget + leastTime, Failure: primaryFailed,
		Last: 10, Registry: c.Registry,
	}), callbacks: promauto.With(c.Registry).NewCounterVec(prometheus.CounterOpts{
		Name: "ordergate_callbacks_total", Help: "Callbacks of the payment provider that were taken, by what became of them.",
	}, []string{"result"})}
	commands.retries = guard.NewRetryBudget("primary", retryShare, retryLeast, c.Registry)
	commands.alone = make(chan struct{}, max(1, int(connections/2)-maxBatches)) // the guard's other places are the queue's
	commands.queue = newQueue(c.Registry, commands.executeQueued)
	return commands
}

// writer has the dependencies and metrics that Commands and Saga share.
type writer struct {
	cfg     Config
	waiters *waiters.Waiters[order.ID] // requests of this process that wait for a change of an order
	events  *prometheus.CounterVec
	steps   *prometheus.HistogramVec
}

func newWriter(c Config) writer {
	m := promauto.With(c.Registry)
	return writer{
		cfg: c, waiters: &waiters.Waiters[order.ID]{},
		events: m.NewCounterVec(prometheus.CounterOpts{
			Name: "ordergate_order_events_total", Help: "Events of orders by type: how many orders came and how they ended.",
		}, []string{"type"}),
		steps: m.NewHistogramVec(prometheus.HistogramOpts{
			Name: "ordergate_saga_step_seconds", Help: "Time from a saga step's start to its definite end.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
		}, []string{"step", "status"}),
	}
}

// Envelope is common to all commands: the owner, the idempotency key, and the cause to name in events.
type Envelope struct {
	Owner     order.Owner
	Operation string // the operationId
	Key       string // the idempotency key; empty for an operation that takes none: nothing is looked up or stored under it
	IfMatch   string // the header
	Subject   string // the path's parameters; a repetition must have the same
	Problem   apierr.ProblemContext
	Actor     string // the API key's id
}

// Result is the response of a command, about any resource. It is stored under the key, and every repetition gets it.
type Result struct {
	Status      int
	Code        errcode.Code // of a refusal
	ContentType string
	Location    string
	Body        view.Body
	Replayed    bool
	OrderID     order.ID // the order that was changed, for Prefer: wait and the consistency token; zero if none
	Product     string   // the sku of the product that the command is about; empty if none
	Rev         int64    // of that order or product after the command; 0 in a replay
	LSN         uint64   // for the consistency token; 0 means none
}

// Row is the row that the command is about, as consistency tokens name it; empty without Rev.
func (r Result) Row(owner order.Owner) string {
	switch {
	case r.Rev == 0:
		return ""
	case r.Product != "":
		return string(order.AppendRow(nil, order.PrefixProduct, owner, r.Product))
	}
	return r.OrderID.Format(order.PrefixOrder)
}

// checkPrecondition compares If-Match, which satisfies the contract, with the present ETag: REQ_011 without the header, REQ_010 if it names
// another state. "*" alone names any state.
func (e Envelope) checkPrecondition(etag string, version int64) error {
	if e.IfMatch == "" {
		return apierr.E(errcode.REQ011)
	}
	if e.IfMatch == "*" {
		return nil
	}
	for tag := range strings.SplitSeq(e.IfMatch, ",") { // our tags have no comma; a weak one never matches (RFC 9110, 13.1.1)
		if strings.TrimSpace(tag) == etag {
			return nil
		}
	}
	return apierr.E(errcode.REQ010, apierr.Extra("current_version", version))
}

// recorder stamps the events that a command causes.
func (e Envelope) recorder(ids order.IDs, now time.Time) order.Recorder {
	return order.Recorder{
		NewID: func() order.ID { return ids.Mint(now, e.Owner.Account) },
		Now:   now,
		Cause: order.Cause{TraceID: e.Problem.TraceID, Operation: e.Operation, Actor: e.Actor},
	}
}

// operation is one kind of command. Both methods only compute. decide changes the products and the stock that were loaded, which are
// then written, but only if it does not refuse.
type operation interface {
	// needs names the rows that the command decides on.
	needs() needs
	// decide returns the effect of the command. The error is a refusal: it writes nothing but its key.
	decide(l *loaded, rec order.Recorder) (effect, error)
}

// effect is the rows and the result of a decided command.
type effect struct {
	orders    []*orderChange
	payments  payment.Changes
	shipments []*shipmentChange
	result    Result
}
