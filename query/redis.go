package query

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/redis/go-redis/v9"

	"github.com/ordergate/ordergate/internal/guard"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/view"
)

const (
	redisTimeout  = 50 * time.Millisecond  // of one round trip
	redisQueueFor = 50 * time.Millisecond  // a command waits this long for one of our connections, then the databases are asked
	lockFor       = 100 * time.Millisecond // a process that loads a key has this long before another one does
	lockWait      = 50 * time.Millisecond  // the other processes wait this long for its entry
	pollEvery     = 5 * time.Millisecond
)

// RedisSchemes are the URLs that OpenRedis takes: of a single Redis, of a Cluster, and of Sentinels.
var RedisSchemes = []string{"redis", "rediss", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel"}

// redisConnections is the greatest number of connections to one node, without ?pool_size=, and that of commands at once. Those of a cold client
// are made within the commands' time: on two cores 32 always were, of 128 often none, so that a herd opened the breaker of a healthy Redis.
const redisConnections = 32

// clusterReload is the age from which a Cluster's slots are asked for again: a dead master tells nobody of its successor.
const clusterReload = time.Second

// Redis is the client of a single Redis, of the master that Sentinels name, or of a Cluster. It knows the data that a name in Redis is
// of: restarted with old data, or replaced by its replica, a master has another replication id.
type Redis struct {
	redis.UniversalClient
	cluster     bool
	sentinel    bool                   // Sentinels are asked, too, by connections of the same kind
	connections uint                   // as many commands run at once: a wait for a connection never counts as Redis's failure
	timeout     time.Duration          // redisTimeout; tests on a busy machine have patience
	master      atomic.Pointer[string] // the master's replication id; nil: not known. Another id is another pointer
}

var (
	errNotMaster   = errors.New("redis: not a master")
	errOtherMaster = errors.New("redis: the master has changed meanwhile")
)

// OtherKindError is of a URL whose scheme is for another kind of Redis than the server that it names. It wraps nothing: the driver unwraps the
// errors of new connections.
type OtherKindError string

func (e OtherKindError) Error() string { return "ORDERGATE_REDIS_URL names " + string(e) }

// OpenRedis makes a client, which connects when it is used. The schemes with a plus take several nodes, ?addr=host:port&addr=host:port, and
// Sentinels need ?master_name=.
func OpenRedis(address string) (*Redis, error) {
	open, err := parseRedis(address)
	if err != nil {
		return nil, err
	}
	return open(), nil
}

// CheckRedis returns the error that OpenRedis would return. It names the part or the parameter that is wrong, and repeats no value of the URL.
func CheckRedis(address string) error {
	_, err := parseRedis(address)
	return err
}

func parseRedis(address string) (open func() *Redis, err error) {
	scheme, rest, _ := strings.Cut(address, "://")
	if !slices.Contains(RedisSchemes, scheme) {
		return nil, fmt.Errorf("the scheme must be one of %s", strings.Join(RedisSchemes, ", "))
	}
	u, err := url.Parse(address)
	if err != nil { // its text has the URL
		return nil, errors.New("it is not a URL: a port is a number, and other characters than letters, digits and -._~ in the credentials are percent-encoded")
	}
	scheme, kind, _ := strings.Cut(scheme, "+")
	if err := checkRedisURL(u, kind); err != nil {
		return nil, err
	}
	r := &Redis{cluster: kind == "cluster", timeout: redisTimeout}
	onConnect := func(ctx context.Context, c *redis.Conn) error { return r.identify(ctx, c) }
	size := 0
	switch address = scheme + "://" + rest; kind {
	case "":
		o, err := redis.ParseURL(address)
		if err != nil {
			return nil, wrongParameter(u, scheme, func(a string) error { _, err := redis.ParseURL(a); return err })
		}
		size = o.PoolSize
		o.ContextTimeoutEnabled, o.OnConnect, o.PoolSize = true, onConnect, cmp.Or(size, redisConnections)
		r.connections = uint(o.PoolSize)
		open = func() *Redis { r.UniversalClient = redis.NewClient(o); return r }
	case "cluster":
		o, err := redis.ParseClusterURL(address)
		if err != nil {
			return nil, wrongParameter(u, scheme, func(a string) error { _, err := redis.ParseClusterURL(a); return err })
		}
		size = o.PoolSize
		o.ContextTimeoutEnabled, o.ClusterStateReloadInterval, o.PoolSize = true, clusterReload, cmp.Or(size, redisConnections)
		o.OnConnect, r.connections = r.checkNode, uint(o.PoolSize)
		r.master.Store(new("cluster")) // each of its masters has an id of its own, and another node may have a key's slot tomorrow
		open = func() *Redis { r.UniversalClient = redis.NewClusterClient(o); return r }
	case "sentinel":
		o, err := redis.ParseFailoverURL(address)
		if err != nil {
			return nil, wrongParameter(u, scheme, func(a string) error { _, err := redis.ParseFailoverURL(a); return err })
		}
		size = o.PoolSize
		o.ContextTimeoutEnabled, o.OnConnect, o.PoolSize = true, onConnect, cmp.Or(size, redisConnections)
		r.sentinel, r.connections = true, uint(o.PoolSize)
		open = func() *Redis { r.UniversalClient = redis.NewFailoverClient(o); return r }
	}
	if size < 0 { // the driver would panic
		return nil, errors.New("the parameter pool_size must be greater than 0")
	}
	return open, nil
}

// ofReplicas are the driver's parameters that would read replicas, which may be behind.
var ofReplicas = []string{"read_only", "replica_only", "route_by_latency", "route_randomly"}

// checkRedisURL checks what the driver does not, or not with a message that can be shown.
func checkRedisURL(u *url.URL, kind string) error {
	parameters, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return errors.New("its parameters are not of the form name=value&name=value")
	}
	if port := u.Port(); port != "" && !isPort(port) {
		return errors.New("its port is not a number from 1 to 65535")
	}
	for _, addr := range parameters["addr"] {
		if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || !isPort(port) {
			return errors.New("each parameter addr must be host:port, with a port from 1 to 65535")
		}
	}
	switch database := strings.Trim(u.Path, "/"); {
	case kind == "cluster" && database != "" && database != "0":
		return errors.New("a Cluster has the database 0 alone, and its URL names another one")
	case database != "":
		if n, err := strconv.Atoi(database); err != nil || n < 0 {
			return errors.New("its path must be the number of a database, such as /0")
		}
	}
	for _, name := range ofReplicas {
		if on := parameters.Get(name); on != "" && on != "0" && on != "false" {
			return fmt.Errorf("the parameter %s is refused: replicas may be behind", name)
		}
	}
	if kind == "sentinel" && parameters.Get("master_name") == "" {
		return errors.New("the parameter master_name is missing, which Sentinels need")
	}
	return nil
}

func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0
}

// wrongParameter names the parameter that the driver refuses. A name that it does not know is not repeated: it may be a piece of a password
// with a ? in it.
func wrongParameter(u *url.URL, scheme string, parse func(address string) error) error {
	parameters := u.Query()
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		err := parse(scheme + "://host?" + url.Values{name: parameters[name]}.Encode())
		switch known := slices.Contains([]string{"addr", "master_name", "db"}, name) || slices.Contains(ofReplicas, name); {
		case err == nil:
		case !strings.Contains(err.Error(), "unexpected option"):
			return fmt.Errorf("the parameter %s does not have a value of its type", name)
		case known:
			return fmt.Errorf("the parameter %s is not one of this scheme", name)
		}
	}
	return errors.New("it has a parameter that is not known")
}

// identify reads the id of the master behind a connection. The driver calls it for every new connection, before that is used, and a
// restart or a failover ends all connections: no command reaches a master whose id is not known. Of two connections that are made at the
// same time the id that was read later stays. A replica, which an old master becomes after a failover, is refused.
func (r *Redis) identify(ctx context.Context, c redis.Cmdable) error {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	for {
		known := r.master.Load()
		mode, replication, err := r.info(ctx, c)
		if err != nil {
			return err
		}
		role, id := replication["role"], replication["master_replid"]
		switch {
		case mode == "sentinel" && r.sentinel: // it has no data
			return nil
		case mode == "sentinel":
			return OtherKindError("a Sentinel: use redis+sentinel://")
		case mode == "cluster":
			return OtherKindError("a node of a Cluster: use redis+cluster://")
		case role != "master":
			r.master.CompareAndSwap(known, nil)
			return errNotMaster
		case known != nil && *known == id, r.master.CompareAndSwap(known, &id):
			return nil
		}
	}
}

// info asks a server which kind of Redis it is (redis_mode), and for its replication.
func (r *Redis) info(ctx context.Context, c redis.Cmdable) (mode string, replication map[string]string, err error) {
	var server, of *redis.InfoCmd
	_, err = c.Pipelined(ctx, func(p redis.Pipeliner) error { // a server before 7.0 takes one section at a time
		server, of = p.InfoMap(ctx, "server"), p.InfoMap(ctx, "replication")
		return nil
	})
	if err != nil {
		return "", nil, err
	}
	return server.Item("Server", "redis_mode"), of.Val()["Replication"], nil
}

// checkNode refuses a connection to a server that is no node of a Cluster. The driver calls it for every new connection of a Cluster's.
func (r *Redis) checkNode(ctx context.Context, c *redis.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	mode, _, err := r.info(ctx, c)
	if err == nil && mode != "cluster" {
		err = OtherKindError("no Cluster: use redis:// or redis+sentinel://")
	}
	return err
}

// Connect makes a connection to each node that has keys, unless there is one that is idle: the next pipeline takes a round trip alone. The driver's
// pipelines have connections of their own.
func (r *Redis) Connect(ctx context.Context) error {
	connect := func(ctx context.Context, node redis.Cmdable) error {
		_, err := node.Pipelined(ctx, func(p redis.Pipeliner) error { p.Ping(ctx); return nil })
		return err
	}
	if nodes, ok := r.UniversalClient.(*redis.ClusterClient); ok {
		return nodes.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error { return connect(ctx, node) })
	}
	return connect(ctx, r)
}

// Check proves that Redis answers with data: it reads a key that nobody writes. OtherKindError: the URL is of another kind of Redis.
func (r *Redis) Check(ctx context.Context, prefix string) error {
	if err := r.Get(ctx, prefix+"check").Err(); !errors.Is(err, redis.Nil) {
		return err
	}
	return nil
}

// named returns the id of the master that names in Redis are of now.
func (r *Redis) named(ctx context.Context) (*string, error) {
	if r.master.Load() == nil {
		if err := r.identify(ctx, r); err != nil {
			return nil, err
		}
	}
	if master := r.master.Load(); master != nil {
		return master, nil
	}
	return nil, errNotMaster
}

// redisTier is the cache that all processes share. It may lose everything at any time.
type redisTier struct {
	client  *Redis
	prefix  string
	epoch   func() epoch
	guard   *guard.Guard
	corrupt prometheus.Counter
}

func newRedisTier(c Config, now func() epoch) *redisTier {
	return &redisTier{
		client: c.Redis, prefix: c.RedisPrefix, epoch: now,
		guard: guard.New(guard.Config{
			Name: "redis", Concurrent: c.Redis.connections, Wait: redisQueueFor, Timeout: c.Redis.timeout, Failure: broken, Registry: c.Metrics,
			Uncounted: func(err error) bool { return errors.Is(err, errOtherMaster) },
		}),
		corrupt: promauto.With(c.Metrics).NewCounter(prometheus.CounterOpts{
			Name: "ordergate_cache_corrupt_total", Help: "Entries in Redis whose checksum did not match. They are read from a database instead.",
		}),
	}
}

// setIfNewer compares the first 16 bytes of the values: an entry replaces those of a lower revision, and of its own revision those
// known at a lower position. It names one key, so that a Cluster may have its keys anywhere.
var setIfNewer = redis.NewScript(`
local old = redis.call('GETRANGE', KEYS[1], 0, 15)
if #old == 16 then
  local rev, at = struct.unpack('>I8I8', old)
  local newRev, newAt = struct.unpack('>I8I8', ARGV[1])
  if rev > newRev or rev == newRev and at > newAt then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1`)

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
	for end := time.Now().Add(lockWait); e == nil && err == nil && !locked && time.Now().Before(end); {
		pause(ctx, pollEvery)
		e, err = q.redis.get(ctx, k)
	}
	return e, err
}

// do calls f with the master that names are of. If that was replaced meanwhile, f may have found an entry of before, or stored one under
// a name that nobody asks for: the error is errOtherMaster.
func (c *redisTier) do(ctx context.Context, f func(ctx context.Context, master string) error) error {
	return c.guard.Do(ctx, func(ctx context.Context) error {
		master, err := c.client.named(ctx)
		if err != nil {
			return err
		}
		if err = f(ctx, *master); err == nil && c.client.master.Load() != master {
			err = errOtherMaster
		}
		return err
	})
}

// refresh asks for the master's id again. It also changes without a restart: when a first replica comes, and long after the last one
// left. Processes with different ids would not see each other's entries.
func (c *redisTier) refresh(ctx context.Context) error {
	return c.guard.Do(ctx, func(ctx context.Context) error { return c.client.identify(ctx, c.client) })
}

// name is a key's name in Redis. It names the format, the epoch and the master: an entry in another format, of another timeline or
// generation, or of a master that may have lost writes since, is not found.
func (c *redisTier) name(master string, of epoch, k key) string {
	b := append(append(make([]byte, 0, 192), c.prefix...), "cache4:{"...)
	b = append(hex.AppendEncode(b, binary.BigEndian.AppendUint32(nil, of.timeline)), ':')
	b = append(strconv.AppendInt(b, of.generation, 10), ':')
	b = append(append(b, master[:min(8, len(master))]...), ':')
	return string(append(k.append(b), '}'))
}

func (c *redisTier) channel() string { return c.prefix + "changes" }

// get returns nil if the key has no entry, or one that is corrupt.
func (c *redisTier) get(ctx context.Context, k key) (e *Entry, err error) {
	now := c.epoch()
	err = c.do(ctx, func(ctx context.Context, master string) error {
		name := c.name(master, now, k)
		b, err := c.client.Get(ctx, name).Bytes()
		if errors.Is(err, redis.Nil) {
			return nil
		}
		if err == nil {
			e = c.entry(k, now, name, b)
		}
		return err
	})
	if err != nil { // what was found may be of another master
		return nil, err
	}
	return e, nil
}

// getAll is get of several keys in one round trip to each node that has some of them.
func (c *redisTier) getAll(ctx context.Context, keys []key) (entries []*Entry, err error) {
	now := c.epoch()
	err = c.do(ctx, func(ctx context.Context, master string) error {
		names := make([]string, len(keys))
		for i, k := range keys {
			names[i] = c.name(master, now, k)
		}
		pipe := c.client.Pipeline() // MGET takes no keys of different nodes
		got := pg.Column(names, func(name string) *redis.StringCmd { return pipe.Get(ctx, name) })
		_, _ = pipe.Exec(ctx) // each has its error
		entries = make([]*Entry, len(keys))
		for i, value := range got {
			b, err := value.Bytes()
			switch {
			case errors.Is(err, redis.Nil):
			case err != nil:
				return err
			default:
				entries[i] = c.entry(keys[i], now, names[i], b)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return entries, nil
}

// entry is what Redis has of a key; nil if it is corrupt.
func (c *redisTier) entry(k key, of epoch, name string, b []byte) *Entry {
	e := decode(name, b)
	if e == nil {
		c.corrupt.Inc()
		return nil
	}
	e.of, e.tier, e.Key, e.Timeline, e.Generation = k, tierRedis, k.tokenName(), of.timeline, of.generation
	return e
}

func (c *redisTier) lock(ctx context.Context, k key) (locked bool, err error) {
	err = c.do(ctx, func(ctx context.Context, master string) (err error) {
		locked, err = c.client.SetNX(ctx, c.name(master, c.epoch(), k)+":lock", "", lockFor).Result()
		return err
	})
	return locked, err
}

// put stores the entries where nothing newer is. publish tells every process of them. Repeating it is safe: a Redis that does not have the
// script is sent all again with its text.
func (c *redisTier) put(ctx context.Context, publish bool, entries ...*Entry) error {
	return c.do(ctx, func(ctx context.Context, master string) error {
		send := func(eval func(context.Context, redis.Scripter, []string, ...any) *redis.Cmd) error {
			pipe := c.client.Pipeline() // a Cluster's goes to each node that has one of the keys
			for _, e := range entries {
				name, ttl := c.name(master, e.epoch(), e.of), redisFor
				if e.Rev == 0 {
					ttl = missFor
				}
				eval(ctx, pipe, []string{name}, e.encoded(name), spread(ttl).Milliseconds())
				if publish {
					pipe.Publish(ctx, c.channel(), fmt.Sprintf("%d %s", e.Rev, e.of))
				}
			}
			_, err := pipe.Exec(ctx)
			return err
		}
		err := send(setIfNewer.EvalSha)
		if redis.HasErrorPrefix(err, "NOSCRIPT") {
			err = send(setIfNewer.Eval)
		}
		return err
	})
}

const (
	sumAt  = 16            // rev and known_at stand before the checksum, for setIfNewer
	restAt = sumAt + 128/8 // loaded_at in ms; token, ETag and body, a line each
)

// checksum covers an entry and the name that it stands under, so that an entry of another key does not match either.
func checksum(name string, b []byte) []byte {
	h := sha256.New()
	_, _ = io.WriteString(h, name)
	h.Write(b[:sumAt])
	h.Write(b[restAt:])
	return h.Sum(nil)[:restAt-sumAt]
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
	token, rest, _ := bytes.Cut(b[restAt+8:], []byte("\n"))
	etag, body, _ := bytes.Cut(rest, []byte("\n"))
	return &Entry{
		Rev: int64(binary.BigEndian.Uint64(b)), KnownAt: binary.BigEndian.Uint64(b[8:]),
		LoadedAt: time.UnixMilli(int64(binary.BigEndian.Uint64(b[restAt:]))),
		Token:    string(token), Body: view.Body{ETag: string(etag), Bytes: body},
	}
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
