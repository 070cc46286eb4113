package bus

import (
	"context"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/gen/busdb"
	"github.com/ordergate/ordergate/internal/pg"
)

// Queue identifies the parked messages of a key for one consumer. The first has failed; the others wait behind it.
type Queue struct{ Consumer, Key string }

// RetryParked moves all messages of the queues back into the outbox, in one transaction, and returns how many messages. They are
// published in their order, before later ones of the key, to every consumer of the topic: a consumer that has handled one drops it.
// Repeating it does no harm, and workers may run: it waits for the pages that relays are publishing. shard returns that of a key.
func RetryParked(ctx context.Context, db pg.Beginner, queues []Queue, shard func(key string) int16) (n int64, err error) {
	consumers := pg.Column(queues, func(q Queue) string { return q.Consumer })
	keys := pg.Column(queues, func(q Queue) string { return q.Key })
	shards := pg.Column(queues, func(q Queue) int16 { return shard(q.Key) })
	err = pg.InTx(ctx, db, func(tx pgx.Tx) error {
		q := busdb.New(tx)
		if err := q.LockShards(ctx, busdb.LockShardsParams{Class: shardClass, Shards: shards}); err != nil {
			return err
		}
		if err := q.LockQueues(ctx, busdb.LockQueuesParams{Consumers: consumers, Keys: keys}); err != nil {
			return err
		}
		n, err = q.Unpark(ctx, busdb.UnparkParams{Consumers: consumers, Keys: keys, Shards: shards})
		return err
	})
	return n, err
}

// DropParked deletes a parked message of a consumer, which will never handle it. Those that wait behind it stay parked until
// RetryParked. dropped is false if it is not parked any more.
func DropParked(ctx context.Context, db busdb.DBTX, consumer string, id uuid.UUID) (dropped bool, err error) {
	n, err := busdb.New(db).DropParked(ctx, busdb.DropParkedParams{Consumer: consumer, MessageID: id})
	return n > 0, err
}
