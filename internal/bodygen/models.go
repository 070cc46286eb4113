package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"reflect"
	"strconv"
	"strings"
)

// models are the types that oapi-codegen made of the contract.
type models struct {
	name  string // of their package
	types map[string]ast.Expr
}

// field is how a struct holds a property.
type field struct {
	Name    string
	Type    string // without the pointer
	Pointer bool
}

func parseModels(source []byte) (models, error) {
	file, err := parser.ParseFile(token.NewFileSet(), "", source, parser.SkipObjectResolution)
	if err != nil {
		return models{}, err
	}
	m := models{file.Name.Name, map[string]ast.Expr{}}
	for _, d := range file.Decls {
		if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.TYPE {
			for _, s := range g.Specs {
				if t, ok := s.(*ast.TypeSpec); ok {
					m.types[t.Name.Name] = t.Type
				}
			}
		}
	}
	return m, nil
}

// fields are those of a struct, by the names of their JSON.
func (m models) fields(name string) map[string]field {
	s, ok := m.types[name].(*ast.StructType)
	if !ok {
		return nil
	}
	all := map[string]field{}
	for _, f := range s.Fields.List {
		if f.Tag == nil || len(f.Names) != 1 {
			continue
		}
		tag, _ := strconv.Unquote(f.Tag.Value)
		property, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
		of, pointer := strings.CutPrefix(types.ExprString(f.Type), "*")
		all[property] = field{f.Names[0].Name, of, pointer}
	}
	return all
}

// made tells whether a type is a map or a slice.
func (m models) made(name string) bool {
	if strings.HasPrefix(name, "[]") || strings.HasPrefix(name, "map[") {
		return true
	}
	switch m.types[name].(type) {
	case *ast.MapType, *ast.ArrayType:
		return true
	}
	return false
}

// item is the type of what a slice or a map holds, which is named or not.
func (m models) item(name string) string {
	if t, named := m.types[name]; named {
		name = types.ExprString(t)
	}
	return strings.TrimPrefix(strings.TrimPrefix(name, "[]"), "map[string]")
}
