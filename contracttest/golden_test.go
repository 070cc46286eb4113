package contracttest

import "testing"

// golden is a run that found nothing, recorded with
//
//	go test -tags contract ./contracttest -run TestContract -update -url=http://127.0.0.1:8080 -key=og_test_...
//
// Record it again when an answer gets another shape.
const golden = "testdata/tape.jsonl"

func TestARecordedRunPassesAndEveryLieIsFound(t *testing.T) {
	recorded, err := load(golden)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{judged: &verdicts{}}
	for _, f := range recorded.copy().play(t.Context(), o) {
		t.Error(f)
	}
	if t.Failed() {
		t.Fatal("If answers have another shape now, record the run again: see golden.")
	}
	prove(t, recorded, o)
}
