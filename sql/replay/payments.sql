-- Payments and refunds, as in orders.sql.

-- name: LockPaymentRows :many
SELECT p.id FROM payments p
JOIN (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@ids::uuid[]) AS id) w
  ON p.account = w.account AND p.mode = w.mode AND p.id = w.id
ORDER BY p.id FOR UPDATE OF p;

-- name: RefundSums :many
-- The sums of the payments' refunds, and how many events those have. It must be a later statement than LockPaymentRows. Account and mode
-- are compared in a form that no index serves, as in verify.
SELECT w.account::integer AS account, w.mode::text AS mode, w.id::uuid AS id,
       COALESCE(sum(f.amount) FILTER (WHERE f.status = 'succeeded'), 0)::bigint AS succeeded,
       COALESCE(sum(f.amount) FILTER (WHERE f.status = 'pending'), 0)::bigint AS pending, sum(f.version)::bigint AS events,
       max(GREATEST(f.created_at, f.updated_at))::timestamptz AS updated_at
FROM (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@ids::uuid[]) AS id) w
JOIN refunds f ON f.payment_id = w.id AND (f.account, f.mode) IS NOT DISTINCT FROM (w.account, w.mode)
GROUP BY w.account, w.mode, w.id;

-- name: StalePayments :many
SELECT w.account::integer AS account, w.mode::text AS mode, w.id::uuid AS id
FROM (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@ids::uuid[]) AS id, unnest(@order_ids::uuid[]) AS order_id,
             unnest(@attempts::integer[]) AS attempt, unnest(@amounts::bigint[]) AS amount, unnest(@currencies::text[]) AS currency,
             unnest(@statuses::text[]) AS status, unnest(@refunded::bigint[]) AS refunded, unnest(@refund_pending::bigint[]) AS refund_pending,
             unnest(@failure_codes::text[]) AS failure_code, unnest(@decline_reasons::text[]) AS decline_reason, unnest(@reference::text[]) AS reference,
             unnest(@versions::bigint[]) AS version, unnest(@head_hashes::bytea[]) AS head_hash, unnest(@created_ats::timestamptz[]) AS created_at,
             unnest(@updated_ats::timestamptz[]) AS updated_at) w
LEFT JOIN payments p ON p.account = w.account AND p.mode = w.mode AND p.id = w.id
WHERE (p.order_id, p.attempt, p.amount, p.currency, p.status, p.refunded, p.refund_pending, p.failure_code, p.decline_reason, p.reference, p.version,
       p.head_hash, p.created_at, p.updated_at) IS DISTINCT FROM
      (w.order_id, w.attempt, w.amount, w.currency, w.status, w.refunded, w.refund_pending, w.failure_code, w.decline_reason, w.reference, w.version,
       w.head_hash, w.created_at, w.updated_at);

-- name: PutPayments :exec
INSERT INTO payments AS p (account, mode, id, order_id, attempt, amount, currency, status, refunded, refund_pending, failure_code, decline_reason,
                           reference, version, head_hash, created_at, updated_at, rev)
SELECT unnest(@accounts::integer[]), unnest(@modes::text[]), unnest(@ids::uuid[]), unnest(@order_ids::uuid[]), unnest(@attempts::integer[]),
       unnest(@amounts::bigint[]), unnest(@currencies::text[]), unnest(@statuses::text[]), unnest(@refunded::bigint[]),
       unnest(@refund_pending::bigint[]), unnest(@failure_codes::text[]), unnest(@decline_reasons::text[]), unnest(@reference::text[]),
       unnest(@versions::bigint[]), unnest(@head_hashes::bytea[]), unnest(@created_ats::timestamptz[]), unnest(@updated_ats::timestamptz[]),
       unnest(@revs::bigint[])
ON CONFLICT (account, mode, id) DO UPDATE
SET order_id = EXCLUDED.order_id, attempt = EXCLUDED.attempt, amount = EXCLUDED.amount, currency = EXCLUDED.currency, status = EXCLUDED.status,
    refunded = EXCLUDED.refunded, refund_pending = EXCLUDED.refund_pending, failure_code = EXCLUDED.failure_code,
    decline_reason = EXCLUDED.decline_reason, reference = EXCLUDED.reference, version = EXCLUDED.version, head_hash = EXCLUDED.head_hash,
    created_at = EXCLUDED.created_at, updated_at = EXCLUDED.updated_at, rev = GREATEST(p.rev + 1, EXCLUDED.rev);

-- name: DeletePaymentsWithoutEvents :execrows
DELETE FROM payments WHERE (account, mode, id) IN (
    SELECT p.account, p.mode, p.id FROM payments p WHERE NOT EXISTS (SELECT FROM resource_events e
    WHERE e.account = p.account AND e.mode = p.mode AND e.kind = 'payment' AND e.resource = 'pay_' || replace(p.id::text, '-', '')) LIMIT @page_size::integer
);

-- name: StaleRefunds :many
SELECT w.account::integer AS account, w.mode::text AS mode, w.id::uuid AS id
FROM (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@ids::uuid[]) AS id, unnest(@payment_ids::uuid[]) AS payment_id,
             unnest(@order_ids::uuid[]) AS order_id, unnest(@amounts::bigint[]) AS amount, unnest(@currencies::text[]) AS currency,
             unnest(@reasons::text[]) AS reason, unnest(@statuses::text[]) AS status, unnest(@failure_codes::text[]) AS failure_code,
             unnest(@decline_reasons::text[]) AS decline_reason, unnest(@reference::text[]) AS reference, unnest(@versions::bigint[]) AS version,
             unnest(@head_hashes::bytea[]) AS head_hash, unnest(@created_ats::timestamptz[]) AS created_at, unnest(@updated_ats::timestamptz[]) AS updated_at) w
LEFT JOIN refunds r ON r.account = w.account AND r.mode = w.mode AND r.id = w.id
WHERE (r.payment_id, r.order_id, r.amount, r.currency, r.reason, r.status, r.failure_code, r.decline_reason, r.reference, r.version, r.head_hash,
       r.created_at, r.updated_at) IS DISTINCT FROM
      (w.payment_id, w.order_id, w.amount, w.currency, w.reason, w.status, w.failure_code, w.decline_reason, w.reference, w.version, w.head_hash,
       w.created_at, w.updated_at);

-- name: PutRefunds :exec
INSERT INTO refunds AS r (account, mode, id, payment_id, order_id, amount, currency, reason, status, failure_code, decline_reason, reference, version,
                          head_hash, created_at, updated_at, rev)
SELECT unnest(@accounts::integer[]), unnest(@modes::text[]), unnest(@ids::uuid[]), unnest(@payment_ids::uuid[]), unnest(@order_ids::uuid[]),
       unnest(@amounts::bigint[]), unnest(@currencies::text[]), unnest(@reasons::text[]), unnest(@statuses::text[]), unnest(@failure_codes::text[]),
       unnest(@decline_reasons::text[]), unnest(@reference::text[]), unnest(@versions::bigint[]), unnest(@head_hashes::bytea[]),
       unnest(@created_ats::timestamptz[]), unnest(@updated_ats::timestamptz[]), unnest(@revs::bigint[])
ON CONFLICT (account, mode, id) DO UPDATE
SET payment_id = EXCLUDED.payment_id, order_id = EXCLUDED.order_id, amount = EXCLUDED.amount, currency = EXCLUDED.currency, reason = EXCLUDED.reason,
    status = EXCLUDED.status, failure_code = EXCLUDED.failure_code, decline_reason = EXCLUDED.decline_reason, reference = EXCLUDED.reference,
    version = EXCLUDED.version, head_hash = EXCLUDED.head_hash, created_at = EXCLUDED.created_at, updated_at = EXCLUDED.updated_at,
    rev = GREATEST(r.rev + 1, EXCLUDED.rev);

-- name: DeleteRefundsWithoutEvents :execrows
DELETE FROM refunds WHERE (account, mode, id) IN (
    SELECT r.account, r.mode, r.id FROM refunds r WHERE NOT EXISTS (SELECT FROM resource_events e
    WHERE e.account = r.account AND e.mode = r.mode AND e.kind = 'refund' AND e.resource = 'ref_' || replace(r.id::text, '-', '')) LIMIT @page_size::integer
);
