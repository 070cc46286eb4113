package bus

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/gen/busdb"
	"github.com/ordergate/ordergate/internal/failpoint"
	"github.com/ordergate/ordergate/internal/panics"
	"github.com/ordergate/ordergate/internal/pg"
)

const (
	shardCount   = 256                    // as TryLockShards has them
	shardClass   = 0x6f626f78             // class of the shards' advisory locks: "obox"
	pageSize     = 1000                   // rows; measured best
	publishLimit = 5 * time.Second        // of a page; below idle_in_transaction_session_timeout (10 s)
	pageLimit    = 9 * time.Second        // of its whole transaction
	minDelay     = 100 * time.Millisecond // of a retry, doubling
	maxDelay     = 2 * time.Second
	maxBackedOff = 500 // keys of a topic; with more of them backed off the whole topic is
)

// RelayConfig is what a Relay needs. Poll 0 means 25 ms.
type RelayConfig struct {
	Pool      *pgxpool.Pool
	Publisher message.Publisher
	Log       *zap.Logger
	Metrics   prometheus.Registerer
	Poll      time.Duration // the interval at which it looks for rows without being woken, for example those of other processes
}

// Relay publishes the outbox: each row at least once, the rows of a key in the order of their ids. Any number of relays may
// work on one database.
type Relay struct {
	cfg       RelayConfig
	wake      chan struct{}
	oldest    atomic.Pointer[time.Time] // when the oldest row was written, by our clock; nil: the outbox is empty
	backedOff map[topicKey]backoff
	published prometheus.Counter
	seconds   prometheus.Histogram
}

type topicKey struct{ topic, key string }

// backoff excludes a key that failed from the pages, so that it delays no other.
type backoff struct {
	delay time.Duration
	until time.Time
}

// NewRelay registers the metrics ordergate_outbox_published_total, _page_seconds and _age_seconds.
func NewRelay(c RelayConfig) *Relay {
	c.Poll = cmp.Or(c.Poll, 25*time.Millisecond)
	r := &Relay{cfg: c, wake: make(chan struct{}, 1), backedOff: map[topicKey]backoff{}}
	metrics := promauto.With(c.Metrics)
	r.published = metrics.NewCounter(prometheus.CounterOpts{
		Name: "ordergate_outbox_published_total", Help: "Messages published and deleted from the outbox.",
	})
	r.seconds = metrics.NewHistogram(prometheus.HistogramOpts{
		Name: "ordergate_outbox_page_seconds", Help: "Time to read, publish and delete a page.",
		Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
	})
	metrics.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ordergate_outbox_age_seconds", Help: "Age of the oldest message in the outbox, 0 if it is empty.",
	}, func() float64 { return r.Age().Seconds() })
	return r
}

// Wake makes the relay look at once. It never blocks; call it after COMMIT.
func (r *Relay) Wake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Age is the age of the outbox's oldest row when the relay last looked, and grows from there: 0 if it was empty.
func (r *Relay) Age() time.Duration {
	if oldest := r.oldest.Load(); oldest != nil {
		return time.Since(*oldest)
	}
	return 0
}

// Run publishes until ctx ends and returns after the page that it is publishing then (at most 9 s). Errors are logged and tried
// again after 100 ms to 2 s. It must not run twice at a time.
func (r *Relay) Run(ctx context.Context) {
	delay, woken := minDelay, false
	for ctx.Err() == nil {
		n, err := r.page(context.WithoutCancel(ctx), woken)
		if err != nil {
			r.cfg.Log.Error("outbox page failed", zap.Error(err), zap.Duration("delay", delay))
			sleep(ctx, delay, nil)
			delay = min(2*delay, maxDelay)
			continue
		}
		delay = minDelay
		woken = n == 0 && sleep(ctx, r.cfg.Poll, r.wake)
	}
}

// sleep returns after d, at the end of ctx, or with true at a signal of wake.
func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) (woken bool) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	case <-wake:
		return true
	}
	return false
}

// page publishes and deletes the oldest rows in one transaction, which holds the locks of their shards until its end. Unless
// woken it first checks, without a transaction, whether there are any.
func (r *Relay) page(ctx context.Context, woken bool) (published int, err error) {
	ctx, cancel := context.WithTimeout(ctx, pageLimit)
	defer cancel()
	start := time.Now()
	if !woken {
		if some, err := r.hasRows(ctx); err != nil || !some {
			return 0, err
		}
	}
	filter := r.pageFilter(start)
	err = pg.InPipeline(ctx, r.cfg.Pool, func(first *pgx.Batch) {
		first.Queue(busdb.TryLockShards, shardClass).QueryRow(func(row pgx.Row) error { return row.Scan(&filter.Shards) })
	}, func(tx pgx.Tx, ends *pg.Ends) (err error) {
		if len(filter.Shards) == 0 {
			return nil
		}
		filter.AllShards = len(filter.Shards) == shardCount
		rows, err := busdb.New(tx).OutboxPage(ctx, filter)
		if err != nil {
			return err
		}
		failpoint.Hit(failpoint.RelayPageSelected)
		failed := r.publish(ctx, rows)
		failpoint.Hit(failpoint.RelayPublished)
		r.updateBackoff(rows, failed)
		var done []int64
		for _, row := range rows {
			if !failed[row.MessageID.String()] {
				done = append(done, row.ID)
			}
		}
		if published = len(done); published == 0 {
			return nil
		}
		return busdb.New(&ends.Last).DeleteOutbox(ctx, done)
	})
	if err != nil || published == 0 {
		return 0, err
	}
	failpoint.Hit(failpoint.RelayCommitted)
	r.published.Add(float64(published))
	r.seconds.Observe(time.Since(start).Seconds())
	return published, nil
}

// hasRows tells whether the outbox has rows, and stores when the oldest was written.
func (r *Relay) hasRows(ctx context.Context) (bool, error) {
	age, err := busdb.New(r.cfg.Pool).OutboxAge(ctx)
	switch {
	case err == nil:
		oldest := time.Now().Add(-time.Duration(age * float64(time.Second)))
		r.oldest.Store(&oldest)
	case errors.Is(err, pgx.ErrNoRows):
		r.oldest.Store(nil)
		return false, nil
	}
	return err == nil, err
}

// publish returns the ids of the messages that were not published.
func (r *Relay) publish(ctx context.Context, rows []busdb.OutboxPageRow) map[string]bool {
	ctx, cancel := context.WithTimeout(ctx, publishLimit)
	defer cancel()
	byTopic := map[string][]*message.Message{}
	for _, row := range rows {
		m := message.NewMessageWithContext(ctx, row.MessageID.String(), message.Payload(row.Payload))
		m.Metadata.Set(MetaKey, row.Key)
		m.Metadata.Set(MetaTrace, row.TraceID)
		byTopic[row.Topic] = append(byTopic[row.Topic], m)
	}
	failed := map[string]bool{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for topic, msgs := range byTopic {
		wg.Go(func() {
			defer panics.Sync(r.cfg.Log)
			err := panics.Catch(func() error { return r.cfg.Publisher.Publish(topic, msgs...) })
			if err == nil {
				return
			}
			ids := pg.Column(msgs, func(m *message.Message) string { return m.UUID })
			if partial, ok := errors.AsType[*PublishError](err); ok {
				ids = partial.Failed
			}
			r.cfg.Log.Warn("not published", zap.String("topic", topic), zap.Int("failed", len(ids)), zap.Int("of", len(msgs)), zap.Error(err))
			mu.Lock()
			defer mu.Unlock()
			for _, id := range ids {
				failed[id] = true
			}
		})
	}
	wg.Wait()
	return failed
}

// pageFilter leaves out the keys that are backed off, and the topics of which many are: something is wrong with all of such a topic,
// and its rows must not fill the pages.
func (r *Relay) pageFilter(now time.Time) busdb.OutboxPageParams {
	filter := busdb.OutboxPageParams{PageSize: pageSize}
	keys := map[string]int{}
	for k, b := range r.backedOff {
		if now.Before(b.until) {
			filter.Topics = append(filter.Topics, k.topic)
			filter.Keys = append(filter.Keys, k.key)
			keys[k.topic]++
		} else if now.After(b.until.Add(time.Minute)) { // another instance has published it
			delete(r.backedOff, k)
		}
	}
	for topic, n := range keys {
		if n > maxBackedOff {
			filter.BackedOff = append(filter.BackedOff, topic)
		}
	}
	return filter
}

// updateBackoff backs the keys off that failed, longer each time, and removes the backoff of those that did not.
func (r *Relay) updateBackoff(rows []busdb.OutboxPageRow, failed map[string]bool) {
	if len(failed) == 0 && len(r.backedOff) == 0 {
		return
	}
	now := time.Now()
	for _, row := range rows {
		k := topicKey{row.Topic, row.Key}
		if !failed[row.MessageID.String()] {
			delete(r.backedOff, k) // a later row of the key may have failed, and comes next
		} else if b := r.backedOff[k]; !now.Before(b.until) {
			b.delay = min(max(2*b.delay, minDelay), maxDelay)
			b.until = now.Add(b.delay)
			r.backedOff[k] = b
		}
	}
}
