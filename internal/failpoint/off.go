//go:build !failpoints

package failpoint

import "time"

// Hit does nothing in this build, and is compiled to nothing.
func Hit(Point) {}

// Now is the time, of the clock that the program has as a parameter.
func Now() time.Time { return time.Now() }

func arm(failures) error { return ErrNotBuilt }
