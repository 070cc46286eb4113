// Package edge is the HTTP side of the gateway: the contract in front, the handlers behind it, and the one place where error
// bodies are written.
package edge

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
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
	"github.com/ordergate/ordergate/order"
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
	echo       *echo.Echo
	contract   *contractDocuments
	draining   atomic.Bool
	undeclared func(operation string, code errcode.Code) // tests only: a code left that the contract does not list
}

// New compiles the contract and registers its operations. The error is a contract that cannot be compiled.
func New(c Config) (*Server, error) {
	operations, err := compile(api.OpenAPIJSON)
	if err != nil {
		return nil, fmt.Errorf("compile contract: %w", err)
	}
	s := &Server{cfg: c, echo: echo.New(), contract: newContractDocuments()}
	e := s.echo
	e.HideBanner, e.HidePort = true, true
	e.Binder = binder{}
	e.HTTPErrorHandler = s.renderError
	// Every request passes, in this order: trace id, recover, log and metrics; CORS; drain; then, hung on its operation's route:
	// size, authentication, scope, media types, idempotency key, parameters; strict JSON gate and schema; handler. The commands'
	// and queries' bulkheads stand before their databases.
	e.Use(s.observe(c.Registry), s.cors, s.drain)
	middlewares := map[string][]echo.MiddlewareFunc{}
	for id, o := range operations {
		middlewares[id] = []echo.MiddlewareFunc{o.admit(c.Auth)}
	}
	api.RegisterHandlersWithOptions(e, api.NewStrictHandler(s, nil), api.RegisterHandlersOptions{OperationMiddlewares: middlewares})
	return s, nil
}

// ServeHTTP answers one request; a HEAD as the GET that it asks about, whose body net/http leaves out.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead {
		get := *r
		get.Method = http.MethodGet
		r = &get
	}
	s.echo.ServeHTTP(w, r)
}

// Serve answers requests until ctx ends. Then requests are refused with SYS_005 for the given time, so that balancers notice, and
// those that run are finished, within 15 s.
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
	s.draining.Store(true)
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-time.After(delay):
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	return srv.Shutdown(ctx)
}

// exposed are our response headers that a browser's script may read.
const exposed = "Age, ETag, Idempotency-Replayed, Location, Preference-Applied, Retry-After, WWW-Authenticate, X-Consistency-Token, X-Served-By, X-Trace-ID"

// cors answers browsers of the allowed origins; a preflight needs no key.
func (s *Server) cors(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		origin := c.Request().Header.Get("Origin")
		if origin == "" || !slices.Contains(s.cfg.Origins, origin) && !slices.Contains(s.cfg.Origins, "*") {
			return next(c)
		}
		h := c.Response().Header()
		h.Add("Vary", "Origin")
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Expose-Headers", exposed)
		if c.Request().Method == http.MethodOptions && c.Request().Header.Get("Access-Control-Request-Method") != "" {
			h.Set("Access-Control-Allow-Methods", "GET, POST, PATCH, DELETE")
			h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Accept-Language, Idempotency-Key, If-Match, If-None-Match, Prefer, X-Consistency-Token, X-Trace-ID, traceparent")
			h.Set("Access-Control-Max-Age", "600")
			return c.NoContent(http.StatusNoContent)
		}
		return next(c)
	}
}

func (s *Server) drain(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if s.draining.Load() {
			c.Response().Header().Set("Connection", "close")
			return apierr.E(errcode.SYS005)
		}
		return next(c)
	}
}

// request is what the handlers give to a command.
func request(ctx context.Context, path, key string) command.Envelope {
	m := metaOf(ctx)
	return command.Envelope{Owner: m.key.Owner, Operation: m.op.id, Key: key, About: m.about(path), Actor: m.key.ID}
}

// token reads a request's consistency token.
func (s *Server) token(text *string) (token.Token, error) {
	if text == nil {
		return token.Token{}, nil
	}
	t, ok := s.cfg.Signer.Parse(*text)
	if !ok {
		return t, apierr.E(errcode.REQ003, apierr.At("/header/X-Consistency-Token", errcode.RuleSignature))
	}
	return t, nil
}

// orderID reads an id that matched the contract's pattern.
func orderID(ctx context.Context, text string) (order.ID, error) {
	id, ok := order.Parse(order.PrefixOrder, text)
	if !ok {
		return id, apierr.E(errcode.REQ003, apierr.At("/path/order_id", errcode.RulePattern))
	}
	metaOf(ctx).orderID = text
	return id, nil
}
