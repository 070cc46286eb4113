package main

import (
	"fmt"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// What openapi/templates/parameters.tmpl has checked of a parameter, and what says nothing of its value. Everything else is refused, so that no word of
// the contract is left unchecked in silence.
var (
	ofParameters = []string{"name", "in", "required", "schema", "description", "example", "examples", "deprecated", "x-canonical", "x-lenient"}
	ofValues     = []string{"type", "description", "title", "default", "example", "examples", "deprecated", "$comment"}
	checkedOf    = map[string][]string{
		"string":  {"minLength", "maxLength", "pattern", "enum"},
		"integer": {"minimum", "maximum"},
	}
	formatsOf = map[string][]string{"string": {"date-time"}, "integer": {"int32", "int64"}}
)

// unchecked names what a parameter demands that generated code does not check; empty: nothing.
func unchecked(doc, p *yaml.Node) string {
	if !slices.Contains([]string{"path", "query", "header"}, text(p, "in")) {
		return "in: " + text(p, "in")
	}
	for keyword := range pairs(p) {
		if !slices.Contains(ofParameters, keyword) {
			return keyword
		}
	}
	s := get(p, "schema")
	for get(s, "$ref") != nil {
		for keyword := range pairs(s) {
			if keyword != "$ref" && !slices.Contains(ofValues, keyword) {
				return keyword + " beside $ref"
			}
		}
		s = follow(doc, s)
	}
	kind := text(s, "type")
	checked, known := checkedOf[kind]
	if !known {
		return "type: " + kind
	}
	for keyword, value := range pairs(s) {
		switch {
		case slices.Contains(ofValues, keyword):
		case keyword == "format":
			if !slices.Contains(formatsOf[kind], value.Value) {
				return fmt.Sprintf("format %s of a %s", value.Value, kind)
			}
		case !slices.Contains(checked, keyword):
			return fmt.Sprintf("%s of a %s", keyword, kind)
		case keyword == "maxLength" && value.Value == "0":
			return "maxLength: 0"
		case keyword == "enum":
			if slices.ContainsFunc(children(value), func(v *yaml.Node) bool { return v.ShortTag() != "!!str" }) {
				return "enum of anything but strings"
			}
		case keyword == "minimum", keyword == "maximum":
			if _, err := strconv.ParseInt(value.Value, 10, 64); err != nil {
				return keyword + ": " + value.Value
			}
		}
	}
	return ""
}
