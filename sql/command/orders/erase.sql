-- The orders of a customer, and the stored results about an order, of which `ordergate erase` takes the shipping address.

-- name: CountCustomer :one
-- last: the greatest id, the newest order. A cached join may walk all addresses; the subselect looks them up.
SELECT count(*) AS orders, count((SELECT a.order_id FROM order_addresses a WHERE a.account = o.account AND a.mode = o.mode AND a.order_id = o.id)) AS addresses,
       COALESCE(max(o.id::text), '00000000-0000-0000-0000-000000000000')::uuid AS last
FROM orders o
WHERE o.customer_ref = @customer_ref AND o.account = @account AND o.mode = @mode;

-- name: OrdersOfCustomer :many
SELECT id FROM orders
WHERE customer_ref = @customer_ref AND account = @account AND mode = @mode AND id > @after AND id <= @last
ORDER BY id LIMIT @page;

-- name: ResultsOfOrder :many
-- The holder of an order's lock alone stores results about it. Account and mode are compared in a form that no index serves: without statistics
-- the primary key would look as good as the order's index.
SELECT operation, key, etag, body FROM idempotency_keys
WHERE order_id = @order_id::uuid AND (account, mode) IS NOT DISTINCT FROM (@account::integer, @mode::text);

-- name: ReplaceResults :exec
UPDATE idempotency_keys k SET etag = u.etag, body = u.body
FROM (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@operations::text[]) AS operation,
             unnest((SELECT @keys::text[])) AS key, unnest(@etags::text[]) AS etag, unnest(@bodies::bytea[]) AS body) u
WHERE k.account = u.account AND k.mode = u.mode AND k.operation = u.operation AND k.key = u.key;
