package bus

import (
	"context"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ordergate/ordergate/gen/busdb"
	"github.com/ordergate/ordergate/internal/pg"
)

// Outgoing is a message to be sent. Shard (0..255) is a function of Key: the order of a key rests on it.
type Outgoing struct {
	Topic, Key string
	Shard      int16
	TraceID    string
	ID         uuid.UUID // UUIDv7; the consumers drop what they have seen by it
	Payload    []byte    // text in UTF-8
}

// Send writes the messages into the outbox, in their order, in the transaction of db. For the order of a key it must come after
// the lock on what the key names; the relay publishes them after COMMIT, at once if it is woken then.
func Send(ctx context.Context, db busdb.DBTX, out []Outgoing) error {
	if len(out) == 0 {
		return nil
	}
	var p busdb.InsertOutboxParams
	for _, o := range out {
		p.Shards = append(p.Shards, o.Shard)
		p.Topics = append(p.Topics, o.Topic)
		p.Keys = append(p.Keys, o.Key)
		p.MessageIds = append(p.MessageIds, o.ID)
		p.TraceIds = append(p.TraceIds, o.TraceID)
		p.Payloads = append(p.Payloads, string(o.Payload))
	}
	return busdb.New(db).InsertOutbox(ctx, p)
}

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
