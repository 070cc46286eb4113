package command

import (
	"context"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/ordersdb"
	"github.com/ordergate/ordergate/internal/events"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/order"
)

func TestShipOrderDecides(t *testing.T) {
	rec := Envelope{Owner: alice, Actor: "saga"}.recorder(testIDs, time.Now())
	confirmed := func(t *testing.T) *orderChange {
		t.Helper()
		e, err := placeOrder{alice, api.PlaceOrder{Currency: "EUR", CustomerRef: "c", Lines: []api.PlaceOrderLine{{Sku: "A", Quantity: 2}}}}.decide(
			&loaded{products: map[order.Item]*order.Product{{Owner: alice, SKU: "A"}: {Active: true, Prices: map[string]int64{"EUR": 100}}}}, rec)
		if err != nil {
			t.Fatal(err)
		}
		c := e.orders[0]
		c.record(rec, order.Confirmed{})
		c.events, c.messages, c.steps = nil, nil, nil
		return c
	}
	line := func(quantity int32) api.ShipOrder {
		return api.ShipOrder{Lines: []api.ShipOrderLine{{Sku: "A", Quantity: quantity}}}
	}
	for name, c := range map[string]struct {
		body api.ShipOrder
		want string
	}{
		"without lines all is shipped": {api.ShipOrder{}, "order.shipped"},
		"a part is shipped":            {line(1), "order.shipped"},
		"more than all: refused":       {line(3), "SHP_002"},
	} {
		t.Run(name, func(t *testing.T) {
			o := confirmed(t)
			if got := decided(shipOrder{o.ref(), c.body}, &loaded{orders: map[order.Ref]*orderChange{o.ref(): o}}); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
	if got := decided(shipOrder{ref: order.Ref{Owner: alice}}, &loaded{}); got != string(errcode.ORD001) {
		t.Errorf("no such order: %s", got)
	}
	if got := decided(deliverShipment{order.Ref{Owner: alice}}, &loaded{}); got != string(errcode.SHP001) {
		t.Errorf("no such shipment: %s", got)
	}
}

// TestAShipmentsRowIsTheFoldOfItsEvents: also after it was read back, and its order's row is the fold of its own.
func TestAShipmentsRowIsTheFoldOfItsEvents(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	o := b.confirmed(3)
	url := "https://x.test/a b"
	tracked := b.call("shipOrder", shipOrder{o, api.ShipOrder{
		Lines: []api.ShipOrderLine{{Sku: "A", Quantity: 2}}, Tracking: &api.ShipOrderTracking{Carrier: "梅", Number: "<1>", URL: &url},
	}})
	b.executeAll(tracked)
	id, _ := order.Parse(order.PrefixShipment, strings.TrimPrefix(tracked.result.Location, "/v1/shipments/"))
	for _, s := range []order.Ref{{Owner: alice, ID: id}, b.shipped(o, 1)} {
		for _, status := range []order.ShipmentStatus{order.ShipmentStatusShipped, order.ShipmentStatusDelivered} {
			stored := b.shipment(s)
			if folded := b.foldShipment(s); !reflect.DeepEqual(stored, folded) || stored.Status != status {
				t.Errorf("stored %+v\nfolded %+v", stored, folded)
			}
			if status == order.ShipmentStatusShipped {
				c := b.call("deliverShipment", deliverShipment{s})
				b.executeAll(c)
				if got(c) != "200" || int(c.result.Rev) != b.count("SELECT rev FROM orders WHERE id = '"+pgtestID(o.ID)+"'") {
					t.Errorf("%s, revision %d", got(c), c.result.Rev)
				}
			}
		}
	}
	change := b.order(o)
	if change.order.Status != order.StatusCompleted || change.order.FulfillmentStatus != order.FulfillmentStatusDelivered {
		t.Errorf("%+v", change.order)
	}
	history := b.history(o)
	folded, err := order.Fold(o.ID, history, nil)
	if err != nil || !reflect.DeepEqual(folded, change.order) || order.Verify(o.ID, history) != nil {
		t.Errorf("stored %+v\nfolded %+v, %v", change.order, folded, err)
	}
	for _, e := range history {
		if strings.Contains(string(e.Payload), "<1>") || strings.Contains(string(e.Payload), "梅") {
			t.Errorf("an order's event repeats the tracking: %s", e.Payload)
		}
	}
}

// shipment reads a shipment as the holder of its order's lock does.
func (b *bundle) shipment(ref order.Ref) *order.Shipment {
	b.t.Helper()
	found := newLoaded()
	err := pg.InTx(b.t.Context(), b.db.Pool, func(tx pgx.Tx) (err error) {
		return found.load(b.t.Context(), tx, needs{shipments: []order.Ref{ref}}, false)
	})
	if err != nil || found.shipments[ref] == nil {
		b.t.Fatal(err)
	}
	return found.shipments[ref].shipment
}

// history reads an order's events.
func (b *bundle) history(ref order.Ref) []order.Event {
	b.t.Helper()
	all, err := readEvents(b.t.Context(), ordersdb.New(b.db.Pool), ref.Owner, ref.ID)
	if err != nil {
		b.t.Fatal(err)
	}
	return all
}

// order reads an order.
func (b *bundle) order(ref order.Ref) *orderChange {
	b.t.Helper()
	found := newLoaded()
	err := pg.InTx(b.t.Context(), b.db.Pool, func(tx pgx.Tx) (err error) {
		return found.load(b.t.Context(), tx, needs{orders: []order.Ref{ref}}, false)
	})
	if err != nil || found.orders[ref] == nil {
		b.t.Fatal(err)
	}
	return found.orders[ref]
}

// foldShipment folds a shipment's events, whose chain must be whole.
func (b *bundle) foldShipment(ref order.Ref) *order.Shipment {
	b.t.Helper()
	resource := order.Resource{Owner: ref.Owner, Kind: order.KindShipment, ID: ref.ID.Format(order.PrefixShipment)}
	history, err := events.Read(b.t.Context(), b.db.Pool, resource)
	if err != nil {
		b.t.Fatal(err)
	}
	if err = resource.Verify(history); err != nil {
		b.t.Error(err)
	}
	s := &order.Shipment{ID: ref.ID}
	for _, e := range history {
		if err = s.Apply(e); err != nil {
			b.t.Fatal(err)
		}
	}
	return s
}

// TestAShipmentAndACancellationRace: they need the order's lock, as a patch does. Whichever has it first wins, and the other one is decided
// on what it left.
func TestAShipmentAndACancellationRace(t *testing.T) {
	t.Parallel()
	ship := func(o order.Ref, _ string) operation { return shipOrder{ref: o} }
	cancel := func(o order.Ref, _ string) operation { return cancelOrder{ref: o} }
	patch := func(body string, etag func(string) string) func(order.Ref, string) operation {
		return func(o order.Ref, present string) operation {
			return updateOrder{Envelope{IfMatch: etag(present)}, o, api.MergePatch(body)}
		}
	}
	present, always := func(etag string) string { return etag }, func(string) string { return "*" }
	const address = `{"shipping_address":{"name":"n","line1":"l","city":"c","postal_code":"p","country":"DE"}}`
	moved, movedAnyway, notedAnyway := patch(address, present), patch(address, always), patch(`{"metadata":{"a":"b"}}`, always)
	for name, c := range map[string]struct {
		first, second func(o order.Ref, etag string) operation
		want          string
		events        string
	}{
		"the shipment is first":           {ship, cancel, "201, ORD_002", "order.shipped"},
		"the cancellation is first":       {cancel, ship, "202, ORD_002", "order.cancel_requested"},
		"two shipments of all":            {ship, ship, "201, SHP_002", "order.shipped"},
		"two cancellations are one":       {cancel, cancel, "202, 202", "order.cancel_requested"},
		"an address before a shipment":    {moved, ship, "200, 201", "order.updated order.shipped"},
		"a stale patch after a shipment":  {ship, moved, "201, REQ_010", "order.shipped"},
		"an address after a shipment":     {ship, movedAnyway, "201, ORD_002", "order.shipped"},
		"an address before a cancel":      {moved, cancel, "200, 202", "order.updated order.cancel_requested"},
		"a stale patch after a cancel":    {cancel, moved, "202, REQ_010", "order.cancel_requested"},
		"an address after a cancel":       {cancel, movedAnyway, "202, 200", "order.cancel_requested order.updated"},
		"two patches of one state":        {moved, moved, "200, REQ_010", "order.updated"},
		"the same address again":          {moved, movedAnyway, "200, 200", "order.updated"},
		"metadata after a shipment":       {ship, notedAnyway, "201, 200", "order.shipped order.updated"},
		"metadata beside another address": {moved, notedAnyway, "200, 200", "order.updated order.updated"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			b := setup(t, connect(t, db.PrimaryURL), db)
			o := b.confirmed(1)
			before, err := b.order(o).body()
			if err != nil {
				t.Fatal(err)
			}
			// A transaction holds the order until both wait for it: PostgreSQL gives the lock to the first in its queue.
			held, err := db.Pool.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = held.Rollback(context.WithoutCancel(t.Context())) }()
			if _, err = held.Exec(t.Context(), "SELECT FROM orders WHERE id = $1 FOR UPDATE", pgtestID(o.ID)); err != nil {
				t.Fatal(err)
			}
			calls := []*call{b.call("first", c.first(o, before.ETag)), b.call("second", c.second(o, before.ETag))}
			done := make(chan struct{})
			for i, one := range calls {
				go func() { b.alone(one); done <- struct{}{} }()
				for end := time.Now().Add(10 * time.Second); b.count("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()") <= i; {
					if time.Now().After(end) {
						t.Fatal("nobody waits for the order")
					}
				}
			}
			if err = held.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
			<-done
			<-done
			if got := ends(calls); got != c.want {
				t.Error(got, calls[0].err, calls[1].err)
			}
			var types []string
			for _, e := range b.history(o)[3:] {
				types = append(types, e.Type)
			}
			if got := strings.Join(types, " "); got != c.events {
				t.Error(got)
			}
			after, err := b.order(o).body()
			if last := calls[1]; last.err == nil && !strings.HasPrefix(last.result.Location, "/v1/shipments/") && (err != nil || string(last.result.Body.Bytes) != string(after.Bytes)) {
				t.Errorf("answered %s\nstored   %s, %v", last.result.Body.Bytes, after.Bytes, err)
			}
			if n := b.count("SELECT count(*) FROM order_addresses"); n != strings.Count(c.events, "order.updated")-strings.Count(name, "metadata") {
				t.Errorf("%d addresses", n)
			}
			if n, shipped := b.count("SELECT count(*) FROM shipments"), strings.Count(c.events, "shipped"); n != shipped {
				t.Errorf("%d shipments", n)
			}
		})
	}
}

// TestDeliveriesRace: the shipments of an order are delivered at once, each twice. Each arrives once, and the order is completed once.
func TestDeliveriesRace(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	o := b.confirmed(4)
	var calls []*call
	for range 4 {
		s := b.shipped(o, 1)
		calls = append(calls, b.call("deliverShipment", deliverShipment{s}), b.call("deliverShipment", deliverShipment{s}))
	}
	for _, c := range calls {
		c.deadline = time.Now().Add(10 * time.Second) // eight turns at one row
	}
	b.eachAlone(t.Context(), calls)
	for i := 0; i < len(calls); i += 2 {
		if ends := ends(calls[i : i+2]); ends != "200, SHP_004" && ends != "SHP_004, 200" {
			t.Error(ends, calls[i].err, calls[i+1].err)
		}
	}
	for query, want := range map[string]int{
		"order_events WHERE type = 'order.delivered'":                                                              4,
		"order_events WHERE type = 'order.completed'":                                                              1,
		"resource_events WHERE type = 'shipment.delivered'":                                                        4,
		"shipments WHERE status = 'delivered' AND version = 2 AND rev = 2 AND delivered_at = updated_at":           4,
		"orders WHERE status = 'completed' AND version = (SELECT max(version) FROM order_events) AND version = 12": 1,
	} {
		if n := b.count("SELECT count(*) FROM " + query); n != want {
			t.Errorf("%d %s", n, query)
		}
	}
	if raw, _ := json.Marshal(b.order(o).order); !strings.Contains(string(raw), `"fulfillment_status":"delivered"`) {
		t.Errorf("%s", raw)
	}
}
