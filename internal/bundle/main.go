// Command bundle joins the split contract of a folder into one document, expands its error codes, appends the guides to its description, and
// writes it as openapi.json and openapi.yaml (equal in content, what is served), bundle.gen.go (embeds both) and codegen.json: the copy
// for code generators, in which the open enums of answers (x-extensible-enum) are closed and operations say what templates cannot compute.
//
// It writes nothing unless every $ref resolves, no two components share a name or title, none is unused, everything is described, every link of a
// description leads somewhere, and kin-openapi accepts the result with its examples. Equal input gives equal bytes.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/getkin/kin-openapi/openapi3"
	"go.yaml.in/yaml/v3"
)

func main() {
	log.SetFlags(0)
	if err := run("openapi", "gen/api"); err != nil {
		log.Fatalf("bundle: %v", err)
	}
}

func run(in, out string) error {
	doc, err := bundle(in)
	if err != nil {
		return err
	}
	asJSON, jsonErr := toJSON(doc)
	asYAML, yamlErr := toYAML(doc)
	closeEnums(doc)
	asGo, tableErr := table(doc)
	forCodegen, codegenErr := toJSON(doc)
	if err := errors.Join(jsonErr, yamlErr, tableErr, codegenErr); err != nil {
		return err
	}
	t, err := openapi3.NewLoader().LoadFromData(asJSON)
	if err == nil {
		err = t.Validate(context.Background())
	}
	if err != nil {
		return fmt.Errorf("kin-openapi rejects the bundle: %w", err)
	}
	err = os.MkdirAll(out, 0o755)
	for name, text := range map[string][]byte{
		"openapi.json": asJSON, "openapi.yaml": asYAML, "codegen.json": forCodegen, "bundle.gen.go": asGo,
	} {
		err = errors.Join(err, os.WriteFile(filepath.Join(out, name), text, 0o644))
	}
	return err
}

// bundle returns the joined document of a folder.
func bundle(dir string) (*yaml.Node, error) {
	b := bundler{dir: os.DirFS(dir), files: map[string]*yaml.Node{}, used: map[string]bool{}, comps: map[string]map[string]component{}, guides: map[string][]string{}}
	doc := b.file(root)
	paths, components := section(doc, "paths"), section(doc, "components")
	for kind := range pairs(components) {
		if kind != "securitySchemes" {
			b.faultf("%s: components/%s belong in files of their own", root, kind)
		}
	}
	b.localise(root, doc)
	b.mergePaths(paths)
	b.mergeWebhooks(doc)
	b.describe(doc)
	if len(b.faults) == 0 {
		b.expand(doc)
		b.unused()
	}
	for _, kind := range kinds {
		for _, name := range slices.Sorted(maps.Keys(b.comps[kind])) {
			set(section(components, kind), name, b.comps[kind][name].node)
		}
	}
	if len(b.faults) == 0 {
		b.complete(doc)
	}
	return doc, errors.Join(b.faults...)
}

// closeEnums renames x-extensible-enum to enum everywhere below n.
func closeEnums(n *yaml.Node) {
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && child.Value == "x-extensible-enum" {
			child.Value = "enum"
		}
		closeEnums(child)
	}
}
