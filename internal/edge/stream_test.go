package edge

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/query"
)

var errRead = errors.New("connection refused")

// pipes is a listener for connections within the program, which synctest can wait for.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, open := <-p
	if !open {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// openPipe serves over pipes, within synctest. connect returns a client's end, stop returns when the server has stopped.
func openPipe(t *testing.T, s *Server) (connect func() net.Conn, stop func()) {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	l, served := make(pipes), make(chan error)
	go func() { served <- s.Serve(ctx, l, s, 0) }()
	return func() net.Conn {
			client, server := net.Pipe()
			l <- server
			return client
		}, func() {
			end()
			if err := <-served; err != nil {
				t.Error(err)
			}
		}
}

// streamBy is an operation whose stream reads by read.
func streamBy(read func(ctx context.Context, after int64, seen token.Token) (query.News, error), changed <-chan struct{}) *operation {
	return op("s", "GET", "/s", func(_ context.Context, r *request) (response, error) {
		r.add("Content-Type", "text/event-stream")
		return response{status: http.StatusOK, stream: &stream{changed: changed, read: read, leave: func() {}}}, nil
	}, streaming, answers([]int{200}, errcode.SYS001, errcode.SYS002))
}

// A stream whose order changes all the time ends with the server, too: within two of its writes, each of which its client takes after 9 s.
func TestAStreamWithNewsEndsWithTheServer(t *testing.T) {
	t.Parallel()
	changed := make(chan struct{})
	close(changed)
	for range 20 { // a select with two ways takes either
		synctest.Test(t, func(t *testing.T) {
			sequence := int64(0)
			s := smallServer(t, streamBy(func(context.Context, int64, token.Token) (query.News, error) {
				sequence++
				return query.News{Events: []query.StreamEvent{{Sequence: sequence, Type: "x", Data: []byte("{}")}}}, nil
			}, changed))
			connect, stop := openPipe(t, s)
			client := connect()
			_, _ = io.WriteString(client, "GET /s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+testKey+"\r\n\r\n")
			done := make(chan struct{})
			go func() {
				defer close(done)
				for b := make([]byte, 64<<10); ; <-time.After(9 * time.Second) {
					if _, err := client.Read(b); err != nil {
						return
					}
				}
			}()
			<-time.After(20 * time.Second)
			begin := time.Now()
			if stop(); time.Since(begin) > 20*time.Second {
				t.Errorf("it ended after %v", time.Since(begin))
			}
			_ = client.Close()
			<-done
		})
	}
}

// A stream that fails behind its head has told its client 200: the log alone says what became of it.
func TestAStreamThatFailsIsLogged(t *testing.T) {
	t.Parallel()
	down := apierr.E(errcode.SYS002, apierr.Cause(errRead))
	final, pages := query.News{Final: true}, func() (query.News, error) { <-time.After(9 * time.Second); return query.News{More: true}, nil }
	type read = func() (query.News, error)
	fails := func() (query.News, error) { return query.News{}, down }
	for name, c := range map[string]struct {
		reads  []read // the last one for ever
		leave  time.Duration
		stop   time.Duration
		level  string
		code   string
		cause  string // a part of it
		end    string
		status string // in metrics
	}{
		"it panics":                          {[]read{func() (query.News, error) { panic("a bug") }}, 0, 0, "error", "SYS_001", "stream_test.go", "", "2xx"},
		"it panics when its client has gone": {[]read{func() (query.News, error) { <-time.After(30 * time.Second); panic("a bug") }}, 20 * time.Second, 0, "error", "SYS_001", "stream_test.go", "", "client_gone"},
		"no read works any more":             {[]read{fails}, 0, 0, "error", "SYS_002", errRead.Error(), "reconnect", "2xx"},
		"a read fails once":                  {[]read{fails, func() (query.News, error) { return final, nil }}, 0, 0, "info", "", errRead.Error(), "terminal", "2xx"},
		"its client goes meanwhile":          {[]read{fails}, 20 * time.Second, 0, "info", "", errRead.Error(), "", "client_gone"},
		"the server stops meanwhile":         {[]read{fails}, 0, 20 * time.Second, "info", "", errRead.Error(), "draining", "2xx"},
		"nothing happens":                    {[]read{func() (query.News, error) { return query.News{}, nil }}, 0, 0, "info", "", "", "reconnect", "2xx"},
		"its pages have no end":              {[]read{pages}, 0, 0, "info", "", "", "reconnect", "2xx"},
		"the server stops between pages":     {[]read{pages}, 0, 20 * time.Second, "info", "", "", "draining", "2xx"},
		"it ends":                            {[]read{func() (query.News, error) { return final, nil }}, 0, 0, "info", "", "", "terminal", "2xx"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				core, logged := observer.New(zap.InfoLevel)
				reads := c.reads
				s := smallServer(t, streamBy(func(context.Context, int64, token.Token) (query.News, error) {
					next := reads[0]
					reads = reads[min(1, len(reads)-1):]
					return next()
				}, nil))
				s.cfg.Log = zap.New(core)
				connect, stop := openPipe(t, s)
				client := connect()
				defer stop()
				if c.leave > 0 {
					time.AfterFunc(c.leave, func() { client.Close() })
				}
				if c.stop > 0 {
					time.AfterFunc(c.stop, s.stop)
				}
				_, _ = io.WriteString(client, "GET /s HTTP/1.1\r\nHost: x\r\n\r\n")
				w, err := http.ReadResponse(bufio.NewReader(client), nil)
				if err != nil || w.StatusCode != http.StatusOK || !w.Close || w.Header.Get("X-Trace-Id") == "" || w.Header.Get("Date") == "" {
					t.Fatal(w, err)
				}
				body, err := io.ReadAll(w.Body)
				if got := string(body); strings.Contains(got, "event: end") != (c.end != "") || !strings.Contains(got, c.end) || (err == nil) != (c.end != "") {
					t.Errorf("%q %v", got, err)
				}
				client.Close()
				<-time.After(time.Minute)
				if logged.Len() != 1 {
					t.Fatalf("%d events are logged", logged.Len())
				}
				e := logged.All()[0]
				cause, _ := e.ContextMap()["error"].(string)
				if e.Level.String() != c.level || e.ContextMap()["code"] != c.code || !strings.Contains(cause, c.cause) || (cause == "") != (c.cause == "") ||
					e.ContextMap()["method"] != "GET" || e.ContextMap()["operation"] != "s" || e.ContextMap()["trace_id"] != w.Header.Get("X-Trace-Id") {
					t.Errorf("%s %v", e.Level, e.ContextMap())
				}
				if got := samples(t, s, "ordergate_refusals_total"); got[c.code] != 1 && c.code != "" {
					t.Errorf("refusals: %v", got)
				}
				if got := samples(t, s, "ordergate_stream_seconds"); got["s "+c.status] != 1 || len(got) != 1 {
					t.Errorf("streams: %v", got)
				}
				if got := samples(t, s, "ordergate_streams"); got[""] != 0 {
					t.Errorf("open: %v", got)
				}
			})
		})
	}
}

// What a stream sends behind its head is a body that every client reads, whichever HTTP/1 it speaks.
func TestABodyOfAStream(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 2*maxBuffer)
	const want = ":\n\nevent: token\ndata: {\"token\":\"t\"}\n\nid: 1\nevent: a\ndata: {}\n\nid: 2\nevent: b\ndata: %s\n\nevent: end\ndata: {\"reason\":\"terminal\"}\n\n"
	for protocol, encoding := range map[string][]string{"HTTP/1.1": {"chunked"}, "HTTP/1.0": nil} {
		synctest.Test(t, func(t *testing.T) {
			s := smallServer(t, streamBy(func(context.Context, int64, token.Token) (query.News, error) {
				return query.News{Final: true, Token: "t", Events: []query.StreamEvent{{Sequence: 1, Type: "a", Data: []byte("{}")}, {Sequence: 2, Type: "b", Data: []byte(long)}}}, nil
			}, closedChannel()))
			connect, stop := openPipe(t, s)
			client := connect()
			defer stop()
			_, _ = io.WriteString(client, "GET /s "+protocol+"\r\nHost: x\r\n\r\n")
			w, err := http.ReadResponse(bufio.NewReader(client), nil)
			if err != nil || !slices.Equal(w.TransferEncoding, encoding) {
				t.Fatal(w, err)
			}
			if body, err := io.ReadAll(w.Body); err != nil || string(body) != fmt.Sprintf(want, long) {
				t.Errorf("%s: %q %v", protocol, body, err)
			}
		})
	}
}

func closedChannel() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// A client that does not read is gone after writeWithin. It keeps a server that stops no longer than that, and no other client for a moment.
func TestAStreamWhoseClientDoesNotRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := smallServer(t, streamBy(func(context.Context, int64, token.Token) (query.News, error) { return query.News{}, nil }, nil))
		connect, stop := openPipe(t, s)
		open := func() (net.Conn, *bufio.Reader) {
			client := connect()
			_, _ = io.WriteString(client, "GET /s HTTP/1.1\r\nHost: x\r\n\r\n")
			body := bufio.NewReaderSize(client, 16)
			if w, err := http.ReadResponse(body, nil); err != nil || w.StatusCode != http.StatusOK {
				t.Fatal(err)
			}
			return client, body
		}
		silent, _ := open()
		defer silent.Close()
		client, body := open()
		defer client.Close()
		begin := time.Now()
		go func() {
			if rest, err := io.ReadAll(body); err != nil || !strings.Contains(string(rest), "draining") || time.Since(begin) != 0 {
				t.Errorf("%q after %v, %v", rest, time.Since(begin), err)
			}
		}()
		synctest.Wait()
		if got := samples(t, s, "ordergate_streams"); got[""] != 2 {
			t.Errorf("open: %v", got)
		}
		stop()
		if took := time.Since(begin); took != writeWithin {
			t.Errorf("it is gone after %v", took)
		}
		if got := samples(t, s, "ordergate_stream_seconds"); got["s client_gone"] != 1 || got["s 2xx"] != 1 {
			t.Errorf("streams: %v", got)
		}
	})
}

// A client has nothing to say behind its request. What it says nevertheless is read, a little of it.
func TestAStreamWhoseClientTalks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := smallServer(t, streamBy(func(context.Context, int64, token.Token) (query.News, error) { return query.News{}, nil }, nil))
		connect, stop := openPipe(t, s)
		client := connect()
		defer stop()
		defer client.Close()
		go io.Copy(io.Discard, client)
		_, _ = io.WriteString(client, "GET /s HTTP/1.1\r\nHost: x\r\n\r\n")
		_, _ = io.WriteString(client, "GET /s HTTP/1.1\r\nHost: x\r\n\r\n")
		synctest.Wait()
		if got := samples(t, s, "ordergate_streams"); got[""] != 1 {
			t.Errorf("open: %v", got)
		}
		_, _ = client.Write(make([]byte, 2*maxSaid))
		synctest.Wait()
		if got := samples(t, s, "ordergate_streams"); got[""] != 0 {
			t.Errorf("open: %v", got)
		}
	})
}

// A failure whose client did not wait for it is no error of ours: the client may be what failed it.
func TestAFailureWithoutAClientIsNoError(t *testing.T) {
	t.Parallel()
	for gone, level := range map[bool]zapcore.Level{true: zap.InfoLevel, false: zap.ErrorLevel} {
		ctx, leave := context.WithCancel(t.Context())
		s := smallServer(t, op("p", "POST", "/p", func(context.Context, *request) (response, error) {
			if gone {
				leave()
			}
			return response{}, apierr.E(errcode.SYS002, apierr.Cause(errRead))
		}, answers([]int{200}, errcode.SYS002)))
		core, logged := observer.New(zap.InfoLevel)
		s.cfg.Log = zap.New(core)
		s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodPost, "/p", http.NoBody))
		if logged.Len() != 1 || logged.All()[0].Level != level {
			t.Errorf("gone %v: %v", gone, logged.All())
		}
		leave()
	}
}
