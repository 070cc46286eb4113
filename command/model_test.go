package command

import (
	"flag"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/ordergate/ordergate/command/inventory"
	"github.com/ordergate/ordergate/command/payment"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/outbox"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/order/pay"
)

var maxFaults = flag.Int("faults", 1, "in each run of TestModel")

// scopes are what TestModel explores, each wholly.
var scopes = map[string]scope{
	"an order with a payment":                 {paid: true, price: 1, onHand: 3, refunds: 2},
	"an order with a payment, and shipments":  {paid: true, price: 1, onHand: 2, cards: 1, refunds: 1, ships: 2},
	"an order with a payment, and the sweep":  {paid: true, price: 1, onHand: 2, sweeps: 1},
	"an order with a payment, without stock":  {paid: true, price: 1, onHand: 1, refunds: 1},
	"a free order":                            {paid: true, onHand: 2, refunds: 1, ships: 1},
	"an order without payment, and two cards": {price: 1, onHand: 2, cards: 2, refunds: 1},
}

// TestModel tries every interleaving of messages, the provider's outcomes, faults, clients and time, to the end of each run: the functions
// that decide are the real ones. No rule is broken, and each end there can be is reached.
func TestModel(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // it takes a third less CPU
	ends, explored := map[string]bool{}, 0
	for name, s := range scopes {
		t.Run(name, func(t *testing.T) {
			s.faults = *maxFaults
			x := explore(newSystem(s, realParties()))
			for end := range x.ends {
				ends[end] = true
			}
			if explored++; x.breach != nil {
				t.Fail()
			}
			t.Logf("%s: %v", name, x)
		})
	}
	t.Run("inventory alone", func(t *testing.T) {
		x := explore(newDepot(3, realParties()))
		if t.Logf("inventory alone: %v", x); x.breach != nil {
			t.Fail()
		}
	})
	if explored < len(scopes) {
		return // -run chose some
	}
	for end := range strings.SplitSeq(`completed paid, completed partially_refunded, completed refunded, confirmed paid, confirmed partially_refunded, confirmed refunded, reserved none, reserved failed,
cancelled none, cancelled failed, cancelled refunded, rejected none INV_002, rejected none INV_003, rejected failed INV_003, rejected failed PAY_003,
rejected failed PAY_006, rejected failed PAY_007`, ",") {
		if !ends[strings.TrimSpace(end)] {
			t.Errorf("no run ends %s", end)
		}
	}
}

// TestModelFinds injects bugs that such systems have had. Each breaks a rule.
func TestModelFinds(t *testing.T) {
	for name, bug := range map[string]struct {
		scope  string // empty: inventory alone
		inject func(p *parties)
		rule   string
	}{
		"a confirm that does not look at the status": {"an order without payment, and two cards", onStock(func(e outbox.Envelope, r *inventory.Reservation) {
			if e.Type == inventory.Confirm {
				r.Status = inventory.StatusHeld
			}
		}), ruleStock},
		"an expiry that looks at the time alone": {"an order with a payment", onStock(func(e outbox.Envelope, r *inventory.Reservation) {
			if e.Type == inventory.Expire && r.Status == inventory.StatusConfirmed {
				r.Status = inventory.StatusHeld
			}
		}), ruleReservation},
		"a cancel before its reserve that leaves no tombstone": {"", func(p *parties) {
			p.stock = func(e outbox.Envelope, c inventory.Command, r *inventory.Reservation, s inventory.Stock, ttl time.Duration, rec order.Recorder) (*inventory.Reservation, *outbox.Message) {
				after, reply := inventory.Decide(e, c, r, s, ttl, rec)
				if r == nil && e.Type == inventory.Cancel {
					after = nil
				}
				return after, reply
			}
		}, ruleReservation},
		"a capture although a cancel is recorded": {"an order with a payment", func(p *parties) {
			p.reply = func(c *orderChange, e outbox.Envelope, apply applyReply, rec order.Recorder) (bool, error) {
				at := c.order.CancelRequestedAt
				if e.Type == inventory.Confirmed {
					c.order.CancelRequestedAt = nil
					for _, st := range c.steps {
						if st.name == stepCapture && st.status == statusSkipped {
							st.set(statusPending, "")
						}
					}
				}
				moved, err := takeReply(c, e, apply, rec)
				c.order.CancelRequestedAt = at
				return moved, err
			}
		}, ruleCapture},
		"a void that is forgotten after a refused capture": {"an order with a payment", func(p *parties) {
			p.reply = func(c *orderChange, e outbox.Envelope, apply applyReply, rec order.Recorder) (bool, error) {
				if st := c.steps.find(stepVoid, 1); st == nil && strings.Contains(string(e.Data), "capture") && e.Type == payment.Failed {
					c.steps.plan(stepVoid, 1).finish(statusDone, "", rec.Now)
				}
				return takeReply(c, e, apply, rec)
			}
		}, ruleBack},
		"a reply that moves a step which is definite": {"an order with a payment", func(p *parties) {
			p.reply = func(c *orderChange, e outbox.Envelope, apply applyReply, rec order.Recorder) (bool, error) {
				for _, st := range c.steps {
					if e.Type == inventory.Reserved && st.name == stepReserve {
						st.status = statusRunning
					}
				}
				return takeReply(c, e, apply, rec)
			}
		}, ruleAgain},
		"a note of a refund that counts twice": {"an order with a payment", func(p *parties) { p.inbox = false }, ruleRefund},
		"a refund that looks at no sum": {"an order with a payment", func(p *parties) {
			p.client = func(op operation, l *loaded, rec order.Recorder) (effect, error) {
				refund, ok := op.(refundPayment)
				if !ok || l.payments[refund.ref].Status != "captured" {
					return op.decide(l, rec)
				}
				p := l.payments[refund.ref]
				done, pending := p.Refunded, p.RefundPending
				p.Refunded, p.RefundPending = 0, 0
				e, err := op.decide(l, rec)
				p.Refunded, p.RefundPending = done, pending+p.RefundPending
				return e, err
			}
		}, ruleRefund},
		"a second card while the first is in doubt": {"an order without payment, and two cards", func(p *parties) {
			p.client = func(op operation, l *loaded, rec order.Recorder) (effect, error) {
				if pay, ok := op.(payOrder); ok {
					for _, st := range l.orders[pay.ref].steps {
						if st.name == stepAuth && st.status == statusRunning {
							st.status = statusFailed
						}
					}
				}
				return op.decide(l, rec)
			}
		}, ruleCharge},
		"a deadline that passes for a no": {"an order without payment, and two cards", func(p *parties) {
			p.plan = func(amount int64, overdue bool, tries int32) (payment.Ask, payment.Outcome) {
				if overdue {
					return payment.AskNothing, payment.Outcome{Code: errcode.PAY003}
				}
				return payment.Plan(amount, overdue, tries)
			}
		}, ruleMoney},
		"a worker that writes although its lease has ended": {"an order with a payment", func(p *parties) { p.fence = false }, ruleRefund},
		"a sweep that voids what the saga is to void": {"an order with a payment, and the sweep", func(p *parties) {
			p.released = func(pay.Standing) bool { return false }
		}, ruleEnds},
		"a sweep that looks at no open call": {"an order with a payment, and the sweep", func(p *parties) {
			p.orphan = func(k payment.Known, at pay.Standing) (payment.Operation, order.Money) {
				if k.Open = false; k.Status == pay.StatusPending {
					k.Status = pay.StatusFailed
				}
				return payment.Sweeps(k, at)
			}
		}, ruleSweep},
		"a refused refund that the saga does not make up for": {"an order with a payment", func(p *parties) {
			p.refund = func(l payment.Locked, r *pay.Refund, refused int64, o payment.Outcome, rec order.Recorder) payment.Changes {
				if o.Code != "" {
					l.RefundAll = false
				}
				return payment.ResolveRefund(l, r, refused, o, rec)
			}
		}, ruleEnds},
	} {
		t.Run(name, func(t *testing.T) {
			p := realParties()
			bug.inject(&p)
			var first state = newDepot(3, p)
			if bug.scope != "" {
				s := scopes[bug.scope]
				s.faults = 1
				first = newSystem(s, p)
			}
			x := explore(first)
			if t.Log(x); x.breach == nil || x.breach.rule != bug.rule {
				t.Errorf("want broken: %s", bug.rule)
			}
		})
	}
}

// onStock changes what inventory reads of a reservation.
func onStock(change func(e outbox.Envelope, r *inventory.Reservation)) func(p *parties) {
	return func(p *parties) {
		p.stock = func(e outbox.Envelope, c inventory.Command, r *inventory.Reservation, s inventory.Stock, ttl time.Duration, rec order.Recorder) (*inventory.Reservation, *outbox.Message) {
			if r != nil {
				change(e, r)
			}
			return inventory.Decide(e, c, r, s, ttl, rec)
		}
	}
}
