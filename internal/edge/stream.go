package edge

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/query"
)

const (
	streamFor   = 60 * time.Second // then the client asks again, perhaps another instance
	heartbeat   = 15 * time.Second // a proxy may end a connection that is silent for longer
	writeWithin = 10 * time.Second // a client that does not read for so long is gone
	retryAfter  = time.Second      // after a failed read
	maxStreams  = 10_000           // of one process
)

var errTooManyStreams = errors.New("too many streams are open")

// StreamOrder sends an order's events as they happen, until the order is final, 60 s are over or the instance stops. RATE_003: this
// instance has too many streams.
func (h handlers) StreamOrder(ctx context.Context, r *request, p api.StreamOrderParams) (response, error) {
	watch := h.cfg.Queries.Watch(r.key.Owner, r.orderID)
	defer watch.Leave()
	var after int64
	if p.LastEventID != nil {
		after, _ = strconv.ParseInt(*p.LastEventID, 10, 64) // it satisfies the contract
	}
	news, err := watch.EventsAfter(ctx, after, r.token)
	if err != nil {
		r.problemToken = news.Token
		return response{}, err
	}
	r.add("Cache-Control", "private, no-cache")
	r.add("X-Consistency-Token", news.Token)
	if news.Final && len(news.Events) == 0 {
		return response{status: http.StatusNoContent}, nil
	}
	defer h.streams.Add(-1)
	if h.streams.Add(1) > maxStreams {
		return response{}, apierr.E(errcode.RATE003, apierr.Cause(errTooManyStreams))
	}
	h.metrics.open.Inc()
	defer h.metrics.open.Dec()
	r.add("Content-Type", "text/event-stream")
	r.add("X-Accel-Buffering", "no") // of nginx
	if !h.send(r, response{status: http.StatusOK}) {
		return response{}, nil
	}
	return response{}, h.follow(ctx, r, news, after, watch.Changed, func(after int64, seen token.Token) (query.News, error) {
		return watch.EventsAfter(ctx, after, seen)
	})
}

// follow writes news, and what read finds after each change, until the stream ends. A read that fails is tried again. The error is that of the last
// read, if a stream whose client stays ends by its time.
func (s *Server) follow(ctx context.Context, r *request, news query.News, after int64, changed <-chan struct{},
	read func(after int64, seen token.Token) (query.News, error),
) (err error) {
	w := stream{r: r, conn: http.NewResponseController(r.response.Writer)}
	w.comment()
	end, beat := time.NewTimer(streamFor), time.NewTicker(heartbeat)
	defer end.Stop()
	defer beat.Stop()
	for w.err == nil {
		if n := len(news.Events); n > 0 {
			w.events(news)
			after, news.Events = news.Events[n-1].Sequence, nil
		}
		if news.Final {
			w.end("terminal")
			return nil
		}
		if !news.More {
			var again <-chan time.Time
			if err != nil {
				again = time.After(retryAfter)
			}
			select {
			case <-ctx.Done():
				return nil
			case <-s.stopping.Done():
				w.end("draining")
				return nil
			case <-end.C:
				w.end("reconnect")
				return err
			case <-beat.C: // a change that nobody told of is found, too
				w.comment()
			case <-changed:
			case <-again:
			}
		}
		var next query.News
		if next, err = read(after, news.Seen); err != nil {
			next = query.News{Seen: news.Seen}
			if ctx.Err() == nil {
				r.cause = err
			}
		}
		news = next
	}
	return nil
}

// stream writes server-sent events. Its err is that of the first write that failed: the client is gone.
type stream struct {
	r    *request
	conn *http.ResponseController
	err  error
}

func (s *stream) comment() { s.send([]byte(":\n\n")) }

// events sends all news at once. Their token stands before them: a read with it shows nothing older. It has no id, so that it is no event to go on after.
func (s *stream) events(news query.News) {
	b, _ := buffers.Get().(*[]byte)
	text := append(append(append((*b)[:0], "event: token\ndata: {\"token\":\""...), news.Token...), "\"}\n\n"...)
	for _, e := range news.Events {
		text = append(strconv.AppendInt(append(text, "id: "...), e.Sequence, 10), "\nevent: "...)
		text = append(append(append(text, e.Type...), "\ndata: "...), e.Data...)
		text = append(text, "\n\n"...) // JSON has no line breaks
	}
	s.send(text)
	if cap(text) <= maxBuffer {
		*b = text
		buffers.Put(b)
	}
}

// buffers have the texts of streams while they are sent.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

const maxBuffer = 16 << 10 // bytes that a buffer keeps

func (s *stream) end(reason string) {
	s.send([]byte("event: end\ndata: {\"reason\":\"" + reason + "\"}\n\n"))
}

func (s *stream) send(text []byte) {
	if s.err != nil {
		return
	}
	_ = s.conn.SetWriteDeadline(time.Now().Add(writeWithin)) // a test's recorder has none
	if _, s.err = s.r.response.Write(text); s.err == nil {
		s.err = s.conn.Flush()
	}
}
