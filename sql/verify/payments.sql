-- Payments and their calls to the provider.

-- name: PaymentsOf :many
-- Account and mode are compared in a form that no index serves: without statistics the primary key would look as good as the unique key
-- that order_id leads, and every look-up would read all payments of the account.
SELECT p.account, p.mode, p.id, p.order_id, p.attempt, p.amount, p.currency, p.status, p.refunded, p.refund_pending FROM payments p
JOIN (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@order_ids::uuid[]) AS order_id) w
  ON p.order_id = w.order_id AND (p.account, p.mode) IS NOT DISTINCT FROM (w.account, w.mode);

-- name: CallsOf :many
SELECT c.account, c.mode, c.order_id, c.operation, c.attempt, (c.next_at IS NULL)::boolean AS definite, c.in_doubt FROM payment_calls c
JOIN (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@order_ids::uuid[]) AS order_id) w
  ON c.account = w.account AND c.mode = w.mode AND c.order_id = w.order_id;

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
-- Calls with their payments. authorized: another call of the attempt exists, which is only made after the authorization succeeded.
SELECT c.account, c.mode, c.order_id, c.operation, c.attempt, c.tries, (c.next_at IS NULL)::boolean AS definite,
       p.id AS payment_id, p.amount, p.currency, p.status, p.failure_code,
       EXISTS (SELECT FROM payment_calls n WHERE n.account = c.account AND n.mode = c.mode AND n.order_id = c.order_id
               AND n.operation IN ('capture', 'void') AND n.attempt = c.attempt)::boolean AS authorized
FROM payment_calls c
JOIN payments p ON p.order_id = c.order_id AND p.attempt = c.attempt AND (p.account, p.mode) IS NOT DISTINCT FROM (c.account, c.mode)
WHERE (c.account, c.mode, c.order_id, c.operation, c.attempt) >
      (@after_account::integer, @after_mode::text, @after_order_id::uuid, @after_operation::text, @after_attempt::integer)
ORDER BY c.account, c.mode, c.order_id, c.operation, c.attempt LIMIT @page_size::integer;

-- name: CallsOfPayments :many
-- CallPage by payments and operations. OFFSET 0 keeps the planner from joining the calls before the payments, by account and mode alone.
SELECT c.account, c.mode, c.order_id, c.operation, c.attempt, c.tries, (c.next_at IS NULL)::boolean AS definite,
       p.id AS payment_id, p.amount, p.currency, p.status, p.failure_code,
       EXISTS (SELECT FROM payment_calls n WHERE n.account = c.account AND n.mode = c.mode AND n.order_id = c.order_id
               AND n.operation IN ('capture', 'void') AND n.attempt = c.attempt)::boolean AS authorized
FROM (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@payment_ids::uuid[]) AS id,
             unnest(@operations::text[]) AS operation) w
JOIN payments p ON p.account = w.account AND p.mode = w.mode AND p.id = w.id
CROSS JOIN LATERAL (
    SELECT * FROM payment_calls pc WHERE pc.account = p.account AND pc.mode = p.mode AND pc.order_id = p.order_id AND pc.attempt = p.attempt
       AND pc.operation = w.operation OFFSET 0
) c;
