package contracttest

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"
)

// judge holds an answer against everything that holds for all.
func (s *suite) judge(r *reply) {
	if errors.Is(r.err, errAskedNoMore) {
		return // it was found already
	}
	s.keep(*r)
	if r.err != nil {
		s.unanswered(*r)
		return
	}
	s.waitedFor(*r, r.took, true)
	if _, asked := r.retryAfter(); !asked || r.call.fault {
		s.answered()
	}
	s.checkStrangers(*r)
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
	} else if r.sent.Method != http.MethodOptions { // a preflight is the browser's
		s.checkStray(*r)
	}
	s.checkConventions(*r)
	s.checkFacts(*r)
}

// unanswered notes that a request got no answer.
func (s *suite) unanswered(r reply) {
	if r.sent == nil {
		s.foundf(r, "", "%v", r.err)
		return
	}
	if r.sent.Context().Err() != nil {
		return // by the end of the run
	}
	over := s.waitedFor(r, r.took, false)
	switch {
	case s.waitedInVain(r, "the address gives no answer any more: %v", r.err):
	case over:
		s.foundf(r, "", "gives no answer: it is asked no more (%v, after %v)", r.err, r.took.Round(time.Second))
	default:
		s.foundf(r, "", "%v", r.err)
	}
}

// keep notes the answer that is judged. The fuzzing judges several at once.
func (s *suite) keep(r reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = r
}
