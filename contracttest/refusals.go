package contracttest

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
)

// tooLarge is a body above every gateway's limit.
func tooLarge() []byte { return []byte(`{"metadata":{"x":"` + strings.Repeat("x", 1<<20) + `"}}`) }

func zipped(text string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(text)) // to memory
	_ = z.Close()
	return b.Bytes()
}

// only: exactly the orders that were accepted stand under the reference.
func (s *suite) only(ctx context.Context, ref string, accepted ...string) {
	r, ok := s.get(ctx, nil, call{op: "listOrders", query: values("customer_ref", ref)}, http.StatusOK)
	got, _ := page(r)
	s.foundIf(ok && !slices.Equal(got, accepted), r, "/body/data", "is %v, and accepted was %v", got, accepted)
}

// refusedRequests: a request of the wrong form is refused before anything is done. All have one key, and a good request with it works
// afterwards: none of them used the key up.
func (s *suite) refusedRequests(ctx context.Context, g *goods) {
	ref := s.ref + "-form"
	key := s.ref + "-form-key"
	draft := s.draft(g, "pm_ok")
	draft["customer_ref"] = ref
	good := call{op: "placeOrder", idem: key, body: draft}
	bad := func(code errcode.Code, change func(*call), pointers ...string) reply {
		c := good
		change(&c)
		r := s.refused(ctx, code, c, pointers...)
		s.only(ctx, ref)
		return r
	}
	body := func(format string, args ...any) func(*call) {
		return func(c *call) { c.body = fmt.Appendf(nil, format, args...) }
	}
	head := fmt.Sprintf(`{"currency":%q,"customer_ref":%q`, g.price.Currency, ref)
	line := func(text string) func(*call) {
		return body(`%s,"lines":[{"sku":%q,%s}]}`, head, g.main.Sku, text)
	}
	full := fmt.Sprintf(`%s,"lines":[{"sku":%q,"quantity":1}]`, head, g.main.Sku)

	bad(errcode.AUTH001, func(c *call) { *c = c.with("Authorization", "") })
	bad(errcode.AUTH002, func(c *call) { *c = c.with("Authorization", "Bearer "+unknownKey) })
	bad(errcode.REQ007, func(c *call) { *c = c.with("Accept", "text/html") })
	bad(errcode.REQ008, func(c *call) { c.body, c.deferred = tooLarge(), true })
	bad(errcode.REQ008, func(c *call) { c.body, c.chunked = tooLarge(), true })
	bad(errcode.REQ008, func(c *call) { // "413" comes before "401"
		*c = c.with("Authorization", "")
		c.body, c.deferred = tooLarge(), true
	})
	plain := bad(errcode.REQ009, func(c *call) { *c = c.with("Content-Type", "text/plain") })
	s.foundIf(plain.header.Get("Accept-Encoding") != "",
		plain, "/header/Accept-Encoding", "is there, and it was not the Content-Encoding that was refused")
	bad(errcode.REQ009, func(c *call) { *c = c.with("Content-Type", "") })
	bad(errcode.REQ009, func(c *call) { *c = c.with("Content-Type", "application/json; charset=utf-16") })
	r := bad(errcode.REQ009, func(c *call) { *c, c.body = c.with("Content-Encoding", "gzip"), zipped(full+"}") })
	s.foundIf(r.status != 0 && r.header.Get("Accept-Encoding") != "identity",
		r, "/header/Accept-Encoding", "is %q, and it was the Content-Encoding that was refused", r.header.Get("Accept-Encoding"))
	bad(errcode.IDEM001, func(c *call) { c.idem = "" })
	for _, malformed := range []string{
		"7-chars", `"7-chars"`, "with a blank", strings.Repeat("k", 256), `"` + strings.Repeat("k", 256) + `"`, `"half-quoted`, "schlüssel-1",
	} {
		bad(errcode.IDEM004, func(c *call) { c.idem = malformed })
	}
	bad(errcode.REQ001, body(`%s,"lines":[`, head))
	bad(errcode.REQ001, body(`%s,"currency":%q}`, full, g.price.Currency))
	bad(errcode.REQ001, body(`%s} {}`, full))
	bad(errcode.REQ001, func(c *call) { c.body = []byte{} })
	bad(errcode.REQ001, body("not JSON"))
	bad(errcode.REQ001, body(`%s,"metadata":{"x":"\u0000"}}`, full))
	bad(errcode.REQ001, body(`%s,"metadata":{"x":"\ud800"}}`, full))
	bad(errcode.REQ001, body("%s,\"metadata\":{\"x\":\"\xff\"}}", full))
	bad(errcode.REQ001, body(`%s,"metadata":%s1%s}`, full, strings.Repeat(`{"x":`, 200), strings.Repeat("}", 200)))
	bad(errcode.REQ001, func(c *call) { *c, c.body = c.with("Accept-Language", "zh-CN"), []byte(full) })
	for _, quantity := range []string{"0", "-1", "1000000000", "1.5", `"1"`, "null", "9007199254740993", "1e9"} {
		bad(errcode.REQ002, line(`"quantity":`+quantity), "/lines/0/quantity")
	}
	bad(errcode.REQ002, body(`%s,"lines":[]}`, head), "/lines")
	bad(errcode.REQ002, body(`%s}`, head), "/lines")
	bad(errcode.REQ002, body(`%s,"payment":{"method_token":""}}`, full), "/payment/method_token")
	bad(errcode.REQ002, body(`%s,"shipping_address":{"name":"x"}}`, full), "/shipping_address/city")
	bad(errcode.REQ002, body(`[]`), "")
	bad(errcode.REQ002, line(`"quantity":0,"color":"red"`), "/lines/0/quantity") // with another fault an unknown field is one of several
	bad(errcode.REQ004, body(`%s,"colour":"red"}`, full), "/colour")
	bad(errcode.REQ004, line(`"quantity":1,"Quantity":-5`), "/lines/0/Quantity")
	if p, ok := s.decide(ctx, good, http.StatusCreated); ok {
		s.ends(p, api.OrderStatusConfirmed, "paid")
		s.foundIf(p.accepted.header.Get("Idempotency-Replayed") == "true" && p.CustomerRef != ref,
			p.accepted, "/body", "belongs to another request")
		s.only(ctx, ref, p.ID)
	}
}

// refusedOrders: an order that cannot be placed is refused, makes no order, and the refusal is stored under its key.
func (s *suite) refusedOrders(ctx context.Context, g *goods) {
	ref := s.ref + "-order"
	n := 0
	bad := func(code errcode.Code, currency string, pointer string, lines ...map[string]any) reply {
		n++
		c := call{op: "placeOrder", idem: fmt.Sprintf("%s-order-%d", s.ref, n), body: map[string]any{
			"currency": currency, "customer_ref": ref, "lines": lines, "payment": map[string]any{"method_token": "pm_ok"},
		}}
		r := s.refused(ctx, code, c, pointer)
		if r.problem.Code == string(code) {
			s.replays(ctx, c, r)
		}
		s.only(ctx, ref)
		return r
	}
	line := func(sku string, expected ...api.Money) map[string]any {
		l := map[string]any{"sku": sku, "quantity": 1}
		for _, m := range expected {
			l["expected_unit_price"] = m
		}
		return l
	}
	currency, sku, price := g.price.Currency, g.main.Sku, g.price
	bad(errcode.CAT005, currency, "/lines/1/sku", line(sku), line("no-"+s.ref))
	unknown := make([]map[string]any, 25) // the first 20 are named
	for i := range unknown {
		unknown[i] = line(fmt.Sprintf("no-%d-%s", i, s.ref))
	}
	r := bad(errcode.CAT005, currency, "/lines/19/sku", unknown...)
	s.foundIf(r.problem.Code == string(errcode.CAT005) && len(r.problem.Errors) != 20, r, "/body/errors", "names %d places, and the first 20 are wrong", len(r.problem.Errors))
	// 1.0 is an integer to JSON Schema: it is the sku that is wrong here.
	bad(errcode.CAT005, currency, "/lines/0/sku", map[string]any{"sku": "no-" + s.ref, "quantity": json.RawMessage("1.0")})
	bad(errcode.CAT004, unpriced(g.main), "/lines/0/sku", line(sku))
	bad(errcode.ORD003, currency, "/lines/1/sku", line(sku), line(sku))
	foreign := api.Money{Amount: price.Amount, Currency: unpriced(g.main)}
	bad(errcode.ORD005, currency, "/lines/0/expected_unit_price/currency", line(sku, foreign))
	dearer := api.Money{Amount: price.Amount + 1, Currency: currency}
	r = bad(errcode.ORD004, currency, "/lines/0/expected_unit_price", line(sku, dearer))
	var changed struct {
		Sku              string
		Expected, Actual api.Money
	}
	decode(r, &changed)
	s.foundIf(r.status != 0 && (changed.Sku != sku || changed.Expected != dearer || changed.Actual != price),
		r, "/body/actual", "the problem does not say which price was expected and which holds")
	if own, ok := s.own(ctx); ok { // it is never active
		bad(errcode.CAT003, "EUR", "/lines/0/sku", line(own.Sku))
	}
	s.overLimit(ctx, g, ref)
	good := s.draft(g, "pm_ok")
	if p, ok := s.decide(ctx, call{op: "placeOrder", idem: s.ref + "-order-good", body: good}, http.StatusCreated); ok {
		s.ends(p, api.OrderStatusConfirmed, "paid")
	}
}

// overLimit orders as much as one order can name. More than the limit is ORD_008, and the rest is rejected for want of stock.
func (s *suite) overLimit(ctx context.Context, g *goods, ref string) {
	const most = 10_000
	if g.stock >= most {
		return // it might be taken in earnest
	}
	for g.next != nil && len(g.all) < 300 {
		if !s.readOn(ctx) {
			return
		}
	}
	dearest := slices.Clone(g.all)
	slices.SortStableFunc(dearest, func(a, b api.Product) int {
		x, _ := sold(a, g.price.Currency)
		y, _ := sold(b, g.price.Currency)
		return cmp.Compare(y.Amount, x.Amount)
	})
	lines := []any{map[string]any{"sku": g.main.Sku, "quantity": most}}
	for _, p := range dearest {
		if _, ok := sold(p, g.price.Currency); ok && p.Active && p.Sku != g.main.Sku && len(lines) < 100 {
			lines = append(lines, map[string]any{"sku": p.Sku, "quantity": most})
		}
	}
	c := call{op: "placeOrder", idem: s.ref + "-order-most", body: map[string]any{
		"currency": g.price.Currency, "customer_ref": ref + "-most", "lines": lines,
	}}
	r, ok := s.pastMarks(ctx, c)
	switch {
	case ok && r.status < 300:
		if p, ok := s.decide(ctx, c, http.StatusCreated); ok {
			s.ends(p, api.OrderStatusRejected, "none")
			s.checkRejection(p, errcode.INV002)
		}
	case ok && r.problem.Code != string(errcode.ORD008):
		s.foundf(r, "/body/code", "is not ORD_008%s", why(r))
	default:
		s.replays(ctx, c, r)
		s.only(ctx, ref+"-most")
	}
}

// unpriced is a currency in which a product is not sold.
func unpriced(p api.Product) string {
	for _, currency := range []string{"XTS", "XXX", "XUA"} {
		if _, ok := sold(p, currency); !ok {
			return currency
		}
	}
	return "ZZZ"
}
