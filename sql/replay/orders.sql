-- Orders and shipments. StaleX names the rows that are missing or differ from their folds in a column other than rev; PutX writes the
-- folds. The rev of a row that is there rises, that of a missing one is the caller's.

-- name: LockOrderRows :many
SELECT o.id FROM orders o
JOIN (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest((SELECT @ids::uuid[])) AS id) w
  ON o.account = w.account AND o.mode = w.mode AND o.id = w.id
ORDER BY o.id FOR UPDATE OF o;

-- name: StaleOrders :many
SELECT w.account::integer AS account, w.mode::text AS mode, w.id::uuid AS id
FROM (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest((SELECT @ids::uuid[])) AS id,
             unnest(@shards::smallint[]) AS shard, unnest(@customer_refs::text[]) AS customer_ref, unnest(@statuses::text[]) AS status,
             unnest(@payment_statuses::text[]) AS payment_status, unnest(@versions::bigint[]) AS version, unnest(@head_hashes::bytea[]) AS head_hash,
             unnest(@states::json[]) AS state, unnest(@created_ats::timestamptz[]) AS created_at, unnest(@updated_ats::timestamptz[]) AS updated_at) w
LEFT JOIN orders o ON o.account = w.account AND o.mode = w.mode AND o.id = w.id
WHERE (o.shard, o.customer_ref, o.status, o.payment_status, o.version, o.head_hash, o.state::jsonb, o.created_at, o.updated_at) IS DISTINCT FROM
      (w.shard, w.customer_ref, w.status, w.payment_status, w.version, w.head_hash, w.state::jsonb, w.created_at, w.updated_at);

-- name: PutOrders :exec
INSERT INTO orders AS o (account, mode, id, shard, customer_ref, status, payment_status, version, head_hash, state, created_at, updated_at, rev)
SELECT unnest(@accounts::integer[]), unnest(@modes::text[]), unnest(@ids::uuid[]), unnest(@shards::smallint[]), unnest(@customer_refs::text[]),
       unnest(@statuses::text[]), unnest(@payment_statuses::text[]), unnest(@versions::bigint[]), unnest(@head_hashes::bytea[]),
       unnest(@states::json[]), unnest(@created_ats::timestamptz[]), unnest(@updated_ats::timestamptz[]), unnest(@revs::bigint[])
ON CONFLICT (account, mode, id) DO UPDATE
SET shard = EXCLUDED.shard, customer_ref = EXCLUDED.customer_ref, status = EXCLUDED.status, payment_status = EXCLUDED.payment_status,
    version = EXCLUDED.version, head_hash = EXCLUDED.head_hash, state = EXCLUDED.state, created_at = EXCLUDED.created_at,
    updated_at = EXCLUDED.updated_at, rev = GREATEST(o.rev + 1, EXCLUDED.rev);

-- name: DeleteOrdersWithoutEvents :execrows
DELETE FROM orders WHERE (account, mode, id) IN (
    SELECT o.account, o.mode, o.id FROM orders o WHERE NOT EXISTS (SELECT FROM order_events e WHERE e.account = o.account AND e.mode = o.mode AND e.order_id = o.id) LIMIT @page_size::integer
);

-- name: StaleShipments :many
SELECT w.account::integer AS account, w.mode::text AS mode, w.id::uuid AS id
FROM (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@ids::uuid[]) AS id, unnest(@order_ids::uuid[]) AS order_id,
             unnest(@lines::jsonb[]) AS lines, unnest(@trackings::jsonb[]) AS tracking, unnest(@statuses::text[]) AS status,
             unnest(@versions::bigint[]) AS version, unnest(@head_hashes::bytea[]) AS head_hash, unnest(@created_ats::timestamptz[]) AS created_at,
             unnest(@updated_ats::timestamptz[]) AS updated_at, NULLIF(unnest(@delivered_ats::timestamptz[]), '0001-01-01T00:00:00Z'::timestamptz) AS delivered_at) w
LEFT JOIN shipments s ON s.account = w.account AND s.mode = w.mode AND s.id = w.id
WHERE (s.order_id, s.lines, s.tracking, s.status, s.version, s.head_hash, s.created_at, s.updated_at, s.delivered_at) IS DISTINCT FROM
      (w.order_id, w.lines, w.tracking, w.status, w.version, w.head_hash, w.created_at, w.updated_at, w.delivered_at);

-- name: PutShipments :exec
INSERT INTO shipments AS s (account, mode, id, order_id, lines, tracking, status, version, head_hash, created_at, updated_at, delivered_at, rev)
SELECT unnest(@accounts::integer[]), unnest(@modes::text[]), unnest(@ids::uuid[]), unnest(@order_ids::uuid[]), unnest(@lines::jsonb[]),
       unnest(@trackings::jsonb[]), unnest(@statuses::text[]), unnest(@versions::bigint[]), unnest(@head_hashes::bytea[]),
       unnest(@created_ats::timestamptz[]), unnest(@updated_ats::timestamptz[]),
       NULLIF(unnest(@delivered_ats::timestamptz[]), '0001-01-01T00:00:00Z'::timestamptz), unnest(@revs::bigint[])
ON CONFLICT (account, mode, id) DO UPDATE
SET order_id = EXCLUDED.order_id, lines = EXCLUDED.lines, tracking = EXCLUDED.tracking, status = EXCLUDED.status, version = EXCLUDED.version,
    head_hash = EXCLUDED.head_hash, created_at = EXCLUDED.created_at, updated_at = EXCLUDED.updated_at, delivered_at = EXCLUDED.delivered_at,
    rev = GREATEST(s.rev + 1, EXCLUDED.rev);

-- name: DeleteShipmentsWithoutEvents :execrows
DELETE FROM shipments WHERE (account, mode, id) IN (
    SELECT s.account, s.mode, s.id FROM shipments s WHERE NOT EXISTS (SELECT FROM resource_events e
    WHERE e.account = s.account AND e.mode = s.mode AND e.kind = 'shipment' AND e.resource = 'shp_' || replace(s.id::text, '-', '')) LIMIT @page_size::integer
);
