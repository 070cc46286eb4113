-- Payments, refunds and shipments with their events, and the events of inventory.

-- name: CountResourceEvents :one
SELECT count(*) FROM resource_events;

-- name: ResourceEventPage :many
SELECT * FROM resource_events
WHERE (account, mode, kind, resource, sequence)
    > (@after_account::integer, @after_mode::text, @after_kind::text, @after_resource::text, @after_sequence::bigint)
ORDER BY account, mode, kind, resource, sequence LIMIT @page_size::integer;

-- name: CountResources :one
SELECT ((SELECT count(*) FROM payments) + (SELECT count(*) FROM refunds) + (SELECT count(*) FROM shipments))::bigint AS resources;

-- name: PaymentPage :many
-- touched_at is the latest event of its refunds, 1970 if it has none: the payment's updated_at is not before it.
SELECT sqlc.embed(p), COALESCE((
    SELECT max(GREATEST(r.created_at, r.updated_at)) FROM refunds r WHERE r.payment_id = p.id AND (r.account, r.mode) IS NOT DISTINCT FROM (p.account, p.mode)
), to_timestamp(0))::timestamptz AS touched_at
FROM payments p WHERE (p.account, p.mode, p.id) > (@after_account::integer, @after_mode::text, @after_id::uuid)
ORDER BY p.account, p.mode, p.id LIMIT @page_size::integer;

-- name: RefundPage :many
SELECT * FROM refunds WHERE (account, mode, id) > (@after_account::integer, @after_mode::text, @after_id::uuid)
ORDER BY account, mode, id LIMIT @page_size::integer;

-- name: ShipmentPage :many
SELECT * FROM shipments WHERE (account, mode, id) > (@after_account::integer, @after_mode::text, @after_id::uuid)
ORDER BY account, mode, id LIMIT @page_size::integer;

-- name: ResourceEventsOf :many
-- The events of resources of one kind. Each has a handful. OFFSET 0 keeps the planner from joining by the kind alone, which looks as good to
-- it while there are no statistics.
SELECT e.* FROM (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@resources::text[]) AS resource) w
CROSS JOIN LATERAL (
    SELECT * FROM resource_events
    WHERE account = w.account AND mode = w.mode AND kind = @kind::text AND resource_events.resource = w.resource OFFSET 0
) e
ORDER BY e.account, e.mode, e.resource, e.sequence;

-- name: EventsWithoutResource :many
-- The rows are counted by their ids: NOT EXISTS may be a join by account and mode alone.
SELECT e.account, e.mode, e.kind, e.resource, count(*) OVER ()::bigint AS total
FROM (
    SELECT DISTINCT account, mode, kind, resource,
           CASE WHEN resource ~ '^(pay|ref|shp)_[0-9a-f]{32}$' THEN substring(resource FROM 5)::uuid END AS id
    FROM resource_events WHERE kind <> 'inventory'
) e
WHERE CASE e.kind
    WHEN 'payment' THEN (SELECT count(*) FROM payments p WHERE p.account = e.account AND p.mode = e.mode AND p.id = e.id)
    WHEN 'refund' THEN (SELECT count(*) FROM refunds r WHERE r.account = e.account AND r.mode = e.mode AND r.id = e.id)
    ELSE (SELECT count(*) FROM shipments s WHERE s.account = e.account AND s.mode = e.mode AND s.id = e.id)
END = 0
LIMIT @page_size::integer;

-- name: ShipmentsOf :many
-- Account and mode are compared in a form that no index serves, as those of payments.
SELECT s.account, s.mode, s.order_id, s.id, s.lines, s.status FROM shipments s
JOIN (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@order_ids::uuid[]) AS order_id) w
  ON s.order_id = w.order_id AND (s.account, s.mode) IS NOT DISTINCT FROM (w.account, w.mode);

-- name: ShipmentsWithoutOrder :many
SELECT s.account, s.mode, s.order_id, count(*) OVER ()::bigint AS total FROM shipments s
WHERE NOT EXISTS (SELECT FROM orders o WHERE o.account = s.account AND o.mode = s.mode AND o.id = s.order_id)
LIMIT @page_size::integer;
