package query

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

// Written is the entry of an order that was just committed. knownAt is the log's position read under the row's lock, lsn the one
// after COMMIT, or token.NoPosition.
func (r *Queries) Written(owner order.Owner, id order.ID, rev int64, knownAt, lsn uint64, body view.Body) Entry {
	t := token.Token{Timeline: r.timeline(), LSN: lsn, Key: id.Format(order.PrefixOrder), Rev: rev}
	return Entry{
		Body: body, Token: r.cfg.Signer.Sign(t), Key: t.Key, Rev: rev, KnownAt: knownAt, Timeline: t.Timeline, LoadedAt: r.cfg.Now(),
		of: key{owner: owner, id: id}, unplaced: lsn == token.NoPosition,
	}
}

// WriteThrough puts committed states into the LRU and into Redis, unless something newer is there, and tells every process of
// them. Repeating it changes nothing. No write fails with it: what Redis did not take within 50 ms is given to it later.
func (r *Queries) WriteThrough(ctx context.Context, written ...Entry) {
	placed := make([]Entry, 0, len(written))
	for _, e := range written {
		if e.unplaced { // the caches get it from the primary
			r.raise(e.of, e.Rev)
			if r.shared != nil {
				r.owe(e.of, e.Rev)
			}
		} else {
			placed = append(placed, e)
		}
	}
	if r.writeThrough(ctx, placed) != nil {
		for i := range placed {
			r.owe(placed[i].of, placed[i].Rev)
		}
	}
}

func (r *Queries) writeThrough(ctx context.Context, written []Entry) (err error) {
	if len(written) == 0 {
		return nil
	}
	entries := make([]*Entry, len(written))
	for i := range written {
		entries[i] = &written[i]
		r.slot(written[i].of).keep(entries[i], r.cfg.Now())
	}
	if r.shared != nil {
		err = r.shared.put(context.WithoutCancel(ctx), true, entries...)
	}
	for _, e := range entries {
		r.cfg.OnChange(e.Key, e.Rev)
	}
	return err
}

// Repair makes sure that no cache goes on serving less than the revision of an order: for the consumer of the order's events, whose
// writer may have died between COMMIT and WriteThrough. If Redis has it nothing is read; else it is read from the primary and
// written through. Repeating it is safe. A dead Redis is no error: it gets the entry when it is back.
func (r *Queries) Repair(ctx context.Context, owner order.Owner, id order.ID, rev int64) error {
	k := key{owner: owner, id: id}
	err := r.repair(ctx, k, rev)
	if errors.Is(err, errRedisAway) {
		r.owe(k, rev)
		return nil
	}
	return err
}

var errRedisAway = errors.New("query: Redis does not take it")

func (r *Queries) repair(ctx context.Context, k key, rev int64) error {
	r.raise(k, rev)
	if r.shared == nil {
		return nil
	}
	e, err := r.shared.get(ctx, k)
	if err != nil {
		return fmt.Errorf("%w: %w", errRedisAway, err)
	}
	if e != nil && e.Rev >= rev {
		return nil
	}
	e, _, err = r.row(ctx, k, want{key: k.name(), primary: true})
	if err != nil {
		return err
	}
	if err = r.writeThrough(ctx, []Entry{*e}); err != nil {
		return fmt.Errorf("%w: %w", errRedisAway, err)
	}
	return nil
}

// raise stops the LRU from serving less than a revision of a key, and tells who waits for it.
func (r *Queries) raise(k key, rev int64) {
	if s, ok := r.lru.Peek(k); ok {
		for old := s.floor.Load(); rev > old && !s.floor.CompareAndSwap(old, rev); old = s.floor.Load() {
		}
	}
	r.cfg.OnChange(k.name(), rev)
}

// Hear listens to what other processes wrote, and gives a Redis that was away what it missed, until ctx ends. While the channel is
// down the LRU serves an entry 2 s at most; when it is back everything is loaded anew.
func (r *Queries) Hear(ctx context.Context) {
	if r.shared == nil {
		return
	}
	go r.settle(ctx)
	for ctx.Err() == nil {
		if err := r.listen(ctx); err != nil && ctx.Err() == nil {
			r.cfg.Log.Warn("cache channel lost", zap.Error(err))
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// listen hears one connection to its end. One that says nothing is asked whether it lives.
func (r *Queries) listen(ctx context.Context) error {
	sub := r.shared.client.Subscribe(ctx, r.shared.channel())
	stop := context.AfterFunc(ctx, func() { _ = sub.Close() })
	defer func() { stop(); _ = sub.Close() }()
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
		case *redis.Subscription: // what was said before is lost
			r.shared.master.Store(nil)
			r.lru.Purge()
		case *redis.Message:
			var rev int64
			var owner order.Owner
			var name string
			_, err = fmt.Sscan(m.Payload, &rev, &owner.Account, &owner.Mode, &name)
			if k, ok := parseKey(owner, name); ok && err == nil {
				r.raise(k, rev)
			}
		}
		if message != nil {
			silent = 0
		}
	}
}

// maxDebts bounds the revisions that are remembered for a Redis that did not take them. Those that are forgotten, then or with the
// process, let reads without a token see what was there before for as long as that lives: 10 s.
const maxDebts = 20_000

// owe remembers the highest revision that Redis was not given.
func (r *Queries) owe(k key, rev int64) {
	r.owing.Lock()
	defer r.owing.Unlock()
	old, _ := r.debts.Peek(k)
	r.debts.Add(k, max(old, rev))
}

// settle pays the debts once a second, until one cannot be paid.
func (r *Queries) settle(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for range r.debts.Len() {
			k, rev, _ := r.debts.RemoveOldest()
			if err := r.repair(ctx, k, rev); err != nil {
				r.owe(k, rev)
				break
			}
		}
	}
}
