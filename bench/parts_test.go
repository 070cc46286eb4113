package main

import (
	"os"
	"strings"
	"testing"
)

const earlier = `pkg: github.com/ordergate/ordergate/internal/app
BenchmarkGetOrder/200-2         	 1000000	      1000 ns/op	     100 B/op	       0 allocs/op
BenchmarkGetOrder/200-2         	 1000000	      1900 ns/op	     100 B/op	       0 allocs/op
BenchmarkChecks/authorization-2 	 5000000	       180.0 ns/op	       0 B/op	       0 allocs/op
BenchmarkAccessLine/by_hand-2   	 5000000	       220.0 ns/op	       0 B/op	       0 allocs/op
BenchmarkManyOperations-2       	     100	    900000 ns/op	  628300 B/op	    9002 allocs/op
BenchmarkGone-2                 	 5000000	       220.0 ns/op	       0 B/op	       0 allocs/op
`

func TestTheCulpritIsNamed(t *testing.T) {
	const (
		slower    = "BenchmarkGetOrder/200 grew by 300 to 1300 ns/op"
		hand      = "by_hand-2   	 5000000	       220.0"
		more, yet = "900000 ns/op", "990000 ns/op"
	)
	for name, c := range map[string]struct {
		change   [][2]string
		findings string
		failed   string
	}{
		"nothing changed":        {nil, "", ""},
		"one slow run is noise":  {[][2]string{{"1900 ns/op", "9900 ns/op"}}, "", ""},
		"a part that got slower": {[][2]string{{"1000 ns/op", "1300 ns/op"}, {"180.0 ns/op", "190.0 ns/op"}, {hand, strings.Replace(hand, "220.0", "490.0", 1)}}, slower + "; of its parts BenchmarkAccessLine/by_hand grew most, by 270 to 490; on a busy machine", ""},
		"a batch of others grew more": {[][2]string{{"1000 ns/op", "1300 ns/op"}, {"180.0 ns/op", "190.0 ns/op"}, {more, yet}},
			slower + "; of its parts BenchmarkChecks/authorization grew most, by 10.0 to 190; on a busy machine", ""},
		"only a batch of others grew": {[][2]string{{"1000 ns/op", "1300 ns/op"}, {more, yet}}, slower + ", and none of its parts did; on a busy machine", ""},
		"a part that allocates": {[][2]string{{"100 B/op	       0", "100 B/op	       2"}, {"180.0 ns/op	       0 B/op	       0", "180.0 ns/op	       32 B/op	       2"}, {"9002", "9900"}},
			"BenchmarkGetOrder/200 grew by 2.00 to 2.00 allocs/op; of its parts BenchmarkChecks/authorization grew most, by 2.00 to 2.00",
			"BenchmarkChecks/authorization has 2 allocations, it had 0\nBenchmarkGetOrder/200 has 2 allocations, it had 0\nBenchmarkManyOperations has 9900 allocations, it had 9002"},
		"a new benchmark": {[][2]string{{"BenchmarkGone", "BenchmarkNew"}, {"220.0 ns/op	       0 B/op	       0", "220.0 ns/op	       8 B/op	       0"}}, "", ""},
	} {
		now := earlier
		for _, change := range c.change {
			if !strings.Contains(now, change[0]) {
				t.Fatal(name, change)
			}
			now = strings.ReplaceAll(now, change[0], change[1])
		}
		findings, failed := parseBenchmarks(earlier).compare(parseBenchmarks(now), "; on a busy machine")
		text := ""
		if failed != nil {
			text = failed.Error()
		}
		if got := strings.Join(findings, "\n"); got != c.findings || text != c.failed {
			t.Errorf("%s: %q, %q", name, got, text)
		}
	}
}

func TestALoadIsSaidOnABusyMachine(t *testing.T) {
	for load, want := range map[string]string{"5.27": "; the machine's load is 5.27 on 2 cores: the times say little", "2.00": "", "0.10": "", "unknown": ""} {
		if got := busy(load, 2); got != want {
			t.Errorf("%s: %q", load, got)
		}
	}
}

// TestOnlyResultsAreCompared: benchstat takes any other line with a colon for configuration.
func TestOnlyResultsAreCompared(t *testing.T) {
	const others = "redis: 2026/11/27 09:25:40 pool.go:770: redis: connection pool: failed to dial\nPASS\nok  	github.com/ordergate/ordergate/query	4.985s\n--- BENCH: BenchmarkX-2\n    x_test.go:1: y\n"
	if lines, torn := benchmarkLines(others + "goos: linux\ncpu: AMD EPYC\n" + earlier + others); lines != "goos: linux\ncpu: AMD EPYC\n"+earlier || len(torn) > 0 {
		t.Errorf("%q\n%s", torn, lines)
	}
	const name = "BenchmarkTake/shared/one-2                    	"
	if lines, torn := benchmarkLines(name + "redis: pool.go:770: failed\n 5039515	        36.37 ns/op\n"); lines != "" || len(torn) != 1 {
		t.Errorf("%q\n%s", torn, lines)
	}
}

// TestTheLastRun has results, each of the parts of a GET among them.
func TestTheLastRun(t *testing.T) {
	text, err := os.ReadFile("../" + benchmarksFile)
	if err != nil {
		t.Fatal(err)
	}
	if lines, torn := benchmarkLines(string(text)); lines != string(text) || len(torn) > 0 {
		t.Errorf("%s has other lines than results", benchmarksFile)
	}
	last := parseBenchmarks(string(text))
	for _, part := range append(partsOfGet, wholeGet) {
		if len(last[part]["ns/op"]) == 0 {
			t.Errorf("%s has no %s", benchmarksFile, part)
		}
	}
}
