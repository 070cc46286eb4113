package inventory

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ordergate/ordergate/order"
)

// readBack is a level as its row has it.
func readBack(l *Level) *Level {
	return &Level{Item: l.Item, OnHand: l.OnHand, Reserved: l.Reserved, lowAt: l.lowAt, head: order.Head{Version: l.head.Version, Hash: bytes.Clone(l.head.Hash)}}
}

// happen takes the events that were recorded since the last time.
func happen(l *Level) (events []order.Event) {
	for _, e := range l.events {
		events = append(events, e.Event)
	}
	l.events = nil
	return events
}

// TestHistoriesOfStock moves a level at random, within what adjustments and reservations may do. It never sells what is not there; each
// adjustment has an event with the level after it, and inventory.low comes exactly when what can be sold falls to the threshold or below;
// a level that is read back goes on as the live one does; the history is accepted, and refused with any one thing changed in it.
func TestHistoriesOfStock(t *testing.T) {
	types := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		it := order.Item{Owner: alice, SKU: "A"}
		resource := order.Resource{Owner: it.Owner, Kind: order.KindInventory, ID: it.SKU}
		live := &Level{Item: it, lowAt: -1}
		var history []order.Event
		var adjustments, sold int64
		for n := range rapid.IntRange(1, 20).Draw(t, "moves") {
			rec := order.Recorder{
				NewID: func() order.ID { return order.ID{14: byte(len(history)), 15: byte(n)} },
				Now:   time.Date(2026, 11, 23, 12, n, 0, 0, time.UTC), Cause: order.Cause{TraceID: "t", Operation: "adjustInventory", Actor: "key_1"},
			}
			pieces := rapid.Int64Range(1, 9).Draw(t, "pieces")
			before, lowAt := live.Available(), live.lowAt
			var apply func(*Level) error
			switch move := rapid.IntRange(0, 5).Draw(t, "move"); {
			case move == 0:
				delta := rapid.SampledFrom([]int64{pieces, -pieces, 1 << 53}).Draw(t, "delta")
				apply = func(l *Level) error { return l.Adjust(rec, order.ID{1}, delta, "counted") }
				if live.Available()+delta >= 0 && live.OnHand+delta <= maxOnHand {
					adjustments += delta
				}
			case move == 1 && live.Available() >= pieces:
				apply = func(l *Level) error { l.move(rec, 0, pieces); return nil } // a reservation
			case move == 2 && live.Reserved >= pieces:
				apply = func(l *Level) error { l.move(rec, 0, -pieces); return nil } // it is cancelled
			case move == 3 && live.Reserved >= pieces:
				sold += pieces
				apply = func(l *Level) error { l.move(rec, -pieces, -pieces); return nil } // it is confirmed
			case move == 4:
				threshold := rapid.Int64Range(-1, 9).Draw(t, "threshold")
				apply = func(l *Level) error { l.SetLowAt(rec, threshold); return nil }
			default:
				apply = func(l *Level) error { l.move(rec, 0, 0); return nil }
			}
			again, was := readBack(live), readBack(live)
			err, err2 := apply(live), apply(again)
			events, repeated := happen(live), happen(again)
			if (err == nil) != (err2 == nil) || !reflect.DeepEqual(events, repeated) || !reflect.DeepEqual(readBack(again), readBack(live)) {
				t.Fatalf("%v %v\nlive      %+v\nread back %+v", err, err2, live, again)
			}
			if err != nil && (len(events) > 0 || !reflect.DeepEqual(readBack(live), was)) {
				t.Fatalf("a refusal moved %+v to %+v", was, live)
			}
			if live.OnHand != adjustments-sold || live.Reserved < 0 || live.Available() < 0 {
				t.Fatalf("%d adjusted, %d sold: %+v", adjustments, sold, live)
			}
			isLow := before > lowAt && live.Available() <= live.lowAt
			for _, e := range events {
				types[e.Type]++
				var d struct {
					OnHand   int64 `json:"on_hand"`
					Reserved int64 `json:"reserved"`
				}
				if err := json.Unmarshal(e.Payload, &d); err != nil || d.OnHand != live.OnHand || d.Reserved != live.Reserved {
					t.Fatalf("%s tells %+v of %+v", e.Type, d, live)
				}
			}
			if tells := slices.ContainsFunc(events, func(e order.Event) bool { return e.Type == eventLow }); tells != isLow {
				t.Fatalf("from %d above %d to %d above %d: low is told: %v", before, lowAt, live.Available(), live.lowAt, tells)
			}
			history = append(history, events...)
			if live.head.Version != int64(len(history)) || len(history) > 0 && !bytes.Equal(live.head.Hash, history[len(history)-1].Hash) {
				t.Fatalf("the head is %+v after %d events", live.head, len(history))
			}
		}
		if err := resource.Verify(history); err != nil {
			t.Fatal(err)
		}
		for n := range history {
			refused := func(what string, h []order.Event) {
				if resource.Verify(h) == nil {
					t.Fatalf("event %d of %d: %s went unnoticed", n+1, len(history), what)
				}
			}
			if n < len(history)-1 { // without the last one it is an older history, which the head of the row tells
				refused("dropped", slices.Delete(slices.Clone(history), n, n+1))
				swapped := slices.Clone(history)
				swapped[n], swapped[n+1] = swapped[n+1], swapped[n]
				refused("swapped", swapped)
			}
			forged := slices.Clone(history)
			forged[n].Payload = bytes.Clone(forged[n].Payload)
			forged[n].Payload[rapid.IntRange(0, len(forged[n].Payload)-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
			refused("another payload", forged)
		}
		other := resource
		if other.ID = "B"; len(history) > 0 && other.Verify(history) == nil {
			t.Fatal("another sku has this history")
		}
	})
	if types[eventAdjusted] == 0 || types[eventLow] == 0 {
		t.Errorf("not every event happened: %v", types)
	}
}
