package contracttest

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
)

// shipping: a confirmed order is shipped in two parts and completed by the delivery of the last one; from the first part on it cannot be
// cancelled. An order that is not confirmed is not shipped.
func (s *suite) shipping(ctx context.Context, g *goods) {
	s.unshippable(ctx, g)
	w := s.draft(g, "pm_ok")
	w["lines"] = []any{map[string]any{"sku": g.main.Sku, "quantity": 2}}
	p, ok := s.decide(ctx, call{op: "placeOrder", idem: s.ref + "-shipped", body: w}, http.StatusCreated)
	if !ok {
		return
	}
	s.ends(p, api.OrderStatusConfirmed, "paid")
	line := func(sku string, quantity any) map[string]any { return map[string]any{"sku": sku, "quantity": quantity} }
	s.badShipments(ctx, p, line)

	part := call{op: "shipOrder", arg: p.ID, idem: s.ref + "-part", body: map[string]any{
		"lines": []any{line(g.main.Sku, 1)}, "tracking": map[string]any{"carrier": "邮政", "number": "<1>", "url": "https://example.com/1"},
	}}
	first, r, ok := s.ship(ctx, part, p, 1)
	if !ok {
		return
	}
	t := first.Tracking
	s.foundIf(t == nil || t.Carrier != "邮政" || t.Number != "<1>" || t.URL == nil || *t.URL != "https://example.com/1", r, "/body/tracking", "is not what was sent")
	s.replays(ctx, part, r)
	other := part
	other.body = map[string]any{"lines": []any{line(g.main.Sku, 2)}}
	s.refused(ctx, errcode.IDEM002, other)
	s.fulfilled(ctx, p, r, api.OrderStatusConfirmed, "partial")
	s.foundState(s.refused(ctx, errcode.ORD002, call{op: "cancelOrder", arg: p.ID, idem: s.ref + "-shipped"}), "confirmed", "completed")
	s.foundState(s.refused(ctx, errcode.ORD002, call{op: "updateOrder", arg: p.ID, body: map[string]any{"shipping_address": map[string]any{
		"name": "x", "line1": "x", "city": "x", "postal_code": "x", "country": "DE",
	}}}.with("If-Match", "*")), "confirmed", "completed")
	s.refused(ctx, errcode.SHP002, call{op: "shipOrder", arg: p.ID, idem: s.ref + "-rest", body: other.body}, "/lines/0/quantity")
	r = s.deliver(ctx, first, "first")
	s.fulfilled(ctx, p, r, api.OrderStatusConfirmed, "partial")

	rest := call{op: "shipOrder", arg: p.ID, idem: s.ref + "-all"} // without a body
	second, r, ok := s.ship(ctx, rest, p, 1)
	if !ok {
		return
	}
	s.foundIf(second.Tracking != nil, r, "/body/tracking", "is there, and none was sent")
	s.replays(ctx, rest, r)
	s.fulfilled(ctx, p, r, api.OrderStatusConfirmed, "shipped")
	s.refused(ctx, errcode.SHP002, call{op: "shipOrder", arg: p.ID, idem: s.ref + "-none"}, "/lines")
	r = s.deliver(ctx, second, "second")
	s.fulfilled(ctx, p, r, api.OrderStatusCompleted, "delivered")
	s.refused(ctx, errcode.SHP002, call{op: "shipOrder", arg: p.ID, idem: s.ref + "-more"}, "/lines")
	s.foundState(s.refused(ctx, errcode.ORD002, call{op: "cancelOrder", arg: p.ID, idem: s.ref + "-completed"}), "completed")

	s.shipmentsRead(ctx, p, []string{first.ID, second.ID})
	var list struct{ Data []event }
	if r, ok = s.get(ctx, &list, call{op: "listOrderEvents", arg: p.ID, query: values("limit", "100")}, http.StatusOK); ok {
		types := make([]string, len(list.Data))
		for i, e := range list.Data {
			types[i] = e.Type
		}
		end := "order.confirmed order.shipped order.delivered order.shipped order.delivered order.completed"
		s.foundIf(!strings.HasSuffix(strings.Join(types, " "), end), r, "/body/data", "is %v and does not end with %s", types, end)
	}
}

// shipmentsRead: an order's shipments, which have arrived, are read one by one, and listed the first one first.
func (s *suite) shipmentsRead(ctx context.Context, p *placed, ids []string) {
	for _, id := range ids {
		var now api.Shipment
		r, ok := s.readable(ctx, "getShipment", id, "shipment_id", errcode.SHP001, &now)
		s.foundIf(ok && (now.ID != id || now.OrderID != p.ID || now.Status != "delivered" || now.Version != 2 || now.DeliveredAt == nil),
			r, "/body", "is %q, version %d, and not the shipment as it arrived", now.Status, now.Version)
	}
	cursor := s.walk(ctx, "listOrderShipments", p.ID, values("limit", "1"), ids)
	s.badPages(ctx, "listOrderShipments", p.ID, cursor, nil)
	s.ofNoOrder(ctx, "listOrderShipments", p.ID)
}

// unshippable: an order that is not paid is not shipped, nor is one that is cancelled.
func (s *suite) unshippable(ctx context.Context, g *goods) {
	p, ok := s.decide(ctx, call{op: "placeOrder", idem: s.ref + "-unshippable", body: s.draft(g, "")}, http.StatusCreated)
	if !ok {
		return
	}
	ship := call{op: "shipOrder", arg: p.ID, idem: s.ref + "-too-early", body: map[string]any{}}
	s.replays(ctx, ship, s.refused(ctx, errcode.SHP003, ship))
	if _, ok = s.decide(ctx, call{op: "cancelOrder", arg: p.ID, idem: s.ref + "-unshippable"}, http.StatusOK); ok {
		ship.idem = s.ref + "-cancelled"
		s.foundState(s.refused(ctx, errcode.ORD002, ship), "cancelled")
	}
	if d, ok := s.refusal(ctx); ok {
		ship.arg, ship.idem = d.ID, s.ref+"-rejected"
		s.refused(ctx, errcode.SHP003, ship)
	}
}

// badShipments: each is refused, and the order stays as it is.
func (s *suite) badShipments(ctx context.Context, p *placed, line func(sku string, quantity any) map[string]any) {
	sku := p.Lines[0].Sku
	n := 0
	bad := func(code errcode.Code, change func(*call), pointers ...string) {
		n++
		c := call{op: "shipOrder", arg: p.ID, idem: s.ref + "-ship-" + string(rune('a'+n)), body: map[string]any{"lines": []any{line(sku, 1)}}}
		change(&c)
		s.refused(ctx, code, c, pointers...)
		var o api.Order
		r, ok := s.get(ctx, &o, call{op: "getOrder", arg: p.ID}, http.StatusOK)
		s.foundIf(ok && o.Version != p.Version, r, "/body/version", "is %d, not %d, after a shipment that was refused", o.Version, p.Version)
	}
	lines := func(lines ...any) func(*call) {
		return func(c *call) { c.body = map[string]any{"lines": lines} }
	}
	tracking := func(t map[string]any) func(*call) {
		return func(c *call) { c.body = map[string]any{"tracking": t} }
	}
	bad(errcode.IDEM001, func(c *call) { c.idem = "" })
	bad(errcode.IDEM004, func(c *call) { c.idem = "short" })
	bad(errcode.REQ001, func(c *call) { c.body = []byte(`{"lines": [`) })
	bad(errcode.REQ002, lines(), "/lines")
	bad(errcode.REQ002, lines(line(sku, 0)), "/lines/0/quantity")
	bad(errcode.REQ002, lines(line(sku, "1")), "/lines/0/quantity")
	bad(errcode.REQ002, lines(map[string]any{"quantity": 1}), "/lines/0/sku")
	bad(errcode.REQ002, tracking(map[string]any{"carrier": "x"}), "/tracking/number")
	bad(errcode.REQ002, tracking(map[string]any{"carrier": "x", "number": "1", "url": "javascript:alert(1)"}), "/tracking/url")
	bad(errcode.REQ004, tracking(map[string]any{"carrier": "x", "number": "1", "eta": "x"}), "/tracking/eta")
	bad(errcode.REQ008, func(c *call) { c.body, c.deferred = tooLarge(), true })
	bad(errcode.REQ009, func(c *call) { *c = c.with("Content-Type", "text/plain") })
	bad(errcode.REQ003, func(c *call) { c.arg = "ord_1" }, "/path/order_id")
	bad(errcode.ORD001, func(c *call) { c.arg = forge(p.ID) })
	bad(errcode.SHP002, lines(line(sku, 3)), "/lines/0/quantity")
	bad(errcode.SHP002, lines(line(sku, 1), line("no-"+s.ref, 1)), "/lines/1/sku")
	bad(errcode.SHP002, lines(line(sku, 1), line(sku, 1)), "/lines/1/sku")
}

// ship sends a shipment that must be made, of some pieces of the order's only line.
func (s *suite) ship(ctx context.Context, c call, p *placed, quantity int32) (api.Shipment, reply, bool) {
	var made api.Shipment
	r, ok := s.get(ctx, &made, c, http.StatusCreated)
	if !ok {
		return made, r, false
	}
	at, want := r.header.Get("Location"), "/v1/shipments/"+made.ID
	s.foundIf(at != want, r, "/header/Location", "is %q and not %q", at, want)
	s.foundIf(made.OrderID != p.ID || made.Status != "shipped" || made.Version != 1 || made.DeliveredAt != nil || made.UpdatedAt != made.CreatedAt,
		r, "/body", "is %q, version %d, of %q", made.Status, made.Version, made.OrderID)
	s.foundIf(!slices.Equal(made.Lines, []api.ShipmentLine{{Sku: p.Lines[0].Sku, Quantity: quantity}}), r, "/body/lines", "is %v", made.Lines)
	return made, r, true
}

// deliver delivers a shipment, once.
func (s *suite) deliver(ctx context.Context, shipment api.Shipment, name string) reply {
	good := call{op: "deliverShipment", arg: shipment.ID, idem: s.ref + "-" + name}
	bad := func(code errcode.Code, change func(*call), pointers ...string) {
		c := good
		change(&c)
		s.refused(ctx, code, c, pointers...)
	}
	bad(errcode.IDEM001, func(c *call) { c.idem = "" })
	bad(errcode.IDEM004, func(c *call) { c.idem = "short" })
	bad(errcode.REQ001, func(c *call) { c.body = []byte(`{`) })
	bad(errcode.REQ002, func(c *call) { c.body = []any{} }, "")
	bad(errcode.REQ008, func(c *call) { c.body, c.deferred = tooLarge(), true })
	bad(errcode.REQ004, func(c *call) { c.body = map[string]any{"at": "now"} }, "/at")
	bad(errcode.REQ009, func(c *call) { *c, c.body = c.with("Content-Type", "text/plain"), map[string]any{} })
	bad(errcode.REQ003, func(c *call) { c.arg = "shp_1" }, "/path/shipment_id")
	bad(errcode.SHP001, func(c *call) { c.arg, c.idem = forge(shipment.ID), c.idem+"-forged" })
	var made api.Shipment
	r, ok := s.get(ctx, &made, good, http.StatusOK)
	if !ok {
		return r
	}
	s.foundIf(made.ID != shipment.ID || made.Status != "delivered" || made.Version != 2 || made.DeliveredAt == nil || !slices.Equal(made.Lines, shipment.Lines),
		r, "/body", "is %q, version %d, delivered at %v", made.Status, made.Version, made.DeliveredAt)
	if name == "second" {
		bad(errcode.IDEM002, func(c *call) { c.idem = s.ref + "-first" }) // of another shipment
	}
	good.body = map[string]any{}
	s.replays(ctx, good, r) // {} is no body
	bad(errcode.SHP004, func(c *call) { c.idem += "-again" })
	return r
}

// fulfilled reads the order with the token of an answer, which must show what the answer did to it.
func (s *suite) fulfilled(ctx context.Context, p *placed, after reply, status api.OrderStatus, fulfillment api.FulfillmentStatus) {
	var o api.Order
	r, ok := s.get(ctx, &o, call{op: "getOrder", arg: p.ID}.with("X-Consistency-Token", after.header.Get("X-Consistency-Token")), http.StatusOK)
	s.foundIf(ok && (o.Status != status || o.FulfillmentStatus != fulfillment),
		r, "/body/fulfillment_status", "is %q of a %s order, and not %q of a %s one", o.FulfillmentStatus, o.Status, fulfillment, status)
}
