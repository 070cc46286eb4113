// Command bench measures the gateway against limits that are measured beside it, on the same machine in the same minutes, and prints
// ratios; all rounds are in bench/results. It needs a throw-away stack, which `make bench-write` and `make bench-read` give it.
//
//	bench write [saga] [place] [...]          orders placed, and what becomes of them, against pgbench that runs the same SQL (write.go)
//	bench scale                               an order where ten million are, against one where ten thousand are (scale.go). It starts its own servers
//	bench read [cached] [streams] [...]       reads against handlers that do nothing but send the same bytes (read.go)
//	bench check read|write [cached] [...]     nothing: the status is 2 if there is no such part. It needs no stack
//
// Gateway, load generator (this process, or pgbench), PostgreSQL, its two replicas and Redis are processes that share the cores: a
// ratio of requests per second is the part that is left of the limit when all of them have to fit. The contenders take turns, every second
// time backwards, and the median of the rounds' ratios counts. No ratio is a failure; a wrong answer, a lost order or an oversold item is.
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
)

const resultsDir = "bench/results"

func main() {
	defer func() {
		p := recover()
		if f, is := p.(failure); is {
			sayf("%v", f)
			if errors.Is(f.error, errUsage) {
				os.Exit(2)
			}
			os.Exit(1)
		} else if p != nil {
			panic(p)
		}
	}()
	if len(os.Args) == 3 && os.Args[1] == bareArgument { // a signal ends it
		bare(os.Args[2])
	}
	if len(os.Args) == 3 && os.Args[1] == togetherArgument {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		together(ctx, os.Args[2])
		return
	}
	if len(os.Args) == 3 && os.Args[1] == variantArgument {
		var v variant
		must(json.Unmarshal([]byte(os.Args[2]), &v))
		v.serve(context.Background())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	arguments := os.Args[1:]
	onlyCheck := len(arguments) > 0 && arguments[0] == "check"
	if onlyCheck {
		arguments = arguments[1:]
	}
	must(checkArguments(arguments))
	switch parts := arguments[1:]; {
	case onlyCheck:
	case arguments[0] == "scale":
		runScale(ctx, whole)
	case arguments[0] == "write":
		runWrite(ctx, parts, whole)
	default:
		runRead(ctx, parts, normal)
	}
}

// errUsage is of arguments that ask for what there is not.
var errUsage = errors.New("usage: bench [check] read|write [part...], bench scale")

// checkArguments refuses all but a kind of measurement and some of its parts with errUsage.
func checkArguments(arguments []string) error {
	known := map[string][]string{}
	for _, part := range readParts {
		known["read"] = append(known["read"], part.name)
	}
	for _, part := range writeParts {
		known["write"] = append(known["write"], part.name)
	}
	if len(arguments) == 1 && arguments[0] == "scale" {
		return nil
	}
	if len(arguments) == 0 || known[arguments[0]] == nil {
		return errUsage
	}
	for _, part := range arguments[1:] {
		if parts := known[arguments[0]]; !slices.Contains(parts, part) {
			return fmt.Errorf("there is no part %q: there are %s; %w", part, strings.Join(parts, ", "), errUsage)
		}
	}
	return nil
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

// figure is a measured value, most of them a ratio: our result of each round divided by that of the limit.
type figure struct {
	Name   string    `json:"name"`
	Unit   string    `json:"unit,omitempty"` // of Ours and Limit
	Value  float64   `json:"value"`
	Goal   string    `json:"goal,omitempty"`   // ">= 0.95", "<= 1.1"; empty: none
	Note   string    `json:"note,omitempty"`   // beside the value
	Spread float64   `json:"spread,omitempty"` // the greatest of Ratios less the smallest
	Load   string    `json:"load,omitempty"`   // of the machine in the last minute, this program's included
	Ratios []float64 `json:"ratios,omitempty"`
	Ours   []float64 `json:"ours,omitempty"`
	Limit  []float64 `json:"limit,omitempty"`
}

func newFigure(name, unit, goal string, ours, limit []float64) figure {
	f := figure{Name: name, Unit: unit, Goal: goal, Ours: ours, Limit: limit, Load: loadNow()}
	for i := range ours {
		f.Ratios = append(f.Ratios, round(ours[i]/limit[i]))
	}
	f.Value, f.Spread = round(median(f.Ratios)), round(slices.Max(f.Ratios)-slices.Min(f.Ratios))
	f.Note = fmt.Sprintf("%s / %s %s", short(median(f.Ours)), short(median(f.Limit)), unit)
	return f
}

// newAmount is a figure that is no ratio.
func newAmount(name, unit, goal string, ours []float64) figure {
	f := figure{Name: name, Unit: unit, Goal: goal, Ours: ours, Load: loadNow(), Value: round(median(ours)), Spread: round(slices.Max(ours) - slices.Min(ours))}
	f.Note = unit + ", spread " + short(f.Spread)
	return f
}

func loadNow() string {
	load, _, _ := strings.Cut(proc("/proc/loadavg", ""), " ")
	return load
}

func round(v float64) float64 { return math.Round(v*1000) / 1000 }

// short writes a number with three digits at least.
func short(v float64) string {
	for limit, digits := 1.0, 3; digits > 0; limit, digits = limit*10, digits-1 {
		if math.Abs(v) < limit {
			return strconv.FormatFloat(v, 'f', digits, 64)
		}
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

func median(v []float64) float64 {
	sorted := slices.Sorted(slices.Values(v))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// verdict says whether the value meets the goal.
func (f figure) verdict() string {
	relation, number, _ := strings.Cut(f.Goal, " ")
	goal, err := strconv.ParseFloat(number, 64)
	switch {
	case f.Goal == "":
		return "-"
	case err != nil:
		panic(f.Goal)
	case relation == ">=" && f.Value >= goal, relation == "<=" && f.Value <= goal:
		return "met"
	}
	return "short"
}

func (f figure) line() string {
	return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s", f.Name, strconv.FormatFloat(f.Value, 'f', -1, 64), cmp.Or(f.Goal, "-"), f.verdict(), f.Load, f.Note)
}

// results are the figures of one run of a kind: read or write.
type results struct {
	kind, where string
	begun       time.Time
	figures     []figure
	rows        []row
}

func newResults(ctx context.Context, kind string) *results {
	r := &results{kind: kind, where: machine(ctx), begun: time.Now()}
	fmt.Fprintln(os.Stdout, r.where)
	return r
}

func (r *results) print() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "figure\tvalue\tgoal\t\tload\t")
	for _, f := range r.figures {
		fmt.Fprintln(w, f.line())
	}
	must(w.Flush())
}

// write writes all rounds to bench/results/<kind>-<date>-<commit>.json and removes those of earlier runs of the kind.
func (r *results) write(ctx context.Context) {
	out, _ := exec.CommandContext(ctx, "git", "rev-parse", "--short", "HEAD").Output()
	commit := cmp.Or(strings.TrimSpace(string(out)), "unknown")
	file := filepath.Join(resultsDir, r.kind+"-"+r.begun.UTC().Format(time.DateOnly)+"-"+commit+".json")
	b := try(json.MarshalIndent(map[string]any{
		"machine": r.where, "begun": r.begun.UTC().Truncate(time.Second), "seconds": int(time.Since(r.begun).Seconds()), "figures": r.figures,
	}, "", " "))
	b = regexp.MustCompile(`\n {4,}`).ReplaceAll(b, []byte(" ")) // a list of numbers is one line
	b = regexp.MustCompile(`\n {3}]`).ReplaceAll(b, []byte(" ]"))
	if len(r.rows) > 0 {
		b = append(bytes.TrimSuffix(b, []byte("\n}")), ",\n \"rows\": "+rowsJSON(r.rows)+"\n}"...)
	}
	for _, earlier := range try(filepath.Glob(filepath.Join(resultsDir, r.kind+"-*.json"))) {
		must(os.Remove(earlier))
	}
	must(os.WriteFile(file, append(b, '\n'), 0o644))
	sayf("all rounds are in %s; it took %.0f s", file, time.Since(r.begun).Seconds())
}

func machine(ctx context.Context) string {
	db := try(pgx.Connect(ctx, os.Getenv("ORDERGATE_TEST_PRIMARY")))
	defer func() { _ = db.Close(ctx) }()
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
