package bus

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/gen/busdb"
	"github.com/ordergate/ordergate/internal/pg"
)

const (
	maxBatch    = 64
	maxTries    = 5
	firstPause  = 50 * time.Millisecond // between tries, doubling
	handleLimit = 4 * time.Second       // of one transaction; below the relay's limit of a page
	aloneAtOnce = 4                     // messages that are handled singly side by side: each takes a connection
	maxCause    = 4000                  // bytes
)

// Message is what a handler gets.
type Message struct {
	ID                  uuid.UUID
	Topic, Key, TraceID string
	Payload             []byte
}

// Handler applies messages of different keys, none of which this consumer has handled before, in tx. after, if not nil, runs
// once tx is committed (write-through, waking the relay); it may be lost in a crash. An error or a panic rolls everything back
// and the messages come again, singly. It calls no remote part: a transaction has 4 s.
type Handler func(ctx context.Context, tx pgx.Tx, msgs []Message) (after func(), err error)

// Consumer is one subscription with its handler. Name is stored in the inbox and never changes. Prepare, if not nil, runs before
// the transaction, for effects elsewhere that may be repeated: its error counts as one of Handle, ErrPassing if it will pass. With
// Prepare alone there is no Handle.
type Consumer struct {
	Name, Topic string
	Subscriber  message.Subscriber
	Pool        *pgxpool.Pool
	Handle      Handler
	Prepare     func(ctx context.Context, msgs []Message) error
	Log         *zap.Logger
}

// Consume handles the messages of a topic until ctx ends, then finishes what runs, nacks what it has not begun and returns nil.
//
// It takes a message and whatever else waits, at most 64 and one of a key, and writes their inbox rows and effects in one
// transaction; a message is acked only after its COMMIT. If that fails each is handled singly: after an error that passes
// (ErrPassing, pg.Infrastructure) it is nacked and comes again; after five other errors it is parked with the cause, and so are later ones of its key, until
// RetryParked. One event per message is logged, without its payload.
func Consume(ctx context.Context, c Consumer) error {
	subscription, unsubscribe := context.WithCancel(context.WithoutCancel(ctx))
	defer unsubscribe()
	in, err := c.Subscriber.Subscribe(subscription, c.Topic)
	if err != nil {
		return fmt.Errorf("consumer %s: subscribe: %w", c.Name, err)
	}
	var (
		waiting []delivery                      // not begun, in order
		busy    = map[string]bool{}             // keys of messages that are handled singly
		settled = make(chan string, 2*maxBatch) // such keys; never full, since no batch begins while 64 are busy
		slots   = make(chan struct{}, aloneAtOnce)
		alone   sync.WaitGroup
	)
	defer alone.Wait()
	defer func() {
		for _, d := range waiting {
			c.settle(d, nacked, ErrClosed)
		}
	}()
	for ctx.Err() == nil {
		for more := true; more && len(waiting) < maxBatch; {
			select {
			case m, ok := <-in:
				if more = ok; ok {
					waiting = append(waiting, c.delivery(m))
				}
			default:
				more = false
			}
		}
		for len(settled) > 0 {
			delete(busy, <-settled)
		}
		var batch []delivery
		if len(busy) < maxBatch {
			batch, waiting = pick(waiting, busy)
		}
		if len(batch) == 0 {
			source := in
			if len(waiting) >= maxBatch {
				source = nil
			}
			select {
			case <-ctx.Done():
			case key := <-settled:
				delete(busy, key)
			case m, ok := <-source:
				if !ok {
					return fmt.Errorf("consumer %s: %w", c.Name, ErrClosed)
				}
				waiting = append(waiting, c.delivery(m))
			}
			continue
		}
		failed, err := c.batch(ctx, batch)
		for _, d := range failed {
			busy[d.Key] = true
			alone.Go(func() {
				c.alone(ctx, d, slots, err)
				settled <- d.Key
			})
		}
	}
	return nil
}

// pick takes the first message of each key that is not busy.
func pick(waiting []delivery, busy map[string]bool) (batch, rest []delivery) {
	seen := map[string]bool{}
	for _, d := range waiting {
		if busy[d.Key] || seen[d.Key] {
			rest = append(rest, d)
		} else {
			batch = append(batch, d)
		}
		seen[d.Key] = true
	}
	return batch, rest
}

// ErrPassing marks what failed for a reason outside the message, which will pass.
var ErrPassing = errors.New("not possible now")

func passes(err error) bool { return errors.Is(err, ErrPassing) || pg.Infrastructure(err) }

var errBehindParked = errors.New("behind a parked message")

type delivery struct {
	Message
	ack   *message.Message
	taken time.Time
}

func (c *Consumer) delivery(m *message.Message) delivery {
	id, err := uuid.Parse(m.UUID)
	if err != nil { // not from our outbox: its handler will decide, and parking needs an id
		id = uuid.NewSHA1(uuid.Nil, []byte(m.UUID))
	}
	return delivery{ack: m, taken: time.Now(), Message: Message{
		ID: id, Topic: c.Topic, Key: m.Metadata.Get(MetaKey), TraceID: m.Metadata.Get(MetaTrace), Payload: m.Payload,
	}}
}

// What became of a message.
const (
	handled   = "handled"
	duplicate = "duplicate" // handled or parked before
	parked    = "parked"
	nacked    = "nacked" // it comes again
)

// settle acks, or nacks, and logs.
func (c *Consumer) settle(d delivery, outcome string, err error) {
	log := c.Log.Info
	switch outcome {
	case nacked:
		d.ack.Nack()
		log = c.Log.Warn
	case parked:
		d.ack.Ack()
		log = c.Log.Error
	default:
		d.ack.Ack()
	}
	log("message", zap.String("trace_id", d.TraceID), zap.String("consumer", c.Name), zap.String("topic", d.Topic),
		zap.String("key", d.Key), zap.String("outcome", outcome), zap.Duration("duration", time.Since(d.taken)), zap.Error(err))
}

// batch settles the messages, or returns those that are to be handled singly; err counts as the first try of a single one.
func (c *Consumer) batch(ctx context.Context, batch []delivery) (failed []delivery, err error) {
	outcomes, err := c.attempt(ctx, batch, nil)
	switch {
	case err == nil:
		for i, d := range batch {
			c.settle(d, outcomes[i], nil)
		}
		return nil, nil
	case passes(err) && !pg.Contention(err) && !errors.Is(err, context.DeadlineExceeded):
		for _, d := range batch { // the database is away: no use in asking it for each
			c.settle(d, nacked, err)
		}
		return nil, nil
	case len(batch) == 1:
		return batch, err
	default:
		return batch, nil
	}
}

// alone tries one message until it is settled. err is the error of the try that it has already had, if any.
func (c *Consumer) alone(ctx context.Context, d delivery, slots chan struct{}, err error) {
	attempt := func(cause error) (string, error) {
		slots <- struct{}{}
		defer func() { <-slots }()
		outcomes, err := c.attempt(ctx, []delivery{d}, cause)
		if err != nil {
			return nacked, err
		}
		return outcomes[0], cause
	}
	outcome := nacked
	for try, pause := 1, firstPause; ctx.Err() == nil; try, pause = try+1, 2*pause {
		if err == nil {
			outcome, err = attempt(nil)
		}
		if err == nil || passes(err) {
			break
		}
		if try == maxTries {
			outcome, err = attempt(err)
			break
		}
		if wait(ctx, pause, nil); ctx.Err() == nil {
			err = nil
		}
	}
	c.settle(d, outcome, err)
}

// attempt handles the messages in one transaction, also past the end of ctx, and says what became of each once it is committed.
// With a cause it parks them instead.
func (c *Consumer) attempt(ctx context.Context, batch []delivery, cause error) (outcomes []string, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), handleLimit)
	defer cancel()
	take := busdb.TakeMessagesParams{Consumer: c.Name}
	for _, d := range batch {
		take.MessageIds = append(take.MessageIds, d.ID)
		take.Keys = append(take.Keys, d.Key)
	}
	if c.Prepare != nil && cause == nil {
		if err = c.prepare(ctx, batch); err != nil {
			return nil, err
		}
	}
	var after func()
	err = pg.InTx(ctx, c.Pool, func(tx pgx.Tx) error {
		q := busdb.New(tx)
		rows, err := q.TakeMessages(ctx, take)
		if err != nil {
			return err
		}
		behind := make(map[uuid.UUID]bool, len(rows)) // of the fresh ones
		for _, row := range rows {
			behind[row.MessageID] = row.Behind
		}
		var msgs []Message
		for _, d := range batch {
			reason := cause
			if isBehind, fresh := behind[d.ID]; !fresh {
				outcomes = append(outcomes, duplicate)
				continue
			} else if isBehind && cause == nil {
				reason = errBehindParked
			}
			delete(behind, d.ID)
			if reason == nil {
				outcomes = append(outcomes, handled)
				msgs = append(msgs, d.Message)
				continue
			}
			outcomes = append(outcomes, parked)
			if err = q.ParkMessage(ctx, c.parking(d, reason.Error())); err != nil {
				return err
			}
		}
		if msgs != nil && c.Handle != nil {
			after, err = c.handle(ctx, tx, msgs)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if after != nil {
		c.after(after)
	}
	return outcomes, nil
}

func (c *Consumer) prepare(ctx context.Context, batch []delivery) (err error) {
	defer caught(&err)
	msgs := make([]Message, len(batch))
	for i, d := range batch {
		msgs[i] = d.Message
	}
	return c.Prepare(ctx, msgs)
}

func (c *Consumer) handle(ctx context.Context, tx pgx.Tx, msgs []Message) (after func(), err error) {
	defer caught(&err)
	return c.Handle(ctx, tx, msgs)
}

// caught makes a panic an error.
func caught(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
	}
}

// after runs what follows the COMMIT; a panic there cannot take it back.
func (c *Consumer) after(f func()) {
	defer func() {
		if p := recover(); p != nil {
			c.Log.Error("panic after commit", zap.String("consumer", c.Name), zap.Any("panic", p), zap.Stack("stack"))
		}
	}()
	f()
}

func (c *Consumer) parking(d delivery, cause string) busdb.ParkMessageParams {
	return busdb.ParkMessageParams{
		Consumer: c.Name, Topic: d.Topic, Key: d.Key, MessageID: d.ID, TraceID: d.TraceID, Payload: string(d.Payload),
		Cause: text(cause[:min(len(cause), maxCause)]),
	}
}

// text is what PostgreSQL can store of s.
func text(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "?"), "\x00", "?")
}
