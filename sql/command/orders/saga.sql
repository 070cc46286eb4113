-- The saga's steps: the saga alone writes them.

-- name: GetSteps :many
-- Read under the orders' locks: only who holds an order's lock plans its steps.
SELECT s.account, s.mode, s.order_id, s.step, s.attempt, s.position, s.status, s.tries, s.last_code, s.input, s.trace_id, s.started_at, s.finished_at
FROM saga_steps s
JOIN (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@order_ids::uuid[]) AS order_id) w
  ON s.account = w.account AND s.mode = w.mode AND s.order_id = w.order_id
ORDER BY s.order_id, s.position;

-- name: PutSteps :exec
-- Writes the saga's side of its steps. Tries, lease and fence of a step that calls the provider belong to the payment context.
INSERT INTO saga_steps (account, mode, order_id, step, attempt, position, status, tries, last_code, input, trace_id, started_at, finished_at)
SELECT unnest(@accounts::integer[]), unnest(@modes::text[]), unnest(@order_ids::uuid[]), unnest(@steps::text[]),
       unnest(@attempts::integer[]), unnest(@positions::integer[]), unnest(@statuses::text[]), unnest(@tries::integer[]),
       unnest(@last_codes::text[]), unnest(@inputs::text[]), unnest(@trace_ids::text[]),
       NULLIF(unnest(@started_ats::timestamptz[]), '0001-01-01T00:00:00Z'::timestamptz),
       NULLIF(unnest(@finished_ats::timestamptz[]), '0001-01-01T00:00:00Z'::timestamptz)
ON CONFLICT (account, mode, order_id, step, attempt) DO UPDATE
SET status = excluded.status, tries = GREATEST(saga_steps.tries, excluded.tries), last_code = excluded.last_code,
    input = excluded.input, trace_id = excluded.trace_id, started_at = excluded.started_at, finished_at = excluded.finished_at, next_at = NULL, lease_until = NULL;
