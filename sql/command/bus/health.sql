-- The figures of /readyz.

-- name: PrimaryHealth :one
-- The primary's clock, and how old the oldest unpublished message is in seconds.
SELECT clock_timestamp()::timestamptz AS now,
       COALESCE((SELECT extract(epoch FROM clock_timestamp() - o.created_at) FROM outbox o ORDER BY o.id LIMIT 1), 0)::double precision AS outbox_seconds,
       (SELECT count(*) FROM parked_messages) AS parked;
