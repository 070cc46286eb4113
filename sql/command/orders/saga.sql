-- The steps of sagas. Only the saga writes them.

-- name: GetSteps :many
-- The caller holds the orders' locks: only the holder of an order's lock plans its steps.
SELECT s.account, s.mode, s.order_id, s.step, s.attempt, s.status, s.code, s.input,
       COALESCE(s.started_at, '0001-01-01T00:00:00Z')::timestamptz AS started_at,
       COALESCE(s.finished_at, '0001-01-01T00:00:00Z')::timestamptz AS finished_at
FROM saga_steps s
JOIN (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@order_ids::uuid[]) AS order_id) w
  ON s.account = w.account AND s.mode = w.mode AND s.order_id = w.order_id
ORDER BY s.order_id, s.position;

-- name: InsertSteps :exec
INSERT INTO saga_steps (account, mode, order_id, step, attempt, position, undo, status, code, input, started_at, finished_at)
SELECT unnest(@accounts::integer[]), unnest(@modes::text[]), unnest(@order_ids::uuid[]), unnest(@steps::text[]),
       unnest(@attempts::integer[]), unnest(@positions::integer[]), unnest(@undos::boolean[]), unnest(@statuses::text[]), unnest(@codes::text[]), unnest(@inputs::text[]),
       NULLIF(unnest(@started_ats::timestamptz[]), '0001-01-01T00:00:00Z'::timestamptz),
       NULLIF(unnest(@finished_ats::timestamptz[]), '0001-01-01T00:00:00Z'::timestamptz);

-- name: UpdateSteps :exec
-- It takes the columns of InsertSteps.
UPDATE saga_steps s
SET position = u.position, undo = u.undo, status = u.status, code = u.code, input = u.input,
    started_at = NULLIF(u.started_at, '0001-01-01T00:00:00Z'::timestamptz), finished_at = NULLIF(u.finished_at, '0001-01-01T00:00:00Z'::timestamptz)
FROM (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@order_ids::uuid[]) AS order_id,
             unnest(@steps::text[]) AS step, unnest(@attempts::integer[]) AS attempt, unnest(@positions::integer[]) AS position,
             unnest(@undos::boolean[]) AS undo, unnest(@statuses::text[]) AS status, unnest(@codes::text[]) AS code, unnest(@inputs::text[]) AS input,
             unnest(@started_ats::timestamptz[]) AS started_at, unnest(@finished_ats::timestamptz[]) AS finished_at) u
WHERE s.account = u.account AND s.mode = u.mode AND s.order_id = u.order_id AND s.step = u.step AND s.attempt = u.attempt;
