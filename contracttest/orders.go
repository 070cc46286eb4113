package contracttest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
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
	s.foundIf(first.status < 300 && !bytes.Equal(again.body, first.body), again, "/body", "of a repetition differs from the first answer")
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
		return first != nil
	})
	if first != nil {
		s.orders[first.ID] = true
		s.replays(ctx, c, first.accepted)
		s.only(ctx, ref, first.ID)
	}
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

// rejectedOrders: a declined card and a quantity beyond the stock leave a rejected order with its reason.
func (s *suite) rejectedOrders(ctx context.Context, p *placed) {
	s.ends(p, api.OrderStatusRejected, "failed")
	s.checkRejection(p, errcode.PAY007)
	r := p.Rejection
	s.foundIf(r != nil && (r.DeclineReason == nil || *r.DeclineReason == ""), p.accepted, "/body/rejection/decline_reason", "is empty")
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

// cancelling: a confirmed order is refunded, a reserved one is released, and a rejected one cannot be cancelled.
func (s *suite) cancelling(ctx context.Context, g *goods) {
	paid := call{op: "placeOrder", idem: s.ref + "-paid", body: s.draft(g, "pm_ok")}
	if p, ok := s.decide(ctx, paid, http.StatusCreated); ok {
		s.cancelPaid(ctx, p)
	}
	unpaid := call{op: "placeOrder", idem: s.ref + "-unpaid", body: s.draft(g, "")}
	if p, ok := s.decide(ctx, unpaid, http.StatusCreated); ok {
		s.cancelUnpaid(ctx, p)
	}
	if p, ok := s.refusal(ctx); ok {
		r := s.refused(ctx, errcode.ORD002, call{op: "cancelOrder", arg: p.ID, idem: s.ref + "-too-late", body: map[string]any{}})
		var state struct {
			From    string
			Allowed []string
		}
		decode(r, &state)
		s.foundIf(state.From != "rejected" || len(state.Allowed) != 0,
			r, "/body/from", "is %q, allowed %v, of a rejected order", state.From, state.Allowed)
	}
}

func (s *suite) cancelPaid(ctx context.Context, p *placed) {
	s.ends(p, api.OrderStatusConfirmed, "paid")
	// The key of the placing: keys count per operation.
	c := call{op: "cancelOrder", arg: p.ID, idem: s.ref + "-paid", body: map[string]any{"reason": "ordered by mistake"}}
	r, ok := s.place(ctx, c, http.StatusAccepted)
	if !ok {
		return
	}
	s.foundIf(r.ID != p.ID || r.CancelRequestedAt == nil || r.Version <= p.Version,
		r.accepted, "/body", "is version %d of %q, cancel_requested_at %v, after version %d", r.Version, r.ID, r.CancelRequestedAt, p.Version)
	s.replays(ctx, c, r.accepted)
	other := c
	other.body = map[string]any{"reason": "another reason"}
	s.refused(ctx, errcode.IDEM002, other)
	o, last := s.await(ctx, r, api.OrderStatusCancelled)
	s.foundIf(o.Status == api.OrderStatusCancelled && o.PaymentStatus != "refunded",
		last, "/body/payment_status", "is %q after a paid order was cancelled", o.PaymentStatus)
	s.replays(ctx, c, r.accepted)
	s.refused(ctx, errcode.ORD007, call{op: "cancelOrder", arg: p.ID, idem: s.ref + "-again", body: map[string]any{}})
	s.refused(ctx, errcode.ORD007, call{op: "cancelOrder", arg: p.ID, idem: s.ref + "-again-zh"}.with("Accept-Language", "zh-CN"))
}

func (s *suite) cancelUnpaid(ctx context.Context, p *placed) {
	s.ends(p, api.OrderStatusReserved, "none")
	s.foundIf(p.ReservationExpiresAt == nil || !p.ReservationExpiresAt.After(p.CreatedAt.Time),
		p.accepted, "/body/reservation_expires_at", "is %v of an order that waits for its payment", p.ReservationExpiresAt)
	good := call{op: "cancelOrder", arg: p.ID, idem: s.ref + "-unpaid"} // without a body
	bad := func(code errcode.Code, change func(*call), pointers ...string) {
		c := good
		c.body = map[string]any{"reason": "unpaid"}
		change(&c)
		s.refused(ctx, code, c, pointers...)
		var o api.Order
		r, ok := s.get(ctx, &o, call{op: "getOrder", arg: p.ID}, http.StatusOK)
		s.foundIf(ok && o.Version != p.Version, r, "/body/version", "is %d, not %d, after a cancellation that was refused", o.Version, p.Version)
	}
	bad(errcode.IDEM001, func(c *call) { c.idem = "" })
	bad(errcode.IDEM004, func(c *call) { c.idem = "short" })
	bad(errcode.REQ001, func(c *call) { c.body = []byte(`{"reason": "cut`) })
	bad(errcode.REQ002, func(c *call) { c.body = map[string]any{"reason": ""} }, "/reason")
	bad(errcode.REQ004, func(c *call) { c.body = map[string]any{"reason": "x", "Reason": "y"} }, "/Reason")
	bad(errcode.REQ008, func(c *call) { c.body, c.deferred = tooLarge(), true })
	bad(errcode.REQ009, func(c *call) { *c = c.with("Content-Type", "text/plain") })
	bad(errcode.ORD001, func(c *call) { c.arg, c.idem = forge(p.ID), s.ref+"-forged" })
	bad(errcode.REQ003, func(c *call) { c.arg = "ord_1" }, "/path/order_id")
	c, ok := s.decide(ctx, good, http.StatusOK)
	if !ok {
		return
	}
	s.ends(c, api.OrderStatusCancelled, "none")
	s.foundIf(c.ID != p.ID || c.CancelRequestedAt == nil, c.accepted, "/body", "is not the order as cancelled on request")
	s.replays(ctx, good.with("Prefer", "wait=10"), c.accepted)
}

// reading: an order is there as soon as its placing is answered, and never older than the token.
func (s *suite) reading(ctx context.Context, p *placed) {
	one := call{op: "getOrder", arg: p.ID}
	s.get(ctx, nil, one.with("X-Consistency-Token", p.accepted.header.Get("X-Consistency-Token")), http.StatusOK)
	s.get(ctx, nil, one.with("X-Consistency-Token", ""), http.StatusOK)
	o, r := s.await(ctx, p, api.OrderStatusConfirmed)
	s.foundIf(o.ID != p.ID || o.Total != p.Total || !slices.Equal(o.Lines, p.Lines) || !o.CreatedAt.Equal(p.CreatedAt.Time),
		r, "/body", "is not the order that was placed")
	s.unchanged(ctx, one, r)
	for _, op := range []string{"getOrder", "getOrderSaga", "listOrderEvents"} {
		s.refused(ctx, errcode.ORD001, call{op: op, arg: forge(p.ID)})
		s.refused(ctx, errcode.REQ003, call{op: op, arg: "ord_1"}, "/path/order_id")
		s.badToken(ctx, call{op: op, arg: p.ID})
	}
	s.refused(ctx, errcode.ORD001, call{op: "getOrder", arg: forge(p.ID)}.with("Accept-Language", "zh-CN"))
}

// listing: all orders of the run, the newest first, by page and by filter.
func (s *suite) listing(ctx context.Context, p *placed) {
	d, ok := s.refusal(ctx)
	if !ok {
		return
	}
	want := slices.Clone(s.placed)
	slices.Reverse(want)
	cursor := s.walk(ctx, "listOrders", "", values("customer_ref", s.ref, "limit", "1"), want)
	s.badPages(ctx, "listOrders", "", cursor, values("customer_ref", s.ref, "status", "confirmed"))
	whole := call{op: "listOrders", query: values("customer_ref", s.ref)}
	if r, ok := s.get(ctx, nil, whole, http.StatusOK); ok {
		got, next := page(r)
		s.foundIf(!slices.Equal(got, want) || next != nil, r, "/body/data", "is %v and not %v", got, want)
		s.unchanged(ctx, whole, r)
	}
	s.await(ctx, p, api.OrderStatusConfirmed)
	s.byStatus(ctx, want)
	at := d.CreatedAt.Format(time.RFC3339Nano)
	for _, c := range []struct {
		bound    string
		has, not string
	}{{"created_from", d.ID, p.ID}, {"created_to", p.ID, d.ID}} {
		if !d.CreatedAt.Truncate(time.Millisecond).After(p.CreatedAt.Time) {
			break
		}
		r, ok := s.get(ctx, nil, call{op: "listOrders", query: values("customer_ref", s.ref, c.bound, at)}, http.StatusOK)
		got, _ := page(r)
		s.foundIf(ok && (!slices.Contains(got, c.has) || slices.Contains(got, c.not)),
			r, "/body/data", "is %v with %s %s, the instant of %s", got, c.bound, at, d.ID)
	}
	s.refused(ctx, errcode.REQ003, call{op: "listOrders", query: values("status", "lost")}, "/query/status")
	s.refused(ctx, errcode.REQ003, call{op: "listOrders", query: values("customer_ref", "not a ref")}, "/query/customer_ref")
	s.refused(ctx, errcode.REQ003, call{op: "listOrders", query: values("created_from", "yesterday")}, "/query/created_from")
	for _, op := range []string{"listOrders", "listPayments", "listRefunds"} {
		s.refused(ctx, errcode.REQ003, call{op: op, query: values("created_from", "2026-11-02T00:00:00Z", "created_to", "2026-11-01T00:00:00Z")}, "/query/created_to")
	}
	s.badToken(ctx, call{op: "listOrders"})
}

// byStatus: each order is in the list of its status and in no other.
func (s *suite) byStatus(ctx context.Context, want []string) {
	seen := map[string]bool{}
	for _, status := range []string{"pending", "reserved", "confirmed", "completed", "rejected", "cancelled"} {
		var list api.OrderList
		r, ok := s.get(ctx, &list, call{op: "listOrders", query: values("customer_ref", s.ref, "status", status)}, http.StatusOK)
		if !ok {
			return
		}
		for _, o := range list.Data {
			s.foundIf(string(o.Status) != status || seen[o.ID], r, "/body/data", "has %q, which is %q, with status=%s", o.ID, o.Status, status)
			seen[o.ID] = true
		}
	}
	for _, id := range want {
		s.foundIf(!seen[id], reply{call: call{op: "listOrders"}, request: "GET /v1/orders?status="}, "/body/data", "no status has %s", id)
	}
}

// events: an order's history has no gap, and page by page it is the same.
func (s *suite) events(ctx context.Context, p *placed) {
	all := call{op: "listOrderEvents", arg: p.ID, query: values("limit", "100")}
	s.get(ctx, nil, all, http.StatusOK) // while it grows
	o, _ := s.await(ctx, p, api.OrderStatusConfirmed)
	var list struct{ Data []event }
	r, ok := s.get(ctx, &list, all, http.StatusOK)
	if !ok {
		return
	}
	s.foundIf(int64(len(list.Data)) != o.Version, r, "/body/data", "has %d events of an order at version %d", len(list.Data), o.Version)
	ids := make([]string, len(list.Data))
	for i, e := range list.Data {
		ids[i] = e.ID
		s.foundIf(e.Sequence != int64(i+1) || e.Resource != p.ID, r, "/body/data", "has event %d of %q in place %d", e.Sequence, e.Resource, i+1)
	}
	if len(ids) == 0 {
		return
	}
	e, trace := list.Data[0], p.accepted.header.Get("X-Trace-ID")
	s.foundIf(e.Type != "order.created" || e.Cause.Operation != "placeOrder" || e.Cause.TraceID != trace, r, "/body/data/0",
		"is %q, caused by %q in %q, and not order.created by placeOrder in %q", e.Type, e.Cause.Operation, e.Cause.TraceID, trace)
	end := list.Data[len(ids)-1].Type
	s.foundIf(end != "order.confirmed", r, "/body/data", "ends with %q, and the order is confirmed", end)
	s.unchanged(ctx, all, r)
	cursor := s.walk(ctx, "listOrderEvents", p.ID, values("limit", "2"), ids)
	s.badPages(ctx, "listOrderEvents", p.ID, cursor, nil)
	if d, ok := s.refusal(ctx); ok && cursor != "" {
		s.refused(ctx, errcode.REQ012, call{op: "listOrderEvents", arg: d.ID, query: values("cursor", cursor)})
	}
}

// then: an order is shown as it was at each version, and at each instant; what was not is refused.
func (s *suite) then(ctx context.Context, p *placed) {
	o, r := s.await(ctx, p, api.OrderStatusConfirmed)
	at := func(query ...string) call { return call{op: "getOrder", arg: p.ID, query: values(query...)} }
	var was, before api.Order
	for v := int64(1); v <= o.Version; v++ {
		got, ok := s.get(ctx, &was, at("version", strconv.FormatInt(v, 10)), http.StatusOK)
		if !ok {
			return
		}
		s.foundIf(was.ID != p.ID || was.Version != v || was.UpdatedAt.Before(before.UpdatedAt.Time) || was.Total != p.Total, got, "/body", "is version %d, and %d was asked for", was.Version, v)
		s.unchanged(ctx, at("version", strconv.FormatInt(v, 10)), got)
		switch v {
		case 1:
			s.foundIf(was.Status != "pending", got, "/body/status", "of a new order is %q", was.Status)
		case o.Version:
			s.foundIf(!bytes.Equal(got.body, r.body), got, "/body", "of the last version is not the order")
		}
		before = was
	}
	same := func(instant time.Time, version int64) {
		got, ok := s.get(ctx, &was, at("as_of", instant.Format(time.RFC3339Nano)), http.StatusOK)
		s.foundIf(ok && was.Version != version, got, "/body/version", "is %d at %v, and not %d", was.Version, instant, version)
	}
	same(o.UpdatedAt.Time, o.Version)
	same(o.UpdatedAt.Add(time.Microsecond), o.Version)
	s.get(ctx, &was, at("as_of", o.CreatedAt.Format(time.RFC3339Nano)), http.StatusOK)
	s.refused(ctx, errcode.ORD010, at("as_of", o.CreatedAt.Add(-time.Microsecond).Format(time.RFC3339Nano)))
	s.refused(ctx, errcode.ORD010, at("as_of", "0001-01-01T00:00:00Z"))
	s.refused(ctx, errcode.ORD010, at("version", strconv.FormatInt(o.Version+1, 10)))
	s.refused(ctx, errcode.ORD010, at("version", "9007199254740991").with("Accept-Language", "zh-CN"))
	for _, bad := range []string{"0", "-1", "1.5", "one", "9007199254740992", ""} {
		s.refused(ctx, errcode.REQ003, at("version", bad), "/query/version")
	}
	s.refused(ctx, errcode.REQ003, at("as_of", "yesterday"), "/query/as_of")
	s.refused(ctx, errcode.REQ003, at("as_of", "9999-01-01T00:00:00Z"), "/query/as_of")
	s.refused(ctx, errcode.REQ003, at("as_of", o.CreatedAt.Format(time.RFC3339Nano), "version", "1"), "/query/as_of")
	for _, then := range [][]string{{"version", "1"}, {"as_of", o.UpdatedAt.Format(time.RFC3339Nano)}} {
		c := at(then...)
		s.badToken(ctx, c)
		c.arg = forge(p.ID)
		s.refused(ctx, errcode.ORD001, c)
	}
}

// stream: a final order is followed from any of its events to the end at once, and from the last one there is nothing to follow.
func (s *suite) stream(ctx context.Context, _ *placed) {
	p, ok := s.refusal(ctx)
	if !ok {
		return
	}
	var list struct{ Data []json.RawMessage }
	if _, ok = s.get(ctx, &list, call{op: "listOrderEvents", arg: p.ID, query: values("limit", "100")}, http.StatusOK); !ok {
		return
	}
	follow := func(last string) call { return call{op: "streamOrder", arg: p.ID}.with("Last-Event-ID", last) }
	for after := range list.Data {
		last := strconv.Itoa(after)
		if after == 0 {
			last = ""
		}
		r, ok := s.get(ctx, nil, follow(last), http.StatusOK)
		var want strings.Builder
		for i, data := range list.Data[after:] {
			var e event
			_ = json.Unmarshal(data, &e)
			fmt.Fprintf(&want, "id: %d\nevent: %s\ndata: %s\n\n", after+i+1, e.Type, data)
		}
		want.WriteString("event: end\ndata: {\"reason\":\"terminal\"}\n\n")
		got := comments.ReplaceAllString(string(r.body), "")
		if token := streamToken.FindStringSubmatch(got); token != nil {
			got = strings.Replace(got, token[0], "", 1)
			s.get(ctx, nil, call{op: "getOrder", arg: p.ID}.with("X-Consistency-Token", token[1]), http.StatusOK)
		} else {
			s.foundIf(ok, r, "/body", "it does not begin with a token")
		}
		s.foundIf(ok && got != want.String(), r, "/body", "after %q is %q, and the events are %q", last, got, want.String())
	}
	s.get(ctx, nil, follow(strconv.Itoa(len(list.Data))), http.StatusNoContent)
	s.get(ctx, nil, follow("9999999999999999"), http.StatusNoContent)
	for _, bad := range []string{"one", "-1", "01", "1.5", "10000000000000000"} {
		s.refused(ctx, errcode.REQ003, follow(bad), "/header/Last-Event-ID")
	}
	s.refused(ctx, errcode.REQ007, follow("").with("Accept", "application/json"))
	s.badToken(ctx, follow(""))
	s.refused(ctx, errcode.REQ003, call{op: "streamOrder", arg: "ord_1"}, "/path/order_id")
	s.refused(ctx, errcode.ORD001, call{op: "streamOrder", arg: forge(p.ID)})
	s.refused(ctx, errcode.ORD001, call{op: "streamOrder", arg: forge(p.ID)}.with("Accept-Language", "zh-CN"))
}

// comments of a stream of server-sent events.
var comments = regexp.MustCompile(`(?m)^:.*\n\n`)

// streamToken is the message that stands before the events of a stream.
var streamToken = regexp.MustCompile(`\Aevent: token\ndata: \{"token":"([^"]+)"\}\n\n`)

// event is an entry of the contract's EventList, whatever its type.
type event struct {
	api.EventBase
	Type string `json:"type"`
}

// saga: the steps of an order that is confirmed are done, of one that is rejected they say what failed.
func (s *suite) saga(ctx context.Context, p *placed) {
	steps, r := s.doneSaga(ctx, p)
	for _, name := range []string{"reserve_stock", "authorize", "confirm_stock", "capture"} {
		step := steps[name]
		s.foundIf(step.Status != "done" || step.Tries < 1 || step.StartedAt == nil || step.FinishedAt == nil,
			r, "/body/steps", "%s of a confirmed order is %q after %d tries", name, step.Status, step.Tries)
	}
	s.unchanged(ctx, call{op: "getOrderSaga", arg: p.ID}, r)
	declined, ok := s.refusal(ctx)
	if !ok {
		return
	}
	steps, r = s.doneSaga(ctx, declined)
	failed, undo := steps["authorize"], steps["cancel_reservation"]
	s.foundIf(failed.Status != "failed" || failed.LastError == nil || failed.LastError.Code != string(errcode.PAY007),
		r, "/body/steps", "authorize of a declined card is %q, and its last_error not PAY_007", failed.Status)
	s.foundIf(undo.Status != "done", r, "/body/steps", "cancel_reservation of a rejected order is %q", undo.Status)
}

// doneSaga polls a saga until it is done and returns its steps by name.
func (s *suite) doneSaga(ctx context.Context, p *placed) (map[string]api.SagaStep, reply) {
	var last reply
	steps := map[string]api.SagaStep{}
	s.poll(ctx, s.Patience, p.accepted, "the saga as done", func() bool {
		var saga api.Saga
		r, ok := s.get(ctx, &saga, call{op: "getOrderSaga", arg: p.ID}, http.StatusOK)
		if last = r; !ok || saga.State != "done" {
			return !ok
		}
		s.foundIf(saga.OrderID != p.ID, r, "/body/order_id", "is %q", saga.OrderID)
		for _, step := range saga.Steps {
			steps[string(step.Name)] = step
			s.foundIf(step.Status == "pending" || step.Status == "running" || step.Status == "in_doubt",
				r, "/body/steps", "%q is %q in a saga that is done", step.Name, step.Status)
		}
		return true
	})
	return steps, last
}
