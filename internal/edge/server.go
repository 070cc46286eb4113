// Package edge is the HTTP side of the gateway: the contract in front, the handlers behind it, and the one place where error
// bodies are written.
package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/command"
	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/guard"
	"github.com/ordergate/ordergate/internal/panics"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/query"
)

// Config has the dependencies and settings of a Server.
type Config struct {
	Commands *command.Commands
	Queries  *query.Queries
	Auth     *Authenticator
	// Admission refuses commands in an overload before their bodies are read; nil: it does not.
	Admission *guard.Admission
	Signer    token.Signer
	Timeline  func() uint32
	Origins   []string // allowed by CORS
	// ProviderSecrets sign the callbacks of the payment providers that there are, by their names. An empty secret refuses all of them.
	ProviderSecrets map[string]string
	Log             *zap.Logger
	// AccessLog takes finished lines of Log, a line a Write, of requests that ended as a client may expect. Nil: they go through Log.
	AccessLog io.Writer
	Tracer    trace.Tracer
	// Sample tells whether the next request is traced whose caller does not trace it. nil: it never is.
	Sample   func() bool
	Registry prometheus.Registerer
	Now      func() time.Time // nil: time.Now
	// Strict refuses an answer that the contract does not list with SYS_001. Else it goes out. It is logged and counted either way.
	Strict bool
	// Faults lets requests of test keys meet the failure that their header names (faults.Header). Else the header is ignored.
	Faults bool
	// LocalOnly refuses requests, those for pages too, whose Host is neither this machine nor an allowed origin: REQ_005.
	LocalOnly bool
}

// Server serves the API.
type Server struct {
	cfg       Config
	now       func() time.Time // the one clock; of most requests read when they begin, and when they end
	paths     *echo.Echo       // finds the route of a path, no more
	routes    map[string]route // by path, as echo writes it
	elsewhere operation        // has the answers to addresses and methods that the contract does not have
	preflight []string         // the headers of every response to a CORS preflight, names and values in turn
	exposed   string           // names of headers that browsers may read
	documents map[string]response
	metrics   metrics
	pool      sync.Pool       // of requests
	untraced  context.Context //nolint:containedctx // of all queries that are not traced: it ends with none of them
	streams   atomic.Int64    // that are open
	following sync.WaitGroup  // of their goroutines
	stopping  context.Context //nolint:containedctx // the server's life, not a request's: it ends when Serve is told to
	stop      context.CancelFunc

	bodiesOver context.Context //nolint:containedctx // likewise: it ends bodyWithin later
	endBodies  context.CancelFunc
}

// handler handles a request of one operation that satisfies the contract.
type handler = func(context.Context, *request) (response, error)

// handlers implement the operations of our contract (api.Handlers), a file for each resource.
type handlers struct{ *Server }

// route is one path of the contract: its operations by method. HEAD is the GET that it asks about, whose body net/http leaves out;
// a stream has none. OPTIONS is there for Allow.
type route map[string]*operation

// operation is an operation of the contract and its metrics.
type operation struct {
	api.Operation[*request, response]
	observers observers
	priority  guard.Priority // of a command
}

// New serves the operations of the contract.
func New(c Config) *Server {
	s := newServer(c)
	contract := api.Operations[*request, response](handlers{s})
	operations := make([]*operation, len(contract))
	for i, o := range contract {
		operations[i] = &operation{Operation: o, priority: priorityOf(o.Path)}
	}
	s.register(operations)
	return s
}

// priorityOf is the priority of a command, by its path: about what is there, or not.
func priorityOf(path string) guard.Priority {
	for _, there := range []string{"/v1/orders/", "/v1/payments/", "/v1/shipments/", "/v1/provider-callbacks/"} {
		if strings.HasPrefix(path, there) {
			return guard.Urgent
		}
	}
	return guard.Normal
}

func newServer(c Config) *Server {
	s := &Server{cfg: c, now: c.Now, paths: echo.New(), routes: map[string]route{}, documents: contractDocuments(), metrics: newMetrics(c.Registry)}
	if s.now == nil {
		s.now = time.Now
	}
	s.stopping, s.stop = context.WithCancel(context.Background())
	s.bodiesOver, s.endBodies = context.WithCancel(context.Background()) //nolint:gosec // Serve has it called
	s.untraced, s.pool.New = trace.ContextWithSpanContext(context.Background(), untraced), s.newRequest
	return s
}

// register routes operations. Browsers of allowed origins may use all their methods and all headers that the contract names, and send those of
// the tracing standards.
func (s *Server) register(operations []*operation) {
	s.elsewhere.ID, s.elsewhere.Codes, s.elsewhere.Statuses = "none", api.ElsewhereCodes, []int{http.StatusNoContent} // of OPTIONS
	methods := append(make([]string, 0, len(operations)+1), http.MethodHead)
	for _, o := range operations {
		if s.routes[o.Path] == nil {
			s.routes[o.Path] = route{http.MethodOptions: nil}
			s.paths.Add(http.MethodGet, o.Path, echo.NotFoundHandler)
		}
		s.routes[o.Path][o.Method] = o
		if o.Method == http.MethodGet && !o.Stream {
			s.routes[o.Path][http.MethodHead] = o
		}
		methods = append(methods, o.Method)
	}
	traces := strings.Fields("Authorization Content-Type baggage traceparent tracestate uber-trace-id b3 " +
		"X-B3-Flags X-B3-ParentSpanId X-B3-Sampled X-B3-SpanId X-B3-TraceId")
	s.exposed = nameList(api.ResponseHeaders, []string{"Allow", "Vary"})
	s.preflight = []string{
		"Access-Control-Allow-Methods", nameList(methods), "Access-Control-Allow-Headers", nameList(api.RequestHeaders, traces), "Access-Control-Max-Age", "600",
	}
}

func nameList(names ...[]string) string {
	return strings.Join(slices.Compact(slices.Sorted(slices.Values(slices.Concat(names...)))), ", ")
}

// find sets the request's route and operation. A foreign host has none.
func (s *Server) find(r *request) {
	if s.foreignHost(r.http.Host) {
		return
	}
	path := echo.GetPath(r.http)
	s.paths.Router().Find(http.MethodGet, path, r.path)
	if values := r.path.ParamValues(); len(values) == 0 || strings.IndexByte(values[len(values)-1], '/') < 0 { // echo lets a last parameter take slashes
		r.route = s.routes[r.path.Path()]
		r.op = r.route[r.http.Method]
	}
}

// ServeHTTP handles one request, observes it and logs one event of it. A panic is SYS_001.
func (s *Server) ServeHTTP(hw http.ResponseWriter, hr *http.Request) { //nolint:contextcheck // trace chooses the context
	r := s.begin(hw, hr)
	defer s.end(r)
	s.find(r)
	if r.op != nil {
		for i := 0; i < len(r.op.Headers); i += 2 {
			r.response.Header().Set(r.op.Headers[i], r.op.Headers[i+1])
		}
	}
	ctx := s.trace(r)
	var w response
	err := panics.Catch(func() (err error) { w, err = s.dispatch(ctx, r); return err })
	switch {
	case err != nil:
		s.send(r, s.problem(r, err))
	case w.stream != nil:
		if s.startStream(ctx, r, w) { //nolint:contextcheck // likewise
			return // it is observed at its end
		}
	default:
		s.send(r, w)
	}
	s.observe(ctx, r) //nolint:contextcheck // likewise
}

// trace returns the context of a request's work. Whether it is traced is decided before anything of a trace is made: one in so many is, and
// those whose callers trace them. A query goes on when its client is gone, which may have closed its sending half alone and still read.
func (s *Server) trace(r *request) context.Context {
	ctx, h := context.Background(), r.http.Header
	query := r.op != nil && r.op.Method == http.MethodGet
	if !query {
		ctx = r.http.Context()
	}
	traced := false
	if r.carriesTrace {
		ctx = otel.GetTextMapPropagator().Extract(ctx, propagation.HeaderCarrier(h))
		traced = trace.SpanContextFromContext(ctx).IsValid()
	}
	switch {
	case traced, s.cfg.Sample != nil && s.cfg.Sample():
		ctx, r.span = s.cfg.Tracer.Start(ctx, "request", trace.WithSpanKind(trace.SpanKindServer)) //nolint:spancheck // observe ends it
		return ctx
	case query:
		return s.untraced
	default:
		return trace.ContextWithSpanContext(ctx, untraced)
	}
}

// untraced is the parent of all that is done for requests that are not traced: it is not sampled, and so nothing below it is.
var untraced = trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{15: 1}, SpanID: trace.SpanID{7: 1}})

// dispatch passes a request through all checks before its handler, in this order: CORS, drain, route; size, authentication by a key, scope,
// the key's limit, the overload's limit of commands, a signature, a failure on purpose, media types, idempotency key (checkRequest); parameters, body (generated, gen/api).
// Reads that go to a database, and once more commands, meet the overload's limit there, and the bulkheads of the databases: what a cache answers meets neither.
func (s *Server) dispatch(ctx context.Context, r *request) (w response, err error) {
	options := r.http.Method == http.MethodOptions
	switch {
	case s.allowOrigin(r) && options && r.http.Header.Get("Access-Control-Request-Method") != "": // it needs no key
		for i := 0; i < len(s.preflight); i += 2 {
			r.add(s.preflight[i], s.preflight[i+1])
		}
		return response{status: http.StatusNoContent}, nil
	case s.stopping.Err() != nil:
		return w, drain(r)
	case r.route == nil:
		return w, apierr.E(errcode.REQ005)
	case r.op == nil:
		allowed := slices.Sorted(maps.Keys(r.route))
		r.response.Header().Set("Allow", strings.Join(allowed, ", "))
		if options {
			return response{status: http.StatusNoContent}, nil
		}
		return w, apierr.E(errcode.REQ006, apierr.Extra("allowed", allowed))
	}
	if err = s.checkRequest(ctx, r); err != nil {
		return w, err
	}
	return r.op.Handle(ctx, r)
}

// drain is the refusal of a process that stops.
func drain(r *request) error {
	r.response.Header().Set("Connection", "close")
	return apierr.E(errcode.SYS005)
}

// allowOrigin sets the CORS headers of a response and tells whether the origin is allowed.
func (s *Server) allowOrigin(r *request) bool {
	h, origin := r.response.Header(), r.http.Header.Get("Origin")
	if len(s.cfg.Origins) > 0 {
		h.Set("Vary", "Origin") // also where none came: a cache must not give this response to a browser
	}
	if origin == "" || !slices.ContainsFunc(s.cfg.Origins, func(allowed string) bool {
		return allowed == origin || allowed == "*" || allowed == Localhost && ofThisMachine(origin)
	}) {
		return false
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", s.exposed)
	return true
}

// Localhost among the allowed origins stands for every page that this machine serves to itself, at any port.
const Localhost = "localhost"

func ofThisMachine(origin string) bool {
	u, err := url.Parse(origin)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && origin == u.Scheme+"://"+u.Host && !strings.HasSuffix(u.Host, ":") && (u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback())
}

// foreignHost tells whether a server for this machine alone is asked under another name. A page of that name whose DNS leads to this machine
// (rebinding) would be of the API's own origin, so that no CORS keeps it from using a key that everybody knows.
func (s *Server) foreignHost(host string) bool {
	if !s.cfg.LocalOnly || host == "" {
		return false
	}
	host = strings.ToLower(host)
	return !ofThisMachine("http://"+host) && !slices.ContainsFunc(s.cfg.Origins, func(allowed string) bool {
		_, named, _ := strings.Cut(allowed, "://")
		return allowed == "*" || named == host
	})
}

// bodyWithin is the time that a body has to end when the server stops.
const bodyWithin = 12 * time.Second

// Serve serves requests by handler, which is s or stands in front of it, until ctx ends. It is called once. Then waiting requests (Prefer: wait)
// get their response at once, new ones are refused with SYS_005 for the given time, so that balancers notice, and running ones are finished,
// within 15 s. A client that is still sending a body after bodyWithin gets SYS_005; the connection of one that does not take its response ends.
func (s *Server) Serve(ctx context.Context, l net.Listener, handler http.Handler, delay time.Duration) error {
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if s.foreignHost(r.Host) {
				s.ServeHTTP(w, r)
				return
			}
			handler.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       20 * time.Second, // above maxWait: at its end net/http takes a waiting client for gone
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          zap.NewStdLog(s.cfg.Log),

		DisableGeneralOptionsHandler: true, // OPTIONS * is an address like any other
	}
	stopped := make(chan error, 1)
	unregister := context.AfterFunc(ctx, func() {
		defer panics.Sync(s.cfg.Log)
		s.stop()
		<-time.After(delay)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
		defer cancel()
		defer time.AfterFunc(bodyWithin, s.endBodies).Stop()
		err := srv.Shutdown(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			s.cfg.Log.Warn("requests had not ended after 15 s; their connections are closed")
			err = srv.Close()
		}
		s.following.Wait() // each stream ends within two writes of stop
		stopped <- err
	})
	defer unregister()
	if err := srv.Serve(listener{l}); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return <-stopped
}
