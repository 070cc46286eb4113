-- Idempotency keys with their stored results. All statements of a batch run in one transaction.

-- name: TryLockKeys :many
-- Locks idempotency keys or references until the end of the transaction, in the order of the array. It does not wait.
SELECT pg_try_advisory_xact_lock(hash)::boolean AS locked FROM unnest(@hashes::bigint[]) AS hash;

-- name: FindResults :many
-- It must be a later statement than TryLockKeys, so that it sees the commit of the lock's last holder.
SELECT k.account, k.mode, k.operation, k.key, k.request_hash, k.status, k.code, k.content_type, k.etag, k.location, k.body,
       COALESCE(k.order_id, '00000000-0000-0000-0000-000000000000'::uuid)::uuid AS order_id
FROM idempotency_keys k
JOIN (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode,
             unnest(@operations::text[]) AS operation, unnest((SELECT @keys::text[])) AS key) w
  ON k.account = w.account AND k.mode = w.mode AND k.operation = w.operation AND k.key = w.key;

-- name: InsertResults :exec
INSERT INTO idempotency_keys (account, mode, operation, key, request_hash, status, code, content_type, etag, location, body, order_id)
SELECT unnest(@accounts::integer[]), unnest(@modes::text[]), unnest(@operations::text[]), unnest(@keys::text[]),
       unnest(@request_hashes::bytea[]), unnest(@statuses::integer[]), unnest(@codes::text[]), unnest(@content_types::text[]), unnest(@etags::text[]),
       unnest(@locations::text[]), unnest(@bodies::bytea[]),
       NULLIF(unnest(@order_ids::uuid[]), '00000000-0000-0000-0000-000000000000'::uuid);

-- name: PurgeResults :execrows
-- Deletes keys older than 48 hours, at most 1,000 at a time, without those that another worker deletes.
DELETE FROM idempotency_keys k USING (
    SELECT account, mode, operation, key FROM idempotency_keys
    WHERE created_at < now() - interval '48 hours' ORDER BY created_at LIMIT 1000
    FOR UPDATE SKIP LOCKED
) old
WHERE k.account = old.account AND k.mode = old.mode AND k.operation = old.operation AND k.key = old.key;

-- name: LockKeys :exec
-- Waits, within the lock_timeout, for the transactions that hold the keys or references.
SELECT pg_advisory_xact_lock(hash)::text FROM unnest(@hashes::bigint[]) AS hash;

-- name: SetLockTimeout :exec
SELECT set_config('lock_timeout', (@milliseconds::bigint)::text, true);
