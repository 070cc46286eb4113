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
	held, taken                    bool
	authorized, captured, refunded int
	sent                           []string
	path                           []string
	expired                        bool
}

// TestEverySagaEnds plays every saga there can be: each command answered in each possible way, a cancel wished for and a
// reservation expiring before each answer. Whatever happens, the saga comes to an end at which stock and money agree with the
// order, no step is started twice, and nobody is charged for nothing.
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
		goOn()
		wished := false
		for round := 0; ; round++ {
			if round > 30 {
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
				w.sent = append(w.sent, string(cmd.Operation))
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
						w.captured++
					}
				case payment.Void:
					w.authorized--
				case payment.Refund:
					w.refunded++
					refunded := outbox.New("", payment.Refunded, ch.ref(), outbox.Cause{Now: now}, payment.RefundNote{Amount: o.Total}).Envelope
					if _, err := applyPaymentReply(ch, refunded, rec); err != nil {
						fail("%v", err)
					}
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
		case o.Status == order.StatusConfirmed && (!w.taken || w.captured != 1 || w.refunded != 0):
			fail("confirmed without stock or money")
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
		case o.Status == order.StatusRejected && o.PaymentStatus == order.PaymentStatusFailed && !strings.HasPrefix(o.Rejection.Code, "PAY_"):
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
		"rejected none INV_003", "cancelled none ", "cancelled refunded ", "reserved none "} {
		if ends[want] == 0 {
			t.Errorf("no saga ended %q", want)
		}
	}
}
