package psp

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	contract "github.com/ordergate/ordergate/gen/psp"
	"github.com/ordergate/ordergate/internal/panics"
	"github.com/ordergate/ordergate/internal/signature"
)

const (
	maxPending    = 10_000          // callbacks that wait, each some 40 bytes
	senders       = 8               // tries at a time
	callbackLimit = 5 * time.Second // time of one try
)

// retries has the time from each failed try to the next one. After the last no more follows.
var retries = []time.Duration{time.Second, 4 * time.Second, 15 * time.Second, 40 * time.Second}

// callbacks posts outcomes to the configured URL, as the contract says. It holds at most maxPending that wait, and runs at most senders
// tries at a time. A nil *callbacks sends nothing.
type callbacks struct {
	url, secret string
	faults      Faults
	client      *http.Client
	log         *zap.Logger
	wake        chan struct{} // has room for one signal: a callback was added
	ended       chan struct{} // closed when run has returned

	mu      sync.Mutex
	pending []callback // the next one is the last
}

// callback is one that waits for its next try.
type callback struct {
	outcome *record
	due     time.Time
	failed  int // tries
}

func newCallbacks(cfg Config, transport http.RoundTripper) *callbacks {
	return &callbacks{
		url: cfg.CallbackURL, secret: cfg.CallbackSecret, faults: cfg.Faults, log: cfg.Log,
		client: &http.Client{
			Transport: transport, Timeout: callbackLimit,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		wake: make(chan struct{}, 1), ended: make(chan struct{}),
	}
}

// add sends an outcome, which is durable, unless the fault profile loses it. It does not wait.
func (c *callbacks) add(outcome *record) {
	if c == nil {
		return
	}
	for _, delay := range c.faults.delays(outcome.Key) {
		c.push(callback{outcome: outcome, due: time.Now().Add(delay)})
	}
}

// push lets a callback wait for its time, behind those of the same time.
func (c *callbacks) push(b callback) {
	c.mu.Lock()
	full := len(c.pending) >= maxPending
	if !full {
		i, _ := slices.BinarySearchFunc(c.pending, b.due, func(other callback, due time.Time) int { return due.Compare(other.due) })
		c.pending = slices.Insert(c.pending, i, b)
	}
	c.mu.Unlock()
	if full {
		c.lose(b, "too many wait")
		return
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// run sends what waits until ctx ends, then cuts the running tries off and returns. The callbacks that wait then are lost.
func (c *callbacks) run(ctx context.Context) {
	defer panics.Sync(c.log)
	defer close(c.ended)
	defer c.client.CloseIdleConnections()
	var sends sync.WaitGroup
	defer sends.Wait()
	turns := make(chan struct{}, senders)
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case turns <- struct{}{}:
		}
		next, found := c.next(ctx)
		if !found {
			return
		}
		sends.Go(func() {
			defer panics.Sync(c.log)
			defer func() { <-turns }()
			c.send(ctx, next)
		})
	}
}

// next takes the callback that is due first and returns it when it is due; false when ctx ends before.
func (c *callbacks) next(ctx context.Context) (_ callback, found bool) {
	for {
		wait := time.Hour
		c.mu.Lock()
		if last := len(c.pending) - 1; last >= 0 {
			b := c.pending[last]
			if wait = time.Until(b.due); wait <= 0 {
				c.pending = c.pending[:last]
				c.mu.Unlock()
				return b, true
			}
		}
		c.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return callback{}, false
		case <-c.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// send tries once. A callback that was not taken waits for its next try, if it has one.
func (c *callbacks) send(ctx context.Context, b callback) {
	err := c.post(ctx, b.outcome)
	switch {
	case err == nil || ctx.Err() != nil:
	case b.failed == len(retries):
		c.lose(b, err.Error())
	default:
		b.due = time.Now().Add(retries[b.failed])
		b.failed++
		c.push(b)
	}
}

// post sends a callback about an outcome. An error means that it was not taken.
func (c *callbacks) post(ctx context.Context, outcome *record) error {
	body, err := event(outcome)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set(signature.Header, signature.Sign(c.secret, time.Now(), body))
	response, err := c.client.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	_, _ = io.CopyN(io.Discard, response.Body, 4<<10) // an unread rest would end the connection
	if response.StatusCode != http.StatusNoContent {
		return fmt.Errorf("the receiver responded with status %d", response.StatusCode)
	}
	return nil
}

// lose tells of a callback that is not sent again. A receiver that is away loses all of them, so that is no error.
func (c *callbacks) lose(b callback, why string) {
	c.log.Debug("psp callback is lost", zap.String("key", b.outcome.Key), zap.Int("failed", b.failed), zap.String("why", why))
}

// event returns the body of the callback about an outcome, which is the same whenever it is sent. Its id is a hash of the outcome: no
// two outcomes have one, also not after the ledger was begun anew.
func event(outcome *record) ([]byte, error) {
	operation, err := json.Marshal(outcome.Operation)
	if err != nil {
		return nil, err
	}
	return json.Marshal(contract.Callback{
		ID: fmt.Sprintf("evt_%.16x", sha256.Sum256(operation)), Type: contract.CallbackTypeOperationSettled,
		CreatedAt: outcome.CreatedAt, Operation: outcome.Operation,
	})
}
