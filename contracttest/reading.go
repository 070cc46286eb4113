package contracttest

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
)

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
