package command

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ordergate/ordergate/command/inventory"
	"github.com/ordergate/ordergate/command/payment"
	"github.com/ordergate/ordergate/internal/outbox"
	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/order"
)

// world is what has really happened to stock and money in one imagined run.
type world struct {
	held, taken        bool
	authorized         int   // cards
	captured, refunded int64 // minor units
	cards              int   // that paid an order which was placed without payment
	part               bool  // a client has refunded a part
	sent               []string
	path               []string
	expired            bool
}

// TestEverySagaEnds plays every saga there can be: each command answered in each possible way, a cancel wished for and a
// reservation expiring before each answer; an order that was placed without payment is paid by up to two cards, and of a confirmed one a
// client refunds a part. Whatever happens, the saga comes to an end at which stock and money agree with the order, no step is started
// twice, and nobody is charged for nothing.
func TestEverySagaEnds(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	ids := order.NewIDs([]byte("k"))
	rec := order.Recorder{NewID: func() order.ID { return ids.Mint(now, 1) }, Now: now}
	runs, ends := 0, map[string]int{}

	// play follows one list of choices; it returns how many there were to choose from at each point.
	play := func(choices []int, withPayment bool) (asked []int) {
		choose := func(options ...string) string {
			n := 0
			if len(asked) < len(choices) {
				n = choices[len(asked)]
			}
			asked = append(asked, len(options))
			return options[n]
		}
		var w world
		o, events, err := order.Place(ids.Mint(now, 1), order.Draft{
			Currency: "EUR", WithPayment: withPayment,
			Lines: []order.DraftLine{{SKU: "A", Quantity: 1, Product: &order.Product{Active: true, Prices: map[string]int64{"EUR": 5}}}},
		}, rec)
		if err != nil {
			t.Fatal(err)
		}
		history := slices.Clone(events)
		ch := &orderChange{order: o, steps: newSteps(o, "pm")}
		inbox := []outbox.Message{}
		goOn := func() {
			advance(ch, rec)
			history = append(history, ch.events...)
			inbox = append(inbox, ch.messages...)
			ch.events, ch.messages = nil, nil
		}
		fail := func(format string, a ...any) {
			t.Fatalf("%v: %s\n%+v\n%+v", w.path, fmt.Sprintf(format, a...), w, o)
		}
		// replied applies a reply, twice: the second must be known.
		replied := func(apply applyReply, messageType string, data any) bool {
			e := outbox.New("", messageType, ch.ref(), outbox.Cause{Now: now}, data).Envelope
			fresh, err := apply(ch, e, rec)
			if err != nil {
				fail("%v", err)
			}
			if again, err := apply(ch, e, rec); again || err != nil {
				fail("a repeated reply counted: %v", err)
			}
			return fresh
		}
		// refunded tells the order of a refund, as payment does before it replies.
		refunded := func(amount int64) {
			note := outbox.New("", payment.Refunded, ch.ref(), outbox.Cause{Now: now}, payment.RefundNote{Amount: order.Money{Amount: amount, Currency: "EUR"}})
			if fresh, err := applyPaymentReply(ch, note.Envelope, rec); err != nil || !fresh {
				fail("a refund is not taken in: %v", err)
			}
			w.refunded += amount
			goOn()
		}
		goOn()
		wished := false
		for round := 0; ; round++ {
			if round > 60 {
				fail("the saga goes on for ever")
			}
			if !wished {
				if w.path = append(w.path, choose("", "cancel")); w.path[len(w.path)-1] == "cancel" {
					wished = true
					cancelled, err := o.RequestCancel(rec, "", ch.steps.inFlight(stepCapture))
					history = append(history, cancelled...)
					if err == nil {
						goOn()
					}
				}
			}
			if w.held && !w.expired {
				if w.path = append(w.path, choose("", "expire")); w.path[len(w.path)-1] == "expire" {
					w.held, w.expired = false, true
					if replied(applyStockReply, inventory.Expired, inventory.Reply{Attempt: 1}) {
						history = append(history, ch.events...)
						ch.events = nil
						goOn()
					}
				}
			}
			payable := o.CheckPay(ch.steps.expired(), ch.steps.inFlight("")) == nil
			if payable && (withPayment || len(inbox) > 0 || !w.held || o.Status != order.StatusReserved || o.CancelRequestedAt != nil) {
				fail("another card may pay")
			}
			if payable && w.cards < 2 {
				if w.path = append(w.path, choose("", "pay")); w.path[len(w.path)-1] == "pay" {
					w.cards++
					paid := payment.Command{Operation: payment.Authorize, Attempt: ch.steps.planPayment(now), Amount: o.Total}
					inbox = append(inbox, outbox.New(payment.TopicCommands, payment.Requested, ch.ref(), outbox.Cause{Now: now}, paid))
				}
			}
			if o.Status == order.StatusConfirmed && o.CancelRequestedAt == nil && !w.part {
				if w.path = append(w.path, choose("", "refund a part")); w.path[len(w.path)-1] != "" {
					w.part = true
					refunded(2)
					continue
				}
			}
			if len(inbox) == 0 {
				break
			}
			m := inbox[0]
			inbox = inbox[1:]
			var fresh bool
			if m.Topic == inventory.TopicCommands {
				var cmd inventory.Command
				_ = m.Decode(&cmd)
				w.sent = append(w.sent, m.Type)
				var reply string
				expires := rfc3339.New(now.Add(time.Hour))
				switch {
				case m.Type == inventory.Reserve:
					if reply = choose(inventory.Reserved, inventory.ReserveRefused); reply == inventory.Reserved {
						w.held = true
					}
				case m.Type == inventory.Confirm && w.held:
					reply, w.held, w.taken = inventory.Confirmed, false, true
				case m.Type == inventory.Confirm:
					reply = inventory.ConfirmRefused
				default:
					reply, w.held, w.taken = inventory.Cancelled, false, false
				}
				w.path = append(w.path, reply)
				fresh = replied(applyStockReply, reply, inventory.Reply{Attempt: cmd.Attempt, ExpiresAt: &expires})
			} else {
				var cmd payment.Command
				_ = m.Decode(&cmd)
				w.sent = append(w.sent, fmt.Sprint(cmd.Operation, cmd.Attempt))
				r := payment.Reply{Operation: cmd.Operation, Attempt: cmd.Attempt}
				switch cmd.Operation {
				case payment.Authorize:
					if r.Code = choose("", "PAY_007", "PAY_003"); r.Code == "" {
						w.authorized++
					}
				case payment.Capture:
					if wished && o.CancelRequestedAt != nil {
						fail("captured although a cancel is recorded")
					}
					if !w.taken {
						fail("captured although the stock is not taken")
					}
					if r.Code = choose("", "PAY_006"); r.Code == "" {
						w.authorized--
						w.captured += o.Total.Amount
					}
				case payment.Void:
					w.authorized--
				case payment.Refund:
					refunded(w.captured - w.refunded)
				}
				w.path = append(w.path, string(cmd.Operation)+" "+r.Code)
				reply := payment.Succeeded
				if r.Code != "" {
					reply = payment.Failed
				}
				fresh = replied(applyPaymentReply, reply, r)
			}
			history = append(history, ch.events...)
			ch.events = nil
			if fresh {
				goOn()
			}
		}
		// The end.
		runs++
		slices.Sort(w.sent)
		if len(slices.Compact(slices.Clone(w.sent))) != len(w.sent) {
			fail("a step was started twice: %v", w.sent)
		}
		if err := order.Verify(o.ID, history); err != nil {
			fail("%v", err)
		}
		if folded, err := order.Fold(o.ID, history, nil); err != nil || folded.Status != o.Status || folded.PaymentStatus != o.PaymentStatus {
			fail("the history tells another order: %v %+v", err, folded)
		}
		switch {
		case w.authorized != 0 || w.captured < w.refunded:
			fail("money is left hanging")
		case o.Status == order.StatusConfirmed && (!w.taken || w.captured != o.Total.Amount || w.refunded != o.Refunded || w.part != (w.refunded > 0)):
			fail("confirmed without stock or money")
		case w.part != (o.PaymentStatus == order.PaymentStatusPartiallyRefunded) && o.Status == order.StatusConfirmed:
			fail("it does not say that a part is refunded")
		case o.Status == order.StatusReserved && (withPayment || !w.held):
			fail("stuck in reserved")
		case o.Status.Final() && (w.taken || w.held || w.captured != w.refunded):
			fail("ended with stock or money kept")
		case o.Status == order.StatusPending:
			fail("stuck in pending")
		case o.Status == order.StatusCancelled && !wished:
			fail("cancelled although nobody wished it")
		case o.CancelRequestedAt != nil && o.Status != order.StatusCancelled:
			fail("the wish was not granted")
		case o.Status == order.StatusRejected && (o.Rejection == nil || o.Rejection.Code == ""):
			fail("rejected without a reason")
		case o.Status == order.StatusRejected && withPayment && o.PaymentStatus == order.PaymentStatusFailed && !strings.HasPrefix(o.Rejection.Code, "PAY_"):
			fail("rejected without the payment's reason")
		}
		why := ""
		if o.Rejection != nil {
			why = o.Rejection.Code
		}
		ends[fmt.Sprintf("%s %s %s", o.Status, o.PaymentStatus, why)]++
		return asked
	}
	for _, withPayment := range []bool{true, false} {
		var choices []int
		for {
			asked := play(choices, withPayment)
			choices = append(choices, make([]int, len(asked)-len(choices))...)
			n := len(asked) - 1
			for n >= 0 && choices[n] == asked[n]-1 {
				n--
			}
			if n < 0 {
				break
			}
			choices = append(choices[:n:n], choices[n]+1)
		}
	}
	t.Logf("%d sagas: %v", runs, ends)
	for _, want := range []string{"confirmed paid ", "rejected none INV_002", "rejected failed PAY_007", "rejected failed PAY_003", "rejected failed PAY_006",
		"rejected none INV_003", "cancelled none ", "cancelled refunded ", "reserved none ",
		"confirmed partially_refunded ", "reserved failed ", "rejected failed INV_003", "cancelled failed "} {
		if ends[want] == 0 {
			t.Errorf("no saga ended %q", want)
		}
	}
}
