package contracttest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"go.yaml.in/yaml/v3"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/answers"
)

// contract is an OpenAPI document that answers are held against.
type contract struct {
	document   any // as it was given, for comparison with what an address publishes
	closed     any // the same with its objects closed
	operations map[string]*operation
	headers    map[string]bool // that any answer declares, spelled as net/http does

	mu       sync.Mutex // guards the compiler
	compiler *jsonschema.Compiler
}

// operation is one operation of the contract.
type operation struct {
	place
	id, method, path string
	public           bool     // without an API key
	signed           bool     // by a provider, in place of an API key
	codes            []string // its x-error-codes
	parameters       []place
	address          *regexp.Regexp // its requests' path
}

// place is a value of the document. The node is nil where there is none.
type place struct {
	*contract
	pointer string
	node    any
}

// fault is one place where an answer (or a request) and the contract differ.
type fault struct {
	pointer string // /status, /header/NAME, /body/..., /request/...
	message string
}

// rules are the keywords of a schema that a value breaks, at any place of it.
type rules map[errcode.Rule]bool

// readContract compiles a bundled contract. Objects of answers are closed on the way: a property that the contract does not name
// is a fault, although the published schemas leave room for later ones.
func readContract(bundle []byte) (*contract, error) {
	c := &contract{operations: map[string]*operation{}, headers: map[string]bool{}, compiler: jsonschema.NewCompiler()}
	c.compiler.AssertFormat()
	c.compiler.RegisterFormat(&jsonschema.Format{Name: "int32", Validate: isInt32})
	err := errors.Join(json.Unmarshal(bundle, &c.document), json.Unmarshal(bundle, &c.closed))
	if err == nil {
		err = errors.Join(c.closeObjects(c.closed), c.compiler.AddResource("contract.json", c.closed))
	}
	if err != nil {
		return nil, fmt.Errorf("contract: %w", err)
	}
	for path, item := range c.at("paths").children() {
		for method, op := range item.children() {
			if op.text("operationId") == "" {
				continue // the path's own parameters
			}
			security := op.at("security")
			if security.node == nil {
				security = c.at("security")
			}
			o := &operation{
				place: op, id: op.text("operationId"), method: strings.ToUpper(method), path: path, codes: op.at("x-error-codes").texts(),
				public: len(security.children()) == 0, signed: security.at("0", "signature").node != nil,
				address: answers.Address(path),
			}
			for _, list := range []place{item, op} {
				for _, p := range list.at("parameters").children() {
					o.parameters = append(o.parameters, p.resolved())
				}
			}
			c.operations[o.id] = o
			for _, response := range op.at("responses").children() {
				for name := range response.at("headers").children() {
					c.headers[http.CanonicalHeaderKey(name)] = true
				}
			}
		}
	}
	return c, nil
}

// addresses are the operations with what their requests are known by.
func (c *contract) addresses() (all []answers.Operation) {
	for _, op := range c.operations {
		all = append(all, answers.Operation{ID: op.id, Method: op.method, Path: op.path})
	}
	return all
}

// templated is a parameter in a path.
var templated = regexp.MustCompile(`\{[^}]*\}`)

func isInt32(v any) error {
	n, _ := v.(json.Number)
	if _, err := strconv.ParseInt(n.String(), 10, 32); errors.Is(err, strconv.ErrRange) {
		return err
	}
	return nil
}

// closeObjects adds `unevaluatedProperties: false` wherever a schema stands for a whole value: as the schema of a content, of a
// property, of an array's items. Parts of a composition (allOf, oneOf) stay open, as they see only their share of the value. A reference
// that leads nowhere is an error.
func (c *contract) closeObjects(node any) (err error) {
	if list, ok := node.([]any); ok {
		for _, child := range list {
			err = errors.Join(err, c.closeObjects(child))
		}
	}
	object, _ := node.(map[string]any)
	if ref, ok := object["$ref"].(string); ok && c.target(ref).node == nil {
		err = fmt.Errorf("$ref %s leads nowhere", ref)
	}
	for name, child := range object {
		switch name {
		case "example", "examples", "const", "enum", "default":
			continue
		case "x-extensible-enum": // what this version of the contract can answer
			enum, _ := child.([]any)
			if values, described := child.(map[string]any); described {
				for value := range values {
					enum = append(enum, value)
				}
			}
			enum = slices.Clone(enum)
			if types, several := object["type"].([]any); several && slices.Contains(types, any("null")) {
				enum = append(enum, nil)
			}
			if len(enum) > 0 {
				object["enum"] = enum
			}
		case "properties":
			properties, _ := child.(map[string]any)
			for _, p := range properties {
				c.closeValue(p)
			}
		case "items", "schema":
			c.closeValue(child)
		}
		err = errors.Join(err, c.closeObjects(child))
	}
	return err
}

// closeValue closes a schema that names a type or other schemas, unless it refers to one that is closed already. One that does neither, such as
// that of a document in YAML, allows all values.
func (c *contract) closeValue(schema any) {
	s, _ := schema.(map[string]any)
	ref, _ := s["$ref"].(string)
	target, _ := c.target(ref).node.(map[string]any)
	says := slices.ContainsFunc([]string{"$ref", "type", "properties", "allOf", "anyOf", "oneOf"}, func(k string) bool { return s[k] != nil })
	if says && target["unevaluatedProperties"] == nil {
		s["unevaluatedProperties"] = false
	}
}

// at goes down from the root of the document.
func (c *contract) at(names ...string) place { return place{c, "", c.closed}.at(names...) }

// at goes down by names or indexes and follows the references on its way. Its result may be a reference itself.
func (p place) at(names ...string) place {
	for _, name := range names {
		p = p.resolved()
		var child any
		switch node := p.node.(type) {
		case map[string]any:
			child = node[name]
		case []any:
			if i, err := strconv.Atoi(name); err == nil && i < len(node) {
				child = node[i]
			}
		}
		p = place{p.contract, below(p.pointer, name), child}
	}
	return p
}

// target is what a reference leads to.
func (c *contract) target(ref string) place {
	return c.at(strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
}

func (p place) resolved() place {
	object, _ := p.node.(map[string]any)
	if ref, ok := object["$ref"].(string); ok {
		return p.target(ref).resolved()
	}
	return p
}

// children are the values right below a place, by name or index.
func (p place) children() map[string]place {
	p = p.resolved()
	all := map[string]place{}
	switch node := p.node.(type) {
	case map[string]any:
		for name := range node {
			all[name] = p.at(name)
		}
	case []any:
		for i := range node {
			all[strconv.Itoa(i)] = p.at(strconv.Itoa(i))
		}
	}
	return all
}

func (p place) text(names ...string) string {
	text, _ := p.at(names...).node.(string)
	return text
}

func (p place) texts() (texts []string) {
	list, _ := p.node.([]any)
	for _, one := range list {
		text, _ := one.(string)
		texts = append(texts, text)
	}
	return texts
}

// scopes are what a key needs for the operation, sorted.
func (o *operation) scopes() []string {
	security := o.at("security")
	if security.node == nil {
		security = o.contract.at("security")
	}
	return slices.Sorted(slices.Values(security.at("0", "bearer").texts()))
}

// takes tells whether the operation declares a header parameter.
func (o *operation) takes(header string) bool {
	return slices.ContainsFunc(o.parameters, func(p place) bool { return p.text("in") == "header" && p.text("name") == header })
}

// check holds an answer against the operation: its status, its content type, each header, the body.
func (o *operation) check(status int, header http.Header, body []byte) []fault {
	responses := o.at("responses").children()
	declared, ok := responses[strconv.Itoa(status)]
	if !ok {
		return []fault{{"/status", fmt.Sprintf("%d is not declared; declared are %s", status, strings.Join(sortedKeys(responses), ", "))}}
	}
	var faults []fault
	headers := declared.at("headers").children()
	for _, name := range sortedKeys(headers) {
		faults = append(faults, headers[name].checkText("/header/"+name, header.Values(name), rules{})...)
	}
	for name := range header {
		warns := name == "Deprecation" || name == "Sunset" // of an operation that ends, which the contract would say
		if (o.headers[name] || warns) && !slices.ContainsFunc(sortedKeys(headers), func(d string) bool { return http.CanonicalHeaderKey(d) == name }) {
			faults = append(faults, fault{"/header/" + name, fmt.Sprintf("is there, and the contract does not name it for %d", status)})
		}
	}
	return append(faults, declared.checkContent(header.Get("Content-Type"), body, rules{})...)
}

// accepts holds a request against the operation, and tells what is wrong with it, and which rules are broken.
func (o *operation) accepts(r *http.Request, arg string, body []byte) (string, rules) {
	var faults []fault
	broken := rules{}
	for _, p := range o.parameters {
		values := map[string][]string{"path": {arg}, "query": r.URL.Query()[p.text("name")], "header": r.Header.Values(p.text("name"))}
		faults = append(faults, p.checkText(p.text("name"), values[p.text("in")], broken)...)
	}
	wanted := o.at("requestBody")
	if required := wanted.at("required").node == true; required || len(body) > 0 && string(bytes.TrimSpace(body)) != "null" {
		faults = append(faults, wanted.checkContent(r.Header.Get("Content-Type"), body, broken)...)
	}
	texts := make([]string, len(faults))
	for i, f := range faults {
		texts[i] = f.pointer + " " + f.message
	}
	slices.Sort(texts)
	return short(strings.Join(texts, "; ")), broken
}

// checkText holds the values of a header or parameter against its declaration, and notes which rules they break.
func (p place) checkText(at string, values []string, broken rules) []fault {
	if len(values) == 0 {
		if p.at("required").node == true {
			broken[errcode.RuleRequired] = true
			return []fault{{at, "is missing"}}
		}
		return nil
	}
	if len(values) > 1 {
		broken[errcode.RuleOnce] = true
		return []fault{{at, fmt.Sprintf("is there %d times", len(values))}}
	}
	var value any = values[0]
	if p.text("schema", "type") == "integer" {
		if _, err := strconv.ParseInt(values[0], 10, 64); err == nil && values[0][0] != '+' {
			value = json.Number(values[0])
		}
	}
	return p.at("schema").check(at, value, broken)
}

// checkContent holds a body against the content that is declared: its media type, its syntax, its schema. It notes which rules of the schema are broken.
func (p place) checkContent(contentType string, body []byte, broken rules) []fault {
	content := p.at("content").children()
	media, parameters, err := mime.ParseMediaType(contentType)
	declared, ok := content[media]
	charset, given := parameters["charset"]
	switch {
	case len(content) == 0 && len(body) == 0:
		return nil
	case len(content) == 0:
		return []fault{{"/body", fmt.Sprintf("has %d bytes, and the contract declares none", len(body))}}
	case !ok || err != nil:
		return []fault{{"/header/Content-Type", fmt.Sprintf("is %q and not %s", contentType, strings.Join(sortedKeys(content), ", "))}}
	case given && !strings.EqualFold(charset, "utf-8"):
		return []fault{{"/header/Content-Type", fmt.Sprintf("is %q, and every text of the contract is in UTF-8", contentType)}}
	}
	value, err := readBody(media, body)
	if err != nil {
		return []fault{{"/body", short(err.Error())}}
	}
	return declared.at("schema").check("/body", value, broken)
}

// readBody reads JSON, or YAML that is JSON in another notation. Text is a string.
func readBody(media string, body []byte) (any, error) {
	if strings.HasPrefix(media, "text/") {
		return string(body), nil
	}
	if !strings.HasSuffix(media, "json") {
		var value any
		err := yaml.Unmarshal(body, &value)
		if err == nil {
			body, err = json.Marshal(value)
		}
		if err != nil {
			return nil, err
		}
	}
	if !jsontext.Value(body).IsValid() {
		return nil, errors.New("is not one JSON document in UTF-8 whose names are unique")
	}
	return jsonschema.UnmarshalJSON(bytes.NewReader(body))
}

// check holds a value against a schema of the contract, and lists each fault with its place below at. It notes which rules are broken.
func (p place) check(at string, value any, broken rules) []fault {
	schema, err := p.compile()
	if err == nil {
		err = schema.Validate(value)
	}
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		return []fault{{at, short(err.Error())}}
	}
	var faults []fault
	found := leaves(e)
	for _, leaf := range found {
		text := leaf.ErrorKind.LocalizedString(english)
		for _, rule := range rulesFor(leaf.ErrorKind) {
			broken[rule] = true
		}
		switch leaf.ErrorKind.(type) {
		case *kind.FalseSchema:
			if hidden(leaf, found) {
				continue
			}
			text = "is not in the contract"
		case *kind.OneOf:
			text = "is none of the alternatives that the contract lists"
		}
		faults = append(faults, fault{below(at, leaf.InstanceLocation...), short(text)})
	}
	slices.SortFunc(faults, func(a, b fault) int {
		return cmp.Or(cmp.Compare(a.pointer, b.pointer), cmp.Compare(a.message, b.message))
	})
	return slices.Compact(faults)
}

// compile makes the schema at this place ready. Goroutines may call it at once.
func (p place) compile() (*jsonschema.Schema, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.compiler.Compile("contract.json#" + p.pointer)
}

// rulesFor are the rules that a fault of a schema may be said to break: its keyword. A number beyond 32 bits may be beyond the bounds, too, which are
// narrower.
func rulesFor(k jsonschema.ErrorKind) []errcode.Rule {
	switch k := k.(type) {
	case *kind.FalseSchema, *kind.AdditionalProperties:
		return []errcode.Rule{errcode.RuleAdditionalProperties}
	case *kind.Required:
		return []errcode.Rule{errcode.RuleRequired}
	case *kind.Not:
		return []errcode.Rule{errcode.RuleNot}
	case *kind.Format:
		if k.Want == "int32" {
			return []errcode.Rule{errcode.RuleFormat, errcode.RuleMinimum, errcode.RuleMaximum}
		}
	}
	path := append([]string{string(errcode.RuleSchema)}, k.KeywordPath()...)
	return []errcode.Rule{errcode.Rule(path[len(path)-1])}
}

var english = message.NewPrinter(language.English)

// hidden tells whether a property was called undeclared only because its object is wrong somewhere else: a schema that fails
// does not say which properties it knows.
func hidden(undeclared *jsonschema.ValidationError, found []*jsonschema.ValidationError) bool {
	at := undeclared.InstanceLocation
	object := at[:max(len(at)-1, 0)]
	return slices.ContainsFunc(found, func(other *jsonschema.ValidationError) bool {
		path := other.InstanceLocation
		if len(path) < len(object) || !slices.Equal(path[:len(object)], object) {
			return false
		}
		_, alike := other.ErrorKind.(*kind.FalseSchema)
		return !alike || len(path) > len(at)
	})
}

// leaves are the innermost causes. Of a choice (oneOf) only the alternatives count that the value means to be: those that differ
// neither in a constant nor in the type.
func leaves(e *jsonschema.ValidationError) []*jsonschema.ValidationError {
	_, choice := e.ErrorKind.(*kind.OneOf)
	var all []*jsonschema.ValidationError
	for _, cause := range e.Causes {
		below := leaves(cause)
		if !choice || !slices.ContainsFunc(below, func(l *jsonschema.ValidationError) bool {
			_, constant := l.ErrorKind.(*kind.Const)
			_, wrongType := l.ErrorKind.(*kind.Type)
			return constant || wrongType && len(l.InstanceLocation) == len(e.InstanceLocation)
		}) {
			all = append(all, below...)
		}
	}
	if len(all) == 0 {
		return []*jsonschema.ValidationError{e}
	}
	return all
}

// below is the JSON pointer that leads on from another.
func below(at string, path ...string) string {
	for _, name := range path {
		at = string(jsontext.Pointer(at).AppendToken(name))
	}
	return at
}

// short makes a text fit a line of a test's log.
func short(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > 300 {
		text = strings.ToValidUTF8(text[:300], "") + "..."
	}
	return text
}
