// Package pgtest gives each test its own migrated database on the real PostgreSQL, replicas and Redis that
// internal/devstack/with started, and a proxy that breaks the connections to them.
package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ordergate/ordergate/sql"
)

// DB is one test's database, empty after the migrations. All tests share the server's roles and settings.
type DB struct {
	PrimaryURL  string
	ReplicaURL  string        // the replica has the database when New returns
	RedisURL    string        // all tests share it
	RedisPrefix string        // begins every key and channel of this test
	Pool        *pgxpool.Pool // superuser on the primary, for fixtures and assertions

	name, lagging string
}

const (
	hint = "this test needs PostgreSQL and Redis: run `make test RUN=TestName PKG=./folder`, " +
		"or `go run ./internal/devstack/with -- go test ./folder`"
	bound   = 30 * time.Second // for each wait
	lockKey = 0x6f726465726761 // advisory lock in database postgres: its owner makes the template; "orderga"
)

// New makes a database for this test and drops it at the test's end, open connections included. Without servers the test fails, or is
// skipped by -short, which is how make unit runs.
func New(t testing.TB) *DB {
	t.Helper()
	name := "t_" + strings.ToLower(rand.Text())
	db := &DB{
		name:        name,
		PrimaryURL:  withDatabase(t, env(t, "ORDERGATE_TEST_PRIMARY"), name),
		ReplicaURL:  withDatabase(t, env(t, "ORDERGATE_TEST_REPLICA"), name),
		lagging:     withDatabase(t, env(t, "ORDERGATE_TEST_LAGGING"), name),
		RedisURL:    env(t, "ORDERGATE_TEST_REDIS"),
		RedisPrefix: name + ":",
	}
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	must(t, "make the database", onServer(ctx, db.PrimaryURL, func(admin *pgx.Conn) error {
		template := "template_" + sql.Version()
		err := makeTemplate(ctx, admin, template, withDatabase(t, db.PrimaryURL, template))
		if err == nil {
			_, err = admin.Exec(ctx, "CREATE DATABASE "+name+" TEMPLATE "+template)
		}
		return err
	}))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), bound)
		defer cancel()
		must(t, "drop the database", onServer(ctx, db.PrimaryURL, func(admin *pgx.Conn) error {
			_, err := admin.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
			return err
		}))
	})
	must(t, "wait for the replica", awaitDatabase(ctx, db.ReplicaURL, name))
	var err error
	db.Pool, err = pgxpool.New(ctx, db.PrimaryURL)
	must(t, "connect", err)
	t.Cleanup(db.Pool.Close)
	return db
}

// LaggingURL is the address of the database on a replica that shows every commit 2 s late. It waits until the replica has the
// database, which New does not.
func (db *DB) LaggingURL(t testing.TB) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	must(t, "wait for the lagging replica", awaitDatabase(ctx, db.lagging, db.name))
	return db.lagging
}

// makeTemplate makes a database with all migrations, once for all processes.
func makeTemplate(ctx context.Context, admin *pgx.Conn, name, url string) error {
	complete := func() (there bool, err error) {
		err = admin.QueryRow(ctx, "SELECT count(*) > 0 FROM pg_database WHERE datname = $1 AND datistemplate", name).Scan(&there)
		return there, err
	}
	if there, err := complete(); there || err != nil {
		return err
	}
	if _, err := admin.Exec(ctx, "SELECT pg_advisory_lock($1)", lockKey); err != nil { // until admin is closed
		return err
	}
	if there, err := complete(); there || err != nil {
		return err
	}
	for _, statement := range []string{"DROP DATABASE IF EXISTS " + name + " WITH (FORCE)", "CREATE DATABASE " + name} {
		if _, err := admin.Exec(ctx, statement); err != nil {
			return err
		}
	}
	if err := sql.Migrate(ctx, url); err != nil {
		return err
	}
	_, err := admin.Exec(ctx, "ALTER DATABASE "+name+" WITH IS_TEMPLATE true ALLOW_CONNECTIONS false")
	return err
}

// awaitDatabase returns once the server has the database.
func awaitDatabase(ctx context.Context, server, name string) (err error) {
	for conflict := true; conflict; { // with what the replica has yet to replay, such as the end of another test's database
		err = hasDatabase(ctx, server, name)
		answer, ok := errors.AsType[*pgconn.PgError](err)
		conflict = ok && answer.Code == "40001"
	}
	return err
}

func hasDatabase(ctx context.Context, server, name string) error {
	return onServer(ctx, server, func(c *pgx.Conn) error {
		for there, tick := false, time.Tick(2*time.Millisecond); !there; <-tick {
			if err := c.QueryRow(ctx, "SELECT count(*) > 0 FROM pg_database WHERE datname = $1", name).Scan(&there); err != nil {
				return err
			}
		}
		return nil
	})
}

// onServer connects to the database postgres of a server for as long as do takes.
func onServer(ctx context.Context, server string, do func(*pgx.Conn) error) error {
	cfg, err := pgx.ParseConfig(server)
	if err != nil {
		return err
	}
	cfg.Database = "postgres"
	c, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	return do(c)
}

func withDatabase(t testing.TB, server, name string) string {
	t.Helper()
	u, err := url.Parse(server)
	must(t, "read the address", err)
	u.Path = name
	return u.String()
}

func env(t testing.TB, name string) string {
	t.Helper()
	v := os.Getenv(name)
	switch {
	case v == "" && testing.Short():
		t.Skip(hint)
	case v == "":
		t.Fatal(hint)
	}
	return v
}

func must(t testing.TB, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("pgtest: %s: %v", what, err)
	}
}
