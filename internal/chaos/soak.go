package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"text/tabwriter"
	"time"
)

// soakFor is how long `make soak` lasts; MINUTES of the environment says otherwise. A shorter run sees larger leaks alone.
const soakFor = 10 * time.Minute

// soakTime is what MINUTES says; empty: soakFor.
func soakTime(minutes string) (time.Duration, error) {
	if minutes == "" {
		return soakFor, nil
	}
	n, err := strconv.ParseFloat(minutes, 64)
	if err != nil || !(n >= 0.1 && n <= 7*24*60) { // not a number is in no range
		return 0, fmt.Errorf("MINUTES=%s is not a number of minutes from 0.1 to %d, a week", minutes, 7*24*60)
	}
	return time.Duration(n * float64(time.Minute)), nil
}

// growthNoise is how much a figure may grow over the second half by its regression line, before it counts as growth. Caches fill: an order a second
// is 300 entries of 5 kB in it. A leak of 100 bytes a request, or of one goroutine in ten streams, is above it.
var growthNoise = figures{rss: 32 << 20, heap: 6 << 20, goroutines: 40, files: 30}

// leftNoise is how much more a process may have after the load than before it, when it was warm: connections of its pools.
var leftNoise = figures{goroutines: 40, files: 100}

// figures are what a process uses. The heap is what is in use after a collection, in bytes, as rss.
type figures struct{ rss, heap, goroutines, files float64 }

// sample is what the processes use at a moment.
type sample struct {
	at time.Duration
	of map[string]figures
}

var soaked = []string{"serve", "worker"}

// soak runs a mixed load against processes of their own for some time, and fails if what they use grows. Redis is restarted and a replica stopped
// meanwhile. One that lasts less than a minute judges no growth: only that each kind of load had answers, and that goroutines and files are
// given back after it.
func soak(ctx context.Context, lasts time.Duration, bin string, out io.Writer, progress func(string, ...any)) (err error) {
	stack, err := startStack(ctx, nil, standbyAndLagging...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stack.remove(ctx)) }()
	c := &campaign{bin: bin, primaryURL: stack.PrimaryURL, redisURL: stack.RedisURL, progress: progress, name: "soak"}
	i, err := c.install(ctx, ordinary, 8*time.Second)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, i.remove(ctx)) }()
	i.kill("serve")
	if err = i.findReplica(ctx, stack.ReplicaURLs[0]); err != nil {
		return err
	}
	if err = i.start([]string{"serve"}, "ORDERGATE_REPLICA_URLS="+i.replica, "ORDERGATE_LOG_LEVEL=error"); err != nil {
		return err
	}
	if err = i.awaitReady(ctx, "serve"); err != nil {
		return err
	}
	l := newSoakLoad(i)
	if err = l.warm(ctx, min(lasts/4, 20*time.Second)); err != nil {
		return err
	}
	before, err := i.figures()
	if err != nil {
		return err
	}
	loading, stop := context.WithCancel(ctx)
	defer stop()
	table := newSoakTable(out)
	var clients, outages sync.WaitGroup
	l.run(loading, &clients)
	outages.Go(func() { err = errors.Join(err, l.outages(loading, stack, lasts, table)) })
	samples, failed := i.sampled(ctx, lasts, table)
	stop()
	clients.Wait()
	outages.Wait()
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	findings := l.unanswered()
	if lasts >= soakJudged {
		findings = append(findings, grown(samples)...)
	}
	findings = append(findings, i.left(ctx, before)...)
	fmt.Fprintf(out, "\n%v\n\n", l)
	if len(findings) > 0 {
		i.broken = true // its logs are kept
		return fmt.Errorf("%w: %s; logs are kept in %s", errBroken, strings.Join(findings, "; "), i.dir)
	}
	fmt.Fprintln(out, unseen(lasts, samples))
	return nil
}

// soakJudged is how long a run must last for its growth to be judged.
const soakJudged = time.Minute

// unseen is the last line of a run without a finding: it says which growth the run cannot see.
func unseen(lasts time.Duration, samples []sample) string {
	const given = "Goroutines and files are given back after the load."
	if lasts < soakJudged {
		return fmt.Sprintf("%s A run of less than %.0f minute judges no growth.", given, soakJudged.Minutes())
	}
	half := secondHalf(samples)
	seconds := (half[len(half)-1].at - half[0].at).Seconds()
	text := fmt.Sprintf("Nothing grows by more than the noise in the last %.0f s: a leak of less than %.0f kB of heap or %.2f goroutines a second would not show. %s",
		seconds, growthNoise.heap/seconds/1024, growthNoise.goroutines/seconds, given)
	if lasts < soakFor {
		text += fmt.Sprintf(" So short a run says little: the usual one is of %.0f minutes.", soakFor.Minutes())
	}
	return text
}

// soakTable is what a soak prints while it lasts. All of it has one clock, which begins with the load.
type soakTable struct {
	mu    sync.Mutex
	out   io.Writer
	begin time.Time
}

func newSoakTable(out io.Writer) *soakTable {
	t := &soakTable{out: out, begin: time.Now()}
	fmt.Fprintf(out, soakRow, "time", "process", "RSS MB", "heap MB", "goroutines", "files")
	return t
}

const soakRow = "%6s  %-8s %8s %8s %12s %8s\n"

// event adds a line about what happens now.
func (t *soakTable) event(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.out, "%6s  %s\n", time.Since(t.begin).Round(time.Second), what)
}

func (t *soakTable) add(s sample) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, name := range soaked {
		f := s.of[name]
		fmt.Fprintf(t.out, soakRow, s.at.Round(time.Second), name, megabytes(f.rss), megabytes(f.heap), fmt.Sprint(f.goroutines), fmt.Sprint(f.files))
	}
}

// sampled adds a line about each process to the table every 30 s, or four times in a shorter run.
func (i *installation) sampled(ctx context.Context, lasts time.Duration, table *soakTable) (samples []sample, err error) {
	tick := time.NewTicker(min(30*time.Second, lasts/4))
	defer tick.Stop()
	for time.Since(table.begin) < lasts {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
		s := sample{at: time.Since(table.begin)}
		if s.of, err = i.figures(); err != nil {
			return nil, err
		}
		samples = append(samples, s)
		table.add(s)
	}
	return samples, nil
}

func megabytes(bytes float64) string { return strconv.FormatFloat(bytes/(1<<20), 'f', 1, 64) }

// figures collects the garbage of the processes and returns what they use then.
func (i *installation) figures() (map[string]figures, error) {
	all := map[string]figures{}
	for _, name := range soaked {
		pid := i.process(name).cmd.Process.Pid
		var f figures
		if _, err := i.admit(name, "/debug/pprof/heap?gc=1"); err != nil {
			return nil, err
		}
		text, err := i.admit(name, "/metrics")
		if err != nil {
			return nil, err
		}
		for metric, value := range map[string]*float64{"go_memstats_heap_inuse_bytes": &f.heap, "go_goroutines": &f.goroutines} {
			found := regexp.MustCompile(`(?m)^` + metric + ` (\S+)$`).FindSubmatch(text)
			if found == nil {
				return nil, fmt.Errorf("%s has no %s", name, metric)
			}
			if *value, err = strconv.ParseFloat(string(found[1]), 64); err != nil {
				return nil, err
			}
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return nil, err
		}
		if found := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status); found != nil {
			kb, _ := strconv.Atoi(string(found[1]))
			f.rss = float64(kb << 10)
		}
		files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			return nil, err
		}
		f.files = float64(len(files))
		all[name] = f
	}
	return all, nil
}

// admit asks a process as an operator does.
func (i *installation) admit(name, path string) ([]byte, error) {
	res, err := http.Get("http://" + i.admin[name] + path)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return io.ReadAll(res.Body)
}

// secondHalf are the samples that are judged: in the first half caches fill.
func secondHalf(samples []sample) []sample { return samples[len(samples)/2:] }

// grown lists what grows.
func grown(samples []sample) (findings []string) {
	half := secondHalf(samples)
	for _, name := range soaked {
		for _, of := range []struct {
			what  string
			value func(figures) float64
			unit  float64
		}{
			{"RSS (MB)", func(f figures) float64 { return f.rss }, 1 << 20}, {"heap (MB)", func(f figures) float64 { return f.heap }, 1 << 20},
			{"goroutines", func(f figures) float64 { return f.goroutines }, 1}, {"files", func(f figures) float64 { return f.files }, 1},
		} {
			values := make([]float64, len(half))
			times := make([]float64, len(half))
			for n, s := range half {
				times[n], values[n] = s.at.Seconds(), of.value(s.of[name])
			}
			if growth := slope(times, values) * (times[len(times)-1] - times[0]); growth > of.value(growthNoise) {
				findings = append(findings, fmt.Sprintf("%s of %s grow by %.1f in the second half, above the noise of %.0f", of.what, name, growth/of.unit, of.value(growthNoise)/of.unit))
			}
		}
	}
	return findings
}

// slope is that of the regression line.
func slope(x, y []float64) float64 {
	var sx, sy, sxx, sxy float64
	for i := range x {
		sx, sy, sxx, sxy = sx+x[i], sy+y[i], sxx+x[i]*x[i], sxy+x[i]*y[i]
	}
	n := float64(len(x))
	if d := n*sxx - sx*sx; d != 0 {
		return (n*sxy - sx*sy) / d
	}
	return 0
}

// left lists what a process has not given back a while after the load.
func (i *installation) left(ctx context.Context, before map[string]figures) (findings []string) {
	i.client.CloseIdleConnections()
	for end := time.Now().Add(30 * time.Second); ; pause(ctx, 500*time.Millisecond) {
		after, err := i.figures()
		if findings = nil; err != nil {
			return []string{err.Error()}
		}
		for _, name := range soaked {
			if n := after[name].goroutines - before[name].goroutines; n > leftNoise.goroutines {
				findings = append(findings, fmt.Sprintf("%.0f goroutines of %s are left after the load", n, name))
			}
			if n := after[name].files - before[name].files; n > leftNoise.files {
				findings = append(findings, fmt.Sprintf("%.0f files of %s are left after the load", n, name))
			}
		}
		if len(findings) == 0 || time.Now().After(end) || ctx.Err() != nil {
			return findings
		}
	}
}

// soakLoad is the mixed load.
type soakLoad struct {
	*installation
	ids    ring // of orders
	counts map[string]*atomic.Int64
	next   atomic.Int64
}

// ring has the ids of the orders that were placed last.
type ring struct {
	mu  sync.Mutex
	ids []string
}

const hotOrders = 200

func (r *ring) add(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ids = append(r.ids, id)
	if len(r.ids) > hotOrders {
		r.ids = slices.Delete(r.ids, 0, 1)
	}
}

func (r *ring) any() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ids) == 0 {
		return "ord_0"
	}
	return r.ids[mathrand.IntN(len(r.ids))]
}

// kinds are the kinds of load: clients of each, how long one waits between two requests, and what one does. It returns whether it had its answer.
var kinds = []struct {
	name    string
	clients int
	pause   time.Duration
	do      func(*soakLoad, context.Context) bool
}{
	{"cached reads", 4, 20 * time.Millisecond, func(l *soakLoad, ctx context.Context) bool { return l.read(ctx, "/v1/orders/"+l.ids.any()) }},
	{"products", 2, 30 * time.Millisecond, func(l *soakLoad, ctx context.Context) bool {
		sku := skus[mathrand.IntN(len(skus))] + "-000" + strconv.Itoa(1+mathrand.IntN(9))
		return l.read(ctx, []string{"/v1/products/", "/v1/inventory/"}[mathrand.IntN(2)]+sku)
	}},
	{"uncached reads", 2, 50 * time.Millisecond, func(l *soakLoad, ctx context.Context) bool {
		return l.read(ctx, "/v1/orders/"+l.ids.any()+[]string{"/events", "/saga", "/payments", "/shipments", "?version=1"}[mathrand.IntN(5)])
	}},
	{"lists", 2, 100 * time.Millisecond, func(l *soakLoad, ctx context.Context) bool {
		return l.read(ctx, []string{"/v1/orders?limit=100", "/v1/orders?limit=5&status=confirmed", "/v1/products?q=lamp&limit=20", "/v1/payments?limit=50", "/v1/refunds"}[mathrand.IntN(5)])
	}},
	{"orders", 2, 2 * time.Second, func(l *soakLoad, ctx context.Context) bool { return l.order(ctx, 1+mathrand.IntN(3)) }},
	{"large bodies", 1, 5 * time.Second, func(l *soakLoad, ctx context.Context) bool { return l.order(ctx, 1+mathrand.IntN(50)) }},
	{"streams", 16, 50 * time.Millisecond, (*soakLoad).stream},
	{"refusals", 4, 50 * time.Millisecond, (*soakLoad).refused},
	{"made-up keys", 2, 50 * time.Millisecond, (*soakLoad).madeUpKey},
	{"keys", 1, 4 * time.Second, (*soakLoad).key},
}

func newSoakLoad(i *installation) *soakLoad {
	l := &soakLoad{installation: i, counts: map[string]*atomic.Int64{}}
	for _, k := range kinds {
		l.counts[k.name] = &atomic.Int64{}
	}
	return l
}

// warm fills the caches that have a bound, and opens the connections.
func (l *soakLoad) warm(ctx context.Context, lasts time.Duration) error {
	for range 20 {
		if !l.order(ctx, 1) {
			return errors.New("an order was not placed")
		}
	}
	ctx, cancel := context.WithTimeout(ctx, lasts)
	defer cancel()
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			for range 12_000 / 32 { // a process remembers 10,000 keys that there are not
				l.madeUpKey(ctx)
			}
		})
	}
	l.run(ctx, &all)
	all.Wait()
	for _, n := range l.counts {
		n.Store(0)
	}
	return nil
}

func (l *soakLoad) run(ctx context.Context, all *sync.WaitGroup) {
	for _, k := range kinds {
		for range k.clients {
			all.Go(func() {
				for ctx.Err() == nil {
					if k.do(l, ctx) {
						l.counts[k.name].Add(1)
					}
					pause(ctx, k.pause)
				}
			})
		}
	}
}

// outages restart Redis and stop a replica for a while, in the first half.
func (l *soakLoad) outages(ctx context.Context, stack *ownStack, lasts time.Duration, table *soakTable) error {
	pause(ctx, lasts/8)
	table.event("Redis is killed and started again, empty")
	if err := stack.restartRedis(ctx); err != nil {
		return err
	}
	pause(ctx, lasts/8)
	table.event("the replica is killed")
	if err := stack.signal(standby, syscall.SIGKILL); err != nil {
		return err
	}
	pause(ctx, lasts/16)
	table.event("the replica is started again")
	return stack.Restart(context.WithoutCancel(ctx), standby)
}

// unanswered lists the kinds of load that had no answer.
func (l *soakLoad) unanswered() (findings []string) {
	for _, k := range kinds {
		if l.counts[k.name].Load() == 0 {
			findings = append(findings, k.name+" had no answer")
		}
	}
	return findings
}

func (l *soakLoad) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "load\tanswers as expected")
	for _, k := range kinds {
		fmt.Fprintf(w, "%s\t%d\n", k.name, l.counts[k.name].Load())
	}
	_ = w.Flush()
	return strings.TrimSpace(b.String())
}

func (l *soakLoad) read(ctx context.Context, path string) bool {
	return l.send(ctx, http.MethodGet, path, "", "", false).status == http.StatusOK
}

// order places an order, which its payment confirms or refuses, and cancels some.
func (l *soakLoad) order(ctx context.Context, lines int) bool {
	n := int(l.next.Add(1))
	all := make([]string, lines)
	for k := range all {
		all[k] = fmt.Sprintf(`{"sku":"%s-%04d","quantity":1}`, skus[k%len(skus)], 1+k/len(skus)%9)
	}
	body := fmt.Sprintf(`{"currency":"EUR","customer_ref":"soak-%d","lines":[%s],"metadata":{"text":"%s"},"payment":{"method_token":"%s"}}`,
		n%100, strings.Join(all, ","), strings.Repeat("x", n%500), []string{"pm_ok", "pm_declined", "pm_ok"}[n%3])
	answer := l.send(ctx, "POST", "/v1/orders", "soak-"+rand.Text(), body, n%2 == 0)
	if id := answer.id(); id != "" && answer.status < 300 {
		l.ids.add(id)
		if n%5 == 0 {
			l.send(ctx, "POST", "/v1/orders/"+id+"/cancel", "soak-"+rand.Text(), "", false)
		}
		return true
	}
	return false
}

// stream opens a stream, reads for a while, or not at all, and leaves.
func (l *soakLoad) stream(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(mathrand.IntN(3000))*time.Millisecond)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.api+"/v1/orders/"+l.ids.any()+"/stream", http.NoBody)
	if err != nil {
		return false
	}
	r.Header.Set("Authorization", "Bearer "+l.installation.key)
	res, err := l.client.Do(r)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	if mathrand.IntN(4) == 0 {
		<-ctx.Done()
		return res.StatusCode == http.StatusOK
	}
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		continue
	}
	return res.StatusCode == http.StatusOK
}

// refused sends what is refused, each kind in turn.
func (l *soakLoad) refused(ctx context.Context) bool {
	order, key := "/v1/orders", "soak-"+rand.Text()
	line := `{"currency":"EUR","customer_ref":"c","lines":[{"sku":"%s","quantity":%s}]}`
	cases := []struct{ method, path, key, body string }{
		{"POST", order, key, `{"currency":`}, {"POST", order, key, `{"currency":"EUR","currency":"EUR"}`}, {"POST", order, key, fmt.Sprintf(line, "MUG-0001", "-1")},
		{"POST", order, key, fmt.Sprintf(line, "NONE-"+rand.Text(), "1")}, {"POST", order, key, fmt.Sprintf(line, "MUG-0001", "999999")},
		{"POST", order, "", fmt.Sprintf(line, "MUG-0001", "1")}, {"POST", order, key, `{"x":"` + strings.Repeat("y", 1<<20) + `"}`},
		{"POST", order, key, "[" + strings.Repeat("[", mathrand.IntN(1000))}, {"GET", "/v1/orders/ord_" + strings.Repeat("0", 32), "", ""},
		{"GET", "/v1/orders/" + rand.Text(), "", ""}, {"GET", "/v1/" + rand.Text(), "", ""}, {"DELETE", order, "", ""}, {"GET", "/v1/orders?limit=1000", "", ""},
		{"GET", "/v1/orders?cursor=" + rand.Text(), "", ""}, {"GET", "/v1/products/" + rand.Text(), "", ""}, {"POST", order + "/" + l.ids.any() + "/cancel", key, `{"reason":1}`},
		{"GET", "/v1/orders/" + l.ids.any() + "?version=99", "", ""}, {"GET", "/v1/payments/pay_" + rand.Text(), "", ""},
	}
	c := cases[mathrand.IntN(len(cases))]
	answer := l.send(ctx, c.method, c.path, c.key, c.body, false)
	return answer.status >= 400 && answer.status < 500
}

// madeUpKey asks with a key that there is not.
func (l *soakLoad) madeUpKey(ctx context.Context) bool {
	return l.with(ctx, "og_test_"+rand.Text()+rand.Text()) == http.StatusUnauthorized
}

// with is the status of a read with another key.
func (l *soakLoad) with(ctx context.Context, key string) int {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.api+"/v1/orders?limit=1", http.NoBody)
	if err != nil {
		return 0
	}
	r.Header.Set("Authorization", "Bearer "+key)
	res, err := l.client.Do(r)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

// key makes an API key, uses it, and revokes it.
func (l *soakLoad) key(ctx context.Context) bool {
	out, err := l.output(ctx, "keys", "create", "-rate", strconv.Itoa(1+mathrand.IntN(100)), "-account", account)
	id, key := regexp.MustCompile(`key_[0-9a-f]+`).FindString(out), regexp.MustCompile(`og_test_\S+`).FindString(out)
	if err != nil || id == "" {
		return false
	}
	ok := false
	for range 5 {
		ok = l.with(ctx, key) == http.StatusOK || ok
	}
	_, err = l.output(ctx, "keys", "revoke", id)
	return ok && err == nil
}
