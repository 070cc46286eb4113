package main

import (
	"go/ast"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ordergate/ordergate/internal/failpoint"
)

// TestFailpoints: each failpoint of the list is hit at exactly one place, and nothing else is hit.
func TestFailpoints(t *testing.T) {
	sources, err := parseTree(".")
	if err != nil {
		t.Fatal(err)
	}
	points, places := map[string]failpoint.Point{}, map[string][]string{} // by the constant's name
	for _, s := range sources {
		if s.test {
			continue
		}
		ast.Inspect(s.File, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				if kind, is := n.Type.(*ast.Ident); is && s.pkg == "internal/failpoint" && kind.Name == "Point" {
					value, _ := strconv.Unquote(n.Values[0].(*ast.BasicLit).Value)
					points[n.Names[0].Name] = failpoint.Point(value)
					if n.Doc == nil || !strings.HasPrefix(n.Doc.Text(), n.Names[0].Name+": ") {
						t.Errorf("failpoint.%s does not say when it is hit", n.Names[0].Name)
					}
				}
			case *ast.CallExpr:
				called, is := n.Fun.(*ast.SelectorExpr)
				if !is || called.Sel.Name != "Hit" {
					return true
				}
				if x, is := called.X.(*ast.Ident); !is || x.Name != "failpoint" {
					return true
				}
				name := "?"
				if arg, is := n.Args[0].(*ast.SelectorExpr); is {
					name = arg.Sel.Name
				}
				places[name] = append(places[name], s.file)
			}
			return true
		})
	}
	var listed []failpoint.Point
	for name, point := range points {
		listed = append(listed, point)
		if len(places[name]) != 1 {
			t.Errorf("failpoint.%s is hit at %d places: %v", name, len(places[name]), places[name])
		}
	}
	for name := range places {
		if points[name] == "" {
			t.Errorf("%s hits failpoint.%s, which is not in the list", places[name], name)
		}
	}
	all := slices.Sorted(slices.Values(failpoint.All))
	slices.Sort(listed)
	if !slices.Equal(all, listed) || len(slices.Compact(all)) != len(failpoint.All) || len(all) < 20 {
		t.Errorf("failpoint.All has %d points, the constants are %d: %v", len(failpoint.All), len(listed), listed)
	}
}
