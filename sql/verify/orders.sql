-- What `ordergate verify` reads of orders: pages by primary key, and the rows that belong to the orders of a page. Arrays of look-ups
-- on partitioned tables come from a subselect, as in command/orders.

-- name: BeginSnapshot :one
-- The first statement of the transaction. It takes the snapshot, and gives the session the time that walks over whole tables take, and
-- pauses while the provider is asked. Without jit: the settings of our sessions make walks look so dear that PostgreSQL compiles each.
SELECT now()::timestamptz AS at, pg_is_in_recovery() AS standby, set_config('statement_timeout', '1h', true)::text AS statement_timeout,
       set_config('idle_in_transaction_session_timeout', '10min', true)::text AS idle_timeout, set_config('jit', 'off', true)::text AS jit;

-- name: EventPage :many
SELECT * FROM order_events
WHERE (account, mode, order_id, version) > (@after_account::integer, @after_mode::text, @after_order_id::uuid, @after_version::bigint)
ORDER BY account, mode, order_id, version LIMIT @page_size::integer;

-- name: RepeatedEventIDs :many
SELECT id, count(*) OVER ()::bigint AS total FROM order_events GROUP BY id HAVING count(*) > 1 LIMIT @page_size::integer;

-- name: OrderPage :many
SELECT account, mode, id, shard, customer_ref, status, payment_status, version, head_hash, state, created_at, updated_at FROM orders
WHERE (account, mode, id) > (@after_account::integer, @after_mode::text, @after_id::uuid)
ORDER BY account, mode, id LIMIT @page_size::integer;

-- name: EventsOf :many
SELECT e.* FROM order_events e
JOIN (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest((SELECT @order_ids::uuid[])) AS order_id) w
  ON e.account = w.account AND e.mode = w.mode AND e.order_id = w.order_id
WHERE (e.account, e.mode, e.order_id, e.version) > (@after_account::integer, @after_mode::text, @after_order_id::uuid, @after_version::bigint)
ORDER BY e.account, e.mode, e.order_id, e.version LIMIT @page_size::integer;

-- name: CountOrders :one
SELECT count(*) FROM orders;

-- name: CountEvents :one
SELECT count(*) FROM order_events;

-- name: ExistingOrders :many
-- Those of the given orders that exist.
SELECT o.account, o.mode, o.id FROM orders o
JOIN (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest((SELECT @order_ids::uuid[])) AS id) w
  ON o.account = w.account AND o.mode = w.mode AND o.id = w.id;

-- name: EventsWithoutOrder :many
SELECT e.account, e.mode, e.order_id, count(*) OVER ()::bigint AS total
FROM (SELECT DISTINCT account, mode, order_id FROM order_events) e
WHERE NOT EXISTS (SELECT FROM orders o WHERE o.account = e.account AND o.mode = e.mode AND o.id = e.order_id)
LIMIT @page_size::integer;

-- name: StepsOf :many
SELECT s.account, s.mode, s.order_id, s.step, s.attempt, s.undo, s.status FROM saga_steps s
JOIN (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@order_ids::uuid[]) AS order_id) w
  ON s.account = w.account AND s.mode = w.mode AND s.order_id = w.order_id
ORDER BY s.order_id, s.position;

-- name: StepsWithoutOrder :many
SELECT s.account, s.mode, s.order_id, count(*) OVER ()::bigint AS total
FROM (SELECT DISTINCT account, mode, order_id FROM saga_steps) s
WHERE NOT EXISTS (SELECT FROM orders o WHERE o.account = s.account AND o.mode = s.mode AND o.id = s.order_id)
LIMIT @page_size::integer;

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
