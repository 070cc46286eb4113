package contracttest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"testing"
)

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
	findings, err := recorded.copy().play(t.Context(), Options{}, func(Finding) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		t.Error(f)
	}
	if t.Failed() {
		t.Fatal("If answers have another shape now, record the run again: see golden.")
	}
	prove(t, recorded)
}

// load reads what save wrote.
func load(file string) (*tape, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	t := &tape{}
	lines := json.NewDecoder(bytes.NewReader(text))
	if err = lines.Decode(&t.tapeHead); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for lines.More() {
		var x exchange
		if err = lines.Decode(&x); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		t.Exchanges = append(t.Exchanges, x)
	}
	return t, nil
}
