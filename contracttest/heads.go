package contracttest

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ordergate/ordergate/gen/api"
)

// heads: HEAD answers what GET does, without the body; and no answer that has none by HTTP brings one.
func (s *suite) heads(ctx context.Context, p *placed) {
	s.await(ctx, p, api.OrderStatusConfirmed)
	var obstacle error
	for _, id := range s.operationIDs() {
		op := s.contract.operations[id]
		if op.method != http.MethodGet || id == "streamOrder" {
			continue
		}
		c := call{op: id, arg: s.present(ctx, op)}
		if c.arg == "" && op.pathParameter() != "" {
			continue // the run has none
		}
		got, ok := s.compareHead(ctx, c)
		if !ok {
			continue
		}
		if tag := got.header.Get("ETag"); tag != "" && got.status == http.StatusOK {
			s.unchanged(ctx, c, got)
			s.get(ctx, nil, c.with("If-None-Match", `"of-nothing"`), http.StatusOK)
			if obstacle == nil {
				obstacle = s.notModified(ctx, c, tag)
			}
		}
	}
	if obstacle != nil {
		s.skipf("what follows the headers of a 304 could not be seen: %v", obstacle)
	}
}

// compareHead compares HEAD with GET. Others may change what is read: it counts only between two GETs that agree. The result is the last GET.
func (s *suite) compareHead(ctx context.Context, c call) (got reply, ok bool) {
	got, ok = s.send(ctx, c)
	for end := time.Now().Add(s.Patience); ok; {
		asked := c
		asked.method = http.MethodHead
		head, answered := s.send(ctx, asked)
		if !answered {
			return got, false
		}
		faults := headFaults(head, got)
		if len(faults) == 0 {
			return got, true
		}
		before := got
		if got, ok = s.send(ctx, c); !ok {
			return got, false
		}
		if got.status == before.status && got.header.Get("ETag") == before.header.Get("ETag") && (got.status != http.StatusOK || bytes.Equal(got.body, before.body)) {
			for _, f := range faults {
				s.foundf(head, f.pointer, "%s", f.message)
			}
			return got, true
		}
		if time.Now().After(end) || ctx.Err() != nil {
			s.skipf("HEAD of %s could not be compared with GET: it changed all the time", c.op)
			return got, true
		}
	}
	return got, false
}

// headFaults are the differences between HEAD and GET, but for the body.
func headFaults(head, got reply) (faults []fault) {
	wrong := func(is bool, pointer, format string, args ...any) {
		if is {
			faults = append(faults, fault{pointer, fmt.Sprintf(format, args...)})
		}
	}
	wrong(head.status != got.status, "/status", "of HEAD is not that of GET, %d", got.status)
	wrong(len(head.body) > 0, "/body", "of HEAD has %d bytes", len(head.body))
	for _, name := range []string{"Content-Type", "ETag", "Cache-Control"} {
		wrong(head.header.Get(name) != got.header.Get(name), "/header/"+name, "of HEAD is %q, and %q of GET", head.header.Get(name), got.header.Get(name))
	}
	length, whole := head.header.Get("Content-Length"), got.header.Get("Content-Length")
	wrong(length != "" && whole != "" && length != whole, "/header/Content-Length", "of HEAD is %s, and %s of GET", length, whole)
	for _, name := range []string{"X-Trace-Id", "X-Consistency-Token", "X-Served-By", "Age"} {
		wrong((head.header.Get(name) == "") != (got.header.Get(name) == ""), "/header/"+name, "of HEAD is %q, and %q of GET", head.header.Get(name), got.header.Get(name))
	}
	return faults
}

// present is a value of the parameter in an operation's path that is there; empty if the run has none.
func (s *suite) present(ctx context.Context, op *operation) string {
	switch op.pathParameter() {
	case "sku":
		if g, ok := s.find(ctx); ok {
			return g.main.Sku
		}
	case "code":
		return "REQ_001"
	case "order_id":
		if p, ok := s.ordered(ctx); ok {
			return p.ID
		}
	}
	prefix := map[string]string{"payment_id": "pay_", "refund_id": "ref_", "shipment_id": "shp_"}[op.pathParameter()]
	for _, name := range sortedKeys(s.facts.things) {
		if prefix != "" && strings.HasPrefix(name, prefix) && s.facts.things[name].own {
			return name
		}
	}
	return ""
}

// errChanged says that a read was answered with 200 where its ETag was sent.
var errChanged = errors.New("200 in place of 304")

// notModified looks at a 304 to a read whose answer had an ETag. If others change it meanwhile, it is read again.
func (s *suite) notModified(ctx context.Context, c call, tag string) error {
	for end := time.Now().Add(min(s.Patience, 3*time.Second)); ; {
		err := s.bodiless(ctx, c.with("If-None-Match", tag))
		if !errors.Is(err, errChanged) || time.Now().After(end) {
			return err
		}
		r, ok := s.send(ctx, c)
		if !ok || r.header.Get("ETag") == tag {
			return err
		}
		tag = r.header.Get("ETag")
	}
}

// bodiless sends a request over a connection of its own and looks at every byte that comes: a client of HTTP would not show a body where there
// can be none. An error says why nothing was seen.
func (s *suite) bodiless(ctx context.Context, c call) error {
	s.pace(ctx, c, 1)
	r := s.prepare(ctx, c)
	if r.err != nil {
		return r.err
	}
	address := r.sent.URL.Host
	if r.sent.URL.Port() == "" {
		address = net.JoinHostPort(r.sent.URL.Hostname(), map[string]string{"http": "80", "https": "443"}[r.sent.URL.Scheme])
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err // it is reached by way of a proxy, perhaps
	}
	defer func() { _ = conn.Close() }()
	if r.sent.URL.Scheme == "https" {
		conn = tls.Client(conn, &tls.Config{ServerName: r.sent.URL.Hostname(), MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}})
	}
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	r.sent.Close = true
	if err = r.sent.Write(conn); err != nil {
		return err
	}
	all, err := io.ReadAll(io.LimitReader(conn, 1<<20))
	if err != nil {
		return err
	}
	head, body, whole := bytes.Cut(all, []byte("\r\n\r\n"))
	line, _, _ := bytes.Cut(head, []byte("\r\n"))
	if fields := strings.Fields(string(line)); len(fields) > 1 {
		r.status, _ = strconv.Atoi(fields[1])
	}
	switch {
	case !whole || r.status == 0:
		return fmt.Errorf("no answer of HTTP/1.1: %q", short(string(all)))
	case r.status == http.StatusNotModified || r.status == http.StatusNoContent:
		s.foundIf(len(body) > 0, r, "/body", "a %d has %d bytes behind its headers: %s", r.status, len(body), short(string(body)))
	case r.status == http.StatusOK:
		return errChanged
	default:
		return fmt.Errorf("%d in place of 304", r.status)
	}
	return nil
}
