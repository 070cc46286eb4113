package pgtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net"
	"net/url"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// TCPProxy passes bytes between clients and a server, and breaks their connections on demand. Its methods are safe for concurrent use.
type TCPProxy struct {
	t      testing.TB
	addr   string // of us
	server string

	mu       sync.Mutex
	listener net.Listener // nil after Cut
	open     map[*tunnel]bool
	frozen   bool
	thawed   *sync.Cond    // with mu: frozen is over
	pattern  []byte        // the text of CutAfter and CutBefore
	before   bool          // CutBefore
	matched  chan struct{} // their result
}

// tunnel is one connection through the proxy.
type tunnel struct {
	client, server *net.TCPConn
	matched        chan struct{} // closed at the end; not nil after a match, when the client hears no more
}

func (u *tunnel) close() { _, _ = u.client.Close(), u.server.Close() }

// Proxy starts a proxy for the server of a URL and returns it with the URL that leads through it. It ends with the test.
func Proxy(t testing.TB, address string) (*TCPProxy, string) {
	t.Helper()
	u, err := url.Parse(address)
	must(t, "read the address", err)
	p := &TCPProxy{t: t, addr: "127.0.0.1:0", server: u.Host, open: map[*tunnel]bool{}}
	p.thawed = sync.NewCond(&p.mu)
	p.Heal()
	t.Cleanup(p.Cut)
	u.Host = p.addr
	return p, u.String()
}

// BehindProxy makes a pool that connects to the primary through a proxy. Both end with the test.
func (db *DB) BehindProxy(t testing.TB) (*TCPProxy, *pgxpool.Pool) {
	t.Helper()
	p, url := Proxy(t, db.PrimaryURL)
	pool, err := pgxpool.New(t.Context(), url)
	must(t, "connect", err)
	t.Cleanup(func() {
		p.Cut() // else closing the pool would wait for a frozen connection
		pool.Close()
	})
	return p, pool
}

// Cut drops all connections and refuses new ones, until Heal.
func (p *TCPProxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
	for u := range p.open {
		_ = u.client.SetLinger(0) // reset, as by a host that lost its state
		u.close()
	}
	p.thaw() // the bytes that were held back meet a closed connection
}

// Freeze keeps connections and accepts new ones, but no byte passes in either direction, until Heal.
func (p *TCPProxy) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = true
}

// Heal ends Cut and Freeze. The bytes that a freeze held back pass now.
func (p *TCPProxy) Heal() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.thaw()
	if p.listener != nil {
		return
	}
	for deadline, tick := time.Now().Add(bound), time.Tick(10*time.Millisecond); ; <-tick {
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
	p.frozen = false
	p.thawed.Broadcast()
}

// PipelinedCommit is the text, for CutAfter and CutBefore, with which pgx sends COMMIT among other statements: the name under which it was prepared.
var PipelinedCommit = func() string {
	sum := sha256.Sum256([]byte("commit"))
	return "\x00stmtcache_" + hex.EncodeToString(sum[:24]) + "\x00"
}()

// CutAfter drops the connection of the client that next sends bytes with this text (as on the wire: pgx ends a transaction with
// "commit\x00"; "commit" alone is in its BEGIN, too). The bytes reach the server, which acts on them; its reply does not reach the
// client. The returned channel is closed once the server has ended the connection. Other connections are untouched.
func (p *TCPProxy) CutAfter(text string) <-chan struct{} { return p.cutAt(text, false) }

// CutBefore is CutAfter, but the bytes do not reach the server either.
func (p *TCPProxy) CutBefore(text string) <-chan struct{} { return p.cutAt(text, true) }

func (p *TCPProxy) cutAt(text string, before bool) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pattern, p.before, p.matched = []byte(text), before, make(chan struct{})
	return p.matched
}

func (p *TCPProxy) accept(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.server)
		if err != nil {
			_ = client.Close()
			continue
		}
		u := &tunnel{client: client.(*net.TCPConn), server: server.(*net.TCPConn)} //nolint:forcetypeassert // network "tcp" gives no others
		p.mu.Lock()
		if p.listener == l {
			p.open[u] = true
			go p.carry(u)
		} else {
			u.close() // Cut came between
		}
		p.mu.Unlock()
	}
}

// carry passes bytes until either side ends.
func (p *TCPProxy) carry(u *tunnel) {
	go func() {
		defer func() { _ = u.server.CloseWrite() }()
		p.pass(u.client, func(b []byte) (err error) {
			matched, before := p.match(u, b)
			if !before {
				_, err = u.server.Write(b)
			}
			if matched {
				err = errors.Join(err, net.ErrClosed) // sends no more; the server finishes
			}
			return err
		})
	}()
	p.pass(u.server, func(b []byte) (err error) {
		if p.matchOf(u) == nil {
			_, err = u.client.Write(b)
		}
		return err
	})
	u.close()
	if matched := p.matchOf(u); matched != nil {
		close(matched)
	}
	p.mu.Lock()
	delete(p.open, u)
	p.mu.Unlock()
}

func (p *TCPProxy) matchOf(u *tunnel) chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return u.matched
}

// pass reads and writes until either fails, and waits between them while frozen.
func (p *TCPProxy) pass(from net.Conn, write func([]byte) error) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		for p.frozen {
			p.thawed.Wait()
		}
		p.mu.Unlock()
		if n > 0 {
			err = errors.Join(err, write(buf[:n]))
		}
		if err != nil {
			return
		}
	}
}

// match mutes the tunnel if these bytes contain the text of cutAt, once, and tells whether they stop here.
func (p *TCPProxy) match(u *tunnel, b []byte) (matched, before bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pattern == nil || !bytes.Contains(b, p.pattern) {
		return false, false
	}
	p.pattern, u.matched = nil, p.matched
	return true, p.before
}
