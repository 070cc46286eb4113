package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"iter"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v3"
)

// readYAML reads a file as a tree without aliases, styles and comments, in which keys and instants are text.
// A key that stands twice is an error.
func readYAML(dir fs.FS, name string) (*yaml.Node, error) {
	text, err := fs.ReadFile(dir, name)
	if err != nil {
		return nil, err
	}
	var doc yaml.Node
	if err = yaml.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("is not one mapping")
	}
	return plain(doc.Content[0])
}

// plain copies a tree, so that what was an alias can be changed on its own.
func plain(n *yaml.Node) (*yaml.Node, error) {
	if n.Kind == yaml.AliasNode {
		return plain(n.Alias)
	}
	out := &yaml.Node{Kind: n.Kind, Tag: n.Tag, Value: n.Value}
	if n.Tag == "!!timestamp" {
		out.Tag = "!!str"
	}
	for i, child := range n.Content {
		c, err := plain(child)
		if err != nil {
			return nil, err
		}
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			if c.Kind != yaml.ScalarNode || c.Tag == "!!merge" || get(out, c.Value) != nil {
				return nil, fmt.Errorf("line %d: key %q is no text, a merge, or stands twice", child.Line, c.Value)
			}
			c.Tag = "!!str"
		}
		out.Content = append(out.Content, c)
	}
	return out, nil
}

// pairs walks the keys and values of a mapping; other nodes, nil too, have none.
func pairs(n *yaml.Node) iter.Seq2[string, *yaml.Node] {
	return func(yield func(string, *yaml.Node) bool) {
		if n == nil || n.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if !yield(n.Content[i].Value, n.Content[i+1]) {
				return
			}
		}
	}
}

// get follows keys down through mappings; nil if one is missing.
func get(n *yaml.Node, keys ...string) *yaml.Node {
	for _, key := range keys {
		var found *yaml.Node
		for k, v := range pairs(n) {
			if k == key {
				found = v
			}
		}
		n = found
	}
	return n
}

// text is the scalar that get finds, or "".
func text(n *yaml.Node, keys ...string) string {
	if n = get(n, keys...); n == nil {
		return ""
	}
	return n.Value
}

// set replaces the value of a key or appends the key.
func set(n *yaml.Node, key string, value any) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			n.Content[i+1] = node(value)
			return
		}
	}
	n.Content = append(n.Content, node(key), node(value))
}

// section is the mapping under a key, which is added where it is missing.
func section(n *yaml.Node, key string) *yaml.Node {
	if get(n, key) == nil {
		set(n, key, mapping())
	}
	return get(n, key)
}

// mapping builds a mapping from keys and values in turn.
func mapping(kv ...any) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	for i := 0; i < len(kv); i += 2 {
		set(n, kv[i].(string), kv[i+1]) //nolint:forcetypeassert // keys are constants of this program
	}
	return n
}

func ref(to string) *yaml.Node { return mapping("$ref", to) }

func node(value any) *yaml.Node {
	if n, ok := value.(*yaml.Node); ok {
		return n
	}
	var n yaml.Node
	if err := n.Encode(value); err != nil {
		panic(err) // only for values that this program writes itself
	}
	return &n
}

// toYAML and toJSON write a tree in the order of its keys.
func toYAML(n *yaml.Node) ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	err := errors.Join(enc.Encode(n), enc.Close())
	return b.Bytes(), err
}

func toJSON(n *yaml.Node) ([]byte, error) {
	var b bytes.Buffer
	err := writeJSON(jsontext.NewEncoder(&b, jsontext.WithIndent("  ")), n)
	return b.Bytes(), err
}

func writeJSON(enc *jsontext.Encoder, n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		var value any
		if err := n.Decode(&value); err != nil {
			return err
		}
		return json.MarshalEncode(enc, value)
	}
	begin, end := jsontext.BeginObject, jsontext.EndObject
	if n.Kind == yaml.SequenceNode {
		begin, end = jsontext.BeginArray, jsontext.EndArray
	}
	err := enc.WriteToken(begin)
	for _, child := range n.Content {
		err = errors.Join(err, writeJSON(enc, child))
	}
	return errors.Join(err, enc.WriteToken(end))
}
