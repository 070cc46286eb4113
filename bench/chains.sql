-- The events of the orders that the program has placed. Those of pgbench are all copies of one order's.
SELECT e.order_id, e.version, e.id, e.type, e.schema_version, e.payload, e.trace_id, e.operation, e.actor, e.created_at, e.prev_hash, e.hash
FROM idempotency_keys k JOIN order_events e ON (e.account, e.mode, e.order_id) = (k.account, k.mode, k.order_id)
WHERE k.account = $1 AND k.operation = 'placeOrder' AND k.key NOT LIKE 'pgbench-%'
ORDER BY e.order_id, e.version
