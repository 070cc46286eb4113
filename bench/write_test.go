package main

import "testing"

// TestEachPartOfWritesMeasures runs the parts of bench-write for moments. Its figures say nothing of the program.
func TestEachPartOfWritesMeasures(t *testing.T) {
	setup(t)
	r := runWrite(t.Context(), nil, trial)
	if len(r.figures) < len(writeParts) || len(r.rows) == 0 {
		t.Errorf("%d parts, and only %d figures of %d rows", len(writeParts), len(r.figures), len(r.rows))
	}
	areNumbers(t, r.figures)
}

// TestScaleMeasures does so for a thousand orders.
func TestScaleMeasures(t *testing.T) {
	setup(t)
	t.Setenv("ORDERGATE_TEST_LAGGING", "")
	r := runScale(t.Context(), trial)
	if len(r.figures) == 0 || len(r.rows) == 0 {
		t.Errorf("%d figures of %d rows", len(r.figures), len(r.rows))
	}
	areNumbers(t, r.figures)
}
