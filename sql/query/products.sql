-- name: GetProduct :one
SELECT sku, name, description, prices, active, low_stock_at, version, rev, created_at, updated_at FROM products
WHERE account = $1 AND mode = $2 AND sku = $3;

-- name: ListProducts :many
-- Products in the order of their skus, after the given sku. One branch runs: all of them, or those that a search finds.
SELECT p.sku, p.name, p.description, p.prices, p.active, p.low_stock_at, p.version, p.rev, p.created_at, p.updated_at FROM (
  (SELECT x.* FROM products x WHERE @q::text = '' AND x.account = @account AND x.mode = @mode AND x.sku > @after ORDER BY x.sku LIMIT @page)
  UNION ALL
  (SELECT x.* FROM search_products(@account, @mode, @q::text, @after, @page::integer) AS found
   CROSS JOIN LATERAL (SELECT * FROM products y WHERE y.account = @account AND y.mode = @mode AND y.sku = found OFFSET 0) AS x
   WHERE @q::text <> '')
) AS p
ORDER BY p.sku;

-- name: GetInventory :one
SELECT sku, on_hand, reserved, available, rev, updated_at AS as_of FROM stock_realtime
WHERE account = $1 AND mode = $2 AND sku = $3;
