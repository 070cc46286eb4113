package contracttest

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/bodies"
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
	if _, ordered := bodies.At(body, "lines", "0", "sku"); ordered {
		body = s.bodies[op.id].With(body, []string{"lines", "0", "sku"}, "no-"+s.ref)
	}
	if op.id == "createProduct" {
		body = s.bodies[op.id].With(body, []string{"sku"}, s.ref)
		body = s.bodies[op.id].With(body, []string{"active"}, false)
	}
	if _, named := bodies.At(body, "customer_ref"); named {
		body = s.bodies[op.id].With(body, []string{"customer_ref"}, s.ref+"-harmless")
	}
	if _, named := bodies.At(body, "id"); named {
		body = s.bodies[op.id].With(body, []string{"id"}, s.ref)
	}
	return body
}

// refusedAt sends a request that must be refused with the code, with faults at one place and at no other. They break the rule, if one is given.
func (s *suite) refusedAt(ctx context.Context, code errcode.Code, what string, c call, pointer, rule string) {
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
	other := rule != "" && slices.ContainsFunc(r.problem.Errors, func(f api.Fault) bool { return f.Rule != rule })
	s.foundIf(other, r, "/body/errors", "do not say %q, and sent was, at %q, %s%s", rule, pointer, what, why(r))
}

// wrongBodies: of each place of each body, every kind of value that its schema refuses has its code and pointer.
func (s *suite) wrongBodies(ctx context.Context) {
	for _, id := range s.operationIDs() {
		op := s.contract.operations[id]
		if s.bodies[id] == nil || op.signed && !s.canSign(ctx) {
			continue
		}
		for _, wrong := range s.bodies[id].Wrong(s.goodBody(op)) {
			if ctx.Err() != nil {
				return
			}
			c := s.harmless(op)
			c.body = []byte(wrong.Text)
			s.refusedAt(ctx, errcode.Code(wrong.Code), wrong.Name, c, wrong.Pointer, wrong.Rule)
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
			for _, on := range s.bodies[id].OnBounds(s.goodBody(op)) {
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
				s.refusedAt(ctx, v.code, fmt.Sprintf("%q", v.value), v.call, v.pointer, "")
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
			v.wrong = len(p.checkText("", []string{value}, rules{})) > 0
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
