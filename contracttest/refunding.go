package contracttest

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
)

// refund is a refund that the suite made.
type refund struct {
	api.Refund
	call     call // that made it
	accepted reply
}

// refunding: a captured payment is given back in parts, up to all of it and no more.
func (s *suite) refunding(ctx context.Context, p *payment) {
	total, currency := p.Amount.Amount, p.Amount.Currency
	refundOf := func(paymentID, name string, amount *api.Money) call {
		body := map[string]any{"reason": "梅: " + name}
		if amount != nil {
			body["amount"] = *amount
		}
		return call{op: "refundPayment", arg: paymentID, idem: s.ref + "-refund-" + name, body: body}
	}
	of := func(amount int64) *api.Money { return &api.Money{Amount: amount, Currency: currency} }
	exceeds := func(c call, left int64, pointer string) {
		r := s.refused(ctx, errcode.RFD001, c, pointer)
		var problem struct{ Refundable api.Money }
		decode(r, &problem)
		s.foundIf(r.status != 0 && problem.Refundable != *of(left), r, "/body/refundable", "is %v, and %d are left", problem.Refundable, left)
		s.replays(ctx, c, r)
	}
	part := refundOf(p.ID, "part", of(1))
	s.badRequests(ctx, part, "payment_id", forge(p.ID), errcode.PAY001, badRefunds(currency))
	s.orderShows(ctx, p.OrderID, api.OrderStatusConfirmed, "paid")
	if s.refusedCard.ID != "" {
		c := refundOf(s.refusedCard.ID, "of-nothing", nil)
		s.replays(ctx, c, s.refused(ctx, errcode.RFD003, c))
	}
	exceeds(refundOf(p.ID, "too-much", of(total+1)), total, "/amount")
	exceeds(refundOf(p.ID, "most", of(1<<53-1)), total, "/amount")
	foreign := refundOf(p.ID, "foreign", &api.Money{Amount: 1, Currency: "XTS"})
	s.replays(ctx, foreign, s.refused(ctx, errcode.ORD005, foreign, "/amount/currency"))

	first := s.givesBack(ctx, p, part, 1)
	s.orderShows(ctx, p.OrderID, api.OrderStatusConfirmed, "partially_refunded")
	other := part
	other.body = map[string]any{"reason": "another"}
	s.refused(ctx, errcode.IDEM002, other)
	exceeds(refundOf(p.ID, "more-than-left", of(total)), total-1, "/amount")
	refunds := []string{first, s.givesBack(ctx, p, refundOf(p.ID, "rest", nil), total-1)}
	s.orderShows(ctx, p.OrderID, api.OrderStatusConfirmed, "refunded")
	exceeds(refundOf(p.ID, "nothing-left", nil), 0, "")
	exceeds(refundOf(p.ID, "one-too-many", of(1)), 0, "/amount")
	s.captures(ctx, p, p.Amount) // it is shown as it was captured
	s.paymentsRead(ctx, p)
	s.refundsRead(ctx, p, refunds)
}

// refundsRead: a payment's refunds, which were made in this order, are read one by one, and listed the newest first.
func (s *suite) refundsRead(ctx context.Context, p *payment, ids []string) {
	if slices.Contains(ids, "") {
		return
	}
	for _, id := range ids {
		var now api.Refund
		r, ok := s.readable(ctx, "getRefund", id, "refund_id", errcode.RFD002, &now)
		s.foundIf(ok && (now.ID != id || now.PaymentID != p.ID || now.OrderID != p.OrderID || now.Status != "succeeded" || now.Version != 2),
			r, "/body", "is %q, version %d, and not the refund as it succeeded", now.Status, now.Version)
		s.listedByTime(ctx, "listRefunds", id, now.CreatedAt.Time, values("payment_id", p.ID))
	}
	want := slices.Clone(ids)
	slices.Reverse(want)
	cursor := s.walk(ctx, "listRefunds", "", values("payment_id", p.ID, "limit", "1"), want)
	s.badPages(ctx, "listRefunds", "", cursor, values("payment_id", s.refusedCard.ID))
	s.refused(ctx, errcode.REQ003, call{op: "listRefunds", query: values("payment_id", "pay_1")}, "/query/payment_id")
	s.badToken(ctx, call{op: "listRefunds"})
}

// badRefunds are bodies of a refund that the contract refuses.
func badRefunds(currency string) map[string]errcode.Code {
	bad := map[string]errcode.Code{
		`/reason {"reason":""}`:                                                                             errcode.REQ002,
		`/reason {"reason":7}`:                                                                              errcode.REQ002,
		`/reason {"reason":null}`:                                                                           errcode.REQ002,
		`/reason {"reason":"` + strings.Repeat("梅", 501) + `"}`:                                             errcode.REQ002,
		`/Reason {"reason":"x","Reason":"x"}`:                                                               errcode.REQ004,
		`/amount {"reason":"x","amount":7}`:                                                                 errcode.REQ002,
		`/amount {"reason":"x","amount":null}`:                                                              errcode.REQ002,
		`/amount/currency {"reason":"x","amount":{"amount":1}}`:                                             errcode.REQ002,
		`/amount/amount {"reason":"x","amount":{"currency":"EUR"}}`:                                         errcode.REQ002,
		`/amount/currency {"reason":"x","amount":{"amount":1,"currency":"eur"}}`:                            errcode.REQ002,
		fmt.Sprintf(`/reason {"amount":{"amount":1,"currency":%q}}`, currency):                              errcode.REQ002,
		fmt.Sprintf(`/amount/cents {"reason":"x","amount":{"amount":1,"currency":%q,"cents":1}}`, currency): errcode.REQ004,
	}
	for _, amount := range []string{"0", "-1", "1.5", `"1"`, "null", "true", "9007199254740992", "1e300"} {
		bad[fmt.Sprintf(`/amount/amount {"reason":"x","amount":{"amount":%s,"currency":%q}}`, amount, currency)] = errcode.REQ002
	}
	return bad
}

// givesBack refunds an amount, which is pending at first and then given back, and returns the refund's id.
func (s *suite) givesBack(ctx context.Context, p *payment, c call, amount int64) (id string) {
	r := &refund{call: c}
	var ok bool
	if r.accepted, ok = s.get(ctx, &r.Refund, c, http.StatusAccepted); !ok {
		return ""
	}
	at, want := r.accepted.header.Get("Location"), "/v1/refunds/"+r.ID
	s.foundIf(at != want, r.accepted, "/header/Location", "is %q and not %q", at, want)
	body, _ := jsonOf(c.body).(map[string]any)
	is := func(r api.Refund, status api.RefundState, version int64) bool {
		return r.PaymentID == p.ID && r.OrderID == p.OrderID && r.Amount == api.Money{Amount: amount, Currency: p.Amount.Currency} &&
			r.Status == status && r.Failure == nil && r.Version == version && r.Reason != nil && *r.Reason == body["reason"]
	}
	s.foundIf(!is(r.Refund, "pending", 1), r.accepted, "/body", "is %q of %d, and not the pending refund of %d", r.Status, r.Amount.Amount, amount)
	s.replays(ctx, c, r.accepted)
	var done api.Refund
	got, ok := s.waited(ctx, c, &done)
	s.foundIf(ok && (done.ID != r.ID || !is(done, "succeeded", 2) || !done.CreatedAt.Equal(r.CreatedAt.Time)),
		got, "/body", "is %q of %d, and not the refund of %d as succeeded", done.Status, done.Amount.Amount, amount)
	s.foundIf(ok && bytes.Equal(got.body, r.accepted.body), got, "/body", "is that of the pending refund")
	s.replays(ctx, c, r.accepted) // without Prefer it is the stored 202 for ever
	return r.ID
}
