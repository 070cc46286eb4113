package telemetry

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

// disk is the end of a log. It takes as many bytes as are free.
type disk struct {
	mu    sync.Mutex
	free  int
	lines bytes.Buffer
}

func (d *disk) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := min(len(b), d.free)
	d.free -= n
	d.lines.Write(b[:n])
	if n < len(b) {
		return n, errors.New("no space left on device")
	}
	return n, nil
}

// messages are those of the lines that were written, in order.
func (d *disk) messages() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []string
	for line := range strings.Lines(d.lines.String()) {
		_, message, _ := strings.Cut(line, `"msg":"`)
		message, _, whole := strings.Cut(message, `"}`+"\n")
		if !whole {
			message = "?"
		}
		all = append(all, message)
	}
	return strings.Join(all, " ")
}

func logTo(t *testing.T, out *disk) *Telemetry {
	t.Helper()
	tel, err := New(t.Context(), func(string) string { return "" }, zap.InfoLevel, out)
	if err != nil {
		t.Fatal(err)
	}
	return tel
}

// TestLinesWait: a line waits for others, until the interval is over, one of level warn or above comes, or the process stops. They stay in order.
func TestLinesWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &disk{free: 1 << 20}
		tel := logTo(t, out)
		want := func(messages string) {
			t.Helper()
			synctest.Wait()
			if got := out.messages(); got != messages {
				t.Errorf("written is %q, not %q", got, messages)
			}
		}
		tel.Log.Info("a")
		_, _ = tel.AccessLog.Write([]byte(`{"msg":"b"}` + "\n"))
		tel.Log.Debug("-")
		want("")
		<-time.After(flushAfter)
		want("a b")
		tel.Log.Info("c")
		tel.Log.Warn("d")
		want("a b c d")
		_, _ = tel.AccessLog.Write([]byte(`{"msg":"e"}` + "\n"))
		tel.Log.Error("f")
		want("a b c d e f")
		tel.Log.Info("g")
		_ = tel.Log.Sync()
		want("a b c d e f g")
		tel.Log.Info("h")
		tel.Close(t.Context())
		want("a b c d e f g h")
	})
}

// TestLast: at the end the lines that wait are written, and whoever has one more is held up.
func TestLast(t *testing.T) {
	out := &disk{free: 1 << 20}
	tel := logTo(t, out)
	tel.Log.Info("a")
	taken := make(chan struct{})
	var once sync.Once
	tel.Last(func() {
		once.Do(func() {
			if got := out.messages(); got != "a" {
				t.Errorf("written is %q", got)
			}
			go func() {
				_, _ = tel.AccessLog.Write([]byte(`{"msg":"b"}` + "\n"))
				close(taken)
			}()
			select {
			case <-taken:
				t.Error("a line was taken")
			case <-time.After(20 * time.Millisecond):
			}
		})
	})
	<-taken
	tel.Close(t.Context())
}

// TestAFullDisk: lines that cannot be written are counted, and once there is space again the next ones are written, each whole.
func TestAFullDisk(t *testing.T) {
	out := &disk{free: 1 << 20}
	tel := logTo(t, out)
	tel.Log.Error("a")
	out.free = 30 // a part of a line
	tel.Log.Error("b")
	tel.Log.Error("c")
	if n, err := tel.AccessLog.Write([]byte(`{"msg":"d"}` + "\n")); n == 0 || err != nil {
		t.Errorf("a writer is told of it: %d %v", n, err)
	}
	if err := tel.Log.Sync(); err != nil {
		t.Error(err)
	}
	out.free = 1 << 20
	tel.Log.Error("e")
	tel.Close(t.Context())
	if got, want := out.messages(), "a ? e"; got != want {
		t.Errorf("written is %q, not %q", got, want)
	}
	families, err := tel.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "ordergate_log_lines_lost_total" {
			if lost := f.GetMetric()[0].GetCounter().GetValue(); lost != 3 {
				t.Errorf("%v lines are counted as lost", lost)
			}
			return
		}
	}
	t.Error("lost lines are not counted")
}
