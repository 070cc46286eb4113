package query

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/querydb"
	"github.com/ordergate/ordergate/internal/faults"
	"github.com/ordergate/ordergate/internal/panics"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/order"
)

// News are the events of an order after a sequence.
type News struct {
	Events []StreamEvent // shared with other streams: they are not changed
	Final  bool          // the order is final, and no event is left
	More   bool          // events are left
	Token  string        // X-Consistency-Token: a read with it is as new as the events
	Seen   token.Token   // of the order's state, for the next EventsAfter, which a cache can serve then
}

// StreamEvent is an event of an order as a stream has it.
type StreamEvent struct {
	Sequence int64
	Type     string
	Data     []byte // the contract's Event
}

// newsPage is how many events one News has at most. A stream holds them while its client does not read: events of 40 kB, of which 100 took 6 MB
// a stream, can be made by any client.
const newsPage = 10

// recentFor is how long the streams of an order keep the events that came last. All are woken at once; the last of 2,000 reads 0.1 s later.
const recentFor = time.Second

// Watch follows an order for one stream. Safe for use by one goroutine; Leave must be called.
type Watch struct {
	Changed <-chan struct{} // has an element when the order has changed, as far as this process hears of it, since the channel was last empty
	q       *Queries
	of      key
	shared  *watched
	leave   func()
}

// watched is what the streams of one order share, so that a change is read and encoded once for all of them. An event never changes, so whichever
// read found it will do.
type watched struct {
	streams int // guarded by Queries.watchedMu

	mu     sync.Mutex
	shown  shown
	recent run
}

// shown is what a stream needs of an order's state.
type shown struct {
	etag, token string // of the View that it was decoded from
	seen        token.Token
	status      order.Status
	version     int64
}

// run has events without a gap, from one read or several in turn.
type run struct {
	events []StreamEvent
	token  string // of the last of the reads
	of     uint32 // the timeline: another one may have other events of these numbers
	readAt time.Time
}

// Watch begins to follow an order.
func (q *Queries) Watch(owner order.Owner, id order.ID) *Watch {
	k := orders.row(owner, id, "")
	w := &Watch{q: q, of: k}
	w.Changed, w.leave = q.watchers.Join(k)
	q.watchedMu.Lock()
	defer q.watchedMu.Unlock()
	if w.shared = q.watched[k]; w.shared == nil {
		w.shared = &watched{}
		q.watched[k] = w.shared
	}
	w.shared.streams++
	return w
}

// Leave ends it.
func (w *Watch) Leave() {
	w.leave()
	w.q.watchedMu.Lock()
	defer w.q.watchedMu.Unlock()
	if w.shared.streams--; w.shared.streams == 0 {
		delete(w.q.watched, w.of)
	}
}

// EventsAfter returns the events of the order after a sequence, the oldest first, up to the state of the order that GetOrder shows for the token.
// Streams of one order that ask for the same share one read. ORD_001: the owner has no such order.
func (w *Watch) EventsAfter(ctx context.Context, after int64, t token.Token) (News, error) {
	v, err := w.q.get(ctx, w.of, t, w.q.cfg.Now())
	news := News{Token: v.Token}
	if err != nil {
		return news, err
	}
	now, err := w.shared.decode(v, w.q.cfg.Signer)
	if err != nil {
		return news, err
	}
	news.Seen = now.seen
	if now.version > after {
		found, err := w.events(ctx, after, now.seen)
		if err != nil {
			return news, err
		}
		news.Events = found.events
		if n := len(news.Events); n > 0 {
			after = news.Events[n-1].Sequence
		}
		if after > now.version { // then the order's token, which caches can satisfy, does not cover them
			news.Token = max(v.Token, found.token) // the greatest string is the latest
		}
	} else {
		w.shared.forget(w.q.cfg.Now())
	}
	news.More, news.Final = now.version > after && len(news.Events) > 0, now.status.Final() && now.version <= after
	return news, nil
}

// events returns events after a sequence: recent ones, else those of a read that all streams share which ask for them meanwhile. A read that began
// before the change does not have its event; then it is read again, the third time alone.
func (w *Watch) events(ctx context.Context, after int64, seen token.Token) (run, error) {
	if faults.In(ctx) != "" { // alone: nobody shares what it meets
		return w.read(ctx, after, seen)
	}
	for try := 1; ; try++ {
		if recent := w.shared.after(after, seen.Timeline); len(recent.events) > 0 {
			return recent, nil
		}
		if try == 3 {
			return w.read(ctx, after, seen)
		}
		shared, mine, err := w.q.flight(ctx, w.flight(after), func(ctx context.Context) (any, error) {
			found := w.shared.after(after, seen.Timeline) // another read may just have ended
			if len(found.events) > 0 {
				return found, nil
			}
			err := panics.Catch(func() (err error) { found, err = w.read(ctx, after, seen); return err })
			if err == nil {
				w.q.share(w.shared, found)
			}
			return found, err
		})
		found, _ := shared.(run)
		if mine || err == nil && found.of == seen.Timeline && len(found.events) > 0 || err != nil && apierr.From(err).Code != errcode.SYS004 {
			return found, err // an error is that of all; only SYS_004 depends on a token
		}
	}
}

// flight names the read of the events after a sequence.
func (w *Watch) flight(after int64) string { return fmt.Sprint("events after ", after, " of ", w.of) }

// read reads events from a database that is as new as the token of the order.
func (w *Watch) read(ctx context.Context, after int64, t token.Token) (run, error) {
	k := w.of
	rows, entry, err := readRows(ctx, w.q, requirement{token: t, minRev: w.q.minRev(k.id)}, func(ctx context.Context, db *querydb.Queries) ([]querydb.ListOrderEventsRow, error) {
		return db.ListOrderEvents(ctx, querydb.ListOrderEventsParams{Account: k.account, Mode: k.mode.String(), OrderID: uuid.UUID(k.id), After: after, Page: newsPage})
	})
	if err != nil {
		return run{}, err
	}
	found := run{events: make([]StreamEvent, len(rows)), token: entry.Token, of: entry.Timeline, readAt: entry.LoadedAt}
	for i, row := range rows {
		e, err := eventOf(k.id, row)
		if err != nil {
			return run{}, err
		}
		if found.events[i].Data, err = json.Marshal(e); err != nil {
			return run{}, err
		}
		found.events[i].Sequence, found.events[i].Type = row.Version, row.Type
	}
	return found, nil
}

// share keeps events for the other streams of their order, if there are any.
func (q *Queries) share(with *watched, found run) {
	q.watchedMu.Lock()
	alone := with.streams < 2
	q.watchedMu.Unlock()
	if !alone && len(found.events) > 0 {
		with.keep(found)
	}
}

// decode returns what a View of the order shows. It is decoded once for all streams.
func (w *watched) decode(v View, signer token.Signer) (shown, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.shown.token == v.Token && w.shown.etag == v.ETag {
		return w.shown, nil
	}
	var body struct {
		Status  order.Status `json:"status"`
		Version int64        `json:"version"`
	}
	if err := json.Unmarshal([]byte(v.Body), &body); err != nil {
		return shown{}, err
	}
	seen, _ := signer.Parse(v.Token)                                                                // we have signed it
	w.shown = shown{strings.Clone(v.ETag), strings.Clone(v.Token), seen, body.Status, body.Version} // they are cut from the order's text
	return w.shown, nil
}

// after returns the recent events after a sequence, none if there is a gap before them or if they are of another timeline.
func (w *watched) after(sequence int64, timeline uint32) run {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.recent.of != timeline {
		return run{}
	}
	return w.recent.after(sequence)
}

// keep makes found the recent events, behind those before, newsPage in all. It never goes back.
func (w *watched) keep(found run) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if old := w.recent; found.of == old.of && len(old.events) > 0 {
		last := old.events[len(old.events)-1].Sequence
		if last >= found.events[len(found.events)-1].Sequence {
			return
		}
		if more := found.after(last).events; len(more) > 0 {
			all := slices.Concat(old.events, more)
			found.events, found.token = all[max(0, len(all)-newsPage):], max(found.token, old.token)
		}
	}
	w.recent = found
}

// forget gives the recent events back once every stream has had its time to take them.
func (w *watched) forget(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.recent.events) > 0 && now.Sub(w.recent.readAt) > recentFor {
		w.recent = run{}
	}
}

// after returns the part after a sequence, nothing if there is a gap before it.
func (r run) after(sequence int64) run {
	if len(r.events) == 0 || r.events[0].Sequence > sequence+1 {
		return run{}
	}
	skip, _ := slices.BinarySearchFunc(r.events, sequence+1, func(e StreamEvent, n int64) int { return cmp.Compare(e.Sequence, n) })
	r.events = r.events[skip:]
	return r
}
