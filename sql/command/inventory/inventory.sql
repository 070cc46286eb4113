-- Stock and its reservations, in batches. Locks are taken in one order: reservations by order and attempt, then stock by sku.

-- name: InsertStock :exec
-- Stock without pieces. It is a serialization failure if somebody inserted one of them first.
WITH written AS (
    INSERT INTO stock (account, mode, sku, updated_at)
    SELECT unnest(@accounts::integer[]), unnest(@modes::text[]), unnest(@skus::text[]), unnest(@updated_ats::timestamptz[])
    ON CONFLICT (account, mode, sku) DO NOTHING
    RETURNING 1
)
SELECT expect_rows('stock', count(*), cardinality(@skus::text[]), '40001') FROM written;

-- name: LockReservations :many
SELECT r.account, r.mode, r.order_id, r.attempt, r.status FROM stock_reservations r
JOIN (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@order_ids::uuid[]) AS order_id,
             unnest(@attempts::integer[]) AS attempt) w
  ON r.account = w.account AND r.mode = w.mode AND r.order_id = w.order_id AND r.attempt = w.attempt
ORDER BY r.order_id, r.attempt FOR UPDATE OF r;

-- name: LockFreeReservations :many
-- LockReservations without the rows that another transaction has locked.
SELECT r.account, r.mode, r.order_id, r.attempt, r.status FROM stock_reservations r
JOIN (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@order_ids::uuid[]) AS order_id,
             unnest(@attempts::integer[]) AS attempt) w
  ON r.account = w.account AND r.mode = w.mode AND r.order_id = w.order_id AND r.attempt = w.attempt
ORDER BY r.order_id, r.attempt FOR UPDATE OF r SKIP LOCKED;

-- name: ExistingReservations :many
-- Which of the reservations exist, locked or not.
SELECT r.account, r.mode, r.order_id, r.attempt FROM stock_reservations r
JOIN (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@order_ids::uuid[]) AS order_id,
             unnest(@attempts::integer[]) AS attempt) w
  ON r.account = w.account AND r.mode = w.mode AND r.order_id = w.order_id AND r.attempt = w.attempt;

-- name: ClaimExpired :many
-- Marks held reservations that have expired by the database's clock, without the rows that another transaction has locked. Each is
-- returned once.
WITH due AS (
    SELECT account, mode, order_id, attempt FROM stock_reservations
    WHERE status = 'held' AND NOT expiring AND expires_at <= now()
    ORDER BY expires_at LIMIT @page_size FOR UPDATE SKIP LOCKED
)
UPDATE stock_reservations r SET expiring = true FROM due
WHERE r.account = due.account AND r.mode = due.mode AND r.order_id = due.order_id AND r.attempt = due.attempt
RETURNING r.account, r.mode, r.order_id, r.attempt, clock_timestamp()::timestamptz AS now;

-- name: RearmReservations :execrows
-- Moves the times of held reservations that were made after now: the database's clock has jumped back since. They last as long as they
-- were to.
UPDATE stock_reservations SET expires_at = now() + (expires_at - created_at), created_at = now()
WHERE status = 'held' AND NOT expiring AND expires_at > now() + make_interval(secs => @seconds::double precision) AND created_at > now();

-- name: GetReservationLines :many
SELECT l.account, l.mode, l.order_id, l.attempt, l.sku, l.quantity FROM stock_reservation_lines l
JOIN (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@order_ids::uuid[]) AS order_id,
             unnest(@attempts::integer[]) AS attempt) w
  ON l.account = w.account AND l.mode = w.mode AND l.order_id = w.order_id AND l.attempt = w.attempt;

-- name: LockStock :many
SELECT s.account, s.mode, s.sku, s.on_hand, s.reserved, s.low_at, s.version, s.head_hash FROM stock s
JOIN (SELECT DISTINCT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@skus::text[]) AS sku) w
  ON s.account = w.account AND s.mode = w.mode AND s.sku = w.sku
ORDER BY s.account, s.mode, s.sku FOR UPDATE OF s;

-- name: LockFreeStock :many
-- LockStock without the rows that another transaction has locked.
SELECT s.account, s.mode, s.sku, s.on_hand, s.reserved, s.low_at, s.version, s.head_hash FROM stock s
JOIN (SELECT DISTINCT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@skus::text[]) AS sku) w
  ON s.account = w.account AND s.mode = w.mode AND s.sku = w.sku
ORDER BY s.account, s.mode, s.sku FOR UPDATE OF s SKIP LOCKED;

-- name: ReadStock :many
SELECT s.account, s.mode, s.sku, s.on_hand, s.reserved FROM stock s
JOIN (SELECT DISTINCT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@skus::text[]) AS sku) w
  ON s.account = w.account AND s.mode = w.mode AND s.sku = w.sku;

-- name: StockOf :many
-- Which of the items have a stock row, locked or not.
SELECT s.account, s.mode, s.sku FROM stock s
JOIN (SELECT DISTINCT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@skus::text[]) AS sku) w
  ON s.account = w.account AND s.mode = w.mode AND s.sku = w.sku;

-- name: MoveStock :exec
-- Changes one row for each sku. The caller has locked the rows in order. The guard repeats the CHECKs of the table. updated_at is the time of
-- the sku's last event or of its last reservation, which is now(), so that it can be rebuilt from them.
WITH written AS (
    UPDATE stock s
    SET on_hand = s.on_hand + m.on_hand, reserved = s.reserved + m.reserved, low_at = m.low_at, version = m.version, head_hash = m.head_hash,
        rev = s.rev + 1, updated_at = GREATEST(s.updated_at, m.at, CASE WHEN m.reserving THEN now() END)
    FROM (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@skus::text[]) AS sku,
                 unnest(@on_hand_deltas::bigint[]) AS on_hand, unnest(@reserved_deltas::bigint[]) AS reserved, unnest(@low_ats::bigint[]) AS low_at,
                 unnest(@versions::bigint[]) AS version, unnest(@head_hashes::bytea[]) AS head_hash,
                 unnest(@ats::timestamptz[]) AS at, unnest(@reserving::boolean[]) AS reserving) m
    WHERE s.account = m.account AND s.mode = m.mode AND s.sku = m.sku
      AND s.reserved + m.reserved BETWEEN 0 AND s.on_hand + m.on_hand
    RETURNING 1
)
SELECT expect_rows('stock', count(*), cardinality(@skus::text[]), 'XX000') FROM written;

-- name: InsertReservations :exec
INSERT INTO stock_reservations (account, mode, order_id, attempt, status, expires_at)
SELECT unnest(@accounts::integer[]), unnest(@modes::text[]), unnest(@order_ids::uuid[]), unnest(@attempts::integer[]),
       unnest(@statuses::text[]), unnest(@expires_ats::timestamptz[]);

-- name: UpdateReservations :exec
-- Compare and set: a row changes only from the status that was decided on.
WITH written AS (
    UPDATE stock_reservations r SET status = m.status, updated_at = GREATEST(r.updated_at, now())
    FROM (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@order_ids::uuid[]) AS order_id,
                 unnest(@attempts::integer[]) AS attempt, unnest(@from_statuses::text[]) AS from_status, unnest(@statuses::text[]) AS status) m
    WHERE r.account = m.account AND r.mode = m.mode AND r.order_id = m.order_id AND r.attempt = m.attempt AND r.status = m.from_status
    RETURNING 1
)
SELECT expect_rows('stock_reservations', count(*), cardinality(@order_ids::uuid[]), 'XX000') FROM written;

-- name: InsertReservationLines :exec
INSERT INTO stock_reservation_lines (account, mode, order_id, attempt, sku, quantity)
SELECT unnest(@accounts::integer[]), unnest(@modes::text[]), unnest(@order_ids::uuid[]), unnest(@attempts::integer[]),
       unnest(@skus::text[]), unnest(@quantities::bigint[]);

-- name: DatabaseNow :one
SELECT clock_timestamp()::timestamptz AS now;
