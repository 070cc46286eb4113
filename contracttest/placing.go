package contracttest

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
)

// checkTaken holds a pending order against what was asked for.
func (s *suite) checkTaken(p *placed, g *goods) {
	wrong := func(is bool, at, format string, args ...any) { s.foundIf(is, p.accepted, "/body/"+at, format, args...) }
	wrong(p.Status != "pending" || p.PaymentStatus != "none" || p.FulfillmentStatus != "unfulfilled" || p.Version != 1, "status",
		"of an order just taken in is %q, %q, %q, version %d", p.Status, p.PaymentStatus, p.FulfillmentStatus, p.Version)
	first := api.Money{Amount: 2 * g.price.Amount, Currency: g.price.Currency}
	sum, lines := first.Amount, 1
	if g.side != nil {
		sum, lines = sum+g.sidePay.Amount, 2
	}
	wrong(len(p.Lines) != lines || p.Lines[0].Sku != g.main.Sku || p.Lines[0].Quantity != 2 || p.Lines[0].UnitPrice != g.price ||
		p.Lines[0].Total != first, "lines", "are not those that were ordered")
	wrong(p.Subtotal.Amount != sum || p.Total.Amount != sum-p.Discount.Amount || p.Total.Currency != g.price.Currency, "total",
		"is %d, subtotal %d, discount %d of lines worth %d", p.Total.Amount, p.Subtotal.Amount, p.Discount.Amount, sum)
	wrong(p.Metadata["run"] != s.ref || len(p.Metadata) != 2, "metadata", "is not what was sent")
	a := p.ShippingAddress
	wrong(a == nil || a.Name != "梅 Lin" || a.Line2 == nil || *a.Line2 != "c/o Berger", "shipping_address", "is not what was sent")
	wrong(p.Rejection != nil || p.CancelRequestedAt != nil, "rejection", "or cancel_requested_at is set")
	age := p.UpdatedAt.Sub(p.CreatedAt.Time)
	wrong(age != 0, "updated_at", "is %v after created_at in version 1", age)
}

// placing: taken in, decided, and repeated byte for byte in both forms.
func (s *suite) placing(ctx context.Context, p *placed) {
	first := p.call
	s.replays(ctx, first, p.accepted)
	s.replays(ctx, first.with("Idempotency-Key", `"`+first.idem+`"`), p.accepted)
	for _, prefer := range []string{"wait=rubbish", "respond-async, handling=lenient", "wait=0", strings.Repeat("x", 1025)} {
		s.replays(ctx, first.with("Prefer", prefer), p.accepted)
	}
	again := first
	again.body = reordered(first.body)
	s.replays(ctx, again, p.accepted)
	other, _ := jsonOf(first.body).(map[string]any)
	other["customer_ref"] = s.ref + "-other"
	again.body = other
	s.refused(ctx, errcode.IDEM002, again)
	s.refused(ctx, errcode.IDEM002, call{op: "placeOrder", idem: first.idem, body: other}.with("Accept-Language", "zh-CN", "Prefer", "wait=5"))

	d, ok := s.decide(ctx, first, http.StatusCreated)
	if !ok {
		return
	}
	s.ends(d, api.OrderStatusConfirmed, "paid")
	s.foundIf(d.ID != p.ID, d.accepted, "/body/id", "is %q where the first answer said %q", d.ID, p.ID)
	s.replays(ctx, first.with("Prefer", "handling=strict, wait=10; foo=bar"), d.accepted)
	s.replays(ctx, first, p.accepted) // without Prefer it is the stored 202 for ever
	s.await(ctx, p, api.OrderStatusConfirmed)
}

// racing: the same request is sent many times at once. One makes the order; the others get its response or IDEM_003.
func (s *suite) racing(ctx context.Context, g *goods) {
	w := s.draft(g, "pm_ok")
	ref := s.ref + "-race"
	w["customer_ref"] = ref
	c := call{op: "placeOrder", idem: ref, body: w}
	var first *placed
	s.poll(ctx, s.Patience, reply{call: c}, "an answer that is not IDEM_003", func() bool {
		for _, r := range s.together(ctx, 8, c) {
			if r.problem.Code == string(errcode.IDEM003) {
				s.foundIf(r.header.Get("Retry-After") == "", r, "/header/Retry-After", "is missing")
				continue
			}
			if _, asked := r.retryAfter(); asked || r.err != nil {
				continue
			}
			p := &placed{call: c, accepted: r}
			if decode(r, &p.Order); r.status != http.StatusAccepted {
				s.foundf(r, "/status", "is not 202 or that of IDEM_003%s", why(r))
			} else if first == nil {
				first = p
			} else if !bytes.Equal(r.body, first.accepted.body) {
				s.foundf(r, "/body", "of a repetition differs from another's")
			}
		}
		return first != nil || s.over("placeOrder") != ""
	})
	if first != nil {
		s.orders[first.ID] = true
		s.replays(ctx, c, first.accepted)
		s.only(ctx, ref, first.ID)
	}
}

// reordered is the same JSON, spelled in another way.
func reordered(v any) []byte {
	object, _ := jsonOf(v).(map[string]any)
	members := make([]string, 0, len(object))
	for _, name := range sortedKeys(object) {
		value := jsontext.Value(encode(object[name]))
		_ = value.Indent() // it was encoded just now
		members = append(members, fmt.Sprintf("%q: %s", name, value))
	}
	slices.Reverse(members)
	return []byte("{ " + strings.Join(members, " ,\n") + "\n}\n")
}
