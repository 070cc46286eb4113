package edge

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ordergate/ordergate/gen/errcode"
)

// moves counts how often a connection's own deadlines are set.
type moves struct {
	net.Conn

	n int
}

func (m *moves) SetReadDeadline(t time.Time) error  { m.n++; return m.Conn.SetReadDeadline(t) }
func (m *moves) SetWriteDeadline(t time.Time) error { m.n++; return m.Conn.SetWriteDeadline(t) }

// onPipe runs a test on both ends of a pipe, in a bubble whose time passes when all wait.
func onPipe(t *testing.T, test func(c *conn, peer net.Conn)) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		ours, peer := net.Pipe()
		c := &conn{Conn: &moves{Conn: ours}}
		defer func() { _, _ = c.Close(), peer.Close() }()
		test(c, peer)
	})
}

// read returns how long a Read took, and its error.
func read(c *conn) (time.Duration, error) {
	begin := time.Now()
	_, err := c.Read(make([]byte, 1))
	return time.Since(begin), err
}

func TestADeadlineEndsACall(t *testing.T) {
	for _, after := range []time.Duration{-time.Hour, 0, time.Millisecond, timerFor - 1, timerFor, timerFor + 1, 3 * timerFor, time.Hour} {
		for name, before := range map[string]time.Duration{"first": 0, "after a later one": 2 * time.Hour, "after a sooner one": 2 * time.Millisecond, "after one that was met": -1} {
			onPipe(t, func(c *conn, _ net.Conn) {
				if before != 0 {
					_ = c.SetDeadline(time.Now().Add(before))
				}
				if before < 0 {
					if _, err := read(c); !errors.Is(err, os.ErrDeadlineExceeded) {
						t.Fatal(name, err)
					}
				}
				_ = c.SetDeadline(time.Now().Add(after))
				for range 2 { // a deadline that was met holds until another one is set
					if took, err := read(c); took != max(0, after) || !errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("%s: a Read with a deadline in %v ended after %v with %v", name, after, took, err)
					}
					after = 0
				}
			})
		}
		onPipe(t, func(c *conn, _ net.Conn) {
			begin := time.Now()
			_ = c.SetDeadline(begin.Add(after))
			n, err := c.Write(make([]byte, 10))
			if took := time.Since(begin); n != 0 || took != max(0, after) || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("a Write with a deadline in %v wrote %d bytes and ended after %v with %v", after, n, took, err)
			}
		})
	}
}

func TestADeadlineEndsACallThatHasBegun(t *testing.T) {
	onPipe(t, func(c *conn, _ net.Conn) {
		_ = c.SetReadDeadline(time.Now().Add(time.Hour))
		go func() {
			<-time.After(3 * timerFor)
			_ = c.SetReadDeadline(time.Unix(1, 0)) // as net/http ends a read
		}()
		if took, err := read(c); took != 3*timerFor || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("it ended after %v with %v", took, err)
		}
	})
}

func TestWithoutADeadlineACallGoesOn(t *testing.T) {
	onPipe(t, func(c *conn, peer net.Conn) {
		_ = c.SetDeadline(time.Now().Add(time.Hour))
		_ = c.SetDeadline(time.Time{})
		go func() {
			<-time.After(10 * time.Hour)
			_, _ = peer.Write([]byte("x"))
			for range 3 { // a Write of which the peer takes a part now and then
				<-time.After(2 * timerFor)
				_, _ = io.ReadFull(peer, make([]byte, 1))
			}
		}()
		if took, err := read(c); took != 10*time.Hour || err != nil {
			t.Errorf("a Read ended after %v with %v", took, err)
		}
		if n, err := c.Write([]byte("abc")); n != 3 || err != nil {
			t.Errorf("a Write wrote %d bytes and ended with %v", n, err)
		}
	})
}

// The deadlines of net/http for one request after another, each answered at once.
func TestRequestsSetFewDeadlines(t *testing.T) {
	onPipe(t, func(c *conn, peer net.Conn) {
		const requests = 100
		for range requests {
			in := func(d time.Duration) time.Time { return time.Now().Add(d) }
			go func() { _, _ = peer.Write([]byte("x")) }()
			if _, err := read(c); err != nil {
				t.Fatal(err)
			}
			_ = c.SetReadDeadline(in(5 * time.Second))
			_ = c.SetReadDeadline(in(20 * time.Second))
			_ = c.SetWriteDeadline(in(30 * time.Second))
			_ = c.SetReadDeadline(time.Time{})
			_ = c.SetReadDeadline(time.Unix(1, 0))
			if _, err := read(c); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
			_ = c.SetReadDeadline(time.Time{})
			_ = c.SetWriteDeadline(time.Time{})
			_ = c.SetReadDeadline(in(2 * time.Minute))
			<-time.After(time.Millisecond)
		}
		m, _ := c.Conn.(*moves)
		if m.n > 2*requests+5 {
			t.Errorf("%d requests set %d deadlines", requests, m.n)
		}
	})
}

// A client that sends its body for longer than a server takes to stop is answered, and keeps nobody.
func TestAServerThatStopsHurriesClientsThatSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := smallServer(t, op("w", "POST", "/w", decoder, answers([]int{200}, errcode.SYS005), taking("application/json", true, anObject)))
		connect, stop := openPipe(t, s)
		client := connect()
		defer client.Close()
		_, _ = io.WriteString(client, "POST /w HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer "+testKey+"\r\nContent-Length: 1000\r\n\r\n")
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				if _, err := io.WriteString(client, " "); err != nil {
					return
				}
				<-time.After(500 * time.Millisecond)
			}
		}()
		answer := make(chan string, 1)
		go func() {
			w, err := http.ReadResponse(bufio.NewReader(client), nil)
			if err != nil {
				answer <- err.Error()
				return
			}
			text, _ := io.ReadAll(w.Body)
			answer <- string(text)
		}()
		synctest.Wait()
		begin := time.Now()
		stop()
		if took := time.Since(begin); took < bodyWithin || took > 15*time.Second {
			t.Errorf("it stopped after %v", took)
		}
		if got := <-answer; !strings.Contains(got, "SYS_005") {
			t.Errorf("the client got %q", got)
		}
		if got := samples(t, s, "ordergate_request_seconds"); got["w 5xx"] != 1 { // the client was there
			t.Errorf("counted as %v", got)
		}
		<-done
	})
}

// Neither is a client that does not take its response an error of the stop.
func TestAServerThatStopsLeavesClientsThatDoNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := smallServer(t, op("w", "GET", "/w", func(context.Context, *request) (response, error) {
			return response{status: http.StatusOK, contentType: "application/json", body: "{}"}, nil
		}, answers([]int{200}, errcode.SYS005)))
		connect, stop := openPipe(t, s)
		client := connect()
		defer client.Close()
		_, _ = io.WriteString(client, "GET /w HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+testKey+"\r\n\r\n")
		synctest.Wait()
		begin := time.Now()
		stop() // fails on an error
		if took := time.Since(begin); took > 15*time.Second {
			t.Errorf("it stopped after %v", took)
		}
	})
}

// A request whose body has ended by then is finished, and its client is not taken for gone.
func TestAServerThatStopsFinishesWhatHasArrived(t *testing.T) {
	for name, last := range map[string]time.Duration{"just before the end": bodyWithin - 100*time.Millisecond, "at the end": bodyWithin - 1, "long before": time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s := smallServer(t, op("w", "POST", "/w", func(ctx context.Context, r *request) (response, error) {
				w, err := decoder(ctx, r)
				<-time.After(1200 * time.Millisecond)
				return w, errors.Join(err, ctx.Err())
			}, answers([]int{200}, errcode.SYS005), taking("application/json", true, anObject)))
			connect, stop := openPipe(t, s)
			client := connect()
			defer client.Close()
			_, _ = io.WriteString(client, "POST /w HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer "+testKey+"\r\nContent-Length: 2\r\n\r\n{")
			answer := make(chan int, 1)
			go func() {
				<-time.After(last)
				_, _ = io.WriteString(client, "}")
				w, err := http.ReadResponse(bufio.NewReader(client), nil)
				if err != nil {
					t.Error(name, err)
					answer <- 0
					return
				}
				_, _ = io.Copy(io.Discard, w.Body)
				answer <- w.StatusCode
			}()
			synctest.Wait()
			stop()
			if got := <-answer; got != http.StatusOK {
				t.Errorf("%s: %d", name, got)
			}
			if got := samples(t, s, "ordergate_request_seconds"); got["w 2xx"] != 1 {
				t.Errorf("%s: %v", name, got)
			}
		})
	}
}

// A client that closes its sending half may still read; one that is gone is no mistake of ours.
func TestAStreamWhoseClientLeavesDuringTheFirstRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := smallServer(t, op("s", "GET", "/s", func(ctx context.Context, r *request) (response, error) {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return response{}, ctx.Err()
			}
			return response{status: http.StatusNoContent}, nil
		}, streaming, answers([]int{204}, errcode.SYS001)))
		connect, stop := openPipe(t, s)
		client := connect()
		_, _ = io.WriteString(client, "GET /s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+testKey+"\r\n\r\n")
		<-time.After(time.Millisecond)
		_ = client.Close()
		<-time.After(2 * time.Second)
		stop()
		if got := samples(t, s, "ordergate_undeclared_answers_total"); len(got) != 0 {
			t.Errorf("%v", got)
		}
	})
}
