// Package bustest is the suite that every transport of internal/bus must pass.
package bustest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/ordergate/ordergate/internal/bus"
)

// Transport is one end to end connection. Keys returns keys whose messages are handled side by side; Reopen connects again, to what the
// closed one may have stored.
type Transport struct {
	Publisher  message.Publisher
	Subscriber message.Subscriber
	Keys       func(n int) []string
	Reopen     func(t *testing.T) Transport
}

func (tr Transport) close() { _, _ = tr.Publisher.Close(), tr.Subscriber.Close() }

// deadline bounds everything that the suite waits for.
const deadline = 10 * time.Second

// Run runs the suite: many keys at once, the order of a key, and nothing lost by a Publish that is cancelled, a subscriber that ends, a
// Close in mid-page, or a missing subscriber.
func Run(t *testing.T, open func(t *testing.T) Transport) {
	t.Helper()
	t.Run("64 keys are in flight together", func(t *testing.T) {
		t.Parallel()
		tr := open(t)
		defer tr.close()
		in := subscribe(t, tr)
		published := publish(t.Context(), tr, numbered(tr.Keys(64), 1))
		received := make([]*message.Message, 64)
		for i := range received {
			received[i] = receive(t, in)
		}
		for _, m := range received {
			m.Ack()
		}
		if failed := receive(t, published); failed != nil {
			t.Fatalf("%d failed", len(failed))
		}
	})

	t.Run("the order of a key holds under concurrency and Nacks", func(t *testing.T) {
		t.Parallel()
		tr := open(t)
		defer tr.close()
		h := newHandler(subscribe(t, tr))
		h.decide = func(*message.Message) bool { return rand.IntN(6) > 0 } //nolint:gosec // G404: a test needs no secret numbers
		go h.run()
		var wg sync.WaitGroup
		for _, keys := range [][]string{tr.Keys(64)[:20], tr.Keys(64)[20:40], tr.Keys(64)[40:]} {
			wg.Go(func() { relayAll(t, tr, numbered(keys, 30)) })
		}
		wg.Wait()
		h.expect(t, tr.Keys(64), 30)
	})

	// In each of these a page of 200 is cut after the tenth message; what Publish reported as failed is published again.
	for name, cut := range map[string]func(tr Transport, publisher, subscriber context.CancelFunc) bool{
		"a cancelled Publish loses nothing":                func(_ Transport, publisher, _ context.CancelFunc) bool { publisher(); return false },
		"a subscriber that ends in mid-page loses nothing": func(_ Transport, _, subscriber context.CancelFunc) bool { subscriber(); return false },
		"Close in mid-page loses nothing":                  func(tr Transport, _, _ context.CancelFunc) bool { tr.close(); return true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := open(t)
			defer func() { tr.close() }()
			subCtx, endSub := context.WithCancel(t.Context())
			in, err := tr.Subscriber.Subscribe(subCtx, "orders")
			if err != nil {
				t.Fatal(err)
			}
			pubCtx, endPub := context.WithCancel(t.Context())
			h := newHandler(in)
			tenth := make(chan struct{})
			h.decide = func(*message.Message) bool {
				if h.total() == 9 {
					close(tenth)
				}
				return true
			}
			h.serial = true
			stopped := make(chan struct{})
			go func() { h.run(); close(stopped) }()
			keys := tr.Keys(20)
			page := numbered(keys, 10)
			published := publish(pubCtx, tr, page)
			receive(t, tenth)
			again := cut(tr, endPub, endSub)
			failed := receive(t, published)
			endSub()
			receive(t, stopped)
			if again {
				tr = tr.Reopen(t)
			}
			h.serial = false
			h.in, h.decide = subscribe(t, tr), func(*message.Message) bool { return true }
			go h.run()
			relayAll(t, tr, failed)
			h.expect(t, keys, 10)
			endPub()
		})
	}

	t.Run("without a subscriber nothing is lost", func(t *testing.T) {
		t.Parallel()
		tr := open(t)
		defer tr.close()
		failed := receive(t, publish(t.Context(), tr, numbered(tr.Keys(5), 10)))
		h := newHandler(subscribe(t, tr))
		go h.run()
		relayAll(t, tr, failed)
		h.expect(t, tr.Keys(5), 10)
	})
}

// numbered makes n messages of each key, interleaved; the payload is the number within the key.
func numbered(keys []string, n int) []*message.Message {
	out := make([]*message.Message, 0, n*len(keys))
	for i := range n {
		for _, k := range keys {
			m := message.NewMessage(uuid.Must(uuid.NewV7()).String(), fmt.Appendf(nil, "%d", i))
			m.Metadata.Set(bus.MetaKey, k)
			out = append(out, m)
		}
	}
	return out
}

func subscribe(t *testing.T, tr Transport) <-chan *message.Message {
	t.Helper()
	in, err := tr.Subscriber.Subscribe(t.Context(), "orders")
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// publish publishes the page in the background and sends what failed of it.
func publish(ctx context.Context, tr Transport, page []*message.Message) <-chan []*message.Message {
	for _, m := range page {
		m.SetContext(ctx)
	}
	out := make(chan []*message.Message, 1)
	go func() {
		err := tr.Publisher.Publish("orders", page...)
		failed := page
		if err == nil {
			failed = nil
		} else if partly, ok := errors.AsType[*bus.PublishError](err); ok {
			failed = slices.DeleteFunc(slices.Clone(page), func(m *message.Message) bool { return !slices.Contains(partly.Failed, m.UUID) })
		}
		out <- failed
	}()
	return out
}

// relayAll publishes, as the relay does, until nothing fails.
func relayAll(t *testing.T, tr Transport, page []*message.Message) {
	t.Helper()
	for end := time.Now().Add(deadline); len(page) > 0; page = receive(t, publish(t.Context(), tr, page)) {
		if time.Now().After(end) {
			t.Errorf("%d messages fail for ever", len(page))
			return
		}
	}
}

func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(deadline):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// handler acks what decide lets through, each message in a goroutine of its own unless serial, and records the effects. Like an
// inbox it drops a message that it has seen.
type handler struct {
	in     <-chan *message.Message
	decide func(*message.Message) bool
	serial bool

	mu     sync.Mutex
	seen   map[string]bool
	byKey  map[string][]string
	change chan struct{}
}

func newHandler(in <-chan *message.Message) *handler {
	return &handler{in: in, decide: func(*message.Message) bool { return true }, seen: map[string]bool{},
		byKey: map[string][]string{}, change: make(chan struct{}, 1)}
}

func (h *handler) run() {
	for m := range h.in {
		if h.serial {
			h.one(m)
		} else {
			go h.one(m)
		}
	}
}

func (h *handler) one(m *message.Message) {
	if !h.decide(m) {
		m.Nack()
		return
	}
	h.mu.Lock()
	if !h.seen[m.UUID] {
		h.seen[m.UUID] = true
		key := m.Metadata.Get(bus.MetaKey)
		h.byKey[key] = append(h.byKey[key], string(m.Payload))
	}
	h.mu.Unlock()
	m.Ack()
	select {
	case h.change <- struct{}{}:
	default:
	}
}

func (h *handler) total() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.seen)
}

// expect waits for n messages of each key and checks their order.
func (h *handler) expect(t *testing.T, keys []string, n int) {
	t.Helper()
	want := make([]string, n)
	for i := range want {
		want[i] = strconv.Itoa(i)
	}
	for h.total() < n*len(keys) {
		receive(t, h.change)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, k := range keys {
		if !slices.Equal(h.byKey[k], want) {
			t.Errorf("key %s: %v", k, h.byKey[k])
		}
	}
}
