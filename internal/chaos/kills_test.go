package main

import "testing"

// TestDamageIsSeen: each kind of damage is counted in its column, and what is right in none.
func TestDamageIsSeen(t *testing.T) {
	type world struct {
		placed []placed
		all    map[string]order
		servers
	}
	line := func(o order, quantity int64) order {
		o.Lines = append(o.Lines, struct {
			SKU      string `json:"sku"`
			Quantity int64  `json:"quantity"`
		}{"MUG", quantity})
		return o
	}
	for name, c := range map[string]struct {
		change func(w *world)
		want   damage
		quiet  bool // there is no finding
	}{
		"all is right":                 {func(*world) {}, damage{}, true},
		"an answered order is gone":    {func(w *world) { delete(w.all, "c") }, damage{lost: 1}, false},
		"an accepted cancel was not":   {func(w *world) { w.all["c"] = order{Status: "rejected"} }, damage{lost: 1}, false},
		"a confirmed one is uncharged": {func(w *world) { delete(w.ledger, "pay_a") }, damage{lost: 1}, false},
		"a key has two orders":         {func(w *world) { w.all["x"] = order{Status: "rejected"} }, damage{doubled: 1}, false},
		"one that a client gave up on": {func(w *world) { w.all["x"] = order{Status: "rejected"} }, damage{}, true},
		"it is not final":              {func(w *world) { w.all["b"] = order{Status: "reserved"} }, damage{stuck: 1}, false},
		"another card may follow": {func(w *world) {
			w.placed = append(w.placed, placed{id: "e", paid: true, later: true})
			w.all["e"] = order{Status: "reserved", PaymentStatus: "failed"}
		}, damage{}, true},
		"no other card may follow": {func(w *world) { w.all["b"] = order{Status: "reserved", PaymentStatus: "failed"} }, damage{stuck: 1}, false},
		"its own card is awaited": {func(w *world) {
			w.placed = append(w.placed, placed{id: "e", paid: true, later: true})
			w.all["e"] = order{Status: "reserved", PaymentStatus: "authorized"}
		}, damage{stuck: 1}, false},
		"more is sold than gone": {func(w *world) { w.all["a"] = line(w.all["a"], 1) }, damage{oversold: 1}, false},
		"more is sold than there was": {func(w *world) {
			w.all["a"] = line(w.all["a"], 9)
			w.now["MUG"] = level{onHand: -2}
		}, damage{oversold: 3}, false},
		"more is reserved than there is": {func(w *world) { w.now["MUG"] = level{onHand: 6, reserved: 7} }, damage{oversold: 1}, false},
		"pieces are gone":                {func(w *world) { w.now["MUG"] = level{onHand: 5} }, damage{}, false},
		"a payment is captured twice": {func(w *world) {
			w.ledger["pay_a"] = &balance{captures: 2, captured: 20}
		}, damage{chargedTwice: 1}, false},
		"an order has two payments":  {func(w *world) { w.ledger["pay_x"] = &balance{captures: 1, captured: 10} }, damage{chargedTwice: 1}, false},
		"a rejected one is charged":  {func(w *world) { w.ledger["pay_b"] = &balance{captures: 1, captured: 10} }, damage{chargedTwice: 1}, false},
		"a cancelled one is charged": {func(w *world) { w.ledger["pay_c"] = &balance{captures: 1, captured: 10, refunded: 9} }, damage{chargedTwice: 1}, false},
	} {
		w := world{
			placed: []placed{{id: "a", paid: true}, {id: "b", paid: true}, {id: "c", paid: true, cancelled: true}, {id: "d"}},
			all:    map[string]order{"a": line(order{Status: "confirmed"}, 2), "b": {Status: "rejected"}, "c": {Status: "cancelled"}, "d": {Status: "reserved"}},
			servers: servers{
				before: map[string]level{"MUG": {onHand: 8}}, now: map[string]level{"MUG": {onHand: 6, reserved: 6}}, explained: 1,
				ledger: map[string]*balance{"pay_0": {captures: 1, captured: 10}, "pay_a": {captures: 1, captured: 10}, "pay_c": {captures: 1, captured: 10, refunded: 10}},
			},
		}
		c.change(&w)
		l := &load{placed: w.placed}
		if name == "one that a client gave up on" {
			l.failed = []string{"order 7: no answer"}
		}
		got, findings := l.compare(w.all)
		findings = append(findings, w.compare(w.all, 1, &got)...)
		if got != c.want || (len(findings) == 0) != c.quiet {
			t.Errorf("%s: %v and not %v: %v", name, &got, &c.want, findings)
		}
	}
}
