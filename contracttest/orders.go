package contracttest

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"slices"

	"github.com/ordergate/ordergate/gen/api"
)

// fixtures are shared by the parts. The first part that needs one makes it.
type fixtures struct {
	goods       *goods
	placed      []string // ids in the order of placing, all under the run's customer_ref
	confirmed   *placed
	declined    *placed
	product     *created
	paid        *payment           // captured, of an order that was placed without payment
	refusedCard *payment           // of the same order, before it: a declined card
	idle        map[string]*placed // orders that wait for their payment
	declinedFor string             // the provider's reason to decline pm_declined
	signs       *bool              // the provider's secret is that of the address; nil: not asked yet
}

// placed is an order that the suite placed.
type placed struct {
	api.Order
	call     call // that placed it
	accepted reply
}

func decode(r reply, out any) { _ = json.Unmarshal(r.body, out) } // an answer that breaks its schema is a finding already

// draft is the body of a good order; token is the payment method, empty for none.
func (s *suite) draft(g *goods, token string) map[string]any {
	w := map[string]any{
		"currency": g.price.Currency, "customer_ref": s.ref,
		"lines": []any{map[string]any{"sku": g.main.Sku, "quantity": 1}},
	}
	if token != "" {
		w["payment"] = map[string]any{"method_token": token}
	}
	return w
}

// place sends an order that must be taken in.
func (s *suite) place(ctx context.Context, c call, statuses ...int) (*placed, bool) {
	p := &placed{call: c}
	r, ok := s.get(ctx, &p.Order, c, statuses...)
	if p.accepted = r; !ok {
		return p, false
	}
	at, want := r.header.Get("Location"), "/v1/orders/"+p.ID
	s.foundIf(at != want, r, "/header/Location", "is %q and not %q", at, want)
	s.orders[p.ID] = true
	if p.CustomerRef == s.ref && !slices.Contains(s.placed, p.ID) {
		s.placed = append(s.placed, p.ID)
	}
	return p, true
}

// decide repeats a request with Prefer: wait and its key until the answer is the decided one, with status want.
func (s *suite) decide(ctx context.Context, c call, want int) (*placed, bool) {
	c = c.with("Prefer", "wait=10")
	var p *placed
	var ok bool
	s.poll(ctx, s.Patience, reply{call: c}, "the decided order", func() bool {
		p, ok = s.place(ctx, c, want, http.StatusAccepted)
		return !ok || p.accepted.status == want
	})
	s.foundIf(ok && p.accepted.status == want && p.accepted.header.Get("Preference-Applied") != "wait=10",
		p.accepted, "/header/Preference-Applied", "is %q and not wait=10", p.accepted.header.Get("Preference-Applied"))
	return p, ok && p.accepted.status == want
}

// ends checks where a decided order ended.
func (s *suite) ends(p *placed, status api.OrderStatus, payment api.PaymentStatus) {
	s.foundIf(p.Status != status || p.PaymentStatus != payment,
		p.accepted, "/body/status", "is %q, payment %q, and not %q, payment %q", p.Status, p.PaymentStatus, status, payment)
}

// replays sends a call again, which must be answered with the same bytes and be marked as a repetition.
func (s *suite) replays(ctx context.Context, c call, first reply) {
	again, ok := s.send(ctx, c)
	if !ok {
		return
	}
	if again.status != first.status {
		s.foundf(again, "/status", "of a repetition is not that of the first answer, %d%s", first.status, why(again))
		return
	}
	s.foundIf(again.header.Get("Idempotency-Replayed") != "true",
		again, "/header/Idempotency-Replayed", "is %q on a repetition", again.header.Get("Idempotency-Replayed"))
	s.foundIf(!bytes.Equal(again.body, first.body), again, "/body", "of a repetition differs from the first answer")
	for _, name := range []string{"Content-Type", "ETag", "Location"} {
		s.foundIf(again.header.Get(name) != first.header.Get(name),
			again, "/header/"+name, "of a repetition is %q and not %q", again.header.Get(name), first.header.Get(name))
	}
}

// await polls an order until it has the status. Its version never goes back.
func (s *suite) await(ctx context.Context, p *placed, status api.OrderStatus) (api.Order, reply) {
	var o api.Order
	var last reply
	version := p.Version
	s.poll(ctx, s.Patience, p.accepted, "the order as "+string(status), func() bool {
		r, ok := s.get(ctx, &o, call{op: "getOrder", arg: p.ID}, http.StatusOK)
		if last = r; !ok {
			return true
		}
		s.foundIf(o.Version < version, r, "/body/version", "went back from %d to %d", version, o.Version)
		version = o.Version
		return o.Status == status
	})
	return o, last
}

// ordered is an order that ended as confirmed: with two lines if the catalogue has them, an expected price, an address, metadata.
func (s *suite) ordered(ctx context.Context) (*placed, bool) {
	if s.confirmed != nil {
		return s.confirmed, s.confirmed.ID != ""
	}
	s.confirmed = &placed{}
	g, ok := s.find(ctx)
	if !ok {
		return s.confirmed, false
	}
	w := s.draft(g, "pm_ok")
	lines := []any{map[string]any{"sku": g.main.Sku, "quantity": 2, "expected_unit_price": g.price}}
	if g.side != nil {
		lines = append(lines, map[string]any{"sku": g.side.Sku, "quantity": 1})
	}
	w["lines"] = lines
	w["metadata"] = map[string]any{"channel": "contracttest", "run": s.ref}
	w["shipping_address"] = map[string]any{
		"name": "梅 Lin", "line1": "Hafenstrasse 12", "line2": "c/o Berger", "city": "Hamburg", "region": "HH",
		"postal_code": "20457", "country": "DE", "phone": "+49 40 123456",
	}
	p, ok := s.place(ctx, call{op: "placeOrder", idem: s.ref + "-first", body: w}, http.StatusAccepted)
	if ok {
		s.confirmed = p
		s.checkTaken(p, g)
	}
	return s.confirmed, ok
}

// jsonOf is a value as it looks once it was sent.
func jsonOf(v any) (out any) {
	_ = json.Unmarshal(encode(v), &out) // it was encoded just now
	return out
}

// encode is the JSON of a body that the suite made.
func encode(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // it has maps, lists, texts and numbers alone
	}
	return text
}

// refusal is an order that must end as rejected.
func (s *suite) refusal(ctx context.Context) (*placed, bool) {
	if s.declined == nil {
		s.declined = &placed{}
		if g, ok := s.find(ctx); ok {
			c := call{op: "placeOrder", idem: s.ref + "-declined", body: s.draft(g, "pm_declined")}
			if p, ok := s.decide(ctx, c, http.StatusCreated); ok {
				s.declined = p
			}
		}
	}
	return s.declined, s.declined.ID != ""
}
