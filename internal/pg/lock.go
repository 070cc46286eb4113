package pg

import "context"

// Lock runs one of two queries that lock the same rows: the first waits for locks, the second, its twin with SKIP LOCKED, leaves out the
// rows that another transaction holds.
func Lock[P, R, FP, FR any](ctx context.Context, onlyFree bool, lock func(context.Context, P) ([]R, error), p P,
	lockFree func(context.Context, FP) ([]FR, error), fp FP, row func(FR) R) ([]R, error) {
	if !onlyFree {
		return lock(ctx, p)
	}
	rows, err := lockFree(ctx, fp)
	return Column(rows, row), err
}
