package app

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/signature"
)

// TestExamplesAreWhatIsAnswered sends every request of the contract with all its examples. Each must be served, and the answer must be the
// contract's example of it but for ids, times and counts. Every status below 400 of every operation must come, and an event that is like
// the example of each webhook.
func TestExamplesAreWhatIsAnswered(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.sampleCatalogue()
	var id, shipment, paymentID, refundID, latest string
	send := func(op operation, leaveOut ...string) answer {
		path, query, headers := op.path, url.Values{}, []string{}
		if op.body != "" {
			headers = append(headers, "Idempotency-Key", fmt.Sprintf("example-%d", keyNumber.Add(1)), "Content-Type", op.mediaType)
		}
		for _, p := range op.Parameters {
			switch value := fmt.Sprint(p.Example); {
			case p.Name == "order_id":
				path = strings.Replace(path, "{order_id}", id, 1)
			case p.Name == "payment_id":
				path = strings.Replace(path, "{payment_id}", paymentID, 1)
			case p.Name == "shipment_id":
				path = strings.Replace(path, "{shipment_id}", shipment, 1)
			case p.Name == "refund_id":
				path = strings.Replace(path, "{refund_id}", refundID, 1)
			case p.Name == "X-Consistency-Token" && latest != "": // each read sees what the answers before it told of
				headers = append(headers, p.Name, latest)
			case p.Example == nil || slices.Contains(leaveOut, p.Name):
			case p.In == "path":
				path = strings.Replace(path, "{"+p.Name+"}", value, 1)
			case p.In == "query":
				query.Set(p.Name, value)
			default:
				headers = append(headers, p.Name, value)
			}
		}
		var body any
		if op.body != "" {
			body = op.body
		}
		a := g.do(op.Method, path+"?"+query.Encode(), body, headers...)
		latest = max(latest, a.header.Get("X-Consistency-Token"))
		return a
	}
	ops := map[string]operation{}
	for _, op := range operations(t) {
		ops[op.OperationID] = op
	}
	came := map[string]bool{}
	check := func(op operation, a answer) {
		t.Helper()
		came[op.OperationID+" "+strconv.Itoa(a.status)] = true
		var want, got any
		for _, content := range op.Responses[strconv.Itoa(a.status)].Content {
			if err := yaml.Unmarshal(content.Example, &want); err != nil {
				t.Errorf("%s %d has no example: %v", op.OperationID, a.status, err)
			}
		}
		if err := yaml.Unmarshal([]byte(a.raw), &got); err != nil {
			t.Fatalf("%s: %v", op.OperationID, err)
		}
		if where := unlike(want, got, ""); where != "" {
			t.Errorf("%s: the example of %d differs at %s from what was answered: %s", op.OperationID, a.status, where, a.raw)
		}
	}
	until(t, "an order is placed and decided", func() bool {
		taken, decided := send(ops["placeOrder"], "Prefer"), send(ops["placeOrder"])
		id = decided.body.ID
		if taken.status != http.StatusAccepted || decided.status == http.StatusAccepted {
			return false
		}
		check(ops["placeOrder"], taken)
		check(ops["placeOrder"], decided)
		return true
	})
	check(ops["quoteOrder"], send(ops["quoteOrder"]))
	check(ops["createProduct"], send(ops["createProduct"]))
	check(ops["updateProduct"], send(ops["updateProduct"]))
	check(ops["adjustInventory"], send(ops["adjustInventory"]))
	later := []string{"getPayment", "listOrderPayments", "listPayments", "getRefund", "listRefunds", "getShipment", "listOrderShipments", "streamOrder"}
	read := func(op operation) {
		t.Helper()
		if a := send(op, "If-None-Match", "created_from", "created_to", "reference", "version"); a.status == http.StatusOK {
			check(op, a)
		} else {
			t.Errorf("%s: %d %s", op.OperationID, a.status, a.raw)
		}
		a := send(op)
		if a.status != http.StatusOK {
			t.Errorf("%s with all examples: %d %s", op.OperationID, a.status, a.raw)
		}
		for i, p := range op.Parameters { // the caller's copy has an example that is not sent
			if p.Name == "If-None-Match" {
				op.Parameters = slices.Clone(op.Parameters)
				op.Parameters[i].Example = a.header.Get("ETag")
			}
		}
		unchanged := send(op)
		if came[op.OperationID+" "+strconv.Itoa(unchanged.status)] = true; unchanged.status != http.StatusNotModified || unchanged.raw != "" {
			t.Errorf("%s with its ETag: %d %s", op.OperationID, unchanged.status, unchanged.raw)
		}
	}
	for _, op := range ops {
		if op.Method == http.MethodGet && !slices.Contains(later, op.OperationID) {
			read(op)
		}
	}
	for _, op := range []operation{ops["payOrder"], ops["refundPayment"]} {
		until(t, op.OperationID+" is taken in and decided", func() bool {
			if op.OperationID == "payOrder" {
				id = g.do("POST", "/v1/orders", draft(firstSKU, 2, ""), "Prefer", "wait=10").body.ID
			}
			taken := send(op, "Prefer")
			if op.OperationID == "payOrder" {
				id = g.do("POST", "/v1/orders", draft(firstSKU, 2, ""), "Prefer", "wait=10").body.ID
			}
			decided := send(op)
			if taken.status != http.StatusAccepted || decided.status != http.StatusCreated {
				return false
			}
			check(op, taken)
			check(op, decided)
			if op.OperationID == "payOrder" {
				paymentID = decided.body.ID
				read(ops["getPayment"])
				read(ops["listOrderPayments"])
				read(ops["listPayments"])
			} else {
				refundID = decided.body.ID
				read(ops["getRefund"])
				read(ops["listRefunds"])
			}
			return true
		})
	}
	id = send(ops["placeOrder"]).body.ID
	check(ops["cancelOrder"], send(ops["cancelOrder"], "Prefer"))
	until(t, "an order is confirmed", func() bool {
		decided := send(ops["placeOrder"])
		id = decided.body.ID
		return decided.body.Status == "confirmed"
	})
	check(ops["updateOrder"], send(ops["updateOrder"]))
	shipped := send(ops["shipOrder"])
	shipment = shipped.body.ID
	check(ops["shipOrder"], shipped)
	read(ops["getShipment"])
	read(ops["listOrderShipments"])
	check(ops["deliverShipment"], send(ops["deliverShipment"]))
	until(t, "an order is cancelled", func() bool {
		id = send(ops["placeOrder"]).body.ID
		a := send(ops["cancelOrder"])
		if a.status == http.StatusOK {
			check(ops["cancelOrder"], a)
		}
		return a.status == http.StatusOK
	})
	stream := send(ops["streamOrder"]) // to its end
	var example string
	must(t, json.Unmarshal(ops["streamOrder"].Responses["200"].Content["text/event-stream"].Example, &example))
	messages := messagesOf(stream.raw)
	for _, want := range messagesOf(example) {
		i := slices.IndexFunc(messages, func(m map[string]any) bool { return unlike(want, m, "") == "" })
		if i < 0 {
			t.Errorf("no message of the stream, or none at its place, is like that of the example, %v:\n%s", want, stream.raw)
			break
		}
		messages = messages[i+1:]
	}
	nothing := g.do("GET", "/v1/orders/"+id+"/stream", nil, "Last-Event-ID", "99")
	callback := ops["takeProviderCallback"]
	taken := g.do("POST", "/v1/provider-callbacks/psp", callback.body, signature.Header, signature.Sign(g.cfg.ProviderSecret, time.Now(), []byte(callback.body)))
	came["streamOrder "+strconv.Itoa(stream.status)], came["streamOrder "+strconv.Itoa(nothing.status)], came["takeProviderCallback "+strconv.Itoa(taken.status)] = true, true, true
	for _, op := range ops {
		for status := range op.Responses {
			if status < "400" && !came[op.OperationID+" "+status] {
				t.Errorf("%s was never answered %s", op.OperationID, status)
			}
		}
	}
	g.webhooksAreWhatHappens()
}

// messagesOf returns the messages of a stream of server-sent events, with their data decoded.
func messagesOf(stream string) (messages []map[string]any) {
	for part := range strings.SplitSeq(strings.TrimSpace(stream), "\n\n") {
		m := map[string]any{}
		for line := range strings.Lines(part) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			value = strings.TrimSpace(value)
			if m[name] = value; name == "data" {
				var data any
				_ = yaml.Unmarshal([]byte(value), &data) // JSON
				m[name] = data
			}
		}
		messages = append(messages, m)
	}
	return messages
}

// webhooksAreWhatHappens looks for an event of each webhook of which the example is one: of the same sequence, form and cause, and with data of
// the same shape.
func (g *gateway) webhooksAreWhatHappens() {
	t := g.t
	t.Helper()
	place := func(sku string, quantity int, token string) string {
		return g.do("POST", "/v1/orders", draft(sku, quantity, token), "Prefer", "wait=10").body.ID
	}
	place("LAMP-0005", 9999, "pm_ok") // is rejected
	place("LAMP-0005", 1, "pm_declined")
	slow := g.do("POST", "/v1/orders", draft("LAMP-0005", 1, "pm_slow")).body.ID
	until(t, "an authorization is under way", func() bool { return g.count("payments WHERE status = 'pending'") > 0 })
	if a := g.do("POST", "/v1/orders/"+slow+"/cancel", `{"reason":"Ordered by mistake"}`); a.status != http.StatusAccepted {
		t.Fatal(a.raw)
	}
	stock := g.do("POST", "/v1/inventory/LAMP-0006/adjustments", `{"delta":50,"reason":"Delivery 4711"}`)
	g.do("PATCH", "/v1/products/LAMP-0006", fmt.Sprintf(`{"low_stock_at":%d}`, stock.body.Available-2), "If-Match", "*")
	place("LAMP-0006", 2, "pm_ok")
	paid := g.reserved("LAMP-0005")
	payment := g.pay(paid, "pm_ok", http.StatusCreated).body.ID
	var amount int64
	must(t, g.db.Pool.QueryRow(t.Context(), "SELECT amount FROM payments WHERE order_id = $1", paid[len("ord_"):]).Scan(&amount))
	shipped := g.do("POST", "/v1/orders/"+paid+"/shipments", `{"lines":[{"sku":"LAMP-0005","quantity":1}],"tracking":{"carrier":"DHL","number":"JJD000390007827"}}`)
	g.do("POST", "/v1/shipments/"+shipped.body.ID+"/deliver", nil)
	g.broken = true // the provider gave the money back by itself, which verify rightly finds
	put(t, g, payment+"-otherwise", fmt.Sprintf(`{"kind":"refund","payment":%q,"amount":{"amount":%d,"currency":"EUR"}}`, payment, amount))
	if a := g.do("POST", "/v1/payments/"+payment+"/refunds", `{"reason":"One lamp arrived broken"}`, "Prefer", "wait=10"); a.body.Status != "failed" {
		t.Errorf("a refund that the provider refuses: %s", a.raw)
	}

	var doc struct {
		Webhooks map[string]struct {
			Post struct {
				RequestBody examples `json:"requestBody"` //nolint:tagliatelle // OpenAPI's name
			} `json:"post"`
		} `json:"webhooks"`
	}
	must(t, json.Unmarshal(api.OpenAPIJSON, &doc))
	happens := func(eventType string, e exampleEvent) (seen []string, like bool) {
		rows, err := g.db.Pool.Query(t.Context(), `SELECT version, schema_version, operation, actor, payload FROM order_events WHERE type = $1
			UNION ALL SELECT sequence, schema_version, operation, actor, payload FROM resource_events WHERE type = $1`, eventType)
		must(t, err)
		defer rows.Close()
		for rows.Next() && !like {
			var other exampleEvent
			var payload string
			must(t, rows.Scan(&other.Sequence, &other.SchemaVersion, &other.Cause.Operation, &other.Cause.Actor, &payload))
			must(t, json.Unmarshal([]byte(payload), &other.Data))
			seen = append(seen, fmt.Sprintf("%+v", other))
			like = other.Sequence == e.Sequence && other.SchemaVersion == e.SchemaVersion && other.Cause.Operation == e.Cause.Operation &&
				kindOf(other.Cause.Actor) == kindOf(e.Cause.Actor) && sameShape(e.Data, other.Data)
		}
		must(t, rows.Err())
		return seen, like
	}
	for eventType, webhook := range doc.Webhooks {
		var e exampleEvent
		must(t, json.Unmarshal(webhook.Post.RequestBody.Content["application/json"].Example, &e))
		var seen []string
		like := false
		for end := time.Now().Add(20 * time.Second); !like && time.Now().Before(end); {
			if seen, like = happens(eventType, e); !like && len(seen) > 0 && g.count("outbox") == 0 && g.count("saga_steps WHERE status = 'running'") == 0 {
				break
			}
		}
		if !like {
			t.Errorf("%s does not happen as in its example\n%+v\nbut\n%s", eventType, e, strings.Join(seen, "\n"))
		}
	}
}

// exampleEvent is what is an event's own.
type exampleEvent struct {
	Sequence      int64 `json:"sequence"`
	SchemaVersion int32 `json:"schema_version"`
	Cause         struct {
		Operation string `json:"operation"`
		Actor     string `json:"actor"`
	} `json:"cause"`
	Data any `json:"data"`
}

// kindOf is the prefix of an id; a word that is none is itself.
func kindOf(actor string) string {
	kind, _, _ := strings.Cut(actor, "_")
	return kind
}

// sameShape tells whether two values have the same types everywhere. null is of any type.
func sameShape(a, b any) bool {
	switch a := a.(type) {
	case nil:
		return true
	case map[string]any:
		b, is := b.(map[string]any)
		if b == nil {
			return !is
		}
		for name, value := range a {
			if other, there := b[name]; !there || !sameShape(value, other) {
				return false
			}
		}
		return len(a) == len(b)
	case []any:
		b, is := b.([]any)
		return !is || len(a) == 0 || len(b) == 0 || sameShape(a[0], b[0])
	}
	return b == nil || reflect.TypeOf(a) == reflect.TypeOf(b)
}

// TestExamplesOfProblemsAreWhatIsAnswered: the example of each code is the body that the gateway would write for it.
func TestExamplesOfProblemsAreWhatIsAnswered(t *testing.T) {
	t.Parallel()
	var doc struct {
		Components struct {
			Responses map[string]struct {
				Content map[string]struct {
					Examples map[string]struct {
						Value map[string]any `json:"value"`
					} `json:"examples"`
				} `json:"content"`
			} `json:"responses"`
		} `json:"components"`
	}
	must(t, json.Unmarshal(api.OpenAPIJSON, &doc))
	seen := map[string]bool{}
	for _, response := range doc.Components.Responses {
		for code, example := range response.Content["application/problem+json"].Examples {
			e := apierr.E(errcode.Code(code))
			for name, value := range example.Value {
				switch name {
				case "type", "title", "status", "detail", "instance", "code", "message", "retryable", "trace_id":
				case "errors":
					for _, fault := range value.([]any) {
						f := fault.(map[string]any)
						rule := errcode.Rule(f["rule"].(string))
						before, after, _ := strings.Cut(rule.Message(false, "\x00"), "\x00")
						expected := strings.TrimSuffix(strings.TrimPrefix(f["message"].(string), before), after)
						apierr.Faults(apierr.Fault{Pointer: f["pointer"].(string), Rule: rule, Expected: expected})(e)
					}
				default:
					apierr.Extra(name, value)(e)
				}
			}
			status, body := e.Problem(apierr.ProblemContext{TraceID: "checkout-7c9e6679", Instance: "/v1/orders"})
			var want map[string]any
			must(t, json.Unmarshal(body, &want))
			if !reflect.DeepEqual(want, example.Value) || float64(status) != example.Value["status"] {
				t.Errorf("the example of %s is\n%v, and it is answered\n%s", code, example.Value, body)
			}
			seen[code] = true
		}
	}
	if len(seen) < 50 {
		t.Errorf("%d codes have an example", len(seen))
	}
}

// made are the values that differ from run to run.
var made = regexp.MustCompile(`^((ord|pay|ref|shp|evt|key|adj)_\w+|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)$`)

// unlike is the first place where an example differs from an answer; "" if it is an example of it. A list may show the first entries only.
func unlike(example, answer any, at string) string {
	switch e := example.(type) {
	case map[string]any:
		a, _ := answer.(map[string]any)
		if _, document := e["openapi"]; document {
			return unlike(e["openapi"], a["openapi"], at+"/openapi")
		}
		for name := range a {
			if _, there := e[name]; !there {
				return at + "/" + name
			}
		}
		for _, name := range slices.Sorted(maps.Keys(e)) {
			if value, there := a[name]; !there {
				return at + "/" + name
			} else if where := unlike(e[name], value, at+"/"+name); where != "" {
				return where
			}
		}
		return ""
	case []any:
		a, _ := answer.([]any)
		if len(a) < len(e) || len(e) == 0 {
			return at
		}
		for i := range e {
			if where := unlike(e[i], a[i], fmt.Sprint(at, "/", i)); where != "" {
				return where
			}
		}
		return ""
	case string:
		a, _ := answer.(string)
		if one, other := made.FindStringSubmatch(e), made.FindStringSubmatch(a); one != nil && other != nil && one[2] == other[2] || strings.HasSuffix(at, "/trace_id") || strings.HasSuffix(at, "/token") {
			return ""
		}
	case int:
		if _, count := answer.(int); count && (strings.HasSuffix(at, "/reserved") || strings.HasSuffix(at, "/available") || strings.HasSuffix(at, "/on_hand")) {
			return ""
		}
	}
	if example != answer {
		return at
	}
	return ""
}
