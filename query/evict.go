package query

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/internal/panics"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

// Committed is the state of a row that was just committed, as the command side tells of it.
type Committed struct {
	order.Owner
	Key        string // the row's name beside its owner: ord_<hex> or prd_<sku>
	Rev        int64
	KnownAt    uint64 // position in the log read under the row's lock
	Timeline   uint32 // of that log
	Generation int64  // of the caches, read with it
	LSN        uint64 // position after COMMIT, or token.NoPosition
	Body       view.Body
}

// NewEntry is the entry of a state. ok is false for a row that is not cached.
func (q *Queries) NewEntry(c Committed) (e Entry, ok bool) {
	k, ok := parseKey(c.Owner, c.Key)
	t := token.Token{Timeline: c.Timeline, LSN: c.LSN, Key: k.tokenName(), Rev: c.Rev}
	return Entry{
		Body: c.Body, Token: q.cfg.Signer.Sign(t), Key: t.Key, Rev: c.Rev, KnownAt: c.KnownAt, Timeline: c.Timeline, Generation: c.Generation,
		LoadedAt: q.cfg.Now(), of: k, noLSN: c.LSN == token.NoPosition,
	}, ok
}

// WriteThrough stores committed states in the LRU and in Redis, unless something newer is there, and publishes them to every
// process. Repeating it changes nothing. It never fails: an entry that Redis did not take within 50 ms is given to it later.
func (q *Queries) WriteThrough(ctx context.Context, committed ...Entry) {
	entries := make([]*Entry, 0, len(committed))
	for _, e := range committed {
		if e.noLSN { // the caches get it from the primary
			q.bumpMinRev(e.of, e.Rev)
			q.addPending(e.of, e.Rev)
		} else {
			entries = append(entries, &e)
		}
	}
	q.writeThrough(ctx, entries...)
}

// writeThrough tells whether Redis took the entries; if not, they are pending.
func (q *Queries) writeThrough(ctx context.Context, entries ...*Entry) (taken bool) {
	for _, e := range entries {
		q.store(q.entry(e.of), e)
	}
	taken = q.redis == nil || len(entries) == 0 || q.redis.put(context.WithoutCancel(ctx), true, entries...) == nil
	for _, e := range entries {
		if !taken {
			q.addPending(e.of, e.Rev)
		}
		q.changed(e.of, e.Rev)
	}
	return taken
}

// Revision is a revision of an order that has been committed.
type Revision struct {
	Of  order.Ref
	Rev int64
}

// EnsureRevs makes sure that no cache goes on serving less than the revisions. It is for the consumer of the orders'
// events: the writer may have died between COMMIT and WriteThrough. Those that Redis lacks are read from the primary
// and written through. Repeating it is safe. A Redis that is away is no error: it gets the entries when it is back.
func (q *Queries) EnsureRevs(ctx context.Context, revisions []Revision) error {
	keys, revs := make([]key, len(revisions)), make([]int64, len(revisions))
	for i, r := range revisions {
		keys[i], revs[i] = orders.row(r.Of.Owner, r.Of.ID, ""), r.Rev
	}
	_, err := q.ensureRevs(ctx, keys, revs)
	return err
}

// ensureRevs tells whether Redis has the revisions of the keys. A revision that Redis did not take is pending.
func (q *Queries) ensureRevs(ctx context.Context, keys []key, revs []int64) (taken bool, err error) {
	for i, k := range keys {
		q.bumpMinRev(k, revs[i])
	}
	if q.redis == nil {
		return true, nil
	}
	entries, away := q.redis.getAll(ctx, keys)
	if away != nil {
		for i, k := range keys {
			q.addPending(k, revs[i])
		}
		return false, nil
	}
	taken = true
	for i, e := range entries {
		if e != nil && e.Rev >= revs[i] {
			continue
		}
		if e, err = q.fromDatabase(ctx, requirement{of: keys[i], primary: true, ours: true}, keys[i].read); err != nil {
			return false, err
		}
		taken = q.writeThrough(ctx, e) && taken
	}
	return taken, nil
}

// bumpMinRev stops the LRU from serving less than a revision of a key, and calls OnChange.
func (q *Queries) bumpMinRev(k key, rev int64) {
	if s, ok := q.lru.Peek(k); ok {
		for old := s.minRev.Load(); rev > old; old = s.minRev.Load() {
			s.minRev.CompareAndSwap(old, rev)
		}
	}
	q.changed(k, rev)
}

// changed tells those who wait for a change of the row, and the filter of skus that it is there.
func (q *Queries) changed(k key, rev int64) {
	if k.kind == products {
		q.skus.Load().add(k)
	}
	q.watchers.Wake(k)
	q.cfg.OnChange(k.tokenName(), rev)
}

// Subscribe listens to the writes of other processes, and gives Redis the pending writes, until ctx ends. While the channel is down
// the LRU serves an entry for at most 2 s. When the channel is back the LRU is emptied.
func (q *Queries) Subscribe(ctx context.Context) {
	if q.redis == nil {
		return
	}
	var flushing sync.WaitGroup
	defer flushing.Wait()
	flushing.Go(func() {
		defer panics.Sync(q.cfg.Log)
		for ctx.Err() == nil {
			pause(ctx, time.Second)
			if !q.redis.client.cluster {
				_ = q.redis.refresh(ctx) // a Redis that is away is seen by those who need it
			}
			q.flushPending(ctx)
		}
	})
	lost, wait := false, listenAgain
	for ctx.Err() == nil {
		err := q.listen(ctx, func() {
			if wait = listenAgain; lost {
				q.cfg.Log.Info("the cache channel of Redis is back")
			}
			lost = false
		})
		if err == nil || ctx.Err() != nil {
			continue
		}
		if !lost {
			q.cfg.Log.Warn("the cache channel of Redis is lost", zap.Error(err))
		}
		lost = true
		pause(ctx, wait)
		wait = min(2*wait, listenLatest)
	}
}

// messagePrefix begins what is no change of a row.
const messagePrefix = "message "

// Publish gives messages to the OnMessage of every process that hears the channel of changes. They may be lost: nothing may depend on them. The error is a
// Redis that is away.
func (q *Queries) Publish(ctx context.Context, messages ...string) error {
	if q.redis == nil {
		return nil
	}
	return q.redis.do(ctx, func(ctx context.Context, _ string) error {
		pipe := q.redis.client.Pipeline()
		for _, m := range messages {
			pipe.Publish(ctx, q.redis.channel(), messagePrefix+m)
		}
		_, err := pipe.Exec(ctx)
		return err
	})
}

const (
	listenAgain  = 100 * time.Millisecond // after a lost channel; twice as long after each try
	listenLatest = time.Second
)

// listen receives from one connection until it breaks, or until the master is another one, and calls listens when it does. A silent
// connection is pinged.
func (q *Queries) listen(ctx context.Context, listens func()) error {
	sub := q.redis.client.Subscribe(ctx, q.redis.channel())
	stop := context.AfterFunc(ctx, func() { _ = sub.Close() })
	defer func() { stop(); _ = sub.Close() }()
	var master *string
	for silent := 0; ; {
		message, err := sub.ReceiveTimeout(ctx, time.Second)
		if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() && silent < 3 {
			silent++
			err = sub.Ping(ctx)
		}
		if err != nil {
			return err
		}
		switch m := message.(type) {
		case *redis.Subscription: // earlier messages are lost
			master = q.redis.client.master.Load()
			q.lru.Purge()
			listens()
		case *redis.Message:
			if k, rev, ok := parseChange(m.Payload); ok {
				q.bumpMinRev(k, rev)
			} else if text, ok := strings.CutPrefix(m.Payload, messagePrefix); ok && q.cfg.OnMessage != nil {
				q.cfg.OnMessage(text)
			}
		}
		if message != nil {
			silent = 0
		}
		if master != nil && q.redis.client.master.Load() != master { // an old master may live on, unheard
			return errOtherMaster
		}
	}
}

// maxPending bounds the writes that are remembered for a Redis that did not take them. If one is forgotten, then or with the
// process, readers without a token see the state before it until that expires: for at most redisFor + staleAfter.
const maxPending = 20_000

// addPending remembers the highest revision that Redis did not take.
func (q *Queries) addPending(k key, rev int64) {
	if q.redis == nil {
		return
	}
	q.pendingMu.Lock()
	defer q.pendingMu.Unlock()
	old, _ := q.pendingWrites.Peek(k)
	q.pendingWrites.Add(k, max(old, rev))
}

// flushPending gives Redis the pending writes, the oldest first. The first that fails stays, with those after it.
func (q *Queries) flushPending(ctx context.Context) {
	for range q.pendingWrites.Len() {
		if k, rev, ok := q.pendingWrites.RemoveOldest(); ok {
			if taken, err := q.ensureRevs(ctx, []key{k}, []int64{rev}); err != nil || !taken {
				q.addPending(k, rev)
				return
			}
		}
	}
}
