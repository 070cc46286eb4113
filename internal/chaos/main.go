// Command chaos breaks the program on purpose, as often as a promise needs it, and counts what came of it. `make chaos` gives it a
// throw-away stack; arguments name the parts to run, as idempotency, or failpoints/saga. for some of the failpoints. It prints a table, and its exit status is 1 if a promise was broken or a part could
// not run, 2 if the arguments ask for what there is not; `chaos check` with them does nothing else, and needs no stack. The package's test runs each part once, small. docs/reliability.md says what each part proves.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"
)

// part is a campaign for one promise.
type part struct {
	name string
	run  func(ctx context.Context, c *campaign) error // the error is all but a broken promise
}

var parts = []part{{"failpoints", failpoints}, {"idempotency", idempotency}, {"provider", provider}, {"model", model}, {"replica-lag", replicaLag}, {"cache", cache},
	{"freshness", freshness}, {"kills", kills}, {"disk", disk}}

// size is how much a campaign does.
type size struct {
	lanes     int // installations side by side
	kills     int // at each failpoint
	load      int // clients that place orders while a process waits for its end
	creates   int
	clients   int // that send the creates
	pairs     int
	lost      int // answers
	lostKills int // answers that are lost with the process
	oldKeys   int
	orders    int    // with a provider that fails
	faults    int    // in one run of the model
	scopes    string // of the model; empty: all
	sale
	attack
	fresh
	faultsInNumbers
	outage time.Duration // of the primary in each case of the part disk
}

var (
	full = size{lanes: 4, kills: 20, load: 6, creates: 10_000, clients: 64, pairs: 2000, lost: 1000, lostKills: 20, oldKeys: 100_000, orders: 2000, faults: 2,
		sale: sale{pieces: 100, buyers: 1000}, attack: attack{forged: 100_000, skus: 100_000, crowd: 1000, rounds: 5, sustain: 25 * time.Second, keys: 5000, herd: 256, hot: 500, scan: 100_000},
		fresh: fresh{tokenPairs: 20_000, groups: 40, clientsEach: 2, pace: 120 * time.Millisecond, calm: time.Minute, restarts: 3, between: 25 * time.Second,
			promotion: 25 * time.Second, tokens: 20 * time.Second, bugTime: 40 * time.Second},
		faultsInNumbers: faultsInNumbers{killPrimary: 50, killWorker: 100, killServe: 50, killSimulator: 20, killRedis: 20, killEvery: 1200 * time.Millisecond,
			stops: []time.Duration{3 * time.Second, 20 * time.Second, 8 * time.Second}, cut: 30 * time.Second, locked: 30 * time.Second, hold: 4 * time.Second,
			clockFor: 12 * time.Second, short: 200}, outage: 15 * time.Second}
	small = size{lanes: 4, kills: 1, load: 2, creates: 200, clients: 64, pairs: 40, lost: 20, lostKills: 1, oldKeys: 5000, orders: 40, faults: 1, scopes: "inventory",
		sale: sale{pieces: 20, buyers: 100}, attack: attack{forged: 4000, skus: 4000, crowd: 200, rounds: 3, sustain: 2 * time.Second, keys: 300, herd: 32, hot: 50, scan: 2000},
		fresh: fresh{tokenPairs: 300, groups: 8, clientsEach: 2, pace: 25 * time.Millisecond, calm: 5 * time.Second, restarts: 1, between: 2 * time.Second,
			promotion: 3 * time.Second, tokens: 4 * time.Second, bugTime: 20 * time.Second},
		faultsInNumbers: faultsInNumbers{killPrimary: 1, killWorker: 1, killServe: 1, killSimulator: 1, killRedis: 1, killEvery: 300 * time.Millisecond,
			stops: []time.Duration{700 * time.Millisecond}, cut: 1200 * time.Millisecond, locked: 1200 * time.Millisecond, hold: 800 * time.Millisecond,
			clockFor: 1500 * time.Millisecond, short: 20, together: true}, outage: 500 * time.Millisecond}
)

// campaign is one run of a part.
type campaign struct {
	size
	bin                  string // folder of the programs
	primaryURL, redisURL string // of the stack
	replicaURL           string
	laggingURL           string // of a replica that applies what it receives 2 s later
	progress             func(format string, a ...any)
	name, only           string     // of the part; the beginning of the cases that are run
	mu                   sync.Mutex // of rows
	rows                 []row
}

// row is one line of the table of results.
type row struct {
	name   string
	counts string
	damage *damage  // of the parts kills and disk
	broken []string // what was promised and is not so
}

// report adds a row about an installation, of which the logs are kept if the row tells of something broken.
func (i *installation) report(r row) {
	if len(r.broken) > 0 {
		i.broken = true
		r.broken = append(r.broken, "logs are kept in "+i.dir)
	}
	i.c.report(r)
}

// report adds a row.
func (c *campaign) report(r row) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rows = append(c.rows, r)
	counts := r.counts
	if r.damage != nil {
		counts = r.damage.String() + "; " + counts
	}
	c.progress("%s: %s: %s: %s", c.name, r.name, counts, r.verdict())
	for _, what := range r.broken[:min(len(r.broken), 3)] { // all stand below the table, in the end
		c.progress("%s: %s: %s", c.name, r.name, what)
	}
}

func (r row) verdict() string {
	if n := len(r.broken); n > 0 {
		return fmt.Sprintf("BROKEN (%d)", n)
	}
	return "kept"
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	begin := time.Now()
	progress := func(format string, a ...any) {
		fmt.Fprintf(os.Stderr, "chaos: %4.0f s  %s\n", time.Since(begin).Seconds(), fmt.Sprintf(format, a...))
	}
	arguments := os.Args[1:]
	onlyCheck := len(arguments) > 0 && arguments[0] == "check"
	if onlyCheck {
		arguments = arguments[1:]
	}
	soaks := len(arguments) == 1 && arguments[0] == "soak"
	var lasts time.Duration
	var chosen map[string]string
	var err error
	if soaks {
		lasts, err = soakTime(os.Getenv("MINUTES"))
	} else {
		chosen, err = choose(arguments)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(2)
	}
	switch {
	case onlyCheck:
	case soaks:
		err = soak(ctx, lasts, "bin", os.Stdout, progress)
	default:
		err = run(ctx, chosen, full, "bin", os.Stdout, progress)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

var errBroken = errors.New("a promise was broken")

func partNames() (names []string) {
	for _, p := range parts {
		names = append(names, p.name)
	}
	return names
}

// choose returns the named parts, or all, each with the beginning of those of its cases that are run.
func choose(names []string) (map[string]string, error) {
	if len(names) == 0 {
		names = partNames()
	}
	chosen := map[string]string{}
	for _, name := range names {
		name, only, _ := strings.Cut(name, "/")
		if !slices.Contains(partNames(), name) || only != "" && name != "failpoints" {
			return nil, fmt.Errorf("there is no part %q: there are %s, and as failpoints/relay. some of the failpoints", name, strings.Join(partNames(), ", "))
		}
		if len(pointsOf(only)) == 0 {
			return nil, fmt.Errorf("no failpoint begins with %q: internal/failpoint/points.go has all", only)
		}
		chosen[name] = only
	}
	return chosen, nil
}

// run runs the chosen parts on the stack of the environment, and prints their table to out.
func run(ctx context.Context, chosen map[string]string, s size, bin string, out io.Writer, progress func(string, ...any)) error {
	primary, redis := os.Getenv("ORDERGATE_TEST_PRIMARY"), os.Getenv("ORDERGATE_TEST_REDIS")
	replica, lagging := os.Getenv("ORDERGATE_TEST_REPLICA"), os.Getenv("ORDERGATE_TEST_LAGGING")
	if primary == "" || redis == "" {
		return errors.New("ORDERGATE_TEST_PRIMARY is not set: run `make chaos`")
	}
	var failed []error
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	var damages, broken []string
	header := "PART\tCASE\tCOUNTS\tVERDICT"
	for _, p := range parts {
		only, is := chosen[p.name]
		if !is {
			continue
		}
		c := &campaign{size: s, bin: bin, primaryURL: primary, redisURL: redis, replicaURL: replica, laggingURL: lagging, progress: progress, name: p.name, only: only}
		if err := p.run(ctx, c); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", p.name, err))
			c.rows = append(c.rows, row{name: "-", counts: "could not run to its end", broken: []string{err.Error()}})
		}
		for _, r := range c.rows {
			if r.damage != nil {
				damages = append(damages, fmt.Sprintf("%s\t%s\t%s\t%s\t%s", p.name, r.name, r.damage.cells(), r.verdict(), r.counts))
			} else {
				if header != "" {
					fmt.Fprintln(w, header)
					header = ""
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.name, r.name, r.counts, r.verdict())
			}
			for _, what := range r.broken {
				broken = append(broken, fmt.Sprintf("%s: %s: %s", p.name, r.name, what))
			}
		}
	}
	if len(damages) > 0 {
		if header == "" {
			fmt.Fprintln(w) // columns of their own
		}
		fmt.Fprintln(w, strings.Join(append([]string{damageHeader}, damages...), "\n"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	const shown = 20
	for i, what := range broken {
		if i == shown {
			fmt.Fprintf(out, "and %d more\n", len(broken)-shown)
			break
		}
		fmt.Fprintln(out, what)
	}
	if len(failed) == 0 && len(broken) > 0 {
		return fmt.Errorf("%w: %d findings", errBroken, len(broken))
	}
	return errors.Join(failed...)
}
