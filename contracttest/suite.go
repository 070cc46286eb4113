package contracttest

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/internal/answers"
	"github.com/ordergate/ordergate/internal/bodies"
	"github.com/ordergate/ordergate/internal/faults"
	"github.com/ordergate/ordergate/internal/panics"
)

// suite is one run against one address. It sends one request after the other, so that a recorded run can be replayed, but for races, which send one
// several times at once, and the fuzzing.
type suite struct {
	Options
	contract *contract
	bodies   map[string]*bodies.Schema // of requests, by operationId
	parts    []part                    // that were chosen
	among    []string                  // tags and operationIds that the operations are chosen by; none: all are
	part     string
	begin    time.Time
	registry map[string]api.ErrorCode // as the address publishes it, by code
	fixtures

	mu        sync.Mutex // guards what follows
	findings  []Finding
	last      reply          // that was judged
	kinds     map[string]int // findings of a kind at a place
	hidden    int
	strangers map[string]int // answers that have a header, by its name
	requests  int
	dead      bool            // the address is not ours, or the key is not accepted
	reason    string          // why the run, or a part of it, could not be
	lacking   string          // why the part has asked nothing
	token     string          // the greatest consistency token seen
	orders    map[string]bool // that were placed
	results   []PartResult
	coverage  Coverage
	proven    map[answers.Answer]bool
	obeyed    map[faults.Name]bool // the faults that the address obeys
	fresh     int                  // counts harmless requests
	facts     facts
	limit     rateLimit

	stop        context.CancelFunc  // of the part that runs
	began       bool                // a part has ended, and the run goes on
	waitsInVain int                 // in turn
	silences    map[string]*silence // by what is asked
	hung        int                 // requests that were given up
	unsent      int                 // requests of operations that are asked no more
	missed      map[string]int      // how often was not seen what the run polls for
	foundBefore int                 // findings, the first of them
	lastAnswer  time.Time
}

const defaultPatience = 30 * time.Second

func newSuite(o Options) (*suite, error) {
	o.BaseURL = strings.TrimSuffix(o.BaseURL, "/")
	if err := checkAddress(o.BaseURL); err != nil {
		return nil, err
	}
	if err := o.checkGiven(); err != nil {
		return nil, err
	}
	client := *cmp.Or(o.HTTP, &http.Client{Timeout: 30 * time.Second})
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	o.HTTP = &client
	o.Patience = cmp.Or(o.Patience, defaultPatience)
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
	requestBodies, err := bodies.Read(o.Contract)
	if err != nil {
		return nil, err
	}
	s := &suite{
		Options: o, contract: c, bodies: requestBodies, begin: o.now(), kinds: map[string]int{}, orders: map[string]bool{},
		facts: newFacts(), proven: map[answers.Answer]bool{}, strangers: map[string]int{}, silences: map[string]*silence{}, missed: map[string]int{},
	}
	client.Transport = answers.NewTransport(client.Transport, c.addresses(), s.note)
	if err = s.checkOnly(); err != nil {
		return nil, err
	}
	s.parts = s.selected()
	return s, nil
}

// checkAddress refuses what is no scheme and host: paths of the contract are put behind it.
func checkAddress(address string) error {
	base, err := url.Parse(address)
	var what string
	switch {
	case err != nil || base.Host == "":
		what = "is no address"
	case base.Scheme != "http" && base.Scheme != "https":
		what = "is not of http or https"
	case base.User != nil:
		what = "has a user, and the key is what authenticates"
	case base.ForceQuery || base.RawQuery != "" || base.Fragment != "":
		what = "has a query or a fragment"
	case base.Path != "":
		what = "has a path, and the contract's paths begin at the root"
	default:
		return nil
	}
	if base != nil {
		address = base.Redacted()
	}
	return fmt.Errorf("contracttest: %q %s: an address is such as http://127.0.0.1:8080", address, what)
}

// run runs one part and keeps how it ended. One that asked nothing did not pass: it was skipped.
func (s *suite) run(ctx context.Context, p part) PartResult {
	s.part, s.lacking = p.name, ""
	begin, requests, findings, unsent := time.Now(), s.requests, len(s.findings), s.unsent
	outer := ctx
	ctx, s.stop = context.WithCancel(ctx)
	defer s.stop()
	if s.registry == nil {
		s.readRegistry(ctx)
		requests = s.requests
	}
	if !s.dead {
		s.attempt(&s.last, func() { p.run(s, ctx) })
	}
	if s.dead && !s.began { // nothing was tested: what was found is why
		s.findings, s.hidden = nil, 0
	}
	if n := s.unsent - unsent; n > 0 && s.lacking == "" {
		s.skipf("%d of its requests were not sent: %s", n, s.askedNoMore())
	}
	findings, s.began = min(findings, len(s.findings)), s.began || !s.dead
	result := PartResult{
		Name: p.name, Result: Passed, Requests: s.requests - requests, Findings: len(s.findings) - findings, Seconds: time.Since(begin).Seconds(),
	}
	switch {
	case result.Findings > 0:
		result.Result = Failed
	case outer.Err() != nil:
		result.Result, result.Reason = Skipped, errInterrupted.Error()
	case s.dead:
		result.Result, result.Reason = Skipped, s.reason
	case result.Requests == 0 || s.lacking != "":
		result.Result, result.Reason = Skipped, cmp.Or(s.lacking, s.reason, "there was nothing to ask")
	}
	s.results = append(s.results, result)
	if s.Progress != nil {
		why := result.Reason
		if s.dead { // the end of the run tells it
			why = ""
		}
		fmt.Fprintln(s.Progress, strings.TrimSpace(fmt.Sprintf("%-18s %-8s %5d requests %7.1f s  %s", p.name, result.Result, result.Requests, result.Seconds, why)))
		for _, f := range s.findings[findings:] {
			fmt.Fprintln(s.Progress, "  ", f)
		}
	}
	return result
}

// attempt lets a part, or a request of the fuzzing, go as far as the answers lead. One that lacks what the contract promises, such as the lines of an
// order, may end it by a panic: that is a finding about the last answer, and the run goes on. No lock may be held then.
func (s *suite) attempt(last *reply, try func()) {
	if err := panics.Catch(func() error { try(); return nil }); err != nil {
		s.mu.Lock()
		r := *last
		s.mu.Unlock()
		line, _, _ := strings.Cut(err.Error(), "\n")
		s.foundf(r, "/body", "breaks off the check: it or one before it lacks what was needed (%s)", line)
	}
}

// skipf says why a part asks nothing.
func (s *suite) skipf(format string, args ...any) { s.lacking = fmt.Sprintf(format, args...) }

// cannotf says what the account lacks, so that a part cannot be: the run has not proven what it should.
func (s *suite) cannotf(format string, args ...any) {
	s.skipf(format, args...)
	s.reason = cmp.Or(s.reason, s.lacking)
}
