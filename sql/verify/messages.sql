-- The outbox, the inbox and the parked messages.

-- name: UnpublishedEvents :many
-- Events of the last 7 days, less a minute for clocks that differ, of which the message is neither in the outbox nor handled by all
-- consumers of its topic. The id of the message is that of the event.
SELECT m.id, max(m.order_id::text)::uuid AS order_id, count(*) OVER ()::bigint AS total
FROM (
    SELECT id, order_id, 0 AS handled, 0 AS waiting FROM order_events
    WHERE id >= uuidv7_lower_bound(now() - interval '7 days' + interval '1 minute')
    UNION ALL
    SELECT message_id, NULL, 1, 0 FROM inbox
    WHERE message_id >= uuidv7_lower_bound(now() - interval '7 days' + interval '1 minute') AND consumer = ANY (@consumers::text[])
    UNION ALL
    SELECT message_id, NULL, 0, 1 FROM outbox
) m
GROUP BY m.id
HAVING count(m.order_id) > 0 AND sum(m.handled) < cardinality(@consumers::text[]) AND sum(m.waiting) = 0
LIMIT @page_size::integer;

-- name: CountRecentEvents :one
SELECT count(*) FROM order_events WHERE id >= uuidv7_lower_bound(now() - interval '7 days' + interval '1 minute');

-- name: WaitingPage :many
-- The messages in the outbox, each with the consumers that have handled it.
SELECT o.id, o.shard, o.topic, o.key, o.message_id, o.payload,
       ARRAY(SELECT i.consumer FROM inbox i WHERE i.message_id = o.message_id)::text[] AS consumers
FROM outbox o WHERE o.id > @after_id::bigint ORDER BY o.id LIMIT @page_size::integer;

-- name: StillWaiting :many
SELECT id, key, message_id FROM outbox WHERE id = ANY (@ids::bigint[]) ORDER BY id;

-- name: CountParked :one
SELECT count(*) FROM parked_messages;

-- name: OrdersWithMessages :many
-- Those of the given keys that have a message in the outbox or a parked one, of another topic than that which tells of events: it moves
-- no order on. IS TRUE makes a hash of the keys: as a condition of its own, IN would be a join, and a loop over them for each message.
SELECT key FROM outbox WHERE (key IN (SELECT unnest(@keys::text[]))) IS TRUE AND topic <> @events_topic::text
UNION
SELECT key FROM parked_messages WHERE (key IN (SELECT unnest(@keys::text[]))) IS TRUE AND topic <> @events_topic::text;
