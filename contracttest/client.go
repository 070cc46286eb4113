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
)

// suite is one run against one address. It sends one request after the other, so that a recorded run can be replayed.
type suite struct {
	Options
	contract *contract
	part     string
	findings []Finding
	begin    time.Time
	requests int
	dead     bool              // the address is not ours, or the key is not accepted
	token    string            // the greatest consistency token seen
	tags     map[string][]byte // address and ETag -> the bytes that it stood for
	provoked *Provoked
	orders   map[string]bool          // that were placed
	registry map[string]api.ErrorCode // as the address publishes it, by code
	fixtures
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
	if o.Contract == nil {
		o.Contract = api.OpenAPIJSON
	}
	c, err := readContract(o.Contract)
	if err != nil {
		return nil, err
	}
	provoked := &Provoked{contract: c, next: client.Transport, seen: map[string]bool{}}
	client.Transport = provoked
	return &suite{Options: o, contract: c, begin: time.Now(), tags: map[string][]byte{}, provoked: provoked, orders: map[string]bool{}}, nil
}

// run runs one part and returns what it found.
func (s *suite) run(ctx context.Context, p part) []Finding {
	s.part = p.name
	before := len(s.findings)
	if s.registry == nil {
		s.readRegistry(ctx)
	}
	if !s.dead {
		p.run(s, ctx)
	}
	return s.findings[before:]
}

// summary says how much was asked, and how many operations list each code that they did not answer.
func (s *suite) summary() string {
	operations := map[string]int{}
	for _, missing := range s.provoked.Missing(nil) {
		operations[strings.Fields(missing)[1]]++
	}
	return fmt.Sprintf("%d requests and %d orders in %v under customer_ref %s. Never answered, which is no fault (code:operations that list it): %s",
		s.requests, len(s.orders), time.Since(s.begin).Round(time.Millisecond), s.ref, strings.TrimPrefix(fmt.Sprint(operations), "map"))
}

// call is one request.
type call struct {
	op           string // operationId; empty: method and path are outside of the contract
	method, path string
	arg          string // of the path
	query        url.Values
	idem         string            // Idempotency-Key
	header       map[string]string // an empty value leaves a header out that would be sent else
	body         any               // []byte as it is, else encoded as JSON
	chunked      bool              // the body's length is not announced
	deferred     bool              // the body is sent only once the server asks for it
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
type reply struct {
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
}

// problem is the body of a refusal.
type problem struct {
	api.Problem
	Code   string      `json:"code"`
	Errors []api.Fault `json:"errors"`
}

// foundf notes a finding about an answer.
func (s *suite) foundf(r reply, pointer, format string, args ...any) {
	s.findings = append(s.findings, Finding{
		Part: s.part, Operation: r.call.op, Request: r.request, Status: r.status, Pointer: pointer, TraceID: r.traceID,
		Message: fmt.Sprintf(format, args...),
	})
}

// foundIf notes a finding if the condition holds.
func (s *suite) foundIf(wrong bool, r reply, pointer, format string, args ...any) {
	if wrong {
		s.foundf(r, pointer, format, args...)
	}
}

// send sends a request and holds the answer against the contract. A refusal for want of capacity is waited out as it asks.
func (s *suite) send(ctx context.Context, c call) (reply, bool) {
	for try := 1; ; try++ {
		r := s.together(ctx, 1, c)[0]
		if try == 5 || r.status != http.StatusTooManyRequests && r.status != http.StatusServiceUnavailable {
			return r, r.err == nil
		}
		seconds, err := strconv.Atoi(r.header.Get("Retry-After"))
		if err != nil || !pause(ctx, min(time.Duration(seconds)*time.Second, 5*time.Second)) {
			return r, r.err == nil
		}
	}
}

// together sends a request several times at once.
func (s *suite) together(ctx context.Context, times int, c call) []reply {
	replies := make([]reply, times)
	var flying sync.WaitGroup
	for i := range replies {
		r := &replies[i]
		if *r = s.prepare(ctx, c); r.err == nil {
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
	s.requests++
	r := reply{call: c, traceID: s.ref + "-" + strconv.Itoa(s.requests)}
	method, path := c.method, c.path
	if c.op != "" {
		if r.op = s.contract.operations[c.op]; r.op == nil {
			r.err = errors.New("the contract has no such operation")
			return r
		}
		method, path = r.op.method, templated.ReplaceAllLiteralString(r.op.path, url.PathEscape(c.arg))
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
	}
	return r
}

func (r *reply) exchange(client *http.Client) {
	response, err := client.Do(r.sent)
	if err == nil {
		r.status, r.header = response.StatusCode, response.Header
		r.body, err = io.ReadAll(response.Body)
		_ = response.Body.Close()
	}
	if err != nil {
		r.err = fmt.Errorf("no answer: %w", err)
	}
}

// judge holds an answer against everything that holds for all.
func (s *suite) judge(r *reply) {
	if r.err != nil {
		s.foundf(*r, "", "%v", r.err)
		return
	}
	if r.status >= 400 {
		err := json.Unmarshal(r.body, &r.problem)
		s.foundIf(err != nil, *r, "/body", "is not a problem document: %v", err)
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
func (s *suite) poll(ctx context.Context, patience time.Duration, about reply, what string, done func() bool) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for wait := 5 * time.Millisecond; !done(); wait = min(2*wait, 250*time.Millisecond) {
		if !pause(ctx, wait) {
			s.foundf(about, "", "not seen within %v: %s", patience, what)
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
