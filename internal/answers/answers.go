// Package answers tells which operation of the contract has answered what. It is for tests, which count what was proven by it.
package answers

import (
	"bytes"
	"cmp"
	"encoding/json"
	"io"
	"net/http"
	"regexp"
)

// Operation is an operation of the contract with its address, such as /v1/orders/{order_id}.
type Operation struct{ ID, Method, Path string }

// Answer is what an operation answered. The code is empty where nothing was refused, and where the body's status is not the answer's.
type Answer struct {
	Operation string
	Status    int
	Code      string
}

// maxBody is more bytes than any refusal has.
const maxBody = 32 << 20

// Transport is an http.RoundTripper that tells each answer of an operation. Requests of other addresses are told nowhere, and so are refusals that break
// off: they are errors of the request.
type Transport struct {
	next       http.RoundTripper
	operations []addressed
	note       func(*http.Request, Answer)
}

type addressed struct {
	Operation
	address *regexp.Regexp
}

// NewTransport sends by next (nil: http.DefaultTransport). It calls note from each goroutine that sends.
func NewTransport(next http.RoundTripper, operations []Operation, note func(*http.Request, Answer)) *Transport {
	t := &Transport{next: cmp.Or(next, http.DefaultTransport), note: note}
	for _, op := range operations {
		t.operations = append(t.operations, addressed{op, Address(op.Path)})
	}
	return t
}

// Address matches the escaped paths of requests to an operation.
func Address(path string) *regexp.Regexp {
	return regexp.MustCompile("^" + parameter.ReplaceAllString(regexp.QuoteMeta(path), "[^/]+") + "$")
}

var parameter = regexp.MustCompile(`\\\{[^}]+\\\}`)

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := t.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	a := Answer{Status: response.StatusCode}
	if a.Status >= 400 {
		body, err := io.ReadAll(io.LimitReader(response.Body, maxBody+1))
		_ = response.Body.Close()
		if err != nil {
			return nil, err
		}
		response.Body = io.NopCloser(bytes.NewReader(body))
		var refusal struct {
			Code   string `json:"code"`
			Status int    `json:"status"`
		}
		if json.Unmarshal(body, &refusal) == nil && refusal.Status == a.Status { // another body has no code
			a.Code = refusal.Code
		}
	}
	for _, op := range t.operations {
		if op.Method == r.Method && op.address.MatchString(r.URL.EscapedPath()) {
			a.Operation = op.ID
			t.note(r, a)
		}
	}
	return response, nil
}
