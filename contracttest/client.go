package contracttest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
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
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/faults"
	"github.com/ordergate/ordergate/internal/panics"
)

// suite is one run against one address. It sends one request after the other, so that a recorded run can be replayed, but for races, which send one
// several times at once, and the fuzzing.
type suite struct {
	Options
	contract *contract
	bodies   map[string]*Schema // of requests, by operationId
	among    []string           // tags and operationIds that the operations are chosen by; none: all are
	part     string
	begin    time.Time
	provoked *provoked
	registry map[string]api.ErrorCode // as the address publishes it, by code
	fixtures

	mu       sync.Mutex // guards what follows
	findings []Finding
	last     reply          // that was judged
	kinds    map[string]int // findings of a kind at a place
	hidden   int
	requests int
	dead     bool            // the address is not ours, or the key is not accepted
	reason   string          // why the run, or a part of it, could not be
	lacking  string          // why the part has asked nothing
	token    string          // the greatest consistency token seen
	orders   map[string]bool // that were placed
	results  []PartResult
	coverage Coverage
	obeyed   map[faults.Name]bool // the faults that the address obeys
	fresh    int                  // counts harmless requests
	facts    facts
	limit    rateLimit

	stop        context.CancelFunc // of the part that runs
	began       bool               // a part has ended, and the run goes on
	waitsInVain int                // in turn
	foundBefore int                // findings, the first of them
	lastAnswer  time.Time
}

func newSuite(o Options) (*suite, error) {
	base, err := url.Parse(o.BaseURL)
	if err != nil || base.Scheme == "" || base.Host == "" {
		return nil, fmt.Errorf("contracttest: %q is not an address such as http://127.0.0.1:8080", o.BaseURL)
	}
	o.BaseURL = strings.TrimSuffix(o.BaseURL, "/")
	client := *cmp.Or(o.HTTP, &http.Client{Timeout: 30 * time.Second})
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	o.HTTP = &client
	o.Patience = cmp.Or(o.Patience, 30*time.Second)
	o.ref = cmp.Or(o.ref, "ct-"+strings.ToLower(rand.Text()[:12]))
	o.Seed = newSeed(o.Seed)
	if o.now == nil {
		o.now = time.Now
	}
	if o.Contract == nil {
		o.Contract = api.OpenAPIJSON
	}
	c, err := readContract(o.Contract)
	if err != nil {
		return nil, err
	}
	bodies, err := RequestBodies(o.Contract)
	if err != nil {
		return nil, err
	}
	provoked := &provoked{contract: c, next: client.Transport, seen: map[string]bool{}}
	client.Transport = provoked
	s := &suite{
		Options: o, contract: c, bodies: bodies, begin: o.now(), provoked: provoked, kinds: map[string]int{}, orders: map[string]bool{},
		facts: newFacts(),
	}
	return s, s.checkOnly()
}

// run runs one part and keeps how it ended. One that asked nothing did not pass: it was skipped.
func (s *suite) run(ctx context.Context, p part) PartResult {
	s.part, s.lacking = p.name, ""
	begin, requests, findings := time.Now(), s.requests, len(s.findings)
	outer := ctx
	ctx, s.stop = context.WithCancel(ctx)
	defer s.stop()
	if s.registry == nil {
		s.readRegistry(ctx)
		requests = s.requests
	}
	if !s.dead {
		s.attempt(ctx, p)
	}
	findings, s.began = min(findings, len(s.findings)), s.began || !s.dead
	result := PartResult{
		Name: p.name, Result: passed, Requests: s.requests - requests, Findings: len(s.findings) - findings, Seconds: time.Since(begin).Seconds(),
	}
	switch {
	case result.Findings > 0:
		result.Result = failed
	case outer.Err() != nil:
		result.Result, result.Reason = skipped, errInterrupted.Error()
	case s.dead:
		result.Result, result.Reason = skipped, s.reason
	case result.Requests == 0 || s.lacking != "":
		result.Result, result.Reason = skipped, cmp.Or(s.lacking, s.reason, "there was nothing to ask")
	}
	s.results = append(s.results, result)
	if s.Progress != nil {
		fmt.Fprintf(s.Progress, "%-18s %-8s %5d requests %7.1f s  %s\n", p.name, result.Result, result.Requests, result.Seconds, result.Reason)
		for _, f := range s.findings[findings:] {
			fmt.Fprintln(s.Progress, "  ", f)
		}
	}
	return result
}

// attempt lets a part go as far as the answers lead. One that lacks what the contract promises, such as the lines of an order, may end it: that is a
// finding about the last answer, and the run goes on.
func (s *suite) attempt(ctx context.Context, p part) {
	if err := panics.Catch(func() error { p.run(s, ctx); return nil }); err != nil {
		line, _, _ := strings.Cut(err.Error(), "\n")
		s.foundf(s.last, "/body", "ends the part: it or one before it lacks what the part needs (%s)", line)
	}
}

// skipf says why a part asks nothing.
func (s *suite) skipf(format string, args ...any) { s.lacking = fmt.Sprintf(format, args...) }

// cannotf says what the account lacks, so that a part cannot be: the run has not proven what it should.
func (s *suite) cannotf(format string, args ...any) {
	s.skipf(format, args...)
	s.reason = cmp.Or(s.reason, s.lacking)
}

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
	for end := time.Now().Add(s.Patience); ; {
		r := s.together(ctx, 1, c)[0]
		wait, asked := r.retryAfter()
		if c.fault || !asked {
			return r, r.err == nil
		}
		if time.Now().Add(wait).After(end) {
			s.waitedInVain("the address answered %d again and again (%s)", r.status, r.problem.Code)
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
			flying.Go(func() { r.exchange(s.HTTP) })
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

func (r *reply) exchange(client *http.Client) {
	begin := time.Now()
	response, err := client.Do(r.sent)
	if err == nil {
		r.status, r.header = response.StatusCode, response.Header
		r.body, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
		_ = response.Body.Close()
		if len(r.body) > maxAnswer {
			err = fmt.Errorf("its answer is longer than %d bytes", maxAnswer)
		}
	}
	if r.took = time.Since(begin); err != nil {
		r.err = fmt.Errorf("no answer: %w", err)
	}
}

// judge holds an answer against everything that holds for all.
func (s *suite) judge(r *reply) {
	s.last = *r
	if r.err != nil {
		if r.sent == nil || r.sent.Context().Err() == nil && !s.waitedInVain("the address gives no answer any more: %v", r.err) {
			s.foundf(*r, "", "%v", r.err)
		}
		return
	}
	if _, asked := r.retryAfter(); !asked || r.call.fault {
		s.answered()
	}
	if r.status >= 400 && r.sent.Method != http.MethodHead {
		err := json.Unmarshal(r.body, &r.problem)
		s.foundIf(err != nil, *r, "/body", "is not a problem document: %v", err)
	}
	if r.sent.Method == http.MethodHead {
		return // the part that sends it compares it with GET
	}
	if r.op != nil {
		for _, f := range r.op.check(r.status, r.header, r.body) {
			s.foundf(*r, f.pointer, "%s", f.message)
		}
		s.checkRequest(*r)
	} else {
		s.checkStray(*r)
	}
	s.checkConventions(*r)
	s.checkFacts(*r)
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

// get sends a request that must be answered with one of the statuses and decodes its body into out.
func (s *suite) get(ctx context.Context, out any, c call, statuses ...int) (reply, bool) {
	r, ok := s.send(ctx, c)
	if !ok {
		return r, false
	}
	if !slices.Contains(statuses, r.status) {
		s.foundf(r, "/status", "is not %s%s", strings.ReplaceAll(strings.Trim(fmt.Sprint(statuses), "[]"), " ", " or "), why(r))
		return r, false
	}
	if out != nil {
		if err := json.Unmarshal(r.body, out); err != nil {
			s.foundf(r, "/body", "cannot be decoded: %v", err)
			return r, false
		}
	}
	return r, true
}

func why(r reply) string {
	if r.problem.Code == "" {
		return ""
	}
	texts := []string{", but", r.problem.Code}
	for _, f := range r.problem.Errors {
		texts = append(texts, f.Pointer, f.Rule)
	}
	return strings.Join(texts, " ")
}

// refused sends a request that must be refused with the code; pointers are what its `errors` must name.
func (s *suite) refused(ctx context.Context, code errcode.Code, c call, pointers ...string) reply {
	r, ok := s.send(ctx, c)
	if !ok {
		return r
	}
	if r.problem.Code != string(code) {
		s.foundf(r, "/body/code", "is not %s%s", code, why(r))
		return r
	}
	for _, p := range pointers {
		if !slices.ContainsFunc(r.problem.Errors, func(f api.Fault) bool { return f.Pointer == p }) {
			s.foundf(r, "/body/errors", "does not name %s%s", p, why(r))
		}
	}
	return r
}

// unchanged repeats a read with the caller's ETag until the response is 304.
func (s *suite) unchanged(ctx context.Context, c call, held reply) {
	// It polls, because something else may have changed the resource; not for long, because that is the exception.
	s.poll(ctx, min(s.Patience, 3*time.Second), held, "304 for the ETag that it has just given", func() bool {
		tag := held.header.Get("ETag")
		r, ok := s.get(ctx, nil, c.with("If-None-Match", tag), http.StatusNotModified, http.StatusOK)
		s.foundIf(r.status == http.StatusNotModified && r.header.Get("ETag") != tag,
			r, "/header/ETag", "is %q and not that of the request, %q", r.header.Get("ETag"), tag)
		held = r
		return !ok || r.status == http.StatusNotModified
	})
}

// poll repeats until done, and notes a finding if it is not in time.
func (s *suite) poll(outer context.Context, patience time.Duration, about reply, what string, done func() bool) {
	ctx, cancel := context.WithTimeout(outer, patience)
	defer cancel()
	for wait := 5 * time.Millisecond; !done(); wait = min(2*wait, 250*time.Millisecond) {
		if s.hurries {
			wait = time.Millisecond
		}
		if !pause(ctx, wait) {
			s.foundIf(outer.Err() == nil, about, "", "not seen within %v: %s", patience, what)
			return
		}
	}
}

func pause(ctx context.Context, wait time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(wait):
		return true
	}
}

func values(pairs ...string) url.Values {
	v := url.Values{}
	for pair := range slices.Chunk(pairs, 2) {
		v.Set(pair[0], pair[1])
	}
	return v
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
