package verify

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"testing"

	"github.com/ordergate/ordergate/gen/psp"
)

// TestTheEndOfALedgerIsFound: in any ledger, with gaps in its sequence, too, and with few requests.
func TestTheEndOfALedgerIsFound(t *testing.T) {
	long := make([]int64, 100_000)
	for i := range long {
		long[i] = int64(i)*3 + 7
	}
	for _, sequences := range [][]int64{{}, {1}, {2}, {1, 2}, {1, 2, 3}, {5}, {1, 900}, {899, 900}, long} {
		requests := 0
		provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests++
			after, _ := strconv.ParseInt(r.URL.Query().Get("after"), 10, 64)
			page := psp.Ledger{Data: []psp.LedgerEntry{}}
			if i, _ := slices.BinarySearch(sequences, after+1); i < len(sequences) {
				page.Data = append(page.Data, psp.LedgerEntry{Sequence: sequences[i]})
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(page)
		}))
		defer provider.Close()
		l, err := openLedger(t.Context(), provider.URL)
		if err != nil {
			t.Fatal(err)
		}
		if want := slices.Max(append(sequences, 0)); l.last != want || requests > 45 {
			t.Errorf("the end is %d instead of %d, after %d requests", l.last, want, requests)
		}
	}
}

// TestALedgerThatCannotBeReadIsNoLedger: a run never takes the silence of a provider for an empty ledger.
func TestALedgerThatCannotBeReadIsNoLedger(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
	}{
		"failing": {500, `{}`}, "of another request": {200, `{"key":"k"}`}, "no JSON": {200, `<html>`},
		"out of order": {200, `{"data":[{"sequence":0}],"next":null}`},
	} {
		provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(c.status)
			_, _ = w.Write([]byte(c.body))
		}))
		defer provider.Close()
		if _, err := openLedger(t.Context(), provider.URL); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
