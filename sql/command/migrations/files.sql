-- The files that the database was migrated with.

-- name: HasSchema :one
-- Whether the database has a schema, and whether it tells which files made it.
SELECT (to_regclass('accounts') IS NOT NULL)::boolean AS migrated, (to_regclass('migration_files') IS NOT NULL)::boolean AS noted;

-- name: OtherFiles :many
-- The names of the files that were applied with other contents than the given ones.
SELECT f.name FROM migration_files f
JOIN (SELECT unnest(@names::text[]) AS name, unnest(@sums::text[]) AS sha256) given ON given.name = f.name
WHERE given.sha256 <> f.sha256 ORDER BY f.name;

-- name: NoteFiles :exec
INSERT INTO migration_files (name, sha256)
SELECT unnest(@names::text[]), unnest(@sums::text[])
ON CONFLICT DO NOTHING;

-- name: EnsurePartitions :exec
SELECT ensure_partitions();
