package edge

import (
	"context"
	"errors"
	"net/http"
	"slices"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
)

// toClientError turns what a handler returned into the one error that a client can see.
func toClientError(err error) *apierr.Error {
	if e, ok := errors.AsType[*apierr.Error](err); ok {
		return e
	}
	if p, ok := errors.AsType[api.InvalidParameter](err); ok {
		return apierr.E(errcode.REQ003, apierr.At(string(p), errcode.RuleSchema))
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return apierr.E(errcode.SYS003, apierr.Cause(err))
	}
	return apierr.From(err)
}

// renderError writes every error body that leaves the server.
func (s *Server) renderError(r *request, err error) {
	if r.response.Committed {
		return
	}
	e := toClientError(err)
	if r.op != nil && !slices.Contains(r.op.Codes, e.Code) && s.undeclared != nil {
		s.undeclared(r.op.ID, e.Code)
	}
	r.code, r.cause = e.Code, e.Cause
	status, body := e.Problem(r.problemContext())
	h := r.response.Header()
	switch {
	case status == http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Bearer realm="ordergate"`)
	case status == http.StatusUnsupportedMediaType && compressed(r.http.Header):
		h.Set("Accept-Encoding", "identity")
	case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable || e.Code == errcode.IDEM003:
		h.Set("Retry-After", "1")
	}
	if r.answerToken != "" {
		h.Set("X-Consistency-Token", r.answerToken)
	}
	if r.tier != "" {
		h.Set("X-Served-By", r.tier)
	}
	h.Set("Content-Type", "application/problem+json")
	r.writeHeader(status)
	_, _ = r.response.Write(body) // a client that is gone cannot be told
}
