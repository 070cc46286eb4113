-- name: ReplicaLag :one
-- The lag of a standby in seconds: 0 if it receives and has replayed all that it received, else the age of the last transaction that it
-- replayed. A standby that receives nothing cannot know its lag. If it has replayed nothing either, the result is the
-- time since its start, which the lag exceeds.
SELECT CASE WHEN receiver.pid IS NOT NULL AND (receiver.status <> 'streaming' OR receiver.last_msg_receipt_time < clock_timestamp()
               - NULLIF(current_setting('wal_receiver_timeout')::interval, '0')) IS NOT TRUE
             AND pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
       ELSE extract(epoch FROM clock_timestamp() - COALESCE(pg_last_xact_replay_timestamp(), pg_postmaster_start_time())) END::double precision AS seconds
FROM pg_stat_get_wal_receiver() AS receiver;
