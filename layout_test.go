package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// allowed says which packages of ours each package may import. What is not listed may not be there.
var allowed = map[string][]string{
	".":                      {"internal/app"},
	"bench":                  {"gen/api", "internal/app", "internal/edge", "internal/pgtest", "order", "query", "internal/token", "internal/view", "internal/telemetry", "command", "gen/commanddb", "internal/psp"},
	"command":                {"command/inventory", "command/payment", "errors", "gen/api", "gen/commanddb", "gen/errcode", "internal/bus", "internal/guard", "internal/view", "order"},
	"command/inventory":      {"gen/commanddb", "internal/bus", "order"},
	"command/payment":        {"errors", "gen/commanddb", "gen/errcode", "gen/psp", "internal/bus", "internal/guard", "order"},
	"contracttest":           {"gen/api", "gen/errcode"},
	"deploy":                 {},
	"errors":                 {"gen/errcode"},
	"gen/api":                {},
	"gen/commanddb":          {},
	"gen/errcode":            {},
	"gen/psp":                {},
	"gen/querydb":            {},
	"internal/app":           {"*"}, // it alone knows everything
	"internal/bundle":        {},
	"internal/bus":           {"gen/commanddb", "internal/guard"},
	"internal/devstack":      {},
	"internal/devstack/with": {"internal/devstack"},
	"internal/edge":          {"command", "errors", "gen/api", "gen/errcode", "internal/guard", "internal/token", "internal/view", "order", "query"},
	"internal/errgen":        {},
	"internal/guard":         {"errors", "gen/errcode"},
	"internal/pgtest":        {"sql"},
	"internal/psp":           {"gen/psp"},
	"internal/telemetry":     {},
	"internal/token":         {},
	"internal/view":          {"gen/api", "gen/errcode", "order"},
	"order":                  {"errors", "gen/errcode"},
	"query":                  {"errors", "gen/api", "gen/errcode", "gen/querydb", "internal/guard", "internal/token", "internal/view", "order"},
	"sql":                    {},
}

// pure packages decide; they know no driver, no HTTP framework, no logger.
var pure = []string{"order", "errors"}

func TestLayout(t *testing.T) {
	const module = "github.com/ordergate/ordergate"
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err = d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		if name == "" {
			name = "."
		}
		there[name] = true
		may, listed := allowed[name]
		if !listed {
			t.Errorf("package %s has no place in the house: list it in layout_test.go or move it", name)
		}
		for _, imported := range p.Imports {
			ours, is := strings.CutPrefix(imported, module+"/")
			if is && !slices.Contains(may, ours) && !slices.Contains(may, "*") {
				t.Errorf("%s may not import %s", name, ours)
			}
			if !is && slices.Contains(pure, name) && strings.Contains(imported, ".") {
				t.Errorf("%s may not import %s: it decides and does nothing else", name, imported)
			}
		}
	}
	for name := range allowed {
		if !there[name] {
			t.Errorf("%s is listed and is no package", name)
		}
	}
}
