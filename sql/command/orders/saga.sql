-- The steps of sagas. Only the saga writes them.

-- name: GetSagas :many
-- The caller holds the orders' locks: only the holder of an order's lock plans its steps.
SELECT s.account, s.mode, s.order_id, s.steps
FROM sagas s
JOIN (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@ids::uuid[]) AS id) w
  ON s.account = w.account AND s.mode = w.mode AND s.order_id = w.id;

-- name: InsertSagas :exec
INSERT INTO sagas (account, mode, order_id, steps)
SELECT unnest(@accounts::integer[]), unnest(@modes::text[]), unnest(@order_ids::uuid[]), unnest(@steps::json[]);

-- name: UpdateSagas :exec
-- The saga of an order may be gone: that is no_data_found.
WITH written AS (
    UPDATE sagas s SET steps = u.steps
    FROM (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@order_ids::uuid[]) AS order_id,
                 unnest(@steps::json[]) AS steps) u
    WHERE s.account = u.account AND s.mode = u.mode AND s.order_id = u.order_id
    RETURNING 1
)
SELECT expect_rows('sagas', count(*), cardinality(@accounts::integer[]), 'P0002') FROM written;
