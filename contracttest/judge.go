package contracttest

import (
	"encoding/json"
	"net/http"
)

// judge holds an answer against everything that holds for all.
func (s *suite) judge(r *reply) {
	s.keep(*r)
	if r.err != nil {
		if r.sent == nil || r.sent.Context().Err() == nil && !s.waitedInVain("the address gives no answer any more: %v", r.err) {
			s.foundf(*r, "", "%v", r.err)
		}
		return
	}
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

// keep notes the answer that is judged. The fuzzing judges several at once.
func (s *suite) keep(r reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = r
}
