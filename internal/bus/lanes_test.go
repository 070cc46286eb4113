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

// testLanes runs f in a bubble, which fails if a goroutine is left behind. The publisher's answer comes through the channel.
func testLanes(t *testing.T, name string, want map[string]int, f func(t *testing.T, l *Lanes, publish func(ctx context.Context, keys ...string) <-chan error)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := NewLanes(want)
			f(t, l, func(ctx context.Context, keys ...string) <-chan error {
				var msgs []*message.Message
				for i, k := range keys {
					m := message.NewMessageWithContext(ctx, strconv.Itoa(i), nil)
					m.Metadata.Set(MetaKey, k)
					msgs = append(msgs, m)
				}
				out := make(chan error, 1)
				go func() { out <- l.Publish("orders", msgs...) }()
				synctest.Wait()
				return out
			})
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
	})
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
	type publisher = func(ctx context.Context, keys ...string) <-chan error
	ctx := context.Background()
	on := func(t *testing.T, l *Lanes, ctx context.Context) <-chan *message.Message {
		t.Helper()
		in, err := l.Subscribe(ctx, "orders")
		if err != nil {
			t.Fatal(err)
		}
		return in
	}

	testLanes(t, "without a subscriber Publish fails", nil, func(t *testing.T, l *Lanes, publish publisher) {
		expectError(t, publish(ctx, "a", "b"), ErrNoSubscriber, "0", "1")
	})
	testLanes(t, "while one of two named subscribers is missing Publish fails", map[string]int{"orders": 2},
		func(t *testing.T, l *Lanes, publish publisher) {
			in1 := on(t, l, ctx)
			expectError(t, publish(ctx, "a"), ErrNoSubscriber, "0")
			ctx2, end2 := context.WithCancel(ctx)
			in2 := on(t, l, ctx2)
			done := publish(ctx, "a")
			(<-in1).Ack()
			expectNothing(t, done)
			(<-in2).Ack()
			expectError(t, done, nil)
			end2()
			synctest.Wait()
			expectError(t, publish(ctx, "a"), ErrNoSubscriber, "0")
		})
	testLanes(t, "Publish waits for the Ack, and the next message of a key for it too", nil, func(t *testing.T, l *Lanes, publish publisher) {
		in := on(t, l, ctx)
		done := publish(ctx, "a", "a")
		first := <-in
		expectNothing(t, in)
		expectNothing(t, done)
		first.Ack()
		if synctest.Wait(); first.Context().Err() == nil {
			t.Error("the message's context outlives its Ack")
		}
		second := <-in
		if first.UUID != "0" || second.UUID != "1" {
			t.Error("order")
		}
		second.Ack()
		expectError(t, done, nil)
	})
	testLanes(t, "after a Nack later messages of the key are not delivered, others are", nil, func(t *testing.T, l *Lanes, publish publisher) {
		in := on(t, l, ctx)
		other := ""
		for i := 0; other == "" || l.lane(other) != l.lane("a"); i++ { // of the same lane
			other = "b" + strconv.Itoa(i)
		}
		done := publish(ctx, "a", "a", other, "a")
		(<-in).Nack()
		m := <-in
		if m.UUID != "2" {
			t.Errorf("message %s was delivered", m.UUID)
		}
		m.Ack()
		expectError(t, done, ErrNacked, "0", "1", "3")
	})
	testLanes(t, "a Nack of one of two subscribers fails when both are settled", nil, func(t *testing.T, l *Lanes, publish publisher) {
		in1, in2 := on(t, l, ctx), on(t, l, ctx)
		done := publish(ctx, "a")
		(<-in1).Nack()
		expectNothing(t, done)
		(<-in2).Ack()
		expectError(t, done, ErrNacked, "0")
	})
	testLanes(t, "a handler that outlives the publisher's context keeps its lane", nil, func(t *testing.T, l *Lanes, publish publisher) {
		in := on(t, l, ctx)
		ctx1, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		done := publish(ctx1, "a", "a")
		slow := <-in
		time.Sleep(time.Second) // of the bubble's clock
		expectError(t, done, context.DeadlineExceeded, "0", "1")
		done = publish(ctx, "a")
		expectNothing(t, in)
		if slow.Context().Err() != nil {
			t.Error("the handler was disturbed")
		}
		slow.Ack()
		(<-in).Ack()
		expectError(t, done, nil)
	})
	testLanes(t, "an ended context is refused", nil, func(t *testing.T, l *Lanes, publish publisher) {
		in := on(t, l, ctx)
		ended, cancel := context.WithCancel(ctx)
		cancel()
		expectError(t, publish(ended, "a"), context.Canceled, "0")
		expectNothing(t, in)
	})
	testLanes(t, "the end of a subscription fails what it had and closes its channel", nil, func(t *testing.T, l *Lanes, publish publisher) {
		ctx1, end := context.WithCancel(ctx)
		in := on(t, l, ctx1)
		keys := l.Keys(3)
		done := publish(ctx, keys[0], keys[1], keys[2])
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
			t.Error("what was not taken is still there")
		}
		if held.Context().Err() == nil {
			t.Error("the context of a message outlives the subscription")
		}
		select {
		case err := <-done:
			if p, ok := errors.AsType[*PublishError](err); !ok || !slices.Equal(p.Failed, failed) {
				t.Errorf("got %v, want %v", err, failed)
			}
		default:
			t.Error("Publish does not return")
		}
		expectError(t, publish(ctx, "a"), ErrNoSubscriber, "0")
	})
	testLanes(t, "Close fails what runs and what comes, and closes the channels", nil, func(t *testing.T, l *Lanes, publish publisher) {
		in := on(t, l, ctx)
		done := publish(ctx, "a", "a")
		<-in
		for range 2 {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
		if _, ok := <-in; ok {
			t.Error("channel open")
		}
		expectError(t, done, ErrClosed, "0", "1")
		expectError(t, publish(ctx, "a"), ErrClosed, "0")
		if _, err := l.Subscribe(ctx, "orders"); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
	testLanes(t, "nothing to publish is fine", nil, func(t *testing.T, l *Lanes, publish publisher) {
		on(t, l, ctx)
		expectError(t, publish(ctx), nil)
	})
}

func TestAnAckCountsWhateverEndsWithIt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &subscription{ctx: ctx, out: make(chan *message.Message, 1)}
	d := s.offer(message.NewMessage("1", nil))
	d.Ack()
	cancel()
	for range 100 {
		if err := d.wait(ctx.Done()); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkLanes counts messages through the 64 lanes, in pages of 1,000 of 500 keys, with a handler that only acks.
func BenchmarkLanes(b *testing.B) {
	l := NewLanes(nil)
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
