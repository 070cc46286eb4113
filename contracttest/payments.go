package contracttest

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
)

// payment is a payment that the suite made.
type payment struct {
	api.Payment
	call     call // that made it
	accepted reply
}

// unpaid places an order that waits for its payment.
func (s *suite) unpaid(ctx context.Context, g *goods, name string, quantity int) (*placed, bool) {
	w := s.draft(g, "")
	w["lines"] = []any{map[string]any{"sku": g.main.Sku, "quantity": quantity}}
	p, ok := s.decide(ctx, call{op: "placeOrder", idem: s.ref + "-" + name, body: w}, http.StatusCreated)
	if ok {
		s.ends(p, api.OrderStatusReserved, "none")
	}
	return p, ok
}

// paymentOf is the call that pays an order.
func (s *suite) paymentOf(orderID, name, token string) call {
	return call{op: "payOrder", arg: orderID, idem: s.ref + "-pay-" + name, body: map[string]any{"method_token": token}}
}

// pay sends a payment that must be taken in, as the given attempt.
func (s *suite) pay(ctx context.Context, c call, attempt int32) (*payment, bool) {
	p := &payment{call: c}
	r, ok := s.get(ctx, &p.Payment, c, http.StatusAccepted)
	if p.accepted = r; !ok {
		return p, false
	}
	at, want := r.header.Get("Location"), "/v1/payments/"+p.ID
	s.foundIf(at != want, r, "/header/Location", "is %q and not %q", at, want)
	s.foundIf(p.OrderID != c.arg || p.Attempt != attempt || p.Status != "pending" || p.Refunded.Amount != 0 || p.Failure != nil || p.Version != 1,
		r, "/body", "of a payment just taken in is attempt %d of %s, %q, version %d", p.Attempt, p.OrderID, p.Status, p.Version)
	return p, true
}

// outcome repeats a request with Prefer: wait and its key until the answer is no longer 202. It is false if that does not come, which is a
// finding unless the suite may give up.
func (s *suite) outcome(ctx context.Context, c call, mayGiveUp bool) (reply, bool) {
	c = c.with("Prefer", "wait=10")
	var r reply
	var ok bool
	before := len(s.findings)
	what := "the outcome"
	if mayGiveUp {
		what += " of " + c.idem // that it does not come says nothing of others
	}
	s.poll(ctx, s.Patience, reply{call: c}, what, func() bool {
		r, ok = s.send(ctx, c)
		return !ok || r.status != http.StatusAccepted
	})
	decided := ok && r.status != http.StatusAccepted
	if !decided && ok && mayGiveUp {
		s.findings = s.findings[:before]
	}
	s.foundIf(decided && r.header.Get("Preference-Applied") != "wait=10",
		r, "/header/Preference-Applied", "is %q and not wait=10", r.header.Get("Preference-Applied"))
	return r, decided
}

// waited decodes the 201 of a request that was waited for, which is the same whenever it is asked for.
func (s *suite) waited(ctx context.Context, c call, out any) (reply, bool) {
	r, ok := s.outcome(ctx, c, false)
	if !ok {
		return r, false
	}
	if r.status != http.StatusCreated {
		s.foundf(r, "/status", "is not 201%s", why(r))
		return r, false
	}
	if err := json.Unmarshal(r.body, out); err != nil {
		s.foundf(r, "/body", "cannot be decoded: %v", err)
		return r, false
	}
	s.replays(ctx, c.with("Prefer", "wait=10"), r)
	return r, true
}

// orderShows reads an order, which must be as a payment or a refund that was waited for has left it.
func (s *suite) orderShows(ctx context.Context, orderID string, status api.OrderStatus, payment api.PaymentStatus) {
	var o api.Order
	r, ok := s.get(ctx, &o, call{op: "getOrder", arg: orderID}, http.StatusOK)
	s.foundIf(ok && (o.Status != status || o.PaymentStatus != payment),
		r, "/body/payment_status", "is %q of an order that is %q, and not %q, %q", o.PaymentStatus, o.Status, payment, status)
}

// badRequests: a request to pay or to refund that has the wrong form is refused. All have the key of the good one, which works afterwards:
// none of them used it up. members has a bad body for each code and pointer.
func (s *suite) badRequests(ctx context.Context, good call, param, forged string, unknown errcode.Code, members map[string]errcode.Code) {
	bad := func(code errcode.Code, change func(*call), pointers ...string) {
		c := good
		change(&c)
		s.refused(ctx, code, c, pointers...)
	}
	bad(errcode.AUTH001, func(c *call) { *c = c.with("Authorization", "") })
	bad(errcode.AUTH002, func(c *call) { *c = c.with("Authorization", "Bearer "+unknownKey) })
	bad(errcode.REQ007, func(c *call) { *c = c.with("Accept", "text/html") })
	bad(errcode.REQ008, func(c *call) { c.body, c.deferred = tooLarge(), true })
	bad(errcode.REQ009, func(c *call) { *c = c.with("Content-Type", "text/plain") })
	bad(errcode.IDEM001, func(c *call) { c.idem = "" })
	bad(errcode.IDEM004, func(c *call) { c.idem = "7-chars" })
	bad(errcode.REQ003, func(c *call) { c.arg = "ord_1" }, "/path/"+param)
	bad(unknown, func(c *call) { c.arg, c.idem = forged, good.idem+"-forged" })
	bad(unknown, func(c *call) {
		*c = c.with("Accept-Language", "zh-CN")
		c.arg, c.idem = forged, good.idem+"-forged-zh"
	})
	for _, text := range []string{``, `{"`, `nothing`, `{} {}`, "{\"x\":\"\xff\"}", `{"x":"\u0000"}`, `{"x":"\ud800"}`, `{"x":1,"x":1}`} {
		bad(errcode.REQ001, func(c *call) { c.body = []byte(text) })
	}
	for _, text := range []string{`null`, `[]`, `"x"`, `{}`} {
		bad(errcode.REQ002, func(c *call) { c.body = []byte(text) })
	}
	for _, text := range sortedKeys(members) {
		pointer, body, _ := strings.Cut(text, " ")
		bad(members[text], func(c *call) { c.body = []byte(body) }, pointer)
	}
}

// paying: a declined card leaves the order reserved, another one captures; what cannot be paid is refused and charges nothing.
func (s *suite) paying(ctx context.Context, g *goods) {
	p, ok := s.unpaid(ctx, g, "payable", 2)
	if !ok {
		return
	}
	s.badRequests(ctx, s.paymentOf(p.ID, "first", "pm_declined"), "order_id", forge(p.ID), errcode.ORD001, map[string]errcode.Code{
		`/method_token {"method_token":""}`:                                       errcode.REQ002,
		`/method_token {"method_token":"a b"}`:                                    errcode.REQ002,
		`/method_token {"method_token":7}`:                                        errcode.REQ002,
		`/method_token {"method_token":null}`:                                     errcode.REQ002,
		`/method_token {"method_token":["pm_ok"]}`:                                errcode.REQ002,
		`/method_token {"method_token":"` + strings.Repeat("x", 129) + `"}`:       errcode.REQ002,
		`/Method_token {"method_token":"pm_ok","Method_token":"pm_ok"}`:           errcode.REQ004,
		`/amount {"method_token":"pm_ok","amount":{"amount":1,"currency":"EUR"}}`: errcode.REQ004,
	})
	s.orderShows(ctx, p.ID, api.OrderStatusReserved, "none")
	s.secondCard(ctx, p)
	s.notPayable(ctx)
	s.unheard(ctx, g)
}

// secondCard pays an order with a card that is declined and then with another one.
func (s *suite) secondCard(ctx context.Context, p *placed) {
	first, ok := s.pay(ctx, s.paymentOf(p.ID, "first", "pm_declined"), 1)
	if !ok {
		return
	}
	s.foundIf(first.Amount != p.Total, first.accepted, "/body/amount", "is %v and not the order's total %v", first.Amount, p.Total)
	s.replays(ctx, first.call, first.accepted)
	s.declines(ctx, first.call)
	s.replays(ctx, first.call, first.accepted) // without Prefer it is the stored 202 for ever
	s.orderShows(ctx, p.ID, api.OrderStatusReserved, "failed")
	other := first.call
	other.body = map[string]any{"method_token": "pm_ok"}
	s.refused(ctx, errcode.IDEM002, other)

	second, ok := s.pay(ctx, s.paymentOf(p.ID, "second", "pm_ok"), 2)
	if !ok {
		return
	}
	s.foundIf(second.ID == first.ID, second.accepted, "/body/id", "is that of the payment before")
	s.captures(ctx, second, p.Total)
	s.orderShows(ctx, p.ID, api.OrderStatusConfirmed, "paid")
	s.declines(ctx, first.call) // its outcome stays
	again := s.paymentOf(p.ID, "third", "pm_ok")
	s.replays(ctx, again, s.refused(ctx, errcode.PAY002, again))
	s.paid, s.refusedCard = second, first
}

// declines repeats a payment of a declined card until the provider's reason is answered.
func (s *suite) declines(ctx context.Context, c call) {
	r, ok := s.outcome(ctx, c, false)
	var declined struct {
		Reason string `json:"decline_reason"`
	}
	decode(r, &declined)
	s.foundIf(ok && (r.problem.Code != string(errcode.PAY007) || declined.Reason == ""),
		r, "/body/code", "of a declined card is not PAY_007 with a decline_reason%s", why(r))
	s.sameReason(r, "/body/decline_reason", declined.Reason)
}

// sameReason: the provider declines the token pm_declined for one reason, wherever that is told.
func (s *suite) sameReason(r reply, pointer, reason string) {
	s.declinedFor = cmp.Or(s.declinedFor, reason)
	s.foundIf(reason != s.declinedFor, r, pointer, "is %q, and the same card was declined for %q", reason, s.declinedFor)
}

// captures waits until a payment is captured.
func (s *suite) captures(ctx context.Context, p *payment, total api.Money) {
	var captured api.Payment
	r, ok := s.waited(ctx, p.call, &captured)
	s.replays(ctx, p.call, p.accepted) // without Prefer it is the stored 202 for ever
	s.foundIf(ok && (captured.ID != p.ID || captured.Status != "captured" || captured.Amount != total || captured.Refunded.Amount != 0 ||
		captured.Attempt != p.Attempt || captured.Version <= p.Version || !captured.CreatedAt.Equal(p.CreatedAt.Time)),
		r, "/body", "is %q of %d, version %d, and not the payment as captured", captured.Status, captured.Amount.Amount, captured.Version)
}

// notPayable: an order that was placed with its payment is paid by that alone, and one that is over is not paid any more.
func (s *suite) notPayable(ctx context.Context) {
	if p, ok := s.ordered(ctx); ok {
		s.await(ctx, p, api.OrderStatusConfirmed)
		c := s.paymentOf(p.ID, "placed-with-one", "pm_ok")
		s.replays(ctx, c, s.refused(ctx, errcode.PAY002, c.with("Prefer", "wait=10")))
	}
	s.refusedOfRejected(ctx, func(id string) call { return s.paymentOf(id, "over", "pm_ok") })
}

// refusedOfRejected sends a command about a rejected order: it is refused with that status, from which none is allowed.
func (s *suite) refusedOfRejected(ctx context.Context, command func(id string) call) {
	p, ok := s.refusal(ctx)
	if !ok {
		return
	}
	r := s.refused(ctx, errcode.ORD002, command(p.ID))
	var state struct {
		From    string
		Allowed []string
	}
	decode(r, &state)
	s.foundIf(state.From != "rejected" || len(state.Allowed) != 0,
		r, "/body/from", "is %q, allowed %v, of a rejected order", state.From, state.Allowed)
}

// unheard pays with the simulator's tokens of a provider that never answers, and of one that always fails. Where the provider knows them and
// the suite's patience lasts longer than a payment may take, no charge stands, and the order still waits. It is cancelled.
func (s *suite) unheard(ctx context.Context, g *goods) {
	tokens := []struct {
		token string
		code  errcode.Code
	}{{"pm_timeout", errcode.PAY003}, {"pm_error", errcode.PAY006}}
	payments := make([]*payment, len(tokens))
	for i, t := range tokens { // both at once
		if p, ok := s.unpaid(ctx, g, t.token, 1); ok {
			payments[i], _ = s.pay(ctx, s.paymentOf(p.ID, t.token, t.token), 1)
		}
	}
	for i, t := range tokens {
		p := payments[i]
		if p == nil || p.ID == "" {
			continue
		}
		if r, ok := s.outcome(ctx, p.call, true); ok && r.problem.Code != string(errcode.PAY007) { // else the provider does not know the token
			s.foundIf(r.problem.Code != string(t.code), r, "/body/code", "is not %s%s", t.code, why(r))
			s.orderShows(ctx, p.OrderID, api.OrderStatusReserved, "failed")
		}
		s.get(ctx, nil, call{op: "cancelOrder", arg: p.OrderID, idem: s.ref + "-" + t.token}, http.StatusAccepted)
	}
}

// charged is a captured payment, with one of the same order before it that charged nothing.
func (s *suite) charged(ctx context.Context) (*payment, bool) {
	if s.paid == nil {
		s.paid, s.refusedCard = &payment{}, &payment{}
		if g, ok := s.find(ctx); ok {
			if p, ok := s.unpaid(ctx, g, "payable", 2); ok {
				s.secondCard(ctx, p)
			}
		}
	}
	return s.paid, s.paid.ID != ""
}

// paymentsRead: a payment is read as it stands, and stands in the lists of its order and of its instant.
func (s *suite) paymentsRead(ctx context.Context, p *payment) {
	var now api.Payment
	r, ok := s.readable(ctx, "getPayment", p.ID, "payment_id", errcode.PAY001, &now)
	s.foundIf(ok && (now.ID != p.ID || now.OrderID != p.OrderID || now.Status != "captured" || now.Amount != p.Amount || now.Refunded != p.Amount ||
		now.Version != 3 || !now.CreatedAt.Equal(p.CreatedAt.Time)), r, "/body", "is %q, refunded %d, version %d, of a payment refunded in full", now.Status, now.Refunded.Amount, now.Version)
	if s.refusedCard.ID != "" {
		r, _ = s.readable(ctx, "getPayment", s.refusedCard.ID, "payment_id", errcode.PAY001, &now)
		s.foundIf(now.Status != "failed" || now.Failure == nil || now.Failure.Code != string(errcode.PAY007), r, "/body/failure", "of a declined card is not PAY_007")
		if now.Failure != nil && now.Failure.DeclineReason != nil {
			s.sameReason(r, "/body/failure/decline_reason", *now.Failure.DeclineReason)
		}
		cursor := s.walk(ctx, "listOrderPayments", p.OrderID, values("limit", "1"), []string{s.refusedCard.ID, p.ID})
		s.badPages(ctx, "listOrderPayments", p.OrderID, cursor, nil)
	}
	s.ofNoOrder(ctx, "listOrderPayments", p.OrderID)
	if d, ok := s.refusal(ctx); ok {
		s.refused(ctx, errcode.REQ012, call{op: "listOrderPayments", arg: d.ID, query: values("cursor", "made-up")})
	}
	s.listedByTime(ctx, "listPayments", p.ID, p.CreatedAt.Time, nil)
	s.badPages(ctx, "listPayments", "", "", nil)
	s.refused(ctx, errcode.REQ003, call{op: "listPayments", query: values("created_to", "soon")}, "/query/created_to")
	s.badToken(ctx, call{op: "listPayments"})
}

// readable reads a resource at its address; a made-up id is not there.
func (s *suite) readable(ctx context.Context, op, id, param string, unknown errcode.Code, out any) (reply, bool) {
	c := call{op: op, arg: id}
	r, ok := s.get(ctx, out, c, http.StatusOK)
	if ok {
		s.unchanged(ctx, c, r)
	}
	s.refused(ctx, unknown, call{op: op, arg: forge(id)})
	s.refused(ctx, errcode.REQ003, call{op: op, arg: id[:4] + "1"}, "/path/"+param)
	s.badToken(ctx, c)
	return r, ok
}

// ofNoOrder: the list of what belongs to an order is refused for an order that is not there, and stays the same while nothing changes.
func (s *suite) ofNoOrder(ctx context.Context, op, orderID string) {
	s.refused(ctx, errcode.ORD001, call{op: op, arg: forge(orderID)})
	s.refused(ctx, errcode.REQ003, call{op: op, arg: "ord_1"}, "/path/order_id")
	s.badToken(ctx, call{op: op, arg: orderID})
	if r, ok := s.get(ctx, nil, call{op: op, arg: orderID}, http.StatusOK); ok {
		s.unchanged(ctx, call{op: op, arg: orderID}, r)
	}
}

// listedByTime: a list has what was made in the millisecond between its bounds, and no longer when they end before it.
func (s *suite) listedByTime(ctx context.Context, op, id string, at time.Time, filter map[string][]string) {
	at = at.Truncate(time.Millisecond)
	for from, want := range map[time.Time]bool{at: true, at.Add(-time.Second): false} {
		c := call{op: op, query: values("limit", "100", "created_from", from.Format(time.RFC3339Nano), "created_to", from.Add(time.Millisecond).Format(time.RFC3339Nano))}
		maps.Copy(c.query, filter)
		r, ok := s.get(ctx, nil, c, http.StatusOK)
		got, _ := page(r)
		s.foundIf(ok && slices.Contains(got, id) != want, r, "/body/data", "has %s: %t, in the millisecond from %v", id, !want, from)
	}
}
