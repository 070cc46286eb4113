-- name: GetShipment :one
SELECT * FROM shipments WHERE account = $1 AND mode = $2 AND id = $3;

-- name: ListOrderShipments :many
-- The shipments of an order after an id: a UUIDv7 sorts by time.
SELECT * FROM shipments WHERE account = @account AND mode = @mode AND order_id = @order_id AND id > @after::uuid
ORDER BY id LIMIT @page;
