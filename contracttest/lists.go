package contracttest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// lists say how each list is sorted: by which property, up or down.
var lists = map[string]struct {
	by   string
	down bool
}{
	"listOrders": {"created_at", true}, "listPayments": {"created_at", true}, "listRefunds": {"created_at", true},
	"listOrderPayments": {"attempt", false}, "listOrderShipments": {"created_at", false}, "listOrderEvents": {"sequence", false}, "listProducts": {"sku", false},
	"listErrors": {"code", false},
}

// checkList: a page has no more than its limit, nothing twice, all of it in order and as it was asked for.
func (s *suite) checkList(r reply, body any, wrong wrongFact) {
	object, _ := body.(map[string]any)
	data, isList := object["data"].([]any)
	if !isList {
		return
	}
	if r.op.at("parameters").node != nil && slices.ContainsFunc(r.op.parameters, func(p place) bool { return p.text("name") == "limit" }) {
		limit, err := strconv.Atoi(cmp.Or(r.call.query.Get("limit"), "20"))
		wrong(err == nil && len(data) > limit, "/body/data", "has %d entries, and the limit is %d", len(data), limit)
		wrong(err == nil && len(data) == 0 && object["next_cursor"] != nil, "/body/next_cursor", "leads on from an empty page")
	}
	seen := map[string]bool{}
	var last any
	order, sorted := lists[r.call.op]
	for i, entry := range data {
		o, _ := entry.(map[string]any)
		at := "/body/data/" + strconv.Itoa(i)
		name := fmt.Sprint(o["id"], o["sku"], o["code"])
		wrong(seen[name], at, "is %s, which stands in the page twice", name)
		seen[name] = true
		if i > 0 && sorted {
			a, b := last, o[order.by]
			if order.down {
				a, b = b, a
			}
			wrong(less(b, a) && !near(a, b), at+"/"+order.by, "is %v after %v: the list is not in order", o[order.by], last)
		}
		last = o[order.by]
		for name, values := range r.call.query {
			value, there := o[name]
			wrong(there && name != "limit" && fmt.Sprint(value) != values[0], at+"/"+name, "is %v, and only %q was asked for", value, values[0])
		}
		made, _ := o["created_at"].(string)
		at1, err := time.Parse(time.RFC3339Nano, made)
		if from, e := time.Parse(time.RFC3339Nano, r.call.query.Get("created_from")); e == nil && err == nil {
			wrong(at1.Before(from), at+"/created_at", "is %s, and from %s was asked for", made, r.call.query.Get("created_from"))
		}
		if to, e := time.Parse(time.RFC3339Nano, r.call.query.Get("created_to")); e == nil && err == nil {
			wrong(!at1.Before(to), at+"/created_at", "is %s, and what was made before %s was asked for", made, r.call.query.Get("created_to"))
		}
		if strings.HasPrefix(r.op.path, "/v1/orders/{order_id}/") {
			about := cmp.Or(o["order_id"], o["resource"])
			wrong(about != r.call.arg, at+"/order_id", "is %v, and the list is of %s", about, r.call.arg)
		}
	}
}

// near tells whether two times are of one millisecond: lists go no finer.
func near(a, b any) bool {
	x, _ := a.(string)
	y, _ := b.(string)
	one, errX := time.Parse(time.RFC3339Nano, x)
	other, errY := time.Parse(time.RFC3339Nano, y)
	return errX == nil && errY == nil && one.UnixMilli() == other.UnixMilli()
}

// less compares numbers or texts of answers.
func less(a, b any) bool {
	x, xIs := a.(json.Number)
	y, yIs := b.(json.Number)
	if xIs && yIs {
		m, _ := x.Float64()
		n, _ := y.Float64()
		return m < n
	}
	s, _ := a.(string)
	t, _ := b.(string)
	return s < t
}
