-- The outbox, the inbox and the parked messages. internal/bus alone uses them; everyone else sends with outbox.Send.

-- name: InsertOutbox :exec
-- The ids follow the order of the arrays: the key's order is the caller's.
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
-- Age in seconds of the oldest row. No row: there is nothing to publish.
SELECT extract(epoch FROM clock_timestamp() - created_at)::float8 AS seconds FROM outbox ORDER BY id LIMIT 1;

-- name: TryLockShards :one
-- The shards that this transaction has from now on. It must be a statement of its own: the page read after it sees what the
-- shards' last owner deleted. The transaction's COMMIT does not wait for the disk: lost in a crash it is done again.
SELECT coalesce(array_agg(shards.shard), '{}')::smallint[] AS shards
FROM (
    SELECT set_config('idle_in_transaction_session_timeout', '10s', true), set_config('synchronous_commit', 'off', true)
) AS session, generate_series(0, 255) AS shards (shard)
WHERE pg_try_advisory_xact_lock(@class::integer, shards.shard);

-- name: LockShard :exec
SELECT pg_advisory_xact_lock(@class::integer, @shard::integer);

-- name: OutboxPage :many
-- The oldest rows of the shards, without those of the keys and topics that are backed off.
SELECT id, topic, key, message_id, trace_id, payload
FROM outbox
WHERE shard = ANY (@shards::smallint[])
    AND topic <> ALL (coalesce(@backed_off::text[], '{}'))
    AND (topic, key) NOT IN (SELECT unnest(@topics::text[]), unnest(@keys::text[]))
ORDER BY id
LIMIT @page_size::integer;

-- name: DeleteOutbox :exec
DELETE FROM outbox WHERE id = ANY (@ids::bigint[]);

-- name: TakeMessages :many
-- The messages that the consumer has not handled before; from now on it has. behind: an earlier one of its key is parked.
-- Written in the order of the ids, so that two instances with the same messages wait for each other and never deadlock.
WITH incoming AS (
    SELECT unnest(@message_ids::uuid[]) AS message_id, unnest(@keys::text[]) AS key
), fresh AS (
    INSERT INTO inbox (consumer, message_id)
    SELECT @consumer::text, incoming.message_id FROM incoming ORDER BY incoming.message_id
    ON CONFLICT DO NOTHING
    RETURNING message_id
)
SELECT fresh.message_id,
    EXISTS (SELECT FROM parked_messages AS p WHERE p.consumer = @consumer::text AND p.key = incoming.key)::boolean AS behind
FROM fresh JOIN incoming ON incoming.message_id = fresh.message_id;

-- name: PurgeInbox :execrows
-- Forgets what was handled more than a week ago, a small batch at a time: no message stays that long in an outbox.
DELETE FROM inbox i USING (
    SELECT consumer, message_id FROM inbox WHERE message_id < uuid_floor(now() - interval '7 days') LIMIT 1000
) old
WHERE i.consumer = old.consumer AND i.message_id = old.message_id;

-- name: ParkMessage :exec
INSERT INTO parked_messages (consumer, topic, key, message_id, trace_id, payload, cause)
VALUES (@consumer, @topic, @key, @message_id, @trace_id, @payload, @cause)
ON CONFLICT DO NOTHING;

-- name: ListParked :many
-- What is parked, without payloads: the oldest first, after a given id (0 at first).
SELECT id, consumer, topic, key, message_id, trace_id, cause, parked_at
FROM parked_messages
WHERE id > @after::bigint
ORDER BY id
LIMIT @page_size::integer;

-- name: UnparkKey :execrows
-- Moves what is parked of a key back to the outbox, in its order and before everything that the outbox has of it: ids below
-- zero, which the sequence never draws.
WITH parked AS (
    DELETE FROM parked_messages AS p WHERE p.consumer = @consumer AND p.key = @key
    RETURNING p.id, p.topic, p.key, p.message_id, p.trace_id, p.payload
), forgotten AS (
    DELETE FROM inbox AS i USING parked WHERE i.consumer = @consumer AND i.message_id = parked.message_id
)
INSERT INTO outbox (id, shard, topic, key, message_id, trace_id, payload)
SELECT parked.id - 1000000000000000000, @shard::smallint, parked.topic, parked.key, parked.message_id, parked.trace_id, parked.payload
FROM parked;
