package command

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/ordergate/ordergate/command/inventory"
	"github.com/ordergate/ordergate/command/payment"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/outbox"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/order/pay"
)

// moves yields the transitions of a system.
type moves struct {
	*system
	yield func(transition)
}

func (m moves) on(label string, do func(n *system)) { m.yield(transition{label, false, m.change(do)}) }

func (m moves) maybe(label string, do func(n *system)) {
	m.yield(transition{label, true, m.change(do)})
}

// fault is a transition of the environment that the scope counts.
func (m moves) fault(label string, do func(n *system)) {
	if m.faults > 0 {
		m.maybe(label, func(n *system) { n.faults--; do(n) })
	}
}

// next implements state.
func (w *system) next(yield func(transition)) {
	m := moves{w, yield}
	m.deliver()
	for i := range w.calls {
		if w.calls[i].due {
			m.try(i)
		}
	}
	m.comeLate()
	m.timePasses()
	m.sweep()
	m.clientsAsk()
}

// deliver handles the first message of a queue, and again a message that was handled.
func (m moves) deliver() {
	for topic, queue := range m.queues {
		if len(queue) == 0 {
			continue
		}
		first := queue[0]
		handle := func(n *system) {
			n.queues[topic] = queue[1:]
			n.handle(first)
		}
		m.on(first.name, handle)
		// The inbox drops a copy with the message's own id. All but a note of a refund are dropped, too, if they come under another.
		if first.Type != payment.Refunded || !m.inbox {
			m.fault(first.name+", and it will come again", func(n *system) {
				handle(n)
				copied := first
				copied.again = true
				n.copies = sorted(n.copies, copied, func(c message) string { return c.name })
			})
		}
	}
	for i, again := range m.copies {
		m.maybe("again "+again.name, func(n *system) {
			n.copies = slices.Delete(slices.Clone(n.copies), i, i+1)
			n.handle(again)
		})
	}
}

// sorted has one element more. Which of them came first makes no difference.
func sorted[T any](all []T, one T, name func(T) string) []T {
	all = append(slices.Clone(all), one)
	slices.SortStableFunc(all, func(a, b T) int { return cmp.Compare(name(a), name(b)) })
	return all
}

// try is a try of a due call: claimed, asked for, and written or not.
func (m moves) try(call int) {
	c := m.calls[call]
	r := request{
		key: payment.Key(c.Operation, c.Subject), payment: c.Payment.ID.Format(order.PrefixPayment), name: string(c.Operation) + " " + m.place(c.Subject),
		kind: c.Operation, amount: c.Amount,
	}
	m.system = m.change(func(n *system) {
		n.calls = slices.Clone(n.calls)
		n.calls[call].tries = min(c.tries+1, 2) // after the second all are alike
		n.calls[call].fence++
	})
	m.fault("a worker claims "+r.name+" and dies", func(*system) {})
	ask, o := m.plan(c.Amount, c.overdue, c.tries+1)
	if ask == payment.AskNothing {
		m.answered(call, r.name+" without the provider", func(*system) payment.Outcome { return o }, false)
		return
	}
	m.fault(r.name+" gets lost", func(n *system) { n.postpone(call, errcode.PAY006) })
	known, decided := m.known(r.key)
	switch {
	case decided:
		m.answered(call, r.name+" is known", func(*system) payment.Outcome { return known }, false)
	case ask == payment.AskCancel:
		m.answered(call, "key of "+r.name+" is cancelled", func(n *system) payment.Outcome { return n.record(r, errcode.PAY003) }, false)
	default:
		m.fault(r.name+" is on its way", func(n *system) {
			n.postpone(call, errcode.PAY003)
			n.late = sorted(n.late, r, func(r request) string { return r.name })
		})
		m.answered(call, r.name+": yes", func(n *system) payment.Outcome { return n.record(r, "") }, false)
		switch r.kind {
		case payment.Authorize, payment.Capture:
			m.answered(call, r.name+": no", func(n *system) payment.Outcome { return n.record(r, errcode.PAY007) }, false)
		case payment.Refund, payment.Void: // the one is requested anew, the other tried without end
			if m.faults > 0 {
				m.answered(call, r.name+": no", func(n *system) payment.Outcome { n.faults--; return n.record(r, errcode.PAY007) }, true)
			}
		}
	}
}

// answered is what can become of a definite answer of the provider.
func (m moves) answered(call int, label string, answer func(n *system) payment.Outcome, environment bool) {
	c := m.calls[call]
	m.yield(transition{label, environment, m.change(func(n *system) {
		o := answer(n)
		if o.Code != "" && c.Operation == payment.Void && n.released(n.accountOf(n.paymentAt(c.Payment.ID))) { // as try does
			o = payment.Outcome{Reference: o.Reference}
		}
		o, err := n.conclude(c.Operation, c.overdue, c.lastCode, o)
		if err != nil {
			n.postpone(call, o.Code)
			return
		}
		n.complete(call, c.fence, o)
	})})
	m.fault(label+", the answer gets lost", func(n *system) {
		answer(n)
		n.postpone(call, errcode.PAY003)
	})
	m.fault(label+", the worker is slow", func(n *system) {
		n.stale = append(slices.Clone(n.stale), staleAnswer{call, c.fence, c.overdue, c.lastCode, answer(n)})
	})
}

// comeLate is what comes although nobody waits for it any more.
func (m moves) comeLate() {
	for i, r := range m.late {
		arrive := func(label string, code errcode.Code) {
			m.maybe(r.name+" arrives late"+label, func(n *system) {
				n.late = slices.Delete(slices.Clone(n.late), i, i+1)
				if _, decided := n.known(r.key); !decided {
					n.record(r, code)
				}
			})
		}
		arrive("", "")
		if _, decided := m.known(r.key); !decided && r.kind != payment.Void {
			arrive(": no", errcode.PAY007)
		}
	}
	for i, a := range m.stale {
		m.maybe("the slow worker writes "+string(m.calls[a.call].Operation), func(n *system) {
			n.stale = slices.Delete(slices.Clone(n.stale), i, i+1)
			if o, err := n.conclude(n.calls[a.call].Operation, a.overdue, a.lastCode, a.outcome); err == nil {
				n.complete(a.call, a.fence, o)
			}
		})
	}
}

// sweep is a look of the sweep at a payment: it reads the provider's ledger, then our database, and then takes back what is left over.
func (m moves) sweep() {
	switch {
	case m.sweeping == nil && m.sweeps > 0:
		for i := range m.payments {
			m.maybe("the sweep reads the ledger of "+m.place(m.payments[i].ID), func(n *system) {
				n.sweeps--
				n.sweeping = &sweeping{payment: i, at: n.accountOf(i)}
			})
		}
	case m.sweeping == nil:
	case m.sweeping.decided.name == "":
		m.maybe("the sweep reads the payment", func(n *system) {
			s, p := *n.sweeping, n.payments[n.sweeping.payment]
			k := payment.Known{OrderID: p.OrderID, Status: p.Status, Voiding: true}
			for _, c := range n.calls {
				if c.Payment.ID == p.ID && c.due {
					k.Open, k.Voiding = true, k.Voiding && c.Operation == payment.Void && c.inDoubt
				}
			}
			k.Voiding = k.Voiding && k.Open
			n.sweeping = nil
			if op, amount := n.orphan(k, s.at); op != "" {
				name := "sweep " + string(op) + " of " + n.place(p.ID)
				s.decided = request{key: name, payment: p.ID.Format(order.PrefixPayment), name: name, kind: op, amount: amount.Amount}
				n.sweeping = &s
			}
		})
	default:
		m.maybe(m.sweeping.decided.name, func(n *system) {
			if _, decided := n.known(n.sweeping.decided.key); !decided {
				o := n.record(n.sweeping.decided, "")
				if p := n.payments[n.sweeping.payment]; o.Code == "" && p.Status != pay.StatusFailed && p.Status != pay.StatusVoided {
					n.fail(breaks(ruleSweep, "%s, the payment is %s", n.sweeping.decided.name, p.Status))
				}
			}
			n.sweeping = nil
		})
	}
}

func (m moves) timePasses() {
	for i, c := range m.calls {
		if c.due && c.Operation == payment.Authorize && !c.overdue {
			m.maybe("the deadline passes", func(n *system) {
				n.calls = slices.Clone(n.calls)
				n.calls[i].overdue = true
			})
		}
	}
	if m.reservation != nil && m.reservation.Status == inventory.StatusHeld && !m.expiring {
		m.maybe("the reservation's time is over", func(n *system) {
			n.expiring = true
			cause := outbox.Cause{ID: modelRecorder().NewID(), Now: modelNow}
			n.send([]outbox.Message{outbox.New(inventory.TopicCommands, inventory.Expire, n.ref, cause, inventory.Command{Attempt: reservation})})
		})
	}
}

func (m moves) clientsAsk() {
	ofOrder := func(n *system) *loaded { return &loaded{orders: map[order.Ref]*orderChange{n.ref: n.load()}} }
	m.maybe("cancel", func(n *system) { n.ask(cancelOrder{ref: n.ref}, ofOrder(n)) })
	if m.cards > 0 {
		m.maybe("pay", func(n *system) {
			if n.ask(payOrder{n.ref, api.PayOrder{MethodToken: "pm_ok"}, false}, ofOrder(n)) {
				n.cards--
			}
		})
	}
	m.clientShips(ofOrder)
	if m.refunds == 0 {
		return
	}
	for i, p := range m.payments {
		for label, amount := range map[string]*api.PositiveMoney{"refund all": nil, "refund 1": {Amount: 1, Currency: "EUR"}, "refund 2": {Amount: 2, Currency: "EUR"}} {
			m.maybe(label, func(n *system) {
				l := &loaded{payments: map[order.Ref]payment.Locked{p.Ref: n.locked(i)}}
				if n.ask(refundPayment{p.Ref, api.CreateRefund{Amount: amount, Reason: "r"}}, l) {
					n.refunds--
				}
			})
		}
	}
}

func (m moves) clientShips(ofOrder func(n *system) *loaded) {
	if m.ships > 0 {
		for label, lines := range map[string][]api.ShipOrderLine{
			"ship all": nil, "ship a piece": {{Sku: modelItem.SKU, Quantity: 1}}, "ship two pieces": {{Sku: modelItem.SKU, Quantity: 2}},
		} {
			m.maybe(label, func(n *system) {
				if n.ask(shipOrder{n.ref, api.ShipOrder{Lines: lines}}, ofOrder(n)) {
					n.ships--
				}
			})
		}
	}
	for i, s := range m.shipped {
		m.maybe("deliver", func(n *system) {
			ref, l := order.Ref{Owner: n.ref.Owner, ID: s.ID}, ofOrder(n)
			l.shipments = map[order.Ref]*shipmentChange{ref: {owner: ref.Owner, shipment: &s, baseVersion: n.shipped[i].Version}}
			n.ask(deliverShipment{ref}, l)
		})
	}
}

// appendKey implements state. Ids, hashes and versions are left out: nothing is decided on them.
func (w *system) appendKey(b []byte) []byte {
	number := func(n ...int64) {
		for _, n := range n {
			b = binary.AppendVarint(b, n)
		}
	}
	text := func(s string) { b = append(append(b, s...), 0) }
	flag := func(f ...bool) {
		for _, f := range f {
			if f {
				b = append(b, 1)
			} else {
				b = append(b, 0)
			}
		}
	}
	number(int64(w.faults), int64(w.cards), int64(w.refunds), int64(w.ships), int64(w.sweeps))
	text(string(w.state))
	for _, st := range w.steps {
		text(st.name)
		number(int64(st.attempt))
		text(st.status)
		text(st.code)
		text(st.input)
	}
	text(w.started)
	for _, s := range w.shipped {
		number(s.Lines[0].Quantity)
		text(string(s.Status))
	}
	text("")
	number(w.level[:]...)
	if flag(w.expiring, w.reservation != nil); w.reservation != nil {
		text(w.reservation.Status)
		number(int64(len(w.reservation.Lines)))
	}
	for _, p := range w.payments {
		number(int64(p.Attempt), p.Refunded, p.RefundPending)
		text(string(p.Status))
		text(p.FailureCode)
	}
	text("")
	for _, r := range w.refunded {
		number(int64(w.paymentAt(r.PaymentID)), r.Amount.Amount)
		text(string(r.Status))
	}
	text("")
	for _, c := range w.calls {
		text(string(c.Operation))
		text(w.place(c.Subject))
		flag(c.due, c.overdue, c.inDoubt)
		number(int64(c.tries), c.Amount)
		text(c.lastCode)
	}
	text("")
	for _, queue := range append(w.queues[:], w.copies) {
		for _, m := range queue {
			text(m.name)
		}
		text("")
	}
	for _, r := range w.late {
		text(r.name)
	}
	text("")
	for _, a := range w.stale {
		number(int64(a.call))
		flag(a.fence == w.calls[a.call].fence, a.overdue)
		text(string(a.outcome.Code))
		text(a.lastCode)
	}
	text("")
	if w.sweeping != nil {
		number(int64(w.sweeping.payment), w.sweeping.at.Held(), w.sweeping.at.Charged())
		text(w.sweeping.decided.name)
	}
	text("")
	for _, op := range w.provider {
		text(op.name)
		text(string(op.code))
		number(op.amount)
	}
	return b
}

// end implements state.
func (w *system) end() (string, *breach) {
	o := w.order()
	name := fmt.Sprint(o.Status, " ", o.PaymentStatus)
	if o.Rejection != nil {
		name += " " + o.Rejection.Code
	}
	return name, w.judgeEnd(o)
}

func (w *system) judgeEnd(o *order.Order) *breach {
	for _, c := range w.calls {
		switch o, known := w.known(payment.Key(c.Operation, c.Subject)); {
		case c.due && c.Operation == payment.Void && known && o.Code != "" && w.accountOf(w.paymentAt(c.Payment.ID)).Held() > 0:
			return nil // it waits for the provider to release the money
		case c.due:
			return breaks(ruleEnds, "%s of %s is tried for ever", c.Operation, w.place(c.Subject))
		}
	}
	charged, given, standing := int64(0), int64(0), false
	for i, p := range w.payments {
		a := w.accountOf(i)
		charged, given = charged+a.Captured.Amount, given+a.Refunded.Amount
		standing = standing || stands(a)
		free := p.Amount.Amount == 0 // the provider is not asked
		if a.Charged() != 0 && p.Status != pay.StatusCaptured || p.Status == pay.StatusCaptured && a.Captured.Amount != p.Amount.Amount ||
			p.Status == pay.StatusVoided && !a.Voided && !free || p.Refunded != a.Refunded.Amount || p.RefundPending != 0 || p.Status == pay.StatusPending {
			return breaks(ruleMoney, "payment %d is %s, at the provider %+v", i+1, p.Status, a)
		}
	}
	stock := ""
	if w.reservation != nil {
		stock = w.reservation.Status
	}
	open := slices.IndexFunc(w.steps, func(st step) bool { return st.status == statusRunning || st.status == statusPending })
	switch {
	case open >= 0:
		return breaks(ruleEnds, "%s %d is %s and waits for nothing", w.steps[open].name, w.steps[open].attempt, w.steps[open].status)
	case o.Refunded != given:
		return breaks(ruleRefund, "%d are given back, the order says %d", given, o.Refunded)
	case o.CancelRequestedAt != nil && o.Status != order.StatusCancelled:
		return breaks(ruleDecided, "a cancel is recorded and the order is %s", o.Status)
	}
	if under := slices.ContainsFunc(w.shipped, func(s order.Shipment) bool { return s.Status != order.ShipmentStatusDelivered }); len(w.shipped) > 0 &&
		o.Status != order.StatusCompleted && (o.Status != order.StatusConfirmed || o.Lines[0].Shipped == o.Lines[0].Quantity && !under) ||
		o.Status == order.StatusCompleted && (len(w.shipped) == 0 || under) {
		return breaks(ruleShip, "it is %s with the shipments %+v", o.Status, w.shipped)
	}
	switch o.Status {
	case order.StatusReserved:
		if w.paid || o.ReservationExpiresAt == nil {
			return breaks(ruleDecided, "it stays reserved")
		}
		if stock != inventory.StatusHeld {
			return breaks(ruleTaken, "it is reserved, its stock %s", stock)
		}
		if standing {
			return breaks(ruleMoney, "it is reserved and charged")
		}
	case order.StatusConfirmed, order.StatusCompleted:
		if stock != inventory.StatusConfirmed {
			return breaks(ruleTaken, "it is %s, its stock %s", o.Status, stock)
		}
		want := order.PaymentStatusPaid
		if given > 0 {
			want = order.PaymentStatusPartiallyRefunded
		}
		if given > 0 && given == charged {
			want = order.PaymentStatusRefunded
		}
		if charged != o.Total.Amount || o.PaymentStatus != want {
			return breaks(ruleMoney, "it is %s and %s, %d are charged and %d given back", o.Status, o.PaymentStatus, charged, given)
		}
	case order.StatusRejected, order.StatusCancelled:
		if stock == inventory.StatusHeld || stock == inventory.StatusConfirmed {
			return breaks(ruleTaken, "it is %s, its stock %s", o.Status, stock)
		}
		if standing || o.PaymentStatus == order.PaymentStatusAuthorized || o.PaymentStatus == order.PaymentStatusPaid || charged > 0 && o.PaymentStatus != order.PaymentStatusRefunded {
			return breaks(ruleMoney, "it is %s and %s, %d are charged and %d given back", o.Status, o.PaymentStatus, charged, given)
		}
		if o.Status == order.StatusRejected && (o.Rejection == nil || o.Rejection.Code == "") || o.Status == order.StatusCancelled && o.CancelRequestedAt == nil {
			return breaks(ruleDecided, "it is %s without a reason", o.Status)
		}
		if w.paid && o.Status == order.StatusRejected && o.PaymentStatus == order.PaymentStatusFailed && !strings.HasPrefix(o.Rejection.Code, "PAY_") {
			return breaks(ruleDecided, "it is rejected with %s, not with the payment's reason", o.Rejection.Code)
		}
	default:
		return breaks(ruleDecided, "it stays %s", o.Status)
	}
	return nil
}
