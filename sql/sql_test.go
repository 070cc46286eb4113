package sql_test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/sql"
)

// Each migration makes the partitions of the coming months. A row in the default partition blocks its own month only.
func TestMigrateMakesThePartitionsToCome(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	exec := func(statement string) {
		t.Helper()
		if _, err := db.Pool.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	partitions := func() (n int) {
		t.Helper()
		if err := db.Pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_inherits
			WHERE inhparent IN ('orders'::regclass, 'order_events'::regclass, 'inbox'::regclass)`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := partitions(); n != 3*(1+4) {
		t.Fatalf("%d partitions of three tables, with their default", n)
	}
	exec(`DO $$ DECLARE p regclass; BEGIN
		FOR p IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent IN ('orders'::regclass, 'inbox'::regclass) AND inhrelid::regclass::text NOT LIKE '%default' LOOP
			EXECUTE 'DROP TABLE ' || p;
		END LOOP;
	END $$`)
	exec(`INSERT INTO inbox VALUES ('c', uuidv7_lower_bound(now() + interval '35 days'))`)
	if err := sql.Migrate(t.Context(), db.PrimaryURL); err != nil {
		t.Fatal(err)
	}
	if n := partitions(); n != 3*(1+4)-1 {
		t.Errorf("%d partitions", n)
	}
}

// TestADatabaseOfAnotherBuildIsLeftAlone: one whose schema came from other files is refused before anything is changed, and one that this build
// made is migrated again at will.
func TestADatabaseOfAnotherBuildIsLeftAlone(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	for _, c := range []struct {
		statement string
		refused   bool
	}{
		{"SELECT", false},
		{"DELETE FROM migration_files", false}, // the process died before it could note them
		{"UPDATE migration_files SET sha256 = 'other'", true},
		{"DROP TABLE migration_files", true}, // it was made before there was the table
	} {
		if _, err := db.Pool.Exec(t.Context(), c.statement); err != nil {
			t.Fatal(err)
		}
		if err := sql.Migrate(t.Context(), db.PrimaryURL); errors.Is(err, sql.ErrOtherBuild) != c.refused || !c.refused && err != nil {
			t.Errorf("after %s: %v", c.statement, err)
		}
	}
	var noted bool
	if err := db.Pool.QueryRow(t.Context(), "SELECT to_regclass('migration_files') IS NOT NULL").Scan(&noted); err != nil || noted {
		t.Errorf("a database that was refused has the table: %v %v", noted, err)
	}
}

// A SELECT that waits for a row lock sees that row as it is then, and all other rows as they were before it waited. So what is decided on
// beside the locked rows is read by a later statement.
func TestAStatementThatLocksReadsOneTable(t *testing.T) {
	t.Parallel()
	schema, err := os.ReadFile("migrations/00001_init.sql")
	if err != nil {
		t.Fatal(err)
	}
	tables := map[string]bool{}
	for _, m := range regexp.MustCompile(`CREATE TABLE (\w+)`).FindAllStringSubmatch(string(schema), -1) {
		tables[m[1]] = true
	}
	files, _ := filepath.Glob("command/*/*.sql")
	locking := 0
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, query := range strings.Split(string(b), "-- name: ")[1:] {
			name, _, _ := strings.Cut(query, " ")
			query = regexp.MustCompile(`--.*`).ReplaceAllString(query, "")
			if !regexp.MustCompile(`\bFOR (NO KEY )?(UPDATE|SHARE)\b`).MatchString(query) {
				continue
			}
			locking++
			read := map[string]bool{}
			for _, m := range regexp.MustCompile(`\b(FROM|JOIN|USING|UPDATE)\s+(\w+)`).FindAllStringSubmatch(query, -1) {
				if tables[m[2]] {
					read[m[2]] = true
				}
			}
			if len(read) != 1 {
				t.Errorf("%s: %s locks and reads %v", file, name, slices.Sorted(maps.Keys(read)))
			}
		}
	}
	if len(tables) < 20 || locking < 15 {
		t.Errorf("%d tables and %d locking statements are known", len(tables), locking)
	}
}
