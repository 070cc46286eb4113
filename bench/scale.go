package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"github.com/ordergate/ordergate/internal/devstack"
)

// scales are numbers of orders: few, many, and what many is where the disk has no room.
var scales = struct{ few, many, less int64 }{10_000, 10_000_000, 3_000_000}

const page = 50_000 // orders that a statement makes

// runScale measures what placing an order costs when few orders are there, and when many are: with a primary of its own, without replicas, on disk (in TMPDIR).
func runScale(ctx context.Context, size extent) *results {
	dir := try(os.MkdirTemp("", "ordergate-scale-"))
	must(devstack.MakeDir(dir))
	defer func() { must(devstack.Remove(context.WithoutCancel(ctx), dir)) }()
	stack := try(devstack.Start(ctx, devstack.Config{Dir: dir}))
	defer func() { must(stack.Stop(context.WithoutCancel(ctx))) }()
	for name, value := range map[string]string{
		"ORDERGATE_TEST_PRIMARY": stack.PrimaryURL, "ORDERGATE_TEST_REPLICA": "", "ORDERGATE_TEST_LAGGING": "", "ORDERGATE_TEST_REDIS": stack.RedisURL,
	} {
		must(os.Setenv(name, value))
	}
	r := newResults(ctx, "scale")
	b := &writeBench{gateway: start(ctx), extent: size}
	defer b.stop()
	measureScale(ctx, b, dir)
	b.checkChains(ctx)
	r.figures, r.rows = b.figures, b.rows
	r.print()
	if size == whole {
		r.write(ctx)
	}
	return r
}

func measureScale(ctx context.Context, b *writeBench, dir string) {
	few, many, less := scales.few, scales.many, scales.less
	if b.extent == trial {
		few, many, less = 100, 1000, 1000
	}
	template := uuid.UUID(try(b.place(ctx, b.components.Commands, uuid.NewString(), b.draft(0))).OrderID)
	legs := []contender{b.keyed("keys are UUIDv4", uuid.NewString), b.keyed("keys are UUIDv7", func() string { return uuid.Must(uuid.NewV7()).String() })}
	began := b.databaseSize(ctx)
	b.copies(ctx, template, 0, few)
	needed := (b.databaseSize(ctx)-began)/few*many*11/10 + 2<<30 // and the log
	free := freeBytes(dir)
	sayf("scale: %d orders need %.1f GB in %s, and %.1f GB are free", many, float64(needed)/1e9, dir, float64(free)/1e9)
	if free < needed {
		needed, many = needed*less/many, less
		sayf("scale: so there will be %d orders, which need %.1f GB", many, float64(needed)/1e9)
		if free < needed {
			must(errors.New("the disk has no room for them: set TMPDIR to a folder on another one"))
		}
	}
	rows := map[int64][]row{}
	for _, n := range []int64{few, many} {
		if n == many {
			b.copies(ctx, template, few, many)
		}
		for _, command := range []string{"VACUUM ANALYZE", "CHECKPOINT"} {
			_ = try(b.db.Exec(ctx, command))
		}
		rows[n] = b.compare(ctx, fmt.Sprintf("scale, %d orders", n), b.many, legs...)
	}
	for i, l := range legs {
		goal := func(text string) string { return map[bool]string{true: text}[i == 0] }
		of := func(n int64, of func(row) float64) []float64 { return each(rows[n], l.name, of) }
		name := fmt.Sprintf(" of an order at %d orders / at %d, %s", many, few, l.name)
		b.add(
			newFigure("CPU of the primary"+name, "us", goal("<= 1.05"), of(many, func(r row) float64 { return r.Primary }), of(few, func(r row) float64 { return r.Primary })),
			newFigure("WAL"+name, "bytes", goal("<= 1.8"), of(many, func(r row) float64 { return r.WAL }), of(few, func(r row) float64 { return r.WAL })),
			newFigure("orders/s"+name, "/s", "", of(many, rate), of(few, rate)),
		)
	}
}

// keyed is a leg in process whose orders have other keys.
func (b *writeBench) keyed(name string, key func() string) contender {
	return contender{name: name, load: func(ctx context.Context, clients int) *load {
		return b.calls(ctx, clients, func(n int64) error {
			_, err := b.place(ctx, b.components.Commands, key(), b.draft(n))
			return err
		})
	}}
}

func (b *writeBench) databaseSize(ctx context.Context) (bytes int64) {
	must(b.db.QueryRow(ctx, "SELECT pg_database_size(current_database())").Scan(&bytes))
	return bytes
}

func freeBytes(dir string) int64 {
	var disk unix.Statfs_t
	must(unix.Statfs(dir, &disk))
	return int64(disk.Bavail) * int64(disk.Bsize) //nolint:unconvert // others have a uint32
}

// copied are expressions for what each copy has for itself; c is its number and id.
var copied = map[string]string{
	"order_id": "c.id", "orders.id": "c.id", "id": "gen_random_uuid()", "key": "'pgbench-' || gen_random_uuid()", "customer_ref": "'c-' || c.i % 100000",
}

// copies makes the orders from one number to another out of one that was placed, with its rows in all tables but the outbox. Their ids are of this month so far,
// their keys random.
func (b *writeBench) copies(ctx context.Context, template uuid.UUID, from, to int64) {
	const tables = `SELECT c.table_name::text, array_agg(c.column_name::text ORDER BY c.ordinal_position)
FROM information_schema.columns c JOIN pg_class t ON t.relname = c.table_name AND t.relkind IN ('r', 'p') AND NOT t.relispartition
WHERE c.table_schema = 'public' AND c.table_name <> 'outbox'
GROUP BY c.table_name HAVING c.table_name = 'orders' OR bool_or(c.column_name = 'order_id') ORDER BY 1`
	var table string
	var columns, inserts []string
	_ = try(pgx.ForEachRow(try(b.db.Query(ctx, tables)), []any{&table, &columns}, func() error {
		id := "order_id"
		if table == "orders" {
			id = "id"
		}
		values := make([]string, len(columns))
		for i, column := range columns {
			values[i] = cmp.Or(copied[table+"."+column], copied[column], "o."+pgx.Identifier{column}.Sanitize())
		}
		inserts = append(inserts, fmt.Sprintf("INSERT INTO %s SELECT %s FROM copied c, %s o WHERE o.%s = $1 ORDER BY c.id", table, strings.Join(values, ", "), table, id))
		return nil
	}))
	for _, setting := range []string{
		"SET synchronous_commit = off", "SET session_replication_role = replica", // no trigger tells of changes by hand
		"CREATE TEMP TABLE copied (i bigint, id uuid)",
	} {
		_ = try(b.db.Exec(ctx, setting))
	}
	const ids = `INSERT INTO copied SELECT i, (lpad(to_hex(floor(extract(epoch FROM begun + (now() - begun) * (i::float8 / $3)) * 1000)::bigint), 12, '0')
    || '7' || substr(md5(i::text), 1, 3) || '8' || substr(md5(i::text), 4, 15))::uuid
FROM generate_series($1::bigint + 1, $2::bigint) AS i, (SELECT GREATEST(date_trunc('month', now()), now() - interval '20 days') AS begun) AS b`
	begin := time.Now()
	for at := from; at < to; at += page {
		end := min(at+page, to)
		_ = try(b.db.Exec(ctx, ids, at, end, to))
		for _, insert := range inserts {
			_ = try(b.db.Exec(ctx, insert, template))
		}
		_ = try(b.db.Exec(ctx, "TRUNCATE copied"))
		if end/1_000_000 > at/1_000_000 {
			sayf("scale: %d orders after %.0f s", end, time.Since(begin).Seconds())
		}
	}
	_ = try(b.db.Exec(ctx, "DROP TABLE copied"))
	_ = try(b.db.Exec(ctx, "SET session_replication_role = origin"))
}
