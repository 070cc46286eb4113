package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/ordergate/ordergate/"

// A law says what packages may import and contain, and which tables SQL may name. A permission that nobody uses is a finding, too.
type law struct {
	// imports has a line a package: the packages of ours that it may import ("*" is all), then the libraries. tests adds to it for the
	// package's tests, which may also import the package itself, internal/pgtest and os.
	imports, tests map[string]string
	// libraries has the paths behind the names. A library that is not here, and that no line names by its path, may not be imported. The standard
	// library is free, but for what is here.
	libraries map[string]string
	// pure packages and files only compute: of the standard library they may import computes, and they read no clock.
	pure []string
	// goroutines has the packages and files whose goroutines need not write the log before a panic ends the program, and why. All others begin with
	// panics.Sync or panics.Catch.
	goroutines map[string]string
	// sql has the packages that may hold SQL in Go, and why. All other SQL is in sql/, and sqlc makes Go of it.
	sql map[string]string
	// tables has the tables and views that the queries in a directory of sql/ may name. A directory of command/ owns its tables, and each
	// table has one owner. All other directories only read, but for writers.
	tables map[string]string
	// writers has the directories that write tables of others, and why.
	writers map[string]string
}

var ours = law{
	imports: map[string]string{
		".":                      "internal/app os",
		"bench":                  "command command/inventory errors gen/accountsdb gen/api gen/errcode gen/querydb internal/app internal/bus internal/devstack internal/pg internal/telemetry internal/token order query echo errgroup http os otelpgx pgx pgxuuid prometheus redis sys uuid watermill zap",
		"command":                "command/catalogue command/coupons command/inventory command/payment errors gen/api gen/errcode gen/ordersdb internal/bus internal/events internal/failpoint internal/faults internal/guard internal/outbox internal/panics internal/pg internal/rfc3339 internal/token internal/view internal/waiters order order/pay otel pgx prometheus uuid",
		"command/catalogue":      "errors gen/cataloguedb gen/errcode internal/pg order pgx",
		"command/coupons":        "gen/couponsdb internal/pg order order/coupon pgx uuid",
		"command/inventory":      "errors gen/errcode gen/inventorydb internal/bus internal/events internal/failpoint internal/outbox internal/pg internal/rfc3339 order pgx uuid zap",
		"command/payment":        "errors gen/errcode gen/paymentdb gen/psp internal/events internal/failpoint internal/guard internal/outbox internal/panics internal/pg order order/pay http pgx prometheus uuid zap",
		"contracttest":           "gen/api gen/errcode internal/answers internal/bodies internal/faults internal/panics internal/signature http json jsonschema text yaml",
		"deploy":                 "",
		"errors":                 "gen/errcode",
		"gen/accountsdb":         "pgx uuid",
		"gen/api":                "gen/errcode internal/check internal/rfc3339",
		"gen/busdb":              "pgx uuid",
		"gen/cataloguedb":        "pgx",
		"gen/couponsdb":          "pgx uuid",
		"gen/errcode":            "",
		"gen/eventsdb":           "pgx uuid",
		"gen/exportdb":           "pgx uuid",
		"gen/inventorydb":        "pgx uuid",
		"gen/migrationsdb":       "pgx",
		"gen/ordersdb":           "pgx uuid",
		"gen/paymentdb":          "pgx uuid",
		"gen/console":            "",
		"gen/portal":             "",
		"gen/psp":                "echo http oapi",
		"gen/querydb":            "pgx uuid",
		"gen/replaydb":           "pgx uuid",
		"gen/verifydb":           "pgx uuid",
		"internal/answers":       "http",
		"internal/app":           "* env errgroup http lumberjack os pgx prometheus redis uuid zap",
		"internal/bodies":        "json",
		"internal/bodygen":       "os",
		"internal/breaking":      "kin oasdiff os",
		"internal/bundle":        "json kin os yaml",
		"internal/bus":           "gen/busdb internal/failpoint internal/panics internal/pg pgx prometheus uuid watermill zap",
		"internal/bus/bustest":   "internal/bus uuid watermill",
		"internal/chaos":         "internal/devstack internal/failpoint http os pgx porcupine redis",
		"internal/check":         "errors gen/errcode internal/rfc3339 json",
		"internal/devstack":      "os pgx",
		"internal/devstack/with": "internal/devstack os",
		"internal/edge":          "command errors gen/api gen/errcode internal/check internal/faults internal/guard internal/panics internal/rate internal/signature internal/token internal/view internal/rfc3339 order query echo http json lru otel prometheus singleflight text zap",
		"internal/errgen":        "os yaml",
		"internal/events":        "gen/eventsdb internal/pg order uuid",
		"internal/export":        "gen/api gen/exportdb internal/rfc3339 internal/view order order/pay pgx uuid",
		"internal/failpoint":     "os",
		"internal/faults":        "gen/errcode",
		"internal/guard":         "errors gen/errcode internal/faults internal/panics failsafe prometheus",
		"internal/leaktest":      "goleak http os",
		"internal/outbox":        "gen/busdb internal/pg internal/rfc3339 json order uuid",
		"internal/panics":        "",
		"internal/pg":            "internal/faults internal/panics otelpgx pgx pgxuuid uuid",
		"internal/pgtest":        "internal/devstack sql os pgx redis",
		"internal/psp":           "gen/psp internal/panics internal/signature echo http json os zap",
		"internal/replay":        "command/inventory gen/replaydb internal/pg order order/pay pgx uuid",
		"internal/rfc3339":       "",
		"internal/signature":     "",
		"internal/site":          "http prometheus zap",
		"internal/rate":          "prometheus redis uuid zap",
		"internal/telemetry":     "otel prometheus zap",
		"internal/token":         "",
		"internal/verify":        "command gen/api gen/errcode gen/psp gen/verifydb internal/outbox internal/pg order order/pay http pgx uuid",
		"internal/view":          "gen/api gen/errcode internal/rfc3339 order order/pay",
		"internal/waiters":       "",
		"order":                  "errors gen/errcode internal/rfc3339 order/coupon crypto/rand json",
		"order/coupon":           "errors gen/errcode internal/rfc3339",
		"order/pay":              "order",
		"query":                  "errors gen/api gen/errcode gen/querydb internal/faults internal/guard internal/panics internal/pg internal/token internal/view internal/rfc3339 internal/waiters order order/pay bloom lru otel pgx prometheus redis singleflight uuid zap",
		"sql":                    "gen/migrationsdb database/sql goose pgx",
	},
	tests: map[string]string{
		".":                  "contracttest internal/devstack internal/failpoint http",
		"command":            "internal/devstack sql",
		"command/coupons":    "errors",
		"command/inventory":  "rapid",
		"command/payment":    "internal/devstack internal/psp sql",
		"deploy":             "internal/app compose env http",
		"internal/app":       "otel yaml",
		"internal/bus":       "internal/bus/bustest",
		"internal/check":     "gen/api internal/bodies internal/bodygen/testdata/fixture jsonschema kin",
		"internal/edge":      "internal/telemetry goautoneg jsonschema pgx",
		"internal/events":    "pgx",
		"internal/psp":       "jsonschema yaml",
		"internal/rate":      "query rapid",
		"internal/telemetry": "http",
		"order":              "rapid",
		"order/coupon":       "rapid",
		"order/pay":          "rapid yaml",
		"query":              "internal/devstack sql errgroup",
	},
	libraries: map[string]string{
		"compose":      "github.com/compose-spec/compose-go",
		"database/sql": "database/sql",
		"echo":         "github.com/labstack/echo",
		"env":          "github.com/caarlos0/env",
		"errgroup":     "golang.org/x/sync/errgroup",
		"failsafe":     "github.com/failsafe-go",
		"goautoneg":    "github.com/munnerz/goautoneg",
		"goleak":       "go.uber.org/goleak",
		"goose":        "github.com/pressly/goose",
		"http":         "net/http",
		"json":         "github.com/go-json-experiment/json",
		"jsonschema":   "github.com/santhosh-tekuri/jsonschema",
		"kin":          "github.com/getkin/kin-openapi",
		"lumberjack":   "gopkg.in/natefinch/lumberjack.v2",
		"bloom":        "github.com/bits-and-blooms/bloom",
		"lru":          "github.com/hashicorp/golang-lru",
		"oapi":         "github.com/oapi-codegen",
		"oasdiff":      "github.com/oasdiff/oasdiff",
		"os":           "os",
		"otel":         "go.opentelemetry.io",
		"otelpgx":      "github.com/exaring/otelpgx",
		"pgx":          "github.com/jackc",
		"pgxuuid":      "github.com/vgarvardt/pgx-google-uuid/v5",
		"porcupine":    "github.com/anishathalye/porcupine",
		"prometheus":   "github.com/prometheus",
		"rapid":        "pgregory.net/rapid",
		"redis":        "github.com/redis",
		"singleflight": "golang.org/x/sync/singleflight",
		"sys":          "golang.org/x/sys",
		"text":         "golang.org/x/text",
		"uuid":         "github.com/google/uuid",
		"watermill":    "github.com/ThreeDotsLabs/watermill",
		"yaml":         "go.yaml.in/yaml",
		"zap":          "go.uber.org/zap",
	},
	pure: []string{
		"command/inventory/decide.go", "command/payment/decide.go", "command/payment/orphan.go", "command/saga.go", "command/steps.go", "errors",
		"internal/check/check.go", "internal/check/parameters.go", "internal/check/pattern.go", "internal/check/reader.go",
		"internal/rfc3339", "internal/signature",
		"internal/view", "order", "order/coupon", "order/pay",
	},
	goroutines: map[string]string{
		"bench":                  "it has no log",
		"contracttest":           "it has no log",
		"internal/app/parked.go": "the one there reads stdin",
		"internal/bus/bustest":   "it tests",
		"internal/chaos":         "it has no log",
		"internal/devstack":      "those there wait for the ends of servers, the first of them before there is a log",
		"internal/devstack/with": "it has no log",
		"internal/pgtest":        "it tests",
	},
	sql: map[string]string{
		"bench":             "it measures other implementations, pgbench's among them",
		"internal/chaos":    "it makes and drops databases, makes keys old, and changes the settings of servers",
		"internal/devstack": "it makes databases, slots and backups, which are no queries of an application",
		"internal/pgtest":   "it makes and drops databases",
	},
	tables: map[string]string{
		"command/accounts":   "accounts api_keys",
		"command/bus":        "inbox outbox parked_messages",
		"command/catalogue":  "products",
		"command/coupons":    "coupon_redemptions coupons",
		"command/events":     "resource_events",
		"command/inventory":  "stock stock_reservation_lines stock_reservations",
		"command/migrations": "migration_files",
		"command/orders":     "cache_generation idempotency_keys order_addresses order_events order_references orders sagas shipments",
		"command/payment":    "ledger_sweeps payment_calls payments provider_callbacks refunds",
		"export": "coupon_redemptions idempotency_keys order_addresses order_events orders payments refunds resource_events saga_steps " +
			"shipments",
		"query":  "cache_generation order_addresses order_events order_references orders payment_calls payments products refunds saga_steps server_position shipments stock_realtime",
		"replay": "cache_generation order_events orders payments products refunds resource_events shipments stock stock_reservation_lines stock_reservations",
		"verify": "coupon_redemptions coupons idempotency_keys inbox order_events order_references orders outbox parked_messages payment_calls payments " +
			"products refunds resource_events saga_steps sagas shipments stock stock_reservation_lines stock_reservations",
	},
	writers: map[string]string{
		"replay": "it makes rows anew of what their owners recorded, and tells the caches so",
	},
}

// computes are the packages of the standard library that only compute.
var computes = strings.Fields(`bytes cmp crypto/hmac crypto/sha256 encoding/base64 encoding/binary encoding/hex encoding/json errors fmt hash
	hash/fnv iter maps math math/big math/bits net/url regexp regexp/syntax slices sort strconv strings time unicode unicode/utf8`)

// clock are the functions of package time that read the clock or wait for it.
var clock = strings.Fields("After AfterFunc NewTicker NewTimer Now Since Sleep Tick Until")

// statement matches SQL, also in the middle of a string.
var statement = regexp.MustCompile(`(?is)\bselect\s.+\sfrom\s|\bselect\s+\w+\s*\(|\binsert\s+into\s|\bupdate\s+(only\s+)?\S+(\s+(as\s+)?\w+)?\s+set\s|` +
	`\bdelete\s+from\s|\bmerge\s+into\s|\btruncate\s+\w|\bcopy\s+\w+\s+(from|to)\s|\block\s+table\s|` +
	`\b(create|alter|drop)\s+(or\s+replace\s+|unique\s+)?(database|function|index|role|schema|table|trigger|type|view)\s`)

var (
	// notSQL matches what names no table: comments, strings and parameters.
	notSQL = regexp.MustCompile(`--.*|'[^']*'|@\w+`)
	// created matches the start of a statement that makes a table, a partition of one, or a view.
	created    = regexp.MustCompile(`\bcreate\s+(table|view)\s+(?:if\s+not\s+exists\s+)?(\w+)(\s+partition\s+of\b)?`)
	identifier = regexp.MustCompile(`\w+`)
	// writes matches a statement, or a part of one, that changes or locks rows.
	writes = regexp.MustCompile(`\b(insert\s+into|update|delete\s+from|merge\s+into|truncate|for\s+(no\s+key\s+update|(key\s+)?share))\b`)
)

// source is a parsed file.
type source struct {
	file, pkg string // from the root, with slashes
	test      bool
	*ast.File
}

// parseTree parses all Go below root, whatever its build tags.
func parseTree(root string) (sources []source, err error) {
	err = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != root && (strings.HasPrefix(d.Name(), ".") || slices.Contains([]string{"bin", "node_modules", "testdata"}, d.Name())) {
			return filepath.SkipDir
		}
		if _, err := os.Stat(filepath.Join(name, "go.mod")); d.IsDir() && name != root && err == nil { // a module of its own
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		rel = filepath.ToSlash(rel)
		sources = append(sources, source{rel, path.Dir(rel), strings.HasSuffix(rel, "_test.go"), parsed})
		return err
	})
	return sources, err
}

// check returns a finding for all that the law does not allow, and for every permission that is not used.
func (l law) check(sources []source) []string {
	findings := map[string]bool{}
	find := func(format string, args ...any) { findings[fmt.Sprintf(format, args...)] = true }
	tested, runs, checked := map[string]bool{}, map[string]bool{}, map[string]bool{}       // packages that have tests, that run goroutines, that look for leaks
	packages, used, usedByTests := map[string]bool{}, map[string]bool{}, map[string]bool{} // used: package, space, word
	named := map[string]map[string]*ast.BlockStmt{}                                        // the bodies of functions, by package
	for _, s := range sources {
		for _, d := range s.Decls {
			if f, is := d.(*ast.FuncDecl); is {
				if named[s.pkg] == nil {
					named[s.pkg] = map[string]*ast.BlockStmt{}
				}
				named[s.pkg][f.Name.Name] = f.Body
			}
		}
	}
	for _, s := range sources {
		packages[s.pkg], tested[s.pkg] = true, tested[s.pkg] || s.test
		if _, listed := l.imports[s.pkg]; !listed {
			find("package %s is not listed", s.pkg)
		}
		if ast.IsGenerated(s.File) != strings.HasPrefix(s.pkg, "gen/") {
			find("%s: all of gen/ is generated, and nothing else is", s.file)
		}
		pure := !s.test && (slices.Contains(l.pure, s.pkg) || slices.Contains(l.pure, s.file))
		may := strings.Fields(l.imports[s.pkg])
		if s.test {
			may = append(may, append(strings.Fields(l.tests[s.pkg]), s.pkg, "internal/leaktest", "internal/pgtest", "os")...)
		}
		for _, i := range s.Imports {
			imported, _ := strconv.Unquote(i.Path.Value)
			word := l.word(imported, pure)
			runs[s.pkg] = runs[s.pkg] || imported == module+"internal/pgtest" || imported == "net/http/httptest"
			if s.test {
				usedByTests[s.pkg+" "+word] = true
			} else {
				used[s.pkg+" "+word] = true
			}
			free := slices.Contains(may, "*") && strings.HasPrefix(imported, module)
			if word != "" && !free && !slices.Contains(may, word) {
				find("%s may not import %s", s.file, imported)
			}
		}
		ast.Inspect(s.File, func(n ast.Node) bool {
			if pure && readsClock(s.File, n) {
				find("%s may not read the clock", s.file)
			}
			runs[s.pkg] = runs[s.pkg] || startedBy(n) != nil
			checked[s.pkg] = checked[s.pkg] || s.test && isSelector(n, "leaktest", "Main")
			if started := startedBy(n); started != nil && !s.test && !keepsLog(started, named[s.pkg]) {
				place := s.pkg
				if l.goroutines[place] == "" {
					place = s.file
				}
				if used[place+" goroutines"] = true; l.goroutines[place] == "" {
					find("%s starts a goroutine that does not begin with defer panics.Sync(log) or panics.Catch: a panic there would lose lines of the log", s.file)
				}
			}
			if !s.test && !ast.IsGenerated(s.File) && statement.MatchString(text(n)) {
				used[s.pkg+" SQL"] = true
				if l.sql[s.pkg] == "" {
					find("%s may not contain SQL", s.file)
				}
			}
			return true
		})
	}
	for pkg := range runs {
		if runs[pkg] && tested[pkg] && !checked[pkg] && pkg != "internal/leaktest" {
			find("%s runs goroutines, and its tests do not look for those that are left: func TestMain(m *testing.M) { leaktest.Main(m) }", pkg)
		}
	}
	for pkg, words := range l.imports {
		if !packages[pkg] {
			find("package %s is listed and does not exist", pkg)
		}
		for word := range strings.FieldsSeq(words) {
			if word != "*" && !used[pkg+" "+word] {
				find("%s may import %s and does not", pkg, word)
			}
		}
	}
	for pkg, words := range l.tests {
		for word := range strings.FieldsSeq(words) {
			if !usedByTests[pkg+" "+word] || slices.Contains(strings.Fields(l.imports[pkg]), word) {
				find("tests of %s need no permission to import %s", pkg, word)
			}
		}
	}
	for place := range l.goroutines {
		if !used[place+" goroutines"] {
			find("goroutines of %s need no permission", place)
		}
	}
	for pkg := range l.sql {
		if !used[pkg+" SQL"] {
			find("%s may contain SQL and does not", pkg)
		}
	}
	for name := range l.libraries {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(l.imports)), func(pkg string) bool { return used[pkg+" "+name] || usedByTests[pkg+" "+name] }) {
			find("nobody imports %s", name)
		}
	}
	return slices.Sorted(maps.Keys(findings))
}

// startedBy is what n starts in a goroutine, by go or a group's Go: a function or its name; nil: it starts none.
func startedBy(n ast.Node) ast.Expr {
	switch n := n.(type) {
	case *ast.GoStmt:
		return n.Call.Fun
	case *ast.CallExpr:
		if called, is := n.Fun.(*ast.SelectorExpr); is && called.Sel.Name == "Go" && len(n.Args) == 1 {
			return n.Args[0]
		}
	}
	return nil
}

// keepsLog tells whether a goroutine begins with panics.Sync or panics.Catch. It starts a function, or one of its package, of which named has
// the bodies.
func keepsLog(started ast.Expr, named map[string]*ast.BlockStmt) (keeps bool) {
	var body *ast.BlockStmt
	switch started := started.(type) {
	case *ast.FuncLit:
		body = started.Body
	case *ast.Ident:
		body = named[started.Name]
	case *ast.SelectorExpr:
		body = named[started.Sel.Name]
	}
	if body == nil || len(body.List) == 0 {
		return false
	}
	ast.Inspect(body.List[0], func(n ast.Node) bool {
		keeps = keeps || isSelector(n, "panics", "Sync", "Catch")
		return true
	})
	return keeps
}

// isSelector tells whether a node is one of a package's names.
func isSelector(n ast.Node, pkg string, names ...string) bool {
	selector, is := n.(*ast.SelectorExpr)
	if !is {
		return false
	}
	of, is := selector.X.(*ast.Ident)
	return is && of.Name == pkg && slices.Contains(names, selector.Sel.Name)
}

// readSQL reads all SQL below root, in lower case and without what names no table.
func readSQL(root string) (map[string]string, error) {
	files := map[string]string{}
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, _ fs.DirEntry, err error) error {
		if err != nil || path.Ext(name) != ".sql" {
			return err
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		files[name] = strings.ToLower(notSQL.ReplaceAllString(string(text), " "))
		return err
	})
	return files, err
}

// checkTables returns a finding for every table that a file may not name or that has not one owner, and for every permission that is
// not used. A word that is a table's name anywhere in a statement names the table.
func (l law) checkTables(files map[string]string) []string {
	findings := map[string]bool{}
	find := func(format string, args ...any) { findings[fmt.Sprintf(format, args...)] = true }
	owners := map[string]int{}
	for directory, tables := range l.tables {
		for table := range strings.FieldsSeq(tables) {
			if strings.HasPrefix(directory, "command/") {
				owners[table]++
			}
		}
	}
	exists, used, wrote := map[string]bool{}, map[string]bool{}, map[string]bool{} // used: directory, space, table
	for _, text := range files {
		for _, match := range created.FindAllStringSubmatch(text, -1) {
			kind, table, partition := match[1], match[2], match[3]
			exists[table] = true
			if n := owners[table]; kind == "table" && partition == "" && n != 1 {
				find("table %s has %d owners", table, n)
			}
		}
	}
	for file, text := range files {
		directory := path.Dir(file)
		if directory == "migrations" {
			continue
		}
		if _, listed := l.tables[directory]; !listed {
			find("directory sql/%s is not listed", directory)
		}
		if !strings.HasPrefix(directory, "command/") && writes.MatchString(text) {
			if wrote[directory] = true; l.writers[directory] == "" {
				find("sql/%s may not write", file)
			}
		}
		for _, table := range identifier.FindAllString(text, -1) {
			used[directory+" "+table] = true
			if exists[table] && !slices.Contains(strings.Fields(l.tables[directory]), table) {
				find("sql/%s may not name table %s", file, table)
			}
		}
	}
	for directory := range l.writers {
		if !wrote[directory] {
			find("sql/%s may write and does not", directory)
		}
	}
	for directory, tables := range l.tables {
		for table := range strings.FieldsSeq(tables) {
			if !used[directory+" "+table] {
				find("sql/%s may name table %s and does not", directory, table)
			}
		}
	}
	return slices.Sorted(maps.Keys(findings))
}

// word is the law's name of an imported package; "" needs no permission.
func (l law) word(imported string, pure bool) string {
	if pkg, is := strings.CutPrefix(imported, module); is {
		return pkg
	}
	for name, prefix := range l.libraries {
		if imported == prefix || strings.HasPrefix(imported, prefix+"/") {
			return name
		}
	}
	if host, _, _ := strings.Cut(imported, "/"); strings.Contains(host, ".") || pure && !slices.Contains(computes, imported) {
		return imported
	}
	return ""
}

// readsClock tells whether n names a function of clock, whatever the file calls package time.
func readsClock(file *ast.File, n ast.Node) bool {
	for _, i := range file.Imports {
		if i.Path.Value != `"time"` {
			continue
		}
		name := "time"
		if i.Name != nil {
			name = i.Name.Name
		}
		switch n := n.(type) {
		case *ast.SelectorExpr:
			if x, is := n.X.(*ast.Ident); is && x.Name == name && slices.Contains(clock, n.Sel.Name) {
				return true
			}
		case *ast.Ident:
			if name == "." && slices.Contains(clock, n.Name) {
				return true
			}
		}
	}
	return false
}

// text is the string that n writes down, with "?" for what is not a literal; "" if n is something else.
func text(n ast.Node) string {
	switch n := n.(type) {
	case *ast.BasicLit:
		if value, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
			return value
		}
	case *ast.ParenExpr:
		return text(n.X)
	case *ast.BinaryExpr:
		if left, right := text(n.X), text(n.Y); n.Op == token.ADD && left+right != "" {
			return cmp.Or(left, "?") + cmp.Or(right, "?")
		}
	}
	return ""
}

func TestLayout(t *testing.T) {
	sources, err := parseTree(".")
	if err != nil {
		t.Fatal(err)
	}
	files, err := readSQL("sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, finding := range slices.Concat(ours.check(sources), ours.checkTables(files)) {
		t.Error(finding)
	}
}

// tree is a directory with one file.
func tree(t *testing.T, file, text string) (root string) {
	t.Helper()
	root = t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, path.Dir(file)), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, file), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return root
}

// oneMore fails unless after has one finding that before has not, and it contains want.
func oneMore(t *testing.T, before, after []string, want string) {
	t.Helper()
	after = slices.DeleteFunc(after, func(finding string) bool { return slices.Contains(before, finding) })
	if len(after) != 1 || !strings.Contains(after[0], want) {
		t.Errorf("found %q, want %q", after, want)
	}
}

// and is a copy of the table with more words in the line of key.
func and(table map[string]string, key, words string) map[string]string {
	table = maps.Clone(table)
	table[key] = strings.TrimSpace(table[key] + " " + words)
	return table
}

// TestLayoutFinds breaks the law on purpose: each break adds a file, or a permission, and has one finding more.
func TestLayoutFinds(t *testing.T) {
	sources, err := parseTree(".")
	if err != nil {
		t.Fatal(err)
	}
	before := ours.check(sources)
	imports := func(path string) string { return "import _ " + strconv.Quote(path) }
	for name, c := range map[string]struct{ file, body, want string }{
		"HTTP in order":                         {"order/x.go", imports("net/http"), "order/x.go may not import net/http"},
		"files in order":                        {"order/x.go", imports("os"), "may not import os"},
		"SQL in order":                          {"order/x.go", imports("database/sql"), "may not import database/sql"},
		"logs in order":                         {"order/x.go", imports("log/slog"), "may not import log/slog"},
		"goroutines in a pure package":          {"internal/view/x.go", imports("sync"), "may not import sync"},
		"the clock in order":                    {"order/x.go", "import \"time\"\nvar now = time.Now()", "order/x.go may not read the clock"},
		"the clock in order as a value":         {"order/x.go", "import \"time\"\nvar now = time.Now", "may not read the clock"},
		"the clock in order by another name":    {"order/x.go", "import t \"time\"\nvar d = t.Since(t.Time{})", "may not read the clock"},
		"the clock in order without a name":     {"order/x.go", "import . \"time\"\nvar now = Now()", "may not read the clock"},
		"pgx in the edge":                       {"internal/edge/x.go", imports("github.com/jackc/pgx/v5/pgxpool"), "internal/edge/x.go may not import github.com/jackc/pgx"},
		"commands in the query":                 {"query/x.go", imports(module + "command"), "query/x.go may not import " + module + "command"},
		"commands in a test of query":           {"query/x_test.go", imports(module + "command"), "query/x_test.go may not import"},
		"drivers in a test of order":            {"order/x_test.go", imports("github.com/jackc/pgx/v5"), "may not import"},
		"inventory with payment's queries":      {"command/inventory/x.go", imports(module + "gen/paymentdb"), "gen/paymentdb"},
		"inventory with the orders' queries":    {"command/inventory/x.go", imports(module + "gen/ordersdb"), "gen/ordersdb"},
		"payment with inventory's queries":      {"command/payment/x.go", imports(module + "gen/inventorydb"), "gen/inventorydb"},
		"inventory with payment":                {"command/inventory/x.go", imports(module + "command/payment"), "command/payment"},
		"a context with the write side":         {"command/payment/x.go", imports(module + "command"), "command"},
		"the read side with queries that write": {"query/x.go", imports(module + "gen/ordersdb"), "gen/ordersdb"},
		"a library that nobody knows":           {"internal/app/x.go", imports("github.com/sirupsen/logrus"), "may not import github.com/sirupsen/logrus"},
		"franz-go in the write side":            {"command/x.go", imports("github.com/twmb/franz-go/pkg/kgo"), "may not import github.com/twmb/franz-go"},
		"zap in the write side":                 {"internal/pg/x.go", imports("go.uber.org/zap/zapcore"), "may not import go.uber.org/zap"},
		"prometheus in the errors":              {"errors/x.go", imports("github.com/prometheus/client_golang/prometheus"), "may not import github.com/prometheus"},
		"otel in inventory":                     {"command/inventory/x.go", imports("go.opentelemetry.io/otel/trace"), "may not import go.opentelemetry.io"},
		"failsafe beside guard":                 {"internal/edge/x.go", imports("github.com/failsafe-go/failsafe-go"), "may not import github.com/failsafe-go"},
		"watermill in the write side":           {"command/x.go", imports("github.com/ThreeDotsLabs/watermill"), "may not import github.com/ThreeDotsLabs"},
		"echo in the read side":                 {"query/x.go", imports("github.com/labstack/echo/v4"), "may not import github.com/labstack"},
		"Redis in the write side":               {"command/x.go", imports("github.com/redis/go-redis/v9"), "may not import github.com/redis"},
		"kin-openapi in the edge":               {"internal/edge/x.go", imports("github.com/getkin/kin-openapi/openapi3"), "may not import github.com/getkin"},
		"by hand in gen":                        {"gen/ordersdb/x.go", "", "all of gen/ is generated"},
		"generated elsewhere":                   {"order/x.go", "// Code generated by x. DO NOT EDIT.", "all of gen/ is generated"},
		"a package that is not listed":          {"internal/utils/x.go", "", "package internal/utils is not listed"},
		"SQL":                                   {"query/x.go", "const q = `SELECT id FROM orders`", "query/x.go may not contain SQL"},
		"SQL in lower case and parts":           {"internal/edge/x.go", "var q = \"delete \" + (\"from \" + table)", "may not contain"},
		"the clock behind a second import":      {"order/x.go", "import (\n\"time\"\nt \"time\"\n)\n\nvar now, unit = t.Now(), time.Second", "clock"},
		"SQL with an alias":                     {"command/inventory/x.go", "var q = \"UPDATE payments p SET status = 'captured' WHERE true\"", "may not contain"},
		"a truncated table":                     {"command/inventory/x.go", "var q = \"TRUNCATE payments\"", "may not contain"},
		"the clock in the saga":                 {"command/steps.go", "import \"time\"\n\nvar now = time.Now()", "clock"},
		"SQL around a name":                     {"command/x.go", "var q = f(\"UPDATE \" + table + \" SET x = 1\")", "may not contain"},
		"SQL beside a string":                   {"query/x.go", "var q = \"a\" + f(\"INSERT INTO orders\") + g(`DELETE FROM orders`)", "query/x.go may not contain SQL"},
		"the clock beside a string":             {"order/x.go", "import \"time\"\nvar now = \"a\" + time.Now().String()", "may not read the clock"},
		"a goroutine":                           {"query/x.go", "func f() { go func() { f() }() }", "query/x.go starts a goroutine that does not begin with"},
		"a goroutine of a function":             {"query/x.go", "func f() { go g() }\nfunc g() { f() }", "query/x.go starts a goroutine"},
		"a goroutine of a method":               {"query/x.go", "type t int\nfunc (t) g() {}\nfunc f() { var x t; go x.g() }", "starts a goroutine"},
		"a goroutine of another package":        {"query/x.go", "import \"sync\"\nvar m sync.Mutex\nfunc f() { go m.Lock() }", "starts a goroutine"},
		"a goroutine of a group":                {"internal/app/x.go", "import \"sync\"\nvar g sync.WaitGroup\nfunc f() { g.Go(func() { recover() }) }", "starts a goroutine"},
		"a goroutine that keeps the log late":   {"query/x.go", "func f() { go func() { f(); defer panics.Sync(nil) }() }", "starts a goroutine"},
		"tests that leave goroutines unseen":    {"order/x_test.go", "func f() { go f() }", "order runs goroutines, and its tests do not look"},
		"tests that leave connections unseen":   {"order/x_test.go", imports(module + "internal/pgtest"), "order runs goroutines"},
		"SQL that calls":                        {"internal/bus/x.go", "var q = `SELECT pg_notify($1, $2)`", "may not contain"},
	} {
		t.Run(name, func(t *testing.T) {
			text := "package x\n" + c.body + "\n"
			if strings.HasPrefix(c.body, "//") {
				text = c.body + "\n\npackage x\n"
			}
			broken, err := parseTree(tree(t, c.file, text))
			if err != nil {
				t.Fatal(err)
			}
			oneMore(t, before, ours.check(slices.Concat(sources, broken)), c.want)
		})
	}
	for name, c := range map[string]struct {
		change func(*law)
		want   string
	}{
		"permission for a package that is not used":  {func(l *law) { l.imports = and(l.imports, "order", "internal/token") }, "order may import internal/token and does not"},
		"permission for a library that is not used":  {func(l *law) { l.imports = and(l.imports, "internal/guard", "zap") }, "internal/guard may import zap and does not"},
		"permission for tests that is not used":      {func(l *law) { l.tests = and(l.tests, "query", "command") }, "tests of query need no permission to import command"},
		"permission for tests that is not needed":    {func(l *law) { l.tests = and(l.tests, "query", "pgx") }, "tests of query need no permission to import pgx"},
		"a library that is not used":                 {func(l *law) { l.libraries = and(l.libraries, "gin", "github.com/gin-gonic") }, "nobody imports gin"},
		"a package that does not exist":              {func(l *law) { l.imports = and(l.imports, "internal/gone", "") }, "package internal/gone is listed"},
		"permission for goroutines that is not used": {func(l *law) { l.goroutines = and(l.goroutines, "order", "haste") }, "goroutines of order need no permission"},
		"permission for SQL that is not used":        {func(l *law) { l.sql = and(l.sql, "query", "haste") }, "query may contain SQL and does not"},
	} {
		t.Run(name, func(t *testing.T) {
			l := ours
			c.change(&l)
			oneMore(t, before, l.check(sources), c.want)
		})
	}
}

// TestLayoutFindsTables breaks the law of tables on purpose, as TestLayoutFinds does.
func TestLayoutFindsTables(t *testing.T) {
	files, err := readSQL("sql")
	if err != nil {
		t.Fatal(err)
	}
	before := ours.checkTables(files)
	for name, c := range map[string]struct{ file, body, want string }{
		"inventory with payment's table":     {"command/inventory/x.sql", "SELECT id FROM payments;", "sql/command/inventory/x.sql may not name table payments"},
		"in upper case":                      {"command/inventory/x.sql", "UPDATE ONLY PAYMENTS SET rev = 1;", "may not name table payments"},
		"behind a comma":                     {"command/payment/x.sql", "SELECT 1 FROM payments p, orders o;", "may not name table orders"},
		"with its schema, in quotes":         {"command/payment/x.sql", `DELETE FROM public."stock";`, "may not name table stock"},
		"in an inner query":                  {"command/orders/x.sql", "SELECT (SELECT count(*) FROM outbox);", "may not name table outbox"},
		"behind a comment and a string":      {"command/bus/x.sql", "-- The key's rows.\nSELECT 'x', p.sku FROM products p;", "may not name table products"},
		"a table that the read side has not": {"query/x.sql", "SELECT hash FROM api_keys;", "sql/query/x.sql may not name table api_keys"},
		"a read side that writes":            {"query/x.sql", "UPDATE orders SET rev = 1;", "sql/query/x.sql may not write"},
		"a verifier that locks":              {"verify/x.sql", "SELECT id FROM orders FOR KEY SHARE;", "sql/verify/x.sql may not write"},
		"a partition":                        {"command/bus/x.sql", "SELECT id FROM orders_default;", "may not name table orders_default"},
		"a directory that is not listed":     {"command/haste/x.sql", "SELECT 1;", "directory sql/command/haste is not listed"},
		"a table without an owner":           {"migrations/2.sql", "CREATE TABLE parcels (id uuid);", "table parcels has 0 owners"},
	} {
		t.Run(name, func(t *testing.T) {
			broken, err := readSQL(tree(t, c.file, c.body))
			if err != nil {
				t.Fatal(err)
			}
			maps.Copy(broken, files)
			oneMore(t, before, ours.checkTables(broken), c.want)
		})
	}
	for name, c := range map[string]struct{ directory, tables, want string }{
		"permission for a table that is not used": {"query", "accounts", "sql/query may name table accounts and does not"},
		"permission for a table that is gone":     {"command/orders", "parcels", "sql/command/orders may name table parcels and does not"},
	} {
		t.Run(name, func(t *testing.T) {
			l := ours
			l.tables = and(l.tables, c.directory, c.tables)
			oneMore(t, before, l.checkTables(files), c.want)
		})
	}
	t.Run("permission to write that is not used", func(t *testing.T) {
		l := ours
		l.writers = and(l.writers, "verify", "haste")
		oneMore(t, before, l.checkTables(files), "sql/verify may write and does not")
	})
	t.Run("a second owner", func(t *testing.T) {
		files, l := maps.Clone(files), ours
		files["command/inventory/x.sql"] = "select id from payments;"
		l.tables = and(l.tables, "command/inventory", "payments")
		oneMore(t, before, l.checkTables(files), "table payments has 2 owners")
	})
	t.Run("comments, strings and parameters name no table", func(t *testing.T) {
		harmless, err := readSQL(tree(t, "command/inventory/x.sql", "-- payments\nSELECT @payments, 'payments';"))
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(harmless, files)
		if after := ours.checkTables(harmless); !slices.Equal(before, after) {
			t.Errorf("found %q", after)
		}
	})
}
