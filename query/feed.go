package query

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/gen/querydb"
	"github.com/ordergate/ordergate/order"
)

const (
	markEvery = time.Second            // how often a mark is sent through the change feed, and how long its statement may take
	markPause = 200 * time.Millisecond // a mark that a message asks for is sent this long after the last one at the earliest
)

// FollowChanges applies changes that our own path does not tell of, from the primary's change feed, until ctx ends: rows that were changed by
// hand, and new generations of the caches. It knows each second which skus there are. While the primary is away nothing changes; what was
// missed meanwhile is in no LRU afterwards, and in Redis until it expires.
func (q *Queries) FollowChanges(ctx context.Context) {
	for ctx.Err() == nil {
		if err := q.followChanges(ctx); err != nil && ctx.Err() == nil {
			q.cfg.Log.Warn("change feed lost", zap.Error(err))
			pause(ctx, 100*time.Millisecond)
		}
	}
}

// followChanges listens on a connection of its own until it breaks. A silent one breaks at the next mark. The connection is a new one, as the
// idle ones of the pool are silent, too. The scan of skus that it began ends with it.
func (q *Queries) followChanges(ctx context.Context) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	limited, cancel := context.WithTimeout(ctx, markEvery)
	defer cancel()
	conn, err := connect(limited, q.primary.pool.Config())
	if err != nil {
		return err
	}
	defer disconnect(ctx, conn)
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
		reached := func(all bool) {
			q.markedAt.Store(at.UnixNano())
			if all {
				q.skus.Load().reached(mark, q.cfg.Signer, at)
			}
		}
		if err = q.receive(ctx, conn, marks, strconv.Itoa(n), reached); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// connect makes a connection as a pool does, beside it.
func connect(ctx context.Context, pool *pgxpool.Config) (*pgx.Conn, error) {
	pool.ConnConfig.Tracer = nil // nobody waits for it
	conn, err := pgx.ConnectConfig(ctx, pool.ConnConfig)
	if err != nil || pool.AfterConnect == nil {
		return conn, err
	}
	if err = pool.AfterConnect(ctx, conn); err != nil {
		_ = conn.Close(ctx)
	}
	return conn, err
}

// disconnect closes a connection, also if ctx has ended. A silent server is not waited for.
func disconnect(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 100*time.Millisecond)
	defer cancel()
	_ = conn.Close(ctx)
}

// receive acts on messages until the next mark is due, and calls reached once the one that was sent is back: not for all changes, if a flush came
// before it, of which the mark's generation may not know yet. After a flush the next mark is due
// at once, as it reads the generation. The messages of a flood ask for five marks a second together.
func (q *Queries) receive(ctx context.Context, conn *pgx.Conn, marks, sent string, reached func(all bool)) error {
	soon, back, flushed := time.Now().Add(markPause), false, false
	next, cancel := context.WithTimeout(ctx, markEvery)
	defer cancel()
	for {
		message, err := conn.WaitForNotification(next)
		switch {
		case err != nil && next.Err() != nil:
			return nil
		case err != nil:
			return err
		case message.Channel == marks:
			if message.Payload == sent {
				reached(!flushed)
				back = true
			}
		case strings.HasPrefix(message.Payload, "flush"):
			flushed = true
		default:
			q.apply(message.Payload)
		}
		if back && flushed {
			time.AfterFunc(time.Until(soon), cancel)
			flushed = false
		}
	}
}

// sendMark sends the nth mark, and begins to read all skus if that is due.
func (q *Queries) sendMark(ctx context.Context, db *querydb.Queries, marks string, n int) (querydb.MarkFeedRow, error) {
	limited, cancel := context.WithTimeout(ctx, markEvery)
	defer cancel()
	mark, err := db.MarkFeed(limited, querydb.MarkFeedParams{Marks: marks, Mark: strconv.Itoa(n)})
	if err != nil {
		return mark, err
	}
	q.noteGeneration(uint32(mark.Timeline), mark.Generation)
	q.refreshSKUs(ctx, mark)
	return mark, nil
}

// apply acts on a message of a row. It is a hint, as anybody may send one: the row is read, and a revision that it does not have binds nobody.
func (q *Queries) apply(message string) {
	if k, rev, ok := parseChange(message); ok {
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
