-- name: ReplicaLag :one
-- Seconds that a standby is behind: 0 if it receives and has replayed all of it, else the age of what it replayed last. One that
-- receives nothing cannot know what it misses; if it replayed nothing, either, that is since it was started, at least.
SELECT CASE WHEN receiver.pid IS NOT NULL AND (receiver.status <> 'streaming' OR receiver.last_msg_receipt_time < clock_timestamp()
               - NULLIF(current_setting('wal_receiver_timeout')::interval, '0')) IS NOT TRUE
             AND pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
       ELSE extract(epoch FROM clock_timestamp() - COALESCE(pg_last_xact_replay_timestamp(), pg_postmaster_start_time())) END::double precision AS seconds
FROM pg_stat_get_wal_receiver() AS receiver;
