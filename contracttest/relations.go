package contracttest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"time"
)

// maxRelated bounds the orders whose relations are looked at.
const maxRelated = 60

// relations: of each order of the run, its events give it at every version, and its payments, refunds and shipments are those that its events
// tell of.
func (s *suite) relations(ctx context.Context, _ *placed) {
	s.refusal(ctx)
	ids := sortedKeys(s.orders)
	belonging := map[string][]object{}
	for _, id := range ids[:min(len(ids), maxRelated)] {
		if ctx.Err() != nil {
			return
		}
		s.related(ctx, id, belonging)
	}
	for _, op := range sortedKeys(belonging) {
		s.listedToo(ctx, op, belonging[op])
	}
}

// listedToo: what the lists of orders show stands in the list of the account, as it is there.
func (s *suite) listedToo(ctx context.Context, op string, want []object) {
	if len(want) == 0 {
		return
	}
	made := make([]string, len(want))
	for i, o := range want {
		made[i] = text(o, "created_at")
	}
	first, err := time.Parse(time.RFC3339Nano, slices.Min(made))
	from := first.Truncate(time.Millisecond).Format(time.RFC3339Nano)
	all, r, whole, ok := s.readWhole(ctx, call{op: op, query: values("created_from", from)})
	if !ok || err != nil {
		return
	}
	listed := map[string]object{}
	for _, o := range all {
		listed[text(o, "id")] = o
	}
	for _, o := range want {
		shown, there := listed[text(o, "id")]
		s.foundIf(!there && whole, r, "/body/data", "lacks %s of the order %s", text(o, "id"), text(o, "order_id"))
		s.foundIf(there && !reflect.DeepEqual(shown, o), r, "/body/data", "shows %s as %s, and its order's list as %s", text(o, "id"), short(string(encode(shown))), short(string(encode(o))))
	}
}

// object is a JSON object of an answer, with its numbers as they were written.
type object = map[string]any

// readObject reads a resource.
func (s *suite) readObject(ctx context.Context, c call) (object, reply, bool) {
	r, ok := s.get(ctx, nil, c, http.StatusOK)
	var o object
	d := json.NewDecoder(bytes.NewReader(r.body))
	d.UseNumber()
	ok = ok && d.Decode(&o) == nil
	return o, r, ok
}

// readAll reads a list to its end.
func (s *suite) readAll(ctx context.Context, c call) (entries []object, last reply, ok bool) {
	entries, last, _, ok = s.readWhole(ctx, c)
	return entries, last, ok
}

// readWhole reads a list, at most 20 pages of it, and tells whether that was all.
func (s *suite) readWhole(ctx context.Context, c call) (entries []object, last reply, whole, ok bool) {
	c.query.Set("limit", "100")
	for range 20 {
		o, r, ok := s.readObject(ctx, c)
		if last = r; !ok {
			return nil, r, false, false
		}
		data, _ := o["data"].([]any)
		for _, entry := range data {
			e, _ := entry.(object)
			entries = append(entries, e)
		}
		next, more := o["next_cursor"].(string)
		if !more {
			return entries, r, true, true
		}
		c.query.Set("cursor", next)
	}
	return entries, last, false, true
}

func text(o object, name string) string { t, _ := o[name].(string); return t }

func number(o object, name string) int64 {
	n, _ := o[name].(json.Number)
	i, _ := strconv.ParseInt(n.String(), 10, 64)
	return i
}

// related looks at one order. While its saga goes on, what belongs to it may change between two reads: it is looked at again then.
// What belongs to it is added to belonging, by the operation that lists it for the whole account.
func (s *suite) related(ctx context.Context, id string, belonging map[string][]object) {
	var o object
	var events, payments, shipments []object
	var plan object
	var r, rEvents, rPayments, rShipments reply
	var ok bool
	s.poll(ctx, s.Patience, reply{call: call{op: "getOrder"}}, "an order that stays as it is while it is read", func() bool {
		if o, r, ok = s.readObject(ctx, call{op: "getOrder", arg: id}); !ok {
			return true
		}
		var ok2, ok3, ok4 bool
		events, rEvents, ok2 = s.readAll(ctx, call{op: "listOrderEvents", arg: id, query: url.Values{}})
		payments, rPayments, ok3 = s.readAll(ctx, call{op: "listOrderPayments", arg: id, query: url.Values{}})
		shipments, rShipments, ok4 = s.readAll(ctx, call{op: "listOrderShipments", arg: id, query: url.Values{}})
		if ok = ok2 && ok3 && ok4; !ok {
			return true
		}
		saga, _, sagaOK := s.readObject(ctx, call{op: "getOrderSaga", arg: id})
		after, _, afterOK := s.readObject(ctx, call{op: "getOrder", arg: id})
		ok = sagaOK && afterOK
		plan = saga
		return !ok || reflect.DeepEqual(o["version"], after["version"]) && (saga["state"] == "done" || awaitsPayment(o, payments))
	})
	if !ok {
		return
	}
	folded := s.fold(ctx, id, o, events, rEvents)
	for _, name := range sortedKeys(folded) {
		s.foundIf(!reflect.DeepEqual(folded[name], o[name]), r, "/body/"+name, "is %s, and the events give %s", short(string(encode(o[name]))), short(string(encode(folded[name]))))
	}
	s.paymentsFit(ctx, o, events, payments, rPayments)
	s.attemptsFit(plan, payments, rPayments)
	belonging["listPayments"] = append(belonging["listPayments"], payments...)
	s.shipmentsFit(o, events, shipments, rShipments)
}

// awaitsPayment tells whether an order stays as it is until somebody pays it: it holds pieces, and neither it nor a payment holds money.
func awaitsPayment(o object, payments []object) bool {
	holds := func(p object) bool { return text(p, "status") != "failed" && text(p, "status") != "voided" }
	return text(o, "status") == "reserved" && text(o, "payment_status") != "authorized" && !slices.ContainsFunc(payments, holds)
}

// fold makes an order of its events, as far as they say it, and compares it at each version with what the address shows of it then.
func (s *suite) fold(ctx context.Context, id string, o object, events []object, r reply) object {
	folded := object{"rejection": nil, "reservation_expires_at": nil, "cancel_requested_at": nil}
	wrong := func(is bool, i int, at, format string, args ...any) {
		s.foundIf(is, r, "/body/data/"+strconv.Itoa(i)+at, format, args...)
	}
	s.foundIf(int64(len(events)) != number(o, "version"), r, "/body/data", "has %d events of an order at version %d", len(events), number(o, "version"))
	var refunded int64
	before := ""
	for i, e := range events {
		data, _ := e["data"].(object)
		at := text(e, "created_at")
		wrong(number(e, "sequence") != int64(i+1) || text(e, "resource") != id, i, "/sequence", "is %d of %q, in place %d of the events of %s", number(e, "sequence"), text(e, "resource"), i+1, id)
		wrong(at < before, i, "/created_at", "is %s, before that of the event before it", at)
		wrong(i > 0 && text(e, "type") == "order.created", i, "/type", "is order.created, again")
		before = at
		switch text(e, "type") {
		case "order.created":
			for _, name := range []string{"currency", "customer_ref", "reference", "subtotal", "discount", "shipping", "tax", "total", "coupon_code", "metadata"} {
				folded[name] = data[name]
			}
			lines, _ := data["lines"].([]any)
			made := []any{}
			for _, l := range lines {
				line, _ := l.(object)
				price, currency, _ := amount(line["unit_price"])
				full := object{"total": object{"amount": json.Number(strconv.FormatInt(price*number(line, "quantity"), 10)), "currency": currency}}
				maps.Copy(full, line)
				made = append(made, full)
			}
			folded["lines"], folded["created_at"] = made, at
			folded["status"], folded["payment_status"], folded["fulfillment_status"] = "pending", "none", "unfulfilled"
		case "order.updated":
			for _, name := range []string{"payment_status", "metadata"} {
				if value, there := data[name]; there {
					folded[name] = value
				}
			}
		case "order.stock_reserved":
			folded["status"], folded["reservation_expires_at"] = "reserved", data["expires_at"]
			wrong(text(data, "expires_at") <= at, i, "/data/expires_at", "is %s, not after %s", text(data, "expires_at"), at)
		case "order.paid":
			folded["payment_status"] = "paid"
			wrong(!reflect.DeepEqual(data["amount"], folded["total"]), i, "/data/amount", "is %v, and the order costs %v", data["amount"], folded["total"])
		case "order.payment_failed":
			folded["payment_status"] = "failed"
			wrong(s.registry[text(data, "code")].Code == "", i, "/data/code", "%q is not in the registry", text(data, "code"))
		case "order.confirmed":
			folded["status"], folded["reservation_expires_at"] = "confirmed", nil
		case "order.cancel_requested":
			folded["cancel_requested_at"] = at
		case "order.cancelled":
			folded["status"], folded["reservation_expires_at"] = "cancelled", nil
		case "order.refunded":
			n, _, _ := amount(data["amount"])
			total, _, _ := amount(folded["total"])
			folded["payment_status"] = "partially_refunded"
			if refunded += n; refunded >= total {
				folded["payment_status"] = "refunded"
			}
		case "order.shipped", "order.delivered":
			folded["fulfillment_status"] = data["fulfillment_status"]
		case "order.completed":
			folded["status"] = "completed"
		case "order.rejected":
			folded["status"], folded["reservation_expires_at"] = "rejected", nil
			e := s.registry[text(data, "code")]
			folded["rejection"] = object{"code": data["code"], "skus": data["skus"], "decline_reason": data["decline_reason"], "retryable": false, "title": e.Title, "message": e.Message.En}
			if e.Rejection != nil {
				folded["rejection"].(object)["detail"] = e.Rejection.Description //nolint:forcetypeassert // made in the line before
			}
		case "order.stock_rejected":
		default:
			wrong(true, i, "/type", "%q is not an event of an order", text(e, "type"))
		}
		folded["updated_at"], folded["version"] = at, e["sequence"]
		if i+1 == len(events) || i > 2 {
			continue // the last one is the order itself
		}
		then, rThen, ok := s.readObject(ctx, call{op: "getOrder", arg: id, query: values("version", strconv.Itoa(i+1))})
		for _, name := range sortedKeys(folded) {
			s.foundIf(ok && !reflect.DeepEqual(folded[name], then[name]), rThen, "/body/"+name, "of version %d is %s, and the events give %s",
				i+1, short(string(encode(then[name]))), short(string(encode(folded[name]))))
		}
	}
	return folded
}

// paymentsFit: the payments of an order are its attempts, and one at most holds its money; events and refunds tell the same.
func (s *suite) paymentsFit(ctx context.Context, o object, events, payments []object, r reply) {
	wrong := func(is bool, i int, at, format string, args ...any) {
		s.foundIf(is, r, "/body/data/"+strconv.Itoa(i)+at, format, args...)
	}
	total, _, _ := amount(o["total"])
	captured, last := -1, "none"
	var back int64
	for i, p := range payments {
		wrong(number(p, "attempt") != int64(i+1), i, "/attempt", "is %d in place %d", number(p, "attempt"), i+1)
		n, _, _ := amount(p["amount"])
		wrong(n != total, i, "/amount", "is %d, and the order costs %d", n, total)
		wrong((text(p, "status") == "failed") != (p["failure"] != nil), i, "/failure", "is %v of a payment that is %s", p["failure"], text(p, "status"))
		if last = text(p, "status"); last == "captured" {
			wrong(captured >= 0, i, "/status", "is captured, and so is another payment of the order")
			captured = i
			back, _, _ = amount(p["refunded"])
			s.refundsFit(ctx, p, events)
		}
		one, rOne, ok := s.readObject(ctx, call{op: "getPayment", arg: text(p, "id")})
		s.foundIf(ok && !reflect.DeepEqual(one, p), rOne, "/body", "is not what listOrderPayments shows of %s", text(p, "id"))
	}
	status := text(o, "payment_status")
	fits := map[string]bool{
		"none": captured < 0, "authorized": captured < 0 && last == "authorized", "paid": captured >= 0 && back == 0,
		"partially_refunded": captured >= 0 && back > 0 && back < total, "refunded": captured >= 0 && back == total, "failed": captured < 0,
	}
	s.foundIf(!fits[status], r, "/body/data", "do not go with an order whose payment_status is %q: %d of %d are captured, the last one is %s, %d of %d was given back",
		status, captured+1, len(payments), last, back, total)
	for _, e := range events {
		data, _ := e["data"].(object)
		id := text(data, "payment_id")
		s.foundIf(text(e, "type") == "order.paid" && id != "" && (captured < 0 || text(payments[captured], "id") != id), r, "/body/data",
			"has no captured payment %s, and the event %s tells of it", id, text(e, "id"))
	}
}

// attemptsFit: the saga has an authorization for each payment.
func (s *suite) attemptsFit(saga object, payments []object, r reply) {
	steps, _ := saga["steps"].([]any)
	sent := 0
	for _, v := range steps {
		if step, _ := v.(object); text(step, "name") == "authorize" && step["started_at"] != nil {
			sent++
		}
	}
	s.foundIf(sent != len(payments), r, "/body/data", "has %d payments, and the saga has sent %d authorizations", len(payments), sent)
}

// refundsFit: the refunds of a payment are what it says that was given back.
func (s *suite) refundsFit(ctx context.Context, p object, events []object) {
	refunds, r, ok := s.readAll(ctx, call{op: "listRefunds", query: values("payment_id", text(p, "id"))})
	if !ok {
		return
	}
	told := map[string]string{}
	for _, e := range events {
		if data, _ := e["data"].(object); text(e, "type") == "order.refunded" {
			told[text(data, "refund_id")] = string(encode(data["amount"]))
		}
	}
	back, _, _ := amount(p["refunded"])
	var sum int64
	for i, f := range refunds {
		if text(f, "status") == "succeeded" {
			n, _, _ := amount(f["amount"])
			sum += n
			tells := told[text(f, "id")]
			s.foundIf(tells != string(encode(f["amount"])), r, "/body/data/"+strconv.Itoa(i)+"/amount", "is %s, and the order's events tell of %q", encode(f["amount"]), tells)
			delete(told, text(f, "id"))
		}
	}
	s.foundIf(sum != back, r, "/body/data", "gave %d back, and the payment says %d", sum, back)
	s.foundIf(len(told) > 0, r, "/body/data", "lacks %v, of which the order's events tell", sortedKeys(told))
}

// shipmentsFit: what was shipped is what was ordered, and the order says how far it is.
func (s *suite) shipmentsFit(o object, events, shipments []object, r reply) {
	left, pieces := map[string]int64{}, int64(0)
	lines, _ := o["lines"].([]any)
	for _, l := range lines {
		line, _ := l.(object)
		left[text(line, "sku")] += number(line, "quantity")
		pieces += number(line, "quantity")
	}
	var shipped, delivered int64
	for i, shipment := range shipments {
		lines, _ := shipment["lines"].([]any)
		for _, l := range lines {
			line, _ := l.(object)
			left[text(line, "sku")] -= number(line, "quantity")
			shipped += number(line, "quantity")
			s.foundIf(left[text(line, "sku")] < 0, r, fmt.Sprintf("/body/data/%d/lines", i), "have more of %s than was ordered", text(line, "sku"))
		}
		arrived := text(shipment, "status") == "delivered"
		s.foundIf(arrived != (shipment["delivered_at"] != nil), r, fmt.Sprintf("/body/data/%d/delivered_at", i), "is %v of a shipment that is %s", shipment["delivered_at"], text(shipment, "status"))
		if arrived {
			delivered++
		}
		told := slices.ContainsFunc(events, func(e object) bool {
			data, _ := e["data"].(object)
			return text(e, "type") == "order.shipped" && text(data, "shipment_id") == text(shipment, "id") && reflect.DeepEqual(data["lines"], shipment["lines"])
		})
		s.foundIf(!told, r, "/body/data/"+strconv.Itoa(i), "no event of the order tells of %s with these lines", text(shipment, "id"))
	}
	want := "unfulfilled"
	switch {
	case shipped > 0 && shipped < pieces:
		want = "partial"
	case shipped == pieces && delivered == int64(len(shipments)):
		want = "delivered"
	case shipped == pieces:
		want = "shipped"
	}
	s.foundIf(text(o, "fulfillment_status") != want, r, "/body/data", "have %d of %d pieces, %d of %d shipments have arrived, and the order says %q", shipped, pieces, delivered, len(shipments), text(o, "fulfillment_status"))
}
