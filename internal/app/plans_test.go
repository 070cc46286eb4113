package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/pgtest"
)

// walks are the queries that may read more than they find, each with its reason. A query that no longer does must leave the list.
var walks = map[string]string{
	"CallsHealth":       "passes over refunds that wait longer, because the provider refused them before",
	"CountParkedCauses": "an operator's list of all parked messages",
	"CountProducts":     "once, when `run` fills an empty catalogue",
	"FindMessage":       "an operator's question about one message: the outbox holds what is not yet published",
	"ListAccounts":      "an operator's list of coupons names their accounts",
	"ListCoupons":       "an operator's list of all coupons, with their uses",
	"ListKeys":          "an operator's list of all keys",
	"ListParked":        "an operator's list of all parked messages",
	"OutboxPage":        "passes over the shards of other relays, in an outbox that holds what is not yet published",
	"PrimaryHealth":     "counts the parked messages, which an operator keeps few",
	"PurgeInbox":        "looks through the outbox and the parked messages, which are few, once a minute",
	"RearmCalls":        "passes over refunds that wait longer, because the provider refused them before",
	"RearmReservations": "passes over reservations that were made under a longer time of life than the present one",

	"CallsWithoutOrder":        "`verify` looks at all calls, in one statement",
	"CountCalls":               "`verify` says how far it is",
	"CountEvents":              "`verify` says how far it is",
	"CountKeys":                "`verify` says how many it looked at",
	"CountOrders":              "`verify` says how far it is",
	"CountParked":              "counts the parked messages, which an operator keeps few",
	"CountRedemptions":         "`verify` says how many it looked at",
	"CountReferences":          "`verify` says how many it looked at",
	"CountRecentEvents":        "`verify` says how many it looked at",
	"CountResourceEvents":      "`verify` says how far it is",
	"CountResources":           "`verify` says how far it is",
	"CountStock":               "`verify` says how many it looked at",
	"EventsWithoutOrder":       "`verify` looks at all events, in one statement",
	"EventsWithoutResource":    "`verify` looks at all events of payments, refunds and shipments, in one statement",
	"KeysWithoutOrder":         "`verify` looks at all keys, in one statement",
	"KeysWithoutProduct":       "`verify` looks at all keys, in one statement",
	"LinesWithoutReservation":  "`verify` looks at all lines, in one statement",
	"OrdersWithMessages":       "`verify` looks through the outbox for the orders of a page, if some are in flight",
	"OrdersWithoutOneKey":      "`verify` compares all orders of 48 h with all keys, in one statement",
	"OrdersWithoutRedemption":  "`verify` compares all orders that have a coupon with all redemptions, in one statement",
	"OrdersWithoutReference":   "`verify` compares all orders that have a reference with all references, in one statement",
	"PaymentsWithoutOrder":     "`verify` looks at all payments, in one statement",
	"ProductsWithoutStock":     "`verify` compares all products with their stock, in one statement",
	"RefundsWithoutPayment":    "`verify` looks at all refunds, in one statement",
	"RepeatedEventIDs":         "`verify` compares all events, in one statement",
	"ReservationsWithoutOrder": "`verify` looks at all reservations, in one statement",
	"ResultsWithoutOneKey":     "`verify` compares all that operations made with all keys, in one statement",
	"ShipmentsWithoutOrder":    "`verify` looks at all shipments, in one statement",
	"StepsWithoutOrder":        "`verify` looks at all steps, in one statement",
	"StockWithoutHead":         "`verify` compares all stock with its last events, in one statement",
	"UnpublishedEvents":        "`verify` compares all events of 7 days with inbox and outbox, in one statement",
	"WrongCoupons":             "`verify` compares all coupons with all redemptions, in one statement",
	"WrongStock":               "`verify` compares all stock with all reservations and adjustments, in one statement",

	"CountHistory":                 "`replay` says how far it is",
	"DeleteOrdersWithoutEvents":    "`replay` looks at all orders, in one statement",
	"DeletePaymentsWithoutEvents":  "`replay` looks at all payments, in one statement",
	"DeleteRefundsWithoutEvents":   "`replay` looks at all refunds, in one statement",
	"DeleteShipmentsWithoutEvents": "`replay` looks at all shipments, in one statement",
	"OrdersWithEvents":             "`replay` walks over all events, a page at a time",
	"ResourcesWithEvents":          "`replay` walks over all events of a kind, a page at a time",
	"StaleStock":                   "`replay` compares all stock with its events and reservations, in one statement",
}

// planValues are parameters that are not the key of a loaded row and that a query does not accept by their type's default.
var planValues = map[string]string{
	"InsertPayments.refunded":        "ARRAY[0]::bigint[]",
	"InsertPayments.refund_pending":  "ARRAY[0]::bigint[]",
	"InsertResourceEvents.sequences": "ARRAY[2]::bigint[]", // the loaded rows have the first
	"PutPayments.refunded":           "ARRAY[0]::bigint[]",
	"PutPayments.refund_pending":     "ARRAY[0]::bigint[]",
	"UpdatePayments.refunded":        "ARRAY[0]::bigint[]",
	"UpdatePayments.refund_pending":  "ARRAY[0]::bigint[]",
}

const (
	loadedRows = 100_000 // of every table, all of one account
	soughtRow  = 77      // the row that the parameters name
	maxRead    = 5_000   // a page of 1,000 rows and the look-ups for each of them
)

// TestEveryCachedPlanIsAnIndexLookUp: PostgreSQL caches the plan of a prepared statement, and may have made it while the tables were
// empty. Every query of sql/ is planned so, and must look rows up by an index, or walk one no further than its LIMIT. Then every table
// is filled, and no query may read more than maxRead rows, neither by the cached plan nor by a plan that is made on full tables.
func TestEveryCachedPlanIsAnIndexLookUp(t *testing.T) {
	t.Parallel()
	ctx, db := t.Context(), pgtest.New(t)
	config, err := pgx.ParseConfig(db.PrimaryURL)
	must(t, err)
	maps.Copy(config.RuntimeParams, pg.Session)
	conn, err := pgx.ConnectConfig(ctx, config)
	must(t, err)
	defer func() { _ = conn.Close(ctx) }()
	p := newPlanned(t, db)
	statements := readStatements(t)
	for _, s := range statements {
		_, err := conn.Prepare(ctx, s.name, s.sql)
		must(t, err)
		must(t, conn.QueryRow(ctx, `SELECT parameter_types::text[] FROM pg_prepared_statements WHERE name = $1`, s.name).Scan(&s.types))
		root, err := p.explain(ctx, conn, s, "")
		must(t, err)
		s.walks = p.walksOf(root, false)
		var anew bool
		must(t, conn.QueryRow(ctx, `SELECT generic_plans = 0 FROM pg_prepared_statements WHERE name = $1`, s.name).Scan(&anew))
		if anew {
			t.Errorf("the plan of %s is not cached", s.name)
		}
	}
	load := time.Now()
	p.load(t, db)
	_, err = db.Pool.Exec(ctx, `CREATE OR REPLACE FUNCTION expect_rows(of text, written bigint, expected integer, code text) RETURNS void LANGUAGE sql AS ''`)
	must(t, err) // the parameters name rows that cannot be written
	t.Logf("loaded in %v", time.Since(load).Round(time.Millisecond))
	read := func(when string) {
		for _, s := range statements {
			root, err := p.explain(ctx, conn, s, "ANALYZE, ")
			if err != nil {
				t.Errorf("%s: %v (planValues may need a value)", s.name, err)
				continue
			}
			if n := root.read(); n > maxRead {
				s.walks = append(s.walks, fmt.Sprintf("%s it reads %.0f rows", when, n))
			}
		}
	}
	read("by the cached plan")
	_, err = db.Pool.Exec(ctx, "ANALYZE")
	must(t, err)
	_, err = conn.Exec(ctx, "DISCARD PLANS")
	must(t, err)
	read("by a plan made on full tables")
	exceptions := maps.Clone(walks)
	for _, s := range statements {
		reason, excepted := exceptions[s.name]
		switch {
		case len(s.walks) > 0 && !excepted:
			t.Errorf("%s:\n  %s", s.name, strings.Join(s.walks, "\n  "))
		case len(s.walks) == 0 && excepted:
			t.Errorf("%s does not walk and is excepted: %s", s.name, reason)
		}
		delete(exceptions, s.name)
	}
	for name := range exceptions {
		t.Errorf("%s is excepted and is no query", name)
	}
}

// statement is a query of sql/ as the program prepares it.
type statement struct {
	name   string
	sql    string
	params []string // as the generated code names them
	types  []string
	walks  []string // scans of its plans that walk
}

// readStatements reads the generated code, and makes sure that no query of sql/ is missing there.
func readStatements(t *testing.T) (all []*statement) {
	t.Helper()
	folders, err := filepath.Glob("../../sql/command/*")
	must(t, err)
	folders = slices.DeleteFunc(folders, func(folder string) bool { return filepath.Base(folder) == "migrations" }) // the owner's, over a row a file
	for _, folder := range append(folders, "../../sql/export", "../../sql/query", "../../sql/replay", "../../sql/verify") {
		declared := map[string]bool{}
		files, err := filepath.Glob(folder + "/*.sql")
		must(t, err)
		for _, file := range files {
			b, err := os.ReadFile(file)
			must(t, err)
			for _, m := range regexp.MustCompile(`(?m)^-- name: (\w+)`).FindAllStringSubmatch(string(b), -1) {
				declared[m[1]] = true
			}
		}
		generated := "../../gen/" + filepath.Base(folder) + "db"
		packages, err := filepath.Glob(generated + "/*.sql.go")
		must(t, err)
		for _, file := range packages {
			for _, s := range generatedStatements(t, file) {
				if !declared[s.name] {
					t.Errorf("%s has %s, %s has not", file, s.name, folder)
				}
				delete(declared, s.name)
				all = append(all, s)
			}
		}
		if len(declared) > 0 || len(files) == 0 {
			t.Errorf("%s lacks %v of %s", generated, slices.Collect(maps.Keys(declared)), folder)
		}
	}
	return all
}

func generatedStatements(t *testing.T, file string) (all []*statement) {
	t.Helper()
	source, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	must(t, err)
	byConst := map[string]*statement{}
	ast.Inspect(source, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ValueSpec:
			if len(n.Values) != 1 {
				break
			}
			if literal, ok := n.Values[0].(*ast.BasicLit); ok && literal.Kind == token.STRING {
				sql, err := strconv.Unquote(literal.Value)
				must(t, err)
				s := &statement{name: strings.Fields(sql)[2], sql: sql}
				all, byConst[n.Names[0].Name] = append(all, s), s
			}
		case *ast.CallExpr: // q.db.Query(ctx, listOrders, arg.Account, ...)
			if len(n.Args) < 2 {
				break
			}
			constant, ok := n.Args[1].(*ast.Ident)
			if s := byConst[constant.String()]; ok && s != nil {
				for _, arg := range n.Args[2:] {
					switch arg := arg.(type) {
					case *ast.Ident:
						s.params = append(s.params, arg.Name)
					case *ast.SelectorExpr:
						s.params = append(s.params, arg.Sel.Name)
					}
				}
			}
		}
		return true
	})
	return all
}

// planned knows the schema.
type planned struct {
	indexes map[string][]string // the columns of each index
	partial map[string]string   // the predicates of partial indexes
	columns []column
	uuid    string // the first digits of every loaded one, in this month's partitions
}

// column is one that must be given a value.
type column struct {
	table, name, kind string
	allowed           *string // the first of the texts that a CHECK allows
}

func newPlanned(t *testing.T, db *pgtest.DB) *planned {
	t.Helper()
	ms := time.Now().UnixMilli()
	p := &planned{indexes: map[string][]string{}, partial: map[string]string{}, uuid: fmt.Sprintf("%08x-%04x-7000-8000-", ms>>16, ms&0xffff)}
	rows, err := db.Pool.Query(t.Context(), `SELECT c.relname, array_agg(a.attname::text ORDER BY a.attnum) FROM pg_class c
		JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 WHERE c.relkind IN ('i', 'I') AND c.relnamespace = 'public'::regnamespace GROUP BY c.relname`)
	must(t, err)
	var name string
	var columns []string
	_, err = pgx.ForEachRow(rows, []any{&name, &columns}, func() error { p.indexes[name] = slices.Clone(columns); return nil })
	must(t, err)
	rows, err = db.Pool.Query(t.Context(), "SELECT indexrelid::regclass::text, pg_get_expr(indpred, indrelid) FROM pg_index WHERE indpred IS NOT NULL")
	must(t, err)
	var predicate string
	_, err = pgx.ForEachRow(rows, []any{&name, &predicate}, func() error { p.partial[name] = predicate; return nil })
	must(t, err)
	rows, err = db.Pool.Query(t.Context(), `SELECT c.relname, a.attname, format_type(a.atttypid, NULL),
			(SELECT substring(pg_get_constraintdef(k.oid) FROM '''(\w+)''::text') FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'c' AND k.conkey = ARRAY[a.attnum] LIMIT 1)
		FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND (NOT a.atthasdef OR a.atttypid = 'timestamptz'::regtype) AND a.attidentity = ''
		WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace AND c.relname NOT LIKE 'goose%' ORDER BY c.relname, a.attnum`)
	must(t, err)
	p.columns, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (c column, err error) {
		return c, row.Scan(&c.table, &c.name, &c.kind, &c.allowed)
	})
	must(t, err)
	return p
}

// value is an SQL expression of a type: that of row n, whose number is an expression, too. Rows of all tables with one number belong
// together.
func (p *planned) value(name, kind, n string) string {
	switch {
	case strings.HasSuffix(kind, "[]"):
		return fmt.Sprintf("ARRAY[%s]::%s", p.value(name, strings.TrimSuffix(kind, "[]"), n), kind)
	case name == "account":
		return "1"
	case name == "mode":
		return "'test'"
	case name == "status" && kind == "text": // of all rows: it selects nothing
		return "'status'"
	case name == "before":
		return "'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid"
	case name == "from_id":
		return "'00000000-0000-0000-0000-000000000000'::uuid"
	case name == "after" && kind == "text":
		return "''"
	case name == "id" && kind != "uuid":
		return n + "::" + kind
	case name == "shard":
		return "(" + n + " % 256)::" + kind
	case kind == "uuid":
		return fmt.Sprintf("('%s' || lpad(to_hex(%s), 12, '0'))::uuid", p.uuid, n)
	case kind == "text":
		return fmt.Sprintf("('%s-' || %s)", name, n)
	case kind == "bytea":
		return fmt.Sprintf("decode(md5('%s-' || %s), 'hex')", name, n)
	case kind == "json": // what a saga needs
		return "'[]'"
	case kind == "jsonb":
		return "'{}'"
	case kind == "boolean":
		return "true"
	case kind == "timestamp with time zone":
		return fmt.Sprintf("(now() - make_interval(mins => %s))", n)
	case name == "page" || strings.HasSuffix(name, "_size") || strings.HasPrefix(name, "max_"):
		return "20"
	}
	return "1::" + kind
}

// load fills every table: loadedRows rows of one account.
func (p *planned) load(t *testing.T, db *pgtest.DB) {
	t.Helper()
	for columns := range chunksBy(p.columns, func(c column) string { return c.table }) {
		if columns[0].table == "cache_generation" { // it has one row
			continue
		}
		var names, values []string
		for _, c := range columns {
			v := p.value(c.name, c.kind, "i")
			if c.allowed != nil {
				v = "'" + *c.allowed + "'"
			}
			names, values = append(names, c.name), append(values, v)
		}
		must(t, pgx.BeginFunc(t.Context(), db.Pool, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), "SET LOCAL session_replication_role = replica") // no foreign keys: the order of the tables does not matter
			if err == nil {
				_, err = tx.Exec(t.Context(), fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM generate_series(1, %d) AS i",
					columns[0].table, strings.Join(names, ", "), strings.Join(values, ", "), loadedRows))
			}
			if err != nil {
				err = fmt.Errorf("fill %s: %w", columns[0].table, err)
			}
			return err
		}))
	}
}

func chunksBy[T any](all []T, of func(T) string) func(yield func([]T) bool) {
	return func(yield func([]T) bool) {
		for len(all) > 0 {
			n := slices.IndexFunc(all, func(v T) bool { return of(v) != of(all[0]) })
			if n < 0 {
				n = len(all)
			}
			if !yield(all[:n]) {
				return
			}
			all = all[n:]
		}
	}
}

var (
	inserts = regexp.MustCompile(`^(--.*\n)+INSERT`)
	camel   = regexp.MustCompile(`([a-z])([A-Z])`)
	table   = regexp.MustCompile(`(?:INSERT INTO|UPDATE|FROM|JOIN) (\w+)`)
)

// argument is what a statement is executed with: the key of a loaded row, or of a new one if it inserts.
func (p *planned) argument(s *statement, i int) string {
	name := strings.ToLower(camel.ReplaceAllString(s.params[i], "${1}_$2"))
	if v, ok := planValues[s.name+"."+name]; ok {
		return v
	}
	singular := name
	for _, plural := range []string{"es", "s"} {
		one := strings.TrimSuffix(name, plural)
		if slices.ContainsFunc(p.columns, func(c column) bool { return c.name == one }) {
			singular = one
		}
	}
	for _, m := range table.FindAllStringSubmatch(s.sql, -1) {
		for _, c := range p.columns {
			if c.table == m[1] && c.name == singular && c.allowed != nil && c.name != "mode" {
				if strings.HasSuffix(s.types[i], "[]") {
					return "ARRAY['" + *c.allowed + "']"
				}
				return "'" + *c.allowed + "'"
			}
		}
	}
	n := soughtRow
	if inserts.MatchString(s.sql) {
		n += loadedRows
	}
	return p.value(singular, s.types[i], strconv.Itoa(n))
}

// plan is a node of EXPLAIN's JSON.
//
//nolint:tagliatelle // PostgreSQL's names
type plan struct {
	NodeType   string  `json:"Node Type"`
	Relation   string  `json:"Relation Name"`
	Index      string  `json:"Index Name"`
	Cond       string  `json:"Index Cond"`
	Filter     string  `json:"Filter"`
	Rows       float64 `json:"Actual Rows"`
	Loops      float64 `json:"Actual Loops"`
	Filtered   float64 `json:"Rows Removed by Filter"`
	Rechecked  float64 `json:"Rows Removed by Index Recheck"`
	JoinFilter string  `json:"Join Filter"`
	Plans      []plan  `json:"Plans"`
}

func (p *planned) explain(ctx context.Context, conn *pgx.Conn, s *statement, options string) (root plan, err error) {
	args := make([]string, len(s.params))
	for i := range args {
		args[i] = p.argument(s, i)
	}
	text := "EXPLAIN (" + options + "FORMAT JSON) EXECUTE " + pgx.Identifier{s.name}.Sanitize()
	if len(args) > 0 {
		text += "(" + strings.Join(args, ", ") + ")"
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return root, err
	}
	defer func() { err = errors.Join(err, tx.Rollback(ctx)) }()
	var explained []byte
	err = conn.QueryRow(ctx, text, pgx.QueryExecModeSimpleProtocol).Scan(&explained)
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
		err = fmt.Errorf("%s: %w", text, refused)
	}
	if err != nil {
		return root, err
	}
	var roots []struct {
		Plan plan `json:"plan"`
	}
	if err = json.Unmarshal(explained, &roots); err != nil || len(roots) != 1 {
		return root, fmt.Errorf("%s: %w", explained, err)
	}
	return roots[0].Plan, nil
}

var compared = regexp.MustCompile(`\(+(\w+)\)?(?:::\w+)? (=|<=?|>=?) `)

// walksOf names the scans under a node that walk. A look-up compares the first columns of an index by equality, and one of them is neither
// account nor mode. Any other scan must end by a LIMIT above it, pass over no row, and compare at most one more column, by range.
func (p *planned) walksOf(n plan, limited bool) (walks []string) {
	if predicate := p.partial[n.Index]; strings.Contains(predicate, n.Filter) && !strings.Contains(predicate, " OR ") {
		n.Filter = "" // every row of the index passes it
	}
	switch n.NodeType {
	case "Limit":
		limited = true
	case "LockRows", "Append", "Merge Append", "Result", "Subquery Scan", "Index Scan", "Index Only Scan", "Nested Loop":
		limited = limited && n.Filter == "" && n.JoinFilter == ""
	default:
		limited = false
	}
	switch n.NodeType {
	case "Seq Scan":
		walks = append(walks, "Seq Scan on "+n.Relation)
	case "Index Scan", "Index Only Scan", "Bitmap Index Scan":
		operators, key, lookUp := map[string]string{}, 0, false
		for _, m := range compared.FindAllStringSubmatch(n.Cond, -1) {
			operators[m[1]] = m[2]
		}
		columns := p.indexes[n.Index]
		for ; key < len(columns) && operators[columns[key]] == "="; key++ {
			lookUp = lookUp || columns[key] != "account" && columns[key] != "mode"
		}
		for column := range operators {
			limited = limited && slices.Contains(columns[:min(key+1, len(columns))], column)
		}
		if !lookUp && !limited {
			walks = append(walks, fmt.Sprintf("%s %s (%s), index cond %s, filter %s", n.NodeType, n.Index, strings.Join(columns, ", "), n.Cond, n.Filter))
		}
	}
	for i, child := range n.Plans {
		walks = append(walks, p.walksOf(child, limited && (i == 0 || n.NodeType != "Nested Loop"))...)
	}
	return walks
}

// read is how many rows the scans under a node read of tables.
func (n plan) read() (rows float64) {
	if n.Relation != "" && n.NodeType != "ModifyTable" || n.NodeType == "Bitmap Index Scan" {
		rows = (n.Rows + n.Filtered + n.Rechecked) * n.Loops
	}
	for _, child := range n.Plans {
		rows += child.read()
	}
	return rows
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
