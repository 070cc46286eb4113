-- Each of these must be zero after a run. pgbench's orders have no reservations, and keys that begin with pgbench-.
SELECT 'pieces of stock too many or too few', COALESCE(sum(abs(w.pieces - s.on_hand - COALESCE(t.taken, 0)) + abs(s.reserved - COALESCE(t.held, 0))), 0)::bigint
FROM stock s JOIN (SELECT unnest($3::text[]) AS sku, unnest($4::bigint[]) AS pieces) w USING (sku) LEFT JOIN (
    SELECT l.sku, sum(l.quantity) FILTER (WHERE r.status = 'confirmed') AS taken, sum(l.quantity) FILTER (WHERE r.status = 'held') AS held
    FROM stock_reservation_lines l JOIN stock_reservations r USING (account, mode, order_id, attempt)
    WHERE l.account = $1 GROUP BY l.sku
) t USING (sku)
WHERE s.account = $1
UNION ALL
SELECT 'orders lost or made twice', abs(count(DISTINCT o.id) - $2::bigint) + count(*) - count(DISTINCT o.id)
FROM idempotency_keys k JOIN orders o ON (o.account, o.mode, o.id) = (k.account, k.mode, k.order_id)
WHERE k.account = $1 AND k.operation = 'placeOrder' AND k.key NOT LIKE 'pgbench-%'
UNION ALL
SELECT 'orders whose history has a gap', count(*)
FROM (SELECT account, mode, order_id, count(*) AS events FROM order_events GROUP BY account, mode, order_id) e
RIGHT JOIN orders o ON (e.account, e.mode, e.order_id) = (o.account, o.mode, o.id)
WHERE o.account = $1 AND o.version IS DISTINCT FROM e.events
UNION ALL
SELECT 'messages parked', count(*) FROM parked_messages;
