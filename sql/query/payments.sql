-- name: GetPayment :one
SELECT * FROM payments WHERE account = $1 AND mode = $2 AND id = $3;

-- name: ListPayments :many
-- The newest first: a UUIDv7 sorts by time. Ids are below before and not below from_id, compared in a form that the index of ids alone does not
-- serve.
SELECT * FROM payments WHERE account = @account AND mode = @mode
  AND (account, mode, id) < (@account, @mode, @before::uuid) AND (account, mode, id) >= (@account, @mode, @from_id::uuid)
ORDER BY account DESC, mode DESC, id DESC LIMIT @page;

-- name: ListOrderPayments :many
-- The payments of an order after an attempt, each row's owner compared in a form that no index serves, as in sql/command/payment.
SELECT * FROM payments
WHERE order_id = @order_id AND attempt > @after::integer AND (account, mode) IS NOT DISTINCT FROM (@account::integer, @mode::text)
ORDER BY attempt LIMIT @page;

-- name: GetRefund :one
SELECT * FROM refunds WHERE account = $1 AND mode = $2 AND id = $3;

-- name: ListRefunds :many
-- The newest first. Ids are below before and not below from_id; the nil UUID as payment means any. One branch runs, on its own index.
SELECT r.* FROM (
  (SELECT x.* FROM refunds x WHERE @payment_id::uuid = '00000000-0000-0000-0000-000000000000'
    AND x.account = @account AND x.mode = @mode AND x.id < @before::uuid AND x.id >= @from_id::uuid ORDER BY x.id DESC LIMIT @page)
  UNION ALL
  (SELECT x.* FROM refunds x WHERE @payment_id::uuid <> '00000000-0000-0000-0000-000000000000' AND x.payment_id = @payment_id::uuid
    AND x.account = @account AND x.mode = @mode AND x.id < @before::uuid AND x.id >= @from_id::uuid ORDER BY x.id DESC LIMIT @page)
) AS r
ORDER BY r.id DESC;
