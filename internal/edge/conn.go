package edge

import (
	"errors"
	"net"
	"sync"
	"time"
)

// listener accepts connections whose deadlines cost little.
type listener struct{ net.Listener }

// Accept implements net.Listener.
func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c}, nil
}

// conn is a connection on which another deadline costs nothing as a rule. net/http sets eight for each request, and each would move a timer of the
// runtime. Here the timer fires sooner than any of them, about every timerFor, and what it ends too early goes on.
type conn struct {
	net.Conn

	reads, writes deadline
}

// timerFor is not longer than any deadline that net/http sets for each request (Serve).
const timerFor = 5 * time.Second

// Read implements net.Conn.
func (c *conn) Read(p []byte) (n int, err error) {
	for {
		if n, err = c.Conn.Read(p); !timedOut(err) || n > 0 || !c.reads.goesOn(c.Conn.SetReadDeadline) {
			return n, err
		}
	}
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (n int, err error) {
	for {
		var more int
		more, err = c.Conn.Write(p[n:])
		if n += more; !timedOut(err) || !c.writes.goesOn(c.Conn.SetWriteDeadline) {
			return n, err
		}
	}
}

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error { return c.reads.set(t, c.Conn.SetReadDeadline) }

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error { return c.writes.set(t, c.Conn.SetWriteDeadline) }

// CloseWrite ends what is sent and lets the rest be read: net/http closes so a connection whose client is still sending.
func (c *conn) CloseWrite() error {
	if tcp, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return tcp.CloseWrite()
	}
	return errors.ErrUnsupported
}

func timedOut(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// deadline is that of one direction.
type deadline struct {
	mu    sync.Mutex
	at    time.Time // zero: none
	timer time.Time // when the connection's own deadline is; valid while early
	early bool      // that is sooner than at, and may stay for any at that is not sooner
}

// set makes t the deadline. It calls move, which sets the connection's own, only if that would be too late.
func (d *deadline) set(t time.Time, move func(time.Time) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.at = t; d.early && (t.IsZero() || !t.Before(d.timer)) {
		return nil
	}
	if d.timer = time.Now().Add(timerFor); t.IsZero() || t.After(d.timer) {
		d.early = true
		return move(d.timer)
	}
	d.early = false
	return move(t)
}

// goesOn tells whether a call that met the connection's own deadline goes on, and moves that to where it belongs.
func (d *deadline) goesOn(move func(time.Time) error) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.at.IsZero() && !time.Now().Before(d.at) {
		return false
	}
	d.early = false
	return move(d.at) == nil
}
