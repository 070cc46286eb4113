package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// read is a GET of one process of the API.
type read struct{ addr, path string }

// tally counts the answers of reads.
type tally struct {
	mu       sync.Mutex
	statuses map[int]int
	example  map[int]string // an answer of each status
	tiers    map[string]int
	turned   turnedAway
	took     []time.Duration // from the first try to the answer
}

// turnedAway counts refusals that a client repeats, by their codes.
type turnedAway map[string]int

func (t turnedAway) String() string {
	all := make([]string, 0, len(t))
	for _, code := range slices.Sorted(maps.Keys(t)) {
		all = append(all, fmt.Sprintf(", %d turned away with %s", t[code], code))
	}
	return strings.Join(all, "")
}

func newTally() *tally {
	return &tally{statuses: map[int]int{}, example: map[int]string{}, tiers: map[string]int{}, turned: turnedAway{}}
}

// broken lists the answers that have not the status, and the refusals if they are more than one in a hundred.
func (t *tally) broken(status int) (broken []string) {
	for other, n := range t.statuses {
		if other != status {
			broken = append(broken, fmt.Sprintf("%d of %d answers are not %d: %s", n, len(t.took), status, t.example[other]))
		}
	}
	turned := 0
	for _, n := range t.turned {
		turned += n
	}
	if turned*100 > len(t.took) {
		broken = append(broken, fmt.Sprintf("of %d reads some%v", len(t.took), t.turned))
	}
	return broken
}

// share is the share of the answers that a tier gave.
func (t *tally) share(tier string) float64 {
	return float64(t.tiers[tier]) / float64(max(1, len(t.took)))
}

func (t *tally) p99() time.Duration {
	slices.Sort(t.took)
	return t.took[len(t.took)*99/100].Round(time.Millisecond)
}

// crowd has clients read what comes next until nothing does.
func (i *installation) crowd(ctx context.Context, clients int, next func() (k int, more bool), of func(k int) read) *tally {
	t := newTally()
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for k, more := next(); more && ctx.Err() == nil; k, more = next() {
				i.one(ctx, t, of(k))
			}
		})
	}
	all.Wait()
	return t
}

// one reads until there is an answer, for a minute at most.
func (i *installation) one(ctx context.Context, t *tally, r read) {
	begin := time.Now()
	answer := i.sendTo(ctx, r.addr, "GET", r.path, "", "", false)
	for answer.undecided() && time.Since(begin) < time.Minute && ctx.Err() == nil {
		t.mu.Lock()
		t.turned[answer.code()]++
		t.mu.Unlock()
		<-time.After(20 * time.Millisecond)
		answer = i.sendTo(ctx, r.addr, "GET", r.path, "", "", false)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.statuses[answer.status]++; t.statuses[answer.status] == 1 {
		t.example[answer.status] = fmt.Sprintf("%s was answered %v", r.path, answer)
	}
	t.tiers[answer.header.Get("X-Served-By")]++
	t.took = append(t.took, time.Since(begin))
}

// upTo gives the numbers below n.
func upTo(n int) func() (int, bool) {
	var given atomic.Int64
	return func() (int, bool) {
		k := int(given.Add(1)) - 1
		return k, k < n
	}
}

// until gives numbers until the channel is closed.
func until(end <-chan struct{}) func() (int, bool) {
	var given atomic.Int64
	return func() (int, bool) {
		select {
		case <-end:
			return 0, false
		default:
			return int(given.Add(1)) - 1, true
		}
	}
}

// pauseUntil waits until an instant.
func pauseUntil(ctx context.Context, t time.Time) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Until(t)):
	}
}

// loads are how often the processes of the API asked a database for what they did not have.
type loads struct{ replica, primary int }

func (l loads) databases() int { return l.replica + l.primary }

func (l loads) String() string {
	return fmt.Sprintf("%d loads of the replica and %d of the primary", l.replica, l.primary)
}

// loadCount is a line of /metrics.
var loadCount = regexp.MustCompile(`(?m)^ordergate_read_load_seconds_count\{tier="(replica|primary)"\} (\S+)$`)

// loads sums what the processes have counted since they began.
func (i *installation) loads(ctx context.Context) (l loads, err error) {
	for _, name := range []string{"serve", second} {
		answer := i.sendTo(ctx, i.admin[name], "GET", "/metrics", "", "", false)
		if answer.status != http.StatusOK {
			return l, fmt.Errorf("metrics of %s: %v", name, answer)
		}
		counted, err := loadsIn(answer.body)
		if err != nil {
			return l, err
		}
		l.replica += counted.replica
		l.primary += counted.primary
	}
	return l, nil
}

// loadsIn reads them in /metrics of one process.
func loadsIn(metrics []byte) (l loads, err error) {
	for _, line := range loadCount.FindAllSubmatch(metrics, -1) {
		n, err := strconv.ParseFloat(string(line[2]), 64) // a million is 1e+06
		if err != nil {
			return l, err
		}
		if string(line[1]) == "replica" {
			l.replica += int(n)
		} else {
			l.primary += int(n)
		}
	}
	return l, nil
}

// during returns the loads while something is done.
func (i *installation) during(ctx context.Context, do func()) (loads, error) {
	before, err := i.loads(ctx)
	if err != nil {
		return before, err
	}
	do()
	after, err := i.loads(ctx)
	return loads{after.replica - before.replica, after.primary - before.primary}, err
}

// residentSize is a line of /proc/N/status.
var residentSize = regexp.MustCompile(`(?m)^VmRSS:\s+(\d+) kB$`)

// resident is the memory of the API's processes in MB; 0 where there is no /proc.
func (i *installation) resident() (mb int, err error) {
	for _, name := range []string{"serve", second} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", i.process(name).cmd.Process.Pid))
		if errors.Is(err, fs.ErrNotExist) {
			return 0, nil
		} else if err != nil {
			return 0, err
		}
		if found := residentSize.FindSubmatch(b); found != nil {
			kb, _ := strconv.Atoi(string(found[1])) // digits
			mb += kb / 1024
		}
	}
	return mb, nil
}
