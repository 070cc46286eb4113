package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

const (
	benchmarksFile = resultsDir + "/read-go.txt" // output of go test -bench, of the last run without a finding
	wholeGet       = "BenchmarkGetOrder/200"
	grown          = 1.1 // of the fastest run: less is noise
)

// partsOfGet are the benchmarks of what a whole GET does once. The others measure what it does not do, or many requests.
var partsOfGet = []string{
	"BenchmarkAccessLine/by_hand", "BenchmarkChecks/authorization", "BenchmarkChecks/no_language", "BenchmarkLRUHit", "BenchmarkParameters/an_order_with_a_token",
	"BenchmarkTake/shared/one",
}

// unusual is a benchmark of what no client of ours sends: 38 kinds take minutes.
const unusual = "HostileBodies"

// ofWrites have benchmarks that are not about reads.
var ofWrites = []string{"internal/bus", "command"}

// measureParts runs the Go benchmarks of the request path and compares them with those of the last run. It names the part of the GET that grew most
// when the whole GET grew, and fails if a benchmark has allocations that it did not have; never for a time.
func measureParts(ctx context.Context, b *readBench) []figure {
	took, count := "150ms", "6"
	if b.pace.rounds == quick.rounds {
		took, count = "1x", "1"
	}
	arguments := append([]string{"test", "-run", "^$", "-bench", ".", "-skip", unusual, "-benchmem", "-benchtime", took, "-count", count}, benchmarkPackages()...)
	cmd := exec.CommandContext(ctx, "go", arguments...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&out, os.Stderr), os.Stderr
	if err := cmd.Run(); err != nil {
		b.failed = errors.Join(b.failed, fmt.Errorf("go %s: %w", strings.Join(arguments, " "), err))
		return nil
	}
	output, torn := benchmarkLines(out.String())
	if len(torn) > 0 {
		b.failed = errors.Join(b.failed, fmt.Errorf("another line stands in the middle of a result: %q", torn))
		return nil
	}
	now := parseBenchmarks(output)
	figures := []figure{
		now.figure("body of 10 lines, decoded and validated / json.Unmarshal", "<= 0.4", "BenchmarkDecodeAndValidate", "ratio", "ratio-with-copy"),
		now.figure("allocations of its validation", "<= 0", "BenchmarkDecodeAndValidate", "allocs/validation", "ns/decode"),
		now.figure("a request with 500 operations / 25", "<= 1.05", "BenchmarkManyOperations", "500/25", "25/25"),
	}
	if b.pace.rounds == quick.rounds {
		return figures
	}
	before, err := os.ReadFile(benchmarksFile)
	if errors.Is(err, fs.ErrNotExist) {
		must(os.WriteFile(benchmarksFile, []byte(output), 0o644))
		return figures
	}
	must(err)
	fresh := benchmarksFile + ".tmp"
	must(os.WriteFile(fresh, []byte(output), 0o644))
	stat := exec.CommandContext(ctx, "go", "tool", "-modfile=tools.mod", "benchstat", benchmarksFile, fresh)
	stat.Stdout, stat.Stderr = os.Stderr, os.Stderr
	must(stat.Run())
	findings, failed := parseBenchmarks(string(before)).compare(now, busy(loadNow(), runtime.NumCPU()))
	for _, finding := range findings {
		fmt.Fprintln(os.Stdout, finding)
	}
	if failed != nil {
		b.failed = errors.Join(b.failed, failed)
		return figures
	}
	must(os.Rename(fresh, benchmarksFile))
	return figures
}

// benchmarkPackages are those that have benchmarks of reads.
func benchmarkPackages() []string {
	found := map[string]bool{}
	must(filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && slices.Contains([]string{"node_modules", ".git", "web", "bench"}, d.Name()) {
			return fs.SkipDir
		}
		if err != nil {
			return err
		}
		if folder := filepath.Dir(name); strings.HasSuffix(name, "_test.go") && !slices.Contains(ofWrites, folder) && bytes.Contains(try(os.ReadFile(name)), []byte("\nfunc Benchmark")) {
			found["./"+folder] = true
		}
		return nil
	}))
	return slices.Sorted(maps.Keys(found))
}

// benchmarkLines are the lines of go test's output that benchstat knows. Any other with a colon is configuration to it: it would compare the
// benchmarks below with none. A result is torn if something was written between its name, which stands there while it runs, and its figures.
func benchmarkLines(output string) (lines string, torn []string) {
	for line := range strings.Lines(output) {
		switch {
		case result.MatchString(line), configuration.MatchString(line):
			lines += line
		case strings.HasPrefix(line, "Benchmark"):
			torn = append(torn, line)
		}
	}
	return lines, torn
}

// busy is what is to be said of times that were taken under a load; empty: nothing.
func busy(load string, cores int) string {
	if n, err := strconv.ParseFloat(load, 64); err != nil || n <= float64(cores) {
		return ""
	}
	return fmt.Sprintf("; the machine's load is %s on %d cores: the times say little", load, cores)
}

// benchmarks are the runs of each benchmark, by its name and unit.
type benchmarks map[string]map[string][]float64

var (
	result = regexp.MustCompile(`(?m)^(Benchmark\S+?)(?:-\d+)?\s+\d+\s+(.*)$`)
	value  = regexp.MustCompile(`(\S+) (\S+)`)

	configuration = regexp.MustCompile(`^(goos|goarch|pkg|cpu): `)
)

func parseBenchmarks(text string) benchmarks {
	all := benchmarks{}
	for _, line := range result.FindAllStringSubmatch(text, -1) {
		if all[line[1]] == nil {
			all[line[1]] = map[string][]float64{}
		}
		for _, v := range value.FindAllStringSubmatch(line[2], -1) {
			if n, err := strconv.ParseFloat(v[1], 64); err == nil {
				all[line[1]][v[2]] = append(all[line[1]][v[2]], n)
			}
		}
	}
	return all
}

// figure is a value that a benchmark reports, its control beside it.
func (all benchmarks) figure(name, goal, benchmark, unit, control string) figure {
	runs := all[benchmark][unit]
	if len(runs) == 0 {
		must(fmt.Errorf("%s reports no %s", benchmark, unit))
	}
	return figure{Name: name, Value: round(median(runs)), Goal: goal, Load: loadNow(), Ours: runs, Note: fmt.Sprintf("%s, %s: %s", benchmark, control, short(median(all[benchmark][control])))}
}

// compare says which part of the whole grew most if the whole grew, and what a time is worth. The error names the benchmarks whose allocations grew.
func (all benchmarks) compare(now benchmarks, worth string) (findings []string, failed error) {
	least := func(b benchmarks, name, unit string) float64 { // the fastest run has the least noise
		if runs := b[name][unit]; len(runs) > 0 {
			return slices.Min(runs)
		}
		return 0
	}
	for _, unit := range []string{"allocs/op", "ns/op"} {
		was, is := least(all, wholeGet, unit), least(now, wholeGet, unit)
		culprit, most := "", 0.0
		for _, name := range slices.Sorted(maps.Keys(now)) {
			if _, known := all[name]; !known {
				continue
			}
			more := least(now, name, unit) - least(all, name, unit)
			if unit == "allocs/op" && more >= max(1, least(all, name, unit)/50) { // those of a driver are not the same in each run
				failed = errors.Join(failed, fmt.Errorf("%s has %.0f allocations, it had %.0f", name, least(now, name, unit), least(all, name, unit)))
			}
			if slices.Contains(partsOfGet, name) && more > most {
				culprit, most = name, more
			}
		}
		if was == 0 && unit == "ns/op" || unit == "ns/op" && is < grown*was || unit == "allocs/op" && is < was+1 {
			continue
		}
		finding := fmt.Sprintf("%s grew by %s to %s %s", wholeGet, short(is-was), short(is), unit)
		if culprit == "" {
			finding += ", and none of its parts did"
		} else {
			finding += fmt.Sprintf("; of its parts %s grew most, by %s to %s", culprit, short(most), short(least(now, culprit, unit)))
		}
		if unit == "ns/op" {
			finding += worth
		}
		findings = append(findings, finding)
	}
	return findings, failed
}
