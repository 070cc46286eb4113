-- name: ReplicaLag :one
-- Seconds that a standby is behind; 0 if it has replayed all that it received.
SELECT CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
       ELSE COALESCE(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 0) END::double precision AS seconds;
