package edge

import (
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
)

// Limit is how many requests a key may make in a window of whole seconds. Without Requests there is no limit.
type Limit struct {
	Requests int64
	Window   time.Duration
}

// limiter is the token bucket of a key in this process: it holds as many tokens as the limit has requests, and gets one back in each interval. Safe
// for concurrent use, without a lock.
type limiter struct {
	Limit
	interval time.Duration
	fullAt   atomic.Int64 // when the bucket is full again, on the clock of take, in ns. A token that is taken defers it by an interval
	policy   []string     // the RateLimit-Policy header
}

// newLimiter returns a full bucket; nil if there is no limit.
func newLimiter(l Limit) *limiter {
	if l.Requests <= 0 {
		return nil
	}
	interval := (l.Window + time.Duration(l.Requests) - 1) / time.Duration(l.Requests) // rounded up: never more than the limit
	return &limiter{Limit: l, interval: interval, policy: []string{fmt.Sprintf(`"default";q=%d;w=%d`, l.Requests, seconds(l.Window))}}
}

// state is a bucket after a request.
type state struct {
	left int64         // tokens
	full time.Duration // until the bucket is full
	wait time.Duration // until there is a token for a request that got none; 0: it got one
}

// take takes a token if there is one. now is the time on any clock that never goes back. In a time d no more than the limit and the tokens of d
// are given out, by however many callers.
func (l *limiter) take(now time.Duration) state {
	capacity := l.interval * time.Duration(l.Requests)
	for {
		old := l.fullAt.Load()
		next := max(time.Duration(old), now) + l.interval
		if full := next - now; full > capacity {
			return state{full: full - l.interval, wait: full - capacity}
		}
		if l.fullAt.CompareAndSwap(old, int64(next)) {
			return state{left: int64((capacity - (next - now)) / l.interval), full: next - now}
		}
	}
}

// seconds rounds up.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// appendHeader appends the RateLimit header: tokens that are left, seconds until all are back.
func (s state) appendHeader(b []byte) []byte {
	b = append(b, `"default";r=`...)
	b = append(strconv.AppendInt(b, s.left, 10), ";t="...)
	return strconv.AppendInt(b, seconds(s.full), 10)
}

// countRequest takes a token of the request's key, and tells so in the headers of every answer to it. RATE_001 if there was none.
func (s *Server) countRequest(r *request) error {
	if l := r.key.limiter; l != nil {
		return r.limited(l, l.take(s.cfg.Auth.sinceStart(r.began)))
	}
	return nil
}

func (r *request) limited(l *limiter, s state) error {
	h := r.response.Header()
	r.bytes = s.appendHeader(r.bytes[:0])
	r.limit[0] = r.keep(r.bytes)
	h["Ratelimit-Policy"], h["Ratelimit"] = l.policy, r.limit[:]
	if s.wait == 0 {
		return nil
	}
	r.retryAfter = seconds(s.wait)
	return apierr.E(errcode.RATE001)
}
