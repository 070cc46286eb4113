package contracttest

import (
	"context"
	"fmt"
	"net/http"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
)

// references: a reference is of one order, whatever becomes of it; shipping and tax are added to the total.
func (s *suite) references(ctx context.Context, g *goods) {
	ref, currency := s.ref+"-po", g.price.Currency
	body := func(change func(map[string]any)) map[string]any {
		w := s.draft(g, "")
		w["customer_ref"], w["reference"] = ref, ref
		w["shipping"], w["tax"] = price(490, currency), price(7, currency)
		if change != nil {
			change(w)
		}
		return w
	}
	n := 0
	bad := func(code errcode.Code, pointer string, change func(map[string]any)) reply {
		n++
		c := call{op: "placeOrder", idem: fmt.Sprintf("%s-%d", ref, n), body: body(change)}
		r := s.refused(ctx, code, c, pointer)
		if r.problem.Code == string(code) && code != errcode.REQ002 {
			s.replays(ctx, c, r)
		}
		return r
	}
	bad(errcode.ORD005, "/shipping/currency", func(w map[string]any) { w["shipping"] = price(1, unpriced(g.main)) })
	bad(errcode.ORD005, "/tax/currency", func(w map[string]any) { w["tax"] = price(1, unpriced(g.main)) })
	bad(errcode.ORD008, "/shipping/amount", func(w map[string]any) { w["shipping"] = price(maxTotal, currency) })
	bad(errcode.ORD008, "/tax/amount", func(w map[string]any) { w["tax"] = price(1<<53-1, currency) })
	bad(errcode.REQ002, "/shipping/amount", func(w map[string]any) { w["shipping"] = price(-1, currency) })
	bad(errcode.REQ002, "/tax/amount", func(w map[string]any) { w["tax"] = map[string]any{"amount": 1.5, "currency": currency} })
	bad(errcode.REQ002, "/tax/currency", func(w map[string]any) { w["tax"] = map[string]any{"amount": 1} })
	bad(errcode.REQ002, "/reference", func(w map[string]any) { w["reference"] = "PO 1" })
	s.only(ctx, ref)

	first := call{op: "placeOrder", idem: ref + "-first", body: body(nil)}
	p, ok := s.place(ctx, first, http.StatusAccepted)
	if !ok {
		return
	}
	s.priced(p.accepted, currency, 0, 490, 7)
	s.foundIf(p.Reference == nil || *p.Reference != ref, p.accepted, "/body/reference", "is not %s", ref)
	taken := func() {
		r := bad(errcode.ORD011, "/reference", nil)
		var problem struct {
			OrderID string `json:"order_id"`
		}
		decode(r, &problem)
		s.foundIf(r.problem.Code == string(errcode.ORD011) && problem.OrderID != p.ID, r, "/body/order_id", "is %q, and %s has the reference", problem.OrderID, p.ID)
		s.only(ctx, ref, p.ID)
	}
	taken()
	s.walk(ctx, "listOrders", "", values("reference", ref), []string{p.ID})
	s.walk(ctx, "listOrders", "", values("reference", ref, "customer_ref", s.ref), nil)
	s.walk(ctx, "listOrders", "", values("reference", "no-"+ref), nil)
	s.refused(ctx, errcode.REQ003, call{op: "listOrders", query: values("reference", "PO 1")}, "/query/reference")
	s.refused(ctx, errcode.ORD011, call{op: "placeOrder", idem: ref + "-zh", body: body(nil)}.with("Accept-Language", "zh-CN"))
	s.replays(ctx, first, p.accepted) // its own key is no other order
	if c, ok := s.decide(ctx, call{op: "cancelOrder", arg: p.ID, idem: ref + "-cancel"}, http.StatusOK); ok {
		s.ends(c, api.OrderStatusCancelled, "none")
		s.foundIf(c.Reference == nil || *c.Reference != ref, c.accepted, "/body/reference", "is gone")
	}
	taken()
}
