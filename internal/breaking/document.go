package main

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/oasdiff/oasdiff/flatten/allof"
	"github.com/oasdiff/oasdiff/load"
)

// webhook is the path under which a webhook is compared.
const webhook = "/webhook "

// document is a bundled contract in the form in which two are compared. Clients see from it the same as from the bundle, but:
//
//   - a webhook is a GET that answers the event: the event goes to the client, and oasdiff takes what is sent to it for a request of the client's;
//   - a union with a discriminator is an object with a property for each of its values, so that a code or a type of event that goes is a required
//     property that goes, and a new one is a property more. A refusal with one code is a union of one;
//   - no sunset is left in it: oasdiff compares those with the day on which it runs, and a changelog of past releases stays as it is.
type document struct {
	version string
	text    []byte // the bundle, its objects in Go's order
	spec    *load.SpecInfo
	sunsets map[string]time.Time // of each operation, by "GET /v1/orders": its last day, or none
}

// parse reads a bundled contract. The error is one without a version or paths, or that kin-openapi cannot read.
func parse(text []byte) (*document, error) {
	var raw map[string]any
	if err := json.Unmarshal(text, &raw); err != nil {
		return nil, err
	}
	d := &document{sunsets: map[string]time.Time{}}
	d.version, _ = object(raw["info"])["version"].(string)
	paths := object(raw["paths"])
	if d.version == "" || len(paths) == 0 {
		return nil, errors.New("has no info.version or no paths")
	}
	var err error
	if d.text, err = json.Marshal(raw); err != nil {
		return nil, err
	}
	for name, item := range object(raw["webhooks"]) {
		for _, op := range object(item) {
			event := object(object(op)["requestBody"])["content"]
			paths[webhook+name] = map[string]any{"get": map[string]any{
				"responses": map[string]any{"200": map[string]any{"description": name, "content": event}}}}
		}
	}
	delete(raw, "webhooks")
	for path, item := range paths {
		for method, op := range object(item) {
			if op, ok := op.(map[string]any); ok && method != "parameters" {
				d.sunsets[strings.ToUpper(method)+" "+path] = sunset(op)
			}
		}
	}
	for _, r := range object(object(raw["components"])["responses"]) {
		for media, content := range object(object(r)["content"]) {
			ref, _ := object(object(content)["schema"])["$ref"].(string)
			if code, one := strings.CutPrefix(ref, "#/components/schemas/Problem"); one && media == "application/problem+json" && code != "" && !strings.ContainsAny(code[:1], "0123456789") {
				object(content)["schema"] = byValue(map[string]any{code: ref})
			}
		}
	}
	simplify(raw)

	if text, err = json.Marshal(raw); err != nil {
		return nil, err
	}
	t, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		return nil, err
	}
	if t, err = allof.MergeSpec(t); err != nil {
		return nil, err
	}
	d.spec = &load.SpecInfo{Spec: t, Version: d.version}
	return d, nil
}

// sunset returns the last day of an operation that is deprecated, or none.
func sunset(op map[string]any) (day time.Time) {
	if text, _ := op["x-sunset"].(string); op["deprecated"] == true {
		day, _ = time.Parse(time.DateOnly, text) // the bundler refuses another
	}
	return day
}

// object is v, or nil if it is no object.
func object(v any) map[string]any {
	o, _ := v.(map[string]any)
	return o
}

// simplify rewrites the unions below a node, and takes the sunsets out.
func simplify(node any) {
	switch n := node.(type) {
	case []any:
		for _, child := range n {
			simplify(child)
		}
	case map[string]any:
		if mapping := object(object(n["discriminator"])["mapping"]); len(mapping) > 0 {
			maps.Copy(n, byValue(mapping))
			delete(n, "oneOf")
			delete(n, "discriminator")
		}
		delete(n, "x-sunset")
		for name, child := range n {
			if name != "example" && name != "examples" {
				simplify(child)
			}
		}
	}
}

// byValue is a union as an object: each value of the discriminator is a required property.
func byValue(mapping map[string]any) map[string]any {
	properties, required := map[string]any{}, make([]any, 0, len(mapping))
	for _, value := range slices.Sorted(maps.Keys(mapping)) {
		properties[value] = map[string]any{"$ref": mapping[value]}
		required = append(required, value)
	}
	return map[string]any{"type": "object", "properties": properties, "required": required}
}
