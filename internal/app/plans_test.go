package app

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/gen/ordersdb"
	"github.com/ordergate/ordergate/gen/querydb"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/pgtest"
)

// TestPlansAreKeptAndWalkIndexes: look-ups in partitioned tables are not planned anew each time, and a plan that was made while the
// tables are empty is one that holds when they are full.
func TestPlansAreKeptAndWalkIndexes(t *testing.T) {
	t.Parallel()
	ctx, db := t.Context(), pgtest.New(t)
	pool, err := pg.Connect(ctx, db.PrimaryURL, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	conn, err := pool.Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	c, q := ordersdb.New(conn), querydb.New(conn)
	unlessNone := func(err error) error {
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	}
	accounts, modes, ids := []int32{1}, []string{"test"}, []uuid.UUID{uuid.New()}
	for name, run := range map[string]func() error{
		"FROM idempotency_keys": func() error {
			_, err := c.FindResults(ctx, ordersdb.FindResultsParams{Accounts: accounts, Modes: modes, Operations: []string{"placeOrder"}, Keys: []string{"k"}})
			return err
		},
		"-- name: LockOrders": func() error {
			_, err := c.LockOrders(ctx, ordersdb.LockOrdersParams{Accounts: accounts, Modes: modes, Ids: ids})
			return err
		},
		"-- name: UpdateOrders": func() error {
			_, err := c.UpdateOrders(ctx, ordersdb.UpdateOrdersParams{
				Accounts: accounts, Modes: modes, Ids: ids, ExpectedVersions: []int64{1}, Statuses: []string{"s"}, PaymentStatuses: []string{"p"},
				Versions: []int64{2}, HeadHashes: [][]byte{{1}}, States: [][]byte{[]byte("{}")}, UpdatedAts: []time.Time{time.Now()},
			})
			return err
		},
		"-- name: GetOrderState": func() error {
			_, err := c.GetOrderState(ctx, ordersdb.GetOrderStateParams{Account: 1, Mode: "test", ID: ids[0]})
			return unlessNone(err)
		},
		"-- name: GetSaga": func() error {
			_, err := q.GetSaga(ctx, querydb.GetSagaParams{Account: 1, Mode: "test", ID: ids[0]})
			return err
		},
		"-- name: GetOrder :one": func() error {
			_, err := q.GetOrder(ctx, querydb.GetOrderParams{Account: 1, Mode: "test", ID: ids[0]})
			return unlessNone(err)
		},
	} {
		for range 10 {
			if err := run(); err != nil {
				t.Fatal(err)
			}
		}
		var statement string
		var parameters, kept int
		err := conn.QueryRow(ctx, `SELECT name, cardinality(parameter_types), generic_plans FROM pg_prepared_statements
			WHERE position($1 IN statement) > 0 AND position('pg_prepared_statements' IN statement) = 0`, name).Scan(&statement, &parameters, &kept)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if kept == 0 {
			t.Errorf("%s is planned anew each time", name)
		}
		rows, err := conn.Query(ctx, fmt.Sprintf("EXPLAIN (COSTS OFF) EXECUTE %s (%s)", statement, strings.TrimSuffix(strings.Repeat("NULL,", parameters), ",")))
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var line string
			if err := rows.Scan(&line); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(line, "Seq Scan") || strings.Contains(line, "Hash") || strings.Contains(line, "Merge") || strings.Contains(line, "Index Scan using") && !strings.Contains(line, "_pkey") {
				t.Errorf("%s: %s", name, line)
			}
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
	}
}
