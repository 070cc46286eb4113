package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
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

// leg is one contender: a server, and the requests that it gets over connections of its own, which stay open.
type leg struct {
	name    string
	server  *process
	clients int

	// Of writes: the next request of a client, and what its answer says. nil: the fields up to others say what is read.
	next     func(client int) []byte
	answered func(client int, answer []byte, asked time.Time) error

	targets []string // what is read: each client its own, or, with random, any of all
	random  bool
	headers string // further header lines of each request
	token   string // consistency token that is sent; empty: the greatest that the reader has seen
	status  string // of all answers
	tier    string // X-Served-By of nearly all answers; empty: any
	others  int    // one answer in so many may be from another tier; 0: in missesIn
	readers []*reader
	answers atomic.Int64 // in all
	missed  int64        // of them, from another tier
	rounds  []sample
}

// sample is what a leg did in a round.
type sample struct {
	cpu     float64 // of the server's process, us a request
	rate    float64 // requests/s
	client  float64 // of this process, us a request
	answers int64
}

// reader is a connection that asks anew as soon as it was answered. Unless its leg has a token it keeps the greatest that it has seen and sends it, as our
// clients do.
type reader struct {
	fd       int
	client   int
	asked    time.Time // of writes
	in       []byte    // what has come of an answer
	token    []byte
	requests [][]byte // with the token, by target; nil: not made yet
	next     int      // target
	random   *rand.Rand
}

func (l *leg) open() {
	for i := len(l.readers); i < l.clients; i++ {
		r := &reader{fd: connect(l.server.addr), client: i, token: []byte(l.token), requests: make([][]byte, len(l.targets)), random: rand.New(rand.NewPCG(1, uint64(i)))}
		if l.next == nil {
			r.next = i % len(l.targets)
		}
		l.readers = append(l.readers, r)
	}
}

func (l *leg) close() {
	for _, r := range l.readers {
		disconnect(r.fd)
	}
	l.readers = nil
}

// request is the next one of a reader.
func (l *leg) request(r *reader) []byte {
	if l.next != nil {
		r.asked = time.Now()
		return l.next(r.client)
	}
	if l.random {
		r.next = r.random.IntN(len(l.targets))
	}
	if r.requests[r.next] == nil {
		token := ""
		if len(r.token) > 0 {
			token = "X-Consistency-Token: " + string(r.token) + "\r\n"
		}
		r.requests[r.next] = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n%s%s\r\n", l.targets[r.next], l.server.addr, l.headers, token)
	}
	return r.requests[r.next]
}

// received takes what a reader has got, and tells whether its answer is complete. The answer is checked and counted then.
func (l *leg) received(r *reader) (complete bool, err error) {
	end := bytes.Index(r.in, []byte("\r\n\r\n"))
	if end < 0 {
		return false, nil
	}
	length, tier, token := 0, []byte(nil), []byte(nil)
	for line := range bytes.SplitSeq(r.in[:end], []byte("\r\n")) {
		switch name, value, _ := bytes.Cut(line, []byte(": ")); string(name) {
		case "Content-Length":
			if length, err = strconv.Atoi(string(value)); err != nil {
				return false, err
			}
		case "X-Served-By":
			tier = value
		case "X-Consistency-Token":
			token = value
		}
	}
	if end += len("\r\n\r\n") + length; len(r.in) < end {
		return false, nil
	}
	if l.next != nil {
		err = l.answered(r.client, r.in, r.asked)
		r.in = r.in[:0]
		return err == nil, err
	}
	ok := bytes.HasPrefix(r.in, []byte("HTTP/1.1 "+l.status))
	if len(r.in) > end || !ok && !isRetryable(r.in) {
		return false, fmt.Errorf("%s: an answer that was not expected: %s", l.name, r.in)
	}
	if !ok || l.tier != "" && string(tier) != l.tier {
		l.missed++
	}
	if l.token == "" && bytes.Compare(token, r.token) > 0 {
		r.token = slices.Clone(token)
		clear(r.requests)
	}
	r.in = r.in[:0]
	l.answers.Add(1)
	return true, nil
}

// slice loads the server for a while. Few answers, and the first of each client, may be of another tier than the leg's, or refused for now: a slice
// with more of them is measured once more.
func (l *leg) slice(ctx context.Context, p pace) slice {
	for end := time.Now().Add(20 * time.Second); ; pause(ctx, 500*time.Millisecond) { // a breaker is open for 5 s
		s, missed, all := l.try(ctx, p)
		if missed <= int64(len(l.readers))+all/int64(cmp.Or(l.others, missesIn)) {
			return s
		}
		sayf("%s: %d of %d answers were not from %s: once more", l.name, missed, all, l.tier)
		if time.Now().After(end) {
			must(fmt.Errorf("the machine has too much to do for %s", l.name))
		}
	}
}

func (l *leg) try(ctx context.Context, p pace) (s slice, missed, all int64) {
	l.open()
	var stop atomic.Bool
	g, driving := errgroup.WithContext(ctx)
	missedBefore, before := l.missed, l.answers.Load()
	g.Go(func() error { return l.drive(func() bool { return stop.Load() || driving.Err() != nil }) })
	pause(driving, p.warm)
	from := l.now()
	pause(driving, p.measure)
	for s = l.now().since(from); s.answers < int64(l.clients) && driving.Err() == nil; s = l.now().since(from) { // an overloaded machine
		pause(driving, time.Millisecond)
	}
	stop.Store(true)
	if err := g.Wait(); err != nil {
		said, _ := os.ReadFile(l.server.log.Name())
		must(fmt.Errorf("%w\nthe last that %s said: %s", err, l.name, said[max(0, len(said)-2000):]))
	}
	must(ctx.Err())
	return s, l.missed - missedBefore, l.answers.Load() - before
}

// slice is how much was done, and how much CPU time went, up to a moment or between two.
type slice struct {
	answers      int64
	took         time.Duration
	cpu, clients time.Duration
}

var started = time.Now()

func (l *leg) now() slice {
	return slice{l.answers.Load(), time.Since(started), l.server.cpu(), cpu()}
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
		var line strings.Builder
		for _, l := range legs {
			s := sums[l].sample()
			l.rounds = append(l.rounds, s)
			fmt.Fprintf(&line, "  %s %.2f us, %.0f/s", l.name, s.cpu, s.rate)
		}
		sayf("%s, %d clients, round %d of %d:%s", what, clients, round+1, p.rounds, line.String())
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

// total is the CPU of a request over all rounds.
func (l *leg) total() float64 {
	cpu, answers := 0.0, 0.0
	for _, s := range l.rounds {
		cpu, answers = cpu+s.cpu*float64(s.answers), answers+float64(s.answers)
	}
	return cpu / answers
}

// perRequest compares the CPU of a request of two legs, perCPU the requests of a CPU second, perSecond the requests of a second.
func perRequest(name, goal string, ours, limit *leg) figure {
	f := newFigure(name+", CPU of a request", "us", goal, ours.cpus(), limit.cpus())
	f.Note += fmt.Sprintf(", spread %.3f, of all rounds together %.3f", f.Spread, ours.total()/limit.total())
	return f
}

func perCPU(name, goal string, ours, limit *leg) figure {
	requests := func(l *leg) []float64 { return l.each(func(s sample) float64 { return math.Round(1e6 / s.cpu) }) }
	f := newFigure(name+", requests per CPU", "per CPU second", goal, requests(ours), requests(limit))
	f.Note += fmt.Sprintf(", spread %.3f, of all rounds together %.3f", f.Spread, limit.total()/ours.total())
	return f
}

func perSecond(goal string, ours, limit *leg) figure {
	rates := func(l *leg) []float64 { return l.each(func(s sample) float64 { return math.Round(s.rate) }) }
	f := newFigure("  the same, requests/s", "/s", goal, rates(ours), rates(limit))
	f.Note += fmt.Sprintf(", spread %.3f", f.Spread)
	return f
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
