package contracttest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"sync"
)

// provoked is an http.RoundTripper that notes which codes the operations of the contract answer.
type provoked struct {
	contract *contract
	next     http.RoundTripper
	mu       sync.Mutex
	seen     map[string]bool // operationId and code, or status if nothing was refused
}

// has tells whether an operation answered a code, or a status if there is none.
func (p *provoked) has(id string, status int, code string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen[id+" "+cmp.Or(code, strconv.Itoa(status))]
}

// RoundTrip implements http.RoundTripper.
func (p *provoked) RoundTrip(r *http.Request) (*http.Response, error) {
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
