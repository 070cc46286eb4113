package contracttest

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/answers"
)

// The states of a Triple.
const (
	Proven      = "proven"
	NeedsFaults = "needs faults"      // the address does not obey X-Ordergate-Fault, or not of this name there
	NeedsKey    = "needs another key" // that was not given
	NotProven   = "not proven"
)

// Triple is an answer that the contract lists for an operation. The code is empty where nothing is refused.
type Triple struct {
	Operation string `json:"operation"`
	Status    int    `json:"status"`
	Code      string `json:"code,omitempty"`
	State     string `json:"state"`
	Why       string `json:"why,omitempty"` // it is not proven
}

// note keeps what an operation answered.
func (s *suite) note(_ *http.Request, a answers.Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proven[a] = true
}

// matrix is what the contract lists for the operations that were chosen, and what of it was answered.
func (s *suite) matrix() []Triple {
	var all []Triple
	for _, id := range s.operationIDs() {
		op := s.contract.operations[id]
		add := func(status int, code string) {
			t := Triple{Operation: id, Status: status, Code: code, State: NotProven}
			switch {
			case s.proven[answers.Answer{Operation: id, Status: status, Code: code}]:
				t.State = Proven
			case faultFor(code) != "":
				t.State = NeedsFaults
			case code == "AUTH_003" || code == "AUTH_004" || code == "AUTH_005" || op.signed:
				t.State = NeedsKey
			}
			if t.State != Proven {
				t.Why = s.whyNot(op, code)
			}
			all = append(all, t)
		}
		for status := range op.at("responses").children() {
			if n := 0; status < "400" {
				_, _ = fmt.Sscan(status, &n)
				add(n, "")
			}
		}
		for _, code := range op.codes {
			add(s.statusOf(code), code)
		}
	}
	slices.SortFunc(all, func(a, b Triple) int {
		return cmp.Or(cmp.Compare(a.Operation, b.Operation), cmp.Compare(a.Status, b.Status), cmp.Compare(a.Code, b.Code))
	})
	return all
}

// PrintMatrix writes the matrix as a table, a line an operation.
func (r *Report) PrintMatrix(w io.Writer) {
	byOperation := map[string][]Triple{}
	for _, t := range r.Matrix {
		byOperation[t.Operation] = append(byOperation[t.Operation], t)
	}
	name := func(t Triple) string { return cmp.Or(t.Code, strconv.Itoa(t.Status)) }
	for _, id := range sortedKeys(byOperation) {
		n := 0
		for _, t := range byOperation[id] {
			if t.State == Proven {
				n++
			}
		}
		fmt.Fprintf(w, "%-22s %3d of %3d proven\n", id, n, len(byOperation[id]))
		for _, state := range []string{Proven, NeedsFaults, NeedsKey, NotProven} {
			var names []string
			why := map[string]bool{}
			for _, t := range byOperation[id] {
				if t.State == state {
					names = append(names, name(t))
					why[t.Why] = t.Why != ""
				}
			}
			if len(names) > 0 {
				text := strings.Join(names, " ")
				if reasons := strings.Join(slices.DeleteFunc(sortedKeys(why), func(w string) bool { return w == "" }), "; "); reasons != "" {
					text += "  (" + reasons + ")"
				}
				fmt.Fprintf(w, "  %-18s %s\n", state, text)
			}
		}
	}
}

// statusOf is the status of a code.
func (s *suite) statusOf(code string) int {
	if e, ok := s.registry[code]; ok {
		return int(e.Status)
	}
	known, _ := errcode.Lookup(errcode.Code(code))
	return known.Status
}

// reasons say why a code may not have come.
var reasons = map[string]string{
	"INV_003": "a reservation runs out after 15 minutes: --patience 16m",
	"ORD_009": "the provider does not know pm_slow",
	"PAY_003": "the provider does not know pm_timeout, or a payment may take longer than --patience",
	"PAY_006": "the provider does not know pm_error, or a payment may take longer than --patience",
	"CPN_002": "the account has no coupon EXPIRED", "CPN_003": "the account has no coupon ONCE", "CPN_004": "the account has no coupon FIVEOFF",
	"ORD_008": "nothing is so dear that one order can be above the limit",
}

// whyNot says why an answer of an operation is not proven, as far as it is known.
func (s *suite) whyNot(op *operation, code string) string {
	switch {
	case code == "AUTH_003":
		return "--expired-key"
	case code == "AUTH_004":
		return "--revoked-key"
	case code == "AUTH_005":
		return "--narrow-key"
	case faultFor(code) != "" && len(s.obeyed) == 0:
		return "the address obeys no X-Ordergate-Fault: ordergate serve -faults"
	case op.signed:
		return "--provider-secret"
	}
	return reasons[code]
}
