package contracttest

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// ProveItFails shows that the suite would notice. It runs against the address once, which must pass, and then holds the answers
// that it got against contracts with one lie each, and answers with one lie each against the contract: for each lie there must be
// a finding at its operation and place. It places as many orders as one run.
func ProveItFails(t *testing.T, o Options) {
	t.Helper()
	o.judged = &verdicts{}
	honest, findings, err := record(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		t.Errorf("without any lie: %v", f)
	}
	prove(t, honest, o)
}

// record runs the whole suite and keeps what was answered.
func record(ctx context.Context, o Options) (*tape, []Finding, error) {
	recorder := &tape{next: http.DefaultTransport}
	client := http.Client{Timeout: 30 * time.Second}
	if o.HTTP != nil {
		client = *o.HTTP
	}
	if client.Transport != nil {
		recorder.next = client.Transport
	}
	client.Transport = recorder
	o.HTTP = &client
	s, err := newSuite(o)
	if err != nil {
		return nil, nil, err
	}
	recorder.Ref = s.ref
	for _, p := range parts {
		s.run(ctx, p)
	}
	return recorder, s.findings, nil
}

// play runs the suite against a tape, part by part until enough is found.
func (t *tape) play(ctx context.Context, o Options, enough func(Finding) bool) ([]Finding, error) {
	server := httptest.NewServer(t)
	defer server.Close()
	s, err := newSuite(Options{
		BaseURL: server.URL, Key: "og_test_of_the_tape_alone", Contract: o.Contract, Patience: o.Patience,
		ref: t.Ref, judged: o.judged, parsed: o.parsed,
	})
	if err != nil {
		return nil, err
	}
	for _, p := range parts {
		if slices.ContainsFunc(s.run(ctx, p), enough) {
			break
		}
	}
	return s.findings, nil
}

// prove plays a tape once for each lie.
func prove(t *testing.T, honest *tape, o Options) {
	t.Helper()
	if o.Contract == nil {
		o.Contract = bundled()
	}
	parsed, err := readContract(o.Contract)
	if err != nil {
		t.Fatal(err)
	}
	o.parsed = parsed
	for _, l := range lies {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			o, told := o, honest.copy()
			o.Patience = l.patience
			if l.place != "" {
				document := clone(parsed.document)
				if !put(document, strings.Split(l.place, "/")[1:], l.value) {
					t.Fatal("the contract has no place for this lie any more")
				}
				o.Contract, _ = json.Marshal(document) // it was read from JSON
				o.parsed = nil
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

	patience time.Duration // where something is polled that never comes

	// What must be found.
	operation, pointer, message string
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
	toOrders = `POST /v1/orders$`
	anOrder  = `GET /v1/orders/ord_[0-9a-f]{32}`
)

var (
	text    = map[string]any{"type": "string"}
	letters = map[string]any{"required": true, "schema": map[string]any{"type": "string", "pattern": "^[a-z]+$"}}
)

var lies = []lie{
	{
		name: "contract: a status less", place: "/paths/~1v1~1orders/post/responses/202",
		operation: "placeOrder", pointer: "/status", message: "202 is not declared",
	},
	{
		name: "contract: a required property has another name", place: "/components/schemas/Saga/required", value: []any{"order_id", "status"},
		operation: "getOrderSaga", pointer: "/body", message: "status",
	},
	{
		name: "contract: a property less", place: "/components/schemas/Inventory/properties/as_of",
		operation: "getInventory", pointer: "/body/as_of", message: "not in the contract",
	},
	{
		name: "contract: a header has another schema", place: "/paths/~1v1~1products~1{sku}/get/responses/200/headers/Age", value: letters,
		operation: "getProduct", pointer: "/header/Age",
	},
	{
		name: "contract: a 304 has a header more", place: "/paths/~1v1~1orders~1{order_id}/get/responses/304/headers/X-Never", value: letters,
		operation: "getOrder", pointer: "/header/X-Never", message: "missing",
	},
	{
		name: "contract: a code less", place: "/paths/~1v1~1orders/post/x-error-codes", value: []any{"ORD_003"},
		operation: "placeOrder", pointer: "/body/code", message: "ORD_004",
	},
	{
		name: "contract: a code that the registry does not have", place: "/paths/~1v1~1orders~1{order_id}/get/x-error-codes", value: []any{"ZZZ_001"},
		operation: "getOrder", message: "ZZZ_001",
	},
	{
		name: "contract: a problem has another code", place: "/components/schemas/ProblemCAT_001/allOf/1/properties/code/const", value: "CAT_999",
		operation: "getProduct", pointer: "/body/code",
	},
	{
		name: "contract: a property has another type", place: "/components/schemas/Product/properties/active", value: text,
		operation: "listProducts", pointer: "/body/data/0/active",
	},
	{
		name: "contract: another media type", place: "/paths/~1openapi.yaml/get/responses/200/content", value: map[string]any{"text/plain": map[string]any{"schema": text}},
		operation: "getOpenAPIYAML", pointer: "/header/Content-Type",
	},
	{
		name: "contract: requests need more", place: "/components/schemas/PlaceOrder/required", value: []any{"coupon_code"},
		operation: "placeOrder", pointer: "/request", message: "was served",
	},
	{
		name: "contract: requests may be worse", place: "/components/schemas/PlaceOrderLine/properties/quantity/minimum",
		operation: "placeOrder", pointer: "/request", message: "was refused",
	},
	{
		name: "contract: an operation has another name", place: "/paths/~1v1~1orders~1{order_id}~1saga/get/operationId", value: "getSaga",
		operation: "getOrderSaga", message: "no such operation",
	},
	{
		name: "contract: another version", place: "/info/version", value: "0.0.0",
		operation: "getOpenAPIJSON", pointer: "/body/info/version",
	},
	{
		name: "answer: another status", request: toOrders, status: 202, answer: func(x *exchange) { x.Status = 200 },
		operation: "placeOrder", pointer: "/status", message: "200 is not declared",
	},
	{
		name: "answer: a code with another status", request: "GET /v1/products/", status: 404, body: "CAT_001", answer: func(x *exchange) { x.Status = 403 },
		operation: "getProduct", pointer: "/status", message: "not that of CAT_001",
	},
	{
		name: "answer: a code of another operation", request: anOrder, status: 404, answer: swap("ORD_001", "CAT_001"),
		operation: "getOrder", pointer: "/body/code", message: "x-error-codes",
	},
	{
		name: "answer: a header less", request: anOrder + "$", status: 200, answer: setHeader("X-Consistency-Token", ""),
		operation: "getOrder", pointer: "/header/X-Consistency-Token", message: "missing",
	},
	{
		name: "answer: a property less", request: "GET /v1/inventory/", status: 200, answer: swap(`"available"`, `"remaining"`),
		operation: "getInventory", pointer: "/body", message: "available",
	},
	{
		name: "answer: a property more", request: anOrder + "$", status: 200, answer: swap(`"customer_ref"`, `"shard":7,"customer_ref"`),
		operation: "getOrder", pointer: "/body/shard", message: "not in the contract",
	},
	{
		name:    "answer: a time without a zone",
		request: anOrder + "/events", status: 200,
		answer: func(x *exchange) {
			x.Body = regexp.MustCompile(`("created_at":"[^"]+)Z"`).ReplaceAllString(x.Body, `$1"`)
		},
		operation: "listOrderEvents", pointer: "/body/data/0/created_at",
	},
	{
		name: "answer: another media type", request: "DELETE|PUT|PATCH", status: 405, answer: setHeader("Content-Type", "application/json"),
		pointer: "/header/Content-Type",
	},
	{
		name: "answer: Allow names too little", request: "PATCH /v1/orders$", status: 405, answer: setHeader("Allow", "GET"),
		pointer: "/header/Allow", message: "POST",
	},
	{
		name: "answer: a trace id of its own", request: "GET /v1/errors$", status: 200, answer: setHeader("X-Trace-Id", "mine"),
		operation: "listErrors", pointer: "/header/X-Trace-ID",
	},
	{
		name: "answer: the wrong language", request: "GET /v1/products/", status: 404, answer: swap("商品不存在", "There is no such product"),
		operation: "getProduct", pointer: "/body/message",
	},
	{
		name: "answer: a repetition that is not marked", request: toOrders, status: 202, answer: setHeader("Idempotency-Replayed", ""),
		operation: "placeOrder", pointer: "/header/Idempotency-Replayed",
	},
	{
		name:    "answer: a repetition with other bytes",
		request: toOrders, status: 202,
		answer: func(x *exchange) {
			if x.Header["Idempotency-Replayed"] != "" {
				x.Body = strings.Replace(x.Body, `"version":1`, `"version":2`, 1)
			}
		},
		operation: "placeOrder", pointer: "/body", message: "repetition",
	},
	{
		name: "answer: a 304 with another ETag", request: "GET /v1/products/", status: 304, answer: setHeader("Etag", `"other"`),
		operation: "getProduct", pointer: "/header/ETag",
	},
	{
		name: "answer: an ETag for any bytes", request: anOrder + "$", status: 200, answer: setHeader("Etag", `"same"`),
		operation: "getOrder", pointer: "/header/ETag",
	},
	{
		name:    "answer: a declined order is confirmed",
		request: toOrders, status: 201, body: "PAY_007", answer: swap(`"status":"rejected"`, `"status":"confirmed"`),
		operation: "placeOrder", pointer: "/body/status",
	},
	{
		name:    "answer: a refused request made an order",
		request: `GET /v1/orders\?customer_ref=ct-[^&]*-form$`, status: 200, body: `"data":[]`, answer: func(x *exchange) {
			x.Body = strings.Replace(x.Body, `[]`, `[{"id":"ord_0198f3c2a4b57d3e8c1f2a3b4c5d6e7f"}]`, 1)
		},
		operation: "listOrders", pointer: "/body/data", message: "every request for one was refused",
	},
	{
		name:    "answer: a race makes two orders",
		request: `GET /v1/orders\?customer_ref=ct-[^&]*-race$`, status: 200,
		answer: func(x *exchange) {
			x.Body = strings.Replace(x.Body, `"data":[`, `"data":[{"id":"ord_0198f3c2a4b57d3e8c1f2a3b4c5d6e7f"},`, 1)
		},
		operation: "listOrders", pointer: "/body/data", message: "not the one that was accepted",
	},
	{
		name: "answer: a gap between events", request: anOrder + "/events", status: 200, answer: swap(`"sequence":2`, `"sequence":9`),
		operation: "listOrderEvents", pointer: "/body/data", message: "in place 2",
	},
	{
		name:    "answer: a saga that never ends",
		request: anOrder + "/saga", status: 200, answer: swap(`"state":"done"`, `"state":"running"`),
		patience:  time.Second,
		operation: "placeOrder", message: "the saga as done",
	},
	{
		name:    "answer: a filter that filters nothing",
		request: `GET /v1/orders\?customer_ref=[^&]*&status=pending`, status: 200, answer: swap(`"data":[]`, `"data":[{"id":"x","status":"rejected"}]`),
		operation: "listOrders", pointer: "/body/data", message: "status=pending",
	},
}
