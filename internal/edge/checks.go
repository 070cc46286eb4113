package edge

import (
	"context"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/munnerz/goautoneg"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
)

// neverRefused are parameters that are read from their headers: rubbish in them is ignored or, in a key, IDEM_004.
var neverRefused = []string{"X-Trace-ID", "Accept-Language", "Prefer", "Idempotency-Key"}

// checkRequest checks everything of a request but its body, in the contract's order, and stores the headers and parameters in it.
func (s *Server) checkRequest(ctx context.Context, r *request) (err error) {
	o, h := r.op, r.http.Header
	if o.MediaType != "" && r.http.ContentLength > MaxBody {
		return apierr.E(errcode.REQ008)
	}
	if o.Scopes != nil {
		key, err := s.cfg.Auth.authenticate(ctx, first(h, "Authorization"), r.began)
		if err != nil {
			return err
		}
		r.key = key
		limited := s.countRequest(r)
		if slices.ContainsFunc(o.Scopes, func(scope string) bool { return !slices.Contains(key.Scopes, scope) }) {
			return apierr.E(errcode.AUTH005, apierr.Extra("required_scopes", o.Scopes))
		}
		if limited != nil {
			return limited
		}
	}
	if o.Signed {
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
	if o.MediaType != "" && r.http.ContentLength != 0 && !o.takes(h) && (max(r.http.ContentLength, int64(len(r.raw))) > 0 || !r.emptyBody()) {
		return apierr.E(errcode.REQ009)
	}
	if o.Idempotent {
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
	return err == nil && mediaType == o.MediaType && (charset == "" || strings.EqualFold(charset, "utf-8")) && !compressed(h)
}

// canProduce tells whether the operation produces one of the media ranges that are not ruled out by q=0.
func (o *operation) canProduce(accept string) bool {
	return slices.ContainsFunc(goautoneg.ParseAccept(strings.ToLower(accept)), func(a goautoneg.Accept) bool {
		return a.Q > 0 && slices.ContainsFunc(o.Produces, func(mediaType string) bool {
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

// dateTimeInQuery shows in any language how a query says a time: a date alone is none, and a plus that is not escaped is a space.
const dateTimeInQuery = "date-time (2026-11-27T08:00:00Z, 2026-11-27T09:00:00%2B01:00; %2B = +)"

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
		if !slices.ContainsFunc(r.op.parameters, func(p parameter) bool { return p.In == "query" && p.Name == name }) {
			fault(parameter{In: "query", Name: strings.ToValidUTF8(name[:min(len(name), 64)], "")}, errcode.RuleAdditionalProperties, "")
		}
	}
	for _, p := range r.op.parameters {
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
				if p.In == "query" && f.Expected == "date-time" {
					f.Expected = dateTimeInQuery
				}
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
