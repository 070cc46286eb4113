-- Payments, refunds and the calls to the provider. Each query takes arrays and reads or writes a row for each element.

-- name: LockPayments :many
-- Locks payments in the order of their ids, before anything of them is updated.
SELECT p.* FROM payments p
JOIN (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@ids::uuid[]) AS id) w
  ON p.account = w.account AND p.mode = w.mode AND p.id = w.id
ORDER BY p.id FOR UPDATE OF p;

-- name: LockFreePayments :many
-- LockPayments without the rows that another transaction has locked.
SELECT p.* FROM payments p
JOIN (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@ids::uuid[]) AS id) w
  ON p.account = w.account AND p.mode = w.mode AND p.id = w.id
ORDER BY p.id FOR UPDATE OF p SKIP LOCKED;

-- name: RefundAlls :many
-- Which of the payments the saga wants back as a whole, and has begun to. The caller has locked them, in an earlier statement: one that waits for a lock reads
-- all other rows as they were before it waited.
SELECT w.account::integer AS account, w.mode::text AS mode, w.id::uuid AS id
FROM (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@ids::uuid[]) AS id) w
CROSS JOIN LATERAL (
    SELECT FROM payment_calls c WHERE c.account = w.account AND c.mode = w.mode AND c.subject = w.id AND c.operation = 'refund' AND c.next_at IS NULL OFFSET 0
) marked;

-- name: CountRefusedRefunds :one
SELECT count(*) FROM refunds WHERE payment_id = @payment_id AND account = @account AND mode = @mode AND reason = @reason AND status = 'failed';

-- name: GetRefund :one
-- The caller holds the lock of its payment.
SELECT * FROM refunds WHERE account = $1 AND mode = $2 AND id = $3;

-- name: InsertPayments :exec
INSERT INTO payments (account, mode, id, order_id, attempt, amount, currency, status, refunded, refund_pending, failure_code, decline_reason,
                      reference, version, head_hash, created_at, updated_at)
SELECT unnest(@accounts::integer[]), unnest(@modes::text[]), unnest(@ids::uuid[]), unnest(@order_ids::uuid[]), unnest(@attempts::integer[]),
       unnest(@amounts::bigint[]), unnest(@currencies::text[]), unnest(@statuses::text[]), unnest(@refunded::bigint[]),
       unnest(@refund_pending::bigint[]), unnest(@failure_codes::text[]), unnest(@decline_reasons::text[]), unnest(@reference::text[]),
       unnest(@versions::bigint[]), unnest(@head_hashes::bytea[]), unnest(@created_ats::timestamptz[]), unnest(@updated_ats::timestamptz[]);

-- name: UpdatePayments :exec
-- The caller holds the locks.
WITH written AS (
    UPDATE payments p
    SET status = u.status, refunded = u.refunded, refund_pending = u.refund_pending, failure_code = u.failure_code, decline_reason = u.decline_reason,
        reference = u.reference, version = u.version, head_hash = u.head_hash, updated_at = u.updated_at, rev = p.rev + 1
    FROM (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@ids::uuid[]) AS id, unnest(@statuses::text[]) AS status,
                 unnest(@refunded::bigint[]) AS refunded, unnest(@refund_pending::bigint[]) AS refund_pending,
                 unnest(@failure_codes::text[]) AS failure_code, unnest(@decline_reasons::text[]) AS decline_reason,
                 unnest(@reference::text[]) AS reference, unnest(@versions::bigint[]) AS version, unnest(@head_hashes::bytea[]) AS head_hash,
                 unnest(@updated_ats::timestamptz[]) AS updated_at) u
    WHERE p.account = u.account AND p.mode = u.mode AND p.id = u.id
    RETURNING 1
)
SELECT expect_rows('payments', count(*), cardinality(@ids::uuid[]), 'XX000') FROM written;

-- name: InsertRefunds :exec
INSERT INTO refunds (account, mode, id, payment_id, order_id, amount, currency, reason, status, failure_code, decline_reason, reference, version,
                     head_hash, created_at, updated_at)
SELECT unnest(@accounts::integer[]), unnest(@modes::text[]), unnest(@ids::uuid[]), unnest(@payment_ids::uuid[]), unnest(@order_ids::uuid[]),
       unnest(@amounts::bigint[]), unnest(@currencies::text[]), unnest(@reasons::text[]), unnest(@statuses::text[]), unnest(@failure_codes::text[]),
       unnest(@decline_reasons::text[]), unnest(@reference::text[]), unnest(@versions::bigint[]), unnest(@head_hashes::bytea[]),
       unnest(@created_ats::timestamptz[]), unnest(@updated_ats::timestamptz[]);

-- name: UpdateRefunds :exec
-- The caller holds the locks of their payments.
WITH written AS (
    UPDATE refunds r
    SET status = u.status, failure_code = u.failure_code, decline_reason = u.decline_reason, reference = u.reference, version = u.version,
        head_hash = u.head_hash, updated_at = u.updated_at, rev = r.rev + 1
    FROM (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@ids::uuid[]) AS id, unnest(@statuses::text[]) AS status,
                 unnest(@failure_codes::text[]) AS failure_code, unnest(@decline_reasons::text[]) AS decline_reason,
                 unnest(@reference::text[]) AS reference, unnest(@versions::bigint[]) AS version, unnest(@head_hashes::bytea[]) AS head_hash,
                 unnest(@updated_ats::timestamptz[]) AS updated_at) u
    WHERE r.account = u.account AND r.mode = u.mode AND r.id = u.id
    RETURNING 1
)
SELECT expect_rows('refunds', count(*), cardinality(@ids::uuid[]), 'XX000') FROM written;

-- name: InsertCalls :exec
-- Makes calls due after the given seconds, each once: a repetition changes nothing. Authorizations have a deadline. claimed: the caller makes the first
-- try, as after ClaimCalls.
INSERT INTO payment_calls (account, mode, subject, operation, payment_id, order_id, attempt, amount, currency, method_token, last_code, trace_id, next_at, delay, deadline, tries, fence)
SELECT w.account, w.mode, w.subject, w.operation, w.payment_id, w.order_id, w.attempt, w.amount, w.currency, w.method_token, w.last_code, w.trace_id,
       CASE WHEN w.claimed THEN clock_timestamp() + interval '5 seconds' ELSE now() + make_interval(secs => w.after) END, w.after,
       CASE WHEN w.operation = 'authorize' THEN clock_timestamp() + make_interval(secs => @deadline_seconds::double precision) END, w.claimed::integer, w.claimed::integer
FROM (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@subjects::uuid[]) AS subject,
             unnest(@operations::text[]) AS operation, unnest(@payment_ids::uuid[]) AS payment_id, unnest(@order_ids::uuid[]) AS order_id,
             unnest(@attempts::integer[]) AS attempt, unnest(@amounts::bigint[]) AS amount, unnest(@currencies::text[]) AS currency,
             unnest(@method_tokens::text[]) AS method_token, unnest(@last_codes::text[]) AS last_code, unnest(@trace_ids::text[]) AS trace_id,
             unnest(@after_seconds::double precision[]) AS after, unnest(@claimed::boolean[]) AS claimed) w
ON CONFLICT DO NOTHING;

-- name: ClaimCalls :many
-- Claims due calls for one try each, those of a first try before the others. For 5 s, the lease, no other worker claims them: next_at is
-- its end; a callback may end it before (TakeCallback). The fence refuses a late result of an earlier holder.
WITH new AS (
    SELECT account, mode, subject, operation FROM payment_calls
    WHERE next_at <= now() AND tries = 0
    ORDER BY next_at LIMIT @max_new::integer FOR UPDATE SKIP LOCKED
), repeated AS (
    SELECT account, mode, subject, operation FROM payment_calls
    WHERE next_at <= now() AND tries > 0
    ORDER BY next_at LIMIT @max_repeated::integer FOR UPDATE SKIP LOCKED
), due AS (
    (SELECT * FROM new UNION ALL SELECT * FROM repeated) LIMIT @max_calls::integer
), claimed AS (
    UPDATE payment_calls c SET next_at = now() + interval '5 seconds', fence = c.fence + 1, tries = c.tries + 1
    FROM due d
    WHERE c.account = d.account AND c.mode = d.mode AND c.subject = d.subject AND c.operation = d.operation
    RETURNING c.*
)
SELECT c.account, c.mode, c.subject, c.operation, c.payment_id, c.order_id, c.attempt, c.amount, c.currency, c.method_token, c.tries, c.fence,
       c.last_code, c.trace_id, COALESCE(extract(epoch FROM c.deadline - now()), 'infinity')::double precision AS seconds_left
FROM claimed c;

-- name: RearmCalls :execrows
-- Makes the calls due whose time lies further ahead than any delay or lease: the database's clock has jumped. The deadlines of those that
-- have one are at most the given time away.
WITH far AS (
    (SELECT account, mode, subject, operation FROM payment_calls
     WHERE tries = 0 AND next_at > now() + interval '35 seconds' AND next_at > now() + make_interval(secs => 35 + delay) ORDER BY next_at LIMIT 1000)
    UNION ALL
    (SELECT account, mode, subject, operation FROM payment_calls
     WHERE tries > 0 AND next_at > now() + interval '35 seconds' ORDER BY next_at LIMIT 1000)
)
UPDATE payment_calls c
SET next_at = now(),
    deadline = CASE WHEN c.deadline IS NOT NULL THEN LEAST(c.deadline, now() + make_interval(secs => @deadline_seconds::double precision)) END
FROM far f
WHERE c.account = f.account AND c.mode = f.mode AND c.subject = f.subject AND c.operation = f.operation;

-- name: CallsHealth :one
-- How long the oldest due call waits to be claimed, or how much further ahead than any delay the last one lies, in seconds.
SELECT GREATEST(0,
    extract(epoch FROM now() - (SELECT next_at FROM payment_calls WHERE next_at IS NOT NULL AND tries = 0 ORDER BY next_at LIMIT 1)),
    extract(epoch FROM now() - (SELECT next_at FROM payment_calls WHERE next_at IS NOT NULL AND tries > 0 ORDER BY next_at LIMIT 1)),
    extract(epoch FROM (SELECT max(next_at - make_interval(secs => delay)) FROM payment_calls WHERE next_at > now() + interval '35 seconds' AND tries = 0) - now()) - 35,
    extract(epoch FROM (SELECT next_at FROM payment_calls WHERE next_at IS NOT NULL AND tries > 0 ORDER BY next_at DESC LIMIT 1) - now()) - 35
)::double precision AS seconds;

-- name: PostponeCall :execrows
-- Sets the time of the next try, after one without a definite outcome. unsent: no request was made, so that this was no try and leaves
-- no doubt.
UPDATE payment_calls
SET next_at = now() + make_interval(secs => @seconds::double precision), delay = 0,
    tries = tries - CASE WHEN @unsent::boolean THEN 1 ELSE 0 END,
    in_doubt = in_doubt OR NOT @unsent::boolean,
    last_code = CASE WHEN @unsent::boolean AND last_code <> '' THEN last_code ELSE @last_code::text END
WHERE account = @account AND mode = @mode AND subject = @subject AND operation = @operation AND fence = @fence AND next_at IS NOT NULL;

-- name: GiveBackCalls :exec
-- Makes claimed calls due again that were not tried.
UPDATE payment_calls c SET next_at = now(), tries = c.tries - 1
FROM (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@subjects::uuid[]) AS subject,
             unnest(@operations::text[]) AS operation, unnest(@fences::bigint[]) AS fence) w
WHERE c.account = w.account AND c.mode = w.mode AND c.subject = w.subject AND c.operation = w.operation AND c.fence = w.fence
  AND c.next_at IS NOT NULL;

-- name: CompleteCalls :many
-- Ends calls that have a definite outcome, once, and returns those that the caller had: they are not due any more, and their tokens are forgotten.
-- The caller holds the locks of their payments.
UPDATE payment_calls c SET next_at = NULL, in_doubt = false, method_token = ''
FROM (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@subjects::uuid[]) AS subject,
             unnest(@operations::text[]) AS operation, unnest(@fences::bigint[]) AS fence) w
WHERE c.account = w.account AND c.mode = w.mode AND c.subject = w.subject AND c.operation = w.operation AND c.fence = w.fence
  AND c.next_at IS NOT NULL
RETURNING c.account, c.mode, c.subject, c.operation;
