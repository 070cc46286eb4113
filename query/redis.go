package query

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/ordergate/ordergate/internal/guard"
)

const (
	redisTimeout = 50 * time.Millisecond  // of one round trip
	lockFor      = 100 * time.Millisecond // a process that loads a key has this long before another one does
	lockWait     = 50 * time.Millisecond  // how long the others wait for its entry
	pollEvery    = 5 * time.Millisecond
)

// shared is the tier that all processes share. It may lose everything at any time.
type shared struct {
	client   redis.UniversalClient
	prefix   string
	timeline func() uint32
	guard    *guard.Guard
	master   atomic.Pointer[string] // which Redis it is; nil: to be asked
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

// remembered looks a key up in Redis. Where nothing is, one process goes on to load it, and the others wait a moment for what it
// finds. nil without an error: load it. An error: Redis is of no use now.
func (r *Queries) remembered(ctx context.Context, k key) (e *Entry, err error) {
	if r.shared == nil {
		return nil, nil
	}
	defer func(begin time.Time) { r.loads.WithLabelValues(tierRedis).Observe(time.Since(begin).Seconds()) }(time.Now())
	if e, err = r.shared.get(ctx, k); err != nil || e != nil {
		return e, err
	}
	locked, err := r.shared.lock(ctx, k)
	for wait := lockWait; e == nil && err == nil && !locked && wait > 0; wait -= pollEvery {
		time.Sleep(pollEvery)
		e, err = r.shared.get(ctx, k)
	}
	return e, err
}

// name is a key of a generation: what stands there in another format, from another timeline, or from a master that may have lost
// writes since, is not found any more.
func (c *shared) name(ctx context.Context, timeline uint32, k key) (string, error) {
	master := c.master.Load()
	if master == nil {
		id := "cluster" // its masters change one by one
		if _, many := c.client.(*redis.ClusterClient); !many {
			info, err := c.client.Info(ctx, "replication").Result()
			if err != nil {
				return "", err
			}
			_, id, _ = strings.Cut(info, "master_replid:")
			id = id[:min(8, len(id))]
		}
		master = &id
		c.master.Store(master)
	}
	return fmt.Sprintf("%scache2:{%08x:%s:%s}", c.prefix, timeline, *master, k), nil
}

// do makes a call of at most redisTimeout. go-redis heeds a context's deadline, not its end, and the guard gives it none.
func (c *shared) do(ctx context.Context, call func(context.Context) error) error {
	return c.guard.Do(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, redisTimeout)
		defer cancel()
		return call(ctx)
	})
}

func (c *shared) channel() string { return c.prefix + "changes" }

func (c *shared) get(ctx context.Context, k key) (e *Entry, err error) {
	timeline := c.timeline()
	err = c.do(ctx, func(ctx context.Context) error {
		name, err := c.name(ctx, timeline, k)
		if err != nil {
			return err
		}
		b, err := c.client.Get(ctx, name).Bytes()
		if errors.Is(err, redis.Nil) {
			return nil
		}
		if err == nil {
			e = &Entry{of: k, Key: k.name(), Timeline: timeline}
			err = e.decode(b)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return e, nil
}

func (c *shared) lock(ctx context.Context, k key) (locked bool, err error) {
	err = c.do(ctx, func(ctx context.Context) error {
		name, err := c.name(ctx, c.timeline(), k)
		if err == nil {
			locked, err = c.client.SetNX(ctx, name+":lock", "", lockFor).Result()
		}
		return err
	})
	return locked, err
}

// put sets the entries where nothing newer is, and if they are news tells every process.
func (c *shared) put(ctx context.Context, news bool, entries ...*Entry) error {
	return c.do(ctx, func(ctx context.Context) error {
		pipe := c.client.Pipeline()
		for _, e := range entries {
			name, err := c.name(ctx, e.Timeline, e.of)
			if err != nil {
				return err
			}
			ttl := sharedFor
			if e.Missing {
				ttl = missFor
			}
			pipe.Eval(ctx, setIfNewer, []string{name}, e.encode(), ttl.Milliseconds())
			if news {
				pipe.Publish(ctx, c.channel(), fmt.Sprintf("%d %s", e.Rev, e.of))
			}
		}
		_, err := pipe.Exec(ctx)
		return err
	})
}

// encode writes rev, known_at, loaded_at in ms, whether it is missing, whose it is, token and ETag with their lengths, and the body.
// The timeline stands in the name.
func (e *Entry) encode() []byte {
	b := make([]byte, 0, 29+len(e.Token)+len(e.Body.ETag)+len(e.Body.Bytes))
	b = binary.BigEndian.AppendUint64(b, uint64(e.Rev))
	b = binary.BigEndian.AppendUint64(b, e.KnownAt)
	b = binary.BigEndian.AppendUint64(b, uint64(e.LoadedAt.UnixMilli()))
	b = append(b, 0)
	if e.Missing {
		b[24] = 1
	}
	for _, text := range []string{e.of.String(), e.Token, e.Body.ETag} {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(text))), text...)
	}
	return append(b, e.Body.Bytes...)
}

// decode reads what encode wrote of this key; what it did not write makes it panic, which the guard turns into an error.
func (e *Entry) decode(b []byte) error {
	text := func() string {
		n := 2 + int(binary.BigEndian.Uint16(b))
		s := string(b[2:n])
		b = b[n:]
		return s
	}
	e.Rev, e.KnownAt = int64(binary.BigEndian.Uint64(b)), binary.BigEndian.Uint64(b[8:])
	e.LoadedAt, e.Missing = time.UnixMilli(int64(binary.BigEndian.Uint64(b[16:]))), b[24] == 1
	b = b[25:]
	if whose := text(); whose != e.of.String() {
		return fmt.Errorf("query: the entry of %s in Redis is that of %q", e.of, whose)
	}
	e.Token, e.Body.ETag, e.Body.Bytes = text(), text(), b
	return nil
}
