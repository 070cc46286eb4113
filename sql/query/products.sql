-- name: GetProduct :one
SELECT sku, name, description, prices, active, low_stock_at, version, rev, created_at, updated_at FROM products
WHERE account = $1 AND mode = $2 AND sku = $3;

-- name: ListProducts :many
-- Products in the order of their skus, after the given sku. One branch runs: all of them, or those of which sku and name have every word of the
-- text. Their pairs of characters are looked up in the index; that the pairs stand in one word is looked at then.
SELECT p.sku, p.name, p.description, p.prices, p.active, p.low_stock_at, p.version, p.rev, p.created_at, p.updated_at FROM (
  (SELECT x.* FROM products x WHERE @q::text = '' AND x.account = @account::integer AND x.mode = @mode::text AND x.sku > @after::text ORDER BY x.sku LIMIT @page)
  UNION ALL
  (SELECT x.* FROM (
      SELECT * FROM products WHERE @q::text <> ''
      AND search_grams(account, mode, sku || ' ' || name) @> query_grams(@account::integer, @mode::text, @q::text) OFFSET 0
    ) AS x
    WHERE x.account = @account::integer AND x.mode = @mode::text AND x.sku > @after::text AND NOT EXISTS (
      SELECT FROM regexp_split_to_table(lower(@q::text), '\s+') AS word
      WHERE length(word) > 1 AND strpos(lower((x.sku || ' ' || x.name) COLLATE "default"), word) = 0)
    ORDER BY x.sku LIMIT @page)
) AS p
ORDER BY p.sku;

-- name: GetInventory :one
SELECT sku, on_hand, reserved, available, rev, updated_at AS as_of FROM stock_realtime
WHERE account = $1 AND mode = $2 AND sku = $3;
