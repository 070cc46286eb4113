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
SELECT e.id, count(*) OVER ()::bigint AS total FROM (SELECT id FROM order_events UNION ALL SELECT id FROM resource_events) e
GROUP BY e.id HAVING count(*) > 1 LIMIT @page_size::integer;

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
SELECT s.account, s.mode, s.order_id, s.step, s.attempt, s.undo, s.status, (s.input <> '' AND s.status <> 'pending')::boolean AS token FROM saga_steps s
JOIN (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@order_ids::uuid[]) AS order_id) w
  ON s.account = w.account AND s.mode = w.mode AND s.order_id = w.order_id
ORDER BY s.order_id, s.position;

-- name: StepsWithoutOrder :many
SELECT s.account, s.mode, s.order_id, count(*) OVER ()::bigint AS total
FROM sagas s
WHERE NOT EXISTS (SELECT FROM orders o WHERE o.account = s.account AND o.mode = s.mode AND o.id = s.order_id)
LIMIT @page_size::integer;
