-- What `ordergate export` reads: all that is kept of a customer, order by order.

-- name: BeginExport :one
-- The first statement of the transaction. It takes the snapshot, and gives the session the time that a reader of the output takes.
SELECT now()::timestamptz AS at, set_config('idle_in_transaction_session_timeout', '10min', true)::text AS idle_timeout;

-- name: ExportOrders :many
-- The oldest first.
SELECT o.id, o.version, o.head_hash, o.state,
  (SELECT a.address FROM order_addresses a WHERE a.account = o.account AND a.mode = o.mode AND a.order_id = o.id) AS address
FROM orders o
WHERE o.customer_ref = @customer_ref AND o.account = @account AND o.mode = @mode AND o.id > @after
ORDER BY o.id LIMIT @page;

-- name: EventsOfOrder :many
SELECT * FROM order_events WHERE account = @account AND mode = @mode AND order_id = @order_id ORDER BY version;

-- name: StepsOfOrder :many
SELECT step, attempt, status, code, started_at, finished_at FROM saga_steps
WHERE account = @account AND mode = @mode AND order_id = @order_id ORDER BY position, attempt;

-- name: PaymentsOfOrder :many
-- Account and mode are compared in a form that no index serves, as verify's PaymentsOf.
SELECT * FROM payments WHERE order_id = @order_id AND (account, mode) IS NOT DISTINCT FROM (@account::integer, @mode::text) ORDER BY attempt;

-- name: RefundsOfPayment :many
SELECT * FROM refunds WHERE payment_id = @payment_id AND account = @account AND mode = @mode ORDER BY id;

-- name: GetShipment :one
SELECT * FROM shipments WHERE account = @account AND mode = @mode AND id = @id;

-- name: EventsOfResource :many
SELECT * FROM resource_events WHERE account = @account AND mode = @mode AND kind = @kind AND resource = @resource ORDER BY sequence;

-- name: GetRedemption :many
SELECT code, customer_ref, created_at FROM coupon_redemptions WHERE account = @account AND mode = @mode AND order_id = @order_id;

-- name: ExportResults :many
SELECT operation, key, status, content_type, etag, location, body, created_at FROM idempotency_keys
WHERE order_id = @order_id::uuid AND (account, mode) IS NOT DISTINCT FROM (@account::integer, @mode::text) ORDER BY created_at, operation, key;
