// Package edge is the HTTP side of the gateway: the contract in front, the handlers behind it, and the one place where error
// bodies are written.
package edge

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/command"
	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/query"
)

// Config is what a Server needs.
type Config struct {
	Commands *command.Commands
	Queries  *query.Queries
	Auth     *Authenticator
	Signer   token.Signer
	Timeline func() uint32
	Origins  []string // allowed by CORS
	Log      *zap.Logger
	Tracer   trace.Tracer
	Registry prometheus.Registerer
}

// Server answers the API.
type Server struct {
	cfg        Config
	paths      *echo.Echo       // finds the route of a path, no more
	routes     map[string]route // by path, as echo writes it
	cors       corsHeaders
	documents  *contractDocuments
	metrics    metrics
	stopping   context.Context //nolint:containedctx // the server's life, not a request's: it ends when Serve is told to
	stop       context.CancelFunc
	undeclared func(operation string, code errcode.Code) // tests only: a code left that the contract does not list
}

// handler answers a request of one operation that satisfies the contract.
type handler = func(context.Context, *request) (response, error)

// handlers answer the operations of our contract (api.Handlers), a file for each resource.
type handlers struct{ *Server }

// route is one path of the contract: its operations by method. HEAD is the GET that it asks about, whose body net/http leaves out;
// a stream has none. OPTIONS is there for Allow.
type route map[string]*operation

// New compiles the contract and registers its operations. The error is a contract that cannot be compiled.
func New(c Config) (*Server, error) {
	s := newServer(c)
	return s, s.register(api.OpenAPIJSON, api.Operations[*request, response](handlers{s}))
}

func newServer(c Config) *Server {
	s := &Server{cfg: c, paths: echo.New(), routes: map[string]route{}, documents: newContractDocuments(), metrics: newMetrics(c.Registry)}
	s.stopping, s.stop = context.WithCancel(context.Background())
	return s
}

// register makes the operations of a contract answerable, each by the handler of its operationId.
func (s *Server) register(contract []byte, handlers map[string]handler) error {
	operations, headers, err := compile(contract)
	if err != nil {
		return fmt.Errorf("compile contract: %w", err)
	}
	for _, o := range operations {
		if o.handle = handlers[o.ID]; o.handle == nil {
			return fmt.Errorf("operation %s has no handler", o.ID)
		}
		if s.routes[o.path] == nil {
			s.routes[o.path] = route{http.MethodOptions: nil}
			s.paths.Add(http.MethodGet, o.path, echo.NotFoundHandler)
		}
		s.routes[o.path][o.method] = o
		if o.method == http.MethodGet && !o.Stream {
			s.routes[o.path][http.MethodHead] = o
		}
	}
	s.cors = newCORSHeaders(operations, headers)
	return nil
}

// find sets the request's route and operation.
func (s *Server) find(r *request) {
	path := echo.GetPath(r.http)
	s.paths.Router().Find(http.MethodGet, path, r.path)
	if strings.Count(path, "/") == strings.Count(r.path.Path(), "/") { // echo lets a last parameter take slashes
		r.route = s.routes[r.path.Path()]
		r.op = r.route[r.http.Method]
	}
}

// ServeHTTP answers one request, observes it and logs one event of it.
func (s *Server) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	begin := time.Now()
	c := s.paths.AcquireContext()
	defer s.paths.ReleaseContext(c)
	c.Reset(hr, w)
	r := newRequest(hr.Context(), c)
	r.response.Header()["X-Trace-Id"] = []string{r.traceID}
	s.find(r)
	ctx, span := s.cfg.Tracer.Start(r.context(hr.Context()), "request", trace.WithSpanKind(trace.SpanKindServer))
	defer span.End()
	if err := s.answer(ctx, r); err != nil {
		s.renderError(r, err)
	}
	s.observe(ctx, r, span, time.Since(begin))
}

// answer passes a request through everything that stands before its handler, in this order: CORS, drain, route; size,
// authentication, scope, media types, idempotency key, parameters (checkRequest); then the handler, which decodes the body (strict
// JSON, schema). The commands' and queries' bulkheads stand before their databases. A panic is SYS_001.
func (s *Server) answer(ctx context.Context, r *request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = apierr.E(errcode.SYS001, apierr.Cause(fmt.Errorf("panic: %v\n%s", p, debug.Stack())))
		}
	}()
	switch preflight := s.allowOrigin(r); {
	case preflight:
		r.writeHeader(http.StatusNoContent)
		return nil
	case s.stopping.Err() != nil:
		r.response.Header().Set("Connection", "close")
		return apierr.E(errcode.SYS005)
	case r.route == nil:
		return apierr.E(errcode.REQ005)
	case r.op == nil:
		allowed := slices.Sorted(maps.Keys(r.route))
		r.response.Header().Set("Allow", strings.Join(allowed, ", "))
		if r.http.Method == http.MethodOptions {
			r.writeHeader(http.StatusNoContent)
			return nil
		}
		return apierr.E(errcode.REQ006, apierr.Extra("allowed", allowed))
	}
	if err = s.checkRequest(ctx, r); err != nil {
		return err
	}
	if r.op.Stream { // it ends with its client, not with the server's time-outs
		conn := http.NewResponseController(r.response.Writer)
		_ = conn.SetReadDeadline(time.Time{}) // a test's recorder has none
		_ = conn.SetWriteDeadline(time.Time{})
	}
	w, err := r.op.handle(ctx, r)
	if err != nil || r.response.Committed { // a stream writes its own response
		return err
	}
	return w.write(r)
}

// Serve answers requests until ctx ends, once. Then waiting requests (Prefer: wait) are answered at once, new ones are refused with
// SYS_005 for the given time, so that balancers notice, and those that run are finished, within 15 s.
func (s *Server) Serve(ctx context.Context, l net.Listener, delay time.Duration) error {
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       20 * time.Second, // above maxWait: at its end net/http takes a waiting client for gone
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          zap.NewStdLog(s.cfg.Log),

		DisableGeneralOptionsHandler: true, // OPTIONS * is an address like any other
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	s.stop()
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-time.After(delay):
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	return srv.Shutdown(ctx)
}

// corsHeaders are what browsers of allowed origins are told: all that the contract names, and what the tracing standards send.
type corsHeaders struct{ methods, allowed, exposed string }

func newCORSHeaders(operations []*operation, responseHeaders []string) corsHeaders {
	methods, exposed := append(make([]string, 0, 1+len(operations)), http.MethodHead), append([]string{"Allow", "Vary"}, responseHeaders...)
	allowed := strings.Fields("Authorization Content-Type baggage traceparent tracestate uber-trace-id b3 " +
		"X-B3-Flags X-B3-ParentSpanId X-B3-Sampled X-B3-SpanId X-B3-TraceId")
	for _, o := range operations {
		methods = append(methods, o.method)
		for _, p := range o.Parameters {
			if p.In == "header" {
				allowed = append(allowed, p.Name)
			}
		}
	}
	list := func(names []string) string {
		return strings.Join(slices.Compact(slices.Sorted(slices.Values(names))), ", ")
	}
	return corsHeaders{list(methods), list(allowed), list(exposed)}
}

// allowOrigin sets the CORS headers of a response. preflight tells that nothing else is to be answered; it needs no key.
func (s *Server) allowOrigin(r *request) (preflight bool) {
	if len(s.cfg.Origins) == 0 {
		return false
	}
	h, origin := r.response.Header(), r.http.Header.Get("Origin")
	h.Add("Vary", "Origin") // also where none came: a cache must not give this response to a browser
	if origin == "" || !slices.Contains(s.cfg.Origins, origin) && !slices.Contains(s.cfg.Origins, "*") {
		return false
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", s.cors.exposed)
	if r.http.Method != http.MethodOptions || r.http.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	h.Set("Access-Control-Allow-Methods", s.cors.methods)
	h.Set("Access-Control-Allow-Headers", s.cors.allowed)
	h.Set("Access-Control-Max-Age", "600")
	return true
}
