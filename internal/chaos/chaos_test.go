package main

import (
	"bytes"
	"testing"
)

// TestParts runs each part once, small. The programs are those that make built.
func TestParts(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts servers")
	}
	for _, p := range parts {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			var table bytes.Buffer
			if err := run(t.Context(), []string{p.name}, small, "../../bin", &table, t.Logf); err != nil {
				t.Errorf("%v\n%s", err, &table)
			}
		})
	}
}
