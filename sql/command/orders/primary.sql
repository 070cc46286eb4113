-- The state of the primary.

-- name: Timeline :one
-- The primary's timeline, from the name of the log file that it writes (pg_control_checkpoint lags behind a promotion), and the setting
-- that consistency tokens depend on.
SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint AS timeline,
       current_setting('synchronous_commit') AS synchronous_commit;

-- name: CacheGeneration :one
SELECT generation FROM cache_generation WHERE id;

-- name: EnsurePartitions :exec
-- Makes the partitions of the coming months, unless another worker does at this moment.
SELECT CASE WHEN pg_try_advisory_xact_lock(hashtext('ensure_partitions')) THEN ensure_partitions()::text END;

-- name: WaitForStandbys :exec
-- Where standbys are synchronous it writes a message into the log that nobody reads, so that this transaction's COMMIT waits for them.
-- All that was visible before is then as safe.
SELECT CASE WHEN current_setting('synchronous_standby_names') <> '' THEN pg_logical_emit_message(true, 'ordergate', '')::text END;

-- name: FlushLSN :one
-- The position up to which the log of this primary is durable, in bytes from its start.
SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint AS lsn;

-- name: LogState :one
-- FlushLSN, with the timeline of that log and the generation of the caches: of an entry that shows what is read or written behind it.
SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint AS lsn, ('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::bigint AS timeline,
  g.generation FROM cache_generation g WHERE g.id;
