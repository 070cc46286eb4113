// Package telemetry makes the logger, the tracer and the metrics registry of a process.
package telemetry

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/contrib/propagators/autoprop"
	"go.opentelemetry.io/otel"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// sampleRatio is the share of sampled traces among those that begin here. For other traces the caller has decided.
const sampleRatio = 0.01

// Telemetry has the logger, the tracer and the registry. The other packages take them as parameters.
type Telemetry struct {
	Log      *zap.Logger
	Tracer   trace.Tracer
	Registry *prometheus.Registry
	close    func(context.Context) error
}

// New makes a logger that writes JSON lines of the level and above to out, a tracer that exports spans as the standard OTEL_* variables
// say (none by default), and a registry with the metrics of the process. Close must be called at the end.
func New(ctx context.Context, level string, out zapcore.WriteSyncer) (*Telemetry, error) {
	lvl, err := zapcore.ParseLevel(level)
	if err != nil {
		return nil, err
	}
	enc := zap.NewProductionEncoderConfig()
	enc.TimeKey, enc.EncodeTime, enc.EncodeDuration = "time", zapcore.RFC3339NanoTimeEncoder, zapcore.SecondsDurationEncoder
	t := &Telemetry{Registry: prometheus.NewRegistry()}
	t.Log = zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(enc), out, lvl))
	t.Registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	otel.SetTextMapPropagator(autoprop.NewTextMapPropagator())
	options := []sdktrace.TracerProviderOption{sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(sampleRatio)))}
	if slices.ContainsFunc([]string{"OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"}, func(name string) bool {
		return os.Getenv(name) != "" //nolint:forbidigo // autoexport reads these variables itself
	}) {
		exporter, err := autoexport.NewSpanExporter(ctx)
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

// Close sends the buffered spans and log lines.
func (t *Telemetry) Close(ctx context.Context) {
	_ = t.close(ctx)
	_ = t.Log.Sync()
}
