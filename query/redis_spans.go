package query

import (
	"context"
	"errors"
	"net"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// spans gives each command of a traced request a span, and adds nothing to the others. The driver's own instrumentation makes the attributes of a
// span, and for a pipeline the text of all its commands, before it asks whether the span is recorded.
type spans struct{ trace.Tracer }

var _ redis.Hook = spans{}

// DialHook implements redis.Hook.
func (s spans) DialHook(dial redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		err = s.around(ctx, "redis.dial", func(ctx context.Context) error { conn, err = dial(ctx, network, addr); return err })
		return conn, err
	}
}

// ProcessHook implements redis.Hook.
func (s spans) ProcessHook(process redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if !trace.SpanFromContext(ctx).IsRecording() {
			return process(ctx, cmd)
		}
		return s.around(ctx, cmd.FullName(), func(ctx context.Context) error { return process(ctx, cmd) })
	}
}

// ProcessPipelineHook implements redis.Hook.
func (s spans) ProcessPipelineHook(process redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if !trace.SpanFromContext(ctx).IsRecording() {
			return process(ctx, cmds)
		}
		return s.around(ctx, "redis.pipeline", func(ctx context.Context) error { return process(ctx, cmds) }, attribute.Int("db.redis.num_cmd", len(cmds)))
	}
}

// around calls f within a span, if that of the context is recorded.
func (s spans) around(ctx context.Context, name string, f func(context.Context) error, attributes ...attribute.KeyValue) error {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return f(ctx)
	}
	ctx, span := s.Start(ctx, name, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(append(attributes, attribute.String("db.system", "redis"))...))
	defer span.End()
	err := f(ctx)
	if err != nil && !errors.Is(err, redis.Nil) {
		span.RecordError(err)
		span.SetStatus(codes.Error, "")
	}
	return err
}
