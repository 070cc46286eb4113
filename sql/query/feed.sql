-- The change feed, which the schema describes.

-- name: Listen :exec
-- Every message of the feed, and every mark of the named channel, comes to this session from now on.
SELECT listen('ordergate_changes'), listen(@marks::text);

-- name: MarkFeed :one
-- Sends a mark. Once it has come back, so has every message of a commit up to lsn: a transaction that sends messages holds a lock from the
-- moment at which they enter the queue until its COMMIT is over.
SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint AS lsn, ('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::bigint AS timeline,
  (SELECT g.generation FROM cache_generation g WHERE g.id) AS generation, pg_notify(@marks::text, @mark::text)::text AS sent;

-- name: ListSkus :many
-- A page of the skus that there are, after one of an owner.
SELECT account, mode, sku FROM products WHERE (account, mode, sku) > (@account::integer, @mode::text, @sku::text)
ORDER BY account, mode, sku LIMIT @page;
