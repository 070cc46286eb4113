//go:build failpoints

package failpoint

import (
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
)

var armed atomic.Pointer[failures]

// Hit fails as Arm said for the point, or does nothing.
func Hit(p Point) {
	if s := armed.Load(); s != nil {
		s.fail(p, kill)
	}
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
