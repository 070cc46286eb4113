-- Coupons and the orders that use them, in batches. Locks are taken in the order of (account, mode, code). Only coupons that have a limit
-- are locked and counted: the orders of all others need not wait for each other.

-- name: InsertCoupons :execrows
INSERT INTO coupons (account, mode, code, rules, limited)
SELECT @account::integer, @mode::text, unnest(@codes::text[]), unnest(@rules::jsonb[]), unnest(@limited::boolean[])
ON CONFLICT (account, mode, code) DO NOTHING;

-- name: DisableCoupon :execrows
UPDATE coupons SET active = false, updated_at = now() WHERE account = $1 AND mode = $2 AND code = $3;

-- name: ListCoupons :many
SELECT c.account, c.mode, c.code, c.rules, c.active,
       (SELECT count(*) FROM coupon_redemptions r WHERE r.code = c.code AND r.account = c.account AND r.mode = c.mode) AS uses
FROM coupons c ORDER BY c.account, c.mode, c.code;

-- name: ReadCoupons :many
SELECT c.account, c.mode, c.code, c.rules, c.active, c.limited, c.used FROM coupons c
JOIN (SELECT DISTINCT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@codes::text[]) AS code) w
  ON c.account = w.account AND c.mode = w.mode AND c.code = w.code;

-- name: LockCoupons :many
SELECT c.account, c.mode, c.code, c.rules, c.active, c.used FROM coupons c
JOIN (SELECT DISTINCT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@codes::text[]) AS code) w
  ON c.account = w.account AND c.mode = w.mode AND c.code = w.code
WHERE c.limited
ORDER BY c.account, c.mode, c.code FOR UPDATE OF c;

-- name: LockFreeCoupons :many
-- LockCoupons without the rows that another transaction has locked.
SELECT c.account, c.mode, c.code, c.rules, c.active, c.used FROM coupons c
JOIN (SELECT DISTINCT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@codes::text[]) AS code) w
  ON c.account = w.account AND c.mode = w.mode AND c.code = w.code
WHERE c.limited
ORDER BY c.account, c.mode, c.code FOR UPDATE OF c SKIP LOCKED;

-- name: CountByCustomer :many
-- How often each customer has used a coupon that has a limit. The caller has locked the coupons in an earlier statement: this one sees what was
-- committed while it waited.
SELECT r.account, r.mode, r.code, r.customer_ref, count(*) AS uses FROM coupon_redemptions r
JOIN (SELECT DISTINCT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@codes::text[]) AS code,
             unnest(@customer_refs::text[]) AS customer_ref) w
  ON r.code = w.code AND r.customer_ref = w.customer_ref AND r.account = w.account AND r.mode = w.mode
WHERE EXISTS (SELECT FROM coupons c WHERE c.account = w.account AND c.mode = w.mode AND c.code = w.code AND c.limited)
GROUP BY r.account, r.mode, r.code, r.customer_ref;

-- name: InsertRedemptions :exec
INSERT INTO coupon_redemptions (account, mode, code, order_id, customer_ref)
SELECT unnest(@accounts::integer[]), unnest(@modes::text[]), unnest(@codes::text[]), unnest(@order_ids::uuid[]), unnest(@customer_refs::text[]);

-- name: DeleteRedemptions :many
-- Returns how many redemptions of each coupon are gone.
WITH gone AS (
    DELETE FROM coupon_redemptions r
    USING (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@order_ids::uuid[]) AS order_id) w
    WHERE r.account = w.account AND r.mode = w.mode AND r.order_id = w.order_id
    RETURNING r.account, r.mode, r.code
)
SELECT account, mode, code, count(*) AS uses FROM gone GROUP BY account, mode, code;

-- name: MoveUses :exec
-- Changes the uses of coupons that have a limit. The caller has locked them in order.
UPDATE coupons c SET used = c.used + m.delta, updated_at = now()
FROM (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@codes::text[]) AS code,
             unnest(@deltas::bigint[]) AS delta) m
WHERE c.account = m.account AND c.mode = m.mode AND c.code = m.code AND c.limited;
