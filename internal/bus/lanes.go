// Package bus carries messages from the outbox to their consumers: the Relay publishes what outbox.Send wrote in the transaction of its
// cause over a transport (Lanes in one process), and Consume handles each message in one transaction with its inbox row.
// Delivery is at least once, an effect happens once, and the messages of one key keep their order.
package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/ordergate/ordergate/internal/panics"
)

// Metadata of a message on every transport. Its UUID is the message id.
const (
	MetaKey   = "key"      // messages of one key are handled one after another
	MetaTrace = "trace_id" // of the request that caused it
)

// The causes of a PublishError.
var (
	ErrClosed       = errors.New("bus: closed")
	ErrNoSubscriber = errors.New("bus: a subscriber is missing")
	ErrNacked       = errors.New("bus: nacked")
	errBehind       = errors.New("bus: behind a failed message of its key")
)

// PublishError says that not all messages of a Publish were published: those in Failed were not.
type PublishError struct {
	Failed []string // UUIDs, in the order of publishing
	Err    error    // the cause of the first
}

func (e *PublishError) Error() string {
	return fmt.Sprintf("%d messages not published: %v", len(e.Failed), e.Err)
}

func (e *PublishError) Unwrap() error { return e.Err }

// laneCount is four batches of a consumer: with 64 lanes a batch had half as many messages.
const laneCount = 256

// Lanes is the transport within a process. Each topic has 256 lanes; a message takes the lane of its key's hash. The messages of
// a lane are handled one after another, lanes side by side. It stores nothing: a message stays in the outbox until Publish has reported
// it as handled.
type Lanes struct {
	log    panics.Log
	seed   maphash.Seed
	closed context.Context //nolint:containedctx // done after Close
	close  context.CancelFunc

	mu     sync.Mutex
	topics map[string]*topic
}

type topic struct {
	required int                      // a message is refused while there are fewer subscriptions
	lanes    [laneCount]chan struct{} // capacity 1: the sender of the element in it holds the lane
	subs     []*subscription          // replaced, never changed in place
}

// NewLanes makes the transport. subscribers says how many subscriptions a topic must have before it accepts a message (a topic
// that is not named: one), so that none of several consumers misses one while the program starts or stops.
func NewLanes(subscribers map[string]int, log panics.Log) *Lanes {
	l := &Lanes{log: log, seed: maphash.MakeSeed(), topics: map[string]*topic{}}
	l.closed, l.close = context.WithCancel(context.Background())
	for name, n := range subscribers {
		l.topic(name).required = max(n, 1)
	}
	return l
}

// topic finds or makes a topic. The caller holds mu.
func (l *Lanes) topic(name string) *topic {
	t := l.topics[name]
	if t == nil {
		t = &topic{required: 1}
		for i := range t.lanes {
			t.lanes[i] = make(chan struct{}, 1)
		}
		l.topics[name] = t
	}
	return t
}

func (l *Lanes) lane(key string) int { return int(maphash.String(l.seed, key) % laneCount) }

// Publish returns nil when every subscriber has acked every message. Otherwise it returns a *PublishError: closed, a subscriber
// missing or gone, a Nack, the end of a message's context. After a failed message no later one of its key is delivered; other
// keys go on. A handler that still runs when the context ends holds its lane until it acks or nacks the message.
func (l *Lanes) Publish(name string, msgs ...*message.Message) error {
	l.mu.Lock()
	t := l.topic(name)
	subs := t.subs
	l.mu.Unlock()

	var refusal error
	if l.closed.Err() != nil {
		refusal = ErrClosed
	} else if len(subs) < t.required {
		refusal = fmt.Errorf("%w: topic %s has %d of %d", ErrNoSubscriber, name, len(subs), t.required)
	}
	errs := slices.Repeat([]error{refusal}, len(msgs))
	byLane := map[int][]int{}
	for i, m := range msgs {
		if refusal == nil {
			lane := l.lane(m.Metadata.Get(MetaKey))
			byLane[lane] = append(byLane[lane], i)
		}
	}
	var wg sync.WaitGroup
	for lane, indexes := range byLane {
		wg.Go(func() {
			defer panics.Sync(l.log)
			var failed []string // keys
			for _, i := range indexes {
				key := msgs[i].Metadata.Get(MetaKey)
				if slices.Contains(failed, key) {
					errs[i] = errBehind
				} else if errs[i] = l.deliver(t.lanes[lane], subs, msgs[i]); errs[i] != nil {
					failed = append(failed, key)
				}
			}
		})
	}
	wg.Wait()
	e := &PublishError{}
	for i, err := range errs {
		if err != nil {
			e.Failed, e.Err = append(e.Failed, msgs[i].UUID), cmp.Or(e.Err, err)
		}
	}
	if e.Err == nil {
		return nil
	}
	return e
}

// deliver sends a copy of m to each subscription and waits until all are acked or nacked, or until the message's context ends.
func (l *Lanes) deliver(lane chan struct{}, subs []*subscription, m *message.Message) error {
	ctx := m.Context()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case lane <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-l.closed.Done():
		return ErrClosed
	}
	deliveries := make([]delivery, len(subs))
	for i, s := range subs {
		deliveries[i] = s.send(m)
	}
	var result error
	for i, d := range deliveries {
		err := d.wait(ctx.Done())
		if errors.Is(err, errAbandoned) {
			go func() {
				defer panics.Sync(l.log)
				for _, d := range deliveries[i:] {
					_ = d.wait(nil)
				}
				<-lane
			}()
			return context.Cause(ctx)
		}
		result = cmp.Or(result, err)
	}
	<-lane
	return result
}

// Subscribe returns the channel of the topic's messages. It is closed at the end of ctx and at Close; the messages that were
// not received from it are then nacked. Each message must be acked or nacked: its lane waits.
func (l *Lanes) Subscribe(ctx context.Context, name string) (<-chan *message.Message, error) {
	if l.closed.Err() != nil {
		return nil, ErrClosed
	}
	ctx, cancel := context.WithCancel(ctx)
	unlink := context.AfterFunc(l.closed, cancel) //nolint:contextcheck // it adds an end, it replaces none
	s := &subscription{ctx: ctx, out: make(chan *message.Message, laneCount)}
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.topic(name)
	t.subs = append(slices.Clone(t.subs), s)
	context.AfterFunc(ctx, func() {
		unlink()
		l.mu.Lock()
		t.subs = slices.DeleteFunc(slices.Clone(t.subs), func(o *subscription) bool { return o == s })
		l.mu.Unlock()
		s.close()
	})
	return s.out, nil
}

// Close ends all subscriptions. A Publish that waits returns with an error at once, also for messages that a handler still works on.
func (l *Lanes) Close() error {
	l.close()
	return nil
}

type subscription struct {
	ctx context.Context       //nolint:containedctx // of the subscriber
	mu  sync.Mutex            // guards out: nothing is sent once it is closed
	out chan *message.Message // at most one message of each lane is in it, so that sending never blocks
}

// delivery is the copy of a message that one subscription got.
type delivery struct {
	*message.Message
	sub    *subscription
	cancel context.CancelFunc // ends the copy's context, as Watermill promises
}

// send sends a copy of m, unless the subscription has ended.
func (s *subscription) send(m *message.Message) delivery {
	c := m.Copy()
	ctx, cancel := context.WithCancel(s.ctx)
	c.SetContext(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() == nil {
		s.out <- c
	}
	return delivery{Message: c, sub: s, cancel: cancel}
}

// close nacks what was not received. It runs once ctx has ended.
func (s *subscription) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.out)
	for m := range s.out {
		m.Nack()
	}
}

var errAbandoned = errors.New("bus: neither acked nor nacked in time")

// wait returns nil after an Ack. done ends the wait with errAbandoned; the handler goes on.
func (d delivery) wait(done <-chan struct{}) error {
	var err error
	select {
	case <-d.Acked():
	case <-d.Nacked():
		err = ErrNacked
	case <-d.sub.ctx.Done():
		err = ErrClosed
	case <-done:
		err = errAbandoned
	}
	select {
	case <-d.Acked(): // an Ack counts, also beside another end
		err = nil
	default:
	}
	if !errors.Is(err, errAbandoned) {
		d.cancel()
	}
	return err
}
