package contracttest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
)

// document: the address publishes the suite's contract, in both notations.
func (s *suite) document(ctx context.Context) {
	for _, as := range [][2]string{{"getOpenAPIJSON", "json"}, {"getOpenAPIYAML", "yaml"}} {
		c := call{op: as[0]}
		if r, ok := s.get(ctx, nil, c, http.StatusOK); ok {
			document, err := readBody(as[1], r.body)
			s.foundIf(err != nil, r, "/body", "cannot be decoded: %v", err)
			published := &contract{closed: jsonOf(document)}
			version, own := published.at("info", "version").node, s.contract.at("info", "version").node
			s.foundIf(version != own, r, "/body/info/version", "is %#v, and that of the suite's contract is %#v", version, own)
			s.foundIf(version == own && !reflect.DeepEqual(published.closed, s.contract.document),
				r, "/body", "differs from the suite's contract, of the same version")
			s.unchanged(ctx, c, r)
		}
	}
}

// readRegistry keeps the registry, which every refusal is held against. An address that has none, nor a refusal of ours, ends the run.
func (s *suite) readRegistry(ctx context.Context) {
	var list api.ErrorCodeList
	r, _ := s.get(ctx, &list, call{op: "listErrors"}, http.StatusOK)
	if r.sent != nil && len(list.Data) == 0 && !slices.Contains(r.op.codes, r.problem.Code) {
		s.dead = true
		s.reason = fmt.Sprintf("there is no Ordergate at %s: %v", s.BaseURL, cmp.Or(r.err, errors.New("it has no registry of error codes")))
	}
	s.registry = map[string]api.ErrorCode{}
	for _, e := range list.Data {
		s.registry[e.Code] = e
	}
}

// errorRegistry: every code can be read, and the contract uses no other and none with another status.
func (s *suite) errorRegistry(ctx context.Context) {
	var list api.ErrorCodeList
	listing := call{op: "listErrors"}
	r, ok := s.get(ctx, &list, listing, http.StatusOK)
	if !ok {
		return
	}
	s.unchanged(ctx, listing, r)
	s.foundIf(list.NextCursor != nil, r, "/body/next_cursor", "is not null, and listErrors takes no cursor")
	for i, e := range list.Data {
		at := "/body/data/" + strconv.Itoa(i)
		known, ok := errcode.Lookup(errcode.Code(e.Code))
		s.foundIf(ok && (known.Status != int(e.Status) || known.Retryable != e.Retryable),
			r, at, "%s is %d, retryable %v, and was %d, %v when the suite was built", e.Code, e.Status, e.Retryable, known.Status, known.Retryable)
		twice := slices.ContainsFunc(list.Data[:i], func(other api.ErrorCode) bool { return other.Code == e.Code })
		s.foundIf(twice, r, at+"/code", "%q is listed twice", e.Code)
		one := call{op: "getError", arg: e.Code}
		var same api.ErrorCode
		got, ok := s.get(ctx, &same, one, http.StatusOK)
		s.foundIf(ok && !reflect.DeepEqual(same, e), got, "/body", "differs from the entry of the list")
		if ok && i == 0 {
			s.unchanged(ctx, one, got)
		}
	}
	used := s.contract.at("x-error-codes").texts()
	for id, op := range s.contract.operations {
		for _, code := range op.codes {
			used = append(used, code)
			e, ok := s.registry[code]
			about := reply{call: call{op: id}, request: op.method + " " + op.path}
			s.foundIf(!ok, about, "", "its code %s is not in the registry that the address publishes", code)
			s.foundIf(ok && op.at("responses", strconv.Itoa(int(e.Status))).node == nil,
				about, "/status", "%d of its code %s is not declared", e.Status, code)
		}
	}
	for _, e := range list.Data {
		s.foundIf(!slices.Contains(used, e.Code) && e.Rejection == nil,
			r, "/body/data", "has %q, which no operation answers and no order is rejected with", e.Code)
	}
	s.refused(ctx, errcode.REQ005, call{op: "getError", arg: "ZZZ_999"})
	s.refused(ctx, errcode.REQ003, call{op: "getError", arg: "not a code"}, "/path/code")
}

// unknownKey has the shape of a key.
const unknownKey = "og_test_unknown-unknown-unknown-unknown-unknown"

// addresses: an unknown address is REQ_005, in the caller's language and with the caller's trace id.
func (s *suite) addresses(ctx context.Context) {
	for _, header := range []map[string]string{
		nil, {"Authorization": ""},
		{"Accept-Language": "zh-CN"}, {"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.8"}, {"Accept-Language": "en-GB, zh;q=0.1"},
	} {
		s.refused(ctx, errcode.REQ005, call{method: http.MethodGet, path: "/v1/nothing-of-this-name", header: header})
	}
	byPath := map[string][]string{}
	for _, op := range s.contract.operations {
		byPath[op.path] = append(byPath[op.path], op.method)
	}
	for _, path := range sortedKeys(byPath) {
		s.wrongMethod(ctx, path, byPath[path])
	}
	const id = "4bf92f3577b34da6a3ce929d0e0e4736"
	for _, c := range []struct {
		name, value, want string
	}{
		{"X-Trace-ID", "spaces are not allowed", ""},
		{"X-Trace-ID", strings.Repeat("x", 65), ""},
		{"X-Trace-ID", strings.Repeat("x", 300), ""},
		{"Uber-Trace-Id", id + ":00f067aa0ba902b7:0:1", id},
		{"Traceparent", "00-" + id + "-00f067aa0ba902b7-01", id},
	} {
		r, ok := s.get(ctx, nil, call{op: "listErrors"}.with("X-Trace-ID", "", c.name, c.value), http.StatusOK)
		got := r.header.Get("X-Trace-ID")
		s.foundIf(ok && (c.want != "" && got != c.want || got == c.value), r, "/header/X-Trace-ID", "is %q where %s was %q", got, c.name, c.value)
	}
}

// wrongMethod sends a method that a path does not have: 405, and Allow names at least those of the contract.
func (s *suite) wrongMethod(ctx context.Context, path string, declared []string) {
	has := func(method string) bool { return slices.Contains(declared, method) }
	others := slices.DeleteFunc([]string{http.MethodPatch, http.MethodPut, http.MethodDelete}, has)
	if len(others) == 0 {
		return
	}
	r := s.refused(ctx, errcode.REQ006, call{method: others[0], path: templated.ReplaceAllString(path, "any")})
	if r.status != http.StatusMethodNotAllowed {
		return
	}
	var body struct{ Allowed []string }
	decode(r, &body)
	allow := strings.FieldsFunc(r.header.Get("Allow"), func(c rune) bool { return c == ',' || c == ' ' })
	for _, m := range declared {
		s.foundIf(!slices.Contains(allow, m), r, "/header/Allow", "does not name %s", m)
	}
	for _, m := range allow {
		known := has(m) || m == http.MethodOptions || m == http.MethodHead && has(http.MethodGet)
		s.foundIf(!known, r, "/header/Allow", "names %s, and the contract has it not there", m)
	}
	slices.Sort(allow)
	slices.Sort(body.Allowed)
	s.foundIf(!slices.Equal(allow, body.Allowed), r, "/body/allowed", "is %v where Allow is %v", body.Allowed, allow)
}

// admission: every operation that is not public wants a key that is known, and each serves its own media types alone. An operation that only a
// provider may send wants its signature before all else.
func (s *suite) admission(ctx context.Context) {
	for _, id := range s.operationIDs() {
		if s.contract.operations[id].signed {
			s.callbacks(ctx, call{op: id, arg: "psp", body: map[string]any{}})
			continue
		}
		s.refused(ctx, errcode.REQ007, call{op: id, arg: "any"}.with("Accept", "image/png"))
		s.refused(ctx, errcode.REQ003, call{op: id, arg: "any", idem: s.ref + "-unknown", query: values("unknown", "x")}, "/query/unknown")
		if s.contract.operations[id].takes("If-None-Match") {
			s.refused(ctx, errcode.REQ003, call{op: id, arg: "any"}.with("If-None-Match", strings.Repeat("x", 1025)), "/header/If-None-Match")
		}
		if !s.contract.operations[id].public {
			s.refused(ctx, errcode.AUTH001, call{op: id, arg: "any"}.with("Authorization", ""))
			s.refused(ctx, errcode.AUTH002, call{op: id, arg: "any"}.with("Authorization", "Bearer "+unknownKey))
		}
	}
	// Media types have no case, and a generated client that cannot read YAML names the problem type alone.
	for _, accept := range []string{"Application/YAML", "application/problem+json"} {
		s.get(ctx, nil, call{op: "getOpenAPIYAML"}.with("Accept", accept), http.StatusOK)
	}
	for _, text := range []string{"Basic b2c6dGVzdA==", "Bearer", "Bearer not-a-key", s.Key} {
		r, ok := s.send(ctx, call{op: "listProducts"}.with("Authorization", text))
		s.foundIf(ok && r.status != http.StatusUnauthorized, r, "/status", "is not 401 with a malformed Authorization")
	}
}

// callbacks: nobody without the provider's secret calls back, whatever else is wrong with the request.
func (s *suite) callbacks(ctx context.Context, c call) {
	digits, mac := strconv.FormatInt(s.begin.Unix(), 10), strings.Repeat("0f", 32)
	for _, signature := range []string{"", "rubbish", "t=" + digits, "v1=" + mac, "t=" + digits + ",v1=" + mac, "t=1,v1=" + mac, "t=" + digits + ",v1=00"} {
		s.refused(ctx, errcode.AUTH007, c.with("Provider-Signature", signature))
	}
	s.refused(ctx, errcode.AUTH007, c.with("Authorization", "", "Accept", "image/png", "Content-Type", "text/plain"))
	for _, body := range []string{"", "not JSON", `{"id":"evt_1"}`} {
		c.body = []byte(body)
		s.refused(ctx, errcode.AUTH007, c)
	}
	c.body, c.deferred = tooLarge(), true
	s.refused(ctx, errcode.REQ008, c)
	s.refused(ctx, errcode.REQ005, call{op: c.op, arg: "nobody", body: map[string]any{}})
}

// key checks that the key is accepted, and has all scopes. If it does not, the run ends: every other part would only repeat it.
func (s *suite) key(ctx context.Context) {
	r, ok := s.send(ctx, call{op: "listOrders", query: values("limit", "1")})
	if ok && r.status == http.StatusUnauthorized {
		s.dead = true
		s.reason = fmt.Sprintf("the key is not accepted (%s)", r.problem.Code)
		return
	}
	if lacks := s.lackingScopes(ctx); len(lacks) > 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.endf("the key lacks the scopes %s, and a run needs all of the contract's (ordergate keys create makes a key with all)", strings.Join(lacks, ", "))
		return
	}
	s.requireGiven(ctx)
}

// lackingScopes are the scopes of operations that refuse the key for want of them, sorted. It sends a request for each scope, with an Accept
// that is refused after it.
func (s *suite) lackingScopes(ctx context.Context) (lacks []string) {
	asked := map[string]bool{}
	for _, id := range sortedKeys(s.contract.operations) {
		op := s.contract.operations[id]
		scopes := strings.Join(op.scopes(), ", ")
		if op.public || op.signed || scopes == "" || asked[scopes] {
			continue
		}
		asked[scopes] = true
		if r, ok := s.send(ctx, call{op: id, arg: "any"}.with("Accept", "image/png")); ok && r.problem.Code == string(errcode.AUTH005) {
			lacks = append(lacks, scopes)
		}
	}
	slices.Sort(lacks)
	return lacks
}
