package leaktest

import (
	"testing"
	"time"
)

func TestALeakFails(t *testing.T) {
	end := make(chan struct{})
	leaking := func() int { go func() { <-end }(); return 0 }
	if got := status(leaking, 0); got != 1 {
		t.Errorf("status %d with a goroutine that goes on", got)
	}
	close(end)
	ending := func() int { go func() { <-time.After(100 * time.Millisecond) }(); return 0 }
	if got := status(ending, within); got != 0 {
		t.Errorf("status %d with one that ends soon", got)
	}
	failing := func() int { go func() { <-time.After(100 * time.Millisecond) }(); return 3 }
	if got := status(failing, within); got != 3 {
		t.Errorf("status %d of tests that failed", got)
	}
}
