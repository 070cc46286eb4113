package contracttest

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// cors: what a page of an allowed origin may send and read of each operation, as browsers ask for it. No origin is allowed unless an operator says
// so: an address that allows none that is known here is not asked.
func (s *suite) cors(ctx context.Context) {
	origin := s.allowedOrigin(ctx)
	if origin == "" {
		return
	}
	for _, id := range s.operationIDs() {
		op := s.contract.operations[id]
		if ctx.Err() != nil {
			return
		}
		s.preflighted(ctx, op, origin)
		refused := call{op: id, arg: s.madeUp(op.pathParameter())}.with("Accept", "image/png", "Origin", origin) // a page must see why
		if r, ok := s.send(ctx, refused); ok {
			s.shownTo(r, origin)
		}
	}
	reading := call{op: "listProducts", query: values("limit", "1")}
	for _, c := range []call{
		reading, reading.with("Authorization", ""), {op: "getProduct", arg: s.madeUp("sku")}, {method: http.MethodGet, path: "/v1/nothing-of-this-name"},
	} {
		if r, ok := s.send(ctx, c.with("Origin", origin)); ok {
			s.shownTo(r, origin)
		}
	}
	s.otherOrigins(ctx, reading, origin)
}

// allowedOrigin is Options.Origin, or one of those that an installation may allow, if the address allows it.
func (s *suite) allowedOrigin(ctx context.Context) string {
	tried := []string{"http://localhost:3000", s.BaseURL, s.foreignOrigin()}
	if s.Origin != "" {
		tried = []string{s.Origin}
	}
	for _, origin := range tried {
		if r, ok := s.preflight(ctx, s.contract.operations["listProducts"], origin); ok && allows(r, origin) {
			return origin
		}
	}
	s.skipf("the address allows no page of %s: --origin", strings.Join(tried, ", "))
	return ""
}

// foreignOrigin is one that nobody can have allowed by its name.
func (s *suite) foreignOrigin() string { return "https://" + s.ref + ".invalid" }

// allows tells whether a browser would show an answer to a page of an origin.
func allows(r reply, origin string) bool {
	allowed := r.header.Values("Access-Control-Allow-Origin")
	return len(allowed) == 1 && (allowed[0] == origin || allowed[0] == "*")
}

// preflight asks as a browser does before it sends a request of an operation, without a key.
func (s *suite) preflight(ctx context.Context, op *operation, origin string) (reply, bool) {
	headers := strings.ToLower(strings.Join(op.sendable(), ","))
	path := templated.ReplaceAllLiteralString(op.path, url.PathEscape(s.madeUp(op.pathParameter())))
	return s.send(ctx, call{method: http.MethodOptions, path: path}.with(
		"Authorization", "", "X-Trace-ID", "", "Origin", origin, "Access-Control-Request-Method", op.method, "Access-Control-Request-Headers", headers,
	))
}

// sendable are the headers that the contract lets a page send with an operation, and those of tracing.
func (o *operation) sendable() []string {
	names := strings.Fields("baggage traceparent tracestate")
	if !o.public {
		names = append(names, "Authorization")
	}
	if o.at("requestBody").node != nil {
		names = append(names, "Content-Type")
	}
	for _, p := range o.parameters {
		if p.text("in") == "header" {
			names = append(names, p.text("name"))
		}
	}
	slices.Sort(names)
	return names
}

// preflighted: a preflight needs no key, allows the method and all headers of the operation, and is remembered for 10 minutes.
func (s *suite) preflighted(ctx context.Context, op *operation, origin string) {
	r, ok := s.preflight(ctx, op, origin)
	if !ok {
		return
	}
	s.foundIf(r.status/100 != 2, r, "/status", "of a preflight is not 2xx: a browser sends nothing then")
	s.allowedBy(r, origin)
	methods, headers := listed(r, "Access-Control-Allow-Methods"), listed(r, "Access-Control-Allow-Headers")
	s.foundIf(!methods[strings.ToLower(op.method)], r, "/header/Access-Control-Allow-Methods", "is %q and lacks %s", r.header.Get("Access-Control-Allow-Methods"), op.method)
	for _, name := range op.sendable() {
		s.foundIf(!headers[strings.ToLower(name)], r, "/header/Access-Control-Allow-Headers", "is %q and lacks %s", r.header.Get("Access-Control-Allow-Headers"), name)
	}
	age := r.header.Get("Access-Control-Max-Age")
	s.foundIf(age != "600", r, "/header/Access-Control-Max-Age", "is %q and not 600", age)
}

// shownTo: a page of the origin sees an answer, and can read all headers that the contract names.
func (s *suite) shownTo(r reply, origin string) {
	s.allowedBy(r, origin)
	exposed := listed(r, "Access-Control-Expose-Headers")
	for _, name := range sortedKeys(s.contract.headers) {
		s.foundIf(!exposed[strings.ToLower(name)], r, "/header/Access-Control-Expose-Headers", "is %q and lacks %s", r.header.Get("Access-Control-Expose-Headers"), name)
	}
}

// allowedBy: an answer is for the origin, without cookies, and no cache gives it to a page of another.
func (s *suite) allowedBy(r reply, origin string) {
	s.foundIf(!allows(r, origin), r, "/header/Access-Control-Allow-Origin", "is %q and not %s", r.header.Values("Access-Control-Allow-Origin"), origin)
	credentials := r.header.Get("Access-Control-Allow-Credentials")
	s.foundIf(credentials != "", r, "/header/Access-Control-Allow-Credentials", "is %q, and the contract has no cookies", credentials)
	s.variesBy(r)
}

func (s *suite) variesBy(r reply) {
	vary := listed(r, "Vary")
	all := r.header.Get("Access-Control-Allow-Origin") == "*"
	s.foundIf(!all && !vary["origin"] && !vary["*"], r, "/header/Vary", "is %q and lacks Origin: a cache may give the answer to a page of another origin", r.header.Get("Vary"))
}

// otherOrigins: an answer to nobody's page varies by the origin, too; and unless all origins are allowed, neither one that looks like an allowed one nor
// that of a page without an origin is.
func (s *suite) otherOrigins(ctx context.Context, reading call, origin string) {
	plain, ok := s.send(ctx, reading)
	if !ok {
		return
	}
	foreign := s.foreignOrigin()
	r, ok := s.send(ctx, reading.with("Origin", foreign))
	if !ok || allows(r, foreign) {
		return
	}
	s.variesBy(plain)
	s.variesBy(r)
	host := origin
	if u, err := url.Parse(origin); err == nil {
		host = u.Hostname()
	}
	for _, other := range []string{"null", strings.Replace(origin, host, host+"."+s.ref+".invalid", 1), strings.Replace(origin, host, s.ref+host, 1)} {
		if r, ok = s.send(ctx, reading.with("Origin", other)); ok {
			s.foundIf(allows(r, other), r, "/header/Access-Control-Allow-Origin", "allows %s, which only looks like %s", other, origin)
		}
	}
}

// listed are the words of a header that is a list, in small letters.
func listed(r reply, name string) map[string]bool {
	words := map[string]bool{}
	for _, value := range r.header.Values(name) {
		for word := range strings.SplitSeq(value, ",") {
			words[strings.ToLower(strings.TrimSpace(word))] = true
		}
	}
	return words
}
