package contracttest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// endf ends the run: what follows would say nothing new. The caller holds the lock.
func (s *suite) endf(format string, args ...any) {
	if !s.dead {
		s.dead, s.reason = true, fmt.Sprintf(format, args...)
	}
	if s.stop != nil {
		s.stop()
	}
}

const (
	maxWaitsInVain = 3  // requests in turn that get no answer; then the run ends, unless another operation still answers
	maxHung        = 2  // requests of an operation that hang; then it is asked no more
	maxSlow        = 10 // answers of an operation in turn that take longer than slowAnswer; then it is asked no more
	slowAnswer     = 3 * time.Second
	longestAnswer  = 30 * time.Second // is waited for, unless Options.HTTP says otherwise
	shortestAnswer = 5 * time.Second  // is waited for, whatever has hung before
)

// silence counts how an operation keeps the run waiting.
type silence struct {
	hung, slow int
	over       string // why it is asked no more; empty: it is asked
}

var errAskedNoMore = errors.New("it is asked no more")

// timeout is how long an answer is waited for: --patience and 10 s at least, and half as long after each request that hung.
func (s *suite) timeout(c call) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	limit := longestAnswer
	if s.HTTP.Timeout > 0 {
		limit = s.HTTP.Timeout
	}
	return s.lessened(min(limit, max(s.Patience, 2*shortestAnswer))) + c.prefersWait()
}

// lessened is half of a time after each request that hung, down to shortestAnswer. The caller holds the lock.
func (s *suite) lessened(d time.Duration) time.Duration {
	return max(d>>min(s.hung, 8), min(d, shortestAnswer))
}

var waitSeconds = regexp.MustCompile(`\bwait="?([0-9]{1,2})\b`)

// prefersWait is how long the call asks the address to wait before it answers.
func (c call) prefersWait() time.Duration {
	seconds := 0
	if told := waitSeconds.FindStringSubmatch(c.header["Prefer"]); told != nil {
		seconds, _ = strconv.Atoi(told[1]) // digits alone
	}
	return time.Duration(min(seconds, 10)) * time.Second
}

// waitedFor notes how long an operation let a request wait, and tells whether it gives no answer and is asked no more from now on.
func (s *suite) waitedFor(r reply, took time.Duration, answered bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	took -= r.call.prefersWait()
	asked := s.asked(r.call)
	a := s.silences[asked]
	if a == nil {
		a = &silence{}
		s.silences[asked] = a
	}
	hung := !answered && (took >= slowAnswer || errors.Is(r.err, context.DeadlineExceeded))
	if took < slowAnswer && !hung {
		a.slow = 0
		return false
	}
	if a.slow++; hung || took > 2*shortestAnswer {
		s.hung++
	}
	if hung {
		a.hung++
	}
	switch {
	case a.over != "":
	case a.hung >= maxHung || a.hung > 0 && r.call.op == "":
		a.over = "gives no answer"
		return true
	case a.slow >= maxSlow:
		a.over = fmt.Sprintf("takes more than %v for each answer", slowAnswer)
		s.reason = cmp.Or(s.reason, asked+" "+a.over) // no finding: the contract promises no speed
	}
	return false
}

// asked names what a call asks: an operation, or what the contract has at the path of a request that is none.
func (s *suite) asked(c call) string {
	if c.op != "" {
		return c.op
	}
	path, _, _ := strings.Cut(c.path, "?")
	for _, op := range s.contract.operations {
		if op.address.MatchString(path) {
			return op.path
		}
	}
	return "what is outside of the contract"
}

// over says why an operation is asked no more; empty: it is asked. The caller holds the lock, or is alone.
func (s *suite) over(asked string) string {
	if a := s.silences[asked]; a != nil {
		return a.over
	}
	return ""
}

// askedNoMore says which operations are asked no more, and why.
func (s *suite) askedNoMore() string {
	var all []string
	for _, op := range sortedKeys(s.silences) {
		if why := s.silences[op].over; why != "" {
			all = append(all, op+" "+why)
		}
	}
	return strings.Join(all, ", ")
}

// waitedInVain counts requests in turn that got no answer, or were told to wait for longer than the suite's patience. It is true if the run
// ends with this one: no other operation answers, either. Then it forgets what was found since the first of them: it is all the same.
func (s *suite) waitedInVain(r reply, format string, args ...any) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waitsInVain == 0 {
		s.foundBefore = len(s.findings)
	}
	if s.waitsInVain++; s.waitsInVain < maxWaitsInVain || s.dead {
		return s.dead
	}
	s.mu.Unlock()
	alive := s.stillAnswers(r)
	s.mu.Lock()
	switch {
	case alive:
		s.waitsInVain, s.lastAnswer = 0, time.Now()
	case !s.dead:
		s.endf(format, args...)
		s.findings = s.findings[:s.foundBefore]
	}
	return s.dead
}

// stillAnswers asks an operation that has not hung yet.
func (s *suite) stillAnswers(r reply) bool {
	for _, id := range []string{"listProducts", "listOrders", "listErrors"} {
		s.mu.Lock()
		op, a := s.contract.operations[id], s.silences[id]
		s.mu.Unlock()
		if op == nil || a != nil && a.hung > 0 || r.call.op == id {
			continue
		}
		address, err := url.Parse(s.BaseURL + op.path)
		if err != nil {
			return false
		}
		request := &http.Request{Method: http.MethodGet, URL: address, Header: http.Header{}}
		s.headers(request.Header, nil, call{}, r.traceID)
		timed := *s.HTTP
		timed.Timeout = shortestAnswer
		response, err := timed.Do(request)
		if err != nil {
			return false
		}
		_ = response.Body.Close()
		return response.StatusCode < 500 && response.StatusCode != http.StatusTooManyRequests
	}
	return false
}

// answered notes that the address answers.
func (s *suite) answered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waitsInVain, s.lastAnswer = 0, time.Now()
}
