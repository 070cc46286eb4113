-- Products.

-- name: CountProducts :one
SELECT count(*) FROM products WHERE account = $1 AND mode = $2;

-- name: InsertProducts :exec
-- A product that exists stays as it is: that is a serialization failure, somebody created one of them first.
WITH written AS (
    INSERT INTO products (account, mode, sku, name, description, prices, active, low_stock_at, version, created_at, updated_at)
    SELECT unnest(@accounts::integer[]), unnest(@modes::text[]), unnest(@skus::text[]), unnest(@names::text[]), unnest(@descriptions::text[]),
           unnest(@prices::jsonb[]), unnest(@actives::boolean[]), NULLIF(unnest(@low_stock_ats::bigint[]), -1), unnest(@versions::bigint[]),
           unnest(@created_ats::timestamptz[]), unnest(@updated_ats::timestamptz[])
    ON CONFLICT (account, mode, sku) DO NOTHING
    RETURNING 1
)
SELECT expect_rows('products', count(*), cardinality(@skus::text[]), '40001') FROM written;

-- name: UpdateProducts :exec
-- The caller has locked the rows. It is a serialization failure if they have changed since.
WITH written AS (
    UPDATE products p
    SET name = u.name, description = u.description, prices = u.prices, active = u.active, low_stock_at = NULLIF(u.low_stock_at, -1),
        version = u.version, rev = p.rev + 1, updated_at = u.updated_at
    FROM (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@skus::text[]) AS sku, unnest(@names::text[]) AS name,
                 unnest(@descriptions::text[]) AS description, unnest(@prices::jsonb[]) AS prices, unnest(@actives::boolean[]) AS active,
                 unnest(@low_stock_ats::bigint[]) AS low_stock_at, unnest(@versions::bigint[]) AS version, unnest(@revs::bigint[]) AS rev,
                 unnest(@updated_ats::timestamptz[]) AS updated_at) u
    WHERE p.account = u.account AND p.mode = u.mode AND p.sku = u.sku AND p.rev = u.rev - 1
    RETURNING 1
)
SELECT expect_rows('products', count(*), cardinality(@skus::text[]), '40001') FROM written;

-- name: LockProducts :many
-- Locks products in the order of their keys, before anything of them is updated.
SELECT p.account, p.mode, p.sku, p.name, p.description, p.prices, p.active, COALESCE(p.low_stock_at, -1)::bigint AS low_stock_at, p.version, p.rev,
       p.created_at, p.updated_at
FROM products p
JOIN (SELECT DISTINCT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@skus::text[]) AS sku) w
  ON p.account = w.account AND p.mode = w.mode AND p.sku = w.sku
ORDER BY p.account, p.mode, p.sku FOR UPDATE OF p;

-- name: LockFreeProducts :many
-- LockProducts without the rows that another transaction has locked.
SELECT p.account, p.mode, p.sku, p.name, p.description, p.prices, p.active, COALESCE(p.low_stock_at, -1)::bigint AS low_stock_at, p.version, p.rev,
       p.created_at, p.updated_at
FROM products p
JOIN (SELECT DISTINCT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@skus::text[]) AS sku) w
  ON p.account = w.account AND p.mode = w.mode AND p.sku = w.sku
ORDER BY p.account, p.mode, p.sku FOR UPDATE OF p SKIP LOCKED;

-- name: GetProductRevs :many
SELECT p.account, p.mode, p.sku, p.rev FROM products p
JOIN (SELECT DISTINCT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@skus::text[]) AS sku) w
  ON p.account = w.account AND p.mode = w.mode AND p.sku = w.sku;

-- name: GetProducts :many
SELECT p.account, p.mode, p.sku, p.name, p.active, p.prices FROM products p
JOIN (SELECT DISTINCT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@skus::text[]) AS sku) w
  ON p.account = w.account AND p.mode = w.mode AND p.sku = w.sku;
