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
