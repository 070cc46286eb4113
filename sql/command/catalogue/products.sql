-- Products.

-- name: CountProducts :one
SELECT count(*) FROM products WHERE account = $1 AND mode = $2;

-- name: InsertProducts :exec
INSERT INTO products (account, mode, sku, name, description, prices)
SELECT @account::integer, @mode::text, unnest(@skus::text[]), unnest(@names::text[]), unnest(@descriptions::text[]), unnest(@prices::jsonb[])
ON CONFLICT (account, mode, sku) DO NOTHING;

-- name: InsertSampleProducts :exec
-- Each article in each series, in test mode. Prices are in cents and end in 9; a yuan price is eight times the euro price, in whole yuan.
INSERT INTO products (account, mode, sku, name, description, prices)
SELECT @account::integer, 'test', a.value ->> 'prefix' || '-' || lpad(s.number::text, 4, '0'), a.value ->> 'name' || ' ' || (s.value ->> 'name'),
       a.value ->> 'description', jsonb_build_object('EUR', p.cents, 'CNY', p.cents * 8 / 100 * 100)
FROM jsonb_array_elements(@sample::jsonb -> 'articles') a
CROSS JOIN jsonb_array_elements(@sample -> 'series') WITH ORDINALITY s(value, number)
CROSS JOIN LATERAL (SELECT (a.value ->> 'cents')::bigint * (s.value ->> 'percent')::bigint / 1000 * 10 + 9 AS cents) p
ON CONFLICT (account, mode, sku) DO NOTHING;

-- name: GetProducts :many
SELECT p.account, p.mode, p.sku, p.name, p.active, p.prices FROM products p
JOIN (SELECT DISTINCT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@skus::text[]) AS sku) w
  ON p.account = w.account AND p.mode = w.mode AND p.sku = w.sku;
