package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/gen/busdb"
	"github.com/ordergate/ordergate/internal/failpoint"
	"github.com/ordergate/ordergate/internal/panics"
	"github.com/ordergate/ordergate/internal/pg"
)

const (
	maxBatch    = 64
	maxTries    = 5
	firstDelay  = 50 * time.Millisecond // between tries, doubling
	handleLimit = 4 * time.Second       // of one transaction; below the relay's limit of a page
	maxSingle   = 4                     // messages that are handled singly at a time: each takes a connection
	skipFor     = 2 * time.Second       // time after a lock time-out in which batches skip locked rows instead of waiting for them
	maxCause    = 4000                  // bytes
)

// Message is a message as a handler receives it.
type Message struct {
	ID                  uuid.UUID
	Topic, Key, TraceID string
	Payload             []byte

	source   *message.Message // it is acked or nacked
	received time.Time
}

// Handler applies messages of different keys, none of which this consumer has handled before, in tx. With skipLocked it waits for no row:
// it leaves out, and returns as blocked, the messages whose rows another transaction holds. An error or a panic rolls everything back
// and the messages come again, singly. It calls no remote part: a transaction has 4 s.
type Handler func(ctx context.Context, tx pgx.Tx, msgs []Message, skipLocked bool) (Handled, error)

// Handled is what a Handler did.
type Handled struct {
	Ends    pg.Ends   // its last statements, which go out with COMMIT, and what is to be read behind that
	After   func()    // runs once tx is committed (write-through, waking the relay); it may be lost in a crash. May be nil
	Blocked []Message // nothing of them was written: they come again
}

// Consumer is one subscription with its handler. Name is stored in the inbox and never changes. Prepare, if not nil, runs before
// the transaction, for effects elsewhere that may be repeated. Its error counts as one of Handle; it is ErrTransient if a later try may
// succeed. Handle may be nil then.
type Consumer struct {
	Name, Topic string
	Subscriber  message.Subscriber
	Pool        *pgxpool.Pool
	Handle      Handler
	Prepare     func(ctx context.Context, msgs []Message) error
	Log         *zap.Logger

	skipUntil time.Time // batches skip locked rows until then
}

// Consume handles the messages of a topic until ctx ends, then finishes what runs, nacks what it has not begun and returns nil.
//
// It takes a message and whatever else waits, at most 64 and one of a key, and writes their inbox rows and effects in one
// transaction; a message is acked only after its COMMIT. After a lock time-out it is done again without the messages whose rows are
// locked: these are nacked at once, so that they delay no other. After another failure each is handled singly: after a transient error
// (ErrTransient, pg.Infrastructure) it is nacked and comes again; after five other errors it is parked with the cause, and so are
// later ones of its key, until RetryParked. One event per message is logged, without its payload.
func Consume(ctx context.Context, c Consumer) error {
	subscription, unsubscribe := context.WithCancel(context.WithoutCancel(ctx))
	defer unsubscribe()
	in, err := c.Subscriber.Subscribe(subscription, c.Topic)
	if err != nil {
		return fmt.Errorf("consumer %s: subscribe: %w", c.Name, err)
	}
	var (
		waiting  []Message                       // not begun, in order
		inFlight = map[string]bool{}             // keys of messages that are handled singly
		finished = make(chan string, 2*maxBatch) // such keys; never full, since no batch begins while 64 are in flight
		slots    = make(chan struct{}, maxSingle)
		singles  sync.WaitGroup
	)
	defer singles.Wait()
	defer func() {
		for _, m := range waiting {
			c.resolve(m, nacked, ErrClosed)
		}
	}()
	for ctx.Err() == nil {
		for before := -1; before < len(waiting) && len(waiting) < maxBatch; { // while more comes: what the other lanes send in this moment goes with it
			if before >= 0 {
				runtime.Gosched()
			}
			before = len(waiting)
			for more := true; more && len(waiting) < maxBatch; {
				select {
				case m, ok := <-in:
					if more = ok; ok {
						waiting = append(waiting, c.message(m))
					}
				default:
					more = false
				}
			}
		}
		for len(finished) > 0 {
			delete(inFlight, <-finished)
		}
		var batch []Message
		if len(inFlight) < maxBatch {
			batch, waiting = pick(waiting, inFlight)
		}
		if len(batch) == 0 {
			source := in
			if len(waiting) >= maxBatch {
				source = nil
			}
			select {
			case <-ctx.Done():
			case key := <-finished:
				delete(inFlight, key)
			case m, ok := <-source:
				if !ok {
					return fmt.Errorf("consumer %s: %w", c.Name, ErrClosed)
				}
				waiting = append(waiting, c.message(m))
			}
			continue
		}
		failed, err := c.batch(ctx, batch)
		for _, m := range failed {
			inFlight[m.Key] = true
			singles.Go(func() {
				defer panics.Sync(c.Log)
				c.handleSingly(ctx, m, slots, err)
				finished <- m.Key
			})
		}
	}
	return nil
}

// pick takes the first message of each key that is not in flight.
func pick(waiting []Message, inFlight map[string]bool) (batch, rest []Message) {
	seen := map[string]bool{}
	for _, m := range waiting {
		if inFlight[m.Key] || seen[m.Key] {
			rest = append(rest, m)
		} else {
			batch = append(batch, m)
		}
		seen[m.Key] = true
	}
	return batch, rest
}

// ErrTransient marks an error whose cause is not the message: a later try may succeed.
var ErrTransient = errors.New("not possible now")

func transient(err error) bool { return errors.Is(err, ErrTransient) || pg.Infrastructure(err) }

// CauseBehind is the cause of a message that has not failed itself.
const CauseBehind = "behind a parked message"

var (
	errBehindParked = errors.New(CauseBehind)
	errUnparked     = fmt.Errorf("%w: the messages before it were retried or dropped in this moment", ErrTransient)
)

// message reads what a transport delivered.
func (c *Consumer) message(m *message.Message) Message {
	id, err := uuid.Parse(m.UUID)
	if err != nil { // it is not from our outbox: the handler decides on it, and parking needs an id
		id = uuid.NewSHA1(uuid.Nil, []byte(m.UUID))
	}
	return Message{
		ID: id, Topic: c.Topic, Key: m.Metadata.Get(MetaKey), TraceID: m.Metadata.Get(MetaTrace), Payload: m.Payload,
		source: m, received: time.Now(),
	}
}

// Outcomes of a message.
const (
	handled   = "handled"
	duplicate = "duplicate" // handled or parked before
	parked    = "parked"
	nacked    = "nacked" // it comes again
)

// resolve acks or nacks a message and logs its outcome.
func (c *Consumer) resolve(m Message, outcome string, err error) {
	level, respond := zap.InfoLevel, m.source.Ack
	switch outcome {
	case nacked:
		level, respond = zap.WarnLevel, m.source.Nack
	case parked:
		level = zap.ErrorLevel
	}
	respond()
	c.Log.Log(level, "message", zap.String("trace_id", m.TraceID), zap.String("consumer", c.Name), zap.String("topic", m.Topic),
		zap.String("key", m.Key), zap.String("outcome", outcome), zap.Duration("duration", time.Since(m.received)), zap.Error(err))
}

// errLocked is the cause of a message that is nacked because another transaction holds a row that it needs.
var errLocked = errors.New("a row is locked")

// batch resolves the messages, or returns those that are to be handled singly; err counts as the first try of a single one.
func (c *Consumer) batch(ctx context.Context, batch []Message) (failed []Message, err error) {
	outcomes, err := c.attempt(ctx, batch, nil, time.Now().Before(c.skipUntil))
	if pg.LockNotHad(err) {
		c.skipUntil = time.Now().Add(skipFor)
		outcomes, err = c.attempt(ctx, batch, nil, true)
	}
	if err != nil && (!transient(err) || pg.Contention(err) || errors.Is(err, context.DeadlineExceeded)) {
		if len(batch) > 1 {
			err = nil
		}
		return batch, err
	}
	for i, m := range batch { // after an error: the database is away, a try of each would fail as well
		cause := err
		if outcomes[i] == nacked {
			cause = cmp.Or(err, errLocked)
		}
		c.resolve(m, outcomes[i], cause)
	}
	return nil, nil
}

// handleSingly tries one message until it is resolved. err is the error of the try that it has already had, if any.
func (c *Consumer) handleSingly(ctx context.Context, m Message, slots chan struct{}, err error) {
	outcome := nacked
	attempt := func(cause error) {
		slots <- struct{}{}
		defer func() { <-slots }()
		outcomes, failed := c.attempt(ctx, []Message{m}, cause, false)
		outcome, err = outcomes[0], cmp.Or(failed, cause)
	}
	for try, delay := 1, firstDelay; ctx.Err() == nil; try, delay = try+1, 2*delay {
		if err == nil || try > 1 {
			attempt(nil)
		}
		if err == nil || transient(err) {
			break
		}
		if try == maxTries {
			attempt(err)
			break
		}
		sleep(ctx, delay, nil)
	}
	c.resolve(m, outcome, err)
}

// attempt handles the messages in one transaction, also past the end of ctx, and returns the outcome of each: nacked unless the
// transaction is committed, and if they are blocked. With a cause it parks them instead.
func (c *Consumer) attempt(ctx context.Context, batch []Message, cause error, skipLocked bool) (outcomes []string, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), handleLimit)
	defer cancel()
	if c.Prepare != nil && cause == nil {
		err = panics.Catch(func() error { return c.Prepare(ctx, batch) })
	}
	var after func()
	if err == nil {
		var inbox busdb.InsertInboxRow
		err = pg.InPipeline(ctx, c.Pool, func(first *pgx.Batch) { c.queueInbox(first, batch, &inbox) }, func(tx pgx.Tx, ends *pg.Ends) (err error) {
			failpoint.Hit(failpoint.ConsumerInboxWritten)
			outcomes, after, err = c.apply(ctx, tx, batch, inbox, cause, skipLocked, ends)
			failpoint.Hit(failpoint.ConsumerHandled)
			return err
		})
	}
	if err != nil {
		return slices.Repeat([]string{nacked}, len(batch)), err
	}
	failpoint.Hit(failpoint.ConsumerCommitted)
	if after != nil { // a panic there cannot take the COMMIT back
		if err := panics.Catch(func() error { after(); return nil }); err != nil {
			c.Log.Error("panic after commit", zap.String("consumer", c.Name), zap.Error(err))
		}
	}
	failpoint.Hit(failpoint.ConsumerDone)
	return outcomes, nil
}

// queueInbox queues the inbox rows of the messages.
func (c *Consumer) queueInbox(to *pgx.Batch, batch []Message, inbox *busdb.InsertInboxRow) {
	to.Queue(busdb.InsertInbox, c.Name, pg.Column(batch, func(m Message) string { return m.Key }), pg.Column(batch, func(m Message) uuid.UUID { return m.ID })).
		QueryRow(func(row pgx.Row) error { return row.Scan(&inbox.Fresh, &inbox.Behind) })
}

// apply handles the messages that are fresh: their inbox rows are written.
func (c *Consumer) apply(
	ctx context.Context, tx pgx.Tx, batch []Message, inbox busdb.InsertInboxRow, cause error, skipLocked bool, ends *pg.Ends,
) (outcomes []string, after func(), err error) {
	q := busdb.New(tx)
	var msgs []Message
	for _, m := range batch {
		reason := cause
		if slices.Contains(inbox.Behind, m.Key) {
			reason = cmp.Or(cause, errBehindParked)
		}
		switch {
		case !slices.Contains(inbox.Fresh, m.ID):
			outcomes = append(outcomes, duplicate)
		case reason == nil:
			outcomes = append(outcomes, handled)
			msgs = append(msgs, m)
		default:
			if cause == nil {
				if held, err := q.HoldParked(ctx, busdb.HoldParkedParams{Consumer: c.Name, Key: m.Key}); err != nil || len(held) == 0 {
					return nil, nil, cmp.Or(err, errUnparked) // behind it, the message would wait for nothing
				}
			}
			outcomes = append(outcomes, parked)
			if err = c.park(ctx, q, m, reason); err != nil {
				return nil, nil, err
			}
		}
	}
	if msgs == nil || c.Handle == nil {
		return outcomes, nil, nil
	}
	var h Handled
	if err = panics.Catch(func() (err error) {
		h, err = c.Handle(ctx, tx, msgs, skipLocked)
		return err
	}); err != nil {
		return nil, nil, err
	}
	if *ends = h.Ends; len(h.Blocked) == 0 {
		return outcomes, h.After, nil
	}
	for _, m := range h.Blocked {
		outcomes[slices.IndexFunc(batch, func(o Message) bool { return o.ID == m.ID })] = nacked
	}
	return outcomes, h.After, busdb.New(&ends.Last).DeleteInbox(ctx, busdb.DeleteInboxParams{
		Consumer: c.Name, MessageIds: pg.Column(h.Blocked, func(m Message) uuid.UUID { return m.ID }),
	})
}

// park stores a message with the cause, as far as PostgreSQL can store its text.
func (c *Consumer) park(ctx context.Context, q *busdb.Queries, m Message, cause error) error {
	text := cause.Error()
	text = strings.ReplaceAll(strings.ToValidUTF8(text[:min(len(text), maxCause)], "?"), "\x00", "?")
	return q.ParkMessage(ctx, busdb.ParkMessageParams{
		Consumer: c.Name, Topic: m.Topic, Key: m.Key, MessageID: m.ID, TraceID: m.TraceID, Payload: string(m.Payload), Cause: text,
	})
}
