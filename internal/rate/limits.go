package rate

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
)

const (
	pace      = 10 * time.Millisecond // from one round of draws to the next
	hurried   = time.Millisecond      // likewise, if a key has used up a quarter of its block
	timeout   = 50 * time.Millisecond // of one round trip; a Redis that takes longer is away
	joinFor   = time.Second           // to connect, which takes up to 14 round trips, and to be counted
	batch     = 500                   // keys of one round trip: some ms of Redis's time
	beatEvery = time.Second           // a process says that it is there, and finds out whether Redis is back
	goneAfter = 5 * time.Second       // a process that says nothing counts no longer
)

// Limits shares the buckets of keys among all processes of one Redis, which has a bucket for each key that is not full. No request waits for it: Run
// draws in the background what this process gave out, which the shared bucket then lacks. The reply has what the others did.
//
// In a time d all n processes together give a key no more than its limit, what comes back in d and in the time of one round of draws (some ms, 110 ms
// at most for each 500 keys, and up to 100 ms more once a second), and one block for each process: what comes back in 100 ms, and at least one token. While a process believes that more is left than 2n
// blocks, its block is the 2n-th part of that, but for a key for which Redis has not replied for 100 ms no more than 16 tokens. It is wrong in that
// belief at most until Redis replies, and the shared bucket then owes what was too much: nobody gets a token before that has come back. If n is 1, a
// block is all that is left. A process that is killed takes a block with it that was not drawn, and counts among n for up to 10 s.
//
// Until Redis's first reply for a bucket a process gives out no more than its share, the n-th part of the limit and at least one token, and what comes
// back meanwhile. So a process that starts adds to the above what it gives out before that reply.
//
// While Redis is away each process keeps to its share: a bucket of the n-th part of the limit, which gets back the n-th part of the rate. n is the
// number of processes that were last known to share Redis, in the last 5 s at most; 1 if Redis was never there. A Redis that comes back empty learns
// when each bucket is full, by the processes that use it.
type Limits struct {
	cfg   Config
	start time.Time
	id    string // of this process

	share   atomic.Int64           // how many processes share the limits; negative while Redis is away
	queue   atomic.Pointer[Bucket] // the buckets that are to be drawn from, the last first
	joined  chan struct{}
	filled  chan struct{}
	pressed chan struct{}

	most   time.Time // when share was last confirmed. This, logged and fails belong to Run
	logged bool      // the log has that the limits are not shared
	fails  int       // in a row, of Redis

	drawn, failed prometheus.Counter
	refusals      struct{ empty, block, share prometheus.Counter }
}

// Config has the dependencies of Limits.
type Config struct {
	Redis    Redis  // its own: nobody else keeps its connections busy
	Prefix   string // of every key in Redis
	Now      func() time.Time
	Log      *zap.Logger
	Registry prometheus.Registerer
}

// Redis is a client. Once Connect has returned, its pipelines take a round trip, and not those of a new connection as well. The driver has
// connections of their own for them, so that Limits sends nothing without one.
type Redis interface {
	redis.UniversalClient
	Connect(ctx context.Context) error // to each node that has keys
}

// New returns Limits that count for this process alone until Run knows of others.
func New(c Config) *Limits {
	l := &Limits{cfg: c, start: c.Now(), id: uuid.NewString(), joined: make(chan struct{}), filled: make(chan struct{}, 1), pressed: make(chan struct{}, 1)}
	l.share.Store(-1)
	blocks := promauto.With(c.Registry).NewCounterVec(prometheus.CounterOpts{
		Name: "ordergate_limit_blocks_total", Help: "What keys used, as it was counted in Redis: one of a key and some ms. failed: Redis did not reply. While it is known to be away none is sent: ordergate_limit_processes is negative then.",
	}, []string{"result"})
	l.drawn, l.failed = blocks.WithLabelValues("counted"), blocks.WithLabelValues("failed")
	refusals := promauto.With(c.Registry).NewCounterVec(prometheus.CounterOpts{
		Name: "ordergate_limit_refusals_total", Help: "Requests beyond the limit of their key: the bucket was empty, the process had no block left and Redis had not replied, or Redis was away and the process's share was used up.",
	}, []string{"reason"})
	l.refusals.empty, l.refusals.block, l.refusals.share = refusals.WithLabelValues("empty"), refusals.WithLabelValues("block"), refusals.WithLabelValues("share")
	promauto.With(c.Registry).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ordergate_limit_processes", Help: "Processes that share the limits of keys. Negative: Redis is away, and each keeps to its share.",
	}, func() float64 { return float64(l.share.Load()) })
	return l
}

// Start is the time from which the clock of the buckets counts.
func (l *Limits) Start() time.Time { return l.start }

// Bucket returns this process's part of a key's bucket, full as far as it knows; nil if there is no limit. Another limit is another bucket.
func (l *Limits) Bucket(key string, limit Limit) *Bucket {
	b := NewBucket(limit)
	if b != nil && l != nil {
		b.limits, b.name = l, fmt.Sprintf("%srate:{%s:%d:%d}", l.cfg.Prefix, key, limit.Requests, Seconds(limit.Window))
		b.answered.Store(never)
	}
	return b
}

// push puts a bucket in the queue.
func (l *Limits) push(b *Bucket) {
	for {
		first := l.queue.Load()
		b.next = first
		if l.queue.CompareAndSwap(first, b) {
			break
		}
	}
	signal(l.filled)
}

// wakeSoon ends the pause before the next draws.
func (l *Limits) wakeSoon() { signal(l.pressed) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is signalled
	}
}

// Joined is closed when Run has found out how many processes share the limits, or that Redis is away: after a second at most.
func (l *Limits) Joined() <-chan struct{} { return l.joined }

// Shared tells whether the limits are shared: not while Redis is away or takes longer than 50 ms.
func (l *Limits) Shared() bool { return l.share.Load() > 0 }

// Run shares the buckets until ctx ends. It alone talks to Redis.
func (l *Limits) Run(ctx context.Context) {
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	defer l.leave(ctx)
	l.beat(ctx)
	close(l.joined)
	for {
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
			l.beat(ctx)
			continue
		case <-l.filled:
		}
		begun := time.Now()
		l.drawAll(ctx)
		wait(ctx, hurried-time.Since(begun), nil)
		wait(ctx, pace-time.Since(begun), l.pressed)
	}
}

func wait(ctx context.Context, d time.Duration, less <-chan struct{}) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-less:
	case <-t.C:
	}
}

// count is a sorted set of the processes, by the time in ms at which each was last there.
var count = redis.NewScript(`
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])`)

func (l *Limits) processes() string { return l.cfg.Prefix + "processes" }

// beat says that this process is there, and counts all that are. A lower count holds once it was lower for a while: a Redis that came back empty
// knows of all processes within that time.
func (l *Limits) beat(ctx context.Context) {
	n, err := l.join(ctx)
	if err != nil {
		l.away(ctx, err)
		return
	}
	l.fails, n = 0, max(n, 1)
	before, now := l.share.Load(), l.cfg.Now()
	if known := max(before, -before); n >= known || now.Sub(l.most) > goneAfter {
		l.most = now
	} else {
		n = known
	}
	if l.logged {
		l.logged = false
		l.cfg.Log.Info("the limits of keys are shared", zap.Int64("processes", n))
	}
	l.share.Store(n)
}

// join has this process counted. While Redis is away it connects first, which takes several round trips: the time of one would never be enough for a
// Redis that is far. No draw waits meanwhile. It tries again, because a process that starts waits for a processor.
func (l *Limits) join(ctx context.Context) (n int64, err error) {
	if l.share.Load() > 0 {
		return l.countAll(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, joinFor)
	defer cancel()
	for range 4 {
		if err = l.cfg.Redis.Connect(ctx); err == nil {
			n, err = l.countAll(ctx)
		}
		if err == nil {
			break
		}
	}
	return n, err
}

// countAll takes a round trip, and another one if Redis does not have the script.
func (l *Limits) countAll(ctx context.Context) (n int64, err error) {
	for _, run := range []func(context.Context, redis.Scripter, []string, ...any) *redis.Cmd{count.EvalSha, count.Eval} {
		limited, cancel := context.WithTimeout(ctx, timeout)
		pipe := l.cfg.Redis.Pipeline()
		counted := run(limited, pipe, []string{l.processes()}, l.id, goneAfter.Milliseconds())
		_, _ = pipe.Exec(limited) // the command has its error
		n, err = counted.Int64()
		if cancel(); !redis.HasErrorPrefix(err, "NOSCRIPT") {
			break
		}
	}
	return n, err
}

// leave says that this process is gone.
func (l *Limits) leave(ctx context.Context) {
	if l.share.Load() > 0 {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
		defer cancel()
		pipe := l.cfg.Redis.Pipeline()
		pipe.ZRem(ctx, l.processes(), l.id)
		_, _ = pipe.Exec(ctx) // it is forgotten after a while anyway
	}
}

// away has this process keep to its share, after two failures in a row: a process that waited for a processor is no Redis that is away. The log has
// once that the limits are not shared.
func (l *Limits) away(ctx context.Context, err error) {
	l.fails++
	n := l.share.Load()
	if n > 0 && l.fails < 2 || ctx.Err() != nil {
		return
	}
	n = max(n, -n)
	l.share.Store(-n)
	if !l.logged {
		l.logged = true
		l.cfg.Log.Warn("the limits of keys are not shared: Redis is away, or takes longer than 50 ms", zap.Int64("processes", n), zap.Error(err))
	}
}

// drawScript takes what a process gave out from a shared bucket. That is kept as the time at which it will be full, in µs of Redis's clock, and is gone
// when it is. ARGV: the time that the tokens take to come back; how long ago the first of them was taken; when the bucket was last known to be
// full, for a Redis that forgot it; the time that a whole bucket takes. A time far ahead is of another clock.
const drawScript = `
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local whole = tonumber(ARGV[4])
local full = math.min(tonumber(redis.call('GET', KEYS[1]) or 0) or 0, now + 2 * whole)
full = math.max(full, math.min(tonumber(ARGV[3]), now + whole), now - ARGV[2]) + ARGV[1]
redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.max(1, math.ceil((full - now) / 1000)))
return {full, now}`

var draw = redis.NewScript(drawScript)

// bucketDraw is what is drawn from one bucket.
type bucketDraw struct {
	*Bucket
	used   int64 // when it was drawn
	tokens int64 // of them, those that were not counted
	args   []any
	cmd    *redis.Cmd
}

// drawAll draws from all buckets in the queue. What was sent once counts as counted, also if no answer came: it is never sent again. So a connection
// that breaks costs no key a token twice, and a draw that it lost is a block that the other processes do not know of.
func (l *Limits) drawAll(ctx context.Context) {
	var all []*bucketDraw
	for b := l.queue.Swap(nil); b != nil; {
		next := b.next
		b.next = nil
		all = append(all, &bucketDraw{Bucket: b})
		b = next
	}
	for len(all) > 0 {
		some := all[:min(batch, len(all))]
		all = all[len(some):]
		if l.share.Load() < 0 { // each comes again when it is used after Redis is back
			for _, t := range some {
				t.queued.Store(false)
				undrawn := t.Bucket.used.Load() - t.counted.Load() // before Redis was known to be away
				t.counted.Add(undrawn)
				t.offline.Add(undrawn)
				t.offlineCost.Add(undrawn)
			}
			continue
		}
		sent := l.cfg.Now().Sub(l.start)
		for _, t := range some {
			t.prepare(sent)
		}
		if err := l.draw(ctx, some); err != nil {
			l.away(ctx, err)
		} else {
			l.fails = 0
		}
		for _, t := range some {
			t.apply(sent)
		}
	}
}

// prepare notes what is to be drawn. Of what was given out while Redis was away, that is what has not come back since.
func (t *bucketDraw) prepare(now time.Duration) {
	age := max(0, min(now-t.since, blockOf))
	t.queued.Store(false) // what is used from now on is drawn the next time
	t.used = t.Bucket.used.Load()
	t.tokens = t.used - t.counted.Load()
	lacks := time.Duration(t.tokens) * t.interval
	if cost := t.offlineCost.Swap(0); cost > 0 {
		missing := time.Duration(t.base.Load()) + time.Duration(t.used)*t.interval - now - lacks
		notBack := float64(max(0, min(time.Duration(cost)*t.interval, missing))) / float64(cost) // of each of them
		lacks += time.Duration(notBack * float64(t.offline.Swap(0)))
	}
	micros := func(d time.Duration) int64 { return int64((d + time.Microsecond - 1) / time.Microsecond) }
	t.args = []any{micros(lacks), micros(age), t.known, micros(time.Duration(t.Requests) * t.interval)}
}

// sentOnce is a draw, which has taken effect perhaps when its connection breaks: the driver does not send it again.
type sentOnce struct{ *redis.Cmd }

// NoRetry implements redis.Cmder.
func (sentOnce) NoRetry() bool { return true }

// draw sends it. A Redis that does not have the script is sent its text.
func (l *Limits) draw(ctx context.Context, all []*bucketDraw) error {
	send := func(all []*bucketDraw, eval, script string) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		pipe := l.cfg.Redis.Pipeline() // a Cluster's goes to each node that has one of the keys
		for _, t := range all {
			t.cmd = redis.NewCmd(ctx, append([]any{eval, script, 1, t.name}, t.args...)...)
			_ = pipe.Process(ctx, sentOnce{t.cmd}) // it is sent by Exec
		}
		_, _ = pipe.Exec(ctx) // each command has its error
	}
	send(all, "evalsha", draw.Hash())
	var unknown []*bucketDraw
	for _, t := range all {
		if redis.HasErrorPrefix(t.cmd.Err(), "NOSCRIPT") {
			unknown = append(unknown, t)
		}
	}
	if len(unknown) > 0 {
		send(unknown, "eval", drawScript)
	}
	for _, t := range all {
		if err := t.cmd.Err(); err != nil {
			return err
		}
	}
	return nil
}

// apply takes over what Redis replied to what was sent then.
func (t *bucketDraw) apply(sent time.Duration) {
	answer, err := t.cmd.Int64Slice()
	t.counted.Add(t.tokens)
	if err != nil || len(answer) != 2 {
		t.limits.failed.Inc()
		return
	}
	t.limits.drawn.Inc()
	t.known = answer[0]
	t.base.Store(int64(sent) + (answer[0]-answer[1])*int64(time.Microsecond) - t.used*int64(t.interval))
	t.answered.Store(int64(sent))
}
