package app

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/answers"
	"github.com/ordergate/ordergate/internal/faults"
)

// matrix is an http.RoundTripper that notes which codes each operation answers, and how they were provoked.
type matrix struct {
	operations []operation
	answers    *answers.Transport
	mu         sync.Mutex
	proven     map[triple]map[string]bool // the ways
}

// triple is a cell of the matrix. Its status follows from the code.
type triple struct{ operation, code string }

// The ways in which a code is provoked. A failure on purpose is told by its name.
const (
	bySuite  = "suite"  // a request of the contract's suite
	byServer = "server" // a server whose keys, databases or handlers are broken, or that stops
	byOutage = "outage" // a database, a provider or a lock that is really not to be had
)

// wayKey is the context key of a request's way. Requests without one are the suite's.
type wayKey struct{}

func newMatrix(ops []operation) *matrix {
	m := &matrix{operations: ops, proven: map[triple]map[string]bool{}}
	all := make([]answers.Operation, len(ops))
	for i, op := range ops {
		all[i] = answers.Operation{ID: op.OperationID, Method: op.Method, Path: op.path}
	}
	m.answers = answers.NewTransport(nil, all, m.answered)
	return m
}

// RoundTrip implements http.RoundTripper.
func (m *matrix) RoundTrip(r *http.Request) (*http.Response, error) { return m.answers.RoundTrip(r) }

func (m *matrix) answered(r *http.Request, a answers.Answer) {
	way, told := r.Context().Value(wayKey{}).(string)
	if !told {
		way = bySuite
	}
	if name := r.Header.Get(faults.Header); name != "" {
		way = name
	}
	if a.Code != "" {
		m.note(triple{a.Operation, a.Code}, way)
	}
}

func (m *matrix) note(t triple, way string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.proven[t] == nil {
		m.proven[t] = map[string]bool{}
	}
	m.proven[t][way] = true
}

// table is the whole matrix, a line a triple, and what is missing: triples that nothing provoked, answers that the contract does not list, and
// codes of the infrastructure that were provoked on purpose alone.
func (m *matrix) table() (text string, missing []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b strings.Builder
	listed, really, counts := map[triple]bool{}, map[string]bool{}, map[string]int{}
	onPurpose := func(way string) bool { return slices.Contains(faults.Names, faults.Name(way)) }
	for _, op := range m.operations {
		for _, code := range op.Codes {
			t := triple{op.OperationID, code}
			listed[t] = true
			ways := slices.Sorted(maps.Keys(m.proven[t]))
			info, _ := errcode.Lookup(errcode.Code(code))
			fmt.Fprintf(&b, "%-22s %d %-9s %s\n", t.operation, info.Status, code, strings.Join(ways, ", "))
			if len(ways) == 0 {
				missing = append(missing, t.operation+" "+code+" is listed, and nothing provoked it")
			}
			kinds := map[string]bool{}
			for _, way := range ways {
				if onPurpose(way) {
					way = "failure on purpose"
				} else {
					really[code] = true
				}
				kinds[way] = true
			}
			for kind := range kinds {
				counts[kind]++
			}
		}
	}
	for t := range m.proven {
		if !listed[t] && t.code != "REQ_005" { // an address that is none of an operation's, because of a slash that is missing, say
			missing = append(missing, t.operation+" answered "+t.code+", which it does not list")
		}
	}
	for t := range listed {
		if !really[t.code] {
			missing = append(missing, t.code+" was provoked on purpose alone")
		}
	}
	fmt.Fprintf(&b, "%d of %d", len(listed)-countMissing(m.proven, listed), len(listed))
	for _, kind := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(&b, ", %d by %s", counts[kind], kind)
	}
	slices.Sort(missing)
	return b.String(), slices.Compact(missing)
}

func countMissing(proven map[triple]map[string]bool, listed map[triple]bool) (n int) {
	for t := range listed {
		if len(proven[t]) == 0 {
			n++
		}
	}
	return n
}

// check prints the matrix and fails below 100 %.
func (m *matrix) check(t *testing.T) {
	t.Helper()
	table, missing := m.table()
	t.Logf("the matrix of errors: operation, status, code, ways in which it was provoked\n%s", table)
	for _, what := range missing {
		t.Error(what)
	}
}

// by names the way in which requests under the context provoke their codes.
func by(ctx context.Context, way string) context.Context {
	return context.WithValue(ctx, wayKey{}, way)
}

// TestTheMatrixFindsWhatIsMissing: it names a code that nothing provoked, one that only a failure on purpose provoked, and one that is not listed.
func TestTheMatrixFindsWhatIsMissing(t *testing.T) {
	m := newMatrix([]operation{{OperationID: "getThing", Codes: []string{"CAT_001", "SYS_001", "SYS_002", "SYS_005"}}})
	m.note(triple{"getThing", "CAT_001"}, bySuite)
	m.note(triple{"getThing", "SYS_001"}, string(faults.Panic))
	m.note(triple{"getThing", "SYS_001"}, byServer)
	m.note(triple{"getThing", "SYS_002"}, string(faults.PrimaryAway))
	m.note(triple{"getThing", "INV_001"}, bySuite)
	table, missing := m.table()
	want := []string{
		"SYS_002 was provoked on purpose alone", "SYS_005 was provoked on purpose alone", "getThing SYS_005 is listed, and nothing provoked it",
		"getThing answered INV_001, which it does not list",
	}
	if !slices.Equal(missing, want) {
		t.Errorf("%q", missing)
	}
	for _, line := range []string{"getThing               500 SYS_001   panic, server\n", "getThing               503 SYS_005   \n", "3 of 4, 2 by failure on purpose, 1 by server, 1 by suite"} {
		if !strings.Contains(table, line) {
			t.Errorf("no %q in\n%s", line, table)
		}
	}
}
