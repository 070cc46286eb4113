//go:build failpoints

package failpoint

import (
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

var armed atomic.Pointer[failures]

// Hit fails as Arm said for the point, or does nothing.
func Hit(p Point) {
	if s := armed.Load(); s != nil {
		s.fail(p, kill)
	}
}

// Now is the time, as wrong as Arm said.
func Now() time.Time {
	now := time.Now()
	if s := armed.Load(); s != nil && (*s)[clock] != nil {
		now = now.Add((*s)[clock].delay)
	}
	return now
}

func arm(s failures) error {
	armed.Store(&s)
	return nil
}

// kill ends the process as kill -9 does: nothing that is deferred runs, nothing is flushed.
func kill(p Point) {
	fmt.Fprintln(os.Stderr, "failpoint", p, "kills the process")
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal may take a moment
}
