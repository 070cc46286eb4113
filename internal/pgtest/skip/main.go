// Command skip prints a pattern for `go test -skip`: the tests in the files of its arguments that need servers. These are all tests of
// pgtest and devstack, and the tests that call either, directly or through functions of their package's tests.
package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	names := map[string][]string{} // by path of a function: all names in it, and its folder's
	for _, path := range os.Args[1:] {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			log.Fatal(err)
		}
		for _, decl := range file.Decls {
			if f, is := decl.(*ast.FuncDecl); is {
				key := filepath.Join(filepath.Dir(path), f.Name.Name)
				names[key] = append(names[key], filepath.Base(filepath.Dir(path)))
				for n := range ast.Preorder(f) {
					if id, is := n.(*ast.Ident); is {
						names[key] = append(names[key], id.Name)
					}
				}
			}
		}
	}
	skip := []string{"^none$"} // an empty pattern would skip all
	for function := range names {
		if folder, name := filepath.Split(function); strings.HasPrefix(name, "Test") && needServers(names, map[string]bool{}, folder, name) {
			skip = append(skip, "^"+name+"$")
		}
	}
	fmt.Fprintln(os.Stdout, strings.Join(skip, "|"))
}

func needServers(names map[string][]string, seen map[string]bool, folder, name string) bool {
	before := seen[name]
	seen[name] = true
	return name == "pgtest" || name == "devstack" ||
		!before && slices.ContainsFunc(names[folder+name], func(n string) bool { return needServers(names, seen, folder, n) })
}
