-- Accounts and their API keys, as the command line writes them.

-- name: GetAccount :one
SELECT * FROM accounts WHERE name = $1;

-- name: ListAccounts :many
SELECT id, name FROM accounts;

-- name: NextAccount :one
INSERT INTO accounts (id, name) SELECT COALESCE(max(id), 0) + 1, $1 FROM accounts RETURNING id;

-- name: InsertKey :exec
INSERT INTO api_keys (id, account, mode, name, hash, scopes, expires_at, rate, rate_window) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: FindKey :one
SELECT id, account, mode, scopes, expires_at, revoked_at, rate, rate_window FROM api_keys WHERE hash = $1;

-- name: GetKey :one
SELECT * FROM api_keys WHERE id = $1;

-- name: ListKeys :many
SELECT k.id, k.mode, k.name, k.scopes, k.expires_at, k.revoked_at, k.rate, k.rate_window, k.created_at, a.name AS account_name
FROM api_keys k JOIN accounts a ON a.id = k.account ORDER BY k.created_at, k.id;

-- name: RevokeKey :execrows
UPDATE api_keys SET revoked_at = COALESCE(revoked_at, now()) WHERE id = $1;

-- name: LimitKey :execrows
UPDATE api_keys SET rate = @rate, rate_window = @rate_window WHERE id = @id;

-- name: ExpireKey :execrows
UPDATE api_keys SET expires_at = LEAST(expires_at, now() + make_interval(secs => @seconds::double precision)) WHERE id = @id;
