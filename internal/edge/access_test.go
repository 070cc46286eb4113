package edge

import (
	"bytes"
	"cmp"
	"context"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/telemetry"
	"github.com/ordergate/ordergate/order"
)

func anEvent() accessEvent {
	return accessEvent{
		at: time.Date(2026, 11, 27, 7, 30, 54, 123_456_789, time.UTC), traceID: "0b8e8f4e-3c0d-4a55-9f4e-1f6f2c1f7a11", operation: "getOrder",
		method: http.MethodGet, status: 200, tier: "lru", orderID: order.ID{1, 2, 254}, account: 1, took: 123_456,
	}
}

// wantLine fails unless the line is the logger's.
func wantLine(t *testing.T, e accessEvent) {
	t.Helper()
	want, err := telemetry.Encoder().EncodeEntry(zapcore.Entry{Level: zap.InfoLevel, Time: e.at, Message: "request"}, e.fields())
	if err != nil {
		t.Fatal(err)
	}
	if got := e.appendLine(nil); !bytes.Equal(got, want.Bytes()) {
		t.Errorf("%+v\ngot  %swant %s", e, got, want)
	}
}

// TestAccessLineIsTheLoggers: the line that is appended by hand has the bytes of the logger's, for every value that may come.
func TestAccessLineIsTheLoggers(t *testing.T) {
	t.Parallel()
	zones := []*time.Location{time.UTC, time.FixedZone("", 2*3600), time.FixedZone("", -(9*3600 + 30*60)), time.FixedZone("odd", 5*3600+17), time.Local}
	nanos := []int{0, 1, 999_999_999, 100_000_000, 120_000_000, 1000, 123_000, 123_456_780}
	took := []time.Duration{
		0, 1, 9, 10, 999, 1000, time.Millisecond, 1_500_000, time.Second - 1, time.Second, time.Second + 1, 10 * time.Second, time.Hour,
		24*time.Hour + 1, 1<<53 - 1, 1 << 53, 1<<53 + 1, math.MaxInt64, -1,
	}
	for _, zone := range zones {
		for _, n := range nanos {
			e := anEvent()
			e.at = time.Date(2026, 2, 28, 23, 59, 59, n, zone)
			wantLine(t, e)
		}
	}
	for _, d := range took {
		e := anEvent()
		e.took = d
		wantLine(t, e)
	}
	wantLine(t, accessEvent{at: time.Unix(1, 0)})

	var operations []*operation
	for _, route := range deadServer(t).routes {
		for _, op := range route {
			if op != nil {
				operations = append(operations, op)
			}
		}
	}
	const shape = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-"
	codes, tiers := append(errcode.All(), errcode.Info{}), []string{"", "lru", "redis", "replica", "primary", "filter"}
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0))
	for range 20_000 {
		op := operations[r.IntN(len(operations))]
		id := make([]byte, 1+r.IntN(64))
		for i := range id {
			id[i] = shape[r.IntN(len(shape))]
		}
		e := accessEvent{
			at:      time.Unix(r.Int64N(1<<33), r.Int64N(1e9)).In(zones[r.IntN(len(zones))]),
			traceID: string(id), operation: op.ID, method: op.Method, status: r.IntN(600), clientGone: r.IntN(2) == 0, code: codes[r.IntN(len(codes))].Code,
			tier: tiers[r.IntN(len(tiers))], account: r.Int32() - math.MaxInt32/2, took: time.Duration(r.Int64() >> r.IntN(63)),
		}
		for i := range e.orderID {
			e.orderID[i] = byte(r.Int32())
		}
		if wantLine(t, e); t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestWhatIsLoggedByHand: an unremarkable request of an operation is one finished line; everything else goes through the logger, which escapes it.
func TestWhatIsLoggedByHand(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		method, path string
		err          error
		level        zapcore.Level
		line, entry  bool
	}{
		"an answer":              {method: "GET", line: true},
		"a HEAD":                 {method: "HEAD", line: true},
		"a refusal":              {method: "GET", err: apierr.E(errcode.ORD001), line: true},
		"a refusal with a cause": {method: "GET", err: apierr.E(errcode.ORD001, apierr.Cause(context.Canceled)), entry: true},
		"a fault":                {method: "GET", err: context.DeadlineExceeded, entry: true},
		"an address that is not": {method: "GET", path: "/%22", entry: true},
		"a method that is not":   {method: "PO%ST", entry: true},
		"an answer, level warn":  {method: "GET", level: zap.WarnLevel},
		"a fault, level warn":    {method: "GET", err: context.DeadlineExceeded, level: zap.WarnLevel, entry: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			core, entries := observer.New(c.level)
			var lines bytes.Buffer
			s := deadServer(t)
			s.cfg.Log, s.cfg.AccessLog = zap.New(core), &lines
			s.routes = map[string]route{}
			s.register([]*operation{op("answer", "GET", "/answer", func(context.Context, *request) (response, error) {
				return response{status: http.StatusOK}, c.err
			}, answers([]int{200}, errcode.ORD001, errcode.SYS001, errcode.SYS003))})
			call(s, c.method, cmp.Or(c.path, "/answer"), "", "X-Trace-ID", "trace-1")
			if got := strings.Count(lines.String(), "\n") == 1; got != c.line || strings.Contains(lines.String(), `"trace_id":"trace-1"`) != c.line {
				t.Errorf("the finished line is %q", &lines)
			}
			if got := entries.FilterField(zap.String("trace_id", "trace-1")).Len() == 1; got != c.entry {
				t.Errorf("the logger has %v", entries.All())
			}
		})
	}
}

// TestTheFieldsAreInTheDocs: the table of docs/running.md has the fields of a line, in their order.
func TestTheFieldsAreInTheDocs(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/running.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## The log's lines of requests\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var documented, logged []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(section, -1) {
		documented = append(documented, row[1])
	}
	e := anEvent()
	line, err := telemetry.Encoder().EncodeEntry(zapcore.Entry{Level: zap.ErrorLevel, Time: e.at, Message: "request"}, append(e.fields(), zap.Error(context.Canceled)))
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range regexp.MustCompile(`[{,]"([a-z_]+)":`).FindAllStringSubmatch(line.String(), -1) {
		logged = append(logged, field[1])
	}
	if !slices.Equal(documented, logged) {
		t.Errorf("docs/running.md has %v\na line has %v", documented, logged)
	}
}

// TestAccessLineAllocatesNothing, once its buffer has grown.
func TestAccessLineAllocatesNothing(t *testing.T) {
	e, line := anEvent(), make([]byte, 0, 1000)
	if n := testing.AllocsPerRun(100, func() { line = e.appendLine(line[:0]) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAccessLine(b *testing.B) {
	e, line := anEvent(), make([]byte, 0, 1000)
	b.Run("by hand", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			line = e.appendLine(line[:0])
		}
	})
	enc := telemetry.Encoder()
	b.Run("zap", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf, _ := enc.EncodeEntry(zapcore.Entry{Level: zap.InfoLevel, Time: e.at, Message: "request"}, e.fields())
			buf.Free()
		}
	})
}
