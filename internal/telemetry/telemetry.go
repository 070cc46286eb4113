// Package telemetry makes the logger, the tracer and the metrics registry of a process.
package telemetry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

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

const (
	// bufferSize is how many bytes of lines one write takes to the end: as many as a pipe of Linux holds, so that a collector which reads in
	// its own time holds nobody up, and some 200 lines of requests.
	bufferSize = 64 << 10
	// flushAfter is how long a line waits at most. docs/running.md lists what loses it. Under load the buffer is full much sooner, and without load a
	// write five times a second costs nothing.
	flushAfter = 200 * time.Millisecond
)

// Sample tells whether the next request is traced whose caller does not trace it. A request that it chose is, whatever its trace id.
func Sample() bool { return rand.Float64() < sampleRatio } //nolint:gosec // no secret

// roots samples the traces that begin here: all of a request, because Sample chose it, and sampleRatio of the others.
type roots struct{ sdktrace.Sampler }

func (r roots) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	if p.Kind == trace.SpanKindServer {
		return sdktrace.AlwaysSample().ShouldSample(p)
	}
	return r.Sampler.ShouldSample(p)
}

// Telemetry is the logger, the tracer and the metrics registry of a process.
type Telemetry struct {
	// Log buffers its lines. One of level warn or above is written at once with all before it; Sync writes what there is.
	Log *zap.Logger
	// AccessLog takes finished lines for the same output, a line a Write.
	AccessLog io.Writer
	Tracer    trace.Tracer
	Registry  *prometheus.Registry
	close     func(context.Context)
	last      func(end func())
}

// New makes a logger that writes JSON lines of the level and above to out, one Write at a time, until Close; a tracer that exports spans as the
// standard OTEL_* variables of the environment say (by default not at all); and a registry with the process's own metrics.
func New(ctx context.Context, getenv func(string) string, level zapcore.Level, out io.Writer) (*Telemetry, error) {
	t := &Telemetry{Registry: prometheus.NewRegistry()}
	output := newOutput(out, t.Registry)
	lines := &zapcore.BufferedWriteSyncer{WS: output, Size: bufferSize, FlushInterval: flushAfter}
	t.AccessLog = lines
	t.Log = zap.New(zapcore.NewCore(Encoder(), lines, level), zap.Hooks(func(e zapcore.Entry) error {
		if e.Level >= zapcore.WarnLevel {
			return lines.Sync()
		}
		return nil
	}))
	t.Registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewBuildInfoCollector())

	otel.SetTextMapPropagator(autoprop.NewTextMapPropagator())
	options := []sdktrace.TracerProviderOption{sdktrace.WithSampler(sdktrace.ParentBased(roots{sdktrace.TraceIDRatioBased(sampleRatio)}))}
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
	t.Tracer = provider.Tracer("ordergate")
	t.close = func(ctx context.Context) {
		_ = provider.Shutdown(ctx) // a failed export is in the log
		_ = lines.Stop()
	}
	t.last = func(end func()) {
		output.end.Store(&end)
		_ = lines.Sync()
	}
	return t, nil
}

// Encoder makes the lines of the log.
func Encoder() zapcore.Encoder {
	enc := zap.NewProductionEncoderConfig()
	enc.TimeKey, enc.EncodeTime, enc.EncodeDuration = "time", zapcore.RFC3339NanoTimeEncoder, zapcore.SecondsDurationEncoder
	return zapcore.NewJSONEncoder(enc)
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

// Close sends the buffered spans, then writes the buffered lines. Later ones may be lost.
func (t *Telemetry) Close(ctx context.Context) { t.close(ctx) }

// Last writes the buffered lines, then calls end, which ends the process and does not return. Meanwhile whoever has a line waits, so that no
// request is answered without its line.
func (t *Telemetry) Last(end func()) { t.last(end) }
