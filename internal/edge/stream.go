package edge

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/faults"
	"github.com/ordergate/ordergate/internal/panics"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/query"
)

const (
	streamFor   = 4 * heartbeat    // then the client asks again, perhaps another instance
	heartbeat   = 15 * time.Second // a proxy may end a connection that is silent for longer
	writeWithin = 10 * time.Second // a client that does not read for so long is gone
	retryAfter  = time.Second      // after a failed read
	maxStreams  = 10_000           // of one process
	maxSaid     = 4 << 10          // bytes that a client sends behind its request. It has nothing to say
)

var errTooManyStreams = errors.New("too many streams are open")

// StreamOrder sends an order's events as they happen, until the order is final, 60 s are over or the instance stops. RATE_003: this
// instance has too many streams.
func (h handlers) StreamOrder(ctx context.Context, r *request, p api.StreamOrderParams) (w response, err error) {
	watch := h.cfg.Queries.Watch(r.key.Owner, r.orderID)
	defer func() {
		if w.stream == nil {
			watch.Leave()
		}
	}()
	var after int64
	if p.LastEventID != nil {
		after, _ = strconv.ParseInt(*p.LastEventID, 10, 64) // it satisfies the contract
	}
	news, err := watch.EventsAfter(ctx, after, r.token)
	if err != nil {
		r.problemToken = news.Token
		return w, err
	}
	r.add("Cache-Control", "private, no-cache")
	r.add("X-Consistency-Token", news.Token)
	if news.Final && len(news.Events) == 0 {
		return response{status: http.StatusNoContent}, nil
	}
	if h.streams.Add(1) > maxStreams {
		h.streams.Add(-1)
		return w, apierr.E(errcode.RATE003, apierr.Cause(errTooManyStreams))
	}
	r.add("Content-Type", "text/event-stream")
	r.add("X-Accel-Buffering", "no") // of nginx
	return response{status: http.StatusOK, stream: &stream{
		news: news, after: after, changed: watch.Changed, read: watch.EventsAfter, leave: func() { h.streams.Add(-1); watch.Leave() },
	}}, nil
}

// stream is the rest of a request whose response goes on. It is all that an idle stream holds, beside a connection and the stacks of two goroutines.
type stream struct {
	news    query.News
	after   int64 // the last event that was sent
	changed <-chan struct{}
	read    func(ctx context.Context, after int64, seen token.Token) (query.News, error)
	leave   func()

	conn    net.Conn
	chunked bool  // the client speaks HTTP/1.1
	lost    error // of the first write that failed: the client is gone

	// The rest is for its event in the log.
	began   time.Time
	op      *operation
	key     *Key
	orderID order.ID
	traceID string
	span    trace.Span
	status  int

	undeclared error // the contract does not list the head
	cause      error // that, and the last read that failed
}

// startStream sends the head of a stream and lets it run by itself, on the connection, which it takes from net/http: an idle request would hold there
// buffers of 8 kB and a stack of 16 kB. false: there is no stream, and the request ends here.
func (s *Server) startStream(ctx context.Context, r *request, w response) bool {
	st := w.stream
	st.began, st.op, st.key, st.orderID, st.span = r.began, r.op, r.key, r.orderID, r.span
	st.traceID, st.chunked = strings.Clone(r.traceID), r.http.ProtoAtLeast(1, 1)
	if r.fault != "" {
		ctx = faults.With(ctx, r.fault)
	}
	r.response.Header().Set("Connection", "close")
	if !s.send(r, w) {
		st.leave()
		return false
	}
	s.following.Add(1)                                                     // before net/http forgets the connection: a server that stops waits for it all the time
	conn, _, err := http.NewResponseController(r.response.Writer).Hijack() // it sends the head first
	if err != nil {
		s.following.Done()
		_ = r.failed(err)
		st.leave()
		return false
	}
	st.conn, st.status, st.cause, st.undeclared = conn, r.response.Status, r.cause, r.cause
	s.metrics.open.Inc()
	go func() {
		defer panics.Sync(s.cfg.Log)
		defer s.following.Done()
		s.runStream(ctx, st)
	}()
	return true
}

// runStream follows a stream to its end and logs its event.
func (s *Server) runStream(ctx context.Context, st *stream) {
	defer s.metrics.open.Dec()
	defer st.leave()
	ctx, gone := context.WithCancel(ctx)
	var reader sync.WaitGroup
	reader.Go(func() {
		defer panics.Sync(s.cfg.Log)
		defer gone()
		one := make([]byte, 1)
		for range maxSaid {
			if _, err := st.conn.Read(one); err != nil {
				return
			}
		}
	})
	ended := false
	err := panics.Catch(func() (err error) { ended, err = s.follow(ctx, st); return err })
	switch {
	case ended: // whether or not its client has gone since
		s.observeStream(context.WithoutCancel(ctx), st, err)
	case st.lost != nil:
		gone()
		fallthrough
	default:
		s.observeStream(ctx, st, err)
	}
	_ = st.conn.Close()
	reader.Wait()
}

// observeStream observes a stream as every request.
func (s *Server) observeStream(ctx context.Context, st *stream, err error) {
	r, _ := s.pool.Get().(*request)
	defer s.end(r)
	r.http, r.began, r.op, r.key, r.orderID, r.traceID, r.span, r.cause = streamed, st.began, st.op, st.key, st.orderID, st.traceID, st.span, st.cause
	r.response.Status = st.status
	if err != nil {
		_ = r.failed(err)
	}
	s.observe(ctx, r)
}

// streamed stands for the requests of streams, which are gone when their streams end.
var streamed = &http.Request{Method: http.MethodGet}

// follow sends the stream's news, and what read finds after each change, until the stream ends. A read that fails is tried again. ended: it is the
// server that ended it; then the error is that of the last read.
func (s *Server) follow(ctx context.Context, st *stream) (ended bool, err error) {
	news := st.news
	st.news = query.News{}
	st.send(comment)
	end := s.now().Add(streamFor) // before the ticker, so that no tick of its comes too early to end the stream
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for st.lost == nil {
		if n := len(news.Events); n > 0 {
			st.events(news)
			st.after, news.Events = news.Events[n-1].Sequence, nil
		}
		if news.Final {
			st.end("terminal")
			return true, nil
		}
		switch more := news.More; { // a client that takes page after page, or whose order changes all the time, ends no later than others
		case s.stopping.Err() != nil:
			st.end("draining")
			return true, nil
		case more && !s.now().Before(end):
			st.end("reconnect")
			return true, nil
		case !more:
			var again <-chan time.Time
			if err != nil {
				again = time.After(retryAfter)
			}
			select {
			case <-ctx.Done():
				return false, nil
			case <-s.stopping.Done():
				st.end("draining")
				return true, nil
			case <-beat.C: // a change that nobody told of is found, too
				if !s.now().Before(end) {
					st.end("reconnect")
					return true, err
				}
				st.send(comment)
			case <-st.changed:
			case <-again:
			}
		}
		var next query.News
		if next, err = st.read(ctx, st.after, news.Seen); err != nil {
			next = query.News{Seen: news.Seen}
			if ctx.Err() == nil {
				st.cause = errors.Join(st.undeclared, err)
			}
		}
		news = next
	}
	return false, nil
}

const comment = ":\n\n"

// events sends all news at once. Their token stands before them: a read with it shows nothing older. It has no id, so that it is no event to go on after.
func (st *stream) events(news query.News) {
	b := st.buffer()
	text := append(append(append(*b, "event: token\ndata: {\"token\":\""...), news.Token...), "\"}\n\n"...)
	for _, e := range news.Events {
		text = append(strconv.AppendInt(append(text, "id: "...), e.Sequence, 10), "\nevent: "...)
		text = append(append(append(text, e.Type...), "\ndata: "...), e.Data...)
		text = append(text, "\n\n"...) // JSON has no line breaks
	}
	*b = text
	st.write(b, "")
}

func (st *stream) send(text string) {
	b := st.buffer()
	*b = append(*b, text...)
	st.write(b, "")
}

// end sends the last message, and the end of the response.
func (st *stream) end(reason string) {
	b := st.buffer()
	*b = append(append(append(*b, "event: end\ndata: {\"reason\":\""...), reason...), "\"}\n\n"...)
	st.write(b, "0\r\n\r\n")
}

// buffers have the texts of streams while they are sent.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

const (
	chunkHead = "00000000\r\n" // the size of a chunk, in hex
	maxBuffer = 16 << 10       // bytes that a buffer keeps
)

// buffer is the beginning of a chunk.
func (st *stream) buffer() *[]byte {
	b, _ := buffers.Get().(*[]byte)
	*b = (*b)[:0]
	if st.chunked {
		*b = append(*b, chunkHead...)
	}
	return b
}

// write sends a chunk and what is behind it. A client that does not take it in time is gone.
func (st *stream) write(b *[]byte, behind string) {
	if st.chunked {
		for i, size := 7, len(*b)-len(chunkHead); i >= 0; i, size = i-1, size>>4 {
			(*b)[i] = "0123456789abcdef"[size&15]
		}
		*b = append(append(*b, "\r\n"...), behind...)
	}
	if st.lost == nil {
		_ = st.conn.SetWriteDeadline(connDeadline(writeWithin))
		_, st.lost = st.conn.Write(*b)
	}
	if cap(*b) <= maxBuffer {
		buffers.Put(b)
	}
}
