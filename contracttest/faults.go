package contracttest

import (
	"context"
	"slices"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/faults"
)

// faultFor is the fault that leads to a code of the infrastructure, of which a black box cannot see any else; "": it is none of them.
func faultFor(code string) faults.Name {
	for _, name := range faults.Names {
		if string(faults.Codes[name]) == code {
			return name
		}
	}
	return ""
}

// faulty: where the address lets things go wrong on demand, each operation answers each code of the infrastructure that it lists. What was
// refused so can be sent again with the same key.
func (s *suite) faulty(ctx context.Context) {
	ask := func(c call, fault faults.Name) reply {
		c = c.with(faults.Header, string(fault))
		if op := s.contract.operations[c.op]; op.public || op.signed {
			c = c.with("Authorization", "Bearer "+s.Key)
		}
		c.fault = true
		r, _ := s.send(ctx, c)
		return r
	}
	if r := ask(call{op: "listProducts"}, faults.Panic); r.problem.Code != string(errcode.SYS001) {
		s.skipf("the address obeys no %s, as `ordergate run` and `serve -faults` do to test keys", faults.Header)
		return
	}
	s.obeyed = map[faults.Name]bool{faults.Panic: true}
	for _, id := range s.operationIDs() {
		op := s.contract.operations[id]
		for _, code := range op.codes {
			fault := faultFor(code)
			if fault == "" || ctx.Err() != nil || op.signed && !s.canSign(ctx) {
				continue
			}
			s.provoke(ctx, op, code, func(c call) reply { return ask(c, fault) })
		}
	}
}

// provoke sends requests of an operation under a fault until one is refused with the code: a harmless one, then one that would work.
func (s *suite) provoke(ctx context.Context, op *operation, code string, ask func(call) reply) {
	harmless := func() (call, bool) { return s.signed(s.harmless(op)), true }
	working := func() (call, bool) { return s.working(ctx, op, code) }
	var r reply
	for _, request := range []func() (call, bool){harmless, working} {
		c, ok := request()
		if !ok {
			return // there is nothing that it could be sent for
		}
		if r = ask(c); r.problem.Code != code {
			continue
		}
		s.obeyed[faultFor(code)] = true
		if c.idem == "" {
			return
		}
		again, ok := s.send(ctx, c)
		lost := slices.Contains([]string{"IDEM_002", "IDEM_003"}, again.problem.Code) || again.status >= 500
		s.foundIf(ok && lost, again, "/status", "of the same request, after %s and without its fault%s", code, why(again))
		return
	}
	unknown := slices.ContainsFunc(r.problem.Errors, func(f api.Fault) bool { return f.Pointer == "/header/"+faults.Header })
	s.foundIf(r.err == nil && !unknown, r, "/body/code", "is not %s, which the operation lists, under %s: %s%s", code, faults.Header, faultFor(code), why(r))
}

// working is a request of an operation that would be served.
func (s *suite) working(ctx context.Context, op *operation, code string) (call, bool) {
	g, ok := s.find(ctx)
	if !ok {
		return call{}, false
	}
	c := s.harmless(op)
	switch op.id {
	case "placeOrder":
		c.body = s.draft(g, "pm_ok")
	case "quoteOrder":
		c.body = s.quoteOf(g, 1)
	case "updateProduct":
		_, ok = s.own(ctx)
		c.arg, c.body = s.ref, map[string]any{"low_stock_at": s.fresh}
	case "adjustInventory":
		_, ok = s.own(ctx)
		c.arg, c.body = s.ref, map[string]any{"delta": 1, "reason": "fault"}
	case "updateOrder", "payOrder", "cancelOrder":
		var p *placed
		name := op.id
		if code == "PAY_008" {
			name += code // of which nobody has tried to pay
		}
		p, ok = s.waiting(ctx, g, name)
		if c.arg = p.ID; op.id == "updateOrder" {
			c.body = map[string]any{"metadata": map[string]any{"fault": c.idem}}
		}
		if op.id == "payOrder" {
			c.body = map[string]any{"method_token": "pm_declined"}
		}
	default:
		c.arg = s.present(ctx, op)
		ok = c.arg != "" || op.pathParameter() == ""
	}
	return c, ok
}

// waiting is an order that waits for its payment, one a name.
func (s *suite) waiting(ctx context.Context, g *goods, name string) (*placed, bool) {
	if s.idle == nil {
		s.idle = map[string]*placed{}
	}
	if s.idle[name] == nil {
		s.idle[name], _ = s.unpaid(ctx, g, "idle-"+name, 1)
	}
	return s.idle[name], s.idle[name].ID != ""
}
