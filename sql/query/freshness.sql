-- name: Position :one
-- lsn: the position of this server in the log, in bytes from its start: for a standby the position that it has replayed, for a primary
-- the position that is durable. timeline: a standby that receives nothing, or may not tell, reports the timeline of its last restart point,
-- which may be older and is never newer. disconnected: a standby that receives nothing does not advance, for however long. A receiver asks
-- for a sign of life after half of wal_receiver_timeout, so a receiver that heard nothing for all of it has lost its primary. generation: of the
-- caches, as this server has it.
SELECT standby::boolean AS standby,
  COALESCE(CASE WHEN standby THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END - '0/0'::pg_lsn, 0)::bigint AS lsn,
  (CASE WHEN standby THEN COALESCE(receiver.received_tli, (SELECT c.timeline_id FROM pg_control_checkpoint() AS c))
        ELSE ('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::bigint END)::bigint AS timeline,
  (standby AND (receiver.pid IS NULL OR receiver.status <> 'streaming' OR receiver.last_msg_receipt_time < clock_timestamp()
    - NULLIF(current_setting('wal_receiver_timeout')::interval, '0')) IS TRUE)::boolean AS disconnected,
  (SELECT g.generation FROM cache_generation g WHERE g.id)::bigint AS generation
FROM (SELECT pg_is_in_recovery() AS standby) AS server, pg_stat_get_wal_receiver() AS receiver;

-- name: Watermark :one
-- Position, and lag: the seconds that a standby is behind. It is 0 if it receives and has replayed all that it received, else the age of
-- the last transaction that it replayed. A standby that receives nothing cannot know its lag. If it has replayed nothing either, the result
-- is the time since its start, which the lag exceeds.
SELECT p.standby, p.lsn, p.timeline, p.disconnected,
  CASE WHEN NOT p.standby OR NOT p.disconnected AND pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn() THEN 0
       ELSE extract(epoch FROM clock_timestamp() - COALESCE(pg_last_xact_replay_timestamp(), pg_postmaster_start_time())) END::double precision AS lag
FROM (SELECT standby::boolean AS standby,
    COALESCE(CASE WHEN standby THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END - '0/0'::pg_lsn, 0)::bigint AS lsn,
    (CASE WHEN standby THEN COALESCE(receiver.received_tli, (SELECT c.timeline_id FROM pg_control_checkpoint() AS c))
          ELSE ('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::bigint END)::bigint AS timeline,
    (standby AND (receiver.pid IS NULL OR receiver.status <> 'streaming' OR receiver.last_msg_receipt_time < clock_timestamp()
      - NULLIF(current_setting('wal_receiver_timeout')::interval, '0')) IS TRUE)::boolean AS disconnected
  FROM (SELECT pg_is_in_recovery() AS standby) AS server, pg_stat_get_wal_receiver() AS receiver) AS p;

-- name: OpenTransactions :one
-- The transactions that have written and are not over. One of them may be durable already, and shown by a standby: statements here see it once it
-- is not among them. One with " SyncRep" behind its id is durable: it waits for a synchronous standby. Null: this role is not told.
SELECT open_transactions()::text[] AS xids;
