package order

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
)

// confirmed is a confirmed order of 2 lamps and 3 bulbs.
func confirmed(t *testing.T) *Order {
	t.Helper()
	o, _ := place(t)
	o.Lines = append(o.Lines, Line{SKU: "BULB", Quantity: 3})
	o.Record(recorder(), Paid{})
	o.Record(recorder(), Confirmed{})
	return o
}

// refusal is an error in words: its code and its faults.
func refusal(err error) string {
	e, ok := errors.AsType[*apierr.Error](err)
	if !ok {
		return fmt.Sprint(err)
	}
	words := []string{string(e.Code)}
	for _, f := range e.Faults {
		words = append(words, strings.TrimSpace(fmt.Sprint(f.Pointer, " ", f.Rule, " ", f.Expected)))
	}
	return strings.Join(words, ", ")
}

func TestShipRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		before func(*Order)
		lines  []ShipmentLine
		want   string
	}{
		"more than is ordered":             {nil, []ShipmentLine{{"LAMP", 3}}, "SHP_002, /lines/0/quantity unshipped 2"},
		"more than is left":                {func(o *Order) { o.Lines[1].Shipped = 2 }, []ShipmentLine{{"LAMP", 1}, {"BULB", 2}}, "SHP_002, /lines/1/quantity unshipped 1"},
		"a sku that is not ordered":        {nil, []ShipmentLine{{"LAMP", 2}, {"SOFA", 1}}, "SHP_002, /lines/1/sku ordered"},
		"a sku in two lines":               {nil, []ShipmentLine{{"LAMP", 1}, {"LAMP", 1}}, "SHP_002, /lines/1/sku unique"},
		"all faults are listed":            {nil, []ShipmentLine{{"LAMP", 9}, {"SOFA", 1}, {"SOFA", 1}}, "SHP_002, /lines/0/quantity unshipped 2, /lines/1/sku ordered, /lines/2/sku unique"},
		"nothing is left":                  {func(o *Order) { o.Lines[0].Shipped, o.Lines[1].Shipped = 2, 3 }, nil, "SHP_002, /lines unshipped 0"},
		"refunded in full":                 {func(o *Order) { o.PaymentStatus = PaymentStatusRefunded }, nil, "SHP_003"},
		"a cancellation that is requested": {func(o *Order) { o.CancelRequestedAt = &o.CreatedAt }, nil, "ORD_002"},
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			o := confirmed(t)
			if c.before != nil {
				c.before(o)
			}
			version := o.Version
			lines, events, err := o.Ship(recorder(), ids.Mint(noon, 7), c.lines)
			if got := refusal(err); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
			if lines != nil || events != nil || o.Version != version || o.FulfillmentStatus != FulfillmentStatusUnfulfilled {
				t.Error("a refusal shipped something")
			}
		})
	}
}

// An order is shipped in parts and completed by its last delivery, in whatever order the shipments arrive; an order of which a part is
// unshipped is not completed by a delivery.
func TestAnOrderIsCompletedByItsLastDelivery(t *testing.T) {
	o := confirmed(t)
	first, second, third := ids.Mint(noon, 7), ids.Mint(noon, 7), ids.Mint(noon, 7)
	ship := func(id ID, lines []ShipmentLine, want FulfillmentStatus, shipped ...ShipmentLine) {
		t.Helper()
		lines, events, err := o.Ship(recorder(), id, lines)
		if err != nil || o.FulfillmentStatus != want || !reflect.DeepEqual(lines, shipped) || len(events) != 1 || events[0].Type != "order.shipped" {
			t.Errorf("%v, %s, %v, %v", err, o.FulfillmentStatus, lines, events)
		}
	}
	deliver := func(id ID, want FulfillmentStatus, status Status, types ...string) {
		t.Helper()
		var got []string
		for _, e := range o.Deliver(recorder(), id) {
			got = append(got, e.Type)
		}
		if o.FulfillmentStatus != want || o.Status != status || !reflect.DeepEqual(got, types) {
			t.Errorf("%s, %s, %v", o.FulfillmentStatus, o.Status, got)
		}
	}
	ship(first, []ShipmentLine{{"BULB", 1}}, FulfillmentStatusPartial, ShipmentLine{"BULB", 1})
	deliver(first, FulfillmentStatusPartial, StatusConfirmed, "order.delivered")
	ship(second, []ShipmentLine{{"BULB", 2}}, FulfillmentStatusPartial, ShipmentLine{"BULB", 2})
	ship(third, nil, FulfillmentStatusShipped, ShipmentLine{"LAMP", 2})
	deliver(third, FulfillmentStatusShipped, StatusConfirmed, "order.delivered")
	o.Record(recorder(), Refunded{}) // what is on its way still arrives
	deliver(second, FulfillmentStatusDelivered, StatusCompleted, "order.delivered", "order.completed")
	if !o.Status.Final() || !o.Decided() {
		t.Error("a completed order is not final")
	}
}

func TestUpdate(t *testing.T) {
	for name, c := range map[string]struct {
		metadata map[string]string
		address  bool
		want     string
	}{
		"metadata is replaced":                   {map[string]string{"b": "2"}, false, `{"metadata":{"b":"2"}}`},
		"metadata is emptied":                    {map[string]string{}, false, `{"metadata":{}}`},
		"an address is told of and not told":     {nil, true, `{"shipping_address_changed":true}`},
		"both are one event":                     {map[string]string{}, true, `{"metadata":{},"shipping_address_changed":true}`},
		"the same metadata are no event":         {map[string]string{"a": "1"}, false, ""},
		"nothing is no event":                    {nil, false, ""},
		"the same metadata beside a new address": {map[string]string{"a": "1"}, true, `{"shipping_address_changed":true}`},
	} {
		t.Run(name, func(t *testing.T) {
			o, _ := place(t)
			o.Metadata = map[string]string{"a": "1"}
			events, err := o.Update(recorder(), c.metadata, c.address)
			got := ""
			if len(events) == 1 && events[0].Type == "order.updated" {
				got = string(events[0].Payload)
			}
			if err != nil || got != c.want || len(events) > 1 || c.metadata != nil && !reflect.DeepEqual(o.Metadata, c.metadata) || o.PaymentStatus != PaymentStatusNone {
				t.Errorf("%v, %s, %+v", err, got, o)
			}
		})
	}
	t.Run("an address that may not change keeps the metadata, too", func(t *testing.T) {
		o := confirmed(t)
		o.FulfillmentStatus = FulfillmentStatusPartial
		version := o.Version
		if _, err := o.Update(recorder(), map[string]string{"b": "2"}, true); refusal(err) != string(errcode.ORD002) || o.Version != version || len(o.Metadata) != 0 {
			t.Error(err, o)
		}
	})
}

// A shipment is the fold of its events, whose names and data the contract has.
func TestAShipmentIsTheFoldOfItsEvents(t *testing.T) {
	id, orderID := ids.Mint(noon, 7), ids.Mint(noon, 7)
	created := ShipmentCreated{orderID.Format(PrefixOrder), []ShipmentLine{{"LAMP", 2}}, &Tracking{"DHL", "1", ""}}
	s := &Shipment{ID: id}
	for _, next := range []struct {
		eventType string
		data      any
	}{{TypeShipmentCreated, created}, {TypeShipmentDelivered, ShipmentDelivered{}}} {
		e := recorder().Event(id[:], s.Version, s.HeadHash, next.eventType, ShipmentSchema, next.data)
		if err := s.Apply(e); err != nil {
			t.Fatal(err)
		}
		if s.Version != e.Version || !s.UpdatedAt.Equal(e.At) || string(s.HeadHash) != string(e.Hash) {
			t.Errorf("%+v", s)
		}
	}
	want := &Shipment{
		ID: id, Version: 2, HeadHash: s.HeadHash, OrderID: orderID, Lines: created.Lines, Tracking: created.Tracking, Status: ShipmentStatusDelivered,
		CreatedAt: s.UpdatedAt, UpdatedAt: s.UpdatedAt, DeliveredAt: &s.UpdatedAt,
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("%+v\n%+v", s, want)
	}
	payload, _ := json.Marshal(created)
	if string(payload) != `{"order_id":"`+created.OrderID+`","lines":[{"sku":"LAMP","quantity":2}],"tracking":{"carrier":"DHL","number":"1","url":null}}` {
		t.Errorf("%s", payload)
	}
	for name, e := range map[string]Event{
		"a gap":           {Version: 4, Type: TypeShipmentDelivered},
		"an unknown type": {Version: 3, Type: "shipment.lost"},
		"a broken order":  {Version: 3, Type: TypeShipmentCreated, Payload: []byte(`{"order_id":"x"}`)},
		"broken JSON":     {Version: 3, Type: TypeShipmentCreated, Payload: []byte(`{`)},
	} {
		if before := *s; s.Apply(e) == nil || !reflect.DeepEqual(*s, before) {
			t.Errorf("%s was applied", name)
		}
	}
}
