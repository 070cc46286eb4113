// Command bench measures the gateway against limits that are measured beside it, on the same machine in the same minutes: orders
// placed against pgbench that runs the same SQL, reads against a bare echo handler that sends the same bytes. It prints ratios;
// absolute medians stand in brackets, all rounds in bench/results. `make bench` gives it a throw-away stack; arguments name the
// parts to run (read, saga, place).
//
// Gateway, load generator (this process, or pgbench), PostgreSQL, its two replicas and Redis are processes that share the cores: a
// ratio is the part that is left of the limit when all of them have to fit. The contenders take turns, every second time backwards, and
// the median of the rounds' ratios counts. No ratio is a failure; a wrong answer, a lost order or an oversold item is.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
)

const rounds = 5

func main() {
	defer func() {
		p := recover()
		if f, is := p.(failure); is {
			sayf("%v", f)
			os.Exit(1)
		} else if p != nil {
			panic(p)
		}
	}()
	if len(os.Args) == 4 && os.Args[1] == bareArgument {
		bare(os.Args[2], os.Args[3])
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run(ctx, os.Args[1:])
}

// failure is the panic that ends the program, after all that was deferred.
type failure struct{ error }

func must(err error) {
	if err != nil {
		panic(failure{err})
	}
}

func try[T any](v T, err error) T {
	must(err)
	return v
}

func sayf(format string, a ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", a...) }

// figure is a ratio: our result of each round divided by that of the limit.
type figure struct {
	Name   string    `json:"name"`
	Unit   string    `json:"unit"` // of Ours and Limit
	Value  float64   `json:"value"`
	Goal   float64   `json:"goal,omitempty"` // at least; 0: none
	Spread float64   `json:"spread"`         // the greatest of Ratios less the smallest
	Ratios []float64 `json:"ratios,omitempty"`
	Ours   []float64 `json:"ours"`
	Limit  []float64 `json:"limit"`
}

func newFigure(name, unit string, goal float64, ours, limit []float64) figure {
	f := figure{Name: name, Unit: unit, Goal: goal, Ours: ours, Limit: limit}
	for i := range ours {
		f.Ratios = append(f.Ratios, round(ours[i]/limit[i]))
	}
	f.Value, f.Spread = median(f.Ratios), round(slices.Max(f.Ratios)-slices.Min(f.Ratios))
	return f
}

func round(v float64) float64 { return math.Round(v*1000) / 1000 }

func median(v []float64) float64 {
	sorted := slices.Sorted(slices.Values(v))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

func (f figure) line() string {
	goal, verdict := "-", "-"
	if f.Goal > 0 {
		goal, verdict = fmt.Sprintf("%.2f", f.Goal), "short"
		if f.Value >= f.Goal {
			verdict = "met"
		}
	}
	return fmt.Sprintf("%s (%.0f / %.0f %s)\t%.3f\t%s\t%s", f.Name, median(f.Ours), median(f.Limit), f.Unit, f.Value, goal, verdict)
}

// contender is one of those that take turns; measure does it once.
type contender struct {
	name    string
	measure func() float64
}

// interleave lets the contenders take turns and returns the result of each in each round.
func interleave(what string, contenders ...contender) map[string][]float64 {
	reached := map[string][]float64{}
	for round := range rounds {
		for _, c := range contenders {
			value := math.Round(c.measure())
			sayf("%s, round %d of %d: %s %.0f", what, round+1, rounds, c.name, value)
			reached[c.name] = append(reached[c.name], value)
		}
		slices.Reverse(contenders)
	}
	return reached
}

func run(ctx context.Context, parts []string) {
	begun := time.Now()
	out, _ := exec.CommandContext(ctx, "git", "rev-parse", "--short", "HEAD").Output()
	commit := cmp.Or(strings.TrimSpace(string(out)), "unknown")
	file := filepath.Join("bench", "results", begun.UTC().Format(time.DateOnly)+"-"+commit+".json")
	g := start(ctx)
	defer g.stop()
	where := machine(ctx, g.db)
	fmt.Fprintln(os.Stdout, where)
	var figures []figure
	for _, part := range []struct { // pgbench's orders are for no worker, so the saga is before them
		name    string
		measure func(context.Context, *gateway) []figure
	}{{"read", measureRead}, {"saga", measureSaga}, {"place", measurePlace}} {
		if len(parts) == 0 || slices.Contains(parts, part.name) {
			figures = append(figures, part.measure(ctx, g)...)
		}
	}
	g.check(ctx)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, f := range figures {
		fmt.Fprintln(w, f.line())
	}
	must(w.Flush())
	if len(parts) == 0 {
		writeResults(file, where, begun, figures)
	}
}

// writeResults writes all rounds to bench/results/<date>-<commit>.json and removes the results of earlier runs.
func writeResults(file, where string, begun time.Time, figures []figure) {
	b := try(json.MarshalIndent(map[string]any{
		"machine": where, "begun": begun.UTC().Truncate(time.Second), "seconds": int(time.Since(begun).Seconds()), "figures": figures,
	}, "", " "))
	b = regexp.MustCompile(`\n {4,}`).ReplaceAll(b, []byte(" ")) // a list of numbers is one line
	b = regexp.MustCompile(`\n {3}]`).ReplaceAll(b, []byte(" ]"))
	must(os.RemoveAll(filepath.Dir(file)))
	must(os.MkdirAll(filepath.Dir(file), 0o755))
	must(os.WriteFile(file, append(b, '\n'), 0o644))
	sayf("all rounds are in %s; it took %.0f s", file, time.Since(begun).Seconds())
}

func machine(ctx context.Context, db *pgx.Conn) string {
	var version, dir string
	const ask = "SELECT split_part(current_setting('server_version'), ' ', 1), current_setting('data_directory')"
	must(db.QueryRow(ctx, ask).Scan(&version, &dir))
	where := "on disk: " + dir
	if strings.HasPrefix(dir, "/dev/shm/") {
		where = "in memory (/dev/shm: an fsync costs nothing)"
	}
	return fmt.Sprintf("%s, %d cores, %s RAM, %s, PostgreSQL %s, data %s, load %s at the start",
		proc("/proc/cpuinfo", "model name\\s*:"), runtime.NumCPU(), proc("/proc/meminfo", "MemTotal:"), runtime.Version(), version, where,
		proc("/proc/loadavg", ""))
}

// proc is the number or text behind a name in one of Linux's files.
func proc(file, name string) string {
	b, _ := os.ReadFile(file)
	if m := regexp.MustCompile(`(?m)^` + name + ` *([\d.]+( kB)?|.*)`).FindSubmatch(b); m != nil {
		return string(m[1])
	}
	return "unknown"
}
