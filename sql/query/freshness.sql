-- name: Position :one
-- Where this server stands in the log, as bytes from its start: what a standby has replayed, what of a primary is durable. And on
-- which timeline: a standby may not know, or not be allowed to say: 0.
SELECT standby::boolean AS standby,
  COALESCE(CASE WHEN standby THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END - '0/0'::pg_lsn, 0)::bigint AS lsn,
  (CASE WHEN standby THEN COALESCE((SELECT w.received_tli FROM pg_stat_get_wal_receiver() AS w), 0)
        ELSE ('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::bigint END)::bigint AS timeline
FROM (SELECT pg_is_in_recovery() AS standby) AS server;

