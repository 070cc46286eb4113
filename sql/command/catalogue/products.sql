-- Products.

-- name: CountProducts :one
SELECT count(*) FROM products WHERE account = $1 AND mode = $2;

-- name: InsertProducts :exec
INSERT INTO products (account, mode, sku, name, description, prices)
SELECT @account::integer, @mode::text, unnest(@skus::text[]), unnest(@names::text[]), unnest(@descriptions::text[]), unnest(@prices::jsonb[])
ON CONFLICT (account, mode, sku) DO NOTHING;

-- name: GetProducts :many
SELECT p.account, p.mode, p.sku, p.name, p.active, p.prices FROM products p
JOIN (SELECT DISTINCT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@skus::text[]) AS sku) w
  ON p.account = w.account AND p.mode = w.mode AND p.sku = w.sku;
