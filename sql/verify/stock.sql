-- Stock and reservations.

-- name: CountStock :one
SELECT count(*) FROM stock;

-- name: WrongStock :many
-- Skus of which the reserved pieces are not those of held reservations, or more than there are.
SELECT s.account, s.mode, s.sku, sum(s.on_hand)::bigint AS on_hand, sum(s.reserved)::bigint AS reserved, sum(s.held)::bigint AS held,
       count(*) OVER ()::bigint AS total
FROM (
    SELECT account, mode, sku, on_hand, reserved, 0::bigint AS held FROM stock
    UNION ALL
    SELECT l.account, l.mode, l.sku, 0, 0, l.quantity FROM stock_reservations r
    JOIN stock_reservation_lines l ON l.account = r.account AND l.mode = r.mode AND l.order_id = r.order_id AND l.attempt = r.attempt
    WHERE r.status = 'held'
) s
GROUP BY s.account, s.mode, s.sku
HAVING sum(s.reserved) <> sum(s.held) OR sum(s.reserved) NOT BETWEEN 0 AND sum(s.on_hand)
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
