package edge

import (
	"context"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/check"
)

// checkRequest checks everything of a request but its parameters and its body, in the contract's order.
func (s *Server) checkRequest(ctx context.Context, r *request) (err error) {
	o, h := r.op, r.http.Header
	if o.MediaType != "" && r.http.ContentLength > MaxBody {
		return apierr.E(errcode.REQ008)
	}
	if o.Scopes != nil {
		key, now, err := s.cfg.Auth.authenticate(ctx, first(h, "Authorization"), r.began)
		if err != nil {
			return err
		}
		r.key, r.now = key, now
		limited := s.countRequest(r)
		if slices.ContainsFunc(o.Scopes, func(scope string) bool { return !slices.Contains(key.Scopes, scope) }) {
			return apierr.E(errcode.AUTH005, apierr.Extra("required_scopes", o.Scopes))
		}
		if limited != nil {
			return limited
		}
	}
	if o.Method != http.MethodGet {
		if err = s.cfg.Admission.Check(o.priority); err != nil {
			r.takeSmallBody()
			return err
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
	if accept := first(h, "Accept"); accept != "" && accept != "*/*" && !o.canProduce(accept) {
		return apierr.E(errcode.REQ007)
	}
	if o.MediaType != "" && r.http.ContentLength != 0 && !o.takes(h) && (max(r.http.ContentLength, int64(len(r.raw))) > 0 || !r.emptyBody()) {
		return apierr.E(errcode.REQ009)
	}
	if o.Idempotent {
		if r.idempotencyKey, err = idempotencyKey(first(h, "Idempotency-Key")); err != nil {
			return err
		}
	}
	return nil
}

// takes recognizes a body of the operation's media type, in UTF-8, that need not be unpacked.
func (o *operation) takes(h http.Header) bool {
	contentType := first(h, "Content-Type")
	if contentType == o.MediaType {
		return !compressed(h)
	}
	mediaType, params, err := mime.ParseMediaType(contentType)
	charset := params["charset"]
	return err == nil && mediaType == o.MediaType && (charset == "" || strings.EqualFold(charset, "utf-8")) && !compressed(h)
}

// canProduce tells whether the operation produces one of the media ranges that are not ruled out by q=0.
func (o *operation) canProduce(accept string) bool {
	if slices.Contains(o.Produces, accept) {
		return true
	}
	for part := range strings.SplitSeq(strings.ToLower(accept), ",") {
		if part == "" {
			continue
		}
		mediaRange, parameters, _ := strings.Cut(strings.Trim(part, " "), ";")
		main, sub, _ := strings.Cut(mediaRange, "/")
		if main = strings.Trim(main, " "); main == "*" && sub == "" {
			sub = "*"
		}
		sub = strings.Trim(strings.TrimSuffix(sub, "/"), " ")
		if slices.ContainsFunc(o.Produces, func(mediaType string) bool {
			ourMain, ourSub, _ := strings.Cut(mediaType, "/") // lower case in the contract
			return (main == "*" || main == ourMain) && (sub == "*" || sub == ourSub)
		}) && quality(parameters) > 0 {
			return true
		}
	}
	return false
}

// quality is the q among the parameters of a media range: 1 without one, 0 if it is no number.
func quality(parameters string) float64 {
	q := 1.0
	for parameter := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(parameter, "=")
		value, rest, _ := strings.Cut(value, "=")
		if strings.Trim(name, " ") == "q" && rest == "" && parameter != name && parameter[len(name)+1:] != "" {
			q, _ = strconv.ParseFloat(value, 32)
		}
	}
	return q
}

// compressed recognizes a body that would have to be unpacked. No body is: a small one may unpack to any size.
func compressed(h http.Header) bool {
	e := first(h, "Content-Encoding")
	return e != "" && !strings.EqualFold(e, "identity")
}

var idempotencyText = check.MustPattern(`^[!#-~]{8,255}$`)

// idempotencyKey reads a key, plain or in its quoted form: ^("[!#-~]{8,255}"|[!#-~]{8,255})$. The quotes are no part of it.
func idempotencyKey(key string) (string, error) {
	if key == "" {
		return "", apierr.E(errcode.IDEM001)
	}
	if len(key) >= 2 && key[0] == '"' && key[len(key)-1] == '"' {
		key = key[1 : len(key)-1]
	}
	if !idempotencyText.Match(key) {
		return "", apierr.E(errcode.IDEM004)
	}
	return key, nil
}
