-- Stock and reservations.

-- name: CountStock :one
SELECT count(*) FROM stock;

-- name: WrongStock :many
-- Skus of which the reserved pieces are not those of held reservations, or more than there are, or of which the pieces on hand are not those
-- of adjustments less those of confirmed reservations. levels is 0 for one that has events or reservations alone. A delta is read by a pattern, so
-- that a payload that is no JSON is a finding.
SELECT s.account, s.mode, s.sku, sum(s.levels)::bigint AS levels, sum(s.on_hand)::bigint AS on_hand, sum(s.reserved)::bigint AS reserved,
       sum(s.held)::bigint AS held, sum(s.confirmed)::bigint AS confirmed, sum(s.adjusted)::numeric::text AS adjusted, count(*) OVER ()::bigint AS total
FROM (
    SELECT account, mode, sku, 1 AS levels, on_hand, reserved, 0::bigint AS held, 0::bigint AS confirmed, 0::numeric AS adjusted FROM stock
    UNION ALL
    SELECT l.account, l.mode, l.sku, 0, 0, 0, CASE r.status WHEN 'held' THEN l.quantity ELSE 0 END,
           CASE r.status WHEN 'confirmed' THEN l.quantity ELSE 0 END, 0
    FROM stock_reservations r
    JOIN stock_reservation_lines l ON l.account = r.account AND l.mode = r.mode AND l.order_id = r.order_id AND l.attempt = r.attempt
    WHERE r.status IN ('held', 'confirmed')
    UNION ALL
    SELECT account, mode, resource, 0, 0, 0, 0, 0,
           CASE type WHEN 'inventory.adjusted' THEN COALESCE(substring(payload FROM '"delta":(-?[0-9]+)')::numeric, 0) ELSE 0 END
    FROM resource_events WHERE kind = 'inventory'
) s
GROUP BY s.account, s.mode, s.sku
HAVING sum(s.levels) = 0 OR sum(s.reserved) <> sum(s.held) OR sum(s.reserved) NOT BETWEEN 0 AND sum(s.on_hand)
    OR sum(s.on_hand) <> sum(s.adjusted) - sum(s.confirmed)
LIMIT @page_size::integer;

-- name: StockWithoutHead :many
-- Stock of which version and hash are not those of its last event. Stock without events has none of them.
SELECT s.account, s.mode, s.sku, s.version, COALESCE(e.sequence, 0)::bigint AS last, count(*) OVER ()::bigint AS total FROM stock s
LEFT JOIN LATERAL (
    SELECT sequence, hash FROM resource_events WHERE account = s.account AND mode = s.mode AND kind = 'inventory' AND resource = s.sku
    ORDER BY sequence DESC LIMIT 1
) e ON true
WHERE s.version <> COALESCE(e.sequence, 0) OR s.head_hash <> COALESCE(e.hash, '')
LIMIT @page_size::integer;

-- name: ProductsWithoutStock :many
-- Products that have no stock row, or one with another threshold. has_stock tells which.
SELECT p.account, p.mode, p.sku, (s.sku IS NOT NULL)::boolean AS has_stock,
       COALESCE(s.low_at, -1)::bigint AS low_at, COALESCE(p.low_stock_at, -1)::bigint AS low_stock_at, count(*) OVER ()::bigint AS total
FROM products p LEFT JOIN stock s ON s.account = p.account AND s.mode = p.mode AND s.sku = p.sku
WHERE s.sku IS NULL OR s.low_at <> COALESCE(p.low_stock_at, -1)
LIMIT @page_size::integer;

-- name: LinesWithoutReservation :many
SELECT l.account, l.mode, l.order_id, count(*) OVER ()::bigint AS total FROM stock_reservation_lines l
WHERE NOT EXISTS (SELECT FROM stock_reservations r
                  WHERE r.account = l.account AND r.mode = l.mode AND r.order_id = l.order_id AND r.attempt = l.attempt)
LIMIT @page_size::integer;

-- name: ReservationsOf :many
SELECT r.account, r.mode, r.order_id, r.attempt, r.status FROM stock_reservations r
JOIN (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@order_ids::uuid[]) AS order_id) w
  ON r.account = w.account AND r.mode = w.mode AND r.order_id = w.order_id;

-- name: ReservationLinesOf :many
SELECT l.account, l.mode, l.order_id, l.attempt, l.sku, l.quantity FROM stock_reservation_lines l
JOIN (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@order_ids::uuid[]) AS order_id) w
  ON l.account = w.account AND l.mode = w.mode AND l.order_id = w.order_id;

-- name: ReservationsWithoutOrder :many
SELECT r.account, r.mode, r.order_id, count(*) OVER ()::bigint AS total FROM stock_reservations r
WHERE NOT EXISTS (SELECT FROM orders o WHERE o.account = r.account AND o.mode = r.mode AND o.id = r.order_id)
LIMIT @page_size::integer;
