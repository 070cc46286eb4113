-- name: Position :one
-- lsn: the position of this server in the log, in bytes from its start: for a standby the position that it has replayed, for a primary
-- the position that is durable. timeline: a standby that receives nothing, or may not tell, reports the timeline of its last restart point,
-- which may be older and is never newer. disconnected: a standby that receives nothing does not advance, for however long. A receiver asks
-- for a sign of life after half of wal_receiver_timeout, so a receiver that heard nothing for all of it has lost its primary.
SELECT standby::boolean AS standby,
  COALESCE(CASE WHEN standby THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END - '0/0'::pg_lsn, 0)::bigint AS lsn,
  (CASE WHEN standby THEN COALESCE(receiver.received_tli, (SELECT c.timeline_id FROM pg_control_checkpoint() AS c))
        ELSE ('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::bigint END)::bigint AS timeline,
  (standby AND (receiver.pid IS NULL OR receiver.status <> 'streaming' OR receiver.last_msg_receipt_time < clock_timestamp()
    - NULLIF(current_setting('wal_receiver_timeout')::interval, '0')) IS TRUE)::boolean AS disconnected
FROM (SELECT pg_is_in_recovery() AS standby) AS server, pg_stat_get_wal_receiver() AS receiver;
