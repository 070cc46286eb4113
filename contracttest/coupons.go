package contracttest

import (
	"context"
	"fmt"
	"net/http"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
)

// The coupons of the sample account, which another address need not have.
const (
	tenPercent  = "WELCOME10"
	fiveEUR     = "FIVEOFF"
	oncePerson  = "ONCE"
	oncePercent = 15
	pastCoupon  = "EXPIRED"
)

// withCoupon is a body with a coupon.
func withCoupon(body map[string]any, code string) map[string]any {
	body["coupon_code"] = code
	return body
}

// has asks whether the address has a coupon: a quote with it is refused with CPN_001 only if it has not.
func (s *suite) has(ctx context.Context, g *goods, code string) bool {
	r, ok := s.send(ctx, call{op: "quoteOrder", body: withCoupon(s.quoteOf(g, 1), code)})
	return ok && r.problem.Code != string(errcode.CPN001)
}

// coupons: what a coupon takes off stands in the order and its lines. One that cannot be used is refused, when quoting and when placing, and
// an order that ends without a sale frees its use.
func (s *suite) coupons(ctx context.Context, g *goods) {
	ref, n := s.ref+"-coupon", 0
	draft := func(code, token string) call {
		n++
		body := withCoupon(s.draft(g, token), code)
		body["customer_ref"] = ref
		return call{op: "placeOrder", idem: fmt.Sprintf("%s-%d", ref, n), body: body}
	}
	var taken []string
	bad := func(code errcode.Code, c call) {
		body, _ := jsonOf(c.body).(map[string]any)
		quote := map[string]any{"currency": body["currency"], "customer_ref": ref, "lines": body["lines"], "coupon_code": body["coupon_code"]}
		s.refused(ctx, code, call{op: "quoteOrder", body: quote}, "/coupon_code")
		r := s.refused(ctx, code, c, "/coupon_code")
		if r.problem.Code == string(code) {
			s.replays(ctx, c, r)
		}
		s.only(ctx, ref, taken...)
	}
	bad(errcode.CPN001, draft("no-"+s.ref, "pm_ok"))
	s.refused(ctx, errcode.CPN001, draft("no-"+s.ref, "").with("Accept-Language", "zh-CN"))
	if s.has(ctx, g, pastCoupon) {
		bad(errcode.CPN002, draft(pastCoupon, "pm_ok"))
	}
	if s.has(ctx, g, fiveEUR) {
		for _, m := range g.main.Prices {
			if m.Currency == "EUR" && m.Amount >= 2000 {
				continue
			}
			c := draft(fiveEUR, "")
			c.body.(map[string]any)["currency"] = m.Currency //nolint:forcetypeassert // as draft makes it
			bad(errcode.CPN004, c)
			break
		}
	}
	if s.has(ctx, g, tenPercent) {
		c := draft(tenPercent, "pm_ok")
		if p, ok := s.decide(ctx, c, http.StatusCreated); ok {
			taken = append([]string{p.ID}, taken...)
			s.ends(p, api.OrderStatusConfirmed, "paid")
			s.priced(p.accepted, g.price.Currency, g.price.Amount/10, 0, 0)
			s.foundIf(p.CouponCode == nil || *p.CouponCode != tenPercent, p.accepted, "/body/coupon_code", "is not %s", tenPercent)
			s.createdWith(ctx, p)
		}
	}
	if !s.has(ctx, g, oncePerson) {
		return
	}
	for _, token := range []string{"pm_declined", "pm_ok"} { // the first one frees the coupon, and the second has it
		p, ok := s.decide(ctx, draft(oncePerson, token), http.StatusCreated)
		if !ok {
			return
		}
		taken = append([]string{p.ID}, taken...)
		s.priced(p.accepted, g.price.Currency, g.price.Amount*oncePercent/100, 0, 0)
		s.foundIf((p.Status == api.OrderStatusConfirmed) != (token == "pm_ok"), p.accepted, "/body/status", "is %q", p.Status)
	}
	bad(errcode.CPN003, draft(oncePerson, "pm_ok"))
	s.get(ctx, nil, call{op: "quoteOrder", body: withCoupon(s.quoteOf(g, 1), oncePerson)}, http.StatusOK) // no customer: no limit of theirs
}

// createdWith: the first event of an order has the amounts of the order.
func (s *suite) createdWith(ctx context.Context, p *placed) {
	var list struct {
		Data []struct {
			SchemaVersion int32 `json:"schema_version"`
			Data          amounts
		}
	}
	r, ok := s.get(ctx, &list, call{op: "listOrderEvents", arg: p.ID, query: values("limit", "1")}, http.StatusOK)
	if !ok || len(list.Data) == 0 {
		return
	}
	e := list.Data[0]
	s.foundIf(e.SchemaVersion != 2 || e.Data.Discount != p.Discount || e.Data.Total != p.Total || e.Data.CouponCode == nil || *e.Data.CouponCode != *p.CouponCode,
		r, "/body/data/0", "has not the amounts of the order, in schema version 2")
}
