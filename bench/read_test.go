package main

import (
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/ordergate/ordergate/internal/leaktest"
	"github.com/ordergate/ordergate/internal/pgtest"
)

// TestMain makes the test's program the servers that bench starts of itself.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && slices.Contains([]string{bareArgument, variantArgument, togetherArgument}, os.Args[1]) {
		main()
		os.Exit(0)
	}
	leaktest.Main(m)
}

// TestEachPartOfReadsMeasures runs the parts of bench-read for moments: all but the Go benchmarks, which `go test` compiles. Its figures say nothing of the
// program.
func TestEachPartOfReadsMeasures(t *testing.T) {
	setup(t)
	var parts []string
	for _, part := range readParts {
		if part.name != "parts" {
			parts = append(parts, part.name)
		}
	}
	figures := runRead(t.Context(), parts, quick).figures
	if len(figures) < 3*len(parts) {
		t.Errorf("%d parts, and only %d figures", len(parts), len(figures))
	}
	areNumbers(t, figures)
}

// setup gives a test a database of its own and the binaries, in the folder of the repository.
func setup(t *testing.T) {
	t.Helper()
	db := pgtest.New(t)
	t.Chdir("..")
	for _, binary := range []string{program, peers} {
		if _, err := os.Stat(binary); err != nil {
			t.Fatalf("%s is missing: make build bench-peers", binary)
		}
	}
	t.Setenv("ORDERGATE_TEST_PRIMARY", db.PrimaryURL)
	t.Setenv("ORDERGATE_TEST_REPLICA", db.ReplicaURL)
}

// areNumbers fails if a figure is none, or 0 where that cannot be.
func areNumbers(t *testing.T, figures []figure) {
	t.Helper()
	for _, f := range figures {
		none := f.Value == 0 && (f.Goal == "<= 0" || strings.HasPrefix(f.Name, "loads of") || strings.HasPrefix(f.Name, "sold-out storm") ||
			strings.HasPrefix(f.Name, "share of ") || strings.HasPrefix(f.Name, "p99 of refusals"))
		if math.IsNaN(f.Value) || math.IsInf(f.Value, 0) || f.Value == 0 && !none {
			t.Errorf("%s is %v", f.Name, f.Value)
		}
	}
}
