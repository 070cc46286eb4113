-- Payments and the calls to the provider.

-- name: OrdersOfPayments :many
-- The orders of payments. No lock is needed: a payment never changes its order.
SELECT p.account, p.mode, p.id, p.order_id FROM payments p
JOIN (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@ids::uuid[]) AS id) w
  ON p.account = w.account AND p.mode = w.mode AND p.id = w.id;

-- name: LockPayments :many
-- Locks payments in the order of their ids, before anything of them is updated.
SELECT p.account, p.mode, p.id, p.order_id, p.attempt, p.amount, p.currency, p.status, p.refunded, p.refund_pending, p.rev FROM payments p
JOIN (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@ids::uuid[]) AS id) w
  ON p.account = w.account AND p.mode = w.mode AND p.id = w.id
ORDER BY p.id FOR UPDATE OF p;

-- name: LockFreePayments :many
-- LockPayments without the rows that another transaction has locked.
SELECT p.account, p.mode, p.id, p.order_id, p.attempt, p.amount, p.currency, p.status, p.refunded, p.refund_pending, p.rev FROM payments p
JOIN (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@ids::uuid[]) AS id) w
  ON p.account = w.account AND p.mode = w.mode AND p.id = w.id
ORDER BY p.id FOR UPDATE OF p SKIP LOCKED;

-- name: InsertPayments :exec
-- A repetition changes nothing: (order, attempt) has one payment.
INSERT INTO payments (account, mode, id, order_id, attempt, amount, currency, method_token, status)
SELECT unnest(@accounts::integer[]), unnest(@modes::text[]), unnest(@ids::uuid[]), unnest(@order_ids::uuid[]), unnest(@attempts::integer[]),
       unnest(@amounts::bigint[]), unnest(@currencies::text[]), unnest(@method_tokens::text[]), 'pending'
ON CONFLICT (order_id, attempt, account, mode) DO NOTHING;

-- name: AddPendingRefunds :execrows
-- Adds to the pending amounts of refunds. A refund that exceeds the captured amount, less refunds that are made or pending, changes no
-- row.
UPDATE payments p SET refund_pending = p.refund_pending + w.amount, rev = p.rev + 1, updated_at = now()
FROM (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@order_ids::uuid[]) AS order_id,
             unnest(@attempts::integer[]) AS attempt, unnest(@amounts::bigint[]) AS amount) w
WHERE p.account = w.account AND p.mode = w.mode AND p.order_id = w.order_id AND p.attempt = w.attempt
  AND p.status = 'captured' AND p.amount - p.refunded - p.refund_pending >= w.amount;

-- name: InsertCalls :exec
-- Makes calls due, each once: a repetition changes nothing.
INSERT INTO payment_calls (account, mode, order_id, operation, attempt, trace_id, next_at, deadline)
SELECT w.account, w.mode, w.order_id, w.operation, w.attempt, w.trace_id, now(), CASE WHEN w.seconds > 0 THEN now() + make_interval(secs => w.seconds) END
FROM (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@order_ids::uuid[]) AS order_id,
             unnest(@operations::text[]) AS operation, unnest(@attempts::integer[]) AS attempt, unnest(@trace_ids::text[]) AS trace_id,
             unnest(@deadline_seconds::double precision[]) AS seconds) w
ON CONFLICT DO NOTHING;

-- name: ClaimCalls :many
-- Claims due calls for one try each, those of a first try before the others. For 5 s, the lease, no other worker claims them: next_at is
-- its end. The fence refuses a late result of an earlier holder.
WITH new AS (
    SELECT account, mode, order_id, operation, attempt FROM payment_calls
    WHERE next_at <= now() AND tries = 0
    ORDER BY next_at LIMIT @max_calls::integer FOR UPDATE SKIP LOCKED
), repeated AS (
    SELECT account, mode, order_id, operation, attempt FROM payment_calls
    WHERE next_at <= now() AND tries > 0
    ORDER BY next_at LIMIT @max_repeated::integer FOR UPDATE SKIP LOCKED
), due AS (
    (SELECT * FROM new UNION ALL SELECT * FROM repeated) LIMIT @max_calls::integer
), claimed AS (
    UPDATE payment_calls c SET next_at = now() + interval '5 seconds', fence = c.fence + 1, tries = c.tries + 1
    FROM due d
    WHERE c.account = d.account AND c.mode = d.mode AND c.order_id = d.order_id AND c.operation = d.operation AND c.attempt = d.attempt
    RETURNING c.*
)
SELECT c.account, c.mode, c.order_id, c.operation, c.attempt, c.tries, c.fence, c.last_code, c.trace_id,
       COALESCE(extract(epoch FROM c.deadline - now()), 'infinity')::double precision AS seconds_left,
       p.id AS payment_id, p.amount, p.currency, p.method_token
FROM claimed c
JOIN payments p ON p.account = c.account AND p.mode = c.mode AND p.order_id = c.order_id AND p.attempt = c.attempt;

-- name: RearmCalls :execrows
-- Makes the calls due whose time lies further ahead than any delay or lease: the database's clock has jumped. Their deadlines are at most
-- the given time away.
WITH far AS (
    (SELECT account, mode, order_id, operation, attempt FROM payment_calls
     WHERE tries = 0 AND next_at > now() + interval '35 seconds' ORDER BY next_at LIMIT 1000)
    UNION ALL
    (SELECT account, mode, order_id, operation, attempt FROM payment_calls
     WHERE tries > 0 AND next_at > now() + interval '35 seconds' ORDER BY next_at LIMIT 1000)
)
UPDATE payment_calls c SET next_at = now(), deadline = LEAST(c.deadline, now() + make_interval(secs => @deadline_seconds::double precision))
FROM far f
WHERE c.account = f.account AND c.mode = f.mode AND c.order_id = f.order_id AND c.operation = f.operation AND c.attempt = f.attempt;

-- name: CallsHealth :one
-- How long the oldest due call waits to be claimed, or how much further ahead than any delay the last one lies, in seconds.
SELECT GREATEST(0,
    extract(epoch FROM now() - (SELECT next_at FROM payment_calls WHERE next_at IS NOT NULL AND tries = 0 ORDER BY next_at LIMIT 1)),
    extract(epoch FROM now() - (SELECT next_at FROM payment_calls WHERE next_at IS NOT NULL AND tries > 0 ORDER BY next_at LIMIT 1)),
    extract(epoch FROM (SELECT next_at FROM payment_calls WHERE next_at IS NOT NULL AND tries = 0 ORDER BY next_at DESC LIMIT 1) - now()) - 35,
    extract(epoch FROM (SELECT next_at FROM payment_calls WHERE next_at IS NOT NULL AND tries > 0 ORDER BY next_at DESC LIMIT 1) - now()) - 35
)::double precision AS seconds;

-- name: PostponeCall :execrows
-- Sets the time of the next try, after one without a definite outcome. unsent: no request was made, so that this was no try and leaves
-- no doubt.
UPDATE payment_calls
SET next_at = now() + make_interval(secs => @seconds::double precision),
    tries = tries - CASE WHEN @unsent::boolean THEN 1 ELSE 0 END,
    in_doubt = in_doubt OR NOT @unsent::boolean,
    last_code = CASE WHEN @unsent::boolean AND last_code <> '' THEN last_code ELSE @last_code::text END
WHERE account = @account AND mode = @mode AND order_id = @order_id AND operation = @operation AND attempt = @attempt AND fence = @fence;

-- name: CompleteCall :execrows
-- Ends a call that has a definite outcome: it is not due any more.
UPDATE payment_calls SET next_at = NULL, in_doubt = false
WHERE account = @account AND mode = @mode AND order_id = @order_id AND operation = @operation AND attempt = @attempt AND fence = @fence;

-- name: UpdatePayment :exec
-- Writes the outcome of a call.
UPDATE payments
SET status = @status, refunded = refunded + @refunded::bigint, refund_pending = refund_pending - @refunded::bigint,
    failure_code = @failure_code, decline_reason = @decline_reason, reference = @reference, rev = rev + 1, updated_at = now()
WHERE account = @account AND mode = @mode AND id = @id;
