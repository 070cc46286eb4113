package main

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// mustBeDescribed are the sections whose members need a description, as operations do.
var mustBeDescribed = []string{"schemas", "properties", "parameters", "headers", "responses", "x-scopes"}

var punctuation = regexp.MustCompile(`[^\pL\p{Nd}]`)

// complete writes into descriptions what stands in lists: the values of open enumerations and the scopes. It refuses a place without a
// description, a link that leads nowhere, what would end a comment of generated code, a scope that is unknown or that no operation needs,
// schemas whose names or titles generators would take for one, and additionalProperties: false, after which some generated clients send what
// is refused.
func (b *bundler) complete(doc *yaml.Node) {
	scheme := get(doc, "components", "securitySchemes", "bearer")
	scopes, needed, names := get(scheme, "x-scopes"), map[string]bool{}, map[string]string{}
	addValues(scheme, scopes)
	walk("", "", doc, func(at, section string, n *yaml.Node) {
		if values := get(n, "x-extensible-enum"); values != nil {
			if values.Value == "rejections" {
				values = b.rejections()
			}
			if values.Kind != yaml.MappingNode {
				b.faultf("%s: x-extensible-enum needs a meaning for each value", at)
			}
			addValues(n, values)
			names := []string{}
			for value := range pairs(values) {
				names = append(names, value)
			}
			set(n, "x-extensible-enum", names)
		}
		description := text(n, "description")
		b.checkLinks(at, description)
		if strings.Contains(description, "*/") || strings.Contains(description, `"""`) {
			b.faultf("%s: */ and \"\"\" end the comments of generated code", at)
		}
		if text(n, "additionalProperties") == "false" {
			b.faultf("%s: additionalProperties: false; unevaluatedProperties says the same and generators need it", at)
		}
		if operation := get(n, "operationId") != nil; (operation || slices.Contains(mustBeDescribed, section)) && !described(doc, n) {
			b.faultf("%s: has no description", at)
		}
		for _, requirement := range children(get(n, "security")) {
			for _, scope := range children(get(requirement, "bearer")) {
				if needed[scope.Value] = true; get(scopes, scope.Value) == nil {
					b.faultf("%s: the scope %s is not among x-scopes", at, scope.Value)
				}
				set(n, "description", strings.TrimSpace(text(n, "description"))+"\n\nNeeds the scope `"+scope.Value+"`.")
			}
		}
		if section == "schemas" {
			own := at[strings.LastIndex(at, "/")+1:]
			for _, name := range slices.Compact([]string{own, text(n, "title")}) {
				folded := strings.ToLower(punctuation.ReplaceAllString(name, ""))
				if other := names[folded]; other != "" && name != "" {
					b.faultf("%s: %q is also the name or title of %s", at, name, other)
				}
				names[folded] = own
			}
		}
	})
	for scope := range pairs(scopes) {
		if !needed[scope] {
			b.faultf("x-scopes: no operation needs %s", scope)
		}
	}
}

// walk visits everything below n but data, with its address and the name of the section that it is a member of.
func walk(at, section string, n *yaml.Node, visit func(at, section string, n *yaml.Node)) {
	step := func(name string, child *yaml.Node) {
		visit(at+"/"+name, section, child)
		walk(at+"/"+name, name, child, visit)
	}
	if n.Kind == yaml.SequenceNode {
		for i, child := range n.Content {
			step(strconv.Itoa(i), child)
		}
	}
	for key, child := range pairs(n) {
		if section == "properties" || !slices.Contains([]string{"example", "examples", "default", "enum", "x-extensible-enum"}, key) {
			step(key, child)
		}
	}
}

// described tells whether a place has a description, or what it refers to.
func described(doc, n *yaml.Node) bool {
	if address, ok := strings.CutPrefix(text(n, "$ref"), "#/"); ok && described(doc, get(doc, strings.Split(address, "/")...)) {
		return true
	}
	parts := slices.Concat(children(get(n, "oneOf")), children(get(n, "allOf")))
	return text(n, "description") != "" || n.Kind == yaml.ScalarNode && n.Value != "" ||
		slices.ContainsFunc(parts, func(part *yaml.Node) bool { return described(doc, part) })
}

// addValues lists values and their meanings at the end of a description.
func addValues(n, meanings *yaml.Node) {
	lines := []string{strings.TrimSpace(text(n, "description")), ""}
	for value, meaning := range pairs(meanings) {
		lines = append(lines, "- `"+value+"`: "+meaning.Value)
	}
	set(n, "description", strings.TrimSpace(strings.Join(lines, "\n")))
}

// rejections are the codes that an order can be rejected with.
func (b *bundler) rejections() *yaml.Node {
	all := mapping()
	for code, info := range pairs(get(b.file(registry), "codes")) {
		if get(info, "rejection") != nil {
			set(all, code, text(info, "title")+".")
		}
	}
	return all
}
