//go:build !failpoints

package failpoint

// Hit does nothing in this build, and is compiled to nothing.
func Hit(Point) {}

func arm(failures) error { return ErrNotBuilt }
