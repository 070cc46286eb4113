//go:build contract

package contracttest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// proxyLie is one change of what an address answers, on its way through a proxy. tell is made anew for each run, so that it may remember what
// passed; it changes an answer or leaves it. The named parts must notice: at least one finding matches, as pointer and message.
type proxyLie struct {
	name, parts, request, finding string
	tell                          func() func(*exchange)
}

// always changes all answers with a status, in the same way.
func always(status int, change func(*exchange)) func() func(*exchange) {
	return func() func(*exchange) {
		return func(x *exchange) {
			if x.Status == status {
				change(x)
			}
		}
	}
}

// replaced replaces what matches in the bodies of answers with a status.
func replaced(status int, pattern, with string) func() func(*exchange) {
	re := regexp.MustCompile(pattern)
	return always(status, func(x *exchange) { x.Body = re.ReplaceAllString(x.Body, with) })
}

// edited changes the list of an answer.
func edited(change func(data []any) []any) func(*exchange) {
	return func(x *exchange) {
		var o map[string]any
		d := json.NewDecoder(strings.NewReader(x.Body))
		d.UseNumber()
		data, isList := []any(nil), false
		if d.Decode(&o) == nil {
			data, isList = o["data"].([]any)
		}
		if isList && len(data) > 0 {
			o["data"] = change(data)
			x.Body = string(encode(o))
		}
	}
}

// entries changes each entry of a list.
func entries(change func(entry map[string]any)) func() func(*exchange) {
	return always(http.StatusOK, edited(func(data []any) []any {
		for _, entry := range data {
			if e, ok := entry.(map[string]any); ok {
				change(e)
			}
		}
		return data
	}))
}

// frozen answers each address as it did the first time.
func frozen() func(*exchange) {
	first := map[string]exchange{}
	return func(x *exchange) {
		if x.Status != http.StatusOK {
			return
		}
		if before, seen := first[x.Request]; seen {
			trace := x.Header["X-Trace-Id"]
			x.Body, x.Header = before.Body, maps.Clone(before.Header)
			x.Header["X-Trace-Id"] = trace
			return
		}
		first[x.Request] = *x
	}
}

// late answers each address as it should have the time before.
func late() func(*exchange) {
	last := map[string]exchange{}
	return func(x *exchange) {
		if x.Status != http.StatusOK {
			return
		}
		now := *x
		if before, seen := last[x.Request]; seen {
			x.Body = before.Body
			x.Header["Etag"] = before.Header["Etag"]
		}
		last[x.Request] = now
	}
}

// constantToken gives the first consistency token for ever.
func constantToken() func(*exchange) {
	token := ""
	return func(x *exchange) {
		if t := x.Header["X-Consistency-Token"]; t != "" {
			if token == "" {
				token = t
			}
			x.Header["X-Consistency-Token"] = token
		}
	}
}

// restlessETag gives another ETag for the same bytes.
func restlessETag() func(*exchange) {
	n := 0
	return func(x *exchange) {
		if n++; x.Status == http.StatusOK && x.Header["Etag"] != "" {
			x.Header["Etag"] = fmt.Sprintf(`"%d-restless"`, n)
		}
	}
}

// repeatedRow begins each page but the first with the last entry of the page before.
func repeatedRow() func(*exchange) {
	var last any
	return func(x *exchange) {
		if x.Status != http.StatusOK {
			return
		}
		edited(func(data []any) []any {
			before := last
			last = data[len(data)-1]
			if before != nil && strings.Contains(x.Request, "cursor=") {
				data[0] = before
			}
			return data
		})(x)
	}
}

// oneID gives all resources that are made the id of the first.
func oneID() func(*exchange) {
	first := ""
	return func(x *exchange) {
		id := regexp.MustCompile(`"id":"(ord_[0-9a-f]{32})"`).FindStringSubmatch(x.Body)
		if x.Status == http.StatusAccepted && id != nil {
			if first == "" {
				first = id[1]
			}
			x.Body = strings.ReplaceAll(x.Body, id[1], first)
			x.Header["Location"] = "/v1/orders/" + first
		}
	}
}

// limited makes all answers that tell of a limit tell of 1000 requests in a second, and then lies; n counts them.
func limited(lie func(x *exchange, n int)) func() func(*exchange) {
	return func() func(*exchange) {
		n := 0
		return func(x *exchange) {
			if x.Header["Ratelimit-Policy"] != "" {
				n++
				x.Header["Ratelimit-Policy"], x.Header["Ratelimit"] = `"default";q=1000;w=1`, `"default";r=999;t=1`
				lie(x, n)
			}
		}
	}
}

// editedSteps changes the list of a saga's steps.
func editedSteps(change func(steps []any)) func() func(*exchange) {
	return always(http.StatusOK, func(x *exchange) {
		var saga map[string]any
		d := json.NewDecoder(strings.NewReader(x.Body))
		d.UseNumber()
		if d.Decode(&saga) == nil {
			if steps, isList := saga["steps"].([]any); isList {
				change(steps)
				x.Body = string(encode(saga))
			}
		}
	})
}

// oldToken replaces what a pattern matches in a body by the first consistency token that was given.
func oldToken(pattern, with string) func() func(*exchange) {
	re := regexp.MustCompile(pattern)
	return func() func(*exchange) {
		token := ""
		return func(x *exchange) {
			if token == "" {
				token = x.Header["X-Consistency-Token"]
			}
			x.Body = re.ReplaceAllString(x.Body, strings.ReplaceAll(with, "TOKEN", token))
		}
	}
}

// oldHeader gives reads a token from before the run.
func oldHeader() func(*exchange) {
	return func(x *exchange) {
		if token := x.Header["X-Consistency-Token"]; token != "" && x.Status == http.StatusOK {
			x.Header["X-Consistency-Token"] = "0" + token[1:]
		}
	}
}

func everywhere(name, value string) func() func(*exchange) {
	return func() func(*exchange) { return setHeader(name, value) }
}

func on(status int, name, value string) func() func(*exchange) {
	return always(status, setHeader(name, value))
}

const oneOrder, ownProduct = `GET /v1/orders/ord_[0-9a-f]{32}$`, `GET /v1/products/ct-`

var proxyLies = []proxyLie{
	{"another status", "placing", toOrders, `^/status 200 is not declared`, always(202, func(x *exchange) { x.Status = 200 })},
	{"a code that the operation does not list", "reading", oneOrder, `^/body is none of the alternatives`, replaced(404, "ORD_001", "CAT_001")},
	{"a header less", "reading", oneOrder, `^/header/X-Served-By is missing`, on(200, "X-Served-By", "")},
	{"a header that is not declared", "reading", oneOrder, `^/header/Location is there, and the contract does not name it`, on(200, "Location", "/v1/orders")},
	{"a property less", "inventory", `GET /v1/inventory/`, `^/body missing property 'available'`, replaced(200, `"available":`, `"remaining":`)},
	{"a property more", "reading", oneOrder, `^/body/shard is not in the contract`, replaced(200, `"customer_ref"`, `"shard":7,"customer_ref"`)},
	{"another type", "reading", oneOrder, `^/body/version got string, want integer`, replaced(200, `"version":(\d+)`, `"version":"$1"`)},
	{"a value that no enumeration has", "reading", oneOrder, `^/body/payment_status value must be one of`, replaced(200, `"payment_status":"\w+"`, `"payment_status":"settled"`)},
	{"a time with five digits", "reading", oneOrder, `^/body/created_at .* is not a time in UTC with six digits`, replaced(200, `("created_at":"[^"]+\.\d{5})\dZ"`, `${1}Z"`)},
	{"another ETag for the same bytes", "reading", `GET /v1/orders/`, `^/header/ETag is .*restless.*, and the same bytes had`, restlessETag},
	{"one ETag for all bytes", "placing", oneOrder, `^/header/ETag (is .*same.*, and the same bytes had|.*stood for other bytes)`, on(200, "Etag", `"same"`)},
	{"a repetition that differs in a byte", "placing", toOrders, `^/body of a repetition differs`, func() func(*exchange) {
		return func(x *exchange) {
			if x.Header["Idempotency-Replayed"] != "" {
				x.Body = strings.Replace(x.Body, `"version":1`, `"version":2`, 1)
			}
		}
	}},
	{"a repetition that is not marked", "placing", toOrders, `^/header/Idempotency-Replayed is "" on a repetition`, on(202, "Idempotency-Replayed", "")},
	{"a first answer that is marked as repeated", "placing", toOrders, `^/header/Idempotency-Replayed is there, and the key was never sent`, on(202, "Idempotency-Replayed", "true")},
	{"a preference that was not asked for", "placing", toOrders, `^/header/Preference-Applied is "wait=10", and Prefer was ""`, on(202, "Preference-Applied", "wait=10")},
	{"a constant consistency token", "changing", ``, `^/header/X-Consistency-Token of a change is .*, not greater`, constantToken},
	{"a product frozen at its first answer", "changing", ownProduct, `^/body is version 1 of product .*, and 2 was seen before`, frozen},
	{"an order frozen at its first answer", "shipping", oneOrder, `^/body/fulfillment_status is "unfulfilled" of a confirmed order`, frozen},
	{"events without the last one", "events", `GET /v1/orders/ord_\w+/events`, `^/body/data has \d+ events of an order at version 5`, func() func(*exchange) {
		return func(x *exchange) {
			if x.Status == 200 {
				edited(func(data []any) []any { return data[:len(data)-1] })(x)
			}
		}
	}},
	{"the events frozen at their first answer", "events", `GET /v1/orders/ord_\w+/events`, `^/body/data has \d+ events of an order at version 5`, frozen},
	{"a read that is one answer late", "changing", ownProduct, `^/body is version \d of product .*, and \d was seen before`, late},
	{"stock that is one answer late", "adjusting", `GET /v1/inventory/ct-`, `^/body is 12 on hand, .* and should be 5`, late},
	{"a cursor that repeats a row", "products", `GET /v1/products\?`, `^/body/data page by page it begins with .* and not`, repeatedRow},
	{"a cursor that ends too early", "products", `GET /v1/products\?limit=2`, `^/body/data page by page it begins with .* and not`, replaced(200, `"next_cursor":"[^"]+"`, `"next_cursor":null`)},
	{"a list out of order", "products", `GET /v1/products\?`, `^/body/data/1/sku is .* after .*: the list is not in order`, always(200, edited(func(data []any) []any { slices.Reverse(data); return data }))},
	{"orders, the oldest first", "listing", `GET /v1/orders\?customer_ref`, `^/body/data is .* and not`, always(200, edited(func(data []any) []any { slices.Reverse(data); return data }))},
	{"an entry twice", "products", `GET /v1/products\?limit=5`, `^/body/data/4 .* stands in the page twice`, always(200, edited(func(data []any) []any { return append(data[:len(data)-1], data[0]) }))},
	{"a page above its limit", "products", `GET /v1/products\?limit=5`, `^/body/data has 6 entries, and the limit is 5`, always(200, edited(func(data []any) []any { return append(data, data[0]) }))},
	{"a filter that lets others in", "listing", `GET /v1/orders\?customer_ref`, `^/body/data/0/customer_ref is "somebody" and was`, entries(func(e map[string]any) { e["customer_ref"] = "somebody" })},
	{"an entry that is not what the order is", "listing", `GET /v1/orders\?`, `^/body/data/0/fulfillment_status of ord_.* is "shipped", and .* showed "unfulfilled"`, entries(func(e map[string]any) { e["fulfillment_status"] = "shipped" })},
	{"a wrong instance", "reading", oneOrder, `^/body/instance is "/v1/order/`, replaced(404, `"instance":"/v1/orders/`, `"instance":"/v1/order/`)},
	{"a type that leads nowhere", "products,links", `GET /v1/products/`, `^/status is not 200, and the type of a problem leads there`, replaced(404, `"type":"/docs/errors/`, `"type":"/docs/lost/`)},
	{"a refusal that may be repeated", "reading", oneOrder, `^/body/retryable is true and not false`, replaced(404, `"retryable":false`, `"retryable":true`)},
	{"the wrong language", "reading", oneOrder, `^/body/message is "There is no such order"`, replaced(404, `订单不存在`, `There is no such order`)},
	{"swapped amounts", "references", toOrders, `^/body/(shipping|tax)/amount is \d+, and \d+ was sent`, always(202, func(x *exchange) {
		x.Body = strings.NewReplacer(`"shipping":`, `"tax":`, `"tax":`, `"shipping":`).Replace(x.Body)
	})},
	{"a total of its own", "reading", oneOrder, `^/body/total is .* and not`, replaced(200, `"total":\{"amount":(\d+),"currency":"(\w+)"\},"updated_at"`, `"total":{"amount":${1}0,"currency":"$2"},"updated_at"`)},
	{"another quantity in a line", "reading", oneOrder, `^/body/lines/0/total is .*, and 3 pieces cost`, replaced(200, `"quantity":2`, `"quantity":3`)},
	{"another price in a quote", "quoting", `POST /v1/quotes`, `^/body/lines/0/total is .*, and 2 pieces cost`, replaced(200, `"unit_price":\{"amount":(\d+)`, `"unit_price":{"amount":${1}1`)},
	{"another name in a line, everywhere", "placing", `(GET|POST) /v1/orders`, `^/body/lines/0/name is "A lie", and the catalogue never called`, func() func(*exchange) {
		return func(x *exchange) {
			if x.Status < 300 {
				x.Body = regexp.MustCompile(`"name":"[^"]+","quantity"`).ReplaceAllString(x.Body, `"name":"A lie","quantity"`)
			}
		}
	}},
	{"another city, everywhere", "placing", ``, `^/body/shipping_address/city is "Homburg", and "Hamburg" was sent`, func() func(*exchange) {
		return func(x *exchange) { x.Body = strings.ReplaceAll(x.Body, "Hamburg", "Homburg") }
	}},
	{"another city when it is read", "reading", oneOrder, `^/body/shipping_address is .*Homburg`, replaced(200, "Hamburg", "Homburg")},
	{"metadata without a key", "reading", oneOrder, `^/body/metadata (of ord_.* showed|is .*, and version 1 had) .*"channel"`, replaced(200, `"channel":"contracttest",`, ``)},
	{"descriptions emptied, everywhere", "creating", `(GET|POST) /v1/products`, `^/body/description is "", and .* was sent`, func() func(*exchange) {
		return func(x *exchange) {
			x.Body = regexp.MustCompile(`"description":"(\\.|[^"\\])*"`).ReplaceAllString(x.Body, `"description":""`)
		}
	}},
	{"a change from before it was made", "reading", oneOrder, `^/body/updated_at is 2025-.* made in this run`, replaced(200, `"updated_at":"\d{4}`, `"updated_at":"2025`)},
	{"an answer that is a day old", "reading", oneOrder, `^/header/Age is 86400`, on(200, "Age", "86400")},
	{"reservations until 2099", "patching", `(GET|POST|PATCH) /v1/orders`, `^/body/reservation_expires_at is 2099-`, func() func(*exchange) {
		return func(x *exchange) {
			x.Body = regexp.MustCompile(`"reservation_expires_at":"\d{4}`).ReplaceAllString(x.Body, `"reservation_expires_at":"2099`)
		}
	}},
	{"stock as of 1999", "adjusting", `GET /v1/inventory/`, `^/body/as_of is 1999-`, replaced(200, `"as_of":"\d{4}`, `"as_of":"1999`)},
	{"stock as of an hour ago", "adjusting", `GET /v1/inventory/ct-`, `^/body/as_of is .* made in this run`, always(200, func(x *exchange) {
		x.Body = regexp.MustCompile(`"as_of":"[^"]+"`).ReplaceAllString(x.Body, `"as_of":"`+time.Now().Add(-time.Hour).UTC().Format("2006-01-02T15:04:05.000000Z")+`"`)
	})},
	{"steps of 1999", "saga", `GET /v1/orders/ord_\w+/saga`, `^/body/steps/0/started_at is 1999-`, replaced(200, `"started_at":"\d{4}`, `"started_at":"1999`)},
	{"a gap between events", "events", `GET /v1/orders/ord_\w+/events`, `^/body/data/2/sequence is 3 after 9`, replaced(200, `"sequence":2`, `"sequence":9`)},
	{"one id for all events", "events", `GET /v1/orders/ord_\w+/events`, `^/body/data/1.* of evt_0198f3c2a4b57d3e8c1f2a3b4c5d6e7f`, replaced(200, `evt_[0-9a-f]{32}`, `evt_0198f3c2a4b57d3e8c1f2a3b4c5d6e7f`)},
	{"events without data", "events", `GET /v1/orders/ord_\w+/events`, `^/body/data/0/data missing properties`, entries(func(e map[string]any) { e["data"] = map[string]any{} })},
	{"events of 1999", "events", `GET /v1/orders/ord_\w+/events`, `^/body/data/0/created_at is 1999-`, replaced(200, `"created_at":"\d{4}`, `"created_at":"1999`)},
	{"events of a microsecond later", "relations", `GET /v1/orders/ord_\w+/events`, `^/body/created_at of version 1 is .*, and the events give`, replaced(200, `("created_at":"[^"]+)\dZ"`, `${1}7Z"`)},
	{"an event that somebody else caused", "events", `GET /v1/orders/ord_\w+/events`, `^/body/data/0/cause/trace_id is "somebody"`, replaced(200, `"trace_id":"[^"]+"`, `"trace_id":"somebody"`)},
	{"an event of another type", "relations", `GET /v1/orders/ord_\w+/events`, `^/body/(status|reservation_expires_at) is .*, and the events give`, replaced(200, `"order.confirmed"`, `"order.completed"`)},
	{"a version that is the one before", "then", `GET /v1/orders/ord_\w+\?version=2`, `^/body/\w+ of ord_.* at version 1 is .*, and POST /v1/orders showed`, replaced(200, `"version":2`, `"version":1`)},
	{"a stream that leaves an event out", "stream", `GET /v1/orders/ord_\w+/stream`, `^/body after "" is "id: 2`, replaced(200, `id: 1\n(?:.+\n)+\n`, ``)},
	{"a payment of another amount", "relations", `GET /v1/orders/ord_\w+/payments`, `^/body/data/0/amount is .*, and the order .* costs`, replaced(200, `"amount":\{"amount":(\d+)`, `"amount":{"amount":${1}0`)},
	{"a payment of which something was given back", "relations", `GET /v1/(orders/ord_\w+/)?payments`, `^/body/data gave 0 back, and the payment says 1`, replaced(200, `"refunded":\{"amount":0`, `"refunded":{"amount":1`)},
	{"a payment that is not captured", "relations", `GET /v1/(orders/ord_\w+/)?payments`, `^/body/data do not go with an order whose payment_status is "paid"`, replaced(200, `"status":"captured"`, `"status":"voided"`)},
	{"one id for all orders", "placing,references", toOrders, `^/body/\w+ is .* and was .*, and it never changes`, oneID},
	{"a Location that leads elsewhere", "placing", toOrders, `^/header/Location is "/v1/orders/ord_0198f3c2a4b57d3e8c1f2a3b4c5d6e7f" and not`, on(202, "Location", "/v1/orders/ord_0198f3c2a4b57d3e8c1f2a3b4c5d6e7f")},
	{"HEAD with another ETag", "heads", `HEAD /v1/orders/`, `^/header/ETag of HEAD is .*head`, on(200, "Etag", `"head"`)},
	{"HEAD is not found", "heads", `HEAD /v1/products/`, `^/status of HEAD is not that of GET, 200`, always(200, func(x *exchange) { x.Status = 404 })},
	{"a 304 with a body", "heads", `GET /v1/`, `^/body a 304 has 15 bytes behind its headers`, always(304, func(x *exchange) { x.Body = `{"cached":true}` })},
	{"a 304 for any tag", "products", `GET /v1/products/`, `^/status is 304, and no If-None-Match was sent`, always(200, func(x *exchange) { x.Status, x.Body = 304, "" })},
	{"no Retry-After while a request is in progress", "faults", ``, `^/header/Retry-After is missing`, on(409, "Retry-After", "")},
	{"no Retry-After when a dependency is down", "faults", ``, `^/header/Retry-After is missing`, on(503, "Retry-After", "")},
	{"no Retry-After beyond the limit", "faults", ``, `^/header/Retry-After is missing`, on(429, "Retry-After", "")},
	{"a 401 without its challenge", "admission", ``, `^/header/WWW-Authenticate is missing`, on(401, "Www-Authenticate", "")},
	{"a fault at another place", "refused-requests", toOrders, `^/body/errors does not name /lines/0/quantity`, replaced(400, `"pointer":"/lines`, `"pointer":"/line`)},
	{"an unknown field is a broken schema", "refused-requests", toOrders, `^/body/(title|code) is (not REQ_004|"Unknown field")`, replaced(400, "REQ_004", "REQ_002")},
	{"a fault of a body at another place", "wrong-bodies,shipOrder", `POST /v1/orders/ord_\w+/shipments`, `^/body/errors do not all point to "/tracking`, replaced(400, `"pointer":"/tracking`, `"pointer":"/trackings`)},
	{"an adjustment that moves nothing", "adjusting", `POST /v1/inventory/`, `^/body is not the adjustment by 12`, replaced(201, `"on_hand":12`, `"on_hand":0`)},
	{"a trace id of its own", "reading", oneOrder, `^/header/X-Trace-ID is "mine" and not what was sent`, on(200, "X-Trace-Id", "mine")},
	{"a cache may keep it", "reading", oneOrder, `^/header/Cache-Control is "public, max-age=60"`, on(200, "Cache-Control", "public, max-age=60")},
	{"a limit that is not told every time", "reading", ``, `^/header/RateLimit-Policy is "", and it was`, limited(func(x *exchange, n int) {
		if n > 5 {
			delete(x.Header, "Ratelimit-Policy")
			delete(x.Header, "Ratelimit")
		}
	})},
	{"a limit that changes", "reading", ``, `^/header/RateLimit-Policy is .*q=999;w=1.*, and it was .*q=1000;w=1`, limited(func(x *exchange, n int) {
		if n > 5 {
			x.Header["Ratelimit-Policy"] = `"default";q=999;w=1`
		}
	})},
	{"more is left than the limit", "reading", ``, `^/header/RateLimit is .*r=1001;t=1.*, more than the limit`, limited(func(x *exchange, _ int) {
		x.Header["Ratelimit"] = `"default";r=1001;t=1`
	})},
	{"all is back in half a second", "reading", ``, `^/header/RateLimit is .*t=0.5.* does not tell what is left`, limited(func(x *exchange, _ int) {
		x.Header["Ratelimit"] = `"default";r=9;t=0.5`
	})},
	{"a limit of an operation that needs no key", "error-registry", `GET /v1/errors`, `^/header/RateLimit is there, and the operation counts for no key`, func() func(*exchange) {
		return func(x *exchange) {
			x.Header["Ratelimit-Policy"], x.Header["Ratelimit"] = `"default";q=1000;w=1`, `"default";r=999;t=1`
		}
	}},
	{"a key that lacks a scope is told another one", "other-keys", `POST /v1/quotes`, `^/body/required_scopes are \[orders:none\]`, replaced(403, `orders:\w+`, `orders:none`)},
	{"a code that an operation never answers", "faults", `POST /v1/quotes`, `^/body/code is not RATE_003, which the operation lists`, replaced(503, `RATE_003`, `SYS_002`)},
	{"a cookie", "products", ``, `^/header/Set-Cookie is there, and the contract has no cookies`, everywhere("Set-Cookie", "session=1; Path=/")},
	{"another charset", "reading", oneOrder, `^/header/Content-Type is .*iso-8859-1", and every text of the contract is in UTF-8`, on(200, "Content-Type", "application/json; charset=iso-8859-1")},
	{"another charset of a refusal", "reading", oneOrder, `^/header/Content-Type is .*utf-16", and every text of the contract is in UTF-8`, on(404, "Content-Type", "application/problem+json; charset=utf-16")},
	{"steps in reverse order", "saga", `GET /v1/orders/ord_\w+/saga`, `^/body/steps/0/name is "capture" in place 1`, editedSteps(slices.Reverse)},
	{"the last two steps swapped", "saga", `GET /v1/orders/ord_\w+/saga`, `^/body/steps/3/name is "confirm_stock" behind a step that comes later`, editedSteps(func(steps []any) {
		if len(steps) == 4 {
			steps[2], steps[3] = steps[3], steps[2]
		}
	})},
	{"two steps swapped", "saga", `GET /v1/orders/ord_\w+/saga`, `^/body/steps/1/attempt is 1 behind 0 authorizations`, editedSteps(func(steps []any) {
		if len(steps) > 2 {
			steps[1], steps[2] = steps[2], steps[1]
		}
	})},
	{"attempts that are seven more", "saga", `GET /v1/orders/ord_\w+/saga`, `^/body/steps/1/attempt is 8 of authorization 1`, replaced(200, `"attempt":1`, `"attempt":8`)},
	{"tries that are seven more", "saga", `GET /v1/orders/ord_\w+/saga`, `^/body/steps/\d/tries is 7 of a step that was first sent at <nil>`, replaced(200, `"tries":0`, `"tries":7`)},
	{"a saga without its payment", "relations", `GET /v1/orders/ord_\w+/saga`, `^/body/data has 1 payments, and the saga has sent 0 authorizations`, editedSteps(func(steps []any) {
		for _, s := range steps {
			if step, ok := s.(map[string]any); ok && step["name"] == "authorize" {
				step["started_at"], step["tries"] = nil, 0
			}
		}
	})},
	{"a step that failed in other words", "saga", `GET /v1/orders/ord_\w+/saga`, `^/body/steps/1/last_error/message is "Because"`, replaced(200, `"code":"PAY_007","message":"[^"]*"`, `"code":"PAY_007","message":"Because"`)},
	{"a payment that the account has not", "relations", `GET /v1/payments\?`, `^/body/data lacks pay_.* of the order`, always(200, edited(func(data []any) []any { return data[1:] }))},
	{"a payment that is another one to the account", "relations", `GET /v1/payments\?`, `^/body/data(/\d+/status of pay_.* is "voided"| shows pay_.*voided)`, replaced(200, `"status":"captured"`, `"status":"voided"`)},
	{"an hour to wait when a dependency is down", "faults", ``, `^/header/Retry-After is 3000, and no more than 60 are promised`, on(503, "Retry-After", "3000")},
	{"an hour to wait while a request is in progress", "faults", ``, `^/header/Retry-After is 3000, and no more than 60 are promised`, on(409, "Retry-After", "3000")},
	{"more to wait than the limit of a key needs", "faults", ``, `^/header/Retry-After is 50, and no more than 1 are promised`, on(429, "Retry-After", "50")},
	{"an answer of the primary that is a day old", "products", `GET /v1/products/`, `^/header/Age is 86400, and the primary was read just now`, always(200, func(x *exchange) {
		x.Header["X-Served-By"], x.Header["Age"] = "primary", "86400"
	})},
	{"a fault in other words", "refused-requests", toOrders, `^/body/errors/0/message is "is wrong", which does not say`, replaced(400, `("errors":\[\{"message":)"[^"]*"`, `$1"is wrong"`)},
	{"a fault of another rule", "refused-requests", toOrders, `^/body/errors/0/rule is "maxItems" at "/lines/0/quantity", and the request breaks \[minimum\]`, replaced(400, `must be at least 1(.*)"minimum"`, `takes at most 1 items$1"maxItems"`)},
	{"a fault of a parameter, of another rule", "wrong-parameters,listOrders", `GET /v1/orders\?`, `^/body/errors/0/rule is "maximum" at "/query/limit", and the request breaks \[type\]`, replaced(400, `must be of type integer([^}]*)"type"`, `must be at most integer$1"maximum"`)},
	{"JSON that is none, for another reason", "wrong-bodies,shipOrder", `POST /v1/orders/ord_\w+/shipments`, `^/body/errors do not say "oneDocument"`, replaced(400, `must be one JSON document(.*)"oneDocument"`, `is nested too deeply$1"depth"`)},
	{"a refusal of an order, of another rule", "refused-orders", toOrders, `^/body/errors/0/rule is "price", and CAT_005 is for \[exists\]`, replaced(422, `"rule":"exists"`, `"rule":"price"`)},
	{"another reason to decline a card", "rejected-orders,paying", `POST /v1/orders/ord_\w+/payments`, `^/body/decline_reason is "weather", and the same card was declined for`, replaced(422, `"decline_reason":"\w+"`, `"decline_reason":"weather"`)},
	{"another reason of an order that was declined", "events,relations", `GET /v1/orders/ord_\w+$`, `^/body/rejection`, replaced(200, `"decline_reason":"\w+"`, `"decline_reason":"weather"`)},
	{"a payment that failed in other words", "refunding", `GET /v1/payments/`, `^/body/failure/message is "Because"`, replaced(200, `"code":"PAY_007","decline_reason":"(\w+)","message":"[^"]*"`, `"code":"PAY_007","decline_reason":"$1","message":"Because"`)},
	{"a stream that begins without its comment", "stream", `GET /v1/orders/ord_\w+/stream`, `^/body after "" does not begin with a comment`, replaced(200, `\A:\n\n`, ``)},
	{"a stream with a token of old", "stream", ``, `^/body begins with the token .*, from before the order was placed`, oldToken(`event: token\ndata: \{"token":"[^"]+"\}`, "event: token\ndata: {\"token\":\"TOKEN\"}")},
	{"a stream of another order's events", "stream", `GET /v1/orders/ord_\w+/stream`, `^/body after "" is`, replaced(200, `"resource":"ord_[0-9a-f]{32}"`, `"resource":"ord_0198f3c2a4b57d3e8c1f2a3b4c5d6e7f"`)},
	{"events of another order, everywhere", "events", `GET /v1/orders/ord_\w+/(events|stream)`, `^/body/data(/0/order_id)? (is|has) .*ord_0198f3c2a4b57d3e8c1f2a3b4c5d6e7f`, replaced(200, `"resource":"ord_[0-9a-f]{32}"`, `"resource":"ord_0198f3c2a4b57d3e8c1f2a3b4c5d6e7f"`)},
	{"reads with a token of old", "reading", oneOrder, `^/header/X-Consistency-Token is .*, from before ord_.* was made`, oldHeader},
	{"shipments, the last one first", "shipping", `GET /v1/orders/ord_\w+/shipments\?limit=100`, `^/body/data on one page is`, always(200, edited(func(data []any) []any { slices.Reverse(data); return data }))},
	{"refunds, the first one first", "refunding", `GET /v1/refunds\?.*limit=100.*payment_id`, `^/body/data on one page is`, always(200, edited(func(data []any) []any { slices.Reverse(data); return data }))},
	{"a preflight that is refused", "cors", `OPTIONS /v1/quotes`, `^/status of a preflight is not 2xx`, always(204, func(x *exchange) { x.Status = 401 })},
	{"a preflight without the method", "cors", `OPTIONS /v1/orders`, `^/header/Access-Control-Allow-Methods is "GET" and lacks POST`, on(204, "Access-Control-Allow-Methods", "GET")},
	{"a preflight without a header", "cors", `OPTIONS /v1/orders`, `^/header/Access-Control-Allow-Headers is .* and lacks Idempotency-Key`, always(204, func(x *exchange) {
		x.Header["Access-Control-Allow-Headers"] = strings.Replace(x.Header["Access-Control-Allow-Headers"], "Idempotency-Key, ", "", 1)
	})},
	{"a preflight for a day", "cors", `OPTIONS /v1/orders`, `^/header/Access-Control-Max-Age is "86400"`, on(204, "Access-Control-Max-Age", "86400")},
	{"a preflight of another origin", "cors", `OPTIONS /v1/orders`, `^/header/Access-Control-Allow-Origin is .*other.example`, on(204, "Access-Control-Allow-Origin", "https://other.example")},
	{"an answer that no page sees", "cors", `GET /v1/products\?`, `^/header/Access-Control-Allow-Origin is \[\]`, on(200, "Access-Control-Allow-Origin", "")},
	{"a refusal that no page sees", "cors", `POST /v1/orders$`, `^/header/Access-Control-Allow-Origin is \[\]`, on(406, "Access-Control-Allow-Origin", "")},
	{"a header that no page can read", "cors", `GET /v1/products`, `^/header/Access-Control-Expose-Headers is .* and lacks X-Consistency-Token`, always(200, func(x *exchange) {
		x.Header["Access-Control-Expose-Headers"] = strings.Replace(x.Header["Access-Control-Expose-Headers"], "X-Consistency-Token, ", "", 1)
	})},
	{"cookies that are allowed", "cors", `GET /v1/products`, `^/header/Access-Control-Allow-Credentials is "true"`, on(200, "Access-Control-Allow-Credentials", "true")},
	{"an answer for all caches", "cors", `GET /v1/products`, `^/header/Vary is "" and lacks Origin`, on(200, "Vary", "")},
	{"an answer that varies by something else", "cors", `GET /v1/products`, `^/header/Vary is "Accept-Encoding" and lacks Origin`, on(200, "Vary", "Accept-Encoding")},
	{"an answer to nobody's page, for all caches", "cors", `GET /v1/products\?`, `^/header/Vary is "" and lacks Origin`, always(200, func(x *exchange) {
		if x.Header["Access-Control-Allow-Origin"] == "" {
			delete(x.Header, "Vary")
		}
	})},
	{"methods that are not there", "addresses", `PATCH /v1/`, `^/header/Allow names DELETE, and the contract has it not there`, always(405, func(x *exchange) {
		x.Header["Allow"] += ", DELETE"
		x.Body = regexp.MustCompile(`"allowed":\[`).ReplaceAllString(x.Body, `"allowed":["DELETE",`)
	})},
	{"a challenge that says nothing", "admission", ``, `^/header/WWW-Authenticate is "Bearer" of a 401`, on(401, "Www-Authenticate", "Bearer")},
	{"an operation that ends, it is said", "products", `GET /v1/products\?`, `^/header/Deprecation is there, and the contract does not name it`, on(200, "Deprecation", "@1796000000")},
	{"HEAD of another length", "heads", `HEAD /v1/products/`, `^/header/Content-Length of HEAD is 7, and`, on(200, "Content-Length", "7")},
	{"a product that no list has", "creating", `GET /v1/products\?`, `^/body/data page by page it is \[\] and not \[ct-`, always(200, edited(func(data []any) []any {
		return slices.DeleteFunc(data, func(e any) bool { p, _ := e.(map[string]any); return strings.HasPrefix(fmt.Sprint(p["sku"]), "ct-") })
	}))},
	{"a refusal that differs when it is repeated", "creating", `POST /v1/products`, `^/body of a repetition differs`, always(409, func(x *exchange) {
		if x.Header["Idempotency-Replayed"] != "" {
			x.Body = regexp.MustCompile(`"trace_id":"[^"]*"`).ReplaceAllString(x.Body, `"trace_id":"another"`)
		}
	})},
	{"an instant that shows the order of now", "then", `GET /v1/orders/ord_\w+\?as_of`, `^/body/updated_at is .*, after the instant that was asked for`, func() func(*exchange) {
		last := ""
		return func(x *exchange) {
			if x.Status == 200 && last == "" {
				last = x.Body
			}
			if x.Status == 200 {
				x.Body = last
			}
		}
	}},
	{"a 304 for a tag of nothing", "heads", `GET /v1/orders/ord_\w+$`, `^/(header/ETag|status) `, func() func(*exchange) {
		read := map[string]int{}
		return func(x *exchange) {
			if read[x.Request]++; x.Status == 200 && read[x.Request] > 2 {
				x.Status, x.Body = 304, ""
			}
		}
	}},
	{"a refusal by data without a token", "then", `GET /v1/orders/`, `^/header/X-Consistency-Token is missing, and ORD_010 is decided on data`, on(404, "X-Consistency-Token", "")},
	{"a cancellation for no reason, in the events", "cancelling,relations", `GET /v1/orders/ord_\w+/events`, `^/body/data/\d+/data/reason is "", and "ordered by mistake" was sent`, replaced(200, `"reason":"ordered by mistake"`, `"reason":""`)},
	{"a cancellation whose reason is null in the events", "cancelling,relations", `GET /v1/orders/ord_\w+/events`, `^/body/data/\d+/data/reason is null, and "ordered by mistake" was sent`, replaced(200, `"reason":"ordered by mistake"`, `"reason":null`)},
	{"an order for another customer, in its event alone", "events", `GET /v1/orders/ord_\w+/events`, `^/body/data/0/data/customer_ref is "somebody", and "ct-\w+" was sent`, replaced(200, `"customer_ref":"[^"]*"`, `"customer_ref":"somebody"`)},
	{"a shipment of more, in its event alone", "shipping", `GET /v1/orders/ord_\w+/events`, `^/body/data/\d+/data/lines is .*, and .* was sent`, replaced(200, `("type":"order.shipped".*?"quantity":)\d+`, `${1}7`)},
	{"a refund of more, in its event alone", "refunding,relations", `GET /v1/orders/ord_\w+/events`, `^/body/data/\d+/data/amount is .*, and .* was sent`, replaced(200, `("refund_id":"\w+","amount":\{"amount":)1,`, `${1}7,`)},
	{"an entry behind the last one", "listing", `GET /v1/orders\?.*limit=1`, `^/body/data page by page it is .* and not`, always(200, func(x *exchange) {
		x.Body = regexp.MustCompile(`\}\],"next_cursor":null`).ReplaceAllString(x.Body, `},{"id":"ord_0198f3c2a4b57d3e8c1f2a3b4c5d6e7f"}],"next_cursor":null`)
	})},
}
