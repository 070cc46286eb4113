package main

import (
	"strings"
	"testing"
)

const earlier = `pkg: github.com/ordergate/ordergate/internal/app
BenchmarkGetOrder/200-2         	 1000000	      1000 ns/op	     100 B/op	       0 allocs/op
BenchmarkGetOrder/200-2         	 1000000	      1900 ns/op	     100 B/op	       0 allocs/op
BenchmarkChecks/authorization-2 	 5000000	       180.0 ns/op	       0 B/op	       0 allocs/op
BenchmarkAccessLine-2           	 5000000	       220.0 ns/op	       0 B/op	       0 allocs/op
BenchmarkGone-2                 	 5000000	       220.0 ns/op	       0 B/op	       0 allocs/op
`

func TestTheCulpritIsNamed(t *testing.T) {
	for name, c := range map[string]struct {
		change   [][2]string
		findings string
		failed   string
	}{
		"nothing changed":        {nil, "", ""},
		"one slow run is noise":  {[][2]string{{"1900 ns/op", "9900 ns/op"}}, "", ""},
		"a part that got slower": {[][2]string{{"1000 ns/op", "1300 ns/op"}, {"180.0 ns/op", "190.0 ns/op"}, {"Line-2           	 5000000	       220.0", "Line-2           	 5000000	       490.0"}}, "BenchmarkGetOrder/200 grew from 1000 to 1300 ns/op; of its parts BenchmarkAccessLine grew most, from 220 to 490", ""},
		"a part that allocates": {[][2]string{{"100 B/op	       0", "100 B/op	       2"}, {"180.0 ns/op	       0 B/op	       0", "180.0 ns/op	       32 B/op	       2"}},
			"BenchmarkGetOrder/200 grew from 0.000 to 2.00 allocs/op; of its parts BenchmarkChecks/authorization grew most, from 0.000 to 2.00",
			"BenchmarkChecks/authorization has 2 allocations, it had 0\nBenchmarkGetOrder/200 has 2 allocations, it had 0"},
		"a slower whole without a culprit": {[][2]string{{"1000 ns/op", "1300 ns/op"}}, "BenchmarkGetOrder/200 grew from 1000 to 1300 ns/op, and none of its parts did", ""},
		"a new benchmark":                  {[][2]string{{"BenchmarkGone", "BenchmarkNew"}, {"220.0 ns/op	       0 B/op	       0", "220.0 ns/op	       8 B/op	       0"}}, "", ""},
	} {
		now := earlier
		for _, change := range c.change {
			if !strings.Contains(now, change[0]) {
				t.Fatal(name, change)
			}
			now = strings.ReplaceAll(now, change[0], change[1])
		}
		findings, failed := parseBenchmarks(earlier).compare(parseBenchmarks(now))
		text := ""
		if failed != nil {
			text = failed.Error()
		}
		if got := strings.Join(findings, "\n"); got != c.findings || text != c.failed {
			t.Errorf("%s: %q, %q", name, got, text)
		}
	}
}
