package edge

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
)

// readError is what went wrong while a body was read: too much (REQ_008), or the client stopped sending (REQ_001).
func readError(err error) error {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return apierr.E(errcode.REQ008)
	}
	return apierr.E(errcode.REQ001, apierr.At("", errcode.RuleComplete), apierr.Cause(err))
}

// toClient turns whatever a handler returned into the one error that a client can see.
func toClient(err error) *apierr.Error {
	if e, ok := errors.AsType[*apierr.Error](err); ok {
		return e
	}
	if e, ok := errors.AsType[*echo.HTTPError](err); ok {
		switch e.Code {
		case http.StatusNotFound:
			return apierr.E(errcode.REQ005)
		case http.StatusMethodNotAllowed:
			return apierr.E(errcode.REQ006)
		case http.StatusRequestEntityTooLarge:
			return apierr.E(errcode.REQ008)
		case http.StatusUnsupportedMediaType:
			return apierr.E(errcode.REQ009)
		case http.StatusBadRequest: // the generated binding; the contract's own check was here before it
			return apierr.E(errcode.REQ003, apierr.At("", errcode.RuleSchema), apierr.Cause(err))
		}
	}
	if errors.Is(err, io.EOF) { // a required body that is not there
		return apierr.E(errcode.REQ001, apierr.At("", errcode.RuleRequired))
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return apierr.E(errcode.SYS003, apierr.Cause(err))
	}
	return apierr.From(err)
}

// renderError writes every error body that leaves the server.
func (s *Server) renderError(err error, c echo.Context) {
	if c.Response().Committed {
		return
	}
	m := metaOf(c.Request().Context())
	e := toClient(err)
	if m.op != nil && !m.op.codes[e.Code] && s.undeclared != nil {
		s.undeclared(m.op.id, e.Code)
	}
	h := c.Response().Header()
	switch e.Code {
	case errcode.AUTH001, errcode.AUTH002, errcode.AUTH003, errcode.AUTH004:
		h.Set("WWW-Authenticate", `Bearer realm="ordergate"`)
	case errcode.REQ006:
		e.Extras = map[string]any{"allowed": strings.Split(strings.ReplaceAll(h.Get("Allow"), " ", ""), ",")}
	case errcode.REQ009:
		if compressed(c.Request()) {
			h.Set("Accept-Encoding", "identity")
		}
	case errcode.IDEM003, errcode.RATE001, errcode.RATE003, errcode.SYS002, errcode.SYS004, errcode.SYS005, errcode.SYS006:
		h.Set("Retry-After", "1")
	}
	if m.token != "" {
		h.Set("X-Consistency-Token", m.token)
	}
	m.code, m.err = e.Code, e.Cause
	status, body := e.Problem(m.about(c.Request().URL.Path))
	h.Set("Content-Type", "application/problem+json")
	c.Response().WriteHeader(status)
	_, _ = c.Response().Write(body)
}
