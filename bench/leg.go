package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// pace is how long reads are measured. A round has several short slices of each contender, forwards and backwards in turn, so that a change of the
// machine's speed meets all of them.
type pace struct {
	rounds, slices int
	warm, measure  time.Duration // of a slice
}

// leg is one contender of the read path: a server, and the requests that it gets over connections of its own, which stay open.
type leg struct {
	name    string
	server  *process
	clients int
	targets []string // what is read: each client its own, or, with random, any of all
	random  bool
	headers string // further header lines of each request
	status  string // of all answers
	tier    string // X-Served-By of nearly all answers; empty: any
	wires   []*reader
	rounds  []sample
}

// sample is what a leg did in a round.
type sample struct {
	cpu     float64 // of the server's process, us a request
	rate    float64 // requests/s
	client  float64 // of this process, us a request
	answers int64
}

// reader is a client that keeps the greatest consistency token that it has seen and sends it, as ours do.
type reader struct {
	*wire
	token    []byte
	requests [][]byte // with the token, by target; nil: not made yet
	next     int
	answers  atomic.Int64
	missed   int64 // of another tier
	random   *rand.Rand
}

func (l *leg) open() {
	for i := len(l.wires); i < l.clients; i++ {
		r := &reader{wire: dial(l.server.addr), requests: make([][]byte, len(l.targets)), random: rand.New(rand.NewPCG(1, uint64(i)))}
		r.next = i % len(l.targets)
		l.wires = append(l.wires, r)
	}
}

func (l *leg) close() {
	for _, r := range l.wires {
		_ = r.Close()
	}
	l.wires = nil
}

// read sends one request and checks its answer.
func (l *leg) read(r *reader) error {
	if l.random {
		r.next = r.random.IntN(len(l.targets))
	}
	if r.requests[r.next] == nil {
		r.requests[r.next] = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n%sX-Consistency-Token: %s\r\n\r\n", l.targets[r.next], l.server.addr, l.headers, r.token)
		if len(r.token) == 0 {
			r.requests[r.next] = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", l.targets[r.next], l.server.addr, l.headers)
		}
	}
	switch err := r.do(r.requests[r.next]); {
	case err != nil:
		return fmt.Errorf("%s: %w", l.name, err)
	case !r.hasStatus(l.status):
		return fmt.Errorf("%s: %s%s", l.name, r.head, r.body)
	}
	if l.tier != "" && string(r.header("X-Served-By")) != l.tier {
		r.missed++
	}
	if token := r.header("X-Consistency-Token"); bytes.Compare(token, r.token) > 0 {
		r.token = slices.Clone(token)
		clear(r.requests)
	}
	r.answers.Add(1)
	return nil
}

// slice loads the server for a while and adds what it did to a sample. At most one answer in missesIn, and the first of each client, may come
// from another tier than the leg's.
func (l *leg) slice(ctx context.Context, p pace) (s slice) {
	l.open()
	var stop atomic.Bool
	g, ctx := errgroup.WithContext(ctx)
	var missed, before int64
	for _, r := range l.wires {
		missed -= r.missed
		before += r.answers.Load()
		g.Go(func() error {
			for ctx.Err() == nil && !stop.Load() {
				if err := l.read(r); err != nil {
					return err
				}
			}
			return ctx.Err()
		})
	}
	pause(ctx, p.warm)
	from := l.now()
	pause(ctx, p.measure)
	s = l.now().since(from)
	stop.Store(true)
	must(g.Wait())
	for _, r := range l.wires {
		missed, before = missed+r.missed, before-r.answers.Load()
	}
	if missed > int64(len(l.wires))+-before/missesIn {
		must(fmt.Errorf("%s: %d of %d answers were not from %s", l.name, missed, -before, l.tier))
	}
	return s
}

// slice is how much was done, and how much CPU time went, up to a moment or between two.
type slice struct {
	answers      int64
	took         time.Duration
	cpu, clients time.Duration
}

var started = time.Now()

func (l *leg) now() (s slice) {
	for _, r := range l.wires {
		s.answers += r.answers.Load()
	}
	s.cpu, s.clients, s.took = l.server.cpu(), cpu(), time.Since(started)
	return s
}

func (s slice) since(from slice) slice {
	return slice{s.answers - from.answers, s.took - from.took, s.cpu - from.cpu, s.clients - from.clients}
}

func (s slice) plus(t slice) slice {
	return slice{s.answers + t.answers, s.took + t.took, s.cpu + t.cpu, s.clients + t.clients}
}

func (s slice) sample() sample {
	per := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 / float64(s.answers) }
	return sample{cpu: per(s.cpu), rate: float64(s.answers) / s.took.Seconds(), client: per(s.clients), answers: s.answers}
}

// takeTurns measures legs of as many clients each, round by round.
func takeTurns(ctx context.Context, what string, p pace, clients int, legs ...*leg) {
	for _, l := range legs {
		l.clients, l.rounds = clients, nil
		defer l.close()
	}
	order := slices.Clone(legs)
	for round := range p.rounds {
		sums := map[*leg]slice{}
		for range p.slices {
			for _, l := range order {
				sums[l] = sums[l].plus(l.slice(ctx, p))
				must(l.server.log.Truncate(0))
			}
			slices.Reverse(order)
		}
		line := ""
		for _, l := range legs {
			s := sums[l].sample()
			l.rounds = append(l.rounds, s)
			line += fmt.Sprintf("  %s %.2f us, %.0f/s", l.name, s.cpu, s.rate)
		}
		sayf("%s, %d clients, round %d of %d:%s", what, clients, round+1, p.rounds, line)
		if p.slices%2 == 0 {
			slices.Reverse(order)
		}
	}
}

// each is one number of all rounds.
func (l *leg) each(of func(sample) float64) (all []float64) {
	for _, s := range l.rounds {
		all = append(all, of(s))
	}
	return all
}

func (l *leg) cpus() []float64 { return l.each(func(s sample) float64 { return round(s.cpu) }) }

func (l *leg) rates() []float64 { return l.each(func(s sample) float64 { return round(s.rate) }) }

// total is the CPU of a request over all rounds.
func (l *leg) total() float64 {
	cpu, answers := 0.0, 0.0
	for _, s := range l.rounds {
		cpu, answers = cpu+s.cpu*float64(s.answers), answers+float64(s.answers)
	}
	return cpu / answers
}

// compare makes the figures of one leg beside another: CPU of a request, and requests per second. An empty name leaves one out.
func compare(cpuName, cpuGoal, rateName, rateGoal string, ours, limit *leg) (figures []figure) {
	if cpuName != "" {
		f := newFigure(cpuName, "us", cpuGoal, ours.cpus(), limit.cpus())
		f.Note += fmt.Sprintf(", of all rounds together %.3f", ours.total()/limit.total())
		figures = append(figures, f)
	}
	if rateName != "" {
		figures = append(figures, newFigure(rateName, "/s", rateGoal, ours.rates(), limit.rates()))
	}
	return figures
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
