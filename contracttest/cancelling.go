package contracttest

import (
	"context"
	"net/http"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
)

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
	s.refusedOfRejected(ctx, func(id string) call {
		return call{op: "cancelOrder", arg: id, idem: s.ref + "-too-late", body: map[string]any{}}
	})
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
