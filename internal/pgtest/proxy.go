package pgtest

import (
	"bytes"
	"errors"
	"net"
	"net/url"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// TCPProxy stands between a client and a server and breaks what is between them. Its methods may be called at any time.
type TCPProxy struct {
	t      testing.TB
	addr   string // of us
	server string

	mu       sync.Mutex
	listener net.Listener // nil: cut
	open     map[*tunnel]bool
	thawed   chan struct{} // closed: bytes pass
	trap     []byte
	before   bool // the trap's bytes do not reach the server
	sprung   chan struct{}
}

// tunnel is one connection through the proxy.
type tunnel struct{ client, server *net.TCPConn }

func (u *tunnel) close() { _, _ = u.client.Close(), u.server.Close() }

// Proxy puts a proxy before the server of a URL, until the end of the test, and returns the URL that leads through it.
func Proxy(t testing.TB, address string) (*TCPProxy, string) {
	t.Helper()
	u, err := url.Parse(address)
	must(t, "read the address", err)
	p := &TCPProxy{t: t, addr: "127.0.0.1:0", server: u.Host, open: map[*tunnel]bool{}, thawed: make(chan struct{})}
	close(p.thawed)
	p.Heal()
	t.Cleanup(p.Cut)
	u.Host = p.addr
	return p, u.String()
}

// BehindProxy connects to the primary through a proxy, until the end of the test.
func (db *DB) BehindProxy(t testing.TB) (*TCPProxy, *pgxpool.Pool) {
	t.Helper()
	p, url := Proxy(t, db.PrimaryURL)
	pool, err := pgxpool.New(t.Context(), url)
	must(t, "connect", err)
	t.Cleanup(func() {
		p.Cut() // else closing the pool waits for a frozen connection
		pool.Close()
	})
	return p, pool
}

// Cut drops all connections and refuses new ones, until Heal.
func (p *TCPProxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		p.listener.Close()
		p.listener = nil
	}
	for u := range p.open {
		_ = u.client.SetLinger(0) // reset, as by a host that lost its state
		u.close()
	}
	p.thaw() // what was held back finds its connection closed
}

// Freeze keeps connections and accepts new ones, but no byte passes in either direction, until Heal.
func (p *TCPProxy) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.thawed:
		p.thawed = make(chan struct{})
	default:
	}
}

// Heal ends Cut and Freeze. What a freeze held back passes now.
func (p *TCPProxy) Heal() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.thaw()
	if p.listener != nil {
		return
	}
	for deadline := time.Now().Add(bound); ; time.Sleep(10 * time.Millisecond) {
		l, err := net.Listen("tcp", p.addr)
		if err == nil {
			p.listener, p.addr = l, l.Addr().String()
			go p.accept(l)
			return
		} else if !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(deadline) {
			p.t.Errorf("pgtest: proxy: %v", err)
			return
		}
	}
}

func (p *TCPProxy) thaw() {
	select {
	case <-p.thawed:
	default:
		close(p.thawed)
	}
}

// CutAfter waits for the next bytes from a client that contain this text (as it is on the wire: pgx ends a transaction with
// "commit\x00"; "commit" alone stands in its BEGIN, too). They reach the server, which acts on them, but its answer does not pass: the client's connection is dropped instead,
// when the server has finished with it. Then the returned channel is closed; other connections go on.
func (p *TCPProxy) CutAfter(text string) <-chan struct{} { return p.set(text, false) }

// CutBefore is CutAfter, but the bytes do not reach the server either.
func (p *TCPProxy) CutBefore(text string) <-chan struct{} { return p.set(text, true) }

func (p *TCPProxy) set(text string, before bool) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trap, p.before, p.sprung = []byte(text), before, make(chan struct{})
	return p.sprung
}

func (p *TCPProxy) accept(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.server)
		if err != nil {
			client.Close()
			continue
		}
		u := &tunnel{client.(*net.TCPConn), server.(*net.TCPConn)}
		p.mu.Lock()
		if p.listener == l {
			p.open[u] = true
			go p.carry(u)
		} else {
			u.close() // cut meanwhile
		}
		p.mu.Unlock()
	}
}

// carry passes bytes until either side ends.
func (p *TCPProxy) carry(u *tunnel) {
	muted := make(chan chan struct{}, 1) // holds the channel to close once the server has ended
	go func() {
		defer func() { _ = u.server.CloseWrite() }()
		p.pass(u.client, func(b []byte) error {
			sprung, before := p.spring(b)
			if sprung != nil {
				muted <- sprung // before the server can answer
			}
			var err error
			if !before {
				_, err = u.server.Write(b)
			}
			if sprung != nil {
				err = errors.Join(err, net.ErrClosed) // say no more, and let the server finish
			}
			return err
		})
	}()
	var sprung chan struct{}
	p.pass(u.server, func(b []byte) error {
		select {
		case sprung = <-muted:
		default:
		}
		if sprung != nil {
			return nil
		}
		_, err := u.client.Write(b)
		return err
	})
	u.close()
	p.mu.Lock()
	delete(p.open, u)
	p.mu.Unlock()
	select {
	case sprung = <-muted:
	default:
	}
	if sprung != nil {
		close(sprung)
	}
}

// pass hands what it reads to write, unless frozen, until either fails.
func (p *TCPProxy) pass(from net.Conn, write func([]byte) error) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		thawed := p.thawed
		p.mu.Unlock()
		<-thawed
		if n > 0 {
			err = errors.Join(err, write(buf[:n]))
		}
		if err != nil {
			return
		}
	}
}

// spring disarms the trap if these bytes contain its text, and returns the channel to close then and whether the bytes stop here.
func (p *TCPProxy) spring(b []byte) (sprung chan struct{}, before bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.trap != nil && bytes.Contains(b, p.trap) {
		p.trap, sprung, before = nil, p.sprung, p.before
	}
	return sprung, before
}
