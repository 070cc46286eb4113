package pay

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"github.com/ordergate/ordergate/order"
)

var (
	ids  = order.NewIDs([]byte("a key"))
	noon = time.Date(2026, 11, 23, 12, 0, 0, 123456789, time.UTC)
	ref  = order.Ref{Owner: order.Owner{Account: 7, Mode: "test"}, ID: ids.Mint(noon, 7)}
)

// recorder stamps each event with an instant of its own.
func recorder(n int) order.Recorder {
	now := noon.Add(time.Duration(n) * time.Minute)
	return order.Recorder{NewID: func() order.ID { return ids.Mint(now, 7) }, Now: now, Cause: order.Cause{TraceID: "t", Operation: "payOrder", Actor: "key_1"}}
}

var (
	words  = rapid.SampledFrom([]string{"", "insufficient_funds", "nein, \"danke\" 梅", "\u2028"})
	amount = rapid.Custom(func(t *rapid.T) order.Money {
		return order.Money{Amount: rapid.Int64Range(0, order.MaxTotal).Draw(t, "amount"), Currency: "EUR"}
	})
	anyPayment = rapid.OneOf(
		rapid.Custom(func(t *rapid.T) Data {
			return Created{OrderID: ids.Mint(noon, 7).Format(order.PrefixOrder), Attempt: rapid.Int32Range(1, 9).Draw(t, "attempt"), Amount: amount.Draw(t, "money")}
		}),
		rapid.Custom(func(t *rapid.T) Data { return Authorized{Reference: words.Draw(t, "reference")} }),
		rapid.Custom(func(t *rapid.T) Data { return Captured{Reference: words.Draw(t, "reference")} }),
		rapid.Custom(func(t *rapid.T) Data { return Voided{Reference: words.Draw(t, "reference")} }),
		rapid.Custom(func(t *rapid.T) Data {
			return Failed{Code: "PAY_007", DeclineReason: order.Text(words.Draw(t, "reason"))}
		}),
	)
	anyRefund = rapid.OneOf(
		rapid.Custom(func(t *rapid.T) RefundData {
			return RefundMade{
				PaymentID: ids.Mint(noon, 7).Format(order.PrefixPayment), OrderID: ids.Mint(noon, 7).Format(order.PrefixOrder),
				Amount: amount.Draw(t, "money"), Reason: order.Text(words.Draw(t, "reason")),
			}
		}),
		rapid.Custom(func(t *rapid.T) RefundData { return RefundDone{Reference: words.Draw(t, "reference")} }),
		rapid.Custom(func(t *rapid.T) RefundData {
			return RefundRefused{Code: "PAY_006", DeclineReason: order.Text(words.Draw(t, "reason"))}
		}),
	)
)

// The fold of a history is the payment, or the refund, that recorded it, whatever happened to it; and of a part of the history it is what
// it was then.
func TestFoldEqualsRecordingLive(t *testing.T) {
	t.Run("of a payment", rapid.MakeCheck(func(t *rapid.T) {
		live := &Payment{Ref: ref}
		var history []order.Event
		var states []Payment
		for i, d := range rapid.SliceOf(anyPayment).Draw(t, "events") {
			history = append(history, live.Record(recorder(i), d).Event)
			states = append(states, *live)
		}
		if err := live.Resource().Verify(history); err != nil {
			t.Fatal(err)
		}
		folded, err := Fold(ref, history, nil)
		if err != nil || !reflect.DeepEqual(folded, live) {
			t.Fatalf("%v\nlive   %+v\nfolded %+v", err, live, folded)
		}
		for i := range states {
			then, err := Fold(ref, history, func(p *Payment) bool { return p.Head.Version == int64(i+1) })
			if err != nil || !reflect.DeepEqual(*then, states[i]) {
				t.Fatalf("%v\nthen   %+v\nfolded %+v", err, states[i], then)
			}
		}
	}))
	t.Run("of a refund", rapid.MakeCheck(func(t *rapid.T) {
		live := &Refund{Ref: ref}
		var history []order.Event
		for i, d := range rapid.SliceOf(anyRefund).Draw(t, "events") {
			history = append(history, live.Record(recorder(i), d).Event)
		}
		if err := live.Resource().Verify(history); err != nil {
			t.Fatal(err)
		}
		folded, err := FoldRefund(ref, history, nil)
		if err != nil || !reflect.DeepEqual(folded, live) {
			t.Fatalf("%v\nlive   %+v\nfolded %+v", err, live, folded)
		}
	}))
}

func TestAHistoryThatIsNotWholeIsRefused(t *testing.T) {
	p, r := &Payment{Ref: ref}, &Refund{Ref: ref}
	of := order.Money{Amount: 5, Currency: "EUR"}
	payment := []order.Event{p.Record(recorder(0), Created{Amount: of}).Event, p.Record(recorder(1), Authorized{}).Event, p.Record(recorder(2), Captured{}).Event}
	refund := []order.Event{r.Record(recorder(0), RefundMade{Amount: of}).Event, r.Record(recorder(1), RefundDone{}).Event}
	for name, change := range map[string]func([]order.Event) []order.Event{
		"without its first event": func(h []order.Event) []order.Event { return h[1:] },
		"with an event twice":     func(h []order.Event) []order.Event { return append(h[:1:1], h...) },
		"with an unknown type":    func(h []order.Event) []order.Event { h[1].Type = "payment.danced"; return h },
		"with another's type":     func(h []order.Event) []order.Event { h[1].Type = "order.paid"; return h },
		"with a payload cut off":  func(h []order.Event) []order.Event { h[0].Payload = h[0].Payload[:3]; return h },
	} {
		if _, err := Fold(ref, change(bytesOf(payment)), nil); err == nil {
			t.Errorf("a payment %s was folded", name)
		}
		if _, err := FoldRefund(ref, change(bytesOf(refund)), nil); err == nil {
			t.Errorf("a refund %s was folded", name)
		}
	}
	if _, err := Fold(ref, refund, nil); err == nil {
		t.Error("a refund was folded as a payment")
	}
}

func bytesOf(history []order.Event) []order.Event {
	all := append([]order.Event{}, history...)
	for i := range all {
		all[i].Payload = bytes.Clone(all[i].Payload)
	}
	return all
}

func TestOnlyACapturedPaymentIsRefundable(t *testing.T) {
	for status, want := range map[Status]int64{StatusPending: 0, StatusAuthorized: 0, StatusCaptured: 4, StatusVoided: 0, StatusFailed: 0} {
		p := &Payment{Status: status, Amount: order.Money{Amount: 10}, Refunded: 1, RefundPending: 5}
		if got := p.Refundable(); got != want {
			t.Errorf("%s: %d, want %d", status, got, want)
		}
	}
}

// payloads are the types of this package that have a method eventType, and what it returns.
func payloads(t *testing.T) map[string]string {
	t.Helper()
	types := map[string]string{}
	for _, file := range []string{"pay.go", "refund.go"} {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Name.Name != "eventType" || f.Recv == nil {
				continue
			}
			result := f.Body.List[0].(*ast.ReturnStmt).Results[0].(*ast.BasicLit).Value
			types[f.Recv.List[0].Type.(*ast.Ident).Name] = strings.Trim(result, `"`)
		}
	}
	return types
}

func TestEveryPayloadIsDecoded(t *testing.T) {
	found := payloads(t)
	if len(found) != len(decoders)+len(refundDecoders) {
		t.Errorf("%d payloads, %d decoders", len(found), len(decoders)+len(refundDecoders))
	}
	for name, eventType := range found {
		var d any
		var err error
		if decode, ok := decoders[eventType]; ok {
			d, err = decode([]byte("{}"))
		} else if decode, ok := refundDecoders[eventType]; ok {
			d, err = decode([]byte("{}"))
		}
		if err != nil || d == nil || reflect.TypeOf(d).Name() != name {
			t.Errorf("%s is decoded as %T: %v", eventType, d, err)
		}
	}
}

// TestEveryEventTypeIsInTheContract: clients read the events of payments and refunds, so that the contract has each, as a webhook with its
// schema and an example.
func TestEveryEventTypeIsInTheContract(t *testing.T) {
	text, err := os.ReadFile("../../openapi/webhooks.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var webhooks map[string]struct{ Schema string }
	if err = yaml.Unmarshal(text, &webhooks); err != nil {
		t.Fatal(err)
	}
	schemas, err := os.ReadFile("../../openapi/schemas/event.yaml")
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]bool{}
	for _, eventType := range payloads(t) {
		types[eventType] = true
		if webhooks[eventType].Schema == "" {
			t.Errorf("openapi/webhooks.yaml has no %s", eventType)
		}
		if !bytes.Contains(schemas, []byte("const: "+eventType+",")) {
			t.Errorf("openapi/schemas/event.yaml has no schema of %s", eventType)
		}
	}
	for eventType := range webhooks {
		if kind, _, _ := strings.Cut(eventType, "."); (kind == "payment" || kind == "refund") && !types[eventType] {
			t.Errorf("openapi/webhooks.yaml has %s, which no payload has", eventType)
		}
	}
}
