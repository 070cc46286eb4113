// Package sql holds the schema's migrations and applies them. The queries beside it are compiled by sqlc into gen/.
package sql

import (
	"context"
	"crypto/sha256"
	stdsql "database/sql"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver that goose migrates with
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/ordergate/ordergate/gen/migrationsdb"
)

//go:embed migrations/*.sql
var migrations embed.FS

// ErrOtherBuild says that the database was migrated with files that this build has with other contents. It is left as it is.
var ErrOtherBuild = errors.New("the database was made by another build, whose schema does not fit this one. A database of `ordergate run` can be " +
	"begun anew: remove the folder that it prints as Data")

// Migrate brings the database at url to the newest schema and makes the partitions of the coming months. It is safe to repeat;
// concurrent calls wait for each other. ErrOtherBuild if a file that was applied has changed since.
func Migrate(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	q, names, sums := migrationsdb.New(conn), []string{}, []string{}
	for name, sum := range migrationFiles() {
		names, sums = append(names, name), append(sums, sum)
	}
	if err = checkFiles(ctx, q, names, sums); err != nil {
		return err
	}
	if err = applyMigrations(ctx, url); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if err = q.NoteFiles(ctx, migrationsdb.NoteFilesParams{Names: names, Sums: sums}); err != nil {
		return fmt.Errorf("note the files of migrations: %w", err)
	}
	if err = q.EnsurePartitions(ctx); err != nil {
		return fmt.Errorf("make partitions: %w", err)
	}
	return nil
}

// checkFiles compares the files that the database was migrated with to those of this build: ErrOtherBuild.
func checkFiles(ctx context.Context, q *migrationsdb.Queries, names, sums []string) error {
	schema, err := q.HasSchema(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("read the files of migrations: %w", err)
	case schema.Migrated && !schema.Noted:
		return ErrOtherBuild
	case !schema.Noted: // it is new
		return nil
	}
	others, err := q.OtherFiles(ctx, migrationsdb.OtherFilesParams{Names: names, Sums: sums})
	if err != nil {
		return fmt.Errorf("read the files of migrations: %w", err)
	}
	if len(others) > 0 {
		return fmt.Errorf("%s: %w", others[0], ErrOtherBuild)
	}
	return nil
}

// applyMigrations applies the files that the database does not have yet, each in its own transaction.
func applyMigrations(ctx context.Context, url string) error {
	db, err := stdsql.Open("pgx", url)
	if err != nil {
		return err
	}
	defer db.Close()
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithSessionLocker(locker))
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// migrationFiles are the SHA-256 of the migrations' files, by name.
func migrationFiles() map[string]string {
	all := map[string]string{}
	files, _ := fs.Glob(migrations, "migrations/*.sql")
	for _, file := range files {
		b, _ := migrations.ReadFile(file)
		sum := sha256.Sum256(b)
		all[path.Base(file)] = hex.EncodeToString(sum[:])
	}
	return all
}

// Version is a hash over all migrations: equal versions mean equal schemas.
func Version() string {
	h := sha256.New()
	files, _ := fs.Glob(migrations, "migrations/*.sql")
	for _, file := range files {
		b, _ := migrations.ReadFile(file)
		h.Write([]byte(file))
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil))[:12]
}
