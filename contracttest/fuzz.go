package contracttest

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/bodies"
)

const (
	flyingRequests = 8                // of the fuzzing at once
	slowest        = 15 * time.Second // may no request of the fuzzing be; the longest Prefer: wait is 10 s
	fuzzPatience   = 20               // times the suite's patience, and the fuzzing ends
)

// fuzz sends requests that are made of the contract, right and wrong ones. Each must be answered as the contract says, and none with a 5xx
// but for a want of capacity. Request n is a function of the seed, of n, and of what the run has made before. Orders of it carry a
// customer_ref of the run, and no product of it is ever active.
func (s *suite) fuzz(ctx context.Context) {
	if s.Requests <= 0 {
		s.skipf("no requests were asked for: --requests")
		return
	}
	f := &fuzzer{suite: s, ids: map[string][]string{}}
	for _, id := range s.operationIDs() {
		if op := s.contract.operations[id]; !op.signed && id != "streamOrder" {
			f.operations = append(f.operations, op)
		}
	}
	if len(f.operations) == 0 {
		s.skipf("none of the operations that were chosen can be asked by a client")
		return
	}
	f.collect(ctx)
	s.answered()
	s.facts.overlapping = true
	defer func() { s.facts.overlapping = false }()
	numbers := make(chan int)
	var workers sync.WaitGroup
	for range flyingRequests {
		workers.Go(func() {
			for n := range numbers {
				var last reply
				s.attempt(&last, func() { f.send(ctx, f.request(n), &last) })
			}
		})
	}
	begin, told, longest := time.Now(), time.Now(), fuzzPatience*s.Patience
	for n := range s.Requests {
		if ctx.Err() != nil {
			break
		}
		if time.Since(begin) > longest {
			s.skipf("it ended after %v (%d times --patience), with %d of %d requests", longest, fuzzPatience, n, s.Requests)
			break
		}
		numbers <- n
		if s.Progress != nil && time.Since(told) > 5*time.Second {
			told = time.Now()
			fmt.Fprintf(s.Progress, "  fuzzing: %d of %d requests, %.0f a second\n", n, s.Requests, float64(n)/time.Since(begin).Seconds())
		}
	}
	close(numbers)
	workers.Wait()
	if len(f.ids["own"]) > 0 {
		f.tidy(ctx)
	}
}

type fuzzer struct {
	*suite
	operations []*operation
	ids        map[string][]string // by the parameter that they are values of
	resumeAt   time.Time           // until when the address asks to wait; guarded by mu
}

// clientID is the form of ids that clients choose.
var clientID = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$`)

// collect finds what requests may name. It is sorted, so that a seed makes the same choices.
func (f *fuzzer) collect(ctx context.Context) {
	g, ok := f.find(ctx)
	if ok {
		f.ids["sku"] = append(f.ids["sku"], g.main.Sku)
		if g.side != nil {
			f.ids["sku"] = append(f.ids["sku"], g.side.Sku)
		}
	}
	if _, ok = f.own(ctx); ok {
		f.ids["sku"] = append(f.ids["sku"], f.ref)
		f.ids["own"] = []string{f.ref}
	}
	for name, id := range map[string]string{"order_id": "ord_", "payment_id": "pay_", "refund_id": "ref_", "shipment_id": "shp_"} {
		for _, thing := range sortedKeys(f.facts.things) {
			if strings.HasPrefix(thing, id) && f.facts.things[thing].own && len(f.ids[name]) < 20 {
				f.ids[name] = append(f.ids[name], thing)
			}
		}
	}
	f.ids["code"] = sortedKeys(f.registry)
}

// busy are the codes of 5xx that say nothing bad of the address: it has too much to do, a server lags, the payment provider fails.
var busy = []errcode.Code{errcode.RATE003, errcode.SYS004, errcode.PAY003, errcode.PAY006, errcode.PAY008}

// send sends one request until it is answered, and keeps its last answer. While the address asks to wait, nobody sends. The run ends if nothing is
// answered for the suite's patience.
func (f *fuzzer) send(ctx context.Context, c call, last *reply) {
	for ctx.Err() == nil {
		f.mu.Lock()
		wait := time.Until(f.resumeAt)
		f.mu.Unlock()
		if !pause(ctx, wait) {
			return
		}
		f.pace(ctx, c, 1)
		*last = f.prepare(ctx, c)
		if last.err == nil {
			last.exchange(f.HTTP, f.timeout(c))
		}
		f.judge(last)
		r := *last
		if r.err != nil {
			return
		}
		f.foundIf(r.took > slowest, r, "", "took %v", r.took.Round(time.Millisecond))
		f.foundIf(r.status >= 500 && !slices.Contains(busy, errcode.Code(r.problem.Code)), r, "/status", "is %d, and nothing was wrong with the address%s", r.status, why(r))
		wait, asked := r.retryAfter()
		f.mu.Lock()
		if !asked {
			f.coverage.Fuzzed++
		} else if f.resumeAt = time.Now().Add(wait); f.resumeAt.After(f.lastAnswer.Add(f.Patience)) {
			f.endf("the address answered %d again and again (%s)", r.status, r.problem.Code)
		}
		f.mu.Unlock()
		if !asked {
			return
		}
	}
}

// request makes the nth request.
func (f *fuzzer) request(n int) call {
	rng := rand.New(rand.NewPCG(f.Seed, uint64(n))) //nolint:gosec // it must be repeatable
	op := f.operations[rng.IntN(len(f.operations))]
	c := call{op: op.id, arg: f.arg(rng, op), query: url.Values{}, header: map[string]string{}}
	odd := func(one int) bool { return rng.IntN(one) == 0 } // one time of so many
	for _, p := range op.parameters {
		name, in := p.text("name"), p.text("in")
		if in == "path" || in == "header" && name != "If-None-Match" && name != "If-Match" && name != "Prefer" && name != "Accept-Language" && name != "Idempotency-Key" && odd(3) ||
			name == "X-Consistency-Token" || name == "X-Trace-ID" {
			continue
		}
		var value string
		switch {
		case name == "Idempotency-Key":
			c.idem = fmt.Sprintf("%s-fuzz-%d", f.ref, n)
			if odd(20) && n > 0 {
				c.idem = fmt.Sprintf("%s-fuzz-%d", f.ref, rng.IntN(n)) // one that may be used
			}
			if odd(40) {
				value, c.idem = pick(rng, candidates(p)), ""
			}
		case name == "If-Match":
			value = pick(rng, []string{"*", "*", `"1-0000000000000000"`, "", "nonsense"})
		case name == "Prefer":
			value = pick(rng, []string{"", "", "wait=0", "wait=1", "respond-async", "wait=rubbish", `handling=lenient, wait="1"`})
		case name == "Accept-Language":
			value = pick(rng, []string{"", "en", "zh-CN", "fr;q=0.5, zh;q=0.4", "*", ";;;"})
		case name == "If-None-Match":
			value = pick(rng, []string{"", "", "*", `"x"`, "rubbish", `W/"x", "y"`})
		case name == "cursor":
			if odd(4) {
				value = "made-up"
			}
		case odd(2):
			if value = pick(rng, append(candidates(p), f.example(p))); value == "" && odd(2) {
				continue
			}
		default:
			continue
		}
		if in == "query" && (value != "" || odd(3)) {
			c.query.Set(name, value)
		} else if in == "header" && value != "" && printable(value) {
			c.header[name] = value
		}
	}
	if odd(60) {
		c.query.Set("unknown", "x")
	}
	if odd(60) {
		c.header["Accept"] = pick(rng, []string{"image/png", "*/*;q=0", "application/json;q=0.1, */*;q=0", "text/html", "APPLICATION/JSON"})
	}
	if schema := f.bodies[op.id]; schema != nil {
		f.body(rng, op, schema, &c)
	}
	return c
}

// printable tells whether a client of HTTP sends a header's value.
func printable(value string) bool {
	return !strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) && strings.TrimSpace(value) == value
}

func pick[T any](rng *rand.Rand, of []T) T { return of[rng.IntN(len(of))] }

// arg is a value of a parameter in a path: one that is there, one that is made up, or rubbish.
func (f *fuzzer) arg(rng *rand.Rand, op *operation) string {
	param := op.pathParameter()
	if param == "" {
		return ""
	}
	known := f.ids[param]
	if param == "sku" && op.method != http.MethodGet {
		known = f.ids["own"] // nobody else's product is changed
	}
	switch n := rng.IntN(10); {
	case n < 7 && len(known) > 0:
		return pick(rng, known)
	case n < 9:
		return f.madeUp(param)
	}
	return pick(rng, []string{"x y", "%00", "🏮", ".hidden", strings.Repeat("x", 300), "..%2f..", "ord_1", "'--", "a/b", "\u202e"})
}

// example is a value of a parameter that the contract gives.
func (f *fuzzer) example(p place) string {
	if value := p.at("example").node; value != nil {
		if n, ok := value.(float64); ok {
			return strconv.FormatInt(int64(n), 10)
		}
		return fmt.Sprint(value)
	}
	return "x"
}

// body makes a body: a good one without some of what may be left out, on every third one fault, and at times something that is no JSON.
func (f *fuzzer) body(rng *rand.Rand, op *operation, schema *bodies.Schema, c *call) {
	good := f.goodBody(op)
	for _, spot := range schema.Spots() {
		if !spot.Required && len(spot.Path) > 0 && rng.IntN(2) == 0 {
			if _, there := bodies.At(good, spot.Path...); there {
				good = schema.With(good, spot.Path, bodies.Absent)
			}
		}
	}
	wrong := good
	if rng.IntN(3) == 0 {
		spot := pick(rng, schema.Spots())
		if _, there := bodies.At(good, spot.Path...); there || len(spot.Path) == 0 {
			if values := spot.WrongValues(schema.Sample(good)); len(values) > 0 {
				v := pick(rng, values)
				wrong = schema.With(good, append(slices.Clone(spot.Path), v.At...), v.Value)
			}
		}
	} else if rng.IntN(4) == 0 {
		wrong = schema.With(good, nil, mutated(rng, good))
	}
	wrong = f.withinRun(op, rng, wrong)
	text := []byte(bodies.Write(wrong))
	if rng.IntN(30) == 0 && len(text) > 2 {
		at := rng.IntN(len(text) - 1)
		text = slices.Concat(text[:at], []byte{byte(rng.IntN(256))}, text[at+1:])
		if !f.harmlessText(op, text) {
			return
		}
	}
	c.body = text
	if rng.IntN(40) == 0 {
		*c = c.with("Content-Type", pick(rng, []string{"text/plain", "application/json; charset=utf-16", "application/xml", "application/json; charset=utf-8"}))
	}
}

// withinRun keeps what a body makes within the run: no product that can be sold, no order of somebody else's customer, small amounts.
func (f *fuzzer) withinRun(op *operation, rng *rand.Rand, body any) any {
	o, isObject := body.(map[string]any)
	if !isObject {
		return body
	}
	set := func(name string, value any) {
		if _, there := o[name]; there {
			o[name] = value
		}
	}
	switch op.id {
	case "createProduct":
		if active, there := o["active"]; !there || active == true {
			o["active"] = false
		}
		if sku, isText := o["sku"].(string); isText && clientID.MatchString(sku) {
			o["sku"] = fmt.Sprintf("%s-%d", f.ref, rng.IntN(5))
		}
	case "updateProduct":
		if _, isBool := o["active"].(bool); isBool {
			o["active"] = false
		}
	case "adjustInventory":
		if n, isNumber := o["delta"].(json.Number); isNumber {
			if delta, err := n.Int64(); err == nil && delta > 0 && delta < 1<<50 {
				o["delta"] = json.Number("1")
			}
		}
	case "placeOrder":
		if ref, isText := o["customer_ref"].(string); isText && clientID.MatchString(ref) {
			o["customer_ref"] = f.ref + "-fuzz"
		}
		if reference, isText := o["reference"].(string); isText && clientID.MatchString(reference) {
			o["reference"] = fmt.Sprintf("%s-fuzz-%d", f.ref, rng.IntN(1_000_000))
		}
		delete(o, "coupon_code") // its uses may be limited
		if lines, isList := o["lines"].([]any); isList && len(lines) == 1 && rng.IntN(20) == 0 && f.goods != nil {
			if line, isLine := lines[0].(map[string]any); isLine && o["currency"] == f.goods.price.Currency {
				o["lines"] = []any{map[string]any{"sku": f.goods.main.Sku, "quantity": line["quantity"]}}
				if q, ok := line["quantity"].(json.Number); !ok || q.String() != "1" {
					o["lines"] = []any{map[string]any{"sku": f.goods.main.Sku, "quantity": 1}}
				}
				set("shipping", map[string]any{"amount": 1, "currency": o["currency"]})
				set("tax", map[string]any{"amount": 1, "currency": o["currency"]})
			}
		}
	}
	return o
}

// mutated is a body with one member renamed, doubled or replaced.
func mutated(rng *rand.Rand, body any) any {
	o, _ := jsonOf(body).(map[string]any)
	names := sortedKeys(o)
	if len(names) == 0 {
		return body
	}
	name := pick(rng, names)
	switch rng.IntN(4) {
	case 0:
		o[strings.ToUpper(name)] = o[name]
	case 1:
		o[name] = []any{o[name]}
	case 2:
		o[name] = map[string]any{name: o[name]}
	default:
		o[name] = pick(rng, []any{nil, true, "", "x", json.Number("0"), json.Number("-1"), json.Number("1.0"), json.Number("1e2"), []any{}, map[string]any{}, strings.Repeat("梅", 600)})
	}
	return o
}

// harmlessText tells whether a body whose bytes were changed still keeps within the run.
func (f *fuzzer) harmlessText(op *operation, text []byte) bool {
	var o map[string]any
	if json.Unmarshal(text, &o) != nil {
		return true // it is refused
	}
	ref, _ := o["customer_ref"].(string)
	sku, _ := o["sku"].(string)
	switch op.id {
	case "createProduct":
		return o["active"] == false && strings.HasPrefix(sku, f.ref)
	case "updateProduct":
		return o["active"] != true
	case "placeOrder":
		return strings.HasPrefix(ref, f.ref)
	}
	return true
}

// tidy takes out of the run's product what adjustments have put into it.
func (f *fuzzer) tidy(ctx context.Context) {
	var stock api.Inventory
	if _, ok := f.get(ctx, &stock, call{op: "getInventory", arg: f.ref}, http.StatusOK); ok && stock.OnHand > 0 {
		f.get(ctx, nil, call{op: "adjustInventory", arg: f.ref, idem: f.ref + "-tidy", body: map[string]any{"delta": -stock.OnHand, "reason": "tidy"}}, http.StatusCreated)
	}
}
