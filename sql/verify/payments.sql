-- Payments and their calls to the provider.

-- name: PaymentsOf :many
-- Account and mode are compared in a form that no index serves: without statistics the primary key would look as good as the unique key
-- that order_id leads, and every look-up would read all payments of the account. Beside each: the sums over its refunds, and how many of these are
-- pending without a due call, or have one and are not.
SELECT p.account, p.mode, p.id, p.order_id, p.attempt, p.amount, p.currency, p.status, p.refunded, p.refund_pending,
       r.succeeded AS refunds_succeeded, r.pending AS refunds_pending, r.without_call AS refunds_without_call
FROM payments p
JOIN (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@order_ids::uuid[]) AS order_id) w
  ON p.order_id = w.order_id AND (p.account, p.mode) IS NOT DISTINCT FROM (w.account, w.mode)
CROSS JOIN LATERAL (
    SELECT COALESCE(sum(f.amount) FILTER (WHERE f.status = 'succeeded'), 0)::bigint AS succeeded,
           COALESCE(sum(f.amount) FILTER (WHERE f.status = 'pending'), 0)::bigint AS pending,
           count(*) FILTER (WHERE (f.status = 'pending') <> COALESCE((
               SELECT c.next_at IS NOT NULL FROM payment_calls c
               WHERE c.account = f.account AND c.mode = f.mode AND c.subject = f.id AND c.operation = 'refund'), false)) AS without_call
    FROM refunds f
    WHERE f.payment_id = p.id AND f.account = p.account AND f.mode = p.mode
) r;

-- name: CallsOf :many
SELECT c.account, c.mode, c.order_id, c.operation, c.attempt, (c.next_at IS NULL)::boolean AS definite, c.in_doubt FROM payment_calls c
JOIN (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@order_ids::uuid[]) AS order_id) w
  ON c.account = w.account AND c.mode = w.mode AND c.order_id = w.order_id;

-- name: RefundsWithoutPayment :many
-- Refunds of no payment, or of a payment that has another order or currency.
SELECT r.account, r.mode, r.order_id, count(*) OVER ()::bigint AS total FROM refunds r
WHERE NOT EXISTS (SELECT FROM payments p WHERE p.account = r.account AND p.mode = r.mode AND p.id = r.payment_id
                  AND p.order_id = r.order_id AND p.currency = r.currency)
LIMIT @page_size::integer;

-- name: PaymentsWithoutOrder :many
SELECT p.account, p.mode, p.order_id, count(*) OVER ()::bigint AS total FROM payments p
WHERE NOT EXISTS (SELECT FROM orders o WHERE o.account = p.account AND o.mode = p.mode AND o.id = p.order_id)
LIMIT @page_size::integer;

-- name: CallsWithoutOrder :many
SELECT c.account, c.mode, c.order_id, count(*) OVER ()::bigint AS total FROM payment_calls c
WHERE NOT EXISTS (SELECT FROM orders o WHERE o.account = c.account AND o.mode = c.mode AND o.id = c.order_id)
LIMIT @page_size::integer;

-- name: CountCalls :one
SELECT count(*) FROM payment_calls;

-- name: NextPaymentOwner :one
-- The next account and mode that has payments.
SELECT account, mode FROM payments WHERE (account, mode) > (@after_account::integer, @after_mode::text)
ORDER BY account, mode LIMIT 1;

-- name: CallPage :many
-- Calls with their payments. marker: it is no request, but says that the saga wants all back. authorized: another call of the payment
-- exists, which is only made after the authorization succeeded. It is counted: EXISTS may be hashed over all calls.
SELECT c.account, c.mode, c.subject, c.operation, c.order_id, c.tries, (c.next_at IS NULL)::boolean AS definite,
       c.payment_id, c.amount, c.currency, p.status, p.failure_code, COALESCE(r.status, '')::text AS refund_status,
       (c.operation = 'refund' AND c.subject = c.payment_id)::boolean AS marker,
       ((SELECT count(*) FROM payment_calls n WHERE n.account = c.account AND n.mode = c.mode AND n.subject = c.payment_id
         AND n.operation IN ('capture', 'void')) > 0)::boolean AS authorized
FROM payment_calls c
CROSS JOIN LATERAL (SELECT * FROM payments WHERE account = c.account AND mode = c.mode AND id = c.payment_id OFFSET 0) p
LEFT JOIN LATERAL (SELECT * FROM refunds WHERE account = c.account AND mode = c.mode AND id = c.subject OFFSET 0) r ON true
WHERE (c.account, c.mode, c.subject, c.operation) > (@after_account::integer, @after_mode::text, @after_subject::uuid, @after_operation::text)
ORDER BY c.account, c.mode, c.subject, c.operation LIMIT @page_size::integer;

-- name: CallsOfSubjects :many
-- CallPage by subjects and operations. OFFSET 0 keeps the planner from joining by account and mode alone, which looks as good to it while
-- there are no statistics.
SELECT c.account, c.mode, c.subject, c.operation, c.order_id, c.tries, (c.next_at IS NULL)::boolean AS definite,
       c.payment_id, c.amount, c.currency, p.status, p.failure_code, COALESCE(r.status, '')::text AS refund_status,
       (c.operation = 'refund' AND c.subject = c.payment_id)::boolean AS marker,
       ((SELECT count(*) FROM payment_calls n WHERE n.account = c.account AND n.mode = c.mode AND n.subject = c.payment_id
         AND n.operation IN ('capture', 'void')) > 0)::boolean AS authorized
FROM (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@subjects::uuid[]) AS id,
             unnest(@operations::text[]) AS operation) w
CROSS JOIN LATERAL (
    SELECT * FROM payment_calls
    WHERE account = w.account AND mode = w.mode AND subject = w.id AND payment_calls.operation = w.operation OFFSET 0
) c
CROSS JOIN LATERAL (SELECT * FROM payments WHERE account = c.account AND mode = c.mode AND id = c.payment_id OFFSET 0) p
LEFT JOIN LATERAL (SELECT * FROM refunds WHERE account = c.account AND mode = c.mode AND id = c.subject OFFSET 0) r ON true;
