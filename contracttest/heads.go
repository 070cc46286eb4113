package contracttest

import (
	"bytes"
	"context"
	"crypto/tls"
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
		got, ok := s.send(ctx, c)
		if !ok {
			continue
		}
		c.method = http.MethodHead
		head, ok := s.send(ctx, c)
		if !ok {
			continue
		}
		s.foundIf(head.status != got.status, head, "/status", "of HEAD is not that of GET, %d", got.status)
		s.foundIf(len(head.body) > 0, head, "/body", "of HEAD has %d bytes", len(head.body))
		for _, name := range []string{"Content-Type", "ETag", "Cache-Control"} {
			s.foundIf(head.header.Get(name) != got.header.Get(name), head, "/header/"+name, "of HEAD is %q, and %q of GET", head.header.Get(name), got.header.Get(name))
		}
		length, whole := head.header.Get("Content-Length"), got.header.Get("Content-Length")
		s.foundIf(length != "" && whole != "" && length != whole, head, "/header/Content-Length", "of HEAD is %s, and %s of GET", length, whole)
		for _, name := range []string{"X-Trace-Id", "X-Consistency-Token", "X-Served-By", "Age"} {
			s.foundIf((head.header.Get(name) == "") != (got.header.Get(name) == ""), head, "/header/"+name, "of HEAD is %q, and %q of GET", head.header.Get(name), got.header.Get(name))
		}
		if tag := got.header.Get("ETag"); tag != "" && got.status == http.StatusOK {
			c.method = ""
			s.unchanged(ctx, c, got)
			s.get(ctx, nil, c.with("If-None-Match", `"of-nothing"`), http.StatusOK)
			if obstacle == nil {
				obstacle = s.bodiless(ctx, c.with("If-None-Match", tag))
			}
		}
	}
	if obstacle != nil {
		s.skipf("what follows the headers of a 304 could not be seen: %v", obstacle)
	}
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
	case r.status != http.StatusOK: // it has changed meanwhile
		return fmt.Errorf("%d in place of 304", r.status)
	}
	return nil
}
