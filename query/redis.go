package query

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/redis/go-redis/v9"

	"github.com/ordergate/ordergate/internal/guard"
	"github.com/ordergate/ordergate/internal/view"
)

const (
	redisTimeout = 50 * time.Millisecond  // of one round trip
	lockFor      = 100 * time.Millisecond // a process that loads a key has this long before another one does
	lockWait     = 50 * time.Millisecond  // the other processes wait this long for its entry
	pollEvery    = 5 * time.Millisecond
)

// redisTier is the cache that all processes share. It may lose everything at any time.
type redisTier struct {
	client  *redis.Client
	prefix  string
	epoch   func() epoch
	guard   *guard.Guard
	master  atomic.Pointer[string] // the master's replication id; nil: to be asked for
	corrupt prometheus.Counter
}

func newRedisTier(c Config, now func() epoch) *redisTier {
	return &redisTier{
		client: c.Redis, prefix: c.RedisPrefix, epoch: now,
		guard: guard.New(guard.Config{Name: "redis", Concurrent: 1000, Timeout: redisTimeout, Failure: broken, Registry: c.Metrics}),
		corrupt: promauto.With(c.Metrics).NewCounter(prometheus.CounterOpts{
			Name: "ordergate_cache_corrupt_total", Help: "Entries in Redis whose checksum did not match. They are read from a database instead.",
		}),
	}
}

// setIfNewer compares the first 16 bytes of the values: an entry replaces those of a lower revision, and of its own revision those
// known at a lower position.
const setIfNewer = `
local old = redis.call('GETRANGE', KEYS[1], 0, 15)
if #old == 16 then
  local rev, at = struct.unpack('>I8I8', old)
  local newRev, newAt = struct.unpack('>I8I8', ARGV[1])
  if rev > newRev or rev == newRev and at > newAt then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1`

// fromRedis looks a key up in Redis. If it is not there, one process loads it and the others wait up to lockWait for its entry.
// nil without an error: the caller loads it. An error: Redis cannot be used now.
func (q *Queries) fromRedis(ctx context.Context, k key) (e *Entry, err error) {
	if q.redis == nil {
		return nil, nil
	}
	defer func(begin time.Time) { q.loads.WithLabelValues(tierRedis).Observe(time.Since(begin).Seconds()) }(time.Now())
	if e, err = q.redis.get(ctx, k); err != nil || e != nil {
		return e, err
	}
	locked, err := q.redis.lock(ctx, k)
	for wait := lockWait; e == nil && err == nil && !locked && wait > 0; wait -= pollEvery {
		pause(ctx, pollEvery)
		e, err = q.redis.get(ctx, k)
	}
	return e, err
}

// name is a key's name in Redis. It names the format, the epoch and the master: an entry in another format, of another timeline or
// generation, or of a master that may have lost writes since, is not found.
func (c *redisTier) name(ctx context.Context, of epoch, k key) (string, error) {
	master := c.master.Load()
	if master == nil {
		info, err := c.client.InfoMap(ctx, "replication").Result()
		if err != nil {
			return "", err
		}
		master = new(info["Replication"]["master_replid"])
		c.master.Store(master)
	}
	return fmt.Sprintf("%scache4:{%08x:%d:%.8s:%s}", c.prefix, of.timeline, of.generation, *master, k), nil
}

func (c *redisTier) channel() string { return c.prefix + "changes" }

// get returns nil if the key has no entry, or one that is corrupt.
func (c *redisTier) get(ctx context.Context, k key) (e *Entry, err error) {
	now := c.epoch()
	err = c.guard.Do(ctx, func(ctx context.Context) error {
		name, err := c.name(ctx, now, k)
		if err != nil {
			return err
		}
		b, err := c.client.Get(ctx, name).Bytes()
		if errors.Is(err, redis.Nil) {
			return nil
		}
		if e = decode(name, b); e == nil && err == nil {
			c.corrupt.Inc()
		}
		return err
	})
	if err != nil || e == nil {
		return nil, err
	}
	e.of, e.tier, e.Key, e.Timeline, e.Generation = k, tierRedis, k.name(), now.timeline, now.generation
	return e, nil
}

func (c *redisTier) lock(ctx context.Context, k key) (locked bool, err error) {
	err = c.guard.Do(ctx, func(ctx context.Context) error {
		name, err := c.name(ctx, c.epoch(), k)
		if err == nil {
			locked, err = c.client.SetNX(ctx, name+":lock", "", lockFor).Result()
		}
		return err
	})
	return locked, err
}

// put stores the entries where nothing newer is. publish tells every process of them.
func (c *redisTier) put(ctx context.Context, publish bool, entries ...*Entry) error {
	return c.guard.Do(ctx, func(ctx context.Context) error {
		pipe := c.client.Pipeline()
		for _, e := range entries {
			name, err := c.name(ctx, e.epoch(), e.of)
			if err != nil {
				return err
			}
			ttl := redisFor
			if e.Rev == 0 {
				ttl = missFor
			}
			pipe.Eval(ctx, setIfNewer, []string{name}, e.encoded(name), ttl.Milliseconds())
			if publish {
				pipe.Publish(ctx, c.channel(), fmt.Sprintf("%d %s", e.Rev, e.of))
			}
		}
		_, err := pipe.Exec(ctx)
		return err
	})
}

const (
	sumAt  = 16            // rev and known_at stand before the checksum, for setIfNewer
	restAt = sumAt + 128/8 // loaded_at in ms; token, ETag and body, a line each
)

// checksum covers an entry and the name that it stands under, so that an entry of another key does not match either.
func checksum(name string, b []byte) []byte {
	sum := sha256.Sum256(slices.Concat([]byte(name), b[:sumAt], b[restAt:]))
	return sum[:restAt-sumAt]
}

// encoded is the entry as it stands under a name in Redis.
func (e *Entry) encoded(name string) []byte {
	b := make([]byte, restAt, restAt+10+len(e.Token)+len(e.Body.ETag)+len(e.Body.Bytes))
	binary.BigEndian.PutUint64(b, uint64(e.Rev))
	binary.BigEndian.PutUint64(b[8:], e.KnownAt)
	b = binary.BigEndian.AppendUint64(b, uint64(e.LoadedAt.UnixMilli()))
	b = append(b, e.Token+"\n"+e.Body.ETag+"\n"...)
	b = append(b, e.Body.Bytes...)
	copy(b[sumAt:], checksum(name, b))
	return b
}

// decode is the inverse of encoded, under the same name. nil: the checksum does not match.
func decode(name string, b []byte) *Entry {
	if len(b) < restAt || string(b[sumAt:restAt]) != string(checksum(name, b)) {
		return nil
	}
	lines := bytes.SplitN(b[restAt+8:], []byte("\n"), 3)
	return &Entry{
		Rev: int64(binary.BigEndian.Uint64(b)), KnownAt: binary.BigEndian.Uint64(b[8:]),
		LoadedAt: time.UnixMilli(int64(binary.BigEndian.Uint64(b[restAt:]))),
		Token:    string(lines[0]), Body: view.Body{ETag: string(lines[1]), Bytes: lines[2]},
	}
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
