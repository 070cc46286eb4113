package order

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/order/coupon"
)

// change is a valid command of a client, or what the saga records after a reply. Applied to equal orders it gives equal events.
type change func(o *Order, rec Recorder) []Event

// recorderOf stamps the events of the nth change with ids and an instant of their own, the same whenever it is asked for.
func recorderOf(n int) Recorder {
	minted := 0
	return Recorder{
		NewID: func() ID {
			minted++
			return ID{13: byte(minted), 14: byte(n >> 8), 15: byte(n)}
		},
		Now: noon.Add(time.Duration(n) * time.Minute), Cause: Cause{TraceID: fmt.Sprint("trace ", n), Operation: "placeOrder", Actor: "key_1"},
	}
}

var (
	anyText     = rapid.SampledFrom([]string{"", "a", "nein, \"danke\" 梅", "\u2028<&>", `{"x":1}`})
	anyMetadata = rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "梅"}), anyText, 0, 3)
	anyAmount   = rapid.Custom(func(t *rapid.T) *Money { return &Money{rapid.Int64Range(0, 500).Draw(t, "amount"), "EUR"} })
	skus        = []string{"LAMP", "BULB", "SOFA"}
)

// anyDraft becomes an order: with payment or without, with a coupon or without.
func anyDraft(t *rapid.T) Draft {
	d := Draft{
		Currency: "EUR", CustomerRef: anyText.Draw(t, "customer"), Reference: anyText.Draw(t, "reference"), WithPayment: rapid.Bool().Draw(t, "with payment"),
	}
	if rapid.Bool().Draw(t, "with metadata") {
		d.Metadata = anyMetadata.Draw(t, "metadata")
	}
	for _, sku := range skus[:rapid.IntRange(1, len(skus)).Draw(t, "lines")] {
		price := rapid.Int64Range(0, 5000).Draw(t, "price")
		d.Lines = append(d.Lines, DraftLine{
			SKU: sku, Quantity: rapid.Int64Range(1, 5).Draw(t, "quantity"),
			Product: &Product{Name: anyText.Draw(t, "name"), Active: true, Prices: map[string]int64{"EUR": price}},
		})
	}
	if rules := rapid.SampledFrom([]string{"", `{"percentage": 10}`, `{"percentage": 100}`, `{"fixed": {"amount": 7, "currency": "EUR"}}`}).Draw(t, "coupon"); rules != "" {
		d.CouponCode, d.Coupon = "SUMMER", new(coupon.Restore("SUMMER", true, []byte(rules)))
	}
	if rapid.Bool().Draw(t, "with shipping and tax") {
		d.Shipping, d.Tax = anyAmount.Draw(t, "shipping"), anyAmount.Draw(t, "tax")
	}
	return d
}

// saga is what stands beside an order and decides what may happen to it.
type saga struct {
	inTransit []ID // shipments that have not arrived
	ended     int  // attempts to pay
}

// next draws one of the changes that the order allows.
func (s *saga) next(t *rapid.T, o *Order) change {
	var possible []change
	may := func(is bool, c change) {
		if is {
			possible = append(possible, c)
		}
	}
	record := func(all ...Data) change {
		return func(o *Order, rec Recorder) (events []Event) {
			for _, d := range all {
				events = append(events, o.Record(rec, d))
			}
			return events
		}
	}
	asked := o.CancelRequestedAt != nil
	metadata, reason, n := anyMetadata.Draw(t, "metadata"), anyText.Draw(t, "reason"), rapid.Int64Range(1, 1000).Draw(t, "n")
	must := func(events []Event, err error) []Event {
		if err != nil {
			t.Fatalf("%v\n%+v", err, o)
		}
		return events
	}
	may(o.Status == StatusPending, record(StockReserved{rfc3339.New(noon.Add(time.Hour))}))
	short := []ShortSKU{{"LAMP", n, n - 1}}
	may(o.Status == StatusPending && !asked, record(StockRejected{short}, Rejected{Rejection{Code: "INV_002", SKUs: short}}))
	unpaid := o.PaymentStatus == PaymentStatusNone || o.PaymentStatus == PaymentStatusFailed
	pays := o.Status == StatusReserved && unpaid && (o.WithPayment && !asked && s.ended == 0 || o.CheckPay(false, false) == nil)
	may(pays, record(Updated{PaymentStatus: PaymentStatusAuthorized}))
	declined := []Data{PaymentFailed{"PAY_007", Text(reason)}}
	if o.WithPayment {
		declined = append(declined, Rejected{Rejection{Code: "PAY_007", DeclineReason: Text(reason)}})
	}
	may(pays, record(declined...))
	authorized := o.Status == StatusReserved && o.PaymentStatus == PaymentStatusAuthorized && !asked
	may(authorized, record(Paid{"pay_1", o.Total}, Confirmed{}))
	may(authorized, record(PaymentFailed{"PAY_006", ""}, Rejected{Rejection{Code: "PAY_006"}}))
	may(o.Status == StatusReserved && unpaid && !o.WithPayment && !asked, record(Rejected{Rejection{Code: "INV_003"}}))

	gone := []Data{Cancelled{}}
	if o.PaymentStatus == PaymentStatusAuthorized {
		gone = []Data{Updated{PaymentStatus: PaymentStatusNone}, Cancelled{}}
	}
	may(asked && !o.Status.Final(), record(gone...))

	if o.check(Ship) == nil && o.PaymentStatus != PaymentStatusRefunded {
		shipment, lines := ID{15: byte(o.Version), 14: 9}, s.lines(t, o)
		may(lines == nil || len(lines) > 0, func(o *Order, rec Recorder) []Event {
			_, events, err := o.Ship(rec, shipment, lines)
			if !slices.Contains(s.inTransit, shipment) {
				s.inTransit = append(s.inTransit, shipment)
			}
			return must(events, err)
		})
	}
	if len(s.inTransit) > 0 {
		shipment := rapid.SampledFrom(s.inTransit).Draw(t, "shipment")
		may(true, func(o *Order, rec Recorder) []Event {
			s.inTransit = slices.DeleteFunc(s.inTransit, func(id ID) bool { return id == shipment })
			return o.Deliver(rec, shipment)
		})
	}
	paid := o.PaymentStatus == PaymentStatusPaid || o.PaymentStatus == PaymentStatusPartiallyRefunded
	may(paid && o.Refunded < o.Total.Amount, record(Refunded{"ref_1", Money{min(n, o.Total.Amount-o.Refunded), "EUR"}}))
	may(o.check(PatchMetadata) == nil, func(o *Order, rec Recorder) []Event { return must(o.Update(rec, metadata, false)) })
	may(o.check(PatchAddress) == nil, func(o *Order, rec Recorder) []Event { return must(o.Update(rec, nil, true)) })
	may(true, func(o *Order, rec Recorder) []Event { return []Event{o.EraseAddress(rec)} })
	may(o.check(Cancel) == nil, func(o *Order, rec Recorder) []Event { return must(o.RequestCancel(rec, reason, false)) })
	if rapid.Bool().Draw(t, "onward") {
		return possible[0]
	}
	return rapid.SampledFrom(possible).Draw(t, "change")
}

// lines are some of the pieces that are unshipped; nil: all, none: nothing is left.
func (s *saga) lines(t *rapid.T, o *Order) []ShipmentLine {
	lines := []ShipmentLine{}
	for _, l := range o.Lines {
		if left := l.Quantity - l.Shipped; left > 0 {
			lines = append(lines, ShipmentLine{l.SKU, rapid.Int64Range(1, left).Draw(t, "pieces")})
		}
	}
	if len(lines) > 0 && rapid.Bool().Draw(t, "all") {
		return nil
	}
	return lines
}

// stored is an order as its row has it, read back.
func stored(t *rapid.T, o *Order) *Order {
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Restore(o.ID, o.Version, bytes.Clone(o.HeadHash), b)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

// TestHistories lets orders live at random. At every version the fold of the events up to it is the order as it was then; an order that is
// read back from its row goes on as the live one does; the history is accepted as it is, and refused with any one thing changed in it.
func TestHistories(t *testing.T) {
	met := map[Status]int{}
	rapid.Check(t, func(t *rapid.T) {
		id := ID{1: 7, 15: rapid.Byte().Draw(t, "id")}
		live, history, err := Place(id, anyDraft(t), recorderOf(0))
		if err != nil {
			t.Fatal(err)
		}
		then := map[int]*Order{1: stored(t, live)} // by how many events there were
		s := &saga{}
		shipped := map[string]int64{} // pieces, as the events tell
		for n := range rapid.IntRange(0, 20).Draw(t, "changes") {
			c := s.next(t, live)
			again := stored(t, live)
			events := c(live, recorderOf(n+1))
			if repeated := c(again, recorderOf(n+1)); !reflect.DeepEqual(again, live) || !reflect.DeepEqual(repeated, events) {
				t.Fatalf("read back  %+v\nlive       %+v", again, live)
			}
			met[live.Status]++
			history = append(history, events...)
			then[len(history)] = stored(t, live)
			if live.Version != int64(len(history)) {
				t.Fatalf("version %d after %d events", live.Version, len(history))
			}
			for _, e := range events {
				if d, _ := e.data(); e.Type == "order.shipped" {
					for _, l := range d.(Shipped).Lines {
						shipped[l.SKU] += l.Quantity
					}
				}
			}
			all := true
			for _, l := range live.Lines {
				all = all && l.Shipped == l.Quantity
				if l.Shipped != shipped[l.SKU] || l.Shipped > l.Quantity {
					t.Fatalf("%d of %d pieces are shipped, its events tell of %d", l.Shipped, l.Quantity, shipped[l.SKU])
				}
			}
			if (live.Status == StatusCompleted) != (all && len(s.inTransit) == 0) || live.InTransit != int64(len(s.inTransit)) {
				t.Fatalf("%d are under way: %+v", len(s.inTransit), live)
			}
			if live.Status.Final() && live.NeedsAddress() {
				t.Fatalf("a %s order needs an address", live.Status)
			}
			if slices.ContainsFunc(events, func(e Event) bool { return e.Type == "order.payment_failed" }) {
				s.ended++
			}
		}
		for n := range history {
			folded, err := Fold(id, history[:n+1], nil)
			if err != nil {
				t.Fatal(err)
			}
			if want := then[n+1]; want != nil && !reflect.DeepEqual(folded, want) {
				t.Fatalf("at %d\nlive   %+v\nfolded %+v", n+1, want, folded)
			}
			until, err := Fold(id, history, func(o *Order) bool { return o.Version == int64(n+1) })
			if err != nil || !reflect.DeepEqual(until, folded) {
				t.Fatalf("at %d: %v\nuntil  %+v\nfolded %+v", n+1, err, until, folded)
			}
		}
		refusesChanges(t, history, func(h []Event) error { return Verify(id, h) })
		if other := id; len(history) > 0 {
			other[0]++
			if Verify(other, history) == nil {
				t.Fatal("another order has this history")
			}
		}
	})
	t.Logf("%v", met)
	for _, want := range []Status{StatusPending, StatusReserved, StatusConfirmed, StatusCompleted, StatusRejected, StatusCancelled} {
		if met[want] == 0 {
			t.Errorf("no order came to be %s: %v", want, met)
		}
	}
}

// refusesChanges checks that a history is accepted, and that it is not with any one event dropped, doubled, or in another's place, and with
// any byte of an event changed, moved, put in or left out. The last event may be missing: the head of the row tells that.
func refusesChanges(t *rapid.T, history []Event, verify func([]Event) error) {
	if err := verify(history); err != nil {
		t.Fatal(err)
	}
	refused := func(what string, n int, h []Event) {
		if verify(h) == nil {
			t.Fatalf("event %d of %d: %s went unnoticed", n+1, len(history), what)
		}
	}
	for n := range history {
		if n < len(history)-1 {
			refused("dropped", n, slices.Delete(slices.Clone(history), n, n+1))
			swapped := slices.Clone(history)
			swapped[n], swapped[n+1] = swapped[n+1], swapped[n]
			refused("swapped with the next", n, swapped)
		}
		refused("doubled", n, slices.Insert(slices.Clone(history), n, history[n]))
		for what, forge := range forgeries {
			h := slices.Clone(history)
			h[n].Payload, h[n].PrevHash, h[n].Hash = bytes.Clone(h[n].Payload), bytes.Clone(h[n].PrevHash), bytes.Clone(h[n].Hash)
			forge(t, &h[n])
			refused(what, n, h)
		}
	}
}

// flip changes a bit of one byte, or adds a byte to nothing.
func flip(t *rapid.T, b []byte) []byte {
	if len(b) == 0 {
		return []byte{1}
	}
	b = bytes.Clone(b)
	b[rapid.IntRange(0, len(b)-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
	return b
}

// forgeries change one field of an event, or move a byte from one field to the next.
var forgeries = map[string]func(*rapid.T, *Event){
	"another id":        func(t *rapid.T, e *Event) { copy(e.ID[:], flip(t, e.ID[:])) },
	"another type":      func(t *rapid.T, e *Event) { e.Type = string(flip(t, []byte(e.Type))) },
	"another version":   func(t *rapid.T, e *Event) { e.Version += rapid.SampledFrom([]int64{-1, 1, 1 << 32}).Draw(t, "by") },
	"another schema":    func(t *rapid.T, e *Event) { e.Schema += rapid.SampledFrom([]int32{-1, 1, 1 << 16}).Draw(t, "by") },
	"another payload":   func(t *rapid.T, e *Event) { e.Payload = flip(t, e.Payload) },
	"a longer payload":  func(_ *rapid.T, e *Event) { e.Payload = append(e.Payload, ' ') },
	"a shorter payload": func(_ *rapid.T, e *Event) { e.Payload = e.Payload[:len(e.Payload)-1] },
	"another instant": func(t *rapid.T, e *Event) {
		e.At = e.At.Add(rapid.SampledFrom([]time.Duration{-time.Microsecond, time.Microsecond, time.Second}).Draw(t, "by"))
	},
	"another trace":         func(t *rapid.T, e *Event) { e.Cause.TraceID = string(flip(t, []byte(e.Cause.TraceID))) },
	"another operation":     func(t *rapid.T, e *Event) { e.Cause.Operation = string(flip(t, []byte(e.Cause.Operation))) },
	"another actor":         func(t *rapid.T, e *Event) { e.Cause.Actor = string(flip(t, []byte(e.Cause.Actor))) },
	"another previous hash": func(t *rapid.T, e *Event) { e.PrevHash = flip(t, e.PrevHash) },
	"another hash":          func(t *rapid.T, e *Event) { e.Hash = flip(t, e.Hash) },
	"a byte of the type in the payload": func(_ *rapid.T, e *Event) {
		e.Payload = append([]byte(e.Type[len(e.Type)-1:]), e.Payload...)
		e.Type = e.Type[:len(e.Type)-1]
	},
	"a byte of the actor in the operation": func(_ *rapid.T, e *Event) {
		e.Cause.Operation, e.Cause.Actor = e.Cause.Operation+e.Cause.Actor[:1], e.Cause.Actor[1:]
	},
}

// TestHistoriesOfShipments: the same of shipments. One is read back from its row's columns.
func TestHistoriesOfShipments(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := ID{2: 7, 15: rapid.Byte().Draw(t, "id")}
		r := Resource{Owner: Owner{7, "test"}, Kind: KindShipment, ID: id.Format(PrefixShipment)}
		created := ShipmentCreated{OrderID: ID{1: 7}.Format(PrefixOrder), Lines: []ShipmentLine{{"LAMP", rapid.Int64Range(1, 9).Draw(t, "pieces")}}}
		if rapid.Bool().Draw(t, "tracked") {
			created.Tracking = &Tracking{anyText.Draw(t, "carrier"), anyText.Draw(t, "number"), Text(anyText.Draw(t, "url"))}
		}
		data := []struct {
			eventType string
			data      any
		}{{TypeShipmentCreated, created}, {TypeShipmentDelivered, ShipmentDelivered{}}}
		live := &Shipment{ID: id}
		var history []Event
		var states []Shipment
		for n, d := range data[:rapid.IntRange(1, 2).Draw(t, "events")] {
			again := *live
			if n > 0 {
				again = readBack(t, *live)
			}
			head := Head{live.Version, live.HeadHash}
			e := head.Next(r, recorderOf(n), d.eventType, ShipmentSchema, d.data).Event
			if live.Apply(e) != nil || again.Apply(e) != nil || !reflect.DeepEqual(*live, again) || head.Version != live.Version || !bytes.Equal(head.Hash, live.HeadHash) {
				t.Fatalf("live      %+v\nread back %+v", live, again)
			}
			history, states = append(history, e), append(states, readBack(t, *live))
		}
		for n := range history {
			folded := &Shipment{ID: id}
			for _, e := range history[:n+1] {
				if err := folded.Apply(e); err != nil {
					t.Fatal(err)
				}
			}
			if !reflect.DeepEqual(*folded, states[n]) {
				t.Fatalf("at %d\nlive   %+v\nfolded %+v", n+1, states[n], folded)
			}
		}
		refusesChanges(t, history, r.Verify)
	})
}

// readBack is a shipment of which lines and tracking were stored as JSON.
func readBack(t *rapid.T, s Shipment) Shipment {
	lines, err := json.Marshal(s.Lines)
	if err != nil {
		t.Fatal(err)
	}
	tracking, err := json.Marshal(s.Tracking)
	if err != nil {
		t.Fatal(err)
	}
	s.Lines, s.Tracking = nil, nil
	if json.Unmarshal(lines, &s.Lines) != nil || json.Unmarshal(tracking, &s.Tracking) != nil {
		t.Fatalf("%s %s", lines, tracking)
	}
	return s
}
