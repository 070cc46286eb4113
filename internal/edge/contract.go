package edge

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/munnerz/goautoneg"
	"github.com/santhosh-tekuri/jsonschema/v6"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/rfc3339"
)

// MaxBody is the greatest request body in bytes; more is REQ_008.
const MaxBody = 256 << 10

// operation is one operation of the contract, compiled at boot: what must hold of a request before its handler runs.
type operation struct {
	id, method   string
	path         string   // as echo writes it
	scopes       []string // nil: public
	parameters   []parameter
	queries      []string // the names of the query parameters
	headers      []string // the names of the header parameters
	body         *jsonschema.Schema
	bodyRequired bool
	produces     []string // lower case
	idempotent   bool
	stream       bool                  // x-stream, or text/event-stream is among what it produces: it lives as long as its client
	rawBody      bool                  // x-raw-body: a signature is over the bytes, so they are kept and its handler calls Decode
	codes        map[errcode.Code]bool // all that it may answer
	handle       handler
}

type parameter struct {
	in, name string
	shared   bool // between operations: components/parameters
	required bool
	integer  bool
	schema   *jsonschema.Schema
	set      func(r *request, value string) errcode.Rule // of a shared one
}

// contractURL is what the contract is to the schema compiler; a bare name would be a file in the working folder.
const contractURL = "mem:///contract"

// compile reads a bundled contract: its operations and the names of all response headers.
func compile(bundle []byte) (operations []*operation, headers []string, err error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(bundle))
	if err != nil {
		return nil, nil, fmt.Errorf("read contract: %w", err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	c.RegisterFormat(&jsonschema.Format{Name: "date-time", Validate: func(v any) error { // as the generated code reads it
		if text, ok := v.(string); ok {
			return new(rfc3339.Time).UnmarshalText([]byte(text))
		}
		return nil
	}})
	if err = c.AddResource(contractURL, doc); err != nil {
		return nil, nil, err
	}
	var spec struct {
		Paths      map[string]map[string]specOperation
		Components struct {
			Parameters map[string]specParameter
			Responses  map[string]specResponse
		}
	}
	if err = json.Unmarshal(bundle, &spec); err != nil {
		return nil, nil, fmt.Errorf("read contract: %w", err)
	}
	for path, item := range spec.Paths {
		for method, op := range item {
			o := &operation{
				id: op.OperationID, method: strings.ToUpper(method), path: strings.NewReplacer("{", ":", "}", "").Replace(path),
				produces: []string{"application/problem+json"}, stream: op.Stream, rawBody: op.RawBody, codes: map[errcode.Code]bool{},
			}
			at := contractURL + "#/paths/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(path) + "/" + method
			for _, s := range op.Security {
				o.scopes = append(o.scopes, s["bearer"]...)
			}
			for i, p := range op.Parameters {
				schemaAt := fmt.Sprintf("%s/parameters/%d/schema", at, i)
				shared := p.Ref != ""
				if shared {
					schemaAt = contractURL + p.Ref + "/schema"
					p = spec.Components.Parameters[strings.TrimPrefix(p.Ref, "#/components/parameters/")]
				}
				sch, err := c.Compile(escape(schemaAt))
				if err != nil {
					return nil, nil, fmt.Errorf("%s: parameter %s: %w", o.id, p.Name, err)
				}
				o.parameters = append(o.parameters, parameter{in: p.In, name: p.Name, shared: shared, required: p.Required, integer: p.Schema.Type == "integer", schema: sch})
				switch p.In {
				case "query":
					o.queries = append(o.queries, p.Name)
				case "header":
					o.headers = append(o.headers, p.Name)
				}
				o.idempotent = o.idempotent || p.Name == "Idempotency-Key"
			}
			if op.RequestBody != nil {
				o.bodyRequired = op.RequestBody.Required
				if o.body, err = c.Compile(escape(at + "/requestBody/content/application~1json/schema")); err != nil {
					return nil, nil, fmt.Errorf("%s: body: %w", o.id, err)
				}
			}
			for status, r := range op.Responses {
				headers = slices.AppendSeq(headers, maps.Keys(r.Headers))
				for mediaType := range r.Content {
					if mediaType = strings.ToLower(mediaType); status[0] == '2' && !slices.Contains(o.produces, mediaType) {
						o.produces = append(o.produces, mediaType)
					}
				}
			}
			o.stream = o.stream || slices.Contains(o.produces, "text/event-stream")
			for _, code := range op.Codes {
				o.codes[code] = true
			}
			operations = append(operations, o)
		}
	}
	for _, r := range spec.Components.Responses {
		headers = slices.AppendSeq(headers, maps.Keys(r.Headers))
	}
	return operations, headers, nil
}

// place binds the shared parameters to their places in a request. Those that are never a fault are checked no further.
func (o *operation) place(shared map[string]func(*request, string) errcode.Rule) error {
	checked := o.parameters[:0]
	for _, p := range o.parameters {
		if set, known := shared[p.name]; p.shared && !known {
			return fmt.Errorf("operation %s: the shared parameter %s has no place in sharedParameters", o.id, p.name)
		} else if p.shared && set == nil {
			continue
		} else if p.shared {
			p.set = set
		}
		checked = append(checked, p)
	}
	o.parameters = checked
	return nil
}

// escape makes a JSON pointer fit for a URL's fragment.
func escape(pointer string) string {
	return strings.NewReplacer("{", "%7B", "}", "%7D").Replace(pointer)
}

type specOperation struct {
	OperationID string
	Security    []map[string][]string
	Parameters  []specParameter
	RequestBody *struct{ Required bool }
	Responses   map[string]specResponse
	Codes       []errcode.Code `json:"x-error-codes"`
	Stream      bool           `json:"x-stream"`
	RawBody     bool           `json:"x-raw-body"`
}

type specResponse struct{ Headers, Content map[string]any }

type specParameter struct {
	Ref      string `json:"$ref"`
	In, Name string
	Required bool
	Schema   struct{ Type any }
}

// checkRequest checks everything of a request but its body, in the contract's order, and fills the request with what it reads.
func (s *Server) checkRequest(ctx context.Context, r *request) (err error) {
	o, h := r.op, r.http.Header
	if o.body != nil && r.http.ContentLength > MaxBody {
		return apierr.E(errcode.REQ008)
	}
	if o.scopes != nil {
		if r.key, err = s.cfg.Auth.authenticate(ctx, h.Get("Authorization")); err != nil {
			return err
		}
		for _, scope := range o.scopes {
			if !slices.Contains(r.key.Scopes, scope) {
				return apierr.E(errcode.AUTH005)
			}
		}
	}
	if accept := h.Get("Accept"); accept != "" && accept != "*/*" && !o.canProduce(accept) {
		return apierr.E(errcode.REQ007)
	}
	if o.body != nil && r.http.ContentLength != 0 && !isJSON(h) && (r.http.ContentLength > 0 || !r.emptyBody()) {
		return apierr.E(errcode.REQ009)
	}
	if o.idempotent {
		if r.idempotencyKey, err = idempotencyKey(h.Get("Idempotency-Key")); err != nil {
			return err
		}
	}
	if err = r.checkParameters(); err != nil || !o.rawBody {
		return err
	}
	r.raw, err = r.readBody()
	return err
}

// isJSON tells a body that is JSON in UTF-8 and need not be unpacked.
func isJSON(h http.Header) bool {
	mediaType, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	charset := params["charset"]
	return err == nil && mediaType == "application/json" && (charset == "" || strings.EqualFold(charset, "utf-8")) && !compressed(h)
}

// canProduce tells whether one of the media ranges that are not ruled out by q=0 is what the operation answers. Problems count: no
// client is refused for naming them alone.
func (o *operation) canProduce(accept string) bool {
	return slices.ContainsFunc(goautoneg.ParseAccept(strings.ToLower(accept)), func(a goautoneg.Accept) bool {
		return a.Q > 0 && slices.ContainsFunc(o.produces, func(mediaType string) bool {
			main, sub, _ := strings.Cut(mediaType, "/")
			return (a.Type == "*" || a.Type == main) && (a.SubType == "*" || a.SubType == sub)
		})
	})
}

// compressed tells a body that would have to be unpacked. None is: a small one may unpack to any size.
func compressed(h http.Header) bool {
	e := h.Get("Content-Encoding")
	return e != "" && !strings.EqualFold(e, "identity")
}

// idempotencyKey reads a key, plain or in its quoted form: ^("[!#-~]{8,255}"|[!#-~]{8,255})$. The quotes are no part of it.
func idempotencyKey(key string) (string, error) {
	if key == "" {
		return "", apierr.E(errcode.IDEM001)
	}
	if len(key) >= 2 && key[0] == '"' && key[len(key)-1] == '"' {
		key = key[1 : len(key)-1]
	}
	if len(key) < 8 || len(key) > 255 || strings.IndexFunc(key, func(r rune) bool { return r < '!' || r > '~' || r == '"' }) >= 0 {
		return "", apierr.E(errcode.IDEM004)
	}
	return key, nil
}

// checkParameters holds the parameters against their schemas and keeps them: REQ_003 with all faults. A query parameter that the
// contract does not know is a fault, too: it is more often a slip than meant.
func (r *request) checkParameters() error {
	var faults []apierr.Fault
	fault := func(p parameter, rule errcode.Rule, expected string) {
		faults = append(faults, apierr.Fault{Pointer: "/" + p.in + "/" + p.name, Rule: rule, Expected: expected})
	}
	query := url.Values{}
	if raw := r.http.URL.RawQuery; raw != "" {
		var err error
		if query, err = url.ParseQuery(raw); err != nil {
			return apierr.E(errcode.REQ003, apierr.At("/query", errcode.RuleSyntax))
		}
	}
	for _, p := range r.op.parameters {
		var value string
		var given bool
		switch p.in {
		case "path":
			value, given = r.path.Param(p.name), true
			if r.http.URL.RawPath != "" { // else net/url has decoded it, and echo routes by that
				if plain, err := url.PathUnescape(value); err == nil {
					value = plain
				}
			}
		case "query":
			values := query[p.name]
			if len(values) > 1 {
				fault(p, errcode.RuleOnce, "")
				continue
			}
			if given = len(values) == 1; given {
				value = values[0]
			}
		case "header":
			value = r.http.Header.Get(p.name)
			given = value != ""
		}
		if !given {
			if p.required {
				fault(p, errcode.RuleRequired, "")
			}
			continue
		}
		if !utf8.ValidString(value) || strings.IndexByte(value, 0) >= 0 {
			fault(p, errcode.RuleEncoding, "")
			continue
		}
		var v any = value
		if p.integer {
			if n, err := strconv.ParseInt(value, 10, 64); err == nil {
				v = n
			}
		}
		broken := faultsOf(p.schema, v)
		for _, f := range broken {
			fault(p, f.Rule, f.Expected)
		}
		if len(broken) > 0 {
			continue
		}
		if !p.shared {
			r.own = append(r.own, parameterValue{p.name, value})
		} else if rule := p.set(r, value); rule != "" {
			fault(p, rule, "")
		}
	}
	for name := range query {
		if !slices.Contains(r.op.queries, name) {
			fault(parameter{in: "query", name: strings.ToValidUTF8(name[:min(len(name), 64)], "")}, errcode.RuleAdditionalProperties, "")
		}
	}
	if len(faults) > 0 {
		slices.SortFunc(faults, func(a, b apierr.Fault) int { return strings.Compare(a.Pointer, b.Pointer) })
		return apierr.E(errcode.REQ003, apierr.Faults(faults[:min(len(faults), maxFaults)]...))
	}
	return nil
}
