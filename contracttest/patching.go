package contracttest

import (
	"bytes"
	"context"
	"maps"
	"net/http"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
)

// patching: a merge patch of the state that it was decided on is applied, any other is refused and changes nothing. The change is
// read at once, and no event has the address.
func (s *suite) patching(ctx context.Context, g *goods) {
	w := s.draft(g, "")
	w["metadata"] = map[string]any{"channel": "contracttest", "run": s.ref}
	w["shipping_address"] = map[string]any{"name": "梅 Lin", "line1": "Hafenstrasse 12", "line2": "c/o Berger", "city": "Hamburg", "postal_code": "20457", "country": "DE"}
	p, ok := s.decide(ctx, call{op: "placeOrder", idem: s.ref + "-changed", body: w}, http.StatusCreated)
	if !ok {
		return
	}
	s.ends(p, api.OrderStatusReserved, "none")
	patch := func(tag string, body any) call {
		return call{op: "updateOrder", arg: p.ID, body: body}.with("If-Match", tag)
	}
	first := p.accepted.header.Get("ETag")
	change := patch(`"other", `+first, map[string]any{
		"metadata": map[string]any{"channel": nil, "gift": "yes"}, "shipping_address": map[string]any{"line2": nil, "city": "Altona"},
	})
	var now api.Order
	r, ok := s.get(ctx, &now, change, http.StatusOK)
	if !ok {
		return
	}
	wrong := func(is bool, at, format string, args ...any) { s.foundIf(is, r, "/body/"+at, format, args...) }
	wrong(now.ID != p.ID || now.Version != p.Version+1 || now.Status != p.Status, "version", "is %d after a change of version %d", now.Version, p.Version)
	wrong(!maps.Equal(now.Metadata, api.Metadata{"run": s.ref, "gift": "yes"}), "metadata", "is %v", now.Metadata)
	a := now.ShippingAddress
	wrong(a == nil || a.City != "Altona" || a.Line2 != nil || a.Name != "梅 Lin" || a.PostalCode != "20457", "shipping_address", "is not the merged one")
	tag := r.header.Get("ETag")
	s.foundIf(tag == first, r, "/header/ETag", "is that of the state before, %q", tag)
	s.changed(ctx, p.ID, r)
	s.badPatches(ctx, patch, first, now)

	var same api.Order
	for _, nothing := range []any{map[string]any{}, map[string]any{"metadata": map[string]any{"gift": "yes", "none": nil}}} {
		r, ok = s.get(ctx, &same, patch(tag, nothing), http.StatusOK)
		s.foundIf(ok && (same.Version != now.Version || r.header.Get("ETag") != tag),
			r, "/body/version", "is %d with ETag %q after a patch that changes nothing, and was %d with %q", same.Version, r.header.Get("ETag"), now.Version, tag)
	}
	var bare api.Order
	if r, ok = s.get(ctx, &bare, patch("*", map[string]any{"shipping_address": nil, "metadata": nil}), http.StatusOK); ok {
		wrong(bare.ShippingAddress != nil || len(bare.Metadata) != 0, "shipping_address", "or metadata is there after it was removed")
		s.changed(ctx, p.ID, r)
	}
	s.refused(ctx, errcode.REQ002, patch("*", map[string]any{"shipping_address": map[string]any{"name": "x"}}), "/shipping_address/city", "/shipping_address/line1")
	all := call{op: "listOrderEvents", arg: p.ID, query: values("limit", "100")}
	var list struct{ Data []event }
	if r, ok = s.get(ctx, &list, all, http.StatusOK); ok {
		for _, word := range []string{"Hafenstrasse", "Altona", "20457"} {
			s.foundIf(bytes.Contains(r.body, []byte(word)), r, "/body/data", "has the address: %q", word)
		}
		end := list.Data[len(list.Data)-1]
		s.foundIf(end.Type != "order.updated" || end.Cause.Operation != "updateOrder", r, "/body/data", "ends with %q by %q", end.Type, end.Cause.Operation)
	}
	d, ok := s.refusal(ctx)
	if !ok {
		return
	}
	ended := patch("*", map[string]any{"metadata": map[string]any{"note": "x"}, "shipping_address": w["shipping_address"]})
	ended.arg = d.ID
	r = s.refused(ctx, errcode.ORD002, ended)
	s.foundState(r, "rejected")
	ended.body = map[string]any{"metadata": map[string]any{"note": "x"}}
	var noted api.Order
	if r, ok = s.get(ctx, &noted, ended, http.StatusOK); ok {
		wrong(noted.Metadata["note"] != "x", "metadata", "of an order that has ended is not what was sent")
	}
}

// changed reads an order, which must be what the change answered.
func (s *suite) changed(ctx context.Context, id string, change reply) {
	r, ok := s.get(ctx, nil, call{op: "getOrder", arg: id}, http.StatusOK)
	s.foundIf(ok && (!bytes.Equal(r.body, change.body) || r.header.Get("ETag") != change.header.Get("ETag")),
		r, "/body", "is not what the change answered, or its ETag is not %q", change.header.Get("ETag"))
}

// foundState notes a finding if an ORD_002 does not say from where the order can go where.
func (s *suite) foundState(r reply, from string, allowed ...string) {
	var state struct {
		From    string
		Allowed []string
	}
	decode(r, &state)
	same := len(state.Allowed) == len(allowed)
	for i := range allowed {
		same = same && state.Allowed[i] == allowed[i]
	}
	s.foundIf(r.problem.Code == string(errcode.ORD002) && (state.From != from || !same),
		r, "/body/from", "is %q, allowed %v, and not %q, allowed %v", state.From, state.Allowed, from, allowed)
}

// badPatches: each is refused, and the order stays as it is.
func (s *suite) badPatches(ctx context.Context, patch func(tag string, body any) call, stale string, now api.Order) {
	bad := func(code errcode.Code, c call, pointers ...string) reply {
		r := s.refused(ctx, code, c, pointers...)
		var o api.Order
		after, ok := s.get(ctx, &o, call{op: "getOrder", arg: now.ID}, http.StatusOK)
		s.foundIf(ok && o.Version != now.Version, after, "/body/version", "is %d, not %d, after a patch that was refused", o.Version, now.Version)
		return r
	}
	object := func(name string, value any) map[string]any { return map[string]any{name: value} }
	note := object("metadata", object("note", "x"))
	r := bad(errcode.REQ010, patch(stale, note))
	var problem struct {
		Version int64 `json:"current_version"`
	}
	decode(r, &problem)
	s.foundIf(r.problem.Code == "REQ_010" && problem.Version != now.Version, r, "/body/current_version", "is %d and not %d", problem.Version, now.Version)
	bad(errcode.REQ010, patch("W/"+stale, note))
	bad(errcode.REQ011, patch("", note))
	bad(errcode.REQ001, patch("*", []byte(`{"metadata":{`)))
	bad(errcode.REQ001, patch("*", []byte(`{"metadata":{"a":"1","a":"2"}}`)), "/metadata/a")
	bad(errcode.REQ002, patch("*", []any{}), "")
	bad(errcode.REQ002, patch("*", object("metadata", []any{})), "/metadata")
	bad(errcode.REQ002, patch("*", object("metadata", object("a", 5))), "/metadata/a")
	bad(errcode.REQ002, patch("*", object("metadata", object("not a key", "x"))))
	bad(errcode.REQ002, patch("*", object("shipping_address", object("country", "Germany"))), "/shipping_address/country")
	bad(errcode.REQ002, patch("*", object("shipping_address", object("name", nil))), "/shipping_address/name")
	bad(errcode.REQ004, patch("*", object("status", "cancelled")), "/status")
	bad(errcode.REQ004, patch("*", object("shipping_address", object("street", "x"))), "/shipping_address/street")
	many := map[string]any{}
	for _, first := range "abcdefghijklmnopqrst" {
		many[string(first)] = ""
	}
	bad(errcode.REQ002, patch("*", object("metadata", many)), "/metadata") // and one is there already
	for _, media := range []string{"application/json", "text/plain"} {
		r = bad(errcode.REQ009, patch("*", note).with("Content-Type", media))
		s.foundIf(r.status == http.StatusUnsupportedMediaType && r.header.Get("Accept-Patch") != "application/merge-patch+json",
			r, "/header/Accept-Patch", "is %q", r.header.Get("Accept-Patch"))
	}
	large := patch("*", tooLarge())
	large.deferred = true
	bad(errcode.REQ008, large)
	other := patch("*", note)
	other.arg = forge(now.ID)
	bad(errcode.ORD001, other)
	other.arg = "ord_1"
	bad(errcode.REQ003, other, "/path/order_id")
}
