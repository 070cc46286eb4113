-- Coupons and references, which stand beside the orders that have them.

-- name: CountRedemptions :one
SELECT count(*) FROM coupon_redemptions;

-- name: WrongCoupons :many
-- Coupons with a limit whose count is not that of their redemptions, and redemptions without a coupon.
SELECT c.account, c.mode, c.code, sum(c.coupons)::bigint AS coupons, sum(c.used)::bigint AS used, sum(c.redemptions)::bigint AS redemptions,
       count(*) OVER ()::bigint AS total
FROM (
    SELECT account, mode, code, 1 AS coupons, limited, used, 0 AS redemptions FROM coupons
    UNION ALL
    SELECT account, mode, code, 0, false, 0, 1 FROM coupon_redemptions
) c
GROUP BY c.account, c.mode, c.code HAVING sum(c.coupons) <> 1 OR bool_or(c.limited) AND sum(c.used) <> sum(c.redemptions)
LIMIT @page_size::integer;

-- name: OrdersWithoutRedemption :many
-- Orders with a coupon that did not end without a sale and have no redemption of it, and redemptions without such an order.
SELECT o.account, o.mode, o.order_id, o.code::text AS code, sum(o.orders)::bigint AS orders, sum(o.redemptions)::bigint AS redemptions,
       count(*) OVER ()::bigint AS total
FROM (
    SELECT account, mode, id AS order_id, state->>'coupon_code' AS code, customer_ref, 1 AS orders, 0 AS redemptions FROM orders
    WHERE state->>'coupon_code' IS NOT NULL AND status NOT IN ('rejected', 'cancelled')
    UNION ALL
    SELECT account, mode, order_id, code, customer_ref, 0, 1 FROM coupon_redemptions
) o
GROUP BY o.account, o.mode, o.order_id, o.code, o.customer_ref HAVING sum(o.orders) <> sum(o.redemptions)
LIMIT @page_size::integer;

-- name: CountReferences :one
SELECT count(*) FROM order_references;

-- name: OrdersWithoutReference :many
-- Orders whose reference has no row, and rows whose order has another reference or none.
SELECT o.account, o.mode, o.order_id, o.reference::text AS reference, sum(o.orders)::bigint AS orders, count(*) OVER ()::bigint AS total
FROM (
    SELECT account, mode, id AS order_id, state->>'reference' AS reference, 1 AS orders, 0 AS rows FROM orders
    WHERE state->>'reference' IS NOT NULL
    UNION ALL
    SELECT account, mode, order_id, reference, 0, 1 FROM order_references
) o
GROUP BY o.account, o.mode, o.order_id, o.reference HAVING sum(o.orders) <> sum(o.rows)
LIMIT @page_size::integer;
