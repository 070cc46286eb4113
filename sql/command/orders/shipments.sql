-- Shipments. The holder of an order's lock alone reads and writes the shipments of the order.

-- name: OrdersOfShipments :many
-- It takes no locks: a shipment keeps its order.
SELECT s.account, s.mode, s.id, s.order_id FROM shipments s
JOIN (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@ids::uuid[]) AS id) w
  ON s.account = w.account AND s.mode = w.mode AND s.id = w.id;

-- name: GetShipments :many
SELECT s.account, s.mode, s.id, s.order_id, s.lines, s.tracking, s.status, s.version, s.head_hash, s.created_at, s.updated_at, s.delivered_at FROM shipments s
JOIN (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@ids::uuid[]) AS id) w
  ON s.account = w.account AND s.mode = w.mode AND s.id = w.id;

-- name: InsertShipments :exec
INSERT INTO shipments (account, mode, id, order_id, lines, tracking, status, version, head_hash, created_at, updated_at, delivered_at)
SELECT unnest(@accounts::integer[]), unnest(@modes::text[]), unnest(@ids::uuid[]), unnest(@order_ids::uuid[]), unnest(@lines::jsonb[]),
       unnest(@trackings::jsonb[]), unnest(@statuses::text[]), unnest(@versions::bigint[]), unnest(@head_hashes::bytea[]),
       unnest(@created_ats::timestamptz[]), unnest(@updated_ats::timestamptz[]),
       NULLIF(unnest(@delivered_ats::timestamptz[]), '0001-01-01T00:00:00Z'::timestamptz);

-- name: UpdateShipments :exec
UPDATE shipments s
SET status = u.status, version = u.version, rev = s.rev + 1, head_hash = u.head_hash, updated_at = u.updated_at,
    delivered_at = NULLIF(u.delivered_at, '0001-01-01T00:00:00Z'::timestamptz)
FROM (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@ids::uuid[]) AS id,
             unnest(@statuses::text[]) AS status, unnest(@versions::bigint[]) AS version,
             unnest(@head_hashes::bytea[]) AS head_hash, unnest(@updated_ats::timestamptz[]) AS updated_at,
             unnest(@delivered_ats::timestamptz[]) AS delivered_at) u
WHERE s.account = u.account AND s.mode = u.mode AND s.id = u.id;
