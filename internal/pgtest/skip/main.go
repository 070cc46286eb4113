// Command skip prints a pattern for `go test -skip`: the tests below the working folder that need servers. These are all tests of
// pgtest and devstack, and the tests that call either, directly or through functions of their own package's tests.
package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	names, pattern := map[string][]string{}, "^(none" // names: by path of a function, what it names; a pattern of nothing skips all
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			if f, is := decl.(*ast.FuncDecl); is {
				key := filepath.Join(filepath.Dir(path), f.Name.Name)
				names[key] = append(names[key], filepath.Base(filepath.Dir(path)))
				ast.Inspect(f, func(n ast.Node) bool {
					if id, is := n.(*ast.Ident); is {
						names[key] = append(names[key], id.Name)
					}
					return true
				})
			}
		}
		return nil
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "skip:", err)
		os.Exit(1)
	}
	for function := range names {
		folder, name := filepath.Split(function)
		if strings.HasPrefix(name, "Test") && needServers(names, map[string]bool{}, folder, name) {
			pattern += "|" + name
		}
	}
	fmt.Fprintln(os.Stdout, pattern+")$")
}

func needServers(names map[string][]string, seen map[string]bool, folder, name string) bool {
	if name == "pgtest" || name == "devstack" {
		return true
	}
	if seen[name] {
		return false
	}
	seen[name] = true
	return slices.ContainsFunc(names[filepath.Join(folder, name)], func(n string) bool { return needServers(names, seen, folder, n) })
}
