-- The events of payments, refunds, shipments and inventory. Only internal/events uses these queries.

-- name: InsertResourceEvents :exec
-- The primary key refuses a second event with the sequence of another one.
INSERT INTO resource_events (account, mode, kind, resource, sequence, id, type, schema_version, payload, trace_id, operation, actor, created_at, prev_hash, hash)
SELECT unnest(@accounts::integer[]), unnest(@modes::text[]), unnest(@kinds::text[]), unnest(@resources::text[]), unnest(@sequences::bigint[]),
       unnest(@ids::uuid[]), unnest(@types::text[]), unnest(@schema_versions::integer[]), unnest(@payloads::text[]),
       unnest(@trace_ids::text[]), unnest(@operations::text[]), unnest(@actors::text[]), unnest(@created_ats::timestamptz[]),
       unnest(@prev_hashes::bytea[]), unnest(@hashes::bytea[]);

-- name: ListResourceEvents :many
SELECT * FROM resource_events WHERE account = $1 AND mode = $2 AND kind = $3 AND resource = $4 ORDER BY sequence;

-- name: AnyHasEvents :one
SELECT EXISTS (SELECT FROM unnest(@resources::text[]) AS w (resource) CROSS JOIN LATERAL (
    SELECT FROM resource_events e WHERE e.account = @account AND e.mode = @mode AND e.kind = @kind AND e.resource = w.resource AND e.sequence = 1 OFFSET 0
) first);

-- name: PaymentsWithEvents :many
-- Which of the payments have a first event. The owner of an id is not known.
SELECT resource FROM resource_events WHERE kind = 'payment' AND sequence = 1 AND resource = ANY (@payments::text[]);
