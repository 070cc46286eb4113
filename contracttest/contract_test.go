//go:build contract

package contracttest

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"testing"
	"time"
)

var (
	update  = flag.Bool("update", false, "keep the run as testdata/tape.jsonl, which the tests without an address play")
	address = flag.String("url", "", "the address to test, such as http://127.0.0.1:8080")
	apiKey  = flag.String("key", "", "an API key with all scopes of the contract")
)

func TestContract(t *testing.T) {
	if *address == "" || *apiKey == "" {
		t.Fatal("TestContract needs an address and a key: make contract URL=http://127.0.0.1:8080 KEY=og_test_...")
	}
	if *update {
		recorded, findings, err := record(t.Context(), Options{BaseURL: *address, Key: *apiKey})
		if err != nil || len(findings) > 0 {
			t.Fatalf("a tape is kept only of an address that keeps the contract: %v %v", err, findings)
		}
		if err = recorded.save(golden); err != nil {
			t.Fatal(err)
		}
		return
	}
	Run(t, *address, *apiKey)
}

// record runs the whole suite and keeps what was answered.
func record(ctx context.Context, o Options) (*tape, []Finding, error) {
	s, err := newSuite(o)
	if err != nil {
		return nil, nil, err
	}
	recorder := &tape{tapeHead: tapeHead{Ref: s.ref, Began: s.begin.UTC()}, next: s.HTTP.Transport}
	s.HTTP.Transport = recorder
	for _, p := range flows {
		s.run(ctx, p)
	}
	recorder.Ended = time.Now().UTC()
	return recorder, s.findings, nil
}

// save writes a tape to a file, one exchange a line.
func (t *tape) save(file string) error {
	var b bytes.Buffer
	lines := json.NewEncoder(&b)
	lines.SetEscapeHTML(false)
	_ = lines.Encode(t.tapeHead) // to memory
	for _, x := range t.Exchanges {
		_ = lines.Encode(x)
	}
	return os.WriteFile(file, b.Bytes(), 0o644)
}
