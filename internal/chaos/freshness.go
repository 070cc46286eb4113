package main

import (
	"context"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// fresh is how much the part freshness does.
type fresh struct {
	tokenPairs  int
	groups      int           // customers with five orders each
	clientsEach int           // of them
	pace        time.Duration // pause of a client between two operations, on average
	calm        time.Duration // without a fault of Redis: the bound is the narrow one
	restarts    int           // of Redis
	between     time.Duration // two restarts
	promotion   time.Duration // load on the new timeline
	tokens      time.Duration // of a replica, on the primary
	bugTime     time.Duration // until a bug is found
}

// leastSpared is the share of reads beside the pairs that must leave the primary alone.
const leastSpared = .8

// freshness proves what docs/consistency.md promises of reads, from outside, on servers of its own that are broken meanwhile.
func freshness(ctx context.Context, c *campaign) (err error) {
	if _, err = os.Stat(filepath.Join(c.bin, ordinary)); err != nil {
		return fmt.Errorf("%w: run `make chaos`", err)
	}
	dir, err := os.MkdirTemp("", "ordergate-chaos-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	stack, err := startStack(ctx, nil, standbyAndLagging...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stack.remove(ctx)) }()
	begin := time.Now()
	buggy, err := buildVariants(ctx, dir)
	if err != nil {
		return err
	}
	c.progress("%s: the program with bugs is built, in %.0f s", c.name, time.Since(begin).Seconds())
	if err = c.findAll(ctx, stack, buggy); err != nil {
		return err
	}
	g, err := stack.deploy(ctx, c, filepath.Join(c.bin, ordinary))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.remove()) }()
	if err = g.pairs(ctx); err != nil {
		return err
	}
	if err = g.replicaTokens(ctx); err != nil {
		return err
	}
	first := g.processes[0]
	first.kill("serve")
	first.program = buggy
	if err = errors.Join(first.start([]string{"serve"}, bugSetting+"="+slowFills.name), first.awaitReady(ctx, "serve")); err != nil {
		return err
	}
	return g.mixed(ctx)
}

// pairs writes an order by one process and reads it by the other, with the token and without, while the replica is 2 s behind and others read.
func (g *gateway) pairs(ctx context.Context) error {
	c, r := g.processes[0].c, row{name: "write, then read"}
	h, err := newHistory(ctx, g, c.groups, "pair")
	if err != nil {
		return err
	}
	var left, reads, withToken, staleToken, without, staleWithout atomic.Int64
	left.Store(int64(c.tokenPairs))
	background, stop := context.WithCancel(ctx)
	defer stop()
	var pairs, others sync.WaitGroup
	for n, t := range h.groups {
		writer, reader := h.client(t, n), h.client(t, 1000+n)
		pairs.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				pair := left.Add(-1)
				if pair < 0 {
					return
				}
				if pair%5000 == 0 {
					c.progress("%s: %s: %d pairs left", c.name, r.name, pair)
				}
				o, process := t.orders[n%perGroup], writer.random.IntN(2)
				if !writer.write(ctx, o, process) {
					return
				}
				for _, token := range [][]bool{{true, false}, {false, true}}[n/perGroup%2] {
					got, _ := writer.read(ctx, o, 1-process, token)
					for try := 0; got == 0 && try < 100; try++ { // it was refused for a moment
						pause(ctx, 20*time.Millisecond)
						got, _ = writer.read(ctx, o, 1-process, token)
					}
					count, stale := &without, &staleWithout
					if token {
						count, stale = &withToken, &staleToken
					}
					if count.Add(1); got != o.version {
						stale.Add(1)
					}
				}
			}
		})
		others.Go(func() {
			for background.Err() == nil {
				reader.background(background, int(reads.Add(1)))
				pause(background, 4*time.Millisecond)
			}
		})
	}
	begin := time.Now()
	pairs.Wait()
	stop()
	others.Wait()
	v := h.check()
	share, all, kinds := h.spared()
	r.counts = fmt.Sprintf("%d pairs in %.0f s, stale with the token %d of %d, without %d of %d (%.2f %%), and %.1f s behind at most; of %d other reads %.1f %% left the primary alone (%s); %v of %d operations",
		c.tokenPairs, time.Since(begin).Seconds(), staleToken.Load(), withToken.Load(), staleWithout.Load(), without.Load(),
		100*float64(staleWithout.Load())/float64(max(1, without.Load())), v.oldest.Seconds(), all, 100*share, kinds, v, v.operations)
	r.broken = v.broken
	if staleToken.Load() > 0 {
		r.broken = append(r.broken, fmt.Sprintf("%d reads with the token of the write were stale", staleToken.Load()))
	}
	if share < leastSpared {
		r.broken = append(r.broken, fmt.Sprintf("%.1f %% of the other reads left the primary alone, and not %.0f %%", 100*share, 100*leastSpared))
	}
	g.report(r)
	return ctx.Err()
}

// replicaTokens lists orders on a replica without lag, and with its token on the primary. Where a COMMIT waits for a synchronous standby, a
// replica shows it before the primary does. The process that reads the primary has a replica that is away: one that has none trusts that nobody has.
func (g *gateway) replicaTokens(ctx context.Context) error {
	c, r := g.processes[0].c, row{name: "a replica's token on the primary"}
	alone := g.processes[1]
	alone.kill("serve")
	if err := errors.Join(g.stack.setLag(ctx, 0), g.stack.setStandbys(ctx, standby), alone.start([]string{"serve"}, "ORDERGATE_REPLICA_URLS=postgres://ordergate@127.0.0.1:1/ordergate"), alone.awaitReady(ctx, "serve")); err != nil {
		return err
	}
	h, err := newHistory(ctx, g, 4, "tokens")
	if err != nil {
		return err
	}
	loading, stop := context.WithTimeout(ctx, c.tokens)
	defer stop()
	var lists sync.WaitGroup
	for n, t := range h.groups {
		reader := h.client(t, 5000+n)
		lists.Go(func() {
			for loading.Err() == nil {
				reader.list(loading, 0, false)
				reader.list(loading, 1, true)
				pause(loading, 5*time.Millisecond)
			}
		})
	}
	h.load(loading, shape{clients: 2, pause: 25 * time.Millisecond, active: time.Second, tokens: true})
	lists.Wait()
	v := h.check()
	r.counts = fmt.Sprintf("%d lists, %d writes, %v", h.lists.Load(), h.writes.Load(), v)
	r.broken = v.broken
	g.report(r)
	alone.kill("serve")
	return errors.Join(g.stack.setStandbys(ctx, ""), alone.start([]string{"serve"}), alone.awaitReady(ctx, "serve"), ctx.Err())
}

// background does one read beside the pairs: as clients do, most without a token, some of what was just written with the token of that. With the
// token of another row, and of lists with one, the primary is asked as long as the replica is behind it: few are such.
func (c *client) background(ctx context.Context, n int) {
	process, o := c.random.IntN(2), c.t.orders[c.random.IntN(perGroup)]
	switch n = n * 37 % 100; { // all kinds come soon
	case n < 55:
		_, tier := c.read(ctx, o, process, false)
		c.h.note("GET", tier)
	case n < 75:
		if c.takeLast() {
			_, tier := c.read(ctx, c.t.orders[c.k.wrote], process, true)
			c.h.note("GET with the row's token", tier)
		}
	case n < 80:
		c.takeHanded()
		_, tier := c.read(ctx, o, process, true)
		c.h.note("GET with another token", tier)
	case n < 95:
		c.h.note("list", c.list(ctx, process, false))
	default:
		c.h.note("list with a token", c.list(ctx, process, true))
	}
}

// slowFill is how long a load of slowFills sleeps.
const slowFill = 150 * time.Millisecond

// mixed has clients write, read, list and follow orders while Redis, the replica and a process fail, and at last the primary.
func (g *gateway) mixed(ctx context.Context) error {
	c, r := g.processes[0].c, row{name: "history under faults"}
	h, err := newHistory(ctx, g, c.groups, "mixed")
	if err != nil {
		return err
	}
	h.faults.add(window{from: h.begin, to: h.begin.Add(24 * time.Hour), more: slowFill, sum: true})
	var f faultCounts
	loading, stop := context.WithCancel(ctx)
	defer stop()
	var load sync.WaitGroup
	load.Go(func() {
		h.load(loading, shape{clients: c.clientsEach, pause: c.pace, active: 3 * time.Second, tokens: true})
	})
	err = h.breakThings(ctx, &f)
	stop()
	load.Wait()
	if err != nil {
		return err
	}
	took, err := h.settle(ctx)
	if err != nil {
		return err
	}
	v := h.check()
	r.broken = v.broken
	if answered := h.plain.Load() + h.withToken.Load() + h.lists.Load(); h.refused.Load() > answered/10 {
		r.broken = append(r.broken, fmt.Sprintf("%d reads were refused, and %d answered: this proves little", h.refused.Load(), answered))
	}
	r.counts = fmt.Sprintf("%d writes (%d tries repeated, %d resolved by a refusal), %d reads with a token, %d without, %d lists (%d with a token), %d streams with %d events, %d refused for a moment; %v; a read without a token was %.1f s behind at most; all shown at the end after %.1f s; %d of %d operations decide, %v",
		h.writes.Load(), h.retried.Load(), h.resolved.Load(), h.withToken.Load(), h.plain.Load(), h.lists.Load(), h.listsWithToken.Load(), h.streams.Load(), h.events.Load(),
		h.refused.Load(), &f, v.oldest.Seconds(), took.Seconds(), v.decisive, v.operations, v)
	g.report(r)
	return nil
}

type faultCounts struct {
	restarts, cuts, pauses, lags, replayPauses, promotions atomic.Int64
}

func (f *faultCounts) String() string {
	return fmt.Sprintf("%d restarts of Redis, %d connections of the channel cut, %d processes paused, %d changes of the lag, %d pauses of the replay, %d promotions",
		f.restarts.Load(), f.cuts.Load(), f.pauses.Load(), f.lags.Load(), f.replayPauses.Load(), f.promotions.Load())
}

// breakThings does all faults, and returns when the last leg is over.
func (h *history) breakThings(ctx context.Context, f *faultCounts) (err error) {
	c, s := h.g.processes[0].c, h.g.stack
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	small, stopSmall := context.WithCancel(ctx)
	var faults sync.WaitGroup
	every := func(seed uint64, least, most time.Duration, do func(ctx context.Context, random *mathrand.Rand) error) {
		random := mathrand.New(mathrand.NewPCG(seed, 3))
		faults.Go(func() {
			for {
				pause(small, least+time.Duration(random.Int64N(int64(most-least))))
				if small.Err() != nil {
					return
				}
				if err := do(context.WithoutCancel(ctx), random); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	every(1, time.Second, 3*time.Second, func(ctx context.Context, random *mathrand.Rand) error {
		lag := []time.Duration{0, 0, mostLag / 8, mostLag / 4, mostLag / 2, mostLag}[random.IntN(6)]
		f.lags.Add(1)
		return s.setLag(ctx, lag)
	})
	every(2, 2*time.Second, 5*time.Second, func(ctx context.Context, random *mathrand.Rand) error {
		f.replayPauses.Add(1)
		return s.pauseReplay(ctx, 100*time.Millisecond+time.Duration(random.IntN(500))*time.Millisecond)
	})
	every(3, time.Second, 3*time.Second, func(_ context.Context, random *mathrand.Rand) error {
		d := 50*time.Millisecond + time.Duration(random.IntN(350))*time.Millisecond
		begin := time.Now()
		h.g.pause(random.IntN(2), d)
		d = time.Since(begin)
		f.pauses.Add(1)
		to := time.Now().Add(boundCached + slack)
		h.faults.add(window{from: begin, to: to, more: d, sum: true})
		h.faults.add(window{from: begin, to: to, more: boundFlush}) // what it had not given to Redis in time
		return nil
	})
	every(4, 2*time.Second, 4*time.Second, func(ctx context.Context, random *mathrand.Rand) error {
		f.cuts.Add(s.cutChannel(ctx, 200*time.Millisecond+time.Duration(random.IntN(800))*time.Millisecond))
		return nil
	})
	c.progress("%s: faults without Redis", c.name)
	pause(ctx, c.calm)
	for n := range c.restarts {
		c.progress("%s: restart %d of Redis", c.name, n+1)
		begin := time.Now()
		if err = s.restartRedis(ctx); err != nil {
			break
		}
		f.restarts.Add(1)
		// A process may refuse to ask Redis for 5 s, and gives it what it missed a second later. What Redis missed is shown for 10 s.
		h.faults.add(window{from: begin, to: time.Now().Add(6*time.Second + boundFlush + boundRedis + boundCached + mostLag), more: boundRedis})
		pause(ctx, c.between)
	}
	stopSmall()
	faults.Wait()
	if err == nil && context.Cause(ctx) == nil {
		c.progress("%s: the primary stops, and the standby is promoted", c.name)
		if err = s.setLag(ctx, 0); err == nil { // a replica shows commits before the primary then, where those wait for the standby
			var stopped time.Time
			if stopped, err = s.promote(ctx); err == nil {
				f.promotions.Add(1)
				// Until it has connected to the new primary, which it tries each second, a process does not know the new timeline.
				h.faults.add(window{from: stopped, to: time.Now().Add(boundCached + 3*time.Second), more: time.Since(stopped) + 2*time.Second})
				pause(ctx, c.promotion)
			}
		}
	}
	return errors.Join(err, context.Cause(ctx))
}

// findLag is how far the replica is behind meanwhile: a cache may then show an order for that and 2 s.
const findLag = time.Second

// findAll looks for all bugs at one time, each in a gateway of its own.
func (c *campaign) findAll(ctx context.Context, stack *ownStack, program string) error {
	if err := stack.setLag(ctx, findLag); err != nil {
		return err
	}
	failed := make([]error, len(bugs))
	var all sync.WaitGroup
	for n, bug := range bugs {
		all.Go(func() { failed[n] = c.find(ctx, stack, bug, program) })
	}
	all.Wait()
	return errors.Join(errors.Join(failed...), stack.setLag(ctx, mostLag))
}

// find runs a load of a few clients that shows bugs soon: the channel is cut now and then, each order rests for longer than the bound, and orders are
// not read with tokens, which would bring the caches up to date.
func (c *campaign) find(ctx context.Context, stack *ownStack, bug variant, program string) (err error) {
	g, err := stack.deploy(ctx, c, program, bugSetting+"="+bug.name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.remove()) }()
	h, err := newHistory(ctx, g, 5, "bug")
	if err != nil {
		return err
	}
	loading, stop := context.WithTimeout(ctx, c.bugTime)
	defer stop()
	begin := time.Now()
	var load sync.WaitGroup
	load.Go(func() {
		h.load(loading, shape{clients: 2, pause: 25 * time.Millisecond, active: time.Second, rest: 2 * time.Second})
	})
	load.Go(func() {
		for loading.Err() == nil {
			pause(loading, 600*time.Millisecond)
			stack.cutChannel(loading, 50*time.Millisecond)
		}
	})
	load.Go(func() {
		for ; loading.Err() == nil; pause(loading, 250*time.Millisecond) {
			if h.found() {
				stop()
			}
		}
	})
	load.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	v := h.check()
	r := row{name: "bug: " + bug.name, counts: fmt.Sprintf("found %.1f s after the load began: %d findings in %d operations, %v", time.Since(begin).Seconds(), len(v.broken), v.operations, v)}
	if v.illegal == 0 && len(h.broken) == 0 {
		r.broken = append(r.broken, "the checker did not find that "+bug.what)
	} else {
		c.progress("%s: %s: for example: %s", c.name, r.name, v.broken[0])
	}
	c.report(r)
	return nil
}

// found tells whether what was recorded up to now is wrong already: later operations cannot make it right.
func (h *history) found() bool {
	h.mu.Lock()
	broken := len(h.broken) > 0
	h.mu.Unlock()
	if broken {
		return true
	}
	for _, t := range h.groups {
		for _, o := range t.orders {
			o.mu.Lock()
			ops := slices.Clone(o.ops)
			o.mu.Unlock()
			if offence(placedBehind(ops)) != "" {
				return true
			}
		}
	}
	return false
}
