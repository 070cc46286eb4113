package contracttest

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ordergate/ordergate/gen/api"
)

// play runs the suite against a tape, part by part until enough is found.
func (t *tape) play(ctx context.Context, o Options, enough func(Finding) bool) ([]Finding, error) {
	server := httptest.NewServer(t)
	defer server.Close()
	s, err := newSuite(Options{
		BaseURL: server.URL, Key: "og_test_of_the_tape_alone", Contract: o.Contract, Patience: o.Patience, ref: t.Ref,
		now: func() time.Time { return t.Ended }, hurries: true,
	})
	if err != nil {
		return nil, err
	}
	s.begin, s.facts.synced = t.Began, true
	for _, p := range flows {
		if p.name == "document" && o.Patience > 0 && o.Contract == nil {
			continue // it takes longer than all others, and no answer lies about it
		}
		if s.run(ctx, p); slices.ContainsFunc(s.findings, enough) {
			break
		}
	}
	return s.findings, nil
}

// prove shows that the suite would notice: it holds the answers of a run that found nothing against contracts with one lie each, and
// answers with one lie each against the contract. For each lie there must be a finding at its operation and place.
func prove(t *testing.T, honest *tape) {
	t.Helper()
	var contract any
	if err := json.Unmarshal(api.OpenAPIJSON, &contract); err != nil {
		t.Fatal(err)
	}
	for _, l := range lies {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			told := honest.copy()
			o := Options{Patience: time.Second} // for what is polled and never comes
			if l.place != "" {
				document := jsonOf(contract)
				if !put(document, strings.Split(l.place, "/")[1:], l.value) {
					t.Fatal("the contract has no place for this lie any more")
				}
				o.Contract, _ = json.Marshal(document) // it was read from JSON
			} else if !l.tell(told) {
				t.Fatal("the run has no answer to lie about")
			}
			findings, err := told.play(t.Context(), o, l.found)
			if err != nil || !slices.ContainsFunc(findings, l.found) {
				t.Errorf("nothing was found at %s %s: %v; the findings are %v", l.operation, l.pointer, err, findings)
			}
		})
	}
}

// lie is one change of the contract, or of all answers that match.
type lie struct {
	name  string
	place string // in the contract, a JSON pointer
	value any    // that it gets; nil: it goes

	request string // a regular expression
	status  int
	body    string // that the answer contains
	answer  func(*exchange)

	// Of the finding that there must be.
	operation, pointer, message string
}

// contractLie puts a value (nil: nothing) at a place of the contract, which must be found at an operation and a pointer with a message.
func contractLie(name, place string, value any, operation, pointer, message string) lie {
	return lie{name: "contract: " + name, place: place, value: value, operation: operation, pointer: pointer, message: message}
}

// answerLie changes all answers to requests that match, with a status and a body that contains a text.
func answerLie(name, request string, status int, body string, answer func(*exchange), operation, pointer, message string) lie {
	return lie{name: "answer: " + name, request: request, status: status, body: body, answer: answer, operation: operation, pointer: pointer, message: message}
}

// found tells whether a finding is about this lie.
func (l lie) found(f Finding) bool {
	return f.Operation == l.operation && strings.HasPrefix(f.Pointer, l.pointer) && strings.Contains(f.Message, l.message)
}

// tell changes the tape and reports whether anything on it was changed.
func (l lie) tell(t *tape) bool {
	request := regexp.MustCompile("^" + l.request)
	told := false
	for i := range t.Exchanges {
		if x := &t.Exchanges[i]; request.MatchString(x.Request) && x.Status == l.status && strings.Contains(x.Body, l.body) {
			l.answer(x)
			told = true
		}
	}
	return told
}

// put changes what a JSON pointer leads to; false: its parent is not there.
func put(node any, path []string, value any) bool {
	name := strings.NewReplacer("~1", "/", "~0", "~").Replace(path[0])
	switch node := node.(type) {
	case []any:
		i, err := strconv.Atoi(name)
		return err == nil && i < len(node) && len(path) > 1 && put(node[i], path[1:], value)
	case map[string]any:
		if len(path) > 1 {
			return put(node[name], path[1:], value)
		}
		if node[name] = value; value == nil {
			delete(node, name)
		}
		return true
	}
	return false
}

func swap(before, after string) func(*exchange) {
	return func(x *exchange) { x.Body = strings.ReplaceAll(x.Body, before, after) }
}

func setHeader(name, value string) func(*exchange) {
	return func(x *exchange) {
		if x.Header[name] = value; value == "" {
			delete(x.Header, name)
		}
	}
}

const (
	toOrders   = `POST /v1/orders$`
	anOrder    = `GET /v1/orders/ord_[0-9a-f]{32}`
	toPayments = `POST /v1/orders/ord_[0-9a-f]{32}/payments$`
	toRefunds  = `POST /v1/payments/pay_[0-9a-f]{32}/refunds$`
)

var (
	aText   = map[string]any{"type": "string"}
	letters = map[string]any{"required": true, "schema": map[string]any{"type": "string", "pattern": "^[a-z]+$"}}
)

var lies = []lie{
	contractLie("a status less", "/paths/~1v1~1orders/post/responses/202", nil, "placeOrder", "/status", "202 is not declared"),
	contractLie("a required property has another name", "/components/schemas/Saga/required", []any{"order_id", "status"},
		"getOrderSaga", "/body", "status"),
	contractLie("a property less", "/components/schemas/Inventory/properties/as_of", nil, "getInventory", "/body/as_of", "not in the contract"),
	contractLie("a header has another schema", "/paths/~1v1~1products~1{sku}/get/responses/200/headers/Age", letters, "getProduct", "/header/Age", ""),
	contractLie("a 304 has a header more", "/paths/~1v1~1orders~1{order_id}/get/responses/304/headers/X-Never", letters,
		"getOrder", "/header/X-Never", "missing"),
	contractLie("a code less", "/paths/~1v1~1orders/post/x-error-codes", []any{"ORD_003"}, "placeOrder", "/body/code", "ORD_004"),
	contractLie("a code that the registry does not have", "/paths/~1v1~1orders~1{order_id}/get/x-error-codes", []any{"ZZZ_001"},
		"getOrder", "", "ZZZ_001"),
	contractLie("a problem has another code", "/components/schemas/ProblemCAT_001/allOf/1/properties/code/const", "CAT_999",
		"getProduct", "/body/code", ""),
	contractLie("a property has another type", "/components/schemas/Product/properties/active", aText, "listProducts", "/body/data/0/active", ""),
	contractLie("another media type", "/paths/~1openapi.yaml/get/responses/200/content", map[string]any{"text/plain": map[string]any{"schema": aText}},
		"getOpenAPIYAML", "/header/Content-Type", ""),
	contractLie("requests need more", "/components/schemas/PlaceOrder/required", []any{"coupon_code"}, "placeOrder", "/request", "was served"),
	contractLie("requests may be worse", "/components/schemas/PlaceOrderLine/properties/quantity/minimum", nil,
		"placeOrder", "/request", "was refused"),
	contractLie("an operation has another name", "/paths/~1v1~1orders~1{order_id}~1saga/get/operationId", "getSaga",
		"getOrderSaga", "", "no such operation"),
	contractLie("another version", "/info/version", "0.0.0", "getOpenAPIJSON", "/body/info/version", ""),
	answerLie("another status", toOrders, 202, "", func(x *exchange) { x.Status = 200 }, "placeOrder", "/status", "200 is not declared"),
	answerLie("a code with another status", "GET /v1/products/", 404, "CAT_001", func(x *exchange) { x.Status = 403 },
		"getProduct", "/status", "not that of CAT_001"),
	answerLie("a code of another operation", anOrder, 404, "", swap("ORD_001", "CAT_001"), "getOrder", "/body/code", "x-error-codes"),
	answerLie("a header less", anOrder+"$", 200, "", setHeader("X-Consistency-Token", ""), "getOrder", "/header/X-Consistency-Token", "missing"),
	answerLie("a property less", "GET /v1/inventory/", 200, "", swap(`"available"`, `"remaining"`), "getInventory", "/body", "available"),
	answerLie("a property more", anOrder+"$", 200, "", swap(`"customer_ref"`, `"shard":7,"customer_ref"`),
		"getOrder", "/body/shard", "not in the contract"),
	answerLie("a time without a zone", anOrder+"/events", 200, "", func(x *exchange) {
		x.Body = regexp.MustCompile(`("created_at":"[^"]+)Z"`).ReplaceAllString(x.Body, `$1"`)
	}, "listOrderEvents", "/body/data/0/created_at", ""),
	answerLie("another media type", "DELETE|PUT|PATCH", 405, "", setHeader("Content-Type", "application/json"), "", "/header/Content-Type", ""),
	answerLie("Allow names too little", "PATCH /v1/orders$", 405, "", setHeader("Allow", "GET"), "", "/header/Allow", "POST"),
	answerLie("a trace id of its own", "GET /v1/errors$", 200, "", setHeader("X-Trace-Id", "mine"), "listErrors", "/header/X-Trace-ID", ""),
	answerLie("the wrong language", "GET /v1/products/", 404, "", swap("商品不存在", "There is no such product"), "getProduct", "/body/message", ""),
	answerLie("a repetition that is not marked", toOrders, 202, "", setHeader("Idempotency-Replayed", ""),
		"placeOrder", "/header/Idempotency-Replayed", ""),
	answerLie("a repetition with other bytes", toOrders, 202, "", func(x *exchange) {
		if x.Header["Idempotency-Replayed"] != "" {
			x.Body = strings.Replace(x.Body, `"version":1`, `"version":2`, 1)
		}
	}, "placeOrder", "/body", "repetition"),
	answerLie("a 304 with another ETag", "GET /v1/products/", 304, "", setHeader("Etag", `"other"`), "getProduct", "/header/ETag", ""),
	answerLie("an ETag for any bytes", anOrder+"$", 200, "", setHeader("Etag", `"same"`), "getOrder", "/header/ETag", ""),
	answerLie("a declined order is confirmed", toOrders, 201, "PAY_007", swap(`"status":"rejected"`, `"status":"confirmed"`),
		"placeOrder", "/body/status", ""),
	answerLie("a refused request made an order", `GET /v1/orders\?customer_ref=ct-[^&]*-form$`, 200, `"data":[]`, swap(`"data":[]`, `"data":[{"id":"ord_1"}]`),
		"listOrders", "/body/data", "accepted was []"),
	answerLie("a race makes two orders", `GET /v1/orders\?customer_ref=ct-[^&]*-race$`, 200, "", swap(`"data":[`, `"data":[{"id":"ord_1"},`),
		"listOrders", "/body/data", "accepted was [ord_"),
	answerLie("a line has less of the discount", "POST /v1/quotes", 200, `"coupon_code":"WELCOME10"`, func(x *exchange) {
		x.Body = regexp.MustCompile(`"discount":\{"amount":[1-9]\d*`).ReplaceAllString(x.Body, `"discount":{"amount":1`)
	}, "quoteOrder", "/body/discount", ""),
	answerLie("a quote has no lines", "POST /v1/quotes", 200, "", func(x *exchange) {
		x.Body = regexp.MustCompile(`"lines":\[.*?\],"`).ReplaceAllString(x.Body, `"lines":[],"`)
	}, "quoteOrder", "/body", "breaks off the check"),
	answerLie("a coupon is not told", "POST /v1/(orders|quotes)", 200, `"coupon_code":"`, func(x *exchange) {
		x.Body = regexp.MustCompile(`"coupon_code":"[^"]*"`).ReplaceAllString(x.Body, `"coupon_code":null`)
	}, "quoteOrder", "/body", ""),
	answerLie("a level is not told", "PATCH /v1/products/", 200, `"low_stock_at":`, func(x *exchange) {
		x.Body = regexp.MustCompile(`"low_stock_at":\d+`).ReplaceAllString(x.Body, `"low_stock_at":null`)
	}, "updateProduct", "/body", ""),
	answerLie("there are no events", anOrder+"/events", 200, "", func(x *exchange) {
		x.Body = `{"data":[],"next_cursor":null}` + "\n"
	}, "listOrderEvents", "/body", ""),
	answerLie("shipping is not added", toOrders, 202, `"amount":490`, swap(`"amount":490`, `"amount":0`), "placeOrder", "/body/shipping", ""),
	answerLie("a reference is that of another order", toOrders, 409, "ORD_011", func(x *exchange) {
		x.Body = regexp.MustCompile(`ord_[0-9a-f]{32}`).ReplaceAllString(x.Body, "ord_0198f3c2a4b57d3e8c1f2a3b4c5d6e7f")
	}, "placeOrder", "/body/order_id", "has the reference"),
	answerLie("a quote makes an order", `GET /v1/orders\?customer_ref=ct-[^&]*-quote$`, 200, `"data":[]`, swap(`"data":[]`, `"data":[{"id":"ord_1"}]`),
		"listOrders", "/body/data", "accepted was []"),
	answerLie("a second card is the first attempt", toPayments, 202, `"attempt":2`, swap(`"attempt":2`, `"attempt":1`), "payOrder", "/body", "is attempt 1"),
	answerLie("a payment is captured at another version", toPayments, 201, "", swap(`"status":"captured"`, `"status":"authorized"`),
		"payOrder", "/body", "not the payment as captured"),
	answerLie("a declined card without its code", toPayments, 422, "PAY_007", func(x *exchange) { x.Status = 402 }, "payOrder", "/status", "402 is not declared"),
	answerLie("an outcome that was not waited for", toPayments, 422, "PAY_007", setHeader("Preference-Applied", ""),
		"payOrder", "/header/Preference-Applied", "not wait=10"),
	answerLie("a provider that never answers has declined", toPayments, 504, "PAY_003", func(x *exchange) {
		x.Status, x.Body = 502, strings.NewReplacer("PAY_003", "PAY_006", `"status":504`, `"status":502`).Replace(x.Body)
	}, "payOrder", "/body/code", "not PAY_003"),
	answerLie("more is given back than was asked for", toRefunds, 201, `"amount":{"amount":1,`, swap(`"amount":{"amount":1,`, `"amount":{"amount":2,`),
		"refundPayment", "/body", "not the refund of 1"),
	answerLie("more is refundable than is left", toRefunds, 422, "RFD_001", swap(`"refundable":{"amount":0`, `"refundable":{"amount":1`),
		"refundPayment", "/body/refundable", "0 are left"),
	answerLie("the order is not told of a refund", anOrder+"$", 200, "partially_refunded", swap("partially_refunded", "paid"),
		"getOrder", "/body/payment_status", "not \"partially_refunded\""),
	answerLie("a gap between events", anOrder+"/events", 200, "", swap(`"sequence":2`, `"sequence":9`),
		"listOrderEvents", "/body/data", "in place 2"),
	answerLie("a stream without the comment that comes at once", anOrder+"/stream", 200, ":\n\n", swap(":\n\n", ""), "streamOrder", "/body", "does not begin with a comment"),
	answerLie("a saga that never ends", anOrder+"/saga", 200, "", swap(`"state":"done"`, `"state":"running"`), "placeOrder", "", "the saga as done"),
	answerLie("a product is written and not read", `GET /v1/products/ct-[^?]*$`, 200, `"version":2`, swap(`"version":2`, `"version":1`),
		"getProduct", "/body", "is not what the last change answered"),
	answerLie("a stale change is made", `PATCH /v1/products/ct-[^?]*$`, 412, "REQ_010", func(x *exchange) { x.Status = 200 },
		"updateProduct", "/body/code", "REQ_010"),
	answerLie("a change of nothing counts", `PATCH /v1/products/ct-[^?]*$`, 200, `"version":1`, swap(`"version":1`, `"version":2`),
		"updateProduct", "/body", "changes nothing"),
	answerLie("an adjustment moves nothing", `GET /v1/inventory/ct-[^?]*$`, 200, `"on_hand":12`, swap(`"on_hand":12`, `"on_hand":0`),
		"getInventory", "/body", "should be 12"),
	answerLie("a refused adjustment moves the stock", `GET /v1/inventory/ct-[^?]*$`, 200, `"on_hand":5`, swap(`"on_hand":5`, `"on_hand":4`),
		"getInventory", "/body", "should be 5"),
	answerLie("a filter that filters nothing", `GET /v1/orders\?customer_ref=[^&]*&status=pending`, 200, "", swap(`"data":[]`, `"data":[{"id":"x","status":"rejected"}]`),
		"listOrders", "/body/data", "status=pending"),
}
