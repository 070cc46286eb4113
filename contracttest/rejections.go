package contracttest

import (
	"context"
	"net/http"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
)

// rejectedOrders: a declined card and a quantity beyond the stock leave a rejected order with its reason.
func (s *suite) rejectedOrders(ctx context.Context, p *placed) {
	s.ends(p, api.OrderStatusRejected, "failed")
	s.checkRejection(p, errcode.PAY007)
	r := p.Rejection
	s.foundIf(r != nil && (r.DeclineReason == nil || *r.DeclineReason == ""), p.accepted, "/body/rejection/decline_reason", "is empty")
	if r != nil && r.DeclineReason != nil {
		s.sameReason(p.accepted, "/body/rejection/decline_reason", *r.DeclineReason)
	}
	s.replays(ctx, p.call.with("Prefer", "wait=10"), p.accepted)
	g := s.goods
	most := g.stock + beyondStock
	if most > 10_000 {
		return
	}
	w := s.draft(g, "pm_ok")
	w["lines"] = []any{map[string]any{"sku": g.main.Sku, "quantity": most}}
	for _, key := range []string{"-short", "-short-again"} { // the second one may come too late for what the first one has found
		c := call{op: "placeOrder", idem: s.ref + key, body: w}
		s.pastMarks(ctx, c)
		short, ok := s.decide(ctx, c, http.StatusCreated)
		if !ok {
			return
		}
		s.ends(short, api.OrderStatusRejected, "none")
		s.checkRejection(short, errcode.INV002)
		r = short.Rejection
		s.foundIf(r != nil && (len(r.Skus) != 1 || r.Skus[0].Sku != g.main.Sku || r.Skus[0].Requested != most || r.Skus[0].Available >= most),
			short.accepted, "/body/rejection/skus", "does not say what was short")
	}
}

// pastMarks sends an order of more than there is until it is made, or refused for another reason. Where that was found a moment ago, it is
// refused at once: its key stays free.
func (s *suite) pastMarks(ctx context.Context, c call) (r reply, ok bool) {
	s.poll(ctx, s.Patience, reply{call: c}, "an order that is made", func() bool {
		r, ok = s.send(ctx, c)
		if r.problem.Code != string(errcode.INV002) {
			return true
		}
		var short struct{ Skus []api.ShortSKU }
		decode(r, &short)
		s.foundIf(len(short.Skus) == 0 || short.Skus[0].Requested <= short.Skus[0].Available, r, "/body/skus", "does not say what is short")
		s.foundIf(r.header.Get("Idempotency-Replayed") != "", r, "/header/Idempotency-Replayed", "is there: a refusal that may be repeated was stored")
		return false
	})
	return r, ok
}

func (s *suite) checkRejection(p *placed, code errcode.Code) {
	switch {
	case p.Rejection == nil:
		s.foundf(p.accepted, "/body/rejection", "is null")
	case string(p.Rejection.Code) != string(code):
		s.foundf(p.accepted, "/body/rejection/code", "is %q and not %q", p.Rejection.Code, code)
	default:
		e, r := s.registry[string(code)], p.Rejection
		s.foundIf(e.Rejection == nil || r.Detail != e.Rejection.Description || r.Title != e.Title || r.Message != e.Message.En,
			p.accepted, "/body/rejection", "has not the texts of the registry")
	}
}
