package main

import (
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	root      = "openapi.yaml"
	generated = "generated" // the target of a component that no file holds
)

// bundler joins the files of one folder. Files are named by their path below it, targets as "schemas/order.yaml#/Order".
type bundler struct {
	dir   fs.FS
	files map[string]*yaml.Node
	used  map[string]bool                 // targets
	comps map[string]map[string]component // by kind and name

	guides map[string][]string // name -> the anchors of its headings
	faults []error             // all that was found; after a fault its place is left as it is
}

type component struct {
	target string
	node   *yaml.Node
}

// kinds are the sections of components, in the order in which they are written.
var kinds = []string{"schemas", "responses", "parameters", "examples", "requestBodies", "headers", "links"}

// A component's kind is the folder or file that it stands in: schemas/order.yaml#/Order, parameters.yaml#/Limit,
// errors.yaml#/headers/Allow.
var targetForm = regexp.MustCompile(`^(?:errors\.yaml#/)?(` + strings.Join(kinds, "|") +
	`)(?:\.yaml#|/[\w-]+\.yaml#)?/([\w.-]+)$`)

func (b *bundler) faultf(format string, args ...any) {
	b.faults = append(b.faults, fmt.Errorf(format, args...))
}

// file returns a file, which is read once.
func (b *bundler) file(name string) *yaml.Node {
	if b.files[name] == nil {
		n, err := readYAML(b.dir, name)
		if err != nil {
			b.faultf("%s: %w", name, err)
			n = mapping()
		}
		b.files[name] = n
	}
	return b.files[name]
}

// target finds what a $ref in file means and marks it as used. The node is nil after a fault.
func (b *bundler) target(file, ref string) (string, *yaml.Node) {
	name, pointer, ok := strings.Cut(ref, "#/")
	name = path.Join(path.Dir(file), cmp.Or(name, path.Base(file)))
	if !ok {
		b.faultf("%s: $ref %q has no #/", file, ref)
		return "", nil
	}
	n := get(b.file(name), strings.Split(pointer, "/")...)
	if n == nil {
		b.faultf("%s: $ref %q leads nowhere", file, ref)
	}
	target := name + "#/" + pointer
	b.used[target] = true
	return target, n
}

// component takes what a $ref in file means, with all that it needs, into components. It returns its address there.
func (b *bundler) component(file, ref string) string {
	target, n := b.target(file, ref)
	if n == nil {
		return ""
	}
	m := targetForm.FindStringSubmatch(target)
	if m == nil {
		b.faultf("%s: $ref %q is not a component", file, ref)
		return ""
	}
	kind, name := m[1], m[2]
	if b.comps[kind][name].target != target && b.add(kind, name, target, n) {
		b.localise(strings.Split(target, "#")[0], n)
	}
	return "#/components/" + kind + "/" + name
}

// add makes a component. Two targets of one kind and name are a fault.
func (b *bundler) add(kind, name, target string, n *yaml.Node) bool {
	if c, taken := b.comps[kind][name]; taken {
		b.faultf("%s/%s is both %s and %s", kind, name, c.target, target)
		return false
	}
	if b.comps[kind] == nil {
		b.comps[kind] = map[string]component{}
	}
	b.comps[kind][name] = component{target, n}
	return true
}

// localise rewrites every $ref and discriminator mapping below n, which stands in file, to addresses in components.
func (b *bundler) localise(file string, n *yaml.Node) {
	if r := get(n, "$ref"); r != nil && r.Kind == yaml.ScalarNode {
		r.Value = b.component(file, r.Value)
	}
	for _, r := range pairs(get(n, "discriminator", "mapping")) {
		r.Value = b.component(file, r.Value)
	}
	for _, child := range n.Content {
		b.localise(file, child)
	}
}

// mergePaths adds the path items of every file of paths/ to paths, in the order of the files' names. Keys that begin with x- hold anchors.
func (b *bundler) mergePaths(paths *yaml.Node) {
	names, _ := fs.Glob(b.dir, "paths/*.yaml") // fails only for a malformed pattern
	for _, name := range names {
		for url, item := range pairs(b.file(name)) {
			if get(paths, url) != nil {
				b.faultf("%s: %s stands in another file too", name, url)
			} else if !strings.HasPrefix(url, "x-") {
				b.localise(name, item)
				set(paths, url, item)
			}
			b.used[name+"#/"+url] = true
		}
	}
}

// unused names every schema, and every other component of a file that was read, that nothing refers to. Keys that begin with x- and the registry,
// which holds codes that only the router answers, are exempt.
func (b *bundler) unused() {
	names, _ := fs.Glob(b.dir, "schemas/*.yaml") // fails only for a malformed pattern
	for _, name := range names {
		b.file(name)
	}
	for _, file := range slices.Sorted(maps.Keys(b.files)) {
		for key := range pairs(b.files[file]) {
			if file != root && file != registry && !b.used[file+"#/"+key] && !strings.HasPrefix(key, "x-") {
				b.faultf("nothing refers to %s#/%s", file, key)
			}
		}
	}
}
