package app

import (
	"os"
	"strings"
	"testing"
)

// TestProgressBar: it grows with the parts, and within one if its end is known.
func TestProgressBar(t *testing.T) {
	t.Parallel()
	for want, p := range map[string]progress{
		"[" + strings.Repeat(".", 30) + "] 1 of 9 events: 0":              {name: "events", number: 1, of: 9},
		"[#####" + strings.Repeat(".", 25) + "] 2 of 9 orders: 50 of 100": {name: "orders", number: 2, of: 9, done: 50, expected: 100},
		"[" + strings.Repeat("#", 30) + "] 9 of 9 saga: 101 of 101":       {name: "saga", number: 9, of: 9, done: 101, expected: 100},
	} {
		if got := bar(p); got != want {
			t.Errorf("%q instead of %q", got, want)
		}
	}
	file, err := os.Create(t.TempDir() + "/out")
	must(t, err)
	defer file.Close()
	if show, _ := progressBar(file); show != nil {
		t.Error("a file that is no terminal gets a bar")
	}
}
