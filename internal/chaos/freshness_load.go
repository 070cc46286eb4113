package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The bounds that docs/consistency.md and docs/caching.md state.
const (
	boundCached = 2 * time.Second        // an order without a token, beyond the replica's lag
	boundRedis  = 10 * time.Second       // more, where Redis missed a write
	boundFlush  = time.Second            // until a write that Redis did not take in time is given to it again
	slack       = 500 * time.Millisecond // for the load itself, which takes its time on a busy machine, and for what a fault leaves to be reconnected
)

// perGroup is how many orders a customer has. Its clients share what they know.
const perGroup = 5

// history is what the clients of a gateway did and saw.
type history struct {
	g      *gateway
	begin  time.Time
	groups []*group
	faults faultLog
	mu     sync.Mutex // of broken, tiers and shared
	broken []string
	tiers  map[string]map[string]int // reads of the background, by kind and by the tier that answered
	shared []knowledge               // tokens of writes of all groups

	writes, retried, resolved, plain, withToken, lists, listsWithToken, streams, events, refused atomic.Int64
}

// group is a customer.
type group struct {
	customer string
	orders   [perGroup]*tracked
	mu       sync.Mutex // of handed
	handed   []knowledge
}

// tracked is an order, of which each version is known to be written.
type tracked struct {
	id    string
	index int // in its group

	writer  sync.Mutex // one client writes at a time
	version int64      // the last one that is decided; under writer
	etag    string     // of it

	mu  sync.Mutex // of ops
	ops []op
}

// op is a write that made a version, or a read that saw one. It took place at some time from `from` until `to`, counted from the beginning of the
// history: of a read `from` lies before it was sent, by as much as it may be behind.
type op struct {
	write          bool
	version        int64
	from, sent, to time.Duration
	plain          bool  // a read without a token
	covers         int64 // a version that its token covers
	what           string
}

func (o *tracked) add(p op) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ops = append(o.ops, p)
}

// knowledge is a client's greatest token and what it covers.
type knowledge struct {
	token string
	begin time.Duration   // what was committed by then
	seen  [perGroup]int64 // versions of the group's orders that were seen
	wrote int             // of the group's orders, the one that the client wrote last
}

// see adds an answer with a token that covers what was committed by begin. Of two tokens the greater string is the later one, and covers both.
func (k *knowledge) see(token string, begin time.Duration) {
	if token > k.token {
		k.token = token
		k.begin = max(k.begin, begin)
	}
}

func (k *knowledge) learn(other knowledge) {
	k.see(other.token, other.begin)
	for n, version := range other.seen {
		k.seen[n] = max(k.seen[n], version)
	}
}

// faultLog has the times in which a read without a token may be further behind.
type faultLog struct {
	mu      sync.Mutex
	windows []window
}

type window struct {
	from, to time.Time
	more     time.Duration
	sum      bool // of several windows of this kind each counts, of others the greatest
}

func (f *faultLog) add(w window) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.windows = append(f.windows, w)
}

// more is what the faults between two times add.
func (f *faultLog) more(from, to time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	var sum, greatest time.Duration
	for _, w := range f.windows {
		switch {
		case w.from.After(to) || w.to.Before(from):
		case w.sum:
			sum += w.more
		default:
			greatest = max(greatest, w.more)
		}
	}
	return sum + greatest
}

func (h *history) now() time.Duration { return time.Since(h.begin) }

func (h *history) breaksf(format string, a ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.broken = append(h.broken, fmt.Sprintf("%.3f s: ", h.now().Seconds())+fmt.Sprintf(format, a...))
}

// behind is how far an answer that just came may be behind the time at which its request was sent, if it had no token. An order may come from a
// cache, a list comes from a database.
func (h *history) behind(sent time.Duration, list bool) time.Duration {
	at, cached := h.begin.Add(sent), boundCached
	if list {
		cached = 0
	}
	from := at.Add(-cached - slack)
	d := cached + slack + h.g.stack.lag.most(from)
	if !list {
		d += h.faults.more(from, time.Now())
	}
	return d
}

// request is one request of a client to one process.
type request struct {
	process              int
	method, path, body   string
	contentType, ifMatch string
	key, token, prefer   string
}

// do sends it. A failure of the connection is status 0.
func (g *gateway) do(ctx context.Context, q request) response {
	i := g.processes[q.process]
	r, err := http.NewRequestWithContext(ctx, q.method, "http://"+i.api+q.path, strings.NewReader(q.body))
	if err != nil {
		return response{body: []byte(err.Error())}
	}
	r.Header.Set("Authorization", "Bearer "+i.key)
	for name, value := range map[string]string{
		"Content-Type": q.contentType, "If-Match": q.ifMatch, "Idempotency-Key": q.key, "X-Consistency-Token": q.token, "Prefer": q.prefer,
	} {
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	res, err := i.client.Do(r)
	if err != nil {
		return response{body: []byte(err.Error())}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return response{body: []byte(err.Error())}
	}
	return response{status: res.StatusCode, header: res.Header, body: body}
}

func (r response) token() string { return r.header.Get("X-Consistency-Token") }
func (r response) tier() string  { return r.header.Get("X-Served-By") }

// shown is what an answer shows of an order.
type shown struct {
	ID       string            `json:"id"`
	Status   string            `json:"status"`
	Version  int64             `json:"version"`
	Metadata map[string]string `json:"metadata"`
}

// newHistory places the orders and waits until nothing but a client changes them, and until the replica has them.
func newHistory(ctx context.Context, g *gateway, groups int, name string) (*history, error) {
	h := &history{g: g, begin: time.Now(), tiers: map[string]map[string]int{}}
	var placing sync.WaitGroup
	failed := make(chan error, groups*perGroup)
	for n := range groups {
		t := &group{customer: fmt.Sprintf("%s-%03d", name, n)}
		h.groups = append(h.groups, t)
		placing.Go(func() {
			for k := range t.orders {
				o, err := h.place(ctx, t.customer, n*perGroup+k)
				if err != nil {
					failed <- err
					return
				}
				o.index, t.orders[k] = k, o
			}
		})
	}
	placing.Wait()
	select {
	case err := <-failed:
		return nil, err
	default:
	}
	return h, g.stack.lag.none(ctx)
}

// place places an order without payment. Once its stock is reserved nothing changes it any more.
func (h *history) place(ctx context.Context, customer string, n int) (*tracked, error) {
	begin := h.now()
	for end := time.Now().Add(time.Minute); ; <-time.After(50 * time.Millisecond) {
		r := h.g.do(ctx, request{
			process: n % 2, method: "POST", path: "/v1/orders", body: placing(customer, n, ""), contentType: "application/json",
			key: fmt.Sprintf("%s-%06d", customer, n), prefer: "wait=3",
		})
		var is shown
		_ = json.Unmarshal(r.body, &is)
		if r.status == http.StatusCreated && is.Status == "reserved" {
			o := &tracked{id: is.ID, version: is.Version, etag: r.header.Get("ETag")}
			for version := range is.Version {
				o.add(op{write: true, version: version + 1, from: begin, sent: begin, to: h.now(), what: "POST"})
			}
			return o, nil
		}
		if r.status != http.StatusAccepted && !r.undecided() || time.Now().After(end) || ctx.Err() != nil {
			return nil, fmt.Errorf("place an order: %v", r)
		}
	}
}

// client is a customer's client, which keeps its greatest token.
type client struct {
	h      *history
	t      *group
	k      knowledge
	random *mathrand.Rand
	leaves bool // it leaves some of its writes before their answer
}

func (h *history) client(t *group, n int) *client {
	return &client{h: h, t: t, random: mathrand.New(mathrand.NewPCG(uint64(n), 7))}
}

const (
	decideWithin = time.Minute // a write is repeated for so long. A failover is in it
	requestTime  = 5 * time.Second
)

// write changes the order once, and repeats the request until it is decided: under the ETag of the version before, so that it can be done once
// alone. PATCH has no Idempotency-Key. Then a refusal after a request without an answer says that this one was done.
func (c *client) write(ctx context.Context, o *tracked, process int) bool {
	h, version := c.h, o.version+1
	begin, unknown := h.now(), false
	var r response
	var sent time.Duration
	for end := time.Now().Add(decideWithin); ; process = 1 - process {
		sent = h.now()
		within := requestTime
		if c.leaves && !unknown && c.random.IntN(10) == 0 {
			within = time.Duration(c.random.IntN(15)) * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), within)
		r = h.g.do(ctx, request{
			process: process, method: "PATCH", path: "/v1/orders/" + o.id, body: fmt.Sprintf(`{"metadata":{"n":"%d"}}`, version),
			contentType: "application/merge-patch+json", ifMatch: o.etag,
		})
		cancel()
		if !r.undecided() {
			break
		}
		h.retried.Add(1)
		unknown = true
		if time.Now().After(end) {
			h.breaksf("PATCH %s to version %d is not decided in %v: %v", o.id, version, decideWithin, r)
			return false
		}
		<-time.After(20 * time.Millisecond)
	}
	var is shown
	token := r.token()
	if r.status == http.StatusPreconditionFailed && unknown {
		h.resolved.Add(1)
		r = h.version(ctx, o, version)
	}
	_ = json.Unmarshal(r.body, &is)
	if r.status != http.StatusOK || is.Version != version || is.Metadata["n"] != strconv.FormatInt(version, 10) {
		h.breaksf("PATCH %s to version %d is answered %v", o.id, version, r)
		return false
	}
	o.version, o.etag = version, r.header.Get("ETag")
	o.add(op{write: true, version: version, from: begin, sent: begin, to: h.now(), what: fmt.Sprintf("PATCH by process %d", process)})
	h.writes.Add(1)
	c.k.see(token, sent)
	c.k.seen[o.index], c.k.wrote = version, o.index
	c.t.hand(c.k)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.shared = append(h.shared, knowledge{token: token, begin: sent}); len(h.shared) > 64 {
		h.shared = h.shared[32:]
	}
	return true
}

// version is the order as it was at a version.
func (h *history) version(ctx context.Context, o *tracked, version int64) (r response) {
	for end := time.Now().Add(decideWithin); ; <-time.After(20 * time.Millisecond) {
		r = h.g.do(context.WithoutCancel(ctx), request{process: int(version % 2), method: "GET", path: fmt.Sprintf("/v1/orders/%s?version=%d", o.id, version)})
		if !r.undecided() || time.Now().After(end) {
			return r
		}
	}
}

// hand gives what a client knows to the others of its group.
func (t *group) hand(k knowledge) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.handed = append(t.handed, k); len(t.handed) > 8 {
		t.handed = t.handed[4:]
	}
}

// takeHanded adds what another client knows: mostly one of the same group, else a token of a write of any order.
func (c *client) takeHanded() {
	c.t.mu.Lock()
	n := len(c.t.handed)
	if n > 0 && c.random.IntN(3) > 0 {
		c.k.learn(c.t.handed[c.random.IntN(n)])
	}
	c.t.mu.Unlock()
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	if n := len(c.h.shared); n > 0 && c.random.IntN(3) == 0 {
		c.k.learn(c.h.shared[c.random.IntN(n)])
	}
}

// takeLast makes the client one that did what was handed last, and no more.
func (c *client) takeLast() bool {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	n := len(c.t.handed)
	if n > 0 {
		c.k = c.t.handed[n-1]
	}
	return n > 0
}

// judge records that a read saw a version of an order. k is what its token covered, nil without a token.
func (c *client) judge(o *tracked, version int64, k *knowledge, sent, from time.Duration, what string) {
	p := op{version: version, from: from, sent: sent, to: c.h.now(), plain: k == nil, what: what}
	if k != nil {
		p.what += " with a token"
		p.from, p.covers = max(p.from, k.begin), k.seen[o.index]
		if version < k.seen[o.index] {
			c.h.breaksf("%s shows version %d of %s, its token covers version %d", p.what, version, o.id, k.seen[o.index])
		}
	}
	o.add(p)
	c.k.seen[o.index] = max(c.k.seen[o.index], version)
}

// read gets an order, with a token or without. It returns the version, or 0 if it was refused for a moment.
func (c *client) read(ctx context.Context, o *tracked, process int, token bool) (version int64, tier string) {
	h, sent := c.h, c.h.now()
	var k *knowledge
	q := request{process: process, method: "GET", path: "/v1/orders/" + o.id}
	if token && c.k.token != "" {
		k, q.token = new(c.k), c.k.token
	}
	r := h.g.do(ctx, q)
	if r.undecided() {
		h.refused.Add(1)
		return 0, ""
	}
	var is shown
	_ = json.Unmarshal(r.body, &is)
	if r.status != http.StatusOK || is.ID != o.id {
		h.breaksf("GET %s is answered %v", o.id, r)
		return 0, ""
	}
	if k != nil {
		h.withToken.Add(1)
	} else {
		h.plain.Add(1)
	}
	c.judge(o, is.Version, k, sent, sent-h.behind(sent, false), fmt.Sprintf("GET of process %d from %s", process, r.tier()))
	c.k.see(r.token(), 0) // a cached answer's token covers what it shows, and no time is known of it
	return is.Version, r.tier()
}

// list gets the orders of the customer.
func (c *client) list(ctx context.Context, process int, token bool) (tier string) {
	h, sent := c.h, c.h.now()
	var k *knowledge
	q := request{process: process, method: "GET", path: "/v1/orders?limit=100&customer_ref=" + url.QueryEscape(c.t.customer)}
	if token && c.k.token != "" {
		k, q.token = new(c.k), c.k.token
	}
	r := h.g.do(ctx, q)
	if r.undecided() {
		h.refused.Add(1)
		return ""
	}
	var page struct {
		Data []shown `json:"data"`
	}
	if err := json.Unmarshal(r.body, &page); err != nil || r.status != http.StatusOK {
		h.breaksf("list %s is answered %v", c.t.customer, r)
		return ""
	}
	h.lists.Add(1)
	if k != nil {
		h.listsWithToken.Add(1)
	}
	from := sent - h.behind(sent, true)
	what := fmt.Sprintf("list of process %d from %s", process, r.tier())
	for _, o := range c.t.orders {
		i := slices.IndexFunc(page.Data, func(is shown) bool { return is.ID == o.id })
		if i < 0 {
			h.breaksf("%s lacks %s", what, o.id)
			continue
		}
		c.judge(o, page.Data[i].Version, k, sent, from, what)
	}
	c.k.see(r.token(), from)
	return r.tier()
}

// follow reads streams of an order, each for some time, until ctx ends. Their versions have no gap and no double.
func (c *client) follow(ctx context.Context, o *tracked, each time.Duration) {
	last := int64(0)
	for n := c.random.IntN(2); ctx.Err() == nil; n++ {
		last = c.stream(ctx, o, n%2, last, each/2+time.Duration(c.random.Int64N(int64(each))))
	}
}

// stream reads one stream and returns the last version that it has.
func (c *client) stream(ctx context.Context, o *tracked, process int, last int64, length time.Duration) int64 {
	h, i := c.h, c.h.g.processes[process]
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+i.api+"/v1/orders/"+o.id+"/stream", http.NoBody)
	if err != nil {
		return last
	}
	r.Header.Set("Authorization", "Bearer "+i.key)
	if last > 0 {
		r.Header.Set("Last-Event-ID", strconv.FormatInt(last, 10))
	}
	c.takeHanded()
	must := c.k.seen[o.index] // the stream has it at once
	if c.k.token != "" {
		r.Header.Set("X-Consistency-Token", c.k.token)
	} else {
		must = 0
	}
	res, err := (&http.Client{Transport: i.client.Transport}).Do(r)
	if err != nil {
		<-time.After(20 * time.Millisecond)
		return last
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		if res.StatusCode/100 != 5 {
			h.breaksf("a stream of %s is answered %s", o.id, res.Status)
		}
		h.refused.Add(1)
		<-time.After(50 * time.Millisecond)
		return last
	}
	h.streams.Add(1)
	c.k.see(res.Header.Get("X-Consistency-Token"), 0)
	c.t.hand(c.k)
	opened := time.Now()
	token := ""
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if text, is := strings.CutPrefix(lines.Text(), `data: {"token":"`); is {
			token = strings.TrimSuffix(text, `"}`)
		}
		text, is := strings.CutPrefix(lines.Text(), "id: ")
		if !is {
			continue
		}
		version, err := strconv.ParseInt(text, 10, 64)
		if err != nil || version != last+1 {
			h.breaksf("a stream of %s by process %d has %s after version %d", o.id, process, lines.Text(), last)
		}
		last = version
		h.events.Add(1)
		o.add(op{version: version, to: h.now(), what: fmt.Sprintf("stream of process %d", process)}) // it was there by now
		if token == "" {
			h.breaksf("a stream of %s by process %d has version %d before a token", o.id, process, version)
		}
		c.k.see(token, 0)
		c.k.seen[o.index] = max(c.k.seen[o.index], version) // the token covers it
		c.t.hand(c.k)
		if c.random.IntN(4) == 0 {
			c.read(ctx, o, 1-process, true)
		}
	}
	if last < must && time.Since(opened) > slack {
		h.breaksf("a stream of %s by process %d that was opened with a token of version %d had only version %d after %v", o.id, process, must, last, time.Since(opened))
	}
	return last
}

// shape is a mixed load.
type shape struct {
	clients int           // of each group
	pause   time.Duration // of each, between two operations, on average
	active  time.Duration // for which one order of a group is written, in turn, and the others rest
	rest    time.Duration // then all do
	tokens  bool          // orders are read with tokens, too. Such a read mends caches
}

// load runs a mixed load until ctx ends, and returns when its writes are decided.
func (h *history) load(ctx context.Context, s shape) {
	var clients sync.WaitGroup
	for g, t := range h.groups {
		for n := range s.clients {
			c := h.client(t, 1000*g+n)
			c.leaves = true
			clients.Go(func() {
				for ctx.Err() == nil {
					c.act(ctx, s, g)
					pause(ctx, time.Duration(c.random.Int64N(int64(2*s.pause))))
				}
			})
		}
		follower, waiter := h.client(t, 1000*g+998), h.client(t, 1000*g+999)
		clients.Go(func() { follower.follow(ctx, t.orders[g%perGroup], 4*time.Second) })
		if g%4 == 0 || !s.tokens {
			clients.Go(func() { waiter.wait(ctx) })
		}
	}
	clients.Wait()
}

// wait takes a token and waits until the replica has nearly reached it: then a replica that claims a little too much is caught. Lists come from
// the replica, whatever the caches have.
func (c *client) wait(ctx context.Context) {
	const around = 300 * time.Millisecond
	for ; ctx.Err() == nil; pause(ctx, 50*time.Millisecond) {
		if !c.takeLast() {
			continue
		}
		held, lag := c.k, c.h.g.stack.lag.most(time.Now())
		pause(ctx, lag-around)
		for end := time.Now().Add(2 * around); time.Now().Before(end) && ctx.Err() == nil; pause(ctx, 20*time.Millisecond) {
			c.k = held // not the token of the list before
			c.list(ctx, c.random.IntN(2), true)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// act does one operation.
func (c *client) act(ctx context.Context, s shape, group int) {
	process := c.random.IntN(2)
	turn := perGroup + int(s.rest/s.active)
	slot := (int(c.h.now()/s.active) + group) % turn
	o := c.t.orders[c.random.IntN(perGroup)]
	if slot < perGroup && c.random.IntN(2) == 0 {
		o = c.t.orders[slot]
	}
	switch n := c.random.IntN(100); {
	case n < 22:
		if slot < perGroup && c.t.orders[slot].writer.TryLock() {
			c.write(ctx, c.t.orders[slot], process)
			c.t.orders[slot].writer.Unlock()
		}
	case n < 47:
		c.read(ctx, o, process, s.tokens)
	case n < 57:
		c.takeHanded()
		c.read(ctx, o, process, s.tokens)
	case n < 85:
		c.read(ctx, o, process, false)
	case n < 94:
		c.list(ctx, process, false)
	default:
		c.list(ctx, process, true)
	}
}

// settle waits until every order is shown at its last version by both processes, with its token, without, and in lists: within the bound.
func (h *history) settle(ctx context.Context) (time.Duration, error) {
	begin := time.Now()
	bound := boundCached + slack + mostLag + h.faults.more(begin.Add(-boundCached), begin)
	for {
		stale := h.sweep(ctx)
		took := time.Since(begin)
		if len(stale) == 0 {
			return took, nil
		}
		if took > bound {
			for _, what := range stale[:min(3, len(stale))] {
				h.breaksf("stale %v after the load: %s", bound, what)
			}
			return took, nil
		}
		if ctx.Err() != nil {
			return took, ctx.Err()
		}
		<-time.After(100 * time.Millisecond)
	}
}

func (h *history) sweep(ctx context.Context) (stale []string) {
	var mu sync.Mutex
	var groups sync.WaitGroup
	for n, t := range h.groups {
		c := h.client(t, n)
		groups.Go(func() {
			for _, k := range t.handed {
				c.k.learn(k)
			}
			for process := range 2 {
				for _, o := range t.orders {
					for _, token := range []bool{false, true} {
						if got, tier := c.read(ctx, o, process, token); got != o.version {
							mu.Lock()
							stale = append(stale, fmt.Sprintf("process %d shows version %d of %s from %s, the last is %d", process, got, o.id, cmp.Or(tier, "nowhere"), o.version))
							mu.Unlock()
						}
					}
				}
				c.list(ctx, process, false)
			}
		})
	}
	groups.Wait()
	return stale
}

// note counts a read of the background.
func (h *history) note(kind, tier string) {
	if tier == "" {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.tiers[kind] == nil {
		h.tiers[kind] = map[string]int{}
	}
	h.tiers[kind][tier]++
}

// spared is the share of the background's reads that left the primary alone, in all and by kind.
func (h *history) spared() (share float64, all int, kinds string) {
	sum := 0
	parts := make([]string, 0, len(h.tiers))
	for _, kind := range slices.Sorted(maps.Keys(h.tiers)) {
		n := 0
		for _, count := range h.tiers[kind] {
			n += count
		}
		spared := n - h.tiers[kind]["primary"]
		parts = append(parts, fmt.Sprintf("%s %d of %d", kind, spared, n))
		all, sum = all+n, sum+spared
	}
	return float64(sum) / float64(max(all, 1)), all, strings.Join(parts, ", ")
}
