package contracttest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// contract is an OpenAPI document that answers are held against.
type contract struct {
	document   any // as it was given, for comparison with what an address publishes
	version    string
	codes      []string         // of addresses and methods that it does not have
	problem    *openapi3.Schema // what every refusal carries
	operations map[string]*operation
}

// operation is one operation of the contract.
type operation struct {
	id     string
	public bool
	codes  []string // its x-error-codes
	route  *routers.Route
	path   *regexp.Regexp // of an address
	print  string         // of all that the document says about it: equal prints judge alike
}

// fault is one place where an answer (or a request) and the contract differ.
type fault struct {
	pointer string // /status, /header/NAME, /body/..., /request/...
	message string
}

// readContract compiles a bundled contract. Objects of answers are closed on the way: a property that the contract does not name
// is a fault, although the published schemas leave room for later ones.
func readContract(bundle []byte) (*contract, error) {
	var document map[string]any
	if err := json.Unmarshal(bundle, &document); err != nil {
		return nil, fmt.Errorf("contract: %w", err)
	}
	closed, _ := clone(document).(map[string]any)
	closeObjects(closed)
	text, err := json.Marshal(closed)
	if err != nil {
		return nil, fmt.Errorf("contract: %w", err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		return nil, fmt.Errorf("contract: %w", err)
	}
	c := &contract{document: document, version: doc.Info.Version, codes: codesOf(doc.Extensions), operations: map[string]*operation{}}
	if base := doc.Components.Schemas["Problem"]; base != nil {
		c.problem = base.Value
	}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			security := op.Security
			if security == nil {
				security = &doc.Security
			}
			o := &operation{
				id: op.OperationID, public: len(*security) == 0,
				path:  regexp.MustCompile("^" + templated.ReplaceAllString(regexp.QuoteMeta(path), "[^/]+") + "$"),
				route: &routers.Route{Spec: doc, Path: path, PathItem: item, Method: method, Operation: op},
			}
			o.codes = codesOf(op.Extensions)
			written := below(closed, "paths", path, strings.ToLower(method))
			o.print = fingerprint(closed, written)
			c.operations[o.id] = o
		}
	}
	return c, nil
}

// codesOf reads x-error-codes.
func codesOf(extensions map[string]any) (codes []string) {
	listed, _ := extensions["x-error-codes"].([]any)
	for _, code := range listed {
		text, _ := code.(string)
		codes = append(codes, text)
	}
	return codes
}

// templated is a parameter in a quoted path.
var templated = regexp.MustCompile(`\\\{[^}]*\\\}`)

// below goes down the objects of a document; nil if there is nothing.
func below(document map[string]any, path ...string) map[string]any {
	for _, name := range path {
		document, _ = document[name].(map[string]any)
	}
	return document
}

// fingerprint hashes a part of a document with everything that it refers to.
func fingerprint(document, part map[string]any) string {
	hash := sha256.New()
	seen := map[string]bool{}
	var write func(any)
	write = func(node any) {
		text, _ := json.Marshal(node) // it was read from JSON
		_, _ = hash.Write(text)
		walk(node, func(ref string) {
			if !seen[ref] {
				seen[ref] = true
				write(below(document, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...))
			}
		})
	}
	write(part)
	return string(hash.Sum(nil))
}

// walk visits all references of a node, in a fixed order.
func walk(node any, visit func(ref string)) {
	switch node := node.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(node)) {
			if ref, is := node[name].(string); is && name == "$ref" {
				visit(ref)
			} else {
				walk(node[name], visit)
			}
		}
	case []any:
		for _, child := range node {
			walk(child, visit)
		}
	}
}

// clone copies a JSON value.
func clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, child := range v {
			out[name] = clone(child)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, child := range v {
			out[i] = clone(child)
		}
		return out
	}
	return v
}

// closeObjects adds `unevaluatedProperties: false` wherever a schema stands for a whole value: as the schema of a content, of a
// property, of an array's items. Parts of a composition (allOf, oneOf) stay open, as they see only their share of the value.
func closeObjects(node any) {
	switch node := node.(type) {
	case []any:
		for _, child := range node {
			closeObjects(child)
		}
	case map[string]any:
		for name, child := range node {
			switch name {
			case "example", "examples", "const", "enum", "default":
				continue
			case "properties":
				properties, _ := child.(map[string]any)
				for _, p := range properties {
					closeValue(p)
				}
			case "items":
				closeValue(child)
			case "content":
				media, _ := child.(map[string]any)
				for _, m := range media {
					if m, ok := m.(map[string]any); ok {
						closeValue(m["schema"])
					}
				}
			}
			closeObjects(child)
		}
	}
}

// closeValue closes one schema. A reference is wrapped, as kin-openapi forgets what it refers to if keywords stand beside it.
func closeValue(schema any) {
	s, ok := schema.(map[string]any)
	if !ok || len(s) == 0 {
		return
	}
	if ref, is := s["$ref"]; is {
		delete(s, "$ref")
		s["allOf"] = []any{map[string]any{"$ref": ref}}
	}
	s["unevaluatedProperties"] = false
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// verdicts remembers what was judged: kin-openapi compiles every schema anew for every answer, and a run sees many alike.
type verdicts struct{ sync.Map }

func remember[V any](m *verdicts, judge func() V, parts ...string) V {
	hash := sha256.New()
	for _, p := range parts {
		_, _ = fmt.Fprintf(hash, "%d:%s", len(p), p)
	}
	key := string(hash.Sum(nil))
	if known, ok := m.Load(key); ok {
		return known.(V)
	}
	v := judge()
	m.Store(key, v)
	return v
}

// check holds an answer against the operation: its status, its content type, each header, the body.
func (o *operation) check(ctx context.Context, known *verdicts, a answer) []fault {
	parts := []string{o.print, strconv.Itoa(a.status), string(a.body)}
	for _, name := range slices.Sorted(maps.Keys(a.header)) {
		if name != "Date" {
			parts = append(parts, name, a.header.Get(name))
		}
	}
	return remember(known, func() []fault { return o.judge(ctx, a) }, parts...)
}

func (o *operation) judge(ctx context.Context, a answer) []fault {
	declared := o.route.Operation.Responses
	ref := declared.Status(a.status)
	if ref == nil {
		ref = declared.Default()
	}
	if ref == nil || ref.Value == nil {
		return []fault{{"/status", fmt.Sprintf("%d is not declared; declared are %s", a.status, strings.Join(slices.Sorted(maps.Keys(declared.Map())), ", "))}}
	}
	var faults []fault
	// One header at a time, then the body alone: kin stops at the first header that is wrong.
	for _, name := range slices.Sorted(maps.Keys(ref.Value.Headers)) {
		only := &openapi3.Response{Description: ref.Value.Description, Headers: openapi3.Headers{name: ref.Value.Headers[name]}}
		if err := o.validate(ctx, a, only); err != nil {
			faults = append(faults, faultsOf("/header/"+name, err)...)
		}
	}
	body := *ref.Value
	body.Headers = nil
	switch err := o.validate(ctx, a, &body); {
	case err == nil:
		// kin-openapi reads the first of several documents and the last of several names.
		if media, _, _ := mime.ParseMediaType(a.header.Get("Content-Type")); strings.HasSuffix(media, "json") && len(ref.Value.Content) > 0 && !jsontext.Value(a.body).IsValid() {
			faults = append(faults, fault{"/body", "is not one JSON document in UTF-8 whose names are unique"})
		}
	case strings.Contains(err.Reason, "Content-Type"):
		faults = append(faults, fault{"/header/Content-Type", err.Error()})
	default:
		faults = append(faults, faultsOf("/body", err)...)
	}
	if len(ref.Value.Content) == 0 && len(a.body) > 0 {
		faults = append(faults, fault{"/body", fmt.Sprintf("has %d bytes, and the contract declares none", len(a.body))})
	}
	return faults
}

// validate lets kin-openapi judge an answer by one response object.
func (o *operation) validate(ctx context.Context, a answer, by *openapi3.Response) *openapi3filter.ResponseError {
	// kin looks at no answer with status 304, neither its headers nor whether it is declared: it gets it under a name of ours.
	status := a.status
	if status == http.StatusNotModified {
		status = 299
	}
	op := *o.route.Operation
	op.Responses = openapi3.NewResponses(openapi3.WithStatus(status, &openapi3.ResponseRef{Value: by}))
	route := *o.route
	route.Operation = &op
	err := openapi3filter.ValidateResponse(ctx, &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: &http.Request{Method: route.Method}, Route: &route},
		Status:                 status,
		Header:                 a.header,
		Body:                   io.NopCloser(bytes.NewReader(a.body)),
		Options:                &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true},
	})
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*openapi3filter.ResponseError](err); ok {
		return e
	}
	return &openapi3filter.ResponseError{Err: err}
}

// accepts holds a request against the operation, and says what is wrong with it: what the suite itself sends as good must be good to the contract.
func (o *operation) accepts(ctx context.Context, known *verdicts, r *http.Request, body []byte, arg string) string {
	parts := []string{o.print, r.URL.RequestURI(), string(body)}
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		if name != "X-Trace-Id" {
			parts = append(parts, name, r.Header.Get(name))
		}
	}
	return remember(known, func() string {
		if err := o.judgeRequest(ctx, r, body, arg); err != nil {
			return short(err.Error())
		}
		return ""
	}, parts...)
}

func (o *operation) judgeRequest(ctx context.Context, r *http.Request, body []byte, arg string) error {
	r = r.Clone(ctx)
	r.Body = io.NopCloser(bytes.NewReader(body))
	params := map[string]string{}
	if name := o.parameter(); name != "" {
		params[name] = arg
	}
	return openapi3filter.ValidateRequest(ctx, &openapi3filter.RequestValidationInput{
		Request: r, PathParams: params, Route: o.route,
		Options: &openapi3filter.Options{MultiError: true, SkipSettingDefaults: true, AuthenticationFunc: openapi3filter.NoopAuthenticationFunc},
	})
}

// parameter is the name of the operation's path parameter; none has two.
func (o *operation) parameter() string {
	_, name, _ := strings.Cut(o.route.Path, "{")
	name, _, _ = strings.Cut(name, "}")
	return name
}

// takes tells whether the operation declares a header parameter.
func (o *operation) takes(header string) bool {
	return o.route.Operation.Parameters.GetByInAndName("header", header) != nil
}

// faultsOf lists what a validation found, each with its place below prefix.
func faultsOf(prefix string, err error) []fault {
	e, ok := errors.AsType[*openapi3.SchemaError](err)
	if !ok {
		return []fault{{prefix, short(err.Error())}}
	}
	var faults []fault
	found := leaves(e)
	for _, leaf := range found {
		text := leaf.Reason
		switch k := kindOf(leaf).(type) {
		case *kind.FalseSchema:
			if hidden(leaf, found) {
				continue
			}
			text = "is not in the contract"
		case nil:
			if leaf.SchemaField == "oneOf" {
				text = "is none of the alternatives that the contract lists"
			}
		default:
			text = k.LocalizedString(english)
		}
		faults = append(faults, fault{prefix + pointer(leaf.JSONPointer()), short(text)})
	}
	slices.SortFunc(faults, func(a, b fault) int {
		return cmp.Or(cmp.Compare(a.pointer, b.pointer), cmp.Compare(a.message, b.message))
	})
	return slices.Compact(faults)
}

// hidden tells whether a property was called undeclared only because its object is wrong somewhere else: a schema that fails
// does not say which properties it knows.
func hidden(undeclared *openapi3.SchemaError, found []*openapi3.SchemaError) bool {
	at := undeclared.JSONPointer()
	object := at[:max(len(at)-1, 0)]
	return slices.ContainsFunc(found, func(other *openapi3.SchemaError) bool {
		path := other.JSONPointer()
		if len(path) < len(object) || !slices.Equal(path[:len(object)], object) {
			return false
		}
		_, alike := kindOf(other).(*kind.FalseSchema)
		return !alike || len(path) > len(at)
	})
}

var english = message.NewPrinter(language.English)

// kindOf is the rule that a leaf breaks, nil for what is no leaf, or if kin-openapi judged without its JSON Schema validator.
func kindOf(leaf *openapi3.SchemaError) jsonschema.ErrorKind {
	if leaf.Origin != nil {
		return nil
	}
	if e, ok := errors.AsType[*jsonschema.ValidationError](leaf); ok {
		return e.ErrorKind
	}
	return nil
}

// leaves are the innermost causes. Of a choice (oneOf) only the alternatives count that the value means to be: those that differ
// neither in a constant nor in the type.
func leaves(e *openapi3.SchemaError) []*openapi3.SchemaError {
	var all []*openapi3.SchemaError
	for _, cause := range causes(e.Origin) {
		below := leaves(cause)
		if e.SchemaField == "oneOf" && slices.ContainsFunc(below, func(l *openapi3.SchemaError) bool {
			switch kindOf(l).(type) {
			case *kind.Const:
				return true
			case *kind.Type:
				return len(l.JSONPointer()) == len(e.JSONPointer())
			}
			return false
		}) {
			continue
		}
		all = append(all, below...)
	}
	if len(all) == 0 {
		return []*openapi3.SchemaError{e}
	}
	return all
}

// causes are the schema errors right below an error.
func causes(err error) []*openapi3.SchemaError {
	for ; err != nil; err = errors.Unwrap(err) {
		if several, ok := err.(openapi3.MultiError); ok { //nolint:errorlint // the tree itself is walked here
			var all []*openapi3.SchemaError
			for _, one := range several {
				if e, ok := errors.AsType[*openapi3.SchemaError](one); ok {
					all = append(all, e)
				}
			}
			return all
		}
	}
	return nil
}

func pointer(path []string) string {
	var b strings.Builder
	for _, p := range path {
		b.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(p))
	}
	return b.String()
}

// short cuts a text to what fits a line of a test's log.
func short(text string) string {
	text, _, _ = strings.Cut(text, "\nSchema:")
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > 300 {
		text = strings.ToValidUTF8(text[:300], "") + "..."
	}
	return text
}

// validateValue holds a JSON value against a schema of the contract.
func validateValue(schema *openapi3.Schema, v any) []fault {
	if err := schema.VisitJSON(v, openapi3.EnableJSONSchema2020(), openapi3.MultiErrors(), openapi3.VisitAsResponse()); err != nil {
		return faultsOf("/body", err)
	}
	return nil
}

// difference is the first place where two JSON values differ, as a pointer.
func difference(a, b any, at string) (string, bool) {
	if x, ok := a.(map[string]any); ok {
		if y, ok := b.(map[string]any); ok {
			names := slices.AppendSeq(slices.Collect(maps.Keys(x)), maps.Keys(y))
			slices.Sort(names)
			for _, name := range slices.Compact(names) {
				if where, differs := difference(x[name], y[name], at+pointer([]string{name})); differs {
					return where, true
				}
			}
			return "", false
		}
	}
	if x, ok := a.([]any); ok {
		if y, ok := b.([]any); ok && len(x) == len(y) {
			for i := range x {
				if where, differs := difference(x[i], y[i], at+"/"+strconv.Itoa(i)); differs {
					return where, true
				}
			}
			return "", false
		}
	}
	return at, !reflect.DeepEqual(a, b)
}
