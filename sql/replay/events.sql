-- What `ordergate replay` reads of events, in pages by primary key, and how it tells others of itself. Arrays of look-ups on partitioned
-- tables come from a subselect, as in command/orders.

-- name: LockReplay :one
-- One replay at a time: the lock ends with UnlockReplay, or with the session.
SELECT pg_try_advisory_lock(hashtext('ordergate replay'))::boolean AS locked;

-- name: UnlockReplay :exec
SELECT pg_advisory_unlock(hashtext('ordergate replay'));

-- name: RaiseCacheGeneration :one
UPDATE cache_generation SET generation = generation + 1 WHERE id RETURNING generation;

-- name: CountHistory :many
SELECT kind, count(*) AS events FROM resource_events GROUP BY kind
UNION ALL
SELECT 'order', count(*) FROM order_events;

-- name: OrdersWithEvents :many
SELECT DISTINCT account, mode, order_id FROM order_events
WHERE (account, mode, order_id) > (@after_account::integer, @after_mode::text, @after_order_id::uuid)
ORDER BY account, mode, order_id LIMIT @page_size::integer;

-- name: ResourcesWithEvents :many
-- Of one kind. The kind is compared twice, so that the walk begins at the index entry where the last page ended.
SELECT DISTINCT account, mode, resource FROM resource_events
WHERE kind = @kind::text AND (account, mode, kind, resource) > (@after_account::integer, @after_mode::text, @kind::text, @after_resource::text)
ORDER BY account, mode, resource LIMIT @page_size::integer;

-- name: OrderEventsAfter :many
-- The events of each order after its version, a number of them at most.
SELECT e.account, e.mode, e.order_id, e.version, e.id, e.type, e.schema_version, e.payload, e.trace_id, e.operation, e.actor, e.created_at, e.prev_hash, e.hash
FROM (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest((SELECT @order_ids::uuid[])) AS order_id,
             unnest(@versions::bigint[]) AS version) w
CROSS JOIN LATERAL (
    SELECT x.* FROM order_events x
    WHERE x.account = w.account AND x.mode = w.mode AND x.order_id = w.order_id AND x.version > w.version
    ORDER BY x.version LIMIT @page_size::integer
) e
ORDER BY e.account, e.mode, e.order_id, e.version;

-- name: ResourceEventsAfter :many
-- OrderEventsAfter for resources of one kind.
SELECT e.account, e.mode, e.resource, e.sequence, e.id, e.type, e.schema_version, e.payload, e.trace_id, e.operation, e.actor, e.created_at, e.prev_hash, e.hash
FROM (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@resources::text[]) AS resource,
             unnest(@sequences::bigint[]) AS sequence) w
CROSS JOIN LATERAL (
    SELECT x.* FROM resource_events x
    WHERE x.account = w.account AND x.mode = w.mode AND x.kind = @kind::text AND x.resource = w.resource AND x.sequence > w.sequence
    ORDER BY x.sequence LIMIT @page_size::integer
) e
ORDER BY e.account, e.mode, e.resource, e.sequence;
