// Package telemetry makes the logger, the tracer and the metrics registry that the other packages are given.
package telemetry

import (
	"context"
	"fmt"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.opentelemetry.io/contrib/propagators/autoprop"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// sampleRatio of the traces that begin here; a caller's decision is followed.
const sampleRatio = 0.01

// Telemetry is what the program is watched by.
type Telemetry struct {
	Log      *zap.Logger
	Tracer   trace.Tracer
	Registry *prometheus.Registry
	close    func(context.Context) error
}

// New makes a logger that writes JSON lines of the level and above to out, a tracer whose spans go where the standard OTEL_*
// variables say (by default nowhere), and a registry with the process's own metrics.
func New(ctx context.Context, level string, out zapcore.WriteSyncer) (*Telemetry, error) {
	lvl, err := zapcore.ParseLevel(level)
	if err != nil {
		return nil, err
	}
	enc := zap.NewProductionEncoderConfig()
	enc.TimeKey, enc.EncodeTime, enc.EncodeDuration = "time", zapcore.RFC3339NanoTimeEncoder, zapcore.SecondsDurationEncoder
	t := &Telemetry{Registry: prometheus.NewRegistry(), close: func(context.Context) error { return nil }}
	t.Log = zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(enc), out, lvl))
	t.Registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	otel.SetTextMapPropagator(autoprop.NewTextMapPropagator())
	options := []sdktrace.TracerProviderOption{sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(sampleRatio)))}
	if os.Getenv("OTEL_TRACES_EXPORTER") != "" || os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != "" {
		exporter, err := otlptracehttp.New(ctx)
		if err != nil {
			return nil, fmt.Errorf("span exporter: %w", err)
		}
		options = append(options, sdktrace.WithBatcher(exporter))
	}
	provider := sdktrace.NewTracerProvider(options...)
	otel.SetTracerProvider(provider)
	t.Tracer, t.close = provider.Tracer("ordergate"), provider.Shutdown
	return t, nil
}

// Close sends what is buffered.
func (t *Telemetry) Close(ctx context.Context) {
	_ = t.close(ctx)
	_ = t.Log.Sync()
}
