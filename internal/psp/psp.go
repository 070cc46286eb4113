// Package psp simulates a payment provider. It serves openapi/psp.yaml and fails on request, as the contract's method tokens say. An
// outcome that it has sent survives kill -9.
package psp

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/ordergate/ordergate/internal/panics"
)

// Config is what a Simulator is made of.
type Config struct {
	Dir            string // of the ledger file; made if it is missing
	CallbackURL    string // where outcomes are posted; empty: nowhere
	CallbackSecret string // signs callbacks; required with CallbackURL
	Faults         Faults
	Log            *zap.Logger
}

// Simulator is one provider. It keeps the one outcome of every key and the sums of every payment in memory, and reads them from the
// ledger file at start. It is safe for concurrent use.
type Simulator struct {
	log       *zap.Logger
	faults    Faults
	journal   *journal
	callbacks *callbacks      // nil without a callback URL
	ending    <-chan struct{} // closed by end
	end       func()
	clock     func() time.Time                     // tests replace it, and wait
	wait      func(<-chan struct{}, time.Duration) // returns after the time, or when the channel is closed

	mu         sync.Mutex // guards the fields below; never held while waiting or writing
	ledger     []*record
	operations map[string]*operation
	payments   map[string]*payment
}

// New reads the ledger file, psp.jsonl in the configured folder, and drops a torn last line: that outcome was never sent. Any other damage
// is an error, and so is a second process on the same file. Callbacks are sent from now on, but not about what the file has. Close must
// be called at the end.
func New(cfg Config) (*Simulator, error) {
	if cfg.CallbackURL != "" && cfg.CallbackSecret == "" {
		return nil, errors.New("psp: callbacks need a secret")
	}
	ctx, end := context.WithCancel(context.Background())
	s := &Simulator{
		log: cfg.Log, faults: cfg.Faults, ending: ctx.Done(), end: end, clock: time.Now, wait: wait,
		operations: map[string]*operation{}, payments: map[string]*payment{},
	}
	if err := s.open(cfg.Dir); err != nil {
		end()
		return nil, err
	}
	if cfg.CallbackURL != "" {
		s.callbacks = newCallbacks(cfg, &http.Transport{MaxIdleConnsPerHost: senders, IdleConnTimeout: time.Minute})
		go s.callbacks.run(ctx)
	}
	return s, nil
}

// open reads the ledger file in a folder.
func (s *Simulator) open(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(filepath.Join(dir, "psp.jsonl"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("psp ledger: %w", err)
	}
	s.journal = &journal{file: file, broken: make(chan struct{})}
	if err := s.load(); err != nil {
		return fmt.Errorf("psp ledger: %s: %w", file.Name(), errors.Join(err, file.Close()))
	}
	return nil
}

// Close ends the callbacks, those that wait are lost, writes the pending outcomes and closes the ledger file. It is safe to repeat. Later
// requests get 500, so Serve should have ended.
func (s *Simulator) Close() error {
	s.end()
	if s.callbacks != nil {
		<-s.callbacks.ended
	}
	err := errors.Join(s.sync(math.MaxInt64), s.journal.file.Close())
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// Serve serves l until ctx ends, then lets running requests finish for at most 5 s; requests that are slow or get no response by design are
// disconnected at once, and callbacks are no longer sent. It returns nil after an orderly end and does not call Close. It also ends when
// the ledger cannot be written: a new process begins with the file's content.
func (s *Simulator) Serve(ctx context.Context, l net.Listener) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	server := &http.Server{
		Handler:           s.Handler(),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      silence + 30*time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          zap.NewStdLog(s.log),
	}
	ended := make(chan error, 1)
	go func() {
		defer panics.Sync(s.log)
		var cause error
		select {
		case <-s.journal.broken:
			cause = errLedger
		case <-ctx.Done():
		}
		end() // for the requests that get no response
		s.end()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		ended <- errors.Join(cause, server.Shutdown(grace), server.Close())
	}()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-ended
}

var errLedger = errors.New("psp: the ledger cannot be written")

func wait(end <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-end:
	case <-timer.C:
	}
}
