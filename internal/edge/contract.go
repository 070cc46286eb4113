package edge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/rfc3339"
)

// MaxBody is the greatest request body in bytes; more is REQ_008.
const MaxBody = 256 << 10

// operation is one operation of the contract, compiled at boot: the conditions on a request before its handler runs. The exported
// fields are the contract's own.
type operation struct {
	ID          string                `json:"operationId"` //nolint:tagliatelle // OpenAPI's name
	Security    []map[string][]string `json:"security"`
	Parameters  []parameter           `json:"parameters"`
	RequestBody *struct {
		Required bool           `json:"required"`
		Content  map[string]any `json:"content"`
	} `json:"requestBody"` //nolint:tagliatelle // OpenAPI's name
	Responses map[string]documentedResponse `json:"responses"`
	Codes     []errcode.Code                `json:"x-error-codes"` // all that it may return
	Stream    bool                          `json:"x-stream"`      // or it produces text/event-stream: it lives as long as its client
	Since     string                        `json:"x-deprecated-since"`
	Sunset    string                        `json:"x-sunset"`

	method      string
	path        string   // as echo writes it
	statuses    []int    // of answers that are no refusals
	scopes      []string // nil: without a key
	signed      bool     // a provider's signature is over the bytes of the body
	body        *jsonschema.Schema
	mediaType   string   // of the body
	produces    []string // lower case
	idempotent  bool
	deprecation map[string]string // the headers that say so in all answers of an operation that is deprecated
	handle      handler
}

type documentedResponse struct {
	Headers map[string]any `json:"headers"`
	Content map[string]any `json:"content"`
}

type parameter struct {
	Ref      string         `json:"$ref"`
	In       string         `json:"in"`
	Name     string         `json:"name"`
	Required bool           `json:"required"`
	Schema   map[string]any `json:"schema"`
	compiled *jsonschema.Schema
}

// contractURL names the contract to the schema compiler; a bare name would be a file in the working folder.
const contractURL = "mem:///contract"

// errNoScope: an operation needs a key and names no scope. Served as if it were public, it would be open to all.
var errNoScope = errors.New("it needs a key, and names no scope")

// bundle is a bundled contract as far as requests are checked against it.
type bundle struct {
	Security   []map[string][]string            `json:"security"`
	Codes      []errcode.Code                   `json:"x-error-codes"`
	Paths      map[string]map[string]*operation `json:"paths"`
	Components struct {
		Parameters map[string]parameter          `json:"parameters"`
		Responses  map[string]documentedResponse `json:"responses"`
	} `json:"components"`
}

// schemas compiles the schema at a JSON pointer of the contract.
type schemas = func(pointer string) (*jsonschema.Schema, error)

// compile reads a bundled contract: its operations, the names of all response headers, and the codes of addresses and methods that it does not have.
func compile(contract []byte) (operations []*operation, headers []string, elsewhere []errcode.Code, err error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(contract))
	if err != nil {
		return nil, nil, nil, fmt.Errorf("read contract: %w", err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	c.RegisterFormat(&jsonschema.Format{Name: "date-time", Validate: func(v any) error { // as the generated code reads it
		if text, ok := v.(string); ok {
			return new(rfc3339.Time).UnmarshalText([]byte(text))
		}
		return nil
	}})
	var all bundle
	if err = errors.Join(c.AddResource(contractURL, doc), json.Unmarshal(contract, &all)); err != nil {
		return nil, nil, nil, fmt.Errorf("read contract: %w", err)
	}
	schema := func(pointer string) (*jsonschema.Schema, error) {
		return c.Compile(contractURL + "#" + strings.NewReplacer("{", "%7B", "}", "%7D").Replace(pointer)) // as a URL's fragment
	}
	for path, item := range all.Paths {
		for method, o := range item {
			o.method, o.path = strings.ToUpper(method), strings.NewReplacer("{", ":", "}", "").Replace(path)
			at := "/paths/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(path) + "/" + method
			if err = errors.Join(o.readSecurity(all), o.compileParameters(all, at, schema), o.compileBody(at, schema)); err == nil && o.Sunset != "" {
				o.deprecation, err = deprecationHeaders(o.Since, o.Sunset)
			}
			if err != nil {
				return nil, nil, nil, fmt.Errorf("%s: %w", o.ID, err)
			}
			o.readResponses()
			for _, r := range o.Responses {
				headers = slices.AppendSeq(headers, maps.Keys(r.Headers))
			}
			operations = append(operations, o)
		}
	}
	for _, r := range all.Components.Responses {
		headers = slices.AppendSeq(headers, maps.Keys(r.Headers))
	}
	return operations, headers, all.Codes, nil
}

// readSecurity reads who may call: anybody, a key with scopes, or a provider that signs. The error is errNoScope.
func (o *operation) readSecurity(all bundle) error {
	for _, s := range o.Security {
		o.scopes = append(o.scopes, s["bearer"]...)
		_, signed := s["signature"]
		o.signed = o.signed || signed
	}
	if public := len(o.Security) == 0 && (o.Security != nil || len(all.Security) == 0); !public && !o.signed && o.scopes == nil {
		return errNoScope
	}
	return nil
}

// compileParameters puts shared parameters in the place of their references, and compiles the schemas of all.
func (o *operation) compileParameters(all bundle, at string, schema schemas) (err error) {
	for i, p := range o.Parameters {
		schemaAt := fmt.Sprintf("%s/parameters/%d/schema", at, i)
		if name, shared := strings.CutPrefix(p.Ref, "#/components/parameters/"); shared {
			schemaAt, p = p.Ref[1:]+"/schema", all.Components.Parameters[name]
		}
		if p.compiled, err = schema(schemaAt); err != nil {
			return fmt.Errorf("parameter %s: %w", p.Name, err)
		}
		o.Parameters[i] = p
		o.idempotent = o.idempotent || p.Name == "Idempotency-Key"
	}
	return nil
}

// compileBody compiles the schema of the body, which has one media type.
func (o *operation) compileBody(at string, schema schemas) (err error) {
	if o.RequestBody == nil {
		return nil
	}
	mediaTypes := slices.Collect(maps.Keys(o.RequestBody.Content))
	if len(mediaTypes) != 1 {
		return fmt.Errorf("body: %d media types instead of one", len(mediaTypes))
	}
	o.mediaType = mediaTypes[0]
	if o.body, err = schema(at + "/requestBody/content/" + strings.ReplaceAll(o.mediaType, "/", "~1") + "/schema"); err != nil {
		return fmt.Errorf("body: %w", err)
	}
	return nil
}

// readResponses reads the statuses that are no refusals, and what a client may accept.
func (o *operation) readResponses() {
	o.produces = []string{"application/problem+json"} // no client is refused for accepting that alone
	for status, r := range o.Responses {
		if n, err := strconv.Atoi(status); err == nil && n < http.StatusBadRequest {
			o.statuses = append(o.statuses, n)
		}
		if status[0] == '2' {
			o.produces = slices.AppendSeq(o.produces, maps.Keys(r.Content))
		}
		if status == "204" && len(o.Responses["200"].Content) == 0 {
			o.produces = append(o.produces, "application/json") // what clients accept by habit
		}
	}
	o.Stream = o.Stream || slices.Contains(o.produces, "text/event-stream")
}

// deprecationHeaders returns the headers of an operation that is deprecated since the beginning of a day (RFC 9745) and may be gone after another (RFC 8594),
// both in UTC.
func deprecationHeaders(since, sunset string) (map[string]string, error) {
	from, err := time.Parse(time.DateOnly, since)
	to, err2 := time.Parse(time.DateOnly, sunset)
	if err = errors.Join(err, err2); err != nil {
		return nil, fmt.Errorf("cannot parse x-deprecated-since or x-sunset: %w", err)
	}
	return map[string]string{
		"Deprecation": "@" + strconv.FormatInt(from.Unix(), 10), "Sunset": to.AddDate(0, 0, 1).Add(-time.Second).Format(http.TimeFormat),
	}, nil
}
