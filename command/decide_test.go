package command

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ordergate/ordergate/command/inventory"
	"github.com/ordergate/ordergate/command/payment"
	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/outbox"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/order"
)

// decided decides without a database and says in words what would be written: events, steps with their status, messages; or the refusal.
func decided(op operation, l *loaded) string {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	e, err := op.decide(l, Envelope{Owner: alice, Operation: "test", Actor: "key_1"}.recorder(testIDs, now))
	if err != nil {
		refusal, _ := errors.AsType[*apierr.Error](err)
		return string(refusal.Code)
	}
	var words []string
	for _, c := range e.orders {
		for _, event := range c.events {
			words = append(words, event.Type)
		}
		for _, st := range c.steps {
			words = append(words, st.name+":"+st.status)
		}
		for _, m := range c.messages {
			words = append(words, m.Type)
		}
		for _, call := range c.payments.Calls {
			words = append(words, "call:"+string(call.Operation))
		}
	}
	return strings.Join(words, " ")
}

func TestPlaceOrderDecides(t *testing.T) {
	products := map[order.Item]*order.Product{
		{Owner: alice, SKU: "A"}: {Name: "A", Active: true, Prices: map[string]int64{"EUR": 100}},
		{Owner: alice, SKU: "B"}: {Name: "B", Prices: map[string]int64{"EUR": 100}},
	}
	place := func(sku string, methodToken string) operation {
		body := api.PlaceOrder{Currency: "EUR", CustomerRef: "c", Lines: []api.PlaceOrderLine{{Sku: sku, Quantity: 1}}}
		if methodToken != "" {
			body.Payment = &api.PlaceOrderPayment{MethodToken: methodToken}
		}
		return placeOrder{alice, body}
	}
	for name, c := range map[string]struct {
		op   operation
		want string
	}{
		"a paid order reserves first":             {place("A", "pm_ok"), "order.created reserve_stock:running authorize:pending confirm_stock:pending capture:pending inventory.reserve"},
		"an order without a payment only that":    {place("A", ""), "order.created reserve_stock:running inventory.reserve"},
		"a product that is not for sale: refused": {place("B", "pm_ok"), "CAT_003"},
		"no such product: refused":                {place("C", "pm_ok"), "CAT_005"},
	} {
		t.Run(name, func(t *testing.T) {
			if needs := c.op.needs(); len(needs.products) != 1 || len(needs.orders) != 0 {
				t.Errorf("needs %+v", needs)
			}
			if got := decided(c.op, &loaded{products: products}); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
	if got := decided(place("A", ""), &loaded{products: map[order.Item]*order.Product{{Owner: order.Owner{Account: 2, Mode: "test"}, SKU: "A"}: products[order.Item{Owner: alice, SKU: "A"}]}}); got != string(errcode.CAT005) {
		t.Errorf("another account's product: %s", got)
	}
}

func TestCancelOrderDecides(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	rec := Envelope{Owner: alice, Actor: "saga"}.recorder(testIDs, now)
	// paying is an order whose saga has come to the given step.
	paying := func(t *testing.T, until string) *orderChange {
		t.Helper()
		e, err := placeOrder{alice, api.PlaceOrder{
			Currency: "EUR", CustomerRef: "c", Lines: []api.PlaceOrderLine{{Sku: "A", Quantity: 1}}, Payment: &api.PlaceOrderPayment{MethodToken: "pm_ok"},
		}}.decide(&loaded{products: map[order.Item]*order.Product{{Owner: alice, SKU: "A"}: {Active: true, Prices: map[string]int64{"EUR": 100}}}}, rec)
		if err != nil {
			t.Fatal(err)
		}
		c := e.orders[0]
		reply := func(apply applyReply, messageType string, data any) {
			t.Helper()
			if _, err := apply(c, outbox.New("", messageType, c.ref(), outbox.Cause{Now: now}, data).Envelope, rec); err != nil {
				t.Fatal(err)
			}
			advance(c, rec)
		}
		expires := c.order.CreatedAt
		for _, next := range []func(){
			func() { reply(applyStockReply, inventory.Reserved, inventory.Reply{Attempt: 1, ExpiresAt: &expires}) },
			func() {
				reply(applyPaymentReply, payment.Succeeded, payment.Reply{Operation: payment.Authorize, Attempt: 1})
			},
			func() { reply(applyStockReply, inventory.Confirmed, inventory.Reply{Attempt: 1}) },
			func() {
				reply(applyPaymentReply, payment.Succeeded, payment.Reply{Operation: payment.Capture, Attempt: 1})
			},
		} {
			if c.steps.inFlight(until) {
				break
			}
			next()
		}
		c.events, c.messages, c.payments = nil, nil, payment.Changes{}
		return c
	}
	for name, c := range map[string]struct {
		until string
		want  string
	}{
		"while stock is reserved it is recorded": {stepReserve, "order.cancel_requested reserve_stock:running authorize:skipped confirm_stock:skipped capture:skipped"},
		"during an authorization, too":           {stepAuth, "order.cancel_requested reserve_stock:done authorize:running confirm_stock:skipped capture:skipped"},
		"a running capture is ORD_009":           {stepCapture, "ORD_009"},
		"a paid order is refunded":               {"none", "order.cancel_requested reserve_stock:done authorize:done confirm_stock:done capture:done refund:running call:refund"},
	} {
		t.Run(name, func(t *testing.T) {
			o := paying(t, c.until)
			if got := decided(cancelOrder{ref: o.ref()}, &loaded{orders: map[order.Ref]*orderChange{o.ref(): o}}); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
	if got := decided(cancelOrder{ref: order.Ref{Owner: alice}}, &loaded{}); got != "ORD_001" {
		t.Errorf("no such order: %s", got)
	}
}

// A method token is a secret of the customer: whatever becomes of its step, only a pending one keeps it.
func TestATokenEndsWithItsStep(t *testing.T) {
	rec := Envelope{Owner: alice, Operation: "test", Actor: "key_1"}.recorder(testIDs, time.Now())
	for name, reply := range map[string]string{"started": inventory.Reserved, "skipped": inventory.ReserveRefused} {
		t.Run(name, func(t *testing.T) {
			o := &order.Order{ID: rec.NewID(), WithPayment: true, Status: order.StatusPending}
			c := &orderChange{owner: alice, order: o, steps: newSteps(o, "pm_secret")}
			advance(c, rec)
			authorize := c.steps.find(stepAuth, 1)
			if authorize.input != "pm_secret" {
				t.Fatalf("the pending step has %q", authorize.input)
			}
			data, _ := json.Marshal(inventory.Reply{Attempt: 1, ExpiresAt: new(rfc3339.New(time.Now()))})
			if _, err := takeReply(c, outbox.Envelope{Type: reply, Data: data}, applyStockReply, rec); err != nil {
				t.Fatal(err)
			}
			if authorize.status == statusPending || authorize.input != "" || !authorize.moved {
				t.Errorf("the %s step has %q", authorize.status, authorize.input)
			}
			if sent, _ := json.Marshal(pg.Column(c.messages, func(m outbox.Message) outbox.Envelope { return m.Envelope })); strings.Contains(string(sent), "pm_secret") {
				t.Errorf("a message has it: %s", sent)
			}
			if calls := c.payments.Calls; (len(calls) == 1 && calls[0].MethodToken == "pm_secret") != (name == "started") {
				t.Errorf("calls: %+v", calls)
			}
		})
	}
}
