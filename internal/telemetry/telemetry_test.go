package telemetry

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap/zapcore"
)

// TestExports: the standard variables decide whether spans are exported, and unsupported values are refused.
func TestExports(t *testing.T) {
	for name, c := range map[string]struct {
		env         map[string]string
		export, bad bool
	}{
		"nothing":                {},
		"an endpoint":            {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, export: true},
		"an endpoint for traces": {env: map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, export: true},
		"the exporter":           {env: map[string]string{"OTEL_TRACES_EXPORTER": "otlp"}, export: true},
		"none":                   {env: map[string]string{"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}},
		"another exporter":       {env: map[string]string{"OTEL_TRACES_EXPORTER": "zipkin"}, bad: true},
		"gRPC":                   {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, bad: true},
	} {
		if export, err := Exports(func(name string) string { return c.env[name] }); export != c.export || err != nil != c.bad {
			t.Errorf("%s: %v %v", name, export, err)
		}
	}
}

// TestSpansReachACollector sends a sampled span to an OTLP collector by the standard variables.
func TestSpansReachACollector(t *testing.T) {
	got := make(chan string, 10)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got <- r.URL.Path + " " + r.Header.Get("Content-Type") + " " + r.Header.Get("Token")
	}))
	defer collector.Close()
	environ := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": collector.URL, "OTEL_EXPORTER_OTLP_HEADERS": "token=secret"}
	for name, value := range environ { // the exporter reads the process's own
		t.Setenv(name, value)
	}
	tel, err := New(t.Context(), func(name string) string { return environ[name] }, zapcore.InfoLevel, zapcore.AddSync(t.Output()))
	if err != nil {
		t.Fatal(err)
	}
	parent := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled})
	_, span := tel.Tracer.Start(trace.ContextWithRemoteSpanContext(t.Context(), parent), "test")
	span.End()
	tel.Close(t.Context())
	if got, want := <-got, "/v1/traces application/x-protobuf secret"; got != want {
		t.Errorf("the collector got %q, want %q", got, want)
	}
}
