-- name: GetOrder :one
-- The id comes by a subselect so that the plan is kept: a known id is planned for anew each time, over all partitions (0.15 ms).
SELECT o.version, o.rev, o.head_hash, o.state, a.address FROM orders o
LEFT JOIN order_addresses a ON a.account = o.account AND a.mode = o.mode AND a.order_id = o.id
WHERE o.account = @account AND o.mode = @mode AND o.id = (SELECT @id::uuid);

-- name: ListOrders :many
-- The newest first: a UUIDv7 sorts by time. Ids below before and from from on; an empty status or customer means any.
SELECT o.id, o.version, o.rev, o.head_hash, o.state, a.address FROM orders o
LEFT JOIN order_addresses a ON a.account = o.account AND a.mode = o.mode AND a.order_id = o.id
WHERE o.account = @account AND o.mode = @mode AND o.id < @before::uuid AND o.id >= @from_id::uuid
  AND (@status::text = '' OR o.status = @status::text)
  AND (@customer_ref::text = '' OR o.customer_ref = @customer_ref::text)
ORDER BY o.id DESC LIMIT @page;

-- name: ListOrderEvents :many
SELECT id, version, type, schema_version, payload, trace_id, operation, actor, created_at FROM order_events
WHERE account = @account AND mode = @mode AND order_id = @order_id AND version > @after
ORDER BY version LIMIT @page;

-- name: GetSaga :many
-- An order without steps is one row of nulls, no order is no row.
SELECT s.step, s.status, s.attempt, s.tries, s.last_code, s.next_at, s.started_at, s.finished_at FROM orders o
LEFT JOIN saga_steps s ON s.account = o.account AND s.mode = o.mode AND s.order_id = o.id
WHERE o.account = @account AND o.mode = @mode AND o.id = (SELECT @id::uuid) ORDER BY s.position, s.attempt;
