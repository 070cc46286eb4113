package pay

import (
	"bytes"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ordergate/ordergate/order"
)

// life has what events, payments and refunds have in common.
type life[T, D any] struct {
	record  func(*T, order.Recorder, D) order.Event
	fold    func([]order.Event, func(*T) bool) (*T, error)
	version func(*T) int64
	verify  func([]order.Event) error
}

// check records data in turn. At every version the fold of the events up to it is the state as it was then; a fold goes on as the live
// state does; the history is accepted, and refused with any one thing changed in it.
func (l life[T, D]) check(t *rapid.T, live *T, data []D) {
	var history []order.Event
	var states []T
	for n, d := range data {
		if n > 0 {
			folded, err := l.fold(history, nil)
			if err != nil {
				t.Fatal(err)
			}
			again := *live
			e := l.record(live, fixed(n), d)
			if other := l.record(folded, fixed(n), d); !reflect.DeepEqual(other, e) || !reflect.DeepEqual(folded, live) {
				t.Fatalf("from %+v\nlive   %+v\nfolded %+v", again, live, folded)
			}
			history = append(history, e)
		} else {
			history = append(history, l.record(live, fixed(n), d))
		}
		states = append(states, *live)
	}
	for n := range history {
		folded, err := l.fold(history[:n+1], nil)
		until, err2 := l.fold(history, func(v *T) bool { return l.version(v) == int64(n+1) })
		if err != nil || err2 != nil || !reflect.DeepEqual(*folded, states[n]) || !reflect.DeepEqual(until, folded) {
			t.Fatalf("at %d: %v %v\nlive   %+v\nfolded %+v\nuntil  %+v", n+1, err, err2, states[n], folded, until)
		}
	}
	if err := l.verify(history); err != nil {
		t.Fatal(err)
	}
	for n := range history {
		refused := func(what string, h []order.Event) {
			if l.verify(h) == nil {
				t.Fatalf("event %d of %d: %s went unnoticed", n+1, len(history), what)
			}
		}
		refused("doubled", slices.Insert(slices.Clone(history), n, history[n]))
		if n < len(history)-1 { // without the last one it is an older history, which the head of the row tells
			refused("dropped", slices.Delete(slices.Clone(history), n, n+1))
			swapped := slices.Clone(history)
			swapped[n], swapped[n+1] = swapped[n+1], swapped[n]
			refused("swapped", swapped)
		}
		for what, field := range map[string]func(*order.Event) *[]byte{
			"payload": func(e *order.Event) *[]byte { return &e.Payload }, "hash": func(e *order.Event) *[]byte { return &e.Hash },
			"previous hash": func(e *order.Event) *[]byte { return &e.PrevHash },
		} {
			h := slices.Clone(history)
			b := bytes.Clone(*field(&h[n]))
			if len(b) == 0 {
				b = []byte{0}
			}
			b[rapid.IntRange(0, len(b)-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
			*field(&h[n]) = b
			refused("another "+what, h)
		}
		for what, forge := range map[string]func(*order.Event){
			"another type": func(e *order.Event) { e.Type += "x" }, "another instant": func(e *order.Event) { e.At = e.At.Add(time.Microsecond) },
			"another version": func(e *order.Event) { e.Version++ }, "another schema": func(e *order.Event) { e.Schema++ }, "another id": func(e *order.Event) { e.ID[3]++ },
			"another trace": func(e *order.Event) { e.Cause.TraceID += "x" }, "another operation": func(e *order.Event) { e.Cause.Operation += "x" },
			"another actor": func(e *order.Event) { e.Cause.Actor = "" },
		} {
			h := slices.Clone(history)
			forge(&h[n])
			refused(what, h)
		}
	}
}

// fixed stamps the nth event, always in the same way.
func fixed(n int) order.Recorder {
	rec := recorder(n)
	rec.NewID = func() order.ID { return order.ID{15: byte(n)} }
	return rec
}

// TestHistoriesOfPayments: of every course that a payment can take.
func TestHistoriesOfPayments(t *testing.T) {
	ends := map[Status]int{}
	rapid.Check(t, func(t *rapid.T) {
		data := []Data{Created{OrderID: ref.ID.Format(order.PrefixOrder), Attempt: rapid.Int32Range(1, 9).Draw(t, "attempt"), Amount: amount.Draw(t, "amount")}}
		reference, failed := words.Draw(t, "reference"), Failed{Code: "PAY_007", DeclineReason: order.Text(words.Draw(t, "reason"))}
		switch rapid.IntRange(0, 5).Draw(t, "course") {
		case 1:
			data = append(data, failed)
		case 2:
			data = append(data, Authorized{Reference: reference})
		case 3:
			data = append(data, Authorized{Reference: reference}, Captured{Reference: reference + "c"})
		case 4:
			data = append(data, Authorized{Reference: reference}, Voided{Reference: reference})
		case 5:
			data = append(data, Authorized{Reference: reference}, failed)
		}
		live := &Payment{Ref: ref}
		life[Payment, Data]{
			record:  func(p *Payment, rec order.Recorder, d Data) order.Event { return p.Record(rec, d).Event },
			fold:    func(h []order.Event, until func(*Payment) bool) (*Payment, error) { return Fold(ref, h, until) },
			version: func(p *Payment) int64 { return p.Head.Version },
			verify:  live.Resource().Verify,
		}.check(t, live, data)
		ends[live.Status]++
	})
	if !testing.Short() && len(ends) != 5 { // short: too few histories for each course
		t.Errorf("not every course was taken: %v", ends)
	}
}

// TestHistoriesOfRefunds: likewise.
func TestHistoriesOfRefunds(t *testing.T) {
	ends := map[RefundStatus]int{}
	rapid.Check(t, func(t *rapid.T) {
		data := []RefundData{RefundMade{
			PaymentID: ref.ID.Format(order.PrefixPayment), OrderID: ref.ID.Format(order.PrefixOrder), Amount: amount.Draw(t, "amount"), Reason: order.Text(words.Draw(t, "reason")),
		}}
		switch rapid.IntRange(0, 2).Draw(t, "course") {
		case 1:
			data = append(data, RefundDone{Reference: words.Draw(t, "reference")})
		case 2:
			data = append(data, RefundRefused{Code: "PAY_006", DeclineReason: order.Text(words.Draw(t, "decline"))})
		}
		live := &Refund{Ref: ref}
		life[Refund, RefundData]{
			record:  func(r *Refund, rec order.Recorder, d RefundData) order.Event { return r.Record(rec, d).Event },
			fold:    func(h []order.Event, until func(*Refund) bool) (*Refund, error) { return FoldRefund(ref, h, until) },
			version: func(r *Refund) int64 { return r.Head.Version },
			verify:  live.Resource().Verify,
		}.check(t, live, data)
		ends[live.Status]++
	})
	if !testing.Short() && len(ends) != 3 {
		t.Errorf("not every course was taken: %v", ends)
	}
}
