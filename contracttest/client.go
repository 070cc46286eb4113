package contracttest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
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
	dead     bool              // nobody answered the first request, or the key is not accepted
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
		return nil, fmt.Errorf("contracttest: %q is no address such as http://127.0.0.1:8080", o.BaseURL)
	}
	o.BaseURL = strings.TrimSuffix(o.BaseURL, "/")
	client := http.Client{Timeout: 30 * time.Second}
	if o.HTTP != nil {
		client = *o.HTTP
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	o.HTTP = &client
	o.Patience = cmp.Or(o.Patience, 30*time.Second)
	if o.ref == "" {
		var random [6]byte
		_, _ = rand.Read(random[:]) // never fails
		o.ref = "ct-" + hex.EncodeToString(random[:])
	}
	if o.judged == nil {
		o.judged = &verdicts{}
	}
	if o.Contract == nil {
		o.Contract = bundled()
	}
	if o.parsed == nil {
		if o.parsed, err = readContract(o.Contract); err != nil {
			return nil, err
		}
	}
	provoked := &Provoked{contract: o.parsed, next: client.Transport, seen: map[string]bool{}}
	client.Transport = provoked
	return &suite{Options: o, contract: o.parsed, begin: time.Now(), tags: map[string][]byte{}, provoked: provoked, orders: map[string]bool{}}, nil
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

// summary says how much was asked, and which declared refusals nothing provoked.
func (s *suite) summary() string {
	return fmt.Sprintf("%d requests and %d orders in %v under customer_ref %s. Listed, and no fault if this address never answers it: %s",
		s.requests, len(s.orders), time.Since(s.begin).Round(time.Millisecond), s.ref, s.provoked.open())
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

// reply is an answer with the request it is for.
type reply struct {
	answer
	call    call
	request string // method and address
	traceID string
	problem problem // of a refusal
}

// problem is the body of a refusal.
type problem struct {
	api.Problem
	Code   string      `json:"code"`
	Errors []api.Fault `json:"errors"`
}

// found notes a finding about an answer.
func (s *suite) found(r reply, pointer, format string, args ...any) {
	s.findings = append(s.findings, Finding{
		Part: s.part, Operation: r.call.op, Request: r.request, Status: r.status, Pointer: pointer, TraceID: r.traceID,
		Message: fmt.Sprintf(format, args...),
	})
}

// send sends a request and holds the answer against the contract. A refusal for want of capacity is waited out as it asks.
func (s *suite) send(ctx context.Context, c call) (reply, bool) {
	for try := 1; ; try++ {
		r, ok := s.once(ctx, c)
		if !ok || try == 5 || r.status != http.StatusTooManyRequests && r.status != http.StatusServiceUnavailable {
			return r, ok
		}
		seconds, err := strconv.Atoi(r.header.Get("Retry-After"))
		if err != nil || !s.pause(ctx, min(time.Duration(seconds)*time.Second, 5*time.Second)) {
			return r, ok
		}
	}
}

func (s *suite) once(ctx context.Context, c call) (reply, bool) {
	p, ok := s.prepare(ctx, c)
	if !ok {
		return p.reply, false
	}
	s.exchange(p)
	return p.reply, s.judge(ctx, p)
}

// together sends a request several times at once.
func (s *suite) together(ctx context.Context, times int, c call) []reply {
	var sent []*pending
	var flying sync.WaitGroup
	for range times {
		if p, ok := s.prepare(ctx, c); ok {
			sent = append(sent, p)
			flying.Go(func() { s.exchange(p) })
		}
	}
	flying.Wait()
	var replies []reply
	for _, p := range sent {
		if s.judge(ctx, p) {
			replies = append(replies, p.reply)
		}
	}
	return replies
}

// pending is a request on its way.
type pending struct {
	reply   reply
	op      *operation // nil outside of the contract
	request *http.Request
	body    []byte
	err     error
}

func (s *suite) prepare(ctx context.Context, c call) (*pending, bool) {
	s.requests++
	p := &pending{reply: reply{call: c, traceID: s.ref + "-" + strconv.Itoa(s.requests)}}
	method, path := c.method, c.path
	if c.op != "" {
		if p.op = s.contract.operations[c.op]; p.op == nil {
			s.found(p.reply, "", "the contract has no such operation")
			return p, false
		}
		method, path = p.op.route.Method, p.op.route.Path
		if name := p.op.parameter(); name != "" {
			path = strings.Replace(path, "{"+name+"}", url.PathEscape(c.arg), 1)
		}
	}
	if len(c.query) > 0 {
		path += "?" + c.query.Encode()
	}
	p.reply.request = method + " " + path
	var reader io.Reader
	if c.body != nil {
		var raw bool
		if p.body, raw = c.body.([]byte); !raw {
			p.body, _ = json.Marshal(c.body) // maps of our own
		}
		if reader = bytes.NewReader(p.body); c.chunked {
			reader = io.MultiReader(reader) // hides the length
		}
	}
	if p.request, p.err = http.NewRequestWithContext(ctx, method, s.BaseURL+path, reader); p.err != nil {
		s.found(p.reply, "", "%v", p.err)
		return p, false
	}
	s.headers(p.request.Header, p.op, c, p.reply.traceID)
	return p, true
}

func (s *suite) exchange(p *pending) {
	var response *http.Response
	if response, p.err = s.HTTP.Do(p.request); p.err != nil {
		return
	}
	p.reply.status, p.reply.header = response.StatusCode, response.Header
	p.reply.body, p.err = io.ReadAll(response.Body)
	_ = response.Body.Close()
}

// judge holds an answer against everything that holds for all; false if there is none.
func (s *suite) judge(ctx context.Context, p *pending) bool {
	if p.err != nil {
		s.dead = s.dead || s.requests == 1
		s.found(p.reply, "", "no answer: %v", p.err)
		return false
	}
	if p.reply.status >= 400 {
		if err := json.Unmarshal(p.reply.body, &p.reply.problem); err != nil {
			s.found(p.reply, "/body", "is no problem: %v", err)
		}
	}
	if p.op != nil {
		for _, f := range p.op.check(ctx, s.judged, p.reply.answer) {
			s.found(p.reply, f.pointer, "%s", f.message)
		}
		s.checkRequest(ctx, p)
	} else {
		s.checkStray(p.reply)
	}
	s.checkConventions(p)
	return true
}

// headers sets what every request has, then what the call wants otherwise.
func (s *suite) headers(h http.Header, op *operation, c call, traceID string) {
	h.Set("User-Agent", "ordergate-contracttest")
	h.Set("X-Trace-ID", traceID)
	if op == nil || !op.public {
		h.Set("Authorization", "Bearer "+s.Key)
	}
	if c.body != nil {
		h.Set("Content-Type", "application/json")
	}
	if c.idem != "" {
		h.Set("Idempotency-Key", c.idem)
	}
	if c.deferred {
		h.Set("Expect", "100-continue")
	}
	if s.token != "" && op != nil && op.takes("X-Consistency-Token") {
		h.Set("X-Consistency-Token", s.token)
	}
	for name, value := range c.header {
		h.Set(name, value)
		if value == "" {
			h.Del(name)
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
		s.found(r, "/status", "is not %v%s", statuses, why(r))
		return r, false
	}
	if out != nil {
		if err := json.Unmarshal(r.body, out); err != nil {
			s.found(r, "/body", "cannot be decoded: %v", err)
			return r, false
		}
	}
	return r, true
}

func why(r reply) string {
	if r.problem.Code == "" {
		return ""
	}
	text := ", but " + r.problem.Code
	for _, f := range r.problem.Errors {
		text += " " + f.Pointer + " " + f.Rule
	}
	return text
}

// refused sends a request that must be refused with the code; pointers are what its `errors` must name.
func (s *suite) refused(ctx context.Context, code errcode.Code, c call, pointers ...string) reply {
	r, ok := s.send(ctx, c)
	if !ok {
		return r
	}
	if r.problem.Code != string(code) {
		s.found(r, "/body/code", "is not %s%s", code, why(r))
		return r
	}
	for _, p := range pointers {
		if !slices.ContainsFunc(r.problem.Errors, func(f api.Fault) bool { return f.Pointer == p }) {
			s.found(r, "/body/errors", "does not name %s%s", p, why(r))
		}
	}
	return r
}

// unchanged asks for what the caller holds until that is what the address has: 304.
func (s *suite) unchanged(ctx context.Context, c call, held reply) {
	c.header = maps.Clone(c.header)
	if c.header == nil {
		c.header = map[string]string{}
	}
	// Polled, because something else may have changed what is read; not for long, because that is not the rule.
	s.pollFor(ctx, min(s.Patience, 3*time.Second), held, "304 for the ETag that it has just given", func() bool {
		c.header["If-None-Match"] = held.header.Get("ETag")
		r, ok := s.get(ctx, nil, c, http.StatusNotModified, http.StatusOK)
		if r.status == http.StatusNotModified && r.header.Get("ETag") != held.header.Get("ETag") {
			s.found(r, "/header/ETag", "is %s and not that of the request, %s", r.header.Get("ETag"), held.header.Get("ETag"))
		}
		held = r
		return !ok || r.status == http.StatusNotModified
	})
}

// poll repeats until done, and notes a finding if it is not in time.
func (s *suite) poll(ctx context.Context, about reply, what string, done func() bool) {
	s.pollFor(ctx, s.Patience, about, what, done)
}

func (s *suite) pollFor(ctx context.Context, patience time.Duration, about reply, what string, done func() bool) {
	deadline := time.Now().Add(patience)
	for wait := 5 * time.Millisecond; !done(); wait = min(2*wait, 250*time.Millisecond) {
		if time.Now().After(deadline) {
			s.found(about, "", "not seen within %v: %s", patience, what)
			return
		}
		if !s.pause(ctx, wait) {
			s.found(about, "", "the time of the test was over: %s", what)
			return
		}
	}
}

func (s *suite) pause(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func values(pairs ...string) url.Values {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		v.Add(pairs[i], pairs[i+1])
	}
	return v
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
