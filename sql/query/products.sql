-- name: GetProduct :one
SELECT sku, name, description, prices, active, low_stock_at, version, rev, created_at, updated_at FROM products
WHERE account = $1 AND mode = $2 AND sku = $3;

-- name: ListProducts :many
-- Products in the order of their skus, after the given sku. The sku or the name contains the text (empty: any).
SELECT sku, name, description, prices, active, low_stock_at, version, rev, created_at, updated_at FROM products
WHERE account = @account AND mode = @mode AND sku > @after
  AND (@q::text = '' OR strpos(lower(sku), lower(@q::text)) > 0 OR strpos(lower(name), lower(@q::text)) > 0)
ORDER BY sku LIMIT @page;

-- name: GetInventory :one
SELECT sku, on_hand, reserved, available, rev, updated_at AS as_of FROM stock_realtime
WHERE account = $1 AND mode = $2 AND sku = $3;
