-- What an operator does with parked messages. A queue has the parked messages of one key for one consumer: only the first has failed, the
-- others wait behind it.

-- name: ListParked :many
-- The first message of each queue, the oldest first, with the number of messages in the queue. An empty filter matches all.
SELECT p.consumer, p.topic, p.key, p.message_id, p.trace_id, p.payload, p.cause, p.parked_at, q.messages
FROM (
    SELECT min(m.id)::bigint AS first, count(*) AS messages FROM parked_messages m
    WHERE (m.consumer = @consumer::text OR @consumer::text = '') AND (m.key = @key::text OR @key::text = '')
    GROUP BY m.consumer, m.key
) q
JOIN parked_messages p ON p.id = q.first
ORDER BY p.id LIMIT NULLIF(@max_rows::integer, 0);

-- name: CountParkedCauses :many
-- The queues by consumer and by the first line of the cause, without the ids in it: the largest groups, and the totals of all.
SELECT c.consumer, c.cause, count(*) AS queues, sum(c.messages)::bigint AS messages, min(c.parked_at)::timestamptz AS oldest,
       (sum(count(*)) OVER ())::bigint AS all_queues, (sum(sum(c.messages)) OVER ())::bigint AS all_messages
FROM (
    SELECT p.consumer, p.parked_at, q.messages,
           regexp_replace(split_part(p.cause, chr(10), 1), '[a-z]{3}_[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', '*', 'g')::text AS cause
    FROM (
        SELECT min(m.id)::bigint AS first, count(*) AS messages FROM parked_messages m
        WHERE (m.consumer = @consumer::text OR @consumer::text = '') AND (m.key = @key::text OR @key::text = '')
        GROUP BY m.consumer, m.key
    ) q
    JOIN parked_messages p ON p.id = q.first
) c
GROUP BY c.consumer, c.cause ORDER BY messages DESC, c.consumer, c.cause LIMIT 20;

-- name: GetParked :many
-- A message is parked for each consumer that could not handle it.
SELECT id, consumer, topic, key, message_id, trace_id, payload, cause, parked_at FROM parked_messages WHERE message_id = @message_id ORDER BY consumer;

-- name: ParkedQueue :many
-- The messages of a queue after a given id, in their order. total counts all of these.
SELECT message_id, payload, parked_at, count(*) OVER () AS total
FROM parked_messages WHERE consumer = @consumer AND key = @key AND id > @after::bigint ORDER BY id LIMIT @max_rows::integer;

-- name: ParkedPage :many
-- Parked messages between two ids, by id.
SELECT id, consumer, key FROM parked_messages WHERE id > @after::bigint AND id <= @last::bigint ORDER BY id LIMIT @page_size::integer;

-- name: LastParked :one
SELECT COALESCE(max(id), 0)::bigint FROM parked_messages;

-- name: FindMessage :one
-- Where a message is that is not parked: whether it is in the outbox, and which consumers have it in their inbox.
SELECT EXISTS (SELECT FROM outbox o WHERE o.message_id = @message_id::uuid) AS waiting,
       ARRAY(SELECT i.consumer FROM inbox i WHERE i.message_id = @message_id::uuid ORDER BY i.consumer)::text[] AS consumers;

-- name: LockShards :exec
-- Waits for the relays that hold the shards. Every caller takes them in the same order.
SELECT pg_advisory_xact_lock(@class::integer, s.shard::integer)
FROM (SELECT DISTINCT w.shard FROM unnest(@shards::smallint[]) AS w (shard) ORDER BY w.shard) AS s;

-- name: LockQueues :exec
-- Waits for consumers that park a message behind these. Unpark is a later statement, so that it sees what they parked.
SELECT p.id FROM parked_messages p
JOIN (SELECT unnest(@consumers::text[]) AS consumer, unnest(@keys::text[]) AS key) w ON p.consumer = w.consumer AND p.key = w.key
ORDER BY p.id FOR UPDATE OF p;

-- name: Unpark :execrows
-- Moves the messages of queues back to the outbox, in their order and before all messages of their keys that are there. Their ids are
-- below zero, which the sequence never gives.
WITH queues AS (
    SELECT unnest(@consumers::text[]) AS consumer, unnest(@keys::text[]) AS key, unnest(@shards::smallint[]) AS shard
), parked AS (
    DELETE FROM parked_messages AS p USING queues WHERE p.consumer = queues.consumer AND p.key = queues.key
    RETURNING p.id, p.consumer, p.topic, p.key, p.message_id, p.trace_id, p.payload
), unhandled AS (
    DELETE FROM inbox AS i USING parked WHERE i.consumer = parked.consumer AND i.message_id = parked.message_id
)
INSERT INTO outbox (id, shard, topic, key, message_id, trace_id, payload)
SELECT parked.id - 1000000000000000000, queues.shard, parked.topic, parked.key, parked.message_id, parked.trace_id, parked.payload
FROM parked JOIN queues ON queues.consumer = parked.consumer AND queues.key = parked.key;

-- name: DropParked :execrows
-- The inbox row stays, so that the message is not handled if it comes again.
DELETE FROM parked_messages WHERE message_id = @message_id AND consumer = @consumer;
