-- The outbox, the inbox and the parking of messages. Only internal/bus uses these queries; all other packages send with outbox.Send.

-- name: InsertOutbox :exec
-- The ids follow the order of the arrays: the caller decides the order of a key.
INSERT INTO outbox (shard, topic, key, message_id, trace_id, payload)
SELECT m.shard, m.topic, m.key, m.message_id, m.trace_id, m.payload
FROM (
    SELECT generate_subscripts(@shards::smallint[], 1) AS n,
        unnest(@shards::smallint[]) AS shard,
        unnest(@topics::text[]) AS topic,
        unnest(@keys::text[]) AS key,
        unnest(@message_ids::uuid[]) AS message_id,
        unnest(@trace_ids::text[]) AS trace_id,
        unnest(@payloads::text[]) AS payload
) AS m
ORDER BY m.n;

-- name: OutboxAge :one
-- The age in seconds of the oldest row. No row: there is nothing to publish.
SELECT extract(epoch FROM clock_timestamp() - created_at)::float8 AS seconds FROM outbox ORDER BY id LIMIT 1;

-- name: TryLockShards :one
-- Locks the shards that no other relay holds until the end of the transaction and returns them. It must be a statement of its own, so
-- that the page read after it does not show rows that the shards' last owner deleted. The transaction's COMMIT does not wait for the
-- disk: if a crash loses it, the page is published again.
SELECT coalesce(array_agg(shards.shard), '{}')::smallint[] AS shards
FROM (
    SELECT set_config('idle_in_transaction_session_timeout', '10s', true), set_config('synchronous_commit', 'off', true)
) AS session, generate_series(0, 255) AS shards (shard)
WHERE pg_try_advisory_xact_lock(@class::integer, shards.shard);

-- name: OutboxPage :many
-- The oldest rows of the shards, without the rows of keys and topics that are backed off. all_shards spares looking for each row's shard in a list of 256.
SELECT id, topic, key, message_id, trace_id, payload
FROM outbox
WHERE (@all_shards::boolean OR shard = ANY (@shards::smallint[]))
    AND topic <> ALL (coalesce(@backed_off::text[], '{}'))
    AND (topic, key) NOT IN (SELECT unnest(@topics::text[]), unnest(@keys::text[]))
ORDER BY id
LIMIT @page_size::integer;

-- name: DeleteOutbox :exec
DELETE FROM outbox WHERE id = ANY (@ids::bigint[]);

-- name: DeleteInbox :exec
-- Takes inbox rows back in the transaction that wrote them.
DELETE FROM inbox WHERE consumer = @consumer AND message_id = ANY (@message_ids::uuid[]);

-- name: InsertInbox :one
-- Writes the inbox rows of the messages. fresh: those that the consumer had not handled before. behind: the keys of which an earlier message is
-- parked. The rows are written in the order of the ids, so that two instances with the same messages wait for each other and never deadlock.
WITH fresh AS (
    INSERT INTO inbox (consumer, message_id)
    SELECT @consumer::text, incoming.id FROM unnest(@message_ids::uuid[]) AS incoming (id) ORDER BY incoming.id
    ON CONFLICT DO NOTHING
    RETURNING message_id
)
SELECT ARRAY(SELECT fresh.message_id FROM fresh)::uuid[] AS fresh,
    ARRAY(SELECT p.key FROM parked_messages p WHERE p.consumer = @consumer::text AND p.key = ANY (@keys::text[]))::text[] AS behind;

-- name: PurgeInbox :execrows
-- Deletes inbox rows of more than a week ago, at most 1,000 at a time, but none of a message that may come again: one in the outbox, which
-- may be an old one that was retried, or a parked one.
DELETE FROM inbox i USING (
    SELECT n.consumer, n.message_id FROM inbox n WHERE n.message_id < uuidv7_lower_bound(now() - interval '7 days')
      AND NOT EXISTS (SELECT FROM outbox o WHERE o.message_id = n.message_id)
      AND NOT EXISTS (SELECT FROM parked_messages p WHERE p.message_id = n.message_id) LIMIT 1000
) old
WHERE i.consumer = old.consumer AND i.message_id = old.message_id;

-- name: ParkMessage :exec
INSERT INTO parked_messages (consumer, topic, key, message_id, trace_id, payload, cause)
VALUES (@consumer, @topic, @key, @message_id, @trace_id, @payload, @cause)
ON CONFLICT DO NOTHING;

-- name: HoldParked :many
-- Keeps the messages that are parked before one of the same consumer and key from being retried or dropped before the transaction ends.
-- No row: none is parked any more.
SELECT id FROM parked_messages WHERE consumer = @consumer AND key = @key ORDER BY id LIMIT 1 FOR KEY SHARE;
