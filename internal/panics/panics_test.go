package panics_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/ordergate/ordergate/internal/panics"
)

func TestCatch(t *testing.T) {
	t.Parallel()
	if err := panics.Catch(func() error { return io.EOF }); !errors.Is(err, io.EOF) || errors.Is(err, panics.ErrPanic) {
		t.Errorf("an error became %v", err)
	}
	err := panics.Catch(func() error { panic(io.EOF) })
	if !errors.Is(err, panics.ErrPanic) || errors.Is(err, io.EOF) {
		t.Errorf("a panic became %v", err)
	}
	for _, part := range []string{"EOF", "panics_test.go"} {
		if err != nil && !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not tell %s", part)
		}
	}
}

type lines struct{ synced bool }

func (l *lines) Sync() error {
	l.synced = true
	return io.EOF
}

// TestSync: a panic goes on once the log is written; without one nothing is.
func TestSync(t *testing.T) {
	t.Parallel()
	var log lines
	end := func(f func()) (cause any) {
		defer func() { cause = recover() }()
		defer panics.Sync(&log)
		f()
		return nil
	}
	if cause := end(func() {}); cause != nil || log.synced {
		t.Errorf("without a panic: %v, written: %v", cause, log.synced)
	}
	if cause := end(func() { panic("a") }); cause != "a" || !log.synced {
		t.Errorf("the panic became %v, written: %v", cause, log.synced)
	}
}
