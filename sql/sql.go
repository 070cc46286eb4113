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

	_ "github.com/jackc/pgx/v5/stdlib" // the driver that goose migrates with
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed migrations/*.sql
var migrations embed.FS

// ErrOtherBuild says that the database was migrated with files that this build has with other contents. It is left as it is.
var ErrOtherBuild = errors.New("the database was made by another build, whose schema does not fit this one. A database of `ordergate run` can be " +
	"begun anew: remove the folder that it prints as Data")

// Migrate brings the database at url to the newest schema and makes the partitions of the coming months. It is safe to repeat;
// concurrent calls wait for each other. ErrOtherBuild if a file that was applied has changed since.
func Migrate(ctx context.Context, url string) error {
	db, err := stdsql.Open("pgx", url)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
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
		return fmt.Errorf("read migrations: %w", err)
	}
	if err = checkFiles(ctx, db); err != nil {
		return err
	}
	if _, err = p.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	for name, sum := range sums() {
		if _, err = db.ExecContext(ctx, "INSERT INTO migration_files VALUES ($1, $2) ON CONFLICT DO NOTHING", name, sum); err != nil {
			return fmt.Errorf("note the files of migrations: %w", err)
		}
	}
	if _, err = db.ExecContext(ctx, "SELECT ensure_partitions()"); err != nil {
		return fmt.Errorf("make partitions: %w", err)
	}
	return nil
}

// checkFiles compares the files that the database was migrated with to those of this build: ErrOtherBuild. It makes the table of them, which a
// database that was migrated before there was one does not have.
func checkFiles(ctx context.Context, db *stdsql.DB) error {
	var unknown bool
	if err := db.QueryRowContext(ctx, "SELECT to_regclass('goose_db_version') IS NOT NULL AND to_regclass('migration_files') IS NULL").Scan(&unknown); err != nil {
		return fmt.Errorf("read the files of migrations: %w", err)
	}
	if unknown {
		return ErrOtherBuild
	}
	_, err := db.ExecContext(ctx, `SELECT pg_advisory_xact_lock(hashtext('migration_files'));
		CREATE TABLE IF NOT EXISTS migration_files (name text PRIMARY KEY, sha256 text NOT NULL)`)
	if err != nil {
		return fmt.Errorf("note the files of migrations: %w", err)
	}
	for name, sum := range sums() {
		var applied string
		err := db.QueryRowContext(ctx, "SELECT sha256 FROM migration_files WHERE name = $1", name).Scan(&applied)
		if err != nil && !errors.Is(err, stdsql.ErrNoRows) {
			return fmt.Errorf("read the files of migrations: %w", err)
		}
		if err == nil && applied != sum {
			return fmt.Errorf("%s: %w", name, ErrOtherBuild)
		}
	}
	return nil
}

// sums are the SHA-256 of the migrations' files, by name.
func sums() map[string]string {
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
