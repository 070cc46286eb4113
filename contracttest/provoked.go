package contracttest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/ordergate/ordergate/gen/api"
)

// Provoked is an http.RoundTripper that notes which codes the operations of the contract answer. Options.HTTP takes it for a run of the
// suite, and the same one for requests that a black box cannot make.
type Provoked struct {
	contract *contract
	next     http.RoundTripper
	mu       sync.Mutex
	seen     map[string]bool // operationId and code, or status if nothing was refused
}

// has tells whether an operation answered a code, or a status if there is none.
func (p *Provoked) has(id string, status int, code string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen[id+" "+cmp.Or(code, strconv.Itoa(status))]
}

// NewProvoked notes what passes through next (nil: http.DefaultTransport), by the contract that this package was built with.
func NewProvoked(next http.RoundTripper) (*Provoked, error) {
	c, err := readContract(api.OpenAPIJSON)
	if err != nil {
		return nil, err
	}
	return &Provoked{contract: c, next: next, seen: map[string]bool{}}, nil
}

// RoundTrip implements http.RoundTripper.
func (p *Provoked) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := cmp.Or(p.next, http.DefaultTransport).RoundTrip(r)
	if err != nil {
		return response, err
	}
	what := strconv.Itoa(response.StatusCode)
	if response.StatusCode >= 400 {
		var body []byte
		body, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
		_ = response.Body.Close()
		response.Body = io.NopCloser(bytes.NewReader(body))
		var refusal problem
		_ = json.Unmarshal(body, &refusal) // another body has no code
		what = refusal.Code
	}
	for id, op := range p.contract.operations {
		if op.method == r.Method && op.address.MatchString(r.URL.EscapedPath()) {
			p.mu.Lock()
			p.seen[id+" "+what] = true
			p.mu.Unlock()
		}
	}
	return response, err
}

// Missing compares the codes that were answered with those that the contract lists, and returns a sentence for each difference. excepted
// holds the reasons for what cannot be provoked, by code or by operationId and code. A reason for what was answered, or for what
// the contract does not list, is a difference too: the exceptions only shrink.
func (p *Provoked) Missing(excepted map[string]string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	listed := map[string]bool{}
	for id, op := range p.contract.operations {
		for _, code := range op.codes {
			key := id + " " + code
			if listed[key], listed[code] = true, true; !p.seen[key] && excepted[key] == "" && excepted[code] == "" {
				all = append(all, key+" is listed, and no test provoked it")
			}
		}
	}
	for exception := range excepted {
		for key := range p.seen {
			if key == exception || strings.HasSuffix(key, " "+exception) {
				all = append(all, key+" was answered: the exception "+exception+" goes")
			}
		}
		if !listed[exception] {
			all = append(all, exception+" is not listed: the exception goes")
		}
	}
	slices.Sort(all)
	return all
}
