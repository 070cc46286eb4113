-- name: Position :one
-- Where this server stands (server_position), and the generation of the caches, as it has it.
SELECT p.standby::boolean AS standby, p.lsn::bigint AS lsn, p.timeline::bigint AS timeline, p.disconnected::boolean AS disconnected,
  (SELECT g.generation FROM cache_generation g WHERE g.id)::bigint AS generation
FROM server_position p;

-- name: Lsn :one
-- The lsn of server_position alone, which asks the receiver nothing.
SELECT COALESCE(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END - '0/0'::pg_lsn, 0)::bigint AS lsn;

-- name: Watermark :one
-- Where this server stands, and lag: the seconds that a standby is behind. It is 0 if it receives and has replayed all that it received, else the
-- age of the last transaction that it replayed. A standby that receives nothing cannot know its lag. If it has replayed nothing either, the result
-- is the time since its start, which the lag exceeds.
SELECT p.standby::boolean AS standby, p.lsn::bigint AS lsn, p.timeline::bigint AS timeline, p.disconnected::boolean AS disconnected,
  CASE WHEN NOT p.standby OR NOT p.disconnected AND pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn() THEN 0
       ELSE extract(epoch FROM clock_timestamp() - COALESCE(pg_last_xact_replay_timestamp(), pg_postmaster_start_time())) END::double precision AS lag
FROM server_position p;

-- name: OpenTransactions :one
-- The transactions that have written and are not over, but for those that wait for their client or a lock, which no COMMIT does. One of them may be
-- durable already, and shown by a standby: statements here see it once it is not among them. One with " SyncRep" behind its id is durable: it waits for a synchronous standby. Null: this role is not told.
SELECT open_transactions()::text[] AS xids;
