package contracttest

import (
	"context"
	"fmt"
	"net/http"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
)

// quoteOf is a good quote of some pieces of the main product.
func (s *suite) quoteOf(g *goods, quantity int64) map[string]any {
	return map[string]any{"currency": g.price.Currency, "lines": []any{map[string]any{"sku": g.main.Sku, "quantity": quantity}}}
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
