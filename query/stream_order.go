package query

import (
	"context"
	"encoding/json"

	"github.com/google/uuid"

	"github.com/ordergate/ordergate/gen/querydb"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/order"
)

// News are the events of an order after a sequence.
type News struct {
	Events []StreamEvent
	Final  bool        // the order is final, and no event is left
	More   bool        // events are left
	Token  string      // X-Consistency-Token: a read with it is as new as the events
	Seen   token.Token // of the order's state, for the next EventsAfter, which a cache can serve then
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

// EventsAfter returns the events of an order after a sequence, the oldest first, up to the state of the order that GetOrder shows for the token.
// ORD_001: the owner has no such order.
func (q *Queries) EventsAfter(ctx context.Context, owner order.Owner, id order.ID, after int64, t token.Token) (News, error) {
	v, err := q.GetOrder(ctx, owner, id, t)
	news := News{Token: v.Token}
	if err != nil {
		return news, err
	}
	news.Seen, _ = q.cfg.Signer.Parse(v.Token) // we have signed it
	var shown struct {
		Status  order.Status `json:"status"`
		Version int64        `json:"version"`
	}
	if err = json.Unmarshal(v.Bytes, &shown); err != nil {
		return news, err
	}
	if shown.Version > after {
		var read string
		if news.Events, read, err = q.eventsAfter(ctx, owner, id, after, news.Seen); err != nil {
			return news, err
		}
		if n := len(news.Events); n > 0 {
			after = news.Events[n-1].Sequence
		}
		if after > shown.Version { // then the order's token, which caches can satisfy, does not cover them
			news.Token = max(v.Token, read) // the greatest string is the latest
		}
	}
	news.More, news.Final = shown.Version > after && len(news.Events) > 0, shown.Status.Final() && shown.Version <= after
	return news, nil
}

// eventsAfter reads events from a database that is as new as the token of the order, and returns the token of that read.
func (q *Queries) eventsAfter(ctx context.Context, owner order.Owner, id order.ID, after int64, t token.Token) (events []StreamEvent, read string, err error) {
	rows, entry, err := readRows(ctx, q, requirement{token: t, minRev: q.minRev(id)}, func(ctx context.Context, db *querydb.Queries) ([]querydb.ListOrderEventsRow, error) {
		return db.ListOrderEvents(ctx, querydb.ListOrderEventsParams{
			Account: owner.Account, Mode: owner.Mode, OrderID: uuid.UUID(id), After: after, Page: newsPage,
		})
	})
	if err != nil {
		return nil, "", err
	}
	events = make([]StreamEvent, len(rows))
	for i, row := range rows {
		e, err := eventOf(id, row)
		if err != nil {
			return nil, "", err
		}
		if events[i].Data, err = json.Marshal(e); err != nil {
			return nil, "", err
		}
		events[i].Sequence, events[i].Type = row.Version, row.Type
	}
	return events, entry.Token, nil
}

// Watch returns a channel that has an element when the order has changed, as far as this process hears of it, since the channel was last empty.
// leave ends it and must be called.
func (q *Queries) Watch(owner order.Owner, id order.ID) (changed <-chan struct{}, leave func()) {
	return q.watchers.Join(orders.row(owner, id, ""))
}
