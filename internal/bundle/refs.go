package main

import (
	"errors"
	"fmt"
	"io/fs"
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
}

type component struct {
	target string
	node   *yaml.Node
}

// kinds are the sections of components, in the order in which they are written.
var kinds = []string{"schemas", "responses", "parameters", "examples", "requestBodies", "headers"}

// A component's kind is the folder or file that it stands in: schemas/order.yaml#/Order, parameters.yaml#/Limit,
// errors.yaml#/headers/Allow.
var targetForm = regexp.MustCompile(`^(?:errors\.yaml#/)?(` + strings.Join(kinds, "|") +
	`)(?:\.yaml#|/[\w-]+\.yaml#)?/([\w.-]+)$`)

// file returns a file, which is read once.
func (b *bundler) file(name string) (*yaml.Node, error) {
	if b.files[name] == nil {
		n, err := readYAML(b.dir, name)
		if err != nil {
			return nil, err
		}
		b.files[name] = n
	}
	return b.files[name], nil
}

// target finds what a $ref in file means and marks it as used.
func (b *bundler) target(file, ref string) (string, *yaml.Node, error) {
	name, pointer, ok := strings.Cut(ref, "#/")
	if name == "" {
		name = file
	} else {
		name = path.Join(path.Dir(file), name)
	}
	if !ok {
		return "", nil, fmt.Errorf("%s: $ref %q has no #/", file, ref)
	}
	n, err := b.file(name)
	if err != nil {
		return "", nil, err
	}
	if n = get(n, strings.Split(pointer, "/")...); n == nil {
		return "", nil, fmt.Errorf("%s: $ref %q leads nowhere", file, ref)
	}
	target := name + "#/" + pointer
	b.used[target] = true
	return target, n, nil
}

// component takes what a $ref in file means, with all that it needs, into components. It returns its address there.
// Two targets of one kind and name are an error.
func (b *bundler) component(file, ref string) (string, error) {
	target, n, err := b.target(file, ref)
	if err != nil {
		return "", err
	}
	m := targetForm.FindStringSubmatch(target)
	if m == nil {
		return "", fmt.Errorf("%s: $ref %q is not a component", file, ref)
	}
	kind, name := m[1], m[2]
	address := "#/components/" + kind + "/" + name
	if b.comps[kind][name].target == target {
		return address, nil
	}
	if err := b.add(kind, name, target, n); err != nil {
		return "", err
	}
	return address, b.localise(strings.Split(target, "#")[0], n)
}

func (b *bundler) add(kind, name, target string, n *yaml.Node) error {
	if c, taken := b.comps[kind][name]; taken {
		return fmt.Errorf("%s/%s is both %s and %s", kind, name, c.target, target)
	}
	if b.comps[kind] == nil {
		b.comps[kind] = map[string]component{}
	}
	b.comps[kind][name] = component{target, n}
	return nil
}

// localise rewrites every $ref and discriminator mapping below n, which stands in file, to addresses in components.
func (b *bundler) localise(file string, n *yaml.Node) error {
	rewrite := func(r *yaml.Node) (err error) {
		r.Value, err = b.component(file, r.Value)
		return err
	}
	if r := get(n, "$ref"); r != nil && r.Kind == yaml.ScalarNode {
		if err := rewrite(r); err != nil {
			return err
		}
	}
	for _, r := range pairs(get(n, "discriminator", "mapping")) {
		if err := rewrite(r); err != nil {
			return err
		}
	}
	for _, child := range n.Content {
		if err := b.localise(file, child); err != nil {
			return err
		}
	}
	return nil
}

// inline puts the path items that section (paths, webhooks) refers to in the place of their $ref.
func (b *bundler) inline(section *yaml.Node) error {
	for key, item := range pairs(section) {
		file := root
		if r := text(item, "$ref"); r != "" {
			target, n, err := b.target(root, r)
			if err != nil {
				return err
			}
			file, n = strings.Split(target, "#")[0], copyOf(n)
			*item = *n
		}
		if err := b.localise(file, item); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return nil
}

// unused names every component and path item of the folder that nothing refers to; keys that begin with x- and the
// registry, which holds codes that only the router answers, are exempt.
func (b *bundler) unused() error {
	names, err := fs.Glob(b.dir, "*/*.yaml")
	for _, name := range names {
		_, fileErr := b.file(name)
		err = errors.Join(err, fileErr)
	}
	var faults []string
	for file, n := range b.files {
		for key := range pairs(n) {
			if file != root && file != registry && !b.used[file+"#/"+key] && !strings.HasPrefix(key, "x-") {
				faults = append(faults, "nothing refers to "+file+"#/"+key)
			}
		}
	}
	if slices.Sort(faults); len(faults) > 0 {
		err = errors.Join(err, errors.New(strings.Join(faults, "\n")))
	}
	return err
}
