package query

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/zap"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

var (
	mine       = order.Owner{Account: 7, Mode: "test"}
	otherOwner = order.Owner{Account: 8, Mode: "test"}
	mineLive   = order.Owner{Account: 7, Mode: "live"}
	anyToken   = token.Token{}
)

type orderFilter = api.ListOrdersParams

// world is a database, its replicas and a Redis, and a clock that can be put forward.
type world struct {
	testing.TB
	*pgtest.DB
	otherReplica string // of own servers, if asked for
	ids          order.IDs
	signer       token.Signer
	forward      atomic.Int64
}

func setup(t testing.TB) *world {
	t.Helper()
	return &world{TB: t, DB: pgtest.New(t), ids: order.NewIDs([]byte("ids")), signer: token.NewSigner([]byte("tokens"))}
}

func (w *world) now() time.Time           { return time.Now().Add(time.Duration(w.forward.Load())) }
func (w *world) advance(by time.Duration) { w.forward.Add(int64(by)) }

func (w *world) pool(url string) *pgxpool.Pool {
	w.Helper()
	pool, err := pg.Connect(context.Background(), url, 24, pg.ReadSession, nil)
	w.must(err)
	w.Cleanup(pool.Close)
	return pool
}

// redisClient is a client with patience: on a busy machine a healthy Redis may take more than redisTimeout.
func (w *world) redisClient(url string) *Redis {
	w.Helper()
	client, err := OpenRedis(url)
	w.must(err)
	client.timeout = 10 * redisTimeout
	w.Cleanup(func() { _ = client.Close() })
	return client
}

// process is a Queries as another process would have it: with its own LRU, on the replica and the Redis.
func (w *world) process(change ...func(*Config)) *process {
	w.Helper()
	registry := prometheus.NewRegistry()
	c := Config{
		Primary: w.pool(w.PrimaryURL), Replicas: []*pgxpool.Pool{w.pool(w.ReplicaURL)}, Redis: w.redisClient(w.RedisURL), RedisPrefix: w.RedisPrefix,
		Signer: w.signer, Cursors: token.NewSigner([]byte("cursors")), IDs: w.ids, Timeline: func() uint32 { return 1 }, Generation: 1, LRUSize: 1000, Now: w.now, Metrics: registry,
		OnChange: func(string, int64) {}, Log: zap.NewNop(), Tracer: noop.NewTracerProvider().Tracer(""),
	}
	for _, f := range change {
		f(&c)
	}
	r, err := New(c)
	w.must(err)
	return &process{w, r, registry}
}

type process struct {
	w *world
	*Queries
	registry *prometheus.Registry
}

// impatient is a process that waits for Redis as long as the program does.
func impatient(c *Config) { c.Redis.timeout = redisTimeout }

func withoutRedis(c *Config)    { c.Redis = nil }
func withoutReplicas(c *Config) { c.Replicas = nil }

func (w *world) behind(c *Config) { c.Replicas = []*pgxpool.Pool{w.pool(w.LaggingURL(w.TB))} }

// loads is how often a tier below the LRU was asked.
func (p *process) loads(tier string) (n uint64) {
	families, err := p.registry.Gather()
	p.w.must(err)
	for _, f := range families {
		if f.GetName() == "ordergate_read_load_seconds" {
			for _, m := range f.GetMetric() {
				if label(m, "tier") == tier {
					n += m.GetHistogram().GetSampleCount()
				}
			}
		}
	}
	return n
}

// counter is the sum of a counter over its labels.
func (p *process) counter(name string) (n float64) {
	families, err := p.registry.Gather()
	p.w.must(err)
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

// breakerOpen tells whether the breaker of a remote part is not closed.
func (p *process) breakerOpen(part string) (open bool) {
	families, err := p.registry.Gather()
	p.w.must(err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			open = open || f.GetName() == "ordergate_breaker_open" && label(m, "part") == part && m.GetGauge().GetValue() == 1
		}
	}
	return open
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// subscribe runs Subscribe until the end of the test and returns once it listens, which begins with an empty LRU.
func (p *process) subscribe() {
	p.w.Helper()
	p.entry(key{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); p.Subscribe(ctx) }()
	p.w.Cleanup(func() { cancel(); <-done })
	p.w.until(func() bool { return p.lru.Len() == 0 })
}

// until polls with a deadline.
func (w *world) until(condition func() bool) {
	w.Helper()
	for deadline := time.Now().Add(10 * time.Second); !condition(); <-time.After(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.Fatal("it did not come to pass")
		}
	}
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// place inserts an order that was placed so long ago. Its metadata say which revision they are of.
func (w *world) place(owner order.Owner, ago time.Duration) order.ID {
	w.Helper()
	return w.insert(owner, w.ids.Mint(w.now().Add(-ago), owner.Account), "customer-1", order.StatusPending)
}

func (w *world) insert(owner order.Owner, id order.ID, customer string, status order.Status) order.ID {
	w.Helper()
	o := w.order(id, customer, 1)
	o.Status = status
	state, err := json.Marshal(o)
	w.must(err)
	_, err = w.Pool.Exec(context.Background(), `INSERT INTO orders (account, mode, id, shard, customer_ref, status, payment_status, version, rev, head_hash, state, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, 'none', 1, 1, '\x01', $7, now(), now())`, owner.Account, owner.Mode, id[:], id.Shard(), customer, status, state)
	w.must(err)
	return id
}

func (w *world) order(id order.ID, customer string, rev int64) *order.Order {
	return &order.Order{
		ID: id, Version: rev, HeadHash: []byte{1}, Status: order.StatusPending, PaymentStatus: order.PaymentStatusNone, Currency: "EUR", CustomerRef: customer,
		Lines:    []order.Line{{SKU: "LAMP", Name: "Lamp", Quantity: 2, UnitPrice: order.Money{Amount: 1999, Currency: "EUR"}}},
		Amounts:  order.Amounts{Total: order.Money{Amount: 3998, Currency: "EUR"}},
		Metadata: map[string]string{"rev": strconv.FormatInt(rev, 10)}, CreatedAt: rfc3339.New(id.Time()), UpdatedAt: rfc3339.New(id.Time()),
	}
}

// update makes the order's next revision as the command side does and returns what it publishes: the position read under the row's
// lock, the one after COMMIT.
func (w *world) update(owner order.Owner, id order.ID) (rev int64, knownAt, lsn uint64, body view.Body) {
	w.Helper()
	ctx := context.Background()
	position := `SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint`
	w.must(pgx.BeginFunc(ctx, w.Pool, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, `SELECT rev + 1 FROM orders WHERE account = $1 AND mode = $2 AND id = $3 FOR UPDATE`, owner.Account, owner.Mode, id[:]).Scan(&rev); err != nil {
			return err
		}
		o := w.order(id, "customer-1", rev)
		state, err := json.Marshal(o)
		if err != nil {
			return err
		}
		if body, err = view.OrderBody(o, nil); err != nil {
			return err
		}
		if err = tx.QueryRow(ctx, position).Scan(&knownAt); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE orders SET rev = $4, version = $4, state = $5 WHERE account = $1 AND mode = $2 AND id = $3`, owner.Account, owner.Mode, id[:], rev, state)
		return err
	}))
	w.must(w.Pool.QueryRow(ctx, position).Scan(&lsn))
	return rev, knownAt, lsn, body
}

// newEntry is the entry of an order.
func newEntry(p *process, owner order.Owner, id order.ID, rev int64, knownAt, lsn uint64, body view.Body) Entry {
	e, _ := p.NewEntry(Committed{Owner: owner, Key: id.Format(order.PrefixOrder), Rev: rev, KnownAt: knownAt, Timeline: 1, Generation: p.generation.Load(), LSN: lsn, Body: body})
	return e
}

// write updates an order and writes it through this process; the token is what the writer's client gets.
func (p *process) write(owner order.Owner, id order.ID) (rev int64, t token.Token) {
	p.w.Helper()
	rev, knownAt, lsn, body := p.w.update(owner, id)
	e := newEntry(p, owner, id, rev, knownAt, lsn, body)
	p.WriteThrough(context.Background(), e)
	t, ok := p.w.signer.Parse(e.Token)
	if !ok {
		p.w.Fatal("the token of a write cannot be read")
	}
	return rev, t
}

// synced returns when a replica has all that is committed.
func (w *world) synced(url string) {
	w.Helper()
	ctx := context.Background()
	var lsn string
	w.must(w.Pool.QueryRow(ctx, `SELECT pg_current_wal_flush_lsn()::text`).Scan(&lsn))
	c, err := pgx.Connect(ctx, url)
	w.must(err)
	defer c.Close(ctx)
	w.until(func() bool {
		var reached bool
		err := c.QueryRow(ctx, `SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn`, lsn).Scan(&reached)
		if !pg.Contention(err) { // the replay may cancel a statement that is in its way
			w.must(err)
		}
		return reached
	})
}

// GetOrder is that of Queries, now.
func (p *process) GetOrder(ctx context.Context, owner order.Owner, id order.ID, t token.Token) (View, error) {
	return p.Queries.GetOrder(ctx, owner, id, t, p.cfg.Now())
}

// GetProduct is that of Queries, now.
func (p *process) GetProduct(ctx context.Context, owner order.Owner, sku string, t token.Token) (View, error) {
	return p.Queries.GetProduct(ctx, owner, sku, t, p.cfg.Now())
}

// get reads an order and returns the revision that its body shows. A busy machine may refuse a few times, as it may a client.
func (p *process) get(owner order.Owner, id order.ID, t token.Token) (rev int64, tier string) {
	p.w.Helper()
	a, err := p.GetOrder(context.Background(), owner, id, t)
	for tries := 0; err != nil && tries < 5 && apierr.From(err).Retryable(); tries++ {
		a, err = p.GetOrder(context.Background(), owner, id, t)
	}
	p.w.must(err)
	return revOf(p.w, a), a.Tier
}

func revOf(t testing.TB, a View) int64 {
	t.Helper()
	var o api.Order
	if err := json.Unmarshal([]byte(a.Body), &o); err != nil {
		t.Fatalf("body %q: %v", a.Body, err)
	}
	rev, err := strconv.ParseInt(o.Metadata["rev"], 10, 64)
	if err != nil {
		t.Fatalf("body %s: %v", a.Body, err)
	}
	if want := fmt.Sprintf(`"%d-`, rev); a.ETag[:len(want)] != want {
		t.Errorf("revision %d has ETag %s", rev, a.ETag)
	}
	return rev
}

// tokenOf reads the token of a View.
func (w *world) tokenOf(a View) token.Token {
	w.Helper()
	t, ok := w.signer.Parse(a.Token)
	if !ok {
		w.Fatalf("token %q", a.Token)
	}
	return t
}

func wantCode(t testing.TB, err error, code errcode.Code) {
	t.Helper()
	if err == nil || apierr.From(err).Code != code {
		t.Errorf("error %v, want %s", err, code)
	}
}
