package bus

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ordergate/ordergate/gen/busdb"
	"github.com/ordergate/ordergate/internal/pg"
)

// RetryParked moves all that is parked of a consumer's key back into the outbox, in one transaction, and returns how many
// messages. They are published in their order, before later ones of the key, to every consumer of the topic: those that have
// handled them drop them. shard is the key's. It waits for the page that the relay has in work.
func RetryParked(ctx context.Context, pool *pgxpool.Pool, consumer, key string, shard int16) (n int64, err error) {
	err = pg.InTx(ctx, pool, func(tx pgx.Tx) error {
		q := busdb.New(tx)
		if err := q.LockShard(ctx, busdb.LockShardParams{Class: shardClass, Shard: int32(shard)}); err != nil {
			return err
		}
		n, err = q.UnparkKey(ctx, busdb.UnparkKeyParams{Shard: shard, Consumer: consumer, Key: key})
		return err
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}
