// Package telemetry makes the logger, the tracer and the metrics registry of a process.
package telemetry

import (
	"cmp"
	"context"
	"errors"
	"fmt"

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

// sampleRatio is the share of sampled traces among those that begin here. For other traces the caller has decided.
const sampleRatio = 0.01

// Telemetry is the logger, the tracer and the metrics registry of a process.
type Telemetry struct {
	Log      *zap.Logger
	Tracer   trace.Tracer
	Registry *prometheus.Registry
	close    func(context.Context) error
}

// New makes a logger that writes JSON lines of the level and above to out, a tracer that exports spans as the standard OTEL_*
// variables of the environment say (by default not at all), and a registry with the process's own metrics.
func New(ctx context.Context, getenv func(string) string, level zapcore.Level, out zapcore.WriteSyncer) (*Telemetry, error) {
	enc := zap.NewProductionEncoderConfig()
	enc.TimeKey, enc.EncodeTime, enc.EncodeDuration = "time", zapcore.RFC3339NanoTimeEncoder, zapcore.SecondsDurationEncoder
	t := &Telemetry{Registry: prometheus.NewRegistry()}
	t.Log = zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(enc), out, level))
	t.Registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewBuildInfoCollector())

	otel.SetTextMapPropagator(autoprop.NewTextMapPropagator())
	options := []sdktrace.TracerProviderOption{sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(sampleRatio)))}
	if export, err := Exports(getenv); err != nil {
		return nil, err
	} else if export {
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

// Exports tells whether spans are exported, by the standard OTEL_* variables. OTLP over HTTP is the one exporter: all of them would be 83
// more packages to compile. An error names the variable that asks for another.
func Exports(getenv func(string) string) (bool, error) {
	endpoint := cmp.Or(getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), getenv("OTEL_EXPORTER_OTLP_ENDPOINT"))
	protocol := cmp.Or(getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"), getenv("OTEL_EXPORTER_OTLP_PROTOCOL"))
	switch exporter := getenv("OTEL_TRACES_EXPORTER"); {
	case exporter == "none" || exporter == "" && endpoint == "":
		return false, nil
	case exporter != "" && exporter != "otlp":
		return false, fmt.Errorf("OTEL_TRACES_EXPORTER=%s is not supported: otlp or none", exporter)
	case protocol == "grpc":
		return false, errors.New("OTEL_EXPORTER_OTLP_PROTOCOL=grpc is not supported: http/protobuf or http/json")
	}
	return true, nil
}

// Close sends the buffered spans and log lines.
func (t *Telemetry) Close(ctx context.Context) {
	_ = t.close(ctx)
	_ = t.Log.Sync()
}
