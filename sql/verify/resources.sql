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
-- refund_times are those of the last events of its refunds, each of which moves the payment's updated_at.
SELECT sqlc.embed(p), ARRAY(
    SELECT r.updated_at FROM refunds r WHERE r.payment_id = p.id AND (r.account, r.mode) IS NOT DISTINCT FROM (p.account, p.mode)
)::timestamptz[] AS refund_times
FROM payments p WHERE (p.account, p.mode, p.id) > (@after_account::integer, @after_mode::text, @after_id::uuid)
ORDER BY p.account, p.mode, p.id LIMIT @page_size::integer;

-- name: RefundPage :many
SELECT * FROM refunds WHERE (account, mode, id) > (@after_account::integer, @after_mode::text, @after_id::uuid)
ORDER BY account, mode, id LIMIT @page_size::integer;

-- name: ShipmentPage :many
SELECT * FROM shipments WHERE (account, mode, id) > (@after_account::integer, @after_mode::text, @after_id::uuid)
ORDER BY account, mode, id LIMIT @page_size::integer;

-- name: ResourceEventsOf :many
-- The events of resources of one kind. Each has a handful.
SELECT e.* FROM resource_events e
JOIN (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@resources::text[]) AS resource) w
  ON e.account = w.account AND e.mode = w.mode AND e.resource = w.resource
WHERE e.kind = @kind::text
ORDER BY e.account, e.mode, e.resource, e.sequence;

-- name: EventsWithoutResource :many
SELECT e.account, e.mode, e.kind, e.resource, count(*) OVER ()::bigint AS total
FROM (SELECT DISTINCT account, mode, kind, resource FROM resource_events WHERE kind <> 'inventory') e
WHERE NOT EXISTS (
    SELECT FROM (
        SELECT account, mode, 'payment' AS kind, 'pay_' || replace(id::text, '-', '') AS resource FROM payments
        UNION ALL
        SELECT account, mode, 'refund', 'ref_' || replace(id::text, '-', '') FROM refunds
        UNION ALL
        SELECT account, mode, 'shipment', 'shp_' || replace(id::text, '-', '') FROM shipments
    ) r
    WHERE r.account = e.account AND r.mode = e.mode AND r.kind = e.kind AND r.resource = e.resource
)
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
