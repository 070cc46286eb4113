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

// amounts are those of a quote and of an order.
type amounts struct {
	Subtotal, Discount, Shipping, Tax, Total api.Money
	CouponCode                               *string `json:"coupon_code"`
	Lines                                    []struct{ Total, Discount api.Money }
}

// priced holds an answer's amounts against what they are made of.
func (s *suite) priced(r reply, currency string, discount, shipping, tax int64) {
	var a amounts
	decode(r, &a)
	var lines, discounts int64
	for _, l := range a.Lines {
		lines, discounts = lines+l.Total.Amount, discounts+l.Discount.Amount
		s.foundIf(l.Discount.Amount < 0 || l.Discount.Amount > l.Total.Amount || l.Discount.Currency != currency,
			r, "/body/lines", "a discount of %v on a line of %v", l.Discount, l.Total)
	}
	s.foundIf(a.Subtotal != price(lines, currency), r, "/body/subtotal", "is %v, and the lines cost %d", a.Subtotal, lines)
	s.foundIf(a.Discount != price(discount, currency) || discounts != discount,
		r, "/body/discount", "is %v and %d of the lines, and not %d", a.Discount, discounts, discount)
	s.foundIf(a.Shipping != price(shipping, currency), r, "/body/shipping", "is %v and not %d", a.Shipping, shipping)
	s.foundIf(a.Tax != price(tax, currency), r, "/body/tax", "is %v and not %d", a.Tax, tax)
	s.foundIf(a.Total != price(lines-discount+shipping+tax, currency), r, "/body/total", "is %v and not %d - %d + %d + %d", a.Total, lines, discount, shipping, tax)
}

// withCoupon is a body with a coupon.
func withCoupon(body map[string]any, code string) map[string]any {
	body["coupon_code"] = code
	return body
}

// quoteOf is a good quote of some pieces of the main product.
func (s *suite) quoteOf(g *goods, quantity int64) map[string]any {
	return map[string]any{"currency": g.price.Currency, "lines": []any{map[string]any{"sku": g.main.Sku, "quantity": quantity}}}
}

// has asks whether the address has a coupon: a quote with it is refused with CPN_001 only if it has not.
func (s *suite) has(ctx context.Context, g *goods, code string) bool {
	r, ok := s.send(ctx, call{op: "quoteOrder", body: withCoupon(s.quoteOf(g, 1), code)})
	return ok && r.problem.Code != string(errcode.CPN001)
}

// quoting: a quote tells what an order would cost and whether it can be filled, and makes nothing.
func (s *suite) quoting(ctx context.Context, g *goods) {
	ref, currency := s.ref+"-quote", g.price.Currency
	good := s.quoteOf(g, 2)
	good["customer_ref"] = ref
	lines := good["lines"].([]any) //nolint:forcetypeassert // as quoteOf makes it
	if g.side != nil {
		good["lines"] = append(lines, map[string]any{"sku": g.side.Sku, "quantity": 1})
	}
	good["shipping"], good["tax"] = price(490, currency), price(7, currency)
	ask := func(body any) call { return call{op: "quoteOrder", body: body} }
	var q api.Quote
	if r, ok := s.get(ctx, &q, ask(good), http.StatusOK); ok {
		s.priced(r, currency, 0, 490, 7)
		wrong := len(q.Lines) == 0 || q.Lines[0].Sku != g.main.Sku || q.Lines[0].Quantity != 2 || q.Lines[0].UnitPrice != g.price || q.Lines[0].Name != g.main.Name
		s.foundIf(wrong || q.CouponCode != nil, r, "/body", "is not a quote of what was asked for: %s", short(string(r.body)))
		s.foundIf(!q.Available || !q.Lines[0].Available, r, "/body/available", "is false, and %d pieces are in stock", g.stock)
	}
	if most := g.stock + beyondStock; most <= 10_000 {
		body := s.quoteOf(g, most)
		if r, ok := s.get(ctx, &q, ask(body), http.StatusOK); ok {
			s.foundIf(q.Available || q.Lines[0].Available, r, "/body/available", "is true of %d pieces", most)
		}
	}
	if s.has(ctx, g, tenPercent) {
		body := withCoupon(s.quoteOf(g, 1), tenPercent)
		if r, ok := s.get(ctx, &q, ask(body), http.StatusOK); ok {
			s.priced(r, currency, g.price.Amount/10, 0, 0)
			s.foundIf(q.CouponCode == nil || *q.CouponCode != tenPercent, r, "/body/coupon_code", "is not %s", tenPercent)
		}
	}
	s.refusedQuotes(ctx, g, ask)
	s.badWrites(ctx, ask(good), "", func() { s.only(ctx, ref) })
	head := fmt.Sprintf(`{"currency":%q`, currency)
	full := fmt.Sprintf(`%s,"lines":[{"sku":%q,"quantity":1}]`, head, g.main.Sku)
	s.badValues(ctx, ask(nil), map[string][]string{
		"/lines":            {head + `}`, head + `,"lines":[]}`},
		"/lines/0/quantity": {head + `,"lines":[{"sku":"x","quantity":0}]}`, head + `,"lines":[{"sku":"x","quantity":10001}]}`},
		"/currency":         {`{"currency":"eur","lines":[{"sku":"x","quantity":1}]}`},
		"/coupon_code":      {full + `,"coupon_code":".x"}`, full + `,"coupon_code":null}`},
		"/shipping/amount":  {full + fmt.Sprintf(`,"shipping":{"amount":-1,"currency":%q}}`, currency)},
		"/tax/amount":       {full + fmt.Sprintf(`,"tax":{"amount":9007199254740992,"currency":%q}}`, currency)},
	})
	s.only(ctx, ref)
}

// refusedQuotes: what keeps an order from being priced is refused as it would be when placing.
func (s *suite) refusedQuotes(ctx context.Context, g *goods, ask func(any) call) {
	bad := func(code errcode.Code, pointer string, change func(body map[string]any)) {
		body := s.quoteOf(g, 1)
		change(body)
		s.refused(ctx, code, ask(body), pointer)
	}
	line := map[string]any{"sku": g.main.Sku, "quantity": 1}
	bad(errcode.CAT005, "/lines/0/sku", func(b map[string]any) { b["lines"] = []any{map[string]any{"sku": "no-" + s.ref, "quantity": 1}} })
	bad(errcode.CAT004, "/lines/0/sku", func(b map[string]any) { b["currency"] = unpriced(g.main) })
	bad(errcode.ORD003, "/lines/1/sku", func(b map[string]any) { b["lines"] = []any{line, line} })
	bad(errcode.ORD005, "/shipping/currency", func(b map[string]any) { b["shipping"] = price(1, unpriced(g.main)) })
	bad(errcode.ORD005, "/tax/currency", func(b map[string]any) { b["tax"] = price(1, unpriced(g.main)) })
	bad(errcode.ORD008, "/shipping/amount", func(b map[string]any) { b["shipping"] = price(maxTotal, g.price.Currency) })
	bad(errcode.CPN001, "/coupon_code", func(b map[string]any) { b["coupon_code"] = "no-" + s.ref })
	s.refused(ctx, errcode.CPN001, ask(withCoupon(s.quoteOf(g, 1), "no-"+s.ref)).with("Accept-Language", "zh-CN"))
	if p, ok := s.own(ctx); ok { // it is never active
		bad(errcode.CAT003, "/lines/0/sku", func(b map[string]any) {
			b["currency"], b["lines"] = "EUR", []any{map[string]any{"sku": p.Sku, "quantity": 1}}
		})
	}
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
