package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.uber.org/zap"
)

// Keys returns n keys of different lanes.
func (l *Lanes) Keys(n int) []string {
	byLane := map[int]string{}
	var out []string
	for i := 0; len(out) < n; i++ {
		k := "key" + strconv.Itoa(i)
		if _, ok := byLane[l.lane(k)]; !ok {
			byLane[l.lane(k)] = k
			out = append(out, k)
		}
	}
	return out
}

// bubble is a test in a bubble of synctest, with a transport of its own.
type bubble struct {
	*testing.T
	*Lanes
}

// testLanes runs f in a bubble, which fails if a goroutine is left behind.
func testLanes(t *testing.T, name string, want map[string]int, f func(b bubble)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := bubble{t, NewLanes(want, zap.NewNop())}
			f(b)
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		})
	})
}

// publish publishes a message of each key until ctx ends. The result of Publish comes through the channel.
func (b bubble) publish(ctx context.Context, keys ...string) <-chan error {
	msgs := make([]*message.Message, len(keys))
	for i, k := range keys {
		msgs[i] = message.NewMessageWithContext(ctx, strconv.Itoa(i), nil)
		msgs[i].Metadata.Set(MetaKey, k)
	}
	out := make(chan error, 1)
	go func() { out <- b.Publish("orders", msgs...) }()
	synctest.Wait()
	return out
}

func (b bubble) subscribe(ctx context.Context) <-chan *message.Message {
	b.Helper()
	in, err := b.Subscribe(ctx, "orders")
	if err != nil {
		b.Fatal(err)
	}
	return in
}

func expectError(t *testing.T, got <-chan error, want error, failed ...string) {
	t.Helper()
	synctest.Wait()
	select {
	case err := <-got:
		if !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
		if p, ok := errors.AsType[*PublishError](err); want != nil && (!ok || !slices.Equal(p.Failed, failed)) {
			t.Errorf("got %+v, want %v", p, failed)
		}
	default:
		t.Error("Publish does not return")
	}
}

func expectNothing[T any](t *testing.T, c <-chan T) {
	t.Helper()
	synctest.Wait()
	select {
	case v, ok := <-c:
		t.Errorf("unexpected: %v %v", v, ok)
	default:
	}
}

func TestLanes(t *testing.T) {
	testLanes(t, "without a subscriber Publish fails", nil, func(b bubble) {
		expectError(b.T, b.publish(b.Context(), "a", "b"), ErrNoSubscriber, "0", "1")
	})
	testLanes(t, "while one of two named subscribers is missing Publish fails", map[string]int{"orders": 2}, func(b bubble) {
		in1 := b.subscribe(b.Context())
		expectError(b.T, b.publish(b.Context(), "a"), ErrNoSubscriber, "0")
		ctx2, end2 := context.WithCancel(b.Context())
		in2 := b.subscribe(ctx2)
		done := b.publish(b.Context(), "a")
		(<-in1).Ack()
		expectNothing(b.T, done)
		(<-in2).Ack()
		expectError(b.T, done, nil)
		end2()
		synctest.Wait()
		expectError(b.T, b.publish(b.Context(), "a"), ErrNoSubscriber, "0")
	})
	testLanes(t, "Publish waits for the Ack, and the next message of a key for it too", nil, func(b bubble) {
		in := b.subscribe(b.Context())
		done := b.publish(b.Context(), "a", "a")
		first := <-in
		expectNothing(b.T, in)
		expectNothing(b.T, done)
		first.Ack()
		if synctest.Wait(); first.Context().Err() == nil {
			b.Error("the message's context outlives its Ack")
		}
		second := <-in
		if first.UUID != "0" || second.UUID != "1" {
			b.Error("order")
		}
		second.Ack()
		expectError(b.T, done, nil)
	})
	testLanes(t, "after a Nack later messages of the key are not delivered, others are", nil, func(b bubble) {
		in := b.subscribe(b.Context())
		other := ""
		for i := 0; other == "" || b.lane(other) != b.lane("a"); i++ { // of the same lane
			other = "b" + strconv.Itoa(i)
		}
		done := b.publish(b.Context(), "a", "a", other, "a")
		(<-in).Nack()
		m := <-in
		if m.UUID != "2" {
			b.Errorf("message %s was delivered", m.UUID)
		}
		m.Ack()
		expectError(b.T, done, ErrNacked, "0", "1", "3")
	})
	testLanes(t, "a Nack of one of two subscribers fails when both are acked or nacked", nil, func(b bubble) {
		in1, in2 := b.subscribe(b.Context()), b.subscribe(b.Context())
		done := b.publish(b.Context(), "a")
		(<-in1).Nack()
		expectNothing(b.T, done)
		(<-in2).Ack()
		expectError(b.T, done, ErrNacked, "0")
	})
	testLanes(t, "a handler that outlives the publisher's context holds its lane", nil, func(b bubble) {
		in := b.subscribe(b.Context())
		ctx1, cancel := context.WithTimeout(b.Context(), time.Second)
		defer cancel()
		done := b.publish(ctx1, "a", "a")
		slow := <-in
		<-ctx1.Done() // by the bubble's clock
		expectError(b.T, done, context.DeadlineExceeded, "0", "1")
		done = b.publish(b.Context(), "a")
		expectNothing(b.T, in)
		if slow.Context().Err() != nil {
			b.Error("the handler was disturbed")
		}
		slow.Ack()
		(<-in).Ack()
		expectError(b.T, done, nil)
	})
	testLanes(t, "an ended context is refused", nil, func(b bubble) {
		in := b.subscribe(b.Context())
		ended, cancel := context.WithCancel(b.Context())
		cancel()
		expectError(b.T, b.publish(ended, "a"), context.Canceled, "0")
		expectNothing(b.T, in)
	})
	testLanes(t, "the end of a subscription fails what it had and closes its channel", nil, func(b bubble) {
		ctx1, end := context.WithCancel(b.Context())
		in := b.subscribe(ctx1)
		keys := b.Keys(3)
		done := b.publish(b.Context(), keys[0], keys[1], keys[2])
		acked, held := <-in, <-in
		acked.Ack()
		synctest.Wait()
		end()
		var failed []string
		for _, id := range []string{"0", "1", "2"} {
			if id != acked.UUID {
				failed = append(failed, id)
			}
		}
		synctest.Wait()
		if _, ok := <-in; ok {
			b.Error("what was not received is still there")
		}
		if held.Context().Err() == nil {
			b.Error("the context of a message outlives the subscription")
		}
		select {
		case err := <-done:
			if p, ok := errors.AsType[*PublishError](err); !ok || !slices.Equal(p.Failed, failed) {
				b.Errorf("got %v, want %v", err, failed)
			}
		default:
			b.Error("Publish does not return")
		}
		expectError(b.T, b.publish(b.Context(), "a"), ErrNoSubscriber, "0")
	})
	testLanes(t, "Close fails what runs and what comes, and closes the channels", nil, func(b bubble) {
		in := b.subscribe(b.Context())
		done := b.publish(b.Context(), "a", "a")
		<-in
		for range 2 {
			if err := b.Close(); err != nil {
				b.Error(err)
			}
		}
		if _, ok := <-in; ok {
			b.Error("channel open")
		}
		expectError(b.T, done, ErrClosed, "0", "1")
		expectError(b.T, b.publish(b.Context(), "a"), ErrClosed, "0")
		if _, err := b.Subscribe(b.Context(), "orders"); !errors.Is(err, ErrClosed) {
			b.Error(err)
		}
	})
	testLanes(t, "nothing to publish is fine", nil, func(b bubble) {
		b.subscribe(b.Context())
		expectError(b.T, b.publish(b.Context()), nil)
	})
}

func TestAnAckCountsWhateverEndsWithIt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &subscription{ctx: ctx, out: make(chan *message.Message, 1)}
	d := s.send(message.NewMessage("1", nil))
	d.Ack()
	cancel()
	for range 100 {
		if err := d.wait(ctx.Done()); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkLanes counts messages through the lanes, in pages of 1,000 of 500 keys, with a handler that only acks.
func BenchmarkLanes(b *testing.B) {
	l := NewLanes(nil, zap.NewNop())
	in, err := l.Subscribe(b.Context(), "orders")
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		for m := range in {
			m.Ack()
		}
	}()
	page := make([]*message.Message, pageSize)
	for i := range page {
		page[i] = message.NewMessage(strconv.Itoa(i), []byte("payload"))
		page[i].Metadata.Set(MetaKey, fmt.Sprintf("key%d", i%500))
	}
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += pageSize {
		if err := l.Publish("orders", page[:min(pageSize, b.N-n)]...); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}
