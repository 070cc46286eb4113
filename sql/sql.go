// Package sql holds the schema's migrations and applies them. The queries beside it are compiled by sqlc into gen/.
package sql

import (
	"context"
	"crypto/sha256"
	stdsql "database/sql"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver that goose migrates with
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrate brings the database at url to the newest schema and makes the partitions of the coming months. It is safe to repeat;
// concurrent calls wait for each other.
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
	if _, err = p.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if _, err = db.ExecContext(ctx, "SELECT ensure_partitions()"); err != nil {
		return fmt.Errorf("make partitions: %w", err)
	}
	return nil
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
