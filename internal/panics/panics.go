// Package panics makes errors of panics.
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
