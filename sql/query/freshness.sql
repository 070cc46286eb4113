-- name: Position :one
-- Where this server stands in the log, as bytes from its start: what a standby has replayed, what of a primary is durable. On which
-- timeline: a standby that receives none, or may not say which, tells that of its last restart point, which may be older and is never
-- newer. And whether it goes on: a standby that receives nothing stands still, however long. A receiver asks for a sign of life after
-- half of wal_receiver_timeout, so that one who has heard nothing for the whole of it has lost its primary.
SELECT standby::boolean AS standby,
  COALESCE(CASE WHEN standby THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END - '0/0'::pg_lsn, 0)::bigint AS lsn,
  (CASE WHEN standby THEN COALESCE(receiver.received_tli, (SELECT c.timeline_id FROM pg_control_checkpoint() AS c))
        ELSE ('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::bigint END)::bigint AS timeline,
  (standby AND (receiver.pid IS NULL OR receiver.status <> 'streaming' OR receiver.last_msg_receipt_time < clock_timestamp()
    - NULLIF(current_setting('wal_receiver_timeout')::interval, '0')) IS TRUE)::boolean AS cut
FROM (SELECT pg_is_in_recovery() AS standby) AS server, pg_stat_get_wal_receiver() AS receiver;
