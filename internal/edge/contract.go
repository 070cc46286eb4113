package edge

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/labstack/echo/v4"
	"github.com/munnerz/goautoneg"
	"github.com/santhosh-tekuri/jsonschema/v6"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
)

// MaxBody is the greatest request body in bytes; more is REQ_008.
const MaxBody = 256 << 10

// operation is one operation of the contract, compiled at boot: what must hold of a request before its handler runs.
type operation struct {
	id         string
	scopes     []string // nil: public
	parameters []parameter
	queries    []string // the names of the query parameters
	body       *jsonschema.Schema
	produces   []string
	idempotent bool
	codes      map[errcode.Code]bool // all that it may answer
}

type parameter struct {
	in, name string
	required bool
	integer  bool
	schema   *jsonschema.Schema
}

// contractURL is what the contract is to the schema compiler; a bare name would be a file in the working folder.
const contractURL = "mem:///contract"

// compile reads the bundled contract into its operations by operationId.
func compile(bundle []byte) (map[string]*operation, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(bundle))
	if err != nil {
		return nil, fmt.Errorf("read contract: %w", err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	c.RegisterFormat(&jsonschema.Format{Name: "date-time", Validate: func(v any) error { // as the generated code reads it
		if text, ok := v.(string); ok {
			_, err := time.Parse(time.RFC3339, text)
			return err
		}
		return nil
	}})
	if err = c.AddResource(contractURL, doc); err != nil {
		return nil, err
	}
	var spec struct {
		Paths      map[string]map[string]specOperation
		Components struct{ Parameters map[string]specParameter }
	}
	if err = json.Unmarshal(bundle, &spec); err != nil {
		return nil, fmt.Errorf("read contract: %w", err)
	}
	operations := map[string]*operation{}
	for path, item := range spec.Paths {
		for method, op := range item {
			o := &operation{id: op.OperationID, codes: map[errcode.Code]bool{}}
			at := contractURL + "#/paths/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(path) + "/" + method
			for _, s := range op.Security {
				o.scopes = append(o.scopes, s["bearer"]...)
			}
			for i, p := range op.Parameters {
				schemaAt := fmt.Sprintf("%s/parameters/%d/schema", at, i)
				if p.Ref != "" {
					schemaAt = contractURL + p.Ref + "/schema"
					p = spec.Components.Parameters[strings.TrimPrefix(p.Ref, "#/components/parameters/")]
				}
				sch, err := c.Compile(escape(schemaAt))
				if err != nil {
					return nil, fmt.Errorf("%s: parameter %s: %w", o.id, p.Name, err)
				}
				o.parameters = append(o.parameters, parameter{in: p.In, name: p.Name, required: p.Required, integer: p.Schema.Type == "integer", schema: sch})
				if p.In == "query" {
					o.queries = append(o.queries, p.Name)
				}
				o.idempotent = o.idempotent || p.Name == "Idempotency-Key"
			}
			if op.RequestBody != nil {
				if o.body, err = c.Compile(escape(at + "/requestBody/content/application~1json/schema")); err != nil {
					return nil, fmt.Errorf("%s: body: %w", o.id, err)
				}
			}
			for status, r := range op.Responses {
				if status[0] == '2' {
					for mediaType := range r.Content {
						if !slices.Contains(o.produces, mediaType) {
							o.produces = append(o.produces, mediaType)
						}
					}
				}
			}
			for _, code := range op.Codes {
				o.codes[code] = true
			}
			operations[o.id] = o
		}
	}
	return operations, nil
}

// escape makes a JSON pointer fit for a URL's fragment.
func escape(pointer string) string {
	return strings.NewReplacer("{", "%7B", "}", "%7D").Replace(pointer)
}

type specOperation struct {
	OperationID string
	Security    []map[string][]string
	Parameters  []specParameter
	RequestBody *struct{}
	Responses   map[string]struct{ Content map[string]any }
	Codes       []errcode.Code `json:"x-error-codes"`
}

type specParameter struct {
	Ref      string `json:"$ref"`
	In, Name string
	Required bool
	Schema   struct{ Type any }
}

// admit checks everything of a request but its body, in the contract's order: authentication, scope, what it accepts, its media
// type, its idempotency key, its parameters.
func (o *operation) admit(auth *Authenticator) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			r := c.Request()
			if o.body != nil && r.ContentLength > MaxBody {
				return apierr.E(errcode.REQ008)
			}
			m := metaOf(r.Context())
			m.op = o
			joinLines(r.Header)
			if o.scopes != nil {
				if err := auth.authenticate(r, m); err != nil {
					return err
				}
				for _, s := range o.scopes {
					if !slices.Contains(m.key.Scopes, s) {
						return apierr.E(errcode.AUTH005)
					}
				}
			}
			if err := o.accepted(r); err != nil {
				return err
			}
			if o.idempotent {
				key, err := idempotencyKey(r.Header)
				if err != nil {
					return err
				}
				r.Header.Set("Idempotency-Key", key)
			}
			if err := o.checkParameters(c); err != nil {
				return err
			}
			r.Body = http.MaxBytesReader(c.Response(), r.Body, MaxBody)
			return next(c)
		}
	}
}

// accepted checks the Accept and Content-Type headers.
func (o *operation) accepted(r *http.Request) error {
	if a := r.Header.Get("Accept"); a != "" && a != "*/*" && !o.canProduce(a) {
		return apierr.E(errcode.REQ007)
	}
	if o.body == nil || r.ContentLength == 0 {
		return nil
	}
	if compressed(r) {
		return apierr.E(errcode.REQ009)
	}
	mediaType, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if charset := params["charset"]; err != nil || mediaType != "application/json" || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return apierr.E(errcode.REQ009)
	}
	return nil
}

// canProduce tells whether one of the media ranges that are not ruled out by q=0 is what the operation answers.
func (o *operation) canProduce(accept string) bool {
	return slices.ContainsFunc(goautoneg.ParseAccept(accept), func(a goautoneg.Accept) bool {
		return a.Q > 0 && slices.ContainsFunc(o.produces, func(mediaType string) bool {
			main, sub, _ := strings.Cut(mediaType, "/")
			return (a.Type == "*" || a.Type == main) && (a.SubType == "*" || a.SubType == sub)
		})
	})
}

// compressed tells a body that would have to be unpacked. None is: a small one may unpack to any size.
func compressed(r *http.Request) bool {
	e := r.Header.Get("Content-Encoding")
	return e != "" && !strings.EqualFold(e, "identity")
}

// joinLines makes one line of repeated headers, as RFC 9110 allows: the generated binding takes only one.
func joinLines(h http.Header) {
	for name, lines := range h {
		if len(lines) > 1 {
			h[name] = []string{strings.Join(lines, ", ")}
		}
	}
}

// idempotencyKey reads the header, plain or in its quoted form.
func idempotencyKey(h http.Header) (string, error) {
	key := h.Get("Idempotency-Key")
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

// checkParameters holds the path, query and header parameters against their schemas: REQ_003 with all faults. A query parameter
// that the contract does not know is a fault, too: it is more often a slip than a wish.
func (o *operation) checkParameters(c echo.Context) error {
	var faults []apierr.Fault
	fault := func(p parameter, rule errcode.Rule, want string) {
		faults = append(faults, apierr.Fault{Pointer: "/" + p.in + "/" + p.name, Rule: rule, Expected: want})
	}
	query := url.Values{}
	if raw := c.Request().URL.RawQuery; raw != "" {
		var err error
		if query, err = url.ParseQuery(raw); err != nil {
			return apierr.E(errcode.REQ003, apierr.At("/query", errcode.RuleSyntax))
		}
	}
	for _, p := range o.parameters {
		var value string
		var given bool
		switch p.in {
		case "path":
			value, given = c.Param(p.name), true
			if plain, err := url.PathUnescape(value); err == nil {
				value = plain
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
			value = c.Request().Header.Get(p.name)
			given = value != "" && p.name != "X-Trace-ID" && p.name != "Accept-Language" // those are never refused
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
		for _, f := range faultsOf(p.schema, v) {
			fault(p, f.Rule, f.Expected)
		}
	}
	for name := range query {
		if !slices.Contains(o.queries, name) {
			fault(parameter{in: "query", name: strings.ToValidUTF8(name[:min(len(name), 64)], "")}, errcode.RuleAdditionalProperties, "")
		}
	}
	if len(faults) > 0 {
		slices.SortFunc(faults, func(a, b apierr.Fault) int { return strings.Compare(a.Pointer, b.Pointer) })
		return apierr.E(errcode.REQ003, apierr.Faults(faults[:min(len(faults), maxFaults)]...))
	}
	return nil
}

// binder decodes a body into its generated type: size, strict gate, schema, then one decode of what was validated.
type binder struct{}

// Bind implements echo.Binder. No body at all is io.EOF, which the generated code takes for an optional body left out.
func (binder) Bind(target any, c echo.Context) error {
	body, err := io.ReadAll(c.Request().Body)
	if err != nil {
		return readError(err)
	}
	v, err := readJSON(body)
	if err != nil {
		return err
	}
	if err = validate(metaOf(c.Request().Context()).op.body, v); err != nil {
		return err
	}
	if err = json.Unmarshal(body, target); err == nil {
		return nil
	}
	// An integer may be written 2.0, which Go's decoder does not take: what was validated is encoded its way.
	if body, err = json.Marshal(v); err == nil {
		err = json.Unmarshal(body, target)
	}
	if err != nil {
		return apierr.E(errcode.REQ002, apierr.At("", errcode.RuleType), apierr.Cause(err))
	}
	return nil
}
