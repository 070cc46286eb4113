package query

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/gen/querydb"
	"github.com/ordergate/ordergate/order"
)

// markEvery is how often a mark is sent through the change feed, and how long its statement may take.
const markEvery = time.Second

// Follow hears of changes that our own path does not tell of, from the primary's change feed, until ctx ends: rows that were changed by
// hand, and new generations of the caches. It knows each second which skus there are. While the primary is away nothing changes; what was
// missed meanwhile is in no LRU afterwards, and in Redis until it expires.
func (q *Queries) Follow(ctx context.Context) {
	for ctx.Err() == nil {
		if err := q.follow(ctx); err != nil && ctx.Err() == nil {
			q.cfg.Log.Warn("change feed lost", zap.Error(err))
			pause(ctx, 100*time.Millisecond)
		}
	}
}

// follow listens on a connection of its own until it breaks. A silent one breaks at the next mark.
func (q *Queries) follow(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, markEvery)
	defer cancel()
	pooled, err := q.primary.pool.Acquire(limited)
	if err != nil {
		return err
	}
	conn := pooled.Hijack()
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 100*time.Millisecond)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	marks, db := "ordergate_marks_"+strings.ToLower(rand.Text()), querydb.New(conn)
	if err = db.Listen(limited, marks); err != nil {
		return err
	}
	q.lru.Purge()
	q.skus.Store(nil) // a product may have come before we listened
	for n := 0; ctx.Err() == nil; n++ {
		at := q.cfg.Now()
		mark, err := q.sendMark(ctx, db, marks, n)
		if err != nil {
			return err
		}
		reached := func() {
			q.heardAt.Store(at.UnixNano())
			q.skus.Load().reached(mark, q.cfg.Signer, at)
		}
		if err = q.receive(ctx, conn, marks, strconv.Itoa(n), reached); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// receive acts on messages until the next mark is due, and calls reached once the one that was sent is back.
func (q *Queries) receive(ctx context.Context, conn *pgx.Conn, marks, sent string, reached func()) error {
	next, cancel := context.WithTimeout(ctx, markEvery)
	defer cancel()
	for {
		message, err := conn.WaitForNotification(next)
		switch {
		case err != nil && next.Err() != nil:
			return nil
		case err != nil:
			return err
		case message.Channel != marks:
			q.hear(message)
		case message.Payload == sent:
			reached()
		}
	}
}

// sendMark sends the nth mark, and begins to read all skus if they are not known.
func (q *Queries) sendMark(ctx context.Context, db *querydb.Queries, marks string, n int) (querydb.MarkFeedRow, error) {
	limited, cancel := context.WithTimeout(ctx, markEvery)
	defer cancel()
	mark, err := db.MarkFeed(limited, querydb.MarkFeedParams{Marks: marks, Mark: strconv.Itoa(n)})
	if err != nil {
		return mark, err
	}
	q.noteGeneration(uint32(mark.Timeline), mark.Generation)
	if old := q.skus.Load(); !old.usable(q.generation.Load()) {
		f := newSKUFilter(q.generation.Load(), old.size())
		q.skus.Store(f)
		go q.readSKUs(ctx, f, mark)
	}
	return mark, nil
}

// hear acts on a message of the feed.
func (q *Queries) hear(message *pgconn.Notification) {
	if text, ok := strings.CutPrefix(message.Payload, "flush "); ok {
		if generation, err := strconv.ParseInt(text, 10, 64); err == nil {
			q.noteGeneration(q.timeline(), generation)
		}
	} else if k, rev, ok := parseChange(message.Payload); ok {
		q.bumpMinRev(k, rev)
		q.addPending(k, rev) // Redis has the row as it was, if its writer does not write through
	}
}

// parseChange reads the revision and key of a row that has changed, as REV ACCOUNT MODE NAME.
func parseChange(text string) (k key, rev int64, ok bool) {
	var owner order.Owner
	var name string
	if _, err := fmt.Sscan(text, &rev, &owner.Account, &owner.Mode, &name); err != nil {
		return key{}, 0, false
	}
	k, ok = parseKey(owner, name)
	return k, rev, ok
}

// noteGeneration keeps the highest generation of the caches, of the highest timeline: a failover may have lost the last ones.
func (q *Queries) noteGeneration(timeline uint32, generation int64) {
	if timeline == q.generationOf.Load() && generation == q.generation.Load() {
		return
	}
	q.generationMu.Lock()
	defer q.generationMu.Unlock()
	switch of := q.generationOf.Load(); {
	case timeline > of:
		q.generationOf.Store(timeline)
		q.generation.Store(generation)
	case timeline == of:
		q.generation.Store(max(generation, q.generation.Load()))
	}
}
