package contracttest

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/signature"
)

// madeUp are well-formed values of the parameters in paths. Nothing has them.
func (s *suite) madeUp(param string) string {
	switch param {
	case "sku":
		return "no-" + s.ref
	case "code":
		return "REQ_001"
	case "provider":
		return "psp"
	}
	prefix := map[string]string{"order_id": "ord", "payment_id": "pay", "refund_id": "ref", "shipment_id": "shp"}[param]
	return cmp.Or(prefix, "evt") + "_0198f3c2a4b57d3e8c1f2a3b4c5d6e7f"
}

// pathParameter is the name of the parameter in an operation's path; empty if it has none.
func (o *operation) pathParameter() string { return strings.Trim(templated.FindString(o.path), "{}") }

// harmless is a request of an operation that has the right form and changes nothing: what it names is not there.
func (s *suite) harmless(op *operation) call {
	s.fresh++
	c := call{op: op.id, arg: s.madeUp(op.pathParameter())}
	if op.takes("Idempotency-Key") {
		c.idem = fmt.Sprintf("%s-harmless-%d", s.ref, s.fresh)
	}
	if op.takes("If-Match") {
		c = c.with("If-Match", "*")
	}
	if schema := s.bodies[op.id]; schema != nil {
		c.body = s.goodBody(op)
	}
	return c
}

// goodBody is a body with all properties that the contract knows. An order of it names a product that is not there, a product of it exists.
func (s *suite) goodBody(op *operation) any {
	var example any
	for _, content := range op.at("requestBody", "content").children() {
		example = content.at("example").node
	}
	body := s.bodies[op.id].Sample(example)
	if _, ordered := At(body, "lines", "0", "sku"); ordered {
		body = s.bodies[op.id].With(body, []string{"lines", "0", "sku"}, "no-"+s.ref)
	}
	if op.id == "createProduct" {
		body = s.bodies[op.id].With(body, []string{"sku"}, s.ref)
		body = s.bodies[op.id].With(body, []string{"active"}, false)
	}
	if _, named := At(body, "customer_ref"); named {
		body = s.bodies[op.id].With(body, []string{"customer_ref"}, s.ref+"-harmless")
	}
	if _, named := At(body, "id"); named {
		body = s.bodies[op.id].With(body, []string{"id"}, s.ref)
	}
	return body
}

// signed is a call with the signature of the payment provider, if its operation wants one.
func (s *suite) signed(c call) call {
	if op := s.contract.operations[c.op]; op == nil || !op.signed {
		return c
	}
	text, raw := c.body.([]byte)
	if !raw {
		text = encode(c.body)
	}
	c.body = text
	return c.with("Authorization", "", signature.Header, signature.Sign(s.ProviderSecret, time.Now().Add(s.facts.skew), text))
}

// refusedAt sends a request that must be refused with the code, with faults at one place and at no other.
func (s *suite) refusedAt(ctx context.Context, code errcode.Code, what string, c call, pointer string) {
	r, ok := s.send(ctx, s.signed(c))
	if !ok {
		return
	}
	if r.problem.Code != string(code) {
		s.foundf(r, "/body/code", "is not %s, and sent was, at %q, %s%s", code, pointer, what, why(r))
		return
	}
	wrong := len(r.problem.Errors) == 0 || slices.ContainsFunc(r.problem.Errors, func(f api.Fault) bool { return f.Pointer != pointer })
	s.foundIf(wrong, r, "/body/errors", "do not all point to %q, where was %s%s", pointer, what, why(r))
}

// wrongBodies: of each place of each body, every kind of value that its schema refuses has its code and pointer.
func (s *suite) wrongBodies(ctx context.Context) {
	for _, id := range s.operationIDs() {
		op := s.contract.operations[id]
		if s.bodies[id] == nil || op.signed && s.ProviderSecret == "" {
			continue
		}
		for _, wrong := range s.bodies[id].WrongBodies(s.goodBody(op)) {
			if ctx.Err() != nil {
				return
			}
			c := s.harmless(op)
			c.body = []byte(wrong.Text)
			s.refusedAt(ctx, errcode.Code(wrong.Code), wrong.Name, c, wrong.Pointer)
			s.coverage.Bodies++
		}
	}
}

// bounds: a value on a bound of its schema is taken: whatever refuses the request, it is not the schema.
func (s *suite) bounds(ctx context.Context) {
	form := []string{"REQ_001", "REQ_002", "REQ_003", "REQ_004", "IDEM_001", "IDEM_004"}
	if _, ok := s.own(ctx); !ok { // what is created must be there already
		s.skipf("the run's product could not be created")
		return
	}
	for _, id := range s.operationIDs() {
		op := s.contract.operations[id]
		if op.signed {
			continue
		}
		if s.bodies[id] != nil {
			for _, on := range s.bodies[id].BoundaryBodies(s.goodBody(op)) {
				if ctx.Err() != nil {
					return
				}
				c := s.harmless(op)
				c.body = []byte(on.Text)
				r, ok := s.send(ctx, c)
				s.foundIf(ok && slices.Contains(form, r.problem.Code), r, "/body/code", "is %s, and sent was, at %q, %s%s", r.problem.Code, on.Pointer, on.Name, why(r))
				s.coverage.Bounds++
			}
		}
		for _, v := range s.parameterValues(op) {
			if v.wrong || ctx.Err() != nil {
				continue
			}
			r, ok := s.send(ctx, v.call)
			s.foundIf(ok && slices.Contains(form, r.problem.Code), r, "/body/code", "is %s, and the contract takes %q at %s%s", r.problem.Code, v.value, v.pointer, why(r))
			s.coverage.Bounds++
		}
	}
}

// wrongParameters: of each parameter, every kind of value that its schema refuses has its code and pointer.
func (s *suite) wrongParameters(ctx context.Context) {
	for _, id := range s.operationIDs() {
		op := s.contract.operations[id]
		if op.signed {
			continue
		}
		for _, v := range s.parameterValues(op) {
			if !v.wrong || ctx.Err() != nil {
				continue
			}
			s.coverage.Parameters++
			if v.code == errcode.REQ003 {
				s.refusedAt(ctx, v.code, fmt.Sprintf("%q", v.value), v.call, v.pointer)
				continue
			}
			s.refused(ctx, v.code, v.call)
		}
		if op.takes("Idempotency-Key") {
			c := s.harmless(op)
			c.idem = ""
			s.refused(ctx, errcode.IDEM001, c)
			s.coverage.Parameters++
		}
	}
}

// parameterValue is a request with one value of a parameter.
type parameterValue struct {
	call    call
	value   string
	wrong   bool
	code    errcode.Code
	pointer string
}

// parameterValues are requests with one interesting value of a parameter each. Whether it is wrong is for the contract to say.
func (s *suite) parameterValues(op *operation) (all []parameterValue) {
	for _, p := range op.parameters {
		name, in := p.text("name"), p.text("in")
		for _, value := range candidates(p) {
			v := parameterValue{call: s.harmless(op), value: value, code: errcode.REQ003, pointer: "/" + in + "/" + name}
			v.wrong = len(p.checkText("", []string{value})) > 0
			switch in {
			case "query":
				v.call.query = url.Values{name: {value}}
			case "path":
				v.call.arg = value
			default:
				v.call = v.call.with(name, value)
				if name == "Idempotency-Key" {
					v.call.idem, v.code = "", errcode.IDEM004
				}
			}
			if !v.wrong && (in == "path" || name == "X-Consistency-Token") {
				continue // it would name something, or be forged
			}
			all = append(all, v)
		}
	}
	return all
}

// candidates are values of a parameter on both sides of each of its bounds.
func candidates(p place) (all []string) {
	schema := p.at("schema").resolved()
	number := func(name string) (int64, bool) {
		n, ok := schema.at(name).node.(float64)
		return int64(n), ok
	}
	header := p.text("in") == "header"
	if schema.text("type") == "integer" {
		all = []string{"x", "1.5", "0x1", "1e1", " 1", "99999999999999999999", "-99999999999999999999", "+1", "１"}
		for _, name := range []string{"minimum", "maximum"} {
			if n, ok := number(name); ok {
				all = append(all, strconv.FormatInt(n-1, 10), strconv.FormatInt(n, 10), strconv.FormatInt(n+1, 10))
			}
		}
		return append(all, "")
	}
	letter := "x"
	for _, name := range []string{"minLength", "maxLength"} {
		if n, ok := number(name); ok {
			for _, length := range []int64{n - 1, n, n + 1} {
				if length > 0 || length == 0 && !header && p.text("in") != "path" {
					all = append(all, strings.Repeat(letter, int(length)))
				}
			}
		}
	}
	if schema.text("pattern") != "" {
		all = append(all, "a b", "ünicode", strings.Repeat("x", 300), "'; DROP ORDERS; --", "x/y", "%00")
		if !header && p.text("in") != "path" {
			all = append(all, "", " ")
		}
		if p.text("name") == "Idempotency-Key" {
			all = append(all, "1234567", "12345678", strings.Repeat("k", 255), strings.Repeat("k", 256), `"1234567"`, `"12345678"`, `"`+strings.Repeat("k", 255)+`"`, `"`+strings.Repeat("k", 256)+`"`)
		}
	}
	for _, value := range schema.at("enum").texts() {
		all = append(all, value, strings.ToUpper(value), value+"x")
	}
	if schema.text("format") == "date-time" {
		all = append(all, "yesterday", "2026-11-26", "2026-11-26T7:10:13Z", "2026-11-26T07:10:13", "2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z", "2026-11-26 07:10:13Z",
			"1764140000", "", "2026-11-26T00:00:00Z", "2026-11-26T00:00:00.123456Z", "2026-11-26T00:00:00+08:00", "2026-11-26T00:00:00.1234567890123456789Z")
	}
	return all
}

// otherKeys: a key that has expired, one that was revoked and one without the scope are refused by each operation.
func (s *suite) otherKeys(ctx context.Context) {
	if s.ExpiredKey == "" && s.RevokedKey == "" && len(s.NarrowKeys) == 0 {
		s.skipf("no other key was given: --expired-key, --revoked-key, --narrow-key")
		return
	}
	if r, _ := s.send(ctx, call{op: "listOrders"}.with("Authorization", "Bearer "+cmp.Or(s.ExpiredKey, s.RevokedKey, s.NarrowKeys[0]))); r.problem.Code == string(errcode.AUTH002) {
		s.skipf("the address does not know the other keys: --expired-key, --revoked-key, --narrow-key")
		return
	}
	for _, id := range s.operationIDs() {
		op := s.contract.operations[id]
		if op.public || op.signed {
			continue
		}
		as := func(key string) call { return s.harmless(op).with("Authorization", "Bearer "+key) }
		if s.ExpiredKey != "" {
			s.refused(ctx, errcode.AUTH003, as(s.ExpiredKey))
		}
		if s.RevokedKey != "" {
			s.refused(ctx, errcode.AUTH004, as(s.RevokedKey))
		}
		s.narrowed(ctx, op, as)
	}
}

// narrowed: an operation is refused to one of the keys that lack scopes, with the scopes that the contract says.
func (s *suite) narrowed(ctx context.Context, op *operation, as func(key string) call) {
	scopes := op.scopes()
	if len(s.NarrowKeys) == 0 || len(scopes) == 0 {
		return
	}
	var r reply
	for _, key := range s.NarrowKeys {
		var ok bool
		if r, ok = s.send(ctx, as(key)); !ok {
			return
		}
		switch errcode.Code(r.problem.Code) { //nolint:exhaustive // any other one comes after the check of the scope
		case errcode.AUTH005:
			var lacks struct {
				Scopes []string `json:"required_scopes"`
			}
			decode(r, &lacks)
			s.foundIf(!slices.Equal(slices.Sorted(slices.Values(lacks.Scopes)), scopes), r, "/body/required_scopes", "are %v and not those of the contract, %v", lacks.Scopes, scopes)
			return
		case errcode.AUTH002, errcode.AUTH003, errcode.AUTH004:
			s.skipf("a key of --narrow-key is refused with %s", r.problem.Code)
			return
		}
	}
	s.foundf(r, "/body/code", "is never AUTH_005: no key that lacks scopes is refused, and it needs %v (each operation must be beyond one of --narrow-key)", scopes)
}

// signedCallbacks: what the provider itself is refused for, and a message that nobody waits for, which is taken once.
func (s *suite) signedCallbacks(ctx context.Context) {
	op := s.contract.operations["takeProviderCallback"]
	if s.ProviderSecret == "" || op == nil {
		s.skipf("the provider's secret was not given: --provider-secret")
		return
	}
	good := s.harmless(op)
	send := func(change func(*call)) reply {
		c := good
		change(&c)
		r, _ := s.send(ctx, c)
		return r
	}
	signed := func(body any) func(*call) { return func(c *call) { c.body = body; *c = s.signed(*c) } }
	r := send(signed(good.body))
	if r.problem.Code == string(errcode.AUTH007) {
		s.skipf("the address does not know the provider's secret: --provider-secret")
		return
	}
	s.foundIf(r.status != http.StatusNoContent, r, "/status", "of a message that is signed is not 204%s", why(r))
	r = send(signed(good.body))
	s.foundIf(r.status != http.StatusNoContent, r, "/status", "of a message that comes again is not 204%s", why(r))
	for _, c := range []struct {
		code   errcode.Code
		change func(*call)
	}{
		{errcode.REQ001, signed([]byte(`{"id":`))},
		{errcode.REQ002, signed([]byte(`{}`))},
		{errcode.REQ003, func(c *call) { signed(good.body)(c); c.query = values("unknown", "x") }},
		{errcode.REQ007, func(c *call) { signed(good.body)(c); *c = c.with("Accept", "image/png") }},
		{errcode.REQ009, func(c *call) { signed(good.body)(c); *c = c.with("Content-Type", "text/plain") }},
		{errcode.AUTH007, func(c *call) {
			signed(good.body)(c)
			c.body = append(c.body.([]byte), ' ') //nolint:forcetypeassert // as signed makes it
		}},
	} {
		r := send(c.change)
		s.foundIf(r.problem.Code != string(c.code), r, "/body/code", "is not %s%s", c.code, why(r))
	}
}

// slowPayments: an order whose payment is being captured cannot be cancelled, and one whose reservation ran out cannot be paid. The first
// needs a provider that knows the simulator's pm_slow, the second patience.
func (s *suite) slowPayments(ctx context.Context, g *goods) {
	for n := range 4 {
		if !s.cancelWhileCaptured(ctx, g, n) {
			break
		}
	}
	p, ok := s.unpaid(ctx, g, "expires", 1)
	if !ok || p.ReservationExpiresAt == nil {
		return
	}
	if wait := time.Until(p.ReservationExpiresAt.Add(-s.facts.skew)); wait < s.Patience {
		s.await(ctx, p, api.OrderStatusRejected)
		s.refused(ctx, errcode.INV003, s.paymentOf(p.ID, "expired", "pm_ok"))
		return
	}
	s.get(ctx, nil, call{op: "cancelOrder", arg: p.ID, idem: s.ref + "-expires"}, http.StatusAccepted)
}

// cancelWhileCaptured tells whether it must be tried again: the capture was over before it was seen.
func (s *suite) cancelWhileCaptured(ctx context.Context, g *goods, n int) (again bool) {
	key := fmt.Sprint(s.ref, "-slow-", n)
	p, ok := s.place(ctx, call{op: "placeOrder", idem: key, body: s.draft(g, "pm_slow")}, http.StatusAccepted)
	if !ok {
		return false
	}
	s.poll(ctx, s.Patience, p.accepted, "the end of a slow payment", func() bool {
		return s.cancelsCapture(ctx, p, key, &again)
	})
	return again
}

// cancelsCapture looks at a saga for a while, because a capture may last for some milliseconds, and cancels its order while it captures. It is
// true if there is nothing more to see.
func (s *suite) cancelsCapture(ctx context.Context, p *placed, key string, again *bool) bool {
	for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); pause(ctx, 3*time.Millisecond) {
		var saga api.Saga
		if _, ok := s.get(ctx, &saga, call{op: "getOrderSaga", arg: p.ID}, http.StatusOK); !ok || saga.State == "done" {
			*again = ok
			return true
		}
		for _, step := range saga.Steps {
			if step.Name != "capture" || step.Status != "running" {
				continue
			}
			r, ok := s.send(ctx, call{op: "cancelOrder", arg: p.ID, idem: key})
			*again = ok && r.problem.Code != string(errcode.ORD009)
			s.foundIf(ok && r.status >= 400 && *again, r, "/body/code", "is not ORD_009%s", why(r))
			return true
		}
	}
	return false
}

// statusOf is the status of a code.
func (s *suite) statusOf(code string) int {
	if e, ok := s.registry[code]; ok {
		return int(e.Status)
	}
	known, _ := errcode.Lookup(errcode.Code(code))
	return known.Status
}

// reasons say why a code may not have come.
var reasons = map[string]string{
	"INV_003": "a reservation runs out after 15 minutes: --patience 16m",
	"ORD_009": "the provider does not know pm_slow",
	"PAY_003": "the provider does not know pm_timeout, or a payment may take longer than --patience",
	"PAY_006": "the provider does not know pm_error, or a payment may take longer than --patience",
	"CPN_002": "the account has no coupon EXPIRED", "CPN_003": "the account has no coupon ONCE", "CPN_004": "the account has no coupon FIVEOFF",
	"ORD_008": "nothing is so dear that one order can be above the limit",
}

// whyNot says why an answer of an operation is not proven, as far as it is known.
func (s *suite) whyNot(op *operation, code string) string {
	switch {
	case code == "AUTH_003":
		return "--expired-key"
	case code == "AUTH_004":
		return "--revoked-key"
	case code == "AUTH_005":
		return "--narrow-key"
	case slices.Contains(infrastructure, code) && len(s.obeyed) == 0:
		return "the address obeys no X-Ordergate-Fault: ordergate serve -faults"
	case op.signed:
		return "--provider-secret"
	}
	return reasons[code]
}
