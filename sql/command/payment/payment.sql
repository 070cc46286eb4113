-- Payment: what is owed to the provider, who calls it, and what it answered.

-- name: InsertPayments :exec
-- A repetition changes nothing: (order, attempt) has one payment.
INSERT INTO payments (account, mode, id, order_id, attempt, amount, currency, method_token, status)
SELECT unnest(@accounts::integer[]), unnest(@modes::text[]), unnest(@ids::uuid[]), unnest(@order_ids::uuid[]), unnest(@attempts::integer[]),
       unnest(@amounts::bigint[]), unnest(@currencies::text[]), unnest(@method_tokens::text[]), 'pending'
ON CONFLICT (account, mode, order_id, attempt) DO NOTHING;

-- name: ClaimRefunds :execrows
-- The one guarded counter of refunds: what is captured and neither refunded nor about to be.
UPDATE payments p SET refund_pending = p.refund_pending + w.amount, rev = p.rev + 1, updated_at = now()
FROM (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@order_ids::uuid[]) AS order_id,
             unnest(@attempts::integer[]) AS attempt, unnest(@amounts::bigint[]) AS amount) w
WHERE p.account = w.account AND p.mode = w.mode AND p.order_id = w.order_id AND p.attempt = w.attempt
  AND p.status = 'captured' AND p.amount - p.refunded - p.refund_pending >= w.amount;

-- name: ScheduleSteps :exec
-- Makes steps due. Only a step that the saga has started and nobody has finished.
UPDATE saga_steps s SET next_at = now(), deadline = CASE WHEN w.seconds > 0 THEN now() + make_interval(secs => w.seconds) END
FROM (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@order_ids::uuid[]) AS order_id,
             unnest(@steps::text[]) AS step, unnest(@attempts::integer[]) AS attempt, unnest(@deadline_seconds::double precision[]) AS seconds) w
WHERE s.account = w.account AND s.mode = w.mode AND s.order_id = w.order_id AND s.step = w.step AND s.attempt = w.attempt
  AND s.status = 'running' AND s.next_at IS NULL;

-- name: ClaimSteps :many
-- Takes due steps for one try each: the lease keeps others away for 5 s, the fence refuses a late result of an earlier holder.
WITH due AS (
    SELECT account, mode, order_id, step, attempt FROM saga_steps
    WHERE next_at <= now() AND (lease_until IS NULL OR lease_until <= now())
    ORDER BY next_at LIMIT @max_steps::integer FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE saga_steps s SET lease_until = now() + interval '5 seconds', fence = s.fence + 1, tries = s.tries + 1
    FROM due d
    WHERE s.account = d.account AND s.mode = d.mode AND s.order_id = d.order_id AND s.step = d.step AND s.attempt = d.attempt
    RETURNING s.*
)
SELECT c.account, c.mode, c.order_id, c.step, c.attempt, c.tries, c.fence, c.last_code, c.trace_id,
       COALESCE(extract(epoch FROM c.deadline - now()), 'infinity')::double precision AS seconds_left,
       p.id AS payment_id, p.amount, p.currency, p.method_token
FROM claimed c
JOIN payments p ON p.account = c.account AND p.mode = c.mode AND p.order_id = c.order_id AND p.attempt = c.attempt;

-- name: PostponeStep :execrows
-- No definite answer: the step is tried again. unsent: the provider was not asked, so that this was no try and leaves no doubt.
UPDATE saga_steps
SET next_at = now() + make_interval(secs => @seconds::double precision), lease_until = NULL,
    tries = tries - CASE WHEN @unsent::boolean THEN 1 ELSE 0 END,
    status = CASE WHEN @unsent::boolean THEN status ELSE 'in_doubt' END,
    last_code = CASE WHEN @unsent::boolean AND last_code <> '' THEN last_code ELSE @last_code::text END
WHERE account = @account AND mode = @mode AND order_id = @order_id AND step = @step AND attempt = @attempt AND fence = @fence;

-- name: SettleStep :execrows
-- A definite answer: nothing is due any more. The saga hears of it by a reply and finishes the step.
UPDATE saga_steps SET next_at = NULL, lease_until = NULL
WHERE account = @account AND mode = @mode AND order_id = @order_id AND step = @step AND attempt = @attempt AND fence = @fence;

-- name: SettlePayment :exec
UPDATE payments p
SET status = w.status, refunded = p.refunded + w.refunded, refund_pending = p.refund_pending - w.refunded,
    failure_code = w.failure_code, decline_reason = w.decline_reason, reference = w.reference, rev = p.rev + 1, updated_at = now()
FROM (SELECT @status::text AS status, @refunded::bigint AS refunded,
             @failure_code::text AS failure_code, @decline_reason::text AS decline_reason, @reference::text AS reference) w
WHERE p.account = @account AND p.mode = @mode AND p.id = @id;
