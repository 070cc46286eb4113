// Package panics makes errors of panics, and keeps what led to one that ends the program.
package panics

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// ErrPanic marks an error that was a panic.
var ErrPanic = errors.New("panic")

// Catch calls f and returns its error. A panic of f in the calling goroutine becomes an error that is ErrPanic, with the value and the
// stack in its text. An error that f panicked with is not in the chain: what it would tell a caller was not returned to it.
func Catch(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v\n%s", ErrPanic, p, debug.Stack())
		}
	}()
	return f()
}

// Log buffers lines until Sync.
type Log interface{ Sync() error }

// Sync is deferred first in a goroutine: before a panic there ends the program, it writes the lines that log has buffered. The panic goes on.
// Catch is for a goroutine without which the program goes on.
func Sync(log Log) {
	if p := recover(); p != nil {
		_ = log.Sync()
		panic(p)
	}
}
