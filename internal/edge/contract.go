package edge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/munnerz/goautoneg"
	"github.com/santhosh-tekuri/jsonschema/v6"

	apierr "github.com/ordergate/ordergate/errors"
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

	method     string
	path       string   // as echo writes it
	statuses   []int    // of answers that are no refusals
	scopes     []string // nil: without a key
	signed     bool     // a provider's signature is over the bytes of the body
	body       *jsonschema.Schema
	mediaType  string   // of the body
	produces   []string // lower case
	idempotent bool
	end        map[string]string // headers of all answers of an operation that is deprecated
	handle     handler
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

// neverRefused are parameters that are read from their headers: rubbish in them is ignored or, in a key, IDEM_004.
var neverRefused = []string{"X-Trace-ID", "Accept-Language", "Prefer", "Idempotency-Key"}

// contractURL names the contract to the schema compiler; a bare name would be a file in the working folder.
const contractURL = "mem:///contract"

// errNoScope: an operation needs a key and names no scope. Served as if it were public, it would be open to all.
var errNoScope = errors.New("it needs a key, and names no scope")

// compile reads a bundled contract: its operations, the names of all response headers, and the codes of addresses and methods that it does not have.
func compile(bundle []byte) (operations []*operation, headers []string, elsewhere []errcode.Code, err error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(bundle))
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
	var spec struct {
		Security   []map[string][]string            `json:"security"`
		Codes      []errcode.Code                   `json:"x-error-codes"`
		Paths      map[string]map[string]*operation `json:"paths"`
		Components struct {
			Parameters map[string]parameter          `json:"parameters"`
			Responses  map[string]documentedResponse `json:"responses"`
		} `json:"components"`
	}
	if err = errors.Join(c.AddResource(contractURL, doc), json.Unmarshal(bundle, &spec)); err != nil {
		return nil, nil, nil, fmt.Errorf("read contract: %w", err)
	}
	schema := func(pointer string) (*jsonschema.Schema, error) {
		return c.Compile(contractURL + "#" + strings.NewReplacer("{", "%7B", "}", "%7D").Replace(pointer)) // as a URL's fragment
	}
	for path, item := range spec.Paths {
		for method, o := range item {
			o.method, o.path = strings.ToUpper(method), strings.NewReplacer("{", ":", "}", "").Replace(path)
			at := "/paths/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(path) + "/" + method
			for _, s := range o.Security {
				o.scopes = append(o.scopes, s["bearer"]...)
				_, signed := s["signature"]
				o.signed = o.signed || signed
			}
			if public := len(o.Security) == 0 && (o.Security != nil || len(spec.Security) == 0); !public && !o.signed && o.scopes == nil {
				return nil, nil, nil, fmt.Errorf("%s: %w", o.ID, errNoScope)
			}
			for i, p := range o.Parameters {
				schemaAt := fmt.Sprintf("%s/parameters/%d/schema", at, i)
				if name, shared := strings.CutPrefix(p.Ref, "#/components/parameters/"); shared {
					schemaAt, p = p.Ref[1:]+"/schema", spec.Components.Parameters[name]
				}
				if p.compiled, err = schema(schemaAt); err != nil {
					return nil, nil, nil, fmt.Errorf("%s: parameter %s: %w", o.ID, p.Name, err)
				}
				o.Parameters[i] = p
				o.idempotent = o.idempotent || p.Name == "Idempotency-Key"
			}
			if o.RequestBody != nil {
				mediaTypes := slices.Collect(maps.Keys(o.RequestBody.Content))
				if len(mediaTypes) != 1 {
					return nil, nil, nil, fmt.Errorf("%s: body: %d media types instead of one", o.ID, len(mediaTypes))
				}
				o.mediaType = mediaTypes[0]
				if o.body, err = schema(at + "/requestBody/content/" + strings.ReplaceAll(o.mediaType, "/", "~1") + "/schema"); err != nil {
					return nil, nil, nil, fmt.Errorf("%s: body: %w", o.ID, err)
				}
			}
			if o.Sunset != "" {
				if o.end, err = endOf(o.Since, o.Sunset); err != nil {
					return nil, nil, nil, fmt.Errorf("%s: %w", o.ID, err)
				}
			}
			o.produces = []string{"application/problem+json"} // no client is refused for accepting that alone
			for status, r := range o.Responses {
				headers = slices.AppendSeq(headers, maps.Keys(r.Headers))
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
			operations = append(operations, o)
		}
	}
	for _, r := range spec.Components.Responses {
		headers = slices.AppendSeq(headers, maps.Keys(r.Headers))
	}
	return operations, headers, spec.Codes, nil
}

// endOf returns the headers of an operation that is deprecated since the beginning of a day (RFC 9745) and may be gone after another (RFC 8594),
// both in UTC.
func endOf(since, sunset string) (map[string]string, error) {
	from, err := time.Parse(time.DateOnly, since)
	to, err2 := time.Parse(time.DateOnly, sunset)
	if err = errors.Join(err, err2); err != nil {
		return nil, fmt.Errorf("cannot parse x-deprecated-since or x-sunset: %w", err)
	}
	return map[string]string{
		"Deprecation": "@" + strconv.FormatInt(from.Unix(), 10), "Sunset": to.AddDate(0, 0, 1).Add(-time.Second).Format(http.TimeFormat),
	}, nil
}

// checkRequest checks everything of a request but its body, in the contract's order, and stores the headers and parameters in it.
func (s *Server) checkRequest(ctx context.Context, r *request) (err error) {
	o, h := r.op, r.http.Header
	if o.body != nil && r.http.ContentLength > MaxBody {
		return apierr.E(errcode.REQ008)
	}
	if o.scopes != nil {
		key, err := s.cfg.Auth.authenticate(ctx, h.Get("Authorization"))
		if err != nil {
			return err
		}
		r.key = key
		limited := s.countRequest(r)
		if slices.ContainsFunc(o.scopes, func(scope string) bool { return !slices.Contains(key.Scopes, scope) }) {
			return apierr.E(errcode.AUTH005, apierr.Extra("required_scopes", o.scopes))
		}
		if limited != nil {
			return limited
		}
	}
	if o.signed {
		if err = r.readBody(); err != nil {
			return err
		}
		if err = s.checkSignature(r); err != nil {
			return err
		}
	}
	if s.cfg.Faults {
		if err = s.readFault(ctx, r); err != nil {
			return err
		}
	}
	if accept := h.Get("Accept"); accept != "" && accept != "*/*" && !o.canProduce(accept) {
		return apierr.E(errcode.REQ007)
	}
	if o.body != nil && r.http.ContentLength != 0 && !o.takes(h) && (max(r.http.ContentLength, int64(len(r.raw))) > 0 || !r.emptyBody()) {
		return apierr.E(errcode.REQ009)
	}
	if o.idempotent {
		if r.idempotencyKey, err = idempotencyKey(h.Get("Idempotency-Key")); err != nil {
			return err
		}
	}
	return s.checkParameters(r)
}

// takes recognizes a body of the operation's media type, in UTF-8, that need not be unpacked.
func (o *operation) takes(h http.Header) bool {
	mediaType, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	charset := params["charset"]
	return err == nil && mediaType == o.mediaType && (charset == "" || strings.EqualFold(charset, "utf-8")) && !compressed(h)
}

// canProduce tells whether the operation produces one of the media ranges that are not ruled out by q=0.
func (o *operation) canProduce(accept string) bool {
	return slices.ContainsFunc(goautoneg.ParseAccept(strings.ToLower(accept)), func(a goautoneg.Accept) bool {
		return a.Q > 0 && slices.ContainsFunc(o.produces, func(mediaType string) bool {
			main, sub, _ := strings.Cut(mediaType, "/") // lower case in the contract
			return (a.Type == "*" || a.Type == main) && (a.SubType == "*" || a.SubType == sub)
		})
	})
}

// compressed recognizes a body that would have to be unpacked. No body is: a small one may unpack to any size.
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

// checkParameters validates the parameters against their schemas and stores them: REQ_003 with all faults. A query parameter that the
// contract does not know is a fault, too: it is more often a mistake than meant.
func (s *Server) checkParameters(r *request) error {
	var faults []apierr.Fault
	fault := func(p parameter, rule errcode.Rule, expected string) {
		faults = append(faults, apierr.Fault{Pointer: "/" + p.In + "/" + p.Name, Rule: rule, Expected: expected})
	}
	query, err := url.ParseQuery(r.http.URL.RawQuery)
	if err != nil {
		return apierr.E(errcode.REQ003, apierr.Faults(apierr.Fault{Pointer: "/query", Rule: errcode.RuleFormat, Expected: "query string"}))
	}
	for name := range query {
		if !slices.ContainsFunc(r.op.Parameters, func(p parameter) bool { return p.In == "query" && p.Name == name }) {
			fault(parameter{In: "query", Name: strings.ToValidUTF8(name[:min(len(name), 64)], "")}, errcode.RuleAdditionalProperties, "")
		}
	}
	for _, p := range r.op.Parameters {
		if slices.Contains(neverRefused, p.Name) {
			continue
		}
		value, given := "", true
		switch p.In {
		case "path":
			value = r.path.Param(p.Name)
			if plain, err := url.PathUnescape(value); err == nil && r.http.URL.RawPath != "" { // else net/url has decoded it
				value = plain
			}
		case "query":
			value, given = query.Get(p.Name), query.Has(p.Name)
		case "header":
			value = r.http.Header.Get(p.Name)
			given = value != ""
		}
		switch {
		case !given && p.Required:
			fault(p, errcode.RuleRequired, "")
		case !given:
		case p.In == "query" && len(query[p.Name]) > 1:
			fault(p, errcode.RuleOnce, "")
		case !utf8.ValidString(value) || strings.IndexByte(value, 0) >= 0:
			fault(p, errcode.RuleEncoding, "")
		default:
			var v any = value
			if p.Schema["type"] == "integer" {
				if n, err := strconv.ParseInt(value, 10, 64); err == nil && value[0] != '+' {
					v = n
				}
			}
			broken := faultsOf(p.compiled, v)
			for _, f := range broken {
				fault(p, f.Rule, f.Expected)
			}
			if len(broken) == 0 && !s.setParameter(r, p.Name, value) {
				fault(p, errcode.RuleSignature, "")
			}
		}
	}
	if len(faults) > 0 {
		slices.SortFunc(faults, func(a, b apierr.Fault) int { return strings.Compare(a.Pointer, b.Pointer) })
		return apierr.E(errcode.REQ003, apierr.Faults(faults[:min(len(faults), apierr.MaxFaults)]...))
	}
	return nil
}
