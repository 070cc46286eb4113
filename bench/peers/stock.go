package main

import (
	"context"
	"encoding/json"
	"net/http"
	"path"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/labstack/echo-contrib/echoprometheus"
	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
	"go.opentelemetry.io/contrib/instrumentation/github.com/labstack/echo/otelecho"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/gen/api"
)

// stock is what most would put together for the gateway's duties, each part with its defaults: spans sampled at 1 %, metrics, a log line a request,
// the key, validation of the request by the contract, and an order that is encoded for each response.
func stock(c config) (*echo.Echo, error) {
	exporter, err := otlptracehttp.New(context.Background()) // where the environment says
	if err != nil {
		return nil, err
	}
	spans := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(0.01))), sdktrace.WithBatcher(exporter))
	settings := zap.NewProductionConfig()
	settings.Sampling = nil // an access log is complete
	log, err := settings.Build()
	if err != nil {
		return nil, err
	}
	validate, err := validation()
	if err != nil {
		return nil, err
	}
	keys, orders := map[string]bool{c.Key: true}, map[string]api.Order{}
	for _, order := range c.Orders {
		var o api.Order
		if err := json.Unmarshal(c.Answer.Body, &o); err != nil {
			return nil, err
		}
		o.ID = path.Base(order)
		orders[o.ID] = o
	}
	e := echo.New()
	e.Use(otelecho.Middleware("stock", otelecho.WithTracerProvider(spans)), echoprometheus.NewMiddleware("stock"),
		middleware.RequestLoggerWithConfig(middleware.RequestLoggerConfig{
			LogURI: true, LogStatus: true, LogMethod: true, LogLatency: true, LogError: true,
			LogValuesFunc: func(_ echo.Context, v middleware.RequestLoggerValues) error {
				log.Info("request", zap.String("method", v.Method), zap.String("uri", v.URI), zap.Int("status", v.Status),
					zap.Duration("latency", v.Latency), zap.Error(v.Error))
				return nil
			},
		}),
		middleware.KeyAuth(func(key string, _ echo.Context) (bool, error) { return keys[key], nil }), validate)
	e.GET("/v1/orders/:order_id", func(ctx echo.Context) error {
		if o, found := orders[ctx.Param("order_id")]; found {
			return ctx.JSON(http.StatusOK, o)
		}
		return echo.ErrNotFound
	})
	return e, nil
}

// validation checks requests as oapi-codegen's middleware for echo does: kin-openapi finds the route and validates.
func validation() (echo.MiddlewareFunc, error) {
	document, err := openapi3.NewLoader().LoadFromData(api.OpenAPIJSON)
	if err != nil {
		return nil, err
	}
	document.Servers = nil // any host
	router, err := gorillamux.NewRouter(document)
	if err != nil {
		return nil, err
	}
	options := &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(ctx echo.Context) error {
			route, parameters, err := router.FindRoute(ctx.Request())
			if err != nil {
				return echo.NewHTTPError(http.StatusNotFound, err.Error())
			}
			err = openapi3filter.ValidateRequest(ctx.Request().Context(), &openapi3filter.RequestValidationInput{
				Request: ctx.Request(), PathParams: parameters, Route: route, Options: options,
			})
			if err != nil {
				return echo.NewHTTPError(http.StatusBadRequest, err.Error())
			}
			return next(ctx)
		}
	}, nil
}
