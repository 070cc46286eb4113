package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// allowed says which packages of ours each package imports, apart from its tests. What is not listed may not be there.
var allowed = map[string][]string{
	".":                      {"internal/app"},
	"bench":                  {"command", "gen/api", "gen/accountsdb", "gen/cataloguedb", "gen/inventorydb", "internal/app", "internal/pg", "internal/telemetry", "order"},
	"command":                {"command/inventory", "command/payment", "errors", "gen/api", "gen/cataloguedb", "gen/ordersdb", "gen/errcode", "internal/bus", "internal/guard", "internal/pg", "internal/rfc3339", "internal/token", "internal/view", "order"},
	"command/inventory":      {"gen/inventorydb", "internal/bus", "internal/pg", "order"},
	"command/payment":        {"errors", "gen/paymentdb", "gen/errcode", "gen/psp", "internal/bus", "internal/guard", "internal/pg", "order"},
	"contracttest":           {"gen/api", "gen/errcode"},
	"deploy":                 {},
	"errors":                 {"gen/errcode"},
	"gen/api":                {"internal/rfc3339"},
	"gen/accountsdb":         {},
	"gen/busdb":              {},
	"gen/cataloguedb":        {},
	"gen/inventorydb":        {},
	"gen/ordersdb":           {},
	"gen/paymentdb":          {},
	"gen/errcode":            {},
	"gen/psp":                {},
	"gen/querydb":            {},
	"internal/app":           {"*"}, // it alone knows everything
	"internal/bundle":        {},
	"internal/bus":           {"gen/busdb", "internal/pg"},
	"internal/devstack":      {},
	"internal/devstack/with": {"internal/devstack"},
	"internal/edge":          {"command", "errors", "gen/api", "gen/errcode", "internal/guard", "internal/token", "internal/view", "internal/rfc3339", "order", "query"},
	"internal/errgen":        {},
	"internal/guard":         {"errors", "gen/errcode"},
	"internal/pg":            {},
	"internal/pgtest":        {"sql"},
	"internal/psp":           {"gen/psp"},
	"internal/rfc3339":       {},
	"internal/telemetry":     {},
	"internal/token":         {},
	"internal/view":          {"gen/api", "gen/errcode", "internal/rfc3339", "order"},
	"order":                  {"errors", "gen/errcode", "internal/rfc3339"},
	"query":                  {"errors", "gen/api", "gen/errcode", "gen/querydb", "internal/guard", "internal/pg", "internal/token", "internal/view", "internal/rfc3339", "order"},
	"sql":                    {},
}

// drivers says who knows what the house is connected by. The others decide, or ask these.
var drivers = map[string][]string{
	"github.com/labstack/echo/":      {"bench", "gen/api", "gen/psp", "internal/edge", "internal/psp"},
	"github.com/redis/go-redis/":     {"internal/app", "query"},
	"github.com/ThreeDotsLabs/":      {"internal/app", "internal/bus"},
	"github.com/getkin/kin-openapi/": {"contracttest", "internal/bundle", "internal/edge"},
}

// pure packages decide; they know nothing but the standard library and a few values' types.
var pure = []string{"order", "errors"}

// TestLayout reads the sources itself, so that go test does not keep an old result.
func TestLayout(t *testing.T) {
	const module = "github.com/ordergate/ordergate/"
	imports := map[string]map[string]bool{} // by package
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || slices.Contains([]string{"node_modules", "testdata", "bin"}, d.Name())) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		pkg := filepath.ToSlash(filepath.Dir(path))
		if imports[pkg] == nil {
			imports[pkg] = map[string]bool{}
		}
		if strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, i := range file.Imports {
			name, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			imports[pkg][name] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range slices.Sorted(maps.Keys(imports)) {
		may, listed := allowed[pkg]
		if !listed {
			t.Errorf("package %s has no place in the house: list it in layout_test.go or move it", pkg)
			continue
		}
		for imported := range imports[pkg] {
			ours, is := strings.CutPrefix(imported, module)
			if is && !slices.Contains(may, ours) && !slices.Contains(may, "*") {
				t.Errorf("%s may not import %s", pkg, ours)
			}
			for driver, who := range drivers {
				if strings.HasPrefix(imported, driver) && !slices.Contains(who, pkg) {
					t.Errorf("%s may not import %s", pkg, imported)
				}
			}
			if !is && slices.Contains(pure, pkg) && strings.Contains(imported, ".") && imported != "github.com/google/uuid" {
				t.Errorf("%s may not import %s: it decides and does nothing else", pkg, imported)
			}
		}
		for _, ours := range may {
			if ours != "*" && !imports[pkg][module+ours] {
				t.Errorf("%s may import %s and does not", pkg, ours)
			}
		}
	}
	for pkg := range allowed {
		if imports[pkg] == nil {
			t.Errorf("%s is listed and is no package", pkg)
		}
	}
}
