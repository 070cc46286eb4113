package command

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/ordergate/ordergate/command/inventory"
	"github.com/ordergate/ordergate/command/payment"
	"github.com/ordergate/ordergate/internal/outbox"
	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/order"
)

var update = flag.Bool("update", false, "write the golden files")

// TestEveryMessageHasItsForm: messages outlive the program that sent them, in outboxes and topics. A change here is a change of
// outbox.Schema, or one that older consumers can take.
func TestEveryMessageHasItsForm(t *testing.T) {
	const golden = "testdata/messages.golden"
	now := time.Date(2026, 11, 26, 12, 0, 0, 120_000_000, time.UTC)
	id := func(n byte) order.ID { return order.ID{0: 0x01, 1: 0x9a, 6: 0x70, 8: 0x80, 15: n} }
	o := &order.Order{ID: id(1), Amounts: order.Amounts{Total: order.Money{Amount: 3998, Currency: "EUR"}}, Lines: []order.Line{{SKU: "LAMP-0001", Quantity: 2}}}
	c := &orderChange{owner: alice, order: o, rev: 7}
	cause := outbox.Cause{ID: id(2), TraceID: "trace-1", Now: now}
	var messages []outbox.Message
	for _, k := range stepTable {
		st := &step{name: k.name, attempt: 1, input: "pm_ok"}
		c.steps = append(c.steps, st)
		k.start(c, st, order.Recorder{NewID: func() order.ID { return id(2) }, Now: now, Cause: order.Cause{TraceID: "trace-1"}})
	}
	messages = append(messages, c.messages...)
	expires := rfc3339.New(now.Add(time.Minute))
	reply := func(topic, messageType string, data any) {
		messages = append(messages, outbox.New(topic, messageType, c.ref(), cause, data))
	}
	reply(inventory.TopicCommands, inventory.Expire, inventory.Command{Attempt: 1})
	reply(inventory.TopicReplies, inventory.Reserved, inventory.Reply{Attempt: 1, ExpiresAt: &expires})
	reply(inventory.TopicReplies, inventory.ReserveRefused, inventory.Reply{Attempt: 1, SKUs: []order.ShortSKU{{SKU: "LAMP-0001", Requested: 2, Available: 1}}})
	for _, messageType := range []string{inventory.Confirmed, inventory.ConfirmRefused, inventory.Cancelled, inventory.Expired} {
		reply(inventory.TopicReplies, messageType, inventory.Reply{Attempt: 1})
	}
	reply(payment.TopicReplies, payment.Succeeded, payment.Reply{Operation: payment.Authorize, Attempt: 1})
	reply(payment.TopicReplies, payment.Failed, payment.Reply{Operation: payment.Authorize, Attempt: 1, Code: "PAY_007", DeclineReason: "insufficient_funds"})
	reply(payment.TopicReplies, payment.Refunded, payment.RefundNote{RefundID: id(5).Format(order.PrefixRefund), Amount: o.Total})
	messages = append(messages, c.changed(order.Event{ID: id(3), Type: "order.created", Version: 1, At: now, Cause: order.Cause{TraceID: "trace-1"}}))

	var text bytes.Buffer
	for _, m := range messages {
		b, err := json.MarshalIndent(m.Envelope, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		text.WriteString(m.Topic + "\n")
		text.Write(append(b, '\n'))
		e, err := outbox.Open(b)
		if err != nil || e.Ref() != c.ref() {
			t.Errorf("%s cannot be read back: %v", m.Type, err)
		}
	}
	if *update {
		if err := os.WriteFile(golden, text.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, text.Bytes()) {
		t.Errorf("messages changed (go test ./command -update, after thinking of the messages that are on their way):\n%s", text.Bytes())
	}
}

func TestMessagesThatAreNoneAreRefused(t *testing.T) {
	const good = `{"id":"019a0000-0000-7000-8000-000000000000","type":"inventory.reserved","schema":1,"account":1,"mode":"test","order_id":"ord_019a0000000070008000000000000000","trace_id":"t","created_at":"2026-11-26T12:00:00.000000Z","data":{}}`
	if _, err := outbox.Open([]byte(good)); err != nil {
		t.Fatal(err)
	}
	c := &orderChange{owner: alice, order: &order.Order{}}
	for name, payload := range map[string]string{
		"no JSON":             `{`,
		"another schema":      `{"schema":2}`,
		"no order":            `{"schema":1,"order_id":"ord_x"}`,
		"an order's bare hex": `{"schema":1,"order_id":"019a0000000070008000000000000000"}`,
	} {
		if _, err := outbox.Open([]byte(payload)); err == nil {
			t.Errorf("%s was opened", name)
		}
	}
	for _, apply := range []applyReply{applyStockReply, applyPaymentReply} {
		for _, e := range []outbox.Envelope{{Type: "inventory.gone", Data: []byte(`{}`)}, {Type: payment.Succeeded, Data: []byte(`{"operation":"steal"}`)}, {Type: inventory.Reserved, Data: []byte(`[]`)}} {
			if moved, err := apply(c, e, order.Recorder{}); moved || err == nil {
				t.Errorf("%s was applied", e.Type)
			}
		}
	}
}
