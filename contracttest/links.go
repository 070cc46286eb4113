package contracttest

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
)

// links: every address that an answer names leads somewhere: the kinds of problems, and what was made.
func (s *suite) links(ctx context.Context) {
	for _, address := range sortedKeys(s.facts.types) {
		if s.NoPages {
			break
		}
		if r, ok := s.follow(ctx, address); ok {
			s.foundIf(r.status != http.StatusOK || len(r.body) == 0, r, "/status", "is not 200, and the type of a problem leads there")
		}
	}
	places := sortedKeys(s.facts.places)
	for _, address := range places[:min(len(places), maxRelated)] {
		if r, ok := s.follow(ctx, address); ok {
			var o struct{ ID, Sku string }
			decode(r, &o)
			id := s.facts.places[address]
			s.foundIf(r.status != http.StatusOK || cmp.Or(o.ID, o.Sku) != id && !strings.HasPrefix(id, "adj_"), r, "/status", "a Location leads there, to %s, and it is %q", id, cmp.Or(o.ID, o.Sku))
		}
	}
}

// follow asks for an address that an answer named, relative to this one.
func (s *suite) follow(ctx context.Context, address string) (reply, bool) {
	base, _ := url.Parse(s.BaseURL)
	to, err := base.Parse(address)
	if err != nil || to.Host != base.Host {
		s.foundf(reply{call: call{method: http.MethodGet, path: address}}, "", "%q is not an address here", address)
		return reply{}, false
	}
	for id, op := range s.contract.operations {
		if op.method == http.MethodGet && op.address.MatchString(to.EscapedPath()) && op.pathParameter() != "" && strings.HasPrefix(op.path, "/v1/") {
			arg, _ := url.PathUnescape(to.EscapedPath()[strings.LastIndex(to.EscapedPath(), "/")+1:])
			return s.send(ctx, call{op: id, arg: arg})
		}
	}
	// A page for people, which no operation of the contract answers.
	r := s.prepare(ctx, call{method: http.MethodGet, path: to.RequestURI(), header: map[string]string{"Authorization": ""}})
	if errors.Is(r.err, errAskedNoMore) {
		return r, false
	}
	if r.err == nil {
		r.exchange(s.HTTP, s.timeout(r.call))
		s.waitedFor(r, r.took, r.err == nil)
	}
	if r.err != nil {
		s.foundf(r, "", "%v", r.err)
	}
	return r, r.err == nil
}
