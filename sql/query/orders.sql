-- name: GetOrder :one
SELECT o.version, o.rev, o.head_hash, o.state, a.address FROM orders o
LEFT JOIN order_addresses a ON a.account = o.account AND a.mode = o.mode AND a.order_id = o.id
WHERE o.account = @account AND o.mode = @mode AND o.id = @id;

-- name: ListOrders :many
-- The newest orders come first: a UUIDv7 sorts by time. Ids are below before and not below from_id; an empty status, customer or reference
-- means any. One branch runs, on its own index: a cached plan in which all filters are optional walks all orders of the account to find one.
-- A cached join may walk all addresses; the subselect looks them up.
SELECT o.id, o.version, o.rev, o.head_hash, o.state,
  (SELECT a.address FROM order_addresses a WHERE a.account = o.account AND a.mode = o.mode AND a.order_id = o.id) AS address
FROM (
  (SELECT x.* FROM orders x WHERE @status::text = '' AND @customer_ref::text = '' AND @reference::text = ''
    AND x.account = @account AND x.mode = @mode AND x.id < @before::uuid AND x.id >= @from_id::uuid ORDER BY x.id DESC LIMIT @page)
  UNION ALL
  (SELECT x.* FROM orders x WHERE @status::text <> '' AND @customer_ref::text = '' AND @reference::text = '' AND x.status = @status::text
    AND x.account = @account AND x.mode = @mode AND x.id < @before::uuid AND x.id >= @from_id::uuid ORDER BY x.id DESC LIMIT @page)
  UNION ALL
  (SELECT x.* FROM orders x WHERE @customer_ref::text <> '' AND @reference::text = '' AND (@status::text = '' OR x.status = @status::text) AND x.customer_ref = @customer_ref::text
    AND x.account = @account AND x.mode = @mode AND x.id < @before::uuid AND x.id >= @from_id::uuid ORDER BY x.id DESC LIMIT @page)
  UNION ALL
  (SELECT x.* FROM order_references r CROSS JOIN LATERAL (
      SELECT * FROM orders y WHERE y.account = r.account AND y.mode = r.mode AND y.id = r.order_id OFFSET 0
    ) x
    WHERE @reference::text <> '' AND r.account = @account AND r.mode = @mode AND r.reference = @reference::text
    AND (@status::text = '' OR x.status = @status::text) AND (@customer_ref::text = '' OR x.customer_ref = @customer_ref::text)
    AND x.id < @before::uuid AND x.id >= @from_id::uuid)
) AS o
ORDER BY o.id DESC;

-- name: ListOrderEvents :many
SELECT id, version, type, schema_version, payload, trace_id, operation, actor, created_at FROM order_events
WHERE account = @account AND mode = @mode AND order_id = @order_id AND version > @after
ORDER BY version LIMIT @page;

-- name: OrderHistory :many
-- A page of an order's events after a version, each with the order's present address.
SELECT e.version, e.type, e.schema_version, e.payload, e.created_at, e.hash,
  (SELECT a.address FROM order_addresses a WHERE a.account = @account AND a.mode = @mode AND a.order_id = @order_id) AS address
FROM order_events e WHERE e.account = @account AND e.mode = @mode AND e.order_id = @order_id AND e.version > @after
ORDER BY e.version LIMIT @page;

-- name: GetSaga :many
-- The saga's steps with payment's calls. Several refunds may serve one step: an open one is shown, else the one that took the most tries, the last of equals.
-- An order without steps is one row of nulls, no order is no row.
SELECT s.step, s.attempt, COALESCE(s.undo, false)::boolean AS undo, COALESCE(CASE WHEN s.status = 'running' AND c.in_doubt THEN 'in_doubt' ELSE s.status END, '')::text AS status,
  COALESCE(c.tries, CASE WHEN s.started_at IS NULL THEN 0 ELSE 1 END)::integer AS tries, COALESCE(NULLIF(s.code, ''), c.last_code, '')::text AS last_code,
  c.next_at, s.started_at, s.finished_at
FROM orders o
LEFT JOIN saga_steps s ON s.account = o.account AND s.mode = o.mode AND s.order_id = o.id
LEFT JOIN LATERAL (
    SELECT pc.tries, pc.in_doubt, pc.last_code, pc.next_at FROM payment_calls pc
    WHERE pc.account = s.account AND pc.mode = s.mode AND pc.order_id = s.order_id AND pc.operation = s.step AND pc.attempt = s.attempt
    ORDER BY pc.next_at IS NULL, pc.tries DESC, pc.subject DESC LIMIT 1
) c ON true
WHERE o.account = @account AND o.mode = @mode AND o.id = (SELECT @id::uuid) ORDER BY s.position, s.attempt;
