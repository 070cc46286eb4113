package telemetry

import (
	"bytes"
	"io"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// output stands under the buffer, which would take no line any more after one error. It tells none: lines that cannot be written are
// lost and counted, and the next ones are tried again. It syncs no disk: a request would wait for it.
type output struct {
	out  io.Writer
	lost prometheus.Counter
	torn bool // a line was written in part
	end  atomic.Pointer[func()]
}

func newOutput(out io.Writer, registry prometheus.Registerer) *output {
	return &output{out: out, lost: promauto.With(registry).NewCounter(prometheus.CounterOpts{
		Name: "ordergate_log_lines_lost_total", Help: "Lines of the log that could not be written.",
	})}
}

func (o *output) Write(lines []byte) (written int, _ error) {
	if o.torn {
		_, err := o.out.Write([]byte("\n"))
		o.torn = err != nil
	}
	if !o.torn {
		written, _ = o.out.Write(lines)
		o.torn = written > 0 && lines[written-1] != '\n'
	}
	o.lost.Add(float64(bytes.Count(lines[written:], []byte("\n"))))
	return len(lines), nil
}

// Sync is called by the buffer when it has written its lines, and lets it take none meanwhile.
func (o *output) Sync() error {
	if end := o.end.Load(); end != nil {
		(*end)()
	}
	return nil
}
