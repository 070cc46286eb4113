package edge

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
)

// toClientError is the error that a client sees of a failed request.
func toClientError(err error) *apierr.Error {
	_, coded := errors.AsType[*apierr.Error](err)
	if !coded && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)) {
		return apierr.E(errcode.SYS003, apierr.Cause(err))
	}
	return apierr.From(err)
}

// failed keeps the error in which a request ended for its event in the log, and returns what a client sees of it.
func (r *request) failed(err error) *apierr.Error {
	e := toClientError(err)
	r.code, r.cause = e.Code, e.Cause
	return e
}

// problem is the response to every request that ends in an error.
func (s *Server) problem(r *request, err error) response {
	e := r.failed(err)
	status, body := e.Problem(r.problemContext())
	r.headers = r.headers[:0] // those of a response that is not sent
	r.add("X-Consistency-Token", r.problemToken)
	r.add("X-Served-By", r.tier)
	switch {
	case e.Code == errcode.AUTH007:
		r.add("Www-Authenticate", `Signature realm="ordergate"`)
	case status == http.StatusUnauthorized:
		r.add("Www-Authenticate", `Bearer realm="ordergate"`)
	case status == http.StatusUnsupportedMediaType && compressed(r.http.Header):
		r.add("Accept-Encoding", "identity")
	case status == http.StatusUnsupportedMediaType && r.op.Method == http.MethodPatch:
		r.add("Accept-Patch", r.op.MediaType)
	case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable || e.Code == errcode.IDEM003:
		r.add("Retry-After", strconv.FormatInt(max(1, r.retryAfter), 10))
	}
	return response{status: status, contentType: "application/problem+json", body: string(body)}
}
