package contracttest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ordergate/ordergate/gen/api"
)

// call is one request.
type call struct {
	op           string // operationId; empty: method and path are outside of the contract
	method, path string // beside an operationId the method is HEAD or nothing
	arg          string // of the path
	query        url.Values
	idem         string            // Idempotency-Key
	header       map[string]string // an empty value leaves a header out that would be sent else
	body         any               // []byte as it is, else encoded as JSON
	chunked      bool              // the body's length is not announced
	deferred     bool              // the body is sent only once the server asks for it
	fault        bool              // it is provoked: its answer is taken as it comes
}

// with is the call with more headers, given as names and values in turn.
func (c call) with(headers ...string) call {
	header := map[string]string{}
	maps.Copy(header, c.header)
	for pair := range slices.Chunk(headers, 2) {
		header[pair[0]] = pair[1]
	}
	c.header = header
	return c
}

// reply is a request with the answer to it.
type reply struct { //nolint:recvcheck // exchange alone changes it
	call    call
	op      *operation // nil outside of the contract
	request string     // method and address
	traceID string
	sent    *http.Request
	content []byte // of the request
	err     error  // why there is no answer
	status  int
	header  http.Header
	body    []byte
	problem problem // of a refusal
	took    time.Duration
	seq     int    // how much was known when it was sent
	token   string // the greatest one that was known when it was sent
	again   bool   // its Idempotency-Key was sent before
}

// problem is the body of a refusal.
type problem struct {
	api.Problem
	Code   string      `json:"code"`
	Errors []api.Fault `json:"errors"`
}

// send sends a request and holds the answer against the contract. A refusal for want of capacity, or of requests that the key may still
// send, is waited out as it asks.
func (s *suite) send(ctx context.Context, c call) (reply, bool) {
	begin := time.Now()
	s.mu.Lock()
	end := begin.Add(s.lessened(s.Patience))
	s.mu.Unlock()
	for {
		r := s.together(ctx, 1, c)[0]
		wait, asked := r.retryAfter()
		if c.fault || !asked {
			return r, r.err == nil
		}
		if time.Now().Add(wait).After(end) {
			if over := s.waitedFor(r, max(time.Since(begin), slowAnswer)+c.prefersWait(), false); !s.waitedInVain(r, "the address answered %d again and again (%s)", r.status, r.problem.Code) && over {
				s.foundf(r, "/status", "again and again, for as long as the run has patience: the operation is asked no more")
			}
			return r, true
		}
		if !pause(ctx, wait) {
			return r, true
		}
	}
}

// retryAfter tells how long the address asks to wait before the same request is sent again, if it does.
func (r reply) retryAfter() (time.Duration, bool) {
	if r.status != http.StatusTooManyRequests && r.status != http.StatusServiceUnavailable {
		return 0, false
	}
	seconds, err := strconv.Atoi(r.header.Get("Retry-After"))
	return time.Duration(max(seconds, 0)) * time.Second, err == nil
}

// together sends a request several times at once.
func (s *suite) together(ctx context.Context, times int, c call) []reply {
	s.pace(ctx, c, times)
	replies := make([]reply, times)
	var flying sync.WaitGroup
	for i := range replies {
		r := &replies[i]
		if *r = s.prepare(ctx, c); r.err == nil {
			r.again = r.again || times > 1
			flying.Go(func() { r.exchange(s.HTTP, s.timeout(c)) })
		}
	}
	flying.Wait()
	for i := range replies {
		s.judge(&replies[i])
	}
	return replies
}

func (s *suite) prepare(ctx context.Context, c call) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over(s.asked(c)) != "" {
		s.unsent++
		return reply{call: c, err: errAskedNoMore}
	}
	s.requests++
	r := reply{call: c, traceID: s.ref + "-" + strconv.Itoa(s.requests), token: s.token, seq: s.facts.seq}
	method, path := c.method, c.path
	if c.op != "" {
		if r.op = s.contract.operations[c.op]; r.op == nil {
			r.err = errors.New("the contract has no such operation")
			return r
		}
		method, path = cmp.Or(c.method, r.op.method), templated.ReplaceAllLiteralString(r.op.path, url.PathEscape(c.arg))
	}
	if len(c.query) > 0 {
		path += "?" + c.query.Encode()
	}
	r.request = method + " " + path
	var reader io.Reader
	if c.body != nil {
		var raw bool
		if r.content, raw = c.body.([]byte); !raw {
			r.content = encode(c.body)
		}
		if reader = bytes.NewReader(r.content); c.chunked {
			reader = io.MultiReader(reader) // hides the length
		}
	}
	if r.sent, r.err = http.NewRequestWithContext(ctx, method, s.BaseURL+path, reader); r.err == nil {
		s.headers(r.sent.Header, r.op, c, r.traceID)
		r.again = s.facts.sending(r)
	}
	return r
}

// maxAnswer is more bytes than any answer has.
const maxAnswer = 32 << 20

// exchange sends the request and reads its answer, as long as it may take.
func (r *reply) exchange(client *http.Client, timeout time.Duration) {
	timed := *client
	timed.Timeout = timeout
	begin, lacks := time.Now(), "no answer"
	response, err := timed.Do(r.sent)
	if err == nil {
		lacks = "no end of its answer"
		r.status, r.header = response.StatusCode, response.Header
		r.body, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
		_ = response.Body.Close()
		if len(r.body) > maxAnswer {
			err = fmt.Errorf("it is longer than %d bytes", maxAnswer)
		}
	}
	if r.took = time.Since(begin); err != nil {
		r.err = fmt.Errorf("%s: %w", lacks, err)
	}
}

// headers sets what every request has, then what the call wants otherwise.
func (s *suite) headers(h http.Header, op *operation, c call, traceID string) {
	all := map[string]string{"User-Agent": "ordergate-contracttest", "X-Trace-ID": traceID, "Idempotency-Key": c.idem}
	if op == nil || !op.public {
		all["Authorization"] = "Bearer " + s.Key
	}
	if c.body != nil {
		all["Content-Type"] = "application/json"
		if op != nil {
			all["Content-Type"] = strings.Join(sortedKeys(op.at("requestBody", "content").children()), "") // it has one
		}
	}
	if c.deferred {
		all["Expect"] = "100-continue"
	}
	if op != nil && op.takes("X-Consistency-Token") {
		all["X-Consistency-Token"] = s.token
	}
	maps.Copy(all, c.header)
	for name, value := range all {
		if value != "" {
			h.Set(name, value)
		}
	}
}
