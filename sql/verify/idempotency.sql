-- The stored results of operations, and what they made.

-- name: OrdersWithoutOneKey :many
-- Orders of the last 48 hours, less a minute for clocks that differ, that do not have exactly one placeOrder key with a result. Both sides
-- are chosen by the time in the order's id. Keys that name no order count as those of the greatest id.
SELECT o.account, o.mode, o.order_id, sum(o.orders)::bigint AS orders, sum(o.keys)::bigint AS keys, count(*) OVER ()::bigint AS total
FROM (
    SELECT account, mode, id AS order_id, 1 AS orders, 0 AS keys FROM orders
    WHERE id >= uuidv7_lower_bound(now() - interval '47 hours 59 minutes')
    UNION ALL
    SELECT account, mode, COALESCE(order_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff'), 0, 1 FROM idempotency_keys
    WHERE operation = 'placeOrder' AND status BETWEEN 200 AND 299
      AND COALESCE(order_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff') >= uuidv7_lower_bound(now() - interval '47 hours 59 minutes')
) o
GROUP BY o.account, o.mode, o.order_id
HAVING sum(o.orders) = 1 AND sum(o.keys) <> 1 OR o.order_id = 'ffffffff-ffff-ffff-ffff-ffffffffffff'
LIMIT @page_size::integer;

-- name: KeysWithoutOrder :many
-- Keys of which the result is an order that does not exist, of any operation.
SELECT k.account, k.mode, k.order_id::uuid AS order_id, count(*) OVER ()::bigint AS total FROM idempotency_keys k
WHERE k.order_id IS NOT NULL AND NOT EXISTS (SELECT FROM orders o WHERE o.account = k.account AND o.mode = k.mode AND o.id = k.order_id)
LIMIT @page_size::integer;

-- name: CountKeys :one
SELECT count(*) FROM idempotency_keys;

-- name: ResultsWithoutOneKey :many
-- What an operation makes with an event, and the keys that have it as their result: payments, refunds, shipments, deliveries, adjustments. Each of
-- the last 48 hours, less a minute for clocks that differ, has exactly one key, and each key has one of them, however old. An adjustment has
-- its id in the body alone. It is read by a pattern, so that a body that is no JSON is a finding; JSON escapes the quotes of a client's text.
SELECT r.account, r.mode, r.operation, r.result::text AS result, sum(r.made)::bigint AS made, sum(r.keys)::bigint AS keys, count(*) OVER ()::bigint AS total
FROM (
    SELECT account, mode, operation, 1 AS made, (id >= uuidv7_lower_bound(now() - interval '47 hours 59 minutes'))::integer AS recent, 0 AS keys,
           CASE kind WHEN 'inventory' THEN COALESCE(substring(payload FROM '"adjustment_id":"(adj_[0-9a-f]{32})"'), '') ELSE resource END AS result
    FROM resource_events
    WHERE operation = 'payOrder' AND type = 'payment.created' OR operation = 'refundPayment' AND type = 'refund.created'
       OR operation = 'shipOrder' AND type = 'shipment.created' OR operation = 'deliverShipment' AND type = 'shipment.delivered'
       OR operation = 'adjustInventory' AND type = 'inventory.adjusted'
    UNION ALL
    SELECT account, mode, operation, 0, 0, 1,
           COALESCE(CASE operation WHEN 'adjustInventory' THEN substring(encode(body, 'escape') FROM '"id":"(adj_[0-9a-f]{32})"')
                                   ELSE substring(location FROM '[^/]*$') END, '')
    FROM idempotency_keys
    WHERE status BETWEEN 200 AND 299 AND operation IN ('payOrder', 'refundPayment', 'shipOrder', 'deliverShipment', 'adjustInventory')
) r
GROUP BY r.account, r.mode, r.operation, r.result
HAVING sum(r.made) = 0 OR sum(r.keys) > 1 OR sum(r.recent) > 0 AND sum(r.keys) = 0
LIMIT @page_size::integer;

-- name: KeysWithoutProduct :many
SELECT k.account, k.mode, k.location, count(*) OVER ()::bigint AS total FROM idempotency_keys k
WHERE k.operation = 'createProduct' AND k.status BETWEEN 200 AND 299
  AND NOT EXISTS (SELECT FROM products p WHERE p.account = k.account AND p.mode = k.mode AND '/v1/products/' || p.sku = k.location)
LIMIT @page_size::integer;
