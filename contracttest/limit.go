package contracttest

import (
	"context"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/ordergate/ordergate/gen/errcode"
)

// leastRate is how many requests a second the limit of a key must allow: a run sends some ten thousand, and waits for things that pass.
const leastRate = 10

// rateLimit is the limit of the run's key, as the address tells it. The run keeps within it. Its owner guards it.
type rateLimit struct {
	policy   string        // RateLimit-Policy; empty: none was seen
	requests float64       // in a window
	interval time.Duration // in which one of them comes back
	left     float64       // at a time
	at       time.Time
}

var (
	limitPolicy = regexp.MustCompile(`^"default";q=([0-9]{1,15});w=([0-9]{1,9})$`)
	limitLeft   = regexp.MustCompile(`^"default";r=([0-9]{1,15});t=[0-9]+$`)
)

// uncounted are refusals that come before a key is known: no operation is asked, the key cannot be looked up, or the process stops.
var uncounted = []errcode.Code{errcode.REQ005, errcode.REQ006, errcode.SYS002, errcode.SYS005, errcode.RATE003}

// counts tells whether a call to an operation takes a request from the limit of the run's key.
func (s *suite) counts(c call) bool {
	op := s.contract.operations[c.op]
	other, given := c.header["Authorization"]
	return op != nil && !op.public && !op.signed && (!given || other == "Bearer "+s.Key)
}

// checkLimit holds the RateLimit headers of an answer against the first policy that was seen: the limit of a key is told in every answer to it,
// and in no other.
func (s *suite) checkLimit(r reply, wrong wrongFact) {
	policy, left := r.header.Get("RateLimit-Policy"), r.header.Get("RateLimit")
	if r.op != nil && (r.op.public || r.op.signed) {
		wrong(policy+left != "", "/header/RateLimit", "is there, and the operation counts for no key")
		return
	}
	l := &s.limit
	if !s.counts(r.call) || r.status == http.StatusUnauthorized || r.status == http.StatusRequestEntityTooLarge || slices.Contains(uncounted, errcode.Code(r.problem.Code)) {
		return
	}
	if l.policy == "" && policy != "" && !r.call.fault { // a key without a limit gets one for the fault
		if l.learn(policy); l.interval > time.Second/leastRate {
			s.endf("the limit of the key, %s, is too small: a run needs %d requests a second (ordergate keys create -rate %d)", policy, leastRate, leastRate)
		}
	}
	if l.policy == "" {
		return
	}
	wrong(policy != l.policy, "/header/RateLimit-Policy", "is %q, and it was %q before", policy, l.policy)
	told := limitLeft.FindStringSubmatch(left)
	if told == nil {
		wrong(true, "/header/RateLimit", "is %q and does not tell what is left of %s", left, l.policy)
		return
	}
	n, _ := strconv.ParseFloat(told[1], 64) // digits alone
	wrong(n > l.requests, "/header/RateLimit", "is %q, more than the limit of %s", left, l.policy)
	l.refill(time.Now())
	l.left = min(l.left, n)
}

// learn keeps a policy. One that cannot be read is a finding of the schema, and no limit.
func (l *rateLimit) learn(policy string) {
	told := limitPolicy.FindStringSubmatch(policy)
	if told == nil {
		return
	}
	requests, _ := strconv.ParseFloat(told[1], 64) // digits alone
	window, _ := strconv.ParseFloat(told[2], 64)
	*l = rateLimit{policy: policy, requests: requests, left: requests, at: time.Now(), interval: time.Duration(window / max(requests, 1e-9) * float64(time.Second))}
}

func (l *rateLimit) refill(now time.Time) {
	l.left = min(l.requests, l.left+float64(now.Sub(l.at))/float64(max(l.interval, 1)))
	l.at = now
}

// take takes some requests, or tells how long to wait before they are there.
func (l *rateLimit) take(now time.Time, n float64) time.Duration {
	if l.policy == "" {
		return 0
	}
	l.refill(now)
	if n = min(n, l.requests); l.left < n {
		return time.Duration((n-l.left)*float64(l.interval)) + 1
	}
	l.left -= n
	return 0
}

// pace waits until the key may send a call some times, as far as the answers tell.
func (s *suite) pace(ctx context.Context, c call, times int) {
	for s.counts(c) {
		s.mu.Lock()
		wait := s.limit.take(time.Now(), float64(times))
		s.mu.Unlock()
		if wait == 0 || !pause(ctx, wait) {
			return
		}
	}
}
