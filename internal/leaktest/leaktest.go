// Package leaktest fails the tests of a package that leave goroutines behind.
package leaktest

import (
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// within is how long goroutines have to end after the last test: a busy machine schedules them late.
const within = 10 * time.Second

// Main is the TestMain of a package: it runs the tests, and ends the process with status 1 if one of them failed, or if a goroutine that was not
// there before is left. Connections that net/http's default client keeps for the next request are closed first; whatever else goes on is a leak.
func Main(m *testing.M) {
	os.Exit(status(m.Run, within))
}

func status(run func() int, within time.Duration) int {
	before := goleak.IgnoreCurrent()
	code := run()
	if code != 0 { // a test that failed may have left anything
		return code
	}
	for deadline := time.Now().Add(within); ; {
		http.DefaultClient.CloseIdleConnections()
		err := goleak.Find(before) // it looks for up to 0.4 s
		if err == nil {
			return 0
		}
		if time.Now().After(deadline) {
			fmt.Fprintln(os.Stderr, "the tests leave goroutines behind:", err)
			return 1
		}
	}
}
