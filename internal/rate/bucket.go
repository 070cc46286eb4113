// Package rate keeps API keys within their limits: a token bucket for each key in this process and, with Redis, one for all processes, which
// counts in the background what they gave out.
package rate

import (
	"fmt"
	"strconv"
	"sync/atomic"
	"time"
)

// Limit is how many requests a key may make in a window of whole seconds. Without Requests there is no limit.
type Limit struct {
	Requests int64
	Window   time.Duration
}

const (
	blockOf     = 100 * time.Millisecond // a block has the tokens that come back in this time
	unconfirmed = 16                     // requests that a client may send at once, before Redis has replied anew for its key
	never       = -int64(time.Hour)      // Bucket.answered before Redis's first reply
)

// Bucket is the token bucket of a key: it holds as many tokens as the limit has requests, and gets one back in each interval. Safe for concurrent
// use, without a lock.
//
// The bucket is full at the time base + used × interval, on the clock of Take. So a token that is taken defers that by an interval, and what Redis
// replies changes base alone, whatever is taken meanwhile.
type Bucket struct {
	Limit
	policy   []string // the RateLimit-Policy header
	interval time.Duration
	block    int64 // tokens that this process may give out before Redis has counted them, whatever is left

	base    atomic.Int64 // in ns
	used    atomic.Int64 // tokens
	counted atomic.Int64 // the tokens of used that Redis has counted, or never will
	offline atomic.Int64 // tokens that were given out while Redis was away, until it counts them

	offlineCost atomic.Int64 // what they are of used and counted. One costs as many as there were processes

	limits   *Limits      // nil: the bucket is of this process alone
	queued   atomic.Bool  // it is in the queue of limits, or being drawn
	answered atomic.Int64 // when Redis last replied for it, in ns
	next     *Bucket      // in the queue
	since    time.Duration

	// The rest belongs to Limits.Run.
	name  string
	known int64 // when the shared bucket was last known to be full, in µs of Redis's clock
}

// NewBucket returns a full bucket of this process alone; nil if there is no limit.
func NewBucket(l Limit) *Bucket {
	if l.Requests <= 0 {
		return nil
	}
	interval := (l.Window + time.Duration(l.Requests) - 1) / time.Duration(l.Requests) // rounded up: never more than the limit
	return &Bucket{
		Limit: l, interval: interval, block: max(1, int64(blockOf/interval)),
		policy: []string{fmt.Sprintf(`"default";q=%d;w=%d`, l.Requests, Seconds(l.Window))},
	}
}

// Policy is the RateLimit-Policy header.
func (b *Bucket) Policy() []string { return b.policy }

// State is a bucket after a request, as far as this process knows.
type State struct {
	Left int64         // tokens
	Full time.Duration // until the bucket is full
	Wait time.Duration // until this process expects to have a token for a request that got none, the window at most; 0: it got one
}

// AppendHeader appends the RateLimit header: tokens that are left, seconds until all are back.
func (s State) AppendHeader(b []byte) []byte {
	b = append(b, `"default";r=`...)
	b = append(strconv.AppendInt(b, s.Left, 10), ";t="...)
	return strconv.AppendInt(b, Seconds(s.Full), 10)
}

// Seconds rounds up.
func Seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// UsedUp is the State of a request that met an empty bucket.
func (b *Bucket) UsedUp() State { return State{Full: b.Window, Wait: b.interval} }

// Take takes a token if there is one. now is the time on a clock that never goes back, that of Limits.Run. It waits for nobody. In a time d, however
// many callers are given no more than the limit, what comes back in d and, if the bucket is shared, what Limits allows beyond that.
func (b *Bucket) Take(now time.Duration) State {
	share, cost, capacity := int64(1), int64(1), b.interval*time.Duration(b.Requests)
	if b.limits != nil {
		if share = b.limits.share.Load(); share < 0 { // Redis is away: a token costs as many as there are processes
			cost = -share
			capacity = max(capacity, b.interval*time.Duration(cost))
		}
	}
	for {
		used, base := b.used.Load(), b.base.Load()
		full := time.Duration(base) + time.Duration(used)*b.interval - now
		if full < 0 { // it has been full since then
			if !b.base.CompareAndSwap(base, int64(now)-used*int64(b.interval)) {
				continue
			}
			full = 0
		}
		after := full + time.Duration(cost)*b.interval
		if after > capacity {
			b.refuse(now, share)
			return State{Full: full, Wait: min(after-capacity, b.Window)}
		}
		left, uncounted := int64((capacity-after)/b.interval)/cost, used+1-b.counted.Load()
		if share > 0 && !b.covers(now, share, left+uncounted, uncounted) {
			b.enqueue(now, true)
			b.limits.refusals.block.Inc()
			return State{Full: full, Wait: min(pace, b.interval)}
		}
		if !b.used.CompareAndSwap(used, used+cost) {
			continue
		}
		switch {
		case b.limits == nil:
		case share < 0:
			b.offline.Add(1)
			b.offlineCost.Add(cost)
			b.counted.Add(cost)
		default:
			b.enqueue(now, !b.covers(now, share, left+uncounted, 4*uncounted))
		}
		return State{Left: left, Full: after}
	}
}

// covers tells whether this process may give out so many tokens that Redis has not counted, while so many were left as far as it knows: a block or,
// if that is more, half of this process's share of what was left. Thus the processes together leave half of it to those that know less. Without
// a reply of Redis in the time of a block that is no more than unconfirmed. One process alone may give out all that is left. Before Redis's first
// reply a process does not know what the others gave out, and keeps to its share of the limit, at least one token.
func (b *Bucket) covers(now time.Duration, share, left, uncounted int64) bool {
	answered := b.answered.Load()
	if answered == never {
		out := b.Requests - left + uncounted // also what was drawn without a reply, and what was given out while Redis was away
		return out <= 1 || out*share <= b.Requests
	}
	return uncounted <= b.block || share == 1 || 2*uncounted*share <= left && (uncounted <= unconfirmed || now-time.Duration(answered) <= blockOf)
}

// refuse counts the refusal of an empty bucket. What emptied it is drawn from a Redis that is back.
func (b *Bucket) refuse(now time.Duration, share int64) {
	switch {
	case b.limits == nil:
	case share < -1:
		b.limits.refusals.share.Inc()
	default:
		b.limits.refusals.empty.Inc()
		if share > 0 && b.offline.Load() > 0 {
			b.enqueue(now, false)
		}
	}
}

// enqueue has what was given out drawn from Redis: soon if the caller says so, or if Redis has not replied for this bucket for a while.
func (b *Bucket) enqueue(now time.Duration, soon bool) {
	if !b.queued.Load() && b.queued.CompareAndSwap(false, true) {
		b.since = now
		b.limits.push(b)
		soon = soon || now-time.Duration(b.answered.Load()) > blockOf
	}
	if soon {
		b.limits.wakeSoon()
	}
}
