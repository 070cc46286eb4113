package sql_test

import (
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
