package app

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/internal/telemetry"
)

// TestProfiles: the admin listener has every profile, and those of locks and waits have what this test waited for.
func TestProfiles(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	c := &Components{cfg: Config{AdminAddr: addr}, tel: &telemetry.Telemetry{Log: zap.NewNop(), Registry: prometheus.NewRegistry()}}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.admin(ctx, ctx.Err, false) }()
	profile := func(name string) string {
		for end := time.Now().Add(10 * time.Second); ; <-time.After(5 * time.Millisecond) {
			res, err := http.Get("http://" + addr + "/debug/pprof/" + name)
			if err != nil && time.Now().Before(end) {
				continue // it does not listen yet
			}
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if err != nil || res.StatusCode != http.StatusOK || len(text) == 0 {
				t.Errorf("%s: %s %v", name, res.Status, err)
			}
			return string(text)
		}
	}
	for _, name := range []string{"", "cmdline", "symbol", "profile?seconds=1", "trace?seconds=0.1", "heap", "allocs", "goroutine", "threadcreate", "heap?debug=1&gc=1"} {
		profile(name)
	}
	if text := profile("goroutine?debug=2"); !strings.Contains(text, "goroutine ") {
		t.Errorf("goroutine?debug=2: %.100s", text)
	}
	contend()
	if text := profile("block?debug=1"); !strings.Contains(text, "app.contend") {
		t.Errorf("nothing that waited is in block?debug=1: %.1000s", text)
	}
	if text := profile("mutex?debug=1"); !strings.Contains(text, "sampling period=100") {
		t.Errorf("mutex?debug=1: %.100s", text)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// contend waits for a lock for longer than the rate of the profile of waits.
func contend() {
	var mu sync.Mutex
	mu.Lock()
	var waiting sync.WaitGroup
	waiting.Go(func() {
		mu.Lock()
		mu.Unlock() //nolint:staticcheck // it waits, no more
	})
	<-time.After(20 * time.Millisecond)
	mu.Unlock()
	waiting.Wait()
}
