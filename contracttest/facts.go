package contracttest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// facts are what the address has said in this run. Every later answer must agree with them: what was sent comes back, what has a
// version is the same wherever it is shown, nothing gets older, what is unique stays so, and every clock goes with the run's.
type facts struct {
	seq         int // counts the answers
	things      map[string]*thing
	keys        map[string]bool   // operationIds with the Idempotency-Keys that were sent
	traces      map[string]string // the operationId of each request, by its trace id
	names       map[string]bool   // sku, name and prices of products as the catalogue shows them
	skus        map[string]bool   // that the catalogue has shown
	etags       map[string]string // of a resource's bytes
	bodies      map[string][]byte // of an address and an ETag
	actor       string            // of the run's key, in events
	skew        time.Duration     // the address's clock minus ours
	synced      bool              // skew is known
	overlapping bool              // requests overlap: what the last change was is not known
	types       map[string]bool   // addresses of kinds of problems
	places      map[string]string // Locations, with the id that each has
}

// thing is a resource that was shown.
type thing struct {
	kind        string
	own         bool                // of this run
	fixed       map[string]any      // what never changes of it
	versions    map[string]shown    // by version
	newest      []newest            // how the greatest version grew
	patched     map[int64]patchable // by version
	overlapping bool
}

// shown is a resource at a version, in an answer.
type shown struct {
	value   map[string]any
	request string
}

type newest struct {
	seq     int
	version string
}

// patchable is what clients may change of an order.
type patchable struct{ metadata, address any }

func newFacts() facts {
	return facts{
		things: map[string]*thing{}, keys: map[string]bool{}, traces: map[string]string{}, names: map[string]bool{}, skus: map[string]bool{},
		etags: map[string]string{}, bodies: map[string][]byte{}, types: map[string]bool{}, places: map[string]string{},
	}
}

// sending notes a request and tells whether its Idempotency-Key was sent before.
func (f *facts) sending(r reply) bool {
	f.traces[r.sent.Header.Get("X-Trace-Id")] = r.call.op
	key := r.sent.Header.Get("Idempotency-Key")
	if key == "" {
		return false
	}
	key = r.call.op + " " + strings.Trim(key, `"`)
	before := f.keys[key]
	f.keys[key] = true
	return before
}

// kinds are the resources that an answer may show: how their ids begin, and what of them never changes.
var kinds = map[string][]string{
	"ord": {"currency", "customer_ref", "lines", "subtotal", "discount", "shipping", "tax", "total", "coupon_code", "reference", "created_at"},
	"pay": {"order_id", "attempt", "amount", "created_at"},
	"ref": {"payment_id", "order_id", "amount", "reason", "created_at"},
	"shp": {"order_id", "lines", "tracking", "created_at"},
	"evt": nil, "adj": nil, // nothing of them changes
	"product": {"created_at"}, "stock": nil,
}

// kindOf tells which resource an object is, and its name among all.
func kindOf(o map[string]any) (kind, name, version string) {
	id, _ := o["id"].(string)
	sku, _ := o["sku"].(string)
	number, _ := o["version"].(json.Number)
	before, _, found := strings.Cut(id, "_")
	switch _, known := kinds[before]; {
	case found && known && len(id) == len(before)+33 && len(o) > 4:
		return before, id, number.String()
	case sku != "" && o["prices"] != nil:
		return "product", "product " + sku, number.String()
	case sku != "" && o["as_of"] != nil:
		asOf, _ := o["as_of"].(string)
		return "stock", "stock " + sku, asOf
	}
	return "", "", ""
}

// newer compares versions: numbers or times.
func newer(a, b string) bool {
	x, errX := strconv.ParseInt(a, 10, 64)
	y, errY := strconv.ParseInt(b, 10, 64)
	if errX == nil && errY == nil {
		return x > y
	}
	return a > b
}

// each visits the objects of a body with their pointers, the outer ones first.
func each(v any, at string, visit func(o map[string]any, at string)) {
	switch v := v.(type) {
	case map[string]any:
		visit(v, at)
		for _, name := range sortedKeys(v) {
			each(v[name], at+"/"+name, visit)
		}
	case []any:
		for i := range v {
			each(v[i], at+"/"+strconv.Itoa(i), visit)
		}
	}
}

// wrongFact notes findings. It is a value of checkFacts.
type wrongFact func(is bool, pointer, format string, args ...any)

// checkFacts holds an answer against all that was said before, and keeps what it says.
func (s *suite) checkFacts(r reply) {
	type finding struct {
		pointer, text string
	}
	var found []finding
	wrong := func(is bool, pointer, format string, args ...any) {
		if is {
			found = append(found, finding{pointer, fmt.Sprintf(format, args...)})
		}
	}
	s.mu.Lock()
	f := &s.facts
	f.seq++
	f.clock(r, s.now())
	s.checkHeaders(r, wrong)
	var body any
	if media := r.header.Get("Content-Type"); r.op != nil && r.status < 300 && media == "application/json" && r.op.path != "/openapi.json" {
		d := json.NewDecoder(bytes.NewReader(r.body))
		d.UseNumber()
		if d.Decode(&body) == nil {
			s.checkBody(r, body, wrong)
		}
	}
	s.mu.Unlock()
	for _, one := range found {
		s.foundf(r, one.pointer, "%s", one.text)
	}
}

// clock learns how the address's clock differs from ours, from the first Date that it sends.
func (f *facts) clock(r reply, now time.Time) {
	if at, err := http.ParseTime(r.header.Get("Date")); err == nil && !f.synced {
		f.skew, f.synced = at.Sub(now), true
	}
}

// slack is by how much the address's clocks may differ from each other and from ours.
const slack = 10 * time.Second

// changes tells whether an answer says that something was changed just now.
func (r reply) changes() bool {
	return r.op != nil && r.op.method != http.MethodGet && r.status < 300 && r.op.at("x-read-only").node != true && r.header.Get("Idempotency-Replayed") == ""
}

// fresh tells whether a read must show all that was known when it was sent.
func (r reply) fresh() bool {
	return r.op != nil && r.op.method == http.MethodGet && r.sent.Header.Get("X-Consistency-Token") == r.token && r.token != "" &&
		!r.call.query.Has("version") && !r.call.query.Has("as_of")
}

func (s *suite) checkHeaders(r reply, wrong wrongFact) {
	s.checkLimit(r, wrong)
	f := &s.facts
	got := r.header.Get("X-Consistency-Token")
	wrong(r.changes() && got != "" && got <= r.token, "/header/X-Consistency-Token", "of a change is %q, not greater than the one that was known before, %q", got, r.token)
	wrong(r.header.Get("Idempotency-Replayed") != "" && !r.again, "/header/Idempotency-Replayed", "is there, and the key was never sent before")
	applied := r.header.Get("Preference-Applied")
	wrong(applied != "" && !strings.Contains(strings.ReplaceAll(r.sent.Header.Get("Prefer"), `"`, ""), applied), "/header/Preference-Applied", "is %q, and Prefer was %q", applied, r.sent.Header.Get("Prefer"))
	if r.status == http.StatusNotModified {
		tags := r.sent.Header.Get("If-None-Match")
		wrong(tags == "", "/status", "is 304, and no If-None-Match was sent")
		wrong(tags != "*" && !strings.Contains(tags, r.header.Get("ETag")), "/header/ETag", "%q is not among those of If-None-Match, %q", r.header.Get("ETag"), tags)
		_, seen := f.bodies[r.request+" "+r.header.Get("ETag")]
		wrong(!seen && len(f.bodies) < maxTags && strings.Contains(tags, r.header.Get("ETag")) && r.op != nil && tags != "*", "/header/ETag", "%q was never given with bytes of this address", r.header.Get("ETag"))
	}
	if r.header.Get("Location") != "" && r.status < 300 {
		var made struct{ ID, Sku string }
		decode(r, &made)
		f.places[r.header.Get("Location")] = cmp.Or(made.ID, made.Sku)
		wrong(strings.Contains(r.header.Get("Location"), "://"), "/header/Location", "is %q and not a path of this address", r.header.Get("Location"))
	}
	if r.problem.Type != "" {
		f.types[r.problem.Type] = true
	}
	busy := r.status == http.StatusTooManyRequests || r.status == http.StatusServiceUnavailable || r.problem.Code == "IDEM_003"
	seconds, err := strconv.Atoi(r.header.Get("Retry-After"))
	wrong(busy && (err != nil || seconds < 0 || seconds > 3600), "/header/Retry-After", "is %q and not a number of seconds", r.header.Get("Retry-After"))
	wrong(r.status == http.StatusUnauthorized && !strings.HasPrefix(r.header.Get("WWW-Authenticate"), "Bearer") && r.problem.Code != "AUTH_007",
		"/header/WWW-Authenticate", "is %q of a 401", r.header.Get("WWW-Authenticate"))
}

var (
	sixDigits = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$`)
	birth     = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC) // there was no Ordergate before
	// ahead are the times that lie in the future.
	ahead = map[string]bool{"reservation_expires_at": true, "expires_at": true, "next_try_at": true}
)

// maxHold is longer than any order is held for its payment, or a step of its saga waits.
const maxHold = 24 * time.Hour

func (s *suite) checkBody(r reply, body any, wrong wrongFact) {
	f := &s.facts
	s.checkTags(r, body, wrong)
	replayed := r.header.Get("Idempotency-Replayed") != ""
	each(body, "/body", func(o map[string]any, at string) {
		s.checkClocks(r, o, at, wrong)
		s.checkSums(o, at, wrong)
		kind, name, version := kindOf(o)
		if kind == "" {
			return
		}
		t := f.things[name]
		if t == nil {
			t = &thing{kind: kind, fixed: map[string]any{}, versions: map[string]shown{}, patched: map[int64]patchable{}}
			f.things[name] = t
		}
		t.own = t.own || s.isOwn(o)
		s.checkFixed(t, o, at, wrong)
		s.checkVersion(r, t, o, at, name, version, wrong)
		if at == "/body" || strings.HasPrefix(at, "/body/data/") {
			if r.fresh() && kind != "evt" {
				for _, n := range slices.Backward(t.newest) {
					if n.seq <= r.seq {
						wrong(newer(n.version, version), at, "is version %s of %s, and %s was seen before this was asked for", version, name, n.version)
						break
					}
				}
			}
			if !replayed && (len(t.newest) == 0 || newer(version, t.newest[len(t.newest)-1].version)) && !r.call.query.Has("as_of") {
				t.newest = append(t.newest, newest{f.seq, version})
			}
		}
		if kind == "product" {
			f.learnProduct(o)
		}
		if kind == "evt" {
			s.checkEvent(o, at, wrong)
		}
		if kind == "pay" {
			orderID, _ := o["order_id"].(string)
			if order := f.things[orderID]; order != nil {
				wrong(!reflect.DeepEqual(order.fixed["total"], o["amount"]), at+"/amount", "is %v, and the order %s costs %v", o["amount"], orderID, order.fixed["total"])
			}
		}
	})
	if s.isSaga(body) {
		s.checkSteps(body, wrong)
	}
	if r.changes() || r.op.at("x-read-only").node == true {
		s.checkEcho(r, body, wrong)
	}
	if r.op.method == http.MethodGet {
		s.checkList(r, body, wrong)
	}
}

// checkTags: equal bytes have equal ETags. The other way round is a convention of all answers.
func (s *suite) checkTags(r reply, body any, wrong wrongFact) {
	tag := r.header.Get("ETag")
	if tag == "" {
		return
	}
	address := r.request
	if o, ok := body.(map[string]any); ok {
		if kind, name, _ := kindOf(o); kind != "" && kind != "stock" {
			address = name
		}
	}
	key := address + " " + string(r.body)
	before, seen := s.facts.etags[key]
	wrong(seen && before != tag, "/header/ETag", "is %q, and the same bytes had %q", tag, before)
	if len(s.facts.etags) < maxTags {
		s.facts.etags[key] = tag
	}
}

// isOwn tells whether this run made a resource.
func (s *suite) isOwn(o map[string]any) bool {
	for _, name := range []string{"customer_ref", "sku"} {
		if text, _ := o[name].(string); strings.HasPrefix(text, s.ref) {
			return true
		}
	}
	for _, name := range []string{"order_id", "resource", "payment_id"} {
		if text, _ := o[name].(string); s.facts.things[text] != nil && s.facts.things[text].own || strings.HasPrefix(text, s.ref) {
			return true
		}
	}
	return false
}

// checkClocks: every time has six digits, none is older than the program, none of this run is older than the run or lies in the future.
func (s *suite) checkClocks(r reply, o map[string]any, at string, wrong wrongFact) {
	now := s.now().Add(s.facts.skew)
	_, name, _ := kindOf(o)
	own := s.isOwn(o) || s.facts.things[name] != nil && s.facts.things[name].own || r.op.path == "/v1/orders/{order_id}/saga" && s.facts.things[r.call.arg] != nil && s.facts.things[r.call.arg].own
	times := map[string]time.Time{}
	for name, value := range o {
		text, isText := value.(string)
		if !isText || !strings.HasSuffix(name, "_at") && name != "as_of" || strings.HasSuffix(at, "/metadata") {
			continue
		}
		wrong(!sixDigits.MatchString(text), at+"/"+name, "%q is not a time in UTC with six digits of seconds", text)
		t, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			continue
		}
		times[name] = t
		wrong(t.Before(birth), at+"/"+name, "is %s, before there was any Ordergate", text)
		if ahead[name] {
			wrong(t.After(now.Add(maxHold)), at+"/"+name, "is %s, more than %v from now", text, maxHold)
		} else {
			wrong(t.After(now.Add(slack)), at+"/"+name, "is %s, in the future: it is %s", text, now.UTC().Format(time.RFC3339))
		}
		wrong(own && t.Before(s.begin.Add(s.facts.skew-slack)), at+"/"+name, "is %s, and what it is about was made in this run, which began at %s", text, s.begin.UTC().Format(time.RFC3339))
	}
	for _, pair := range [][2]string{{"created_at", "updated_at"}, {"created_at", "delivered_at"}, {"started_at", "finished_at"}, {"created_at", "cancel_requested_at"}, {"created_at", "reservation_expires_at"}} {
		first, one := times[pair[0]]
		then, other := times[pair[1]]
		wrong(one && other && then.Before(first), at+"/"+pair[1], "is before %s", pair[0])
	}
	if age, err := strconv.ParseInt(r.header.Get("Age"), 10, 64); err == nil && at == "/body" && own && !times["updated_at"].IsZero() && r.fresh() {
		wrong(time.Duration(age)*time.Second > now.Sub(times["updated_at"])+slack, "/header/Age", "is %d, and what was read changed at %s", age, times["updated_at"].Format(time.RFC3339))
	}
}

// amount is the number of a money value.
func amount(v any) (n int64, currency string, ok bool) {
	o, _ := v.(map[string]any)
	number, isNumber := o["amount"].(json.Number)
	currency, _ = o["currency"].(string)
	n, err := strconv.ParseInt(number.String(), 10, 64)
	return n, currency, isNumber && err == nil
}

// checkSums: the lines give the subtotal, their discounts the discount, and all of it the total, in one currency.
func (s *suite) checkSums(o map[string]any, at string, wrong wrongFact) {
	total, currency, priced := amount(o["total"])
	lines, isList := o["lines"].([]any)
	if !priced || !isList {
		return
	}
	sums := map[string]int64{}
	for _, name := range []string{"subtotal", "discount", "shipping", "tax", "total"} {
		n, other, ok := amount(o[name])
		sums[name] = n
		wrong(!ok || other != currency, at+"/"+name, "is not an amount in %s", currency)
	}
	var costs, discounts int64
	customer, isOrder := o["customer_ref"].(string)
	ofRun := !isOrder || strings.HasPrefix(customer, s.ref) // an older order may have an older price
	for i, l := range lines {
		line, _ := l.(map[string]any)
		quantity, _ := line["quantity"].(json.Number)
		pieces, _ := quantity.Int64()
		each, lineCurrency, _ := amount(line["unit_price"])
		cost, _, hasTotal := amount(line["total"])
		discount, _, _ := amount(line["discount"])
		if !hasTotal { // an event's line
			cost = each * pieces
		}
		here := fmt.Sprintf("%s/lines/%d", at, i)
		wrong(cost != each*pieces || lineCurrency != currency, here+"/total", "is %d, and %d pieces cost %d", cost, pieces, each*pieces)
		wrong(discount < 0 || discount > cost, here+"/discount", "is %d of %d", discount, cost)
		costs, discounts = costs+cost, discounts+discount
		sku, _ := line["sku"].(string)
		name, _ := line["name"].(string)
		known := ofRun && s.facts.skus[sku]
		wrong(known && !s.facts.names[sku+"\n"+name], here+"/name", "is %q, and the catalogue never called %s so", name, sku)
		price := fmt.Sprint(sku, "\n", each, "\n", lineCurrency)
		wrong(known && !s.facts.names[price], here+"/unit_price", "is %d %s, and the catalogue never had %s at that", each, lineCurrency, sku)
	}
	wrong(sums["subtotal"] != costs, at+"/subtotal", "is %d, and the lines cost %d", sums["subtotal"], costs)
	wrong(sums["discount"] != discounts, at+"/discount", "is %d, and those of the lines are %d", sums["discount"], discounts)
	wrong(total != costs-discounts+sums["shipping"]+sums["tax"], at+"/total", "is %d and not %d - %d + %d + %d", total, costs, discounts, sums["shipping"], sums["tax"])
}

func (f *facts) learnProduct(o map[string]any) {
	sku, _ := o["sku"].(string)
	name, _ := o["name"].(string)
	f.skus[sku], f.names[sku+"\n"+name] = true, true
	prices, _ := o["prices"].([]any)
	for _, p := range prices {
		n, currency, _ := amount(p)
		f.names[fmt.Sprint(sku, "\n", n, "\n", currency)] = true
	}
}

// checkFixed: what never changes of a resource is the same in every answer.
func (s *suite) checkFixed(t *thing, o map[string]any, at string, wrong wrongFact) {
	for _, name := range kinds[t.kind] {
		value, there := o[name]
		before, known := t.fixed[name]
		if there && known {
			wrong(!reflect.DeepEqual(before, value), at+"/"+name, "is %s and was %s, and it never changes", short(string(encode(value))), short(string(encode(before))))
		} else if there {
			t.fixed[name] = value
		}
	}
}

// checkVersion: a resource at a version is the same in every answer. Of an order the address is that of now, whatever the version.
func (s *suite) checkVersion(r reply, t *thing, o map[string]any, at, name, version string, wrong wrongFact) {
	before, seen := t.versions[version]
	for _, property := range sortedKeys(o) {
		if property == "shipping_address" || !seen || t.kind == "pay" && (property == "refunded" || property == "updated_at") {
			continue // refunds are no versions of a payment
		}
		wrong(!reflect.DeepEqual(before.value[property], o[property]), at+"/"+property, "of %s at version %s is %s, and %s showed %s",
			name, version, short(string(encode(o[property]))), before.request, short(string(encode(before.value[property]))))
	}
	if !seen {
		t.versions[version] = shown{o, r.request}
	}
	number, err := strconv.ParseInt(version, 10, 64)
	if t.kind != "ord" || err != nil || t.overlapping || s.facts.overlapping {
		t.overlapping = t.overlapping || s.facts.overlapping
		return
	}
	if r.changes() && at == "/body" && (r.call.op == "placeOrder" || r.call.op == "updateOrder") {
		t.patched[number] = patchable{o["metadata"], o["shipping_address"]}
		return
	}
	for _, since := range slices.Backward(slices.Sorted(keys(t.patched))) {
		if since > number {
			continue
		}
		state := t.patched[since]
		wrong(!reflect.DeepEqual(state.metadata, o["metadata"]), at+"/metadata", "is %s, and version %d had %s", encode(o["metadata"]), since, encode(state.metadata))
		present := since == slices.Max(slices.Collect(keys(t.patched)))
		wrong(present && !reflect.DeepEqual(state.address, o["shipping_address"]), at+"/shipping_address",
			"is %s, and since version %d it was %s", encode(o["shipping_address"]), since, encode(state.address))
		break
	}
}

func keys[K comparable, V any](m map[K]V) func(yield func(K) bool) {
	return func(yield func(K) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// checkEvent: what a request of this run caused names the request, and its key.
func (s *suite) checkEvent(o map[string]any, at string, wrong wrongFact) {
	cause, _ := o["cause"].(map[string]any)
	trace, _ := cause["trace_id"].(string)
	operation, _ := cause["operation"].(string)
	actor, _ := cause["actor"].(string)
	wrong(strings.HasPrefix(trace, s.ref+"-") && s.facts.traces[trace] == "", at+"/cause/trace_id", "is %q, and no request of this run had it", trace)
	if s.contract.operations[operation] == nil {
		return
	}
	wrong(s.facts.traces[trace] != "" && s.facts.traces[trace] != operation, at+"/cause/operation", "is %s, and the request %s was %s", operation, trace, s.facts.traces[trace])
	resource, _ := o["resource"].(string)
	if s.facts.things[resource] == nil || !s.facts.things[resource].own {
		return
	}
	wrong(!strings.HasPrefix(trace, s.ref+"-"), at+"/cause/trace_id", "is %q, and the request was one of this run", trace)
	s.facts.actor = cmp.Or(s.facts.actor, actor)
	wrong(actor != s.facts.actor, at+"/cause/actor", "is %q, and all requests of this run had the key %q", actor, s.facts.actor)
}

// checkEcho: what was sent comes back under the same name. A list that was sent is in the answer's list, in any order.
func (s *suite) checkEcho(r reply, body any, wrong wrongFact) {
	var sent any
	d := json.NewDecoder(bytes.NewReader(r.content))
	d.UseNumber()
	if len(r.content) == 0 || d.Decode(&sent) != nil {
		return
	}
	var compare func(sent, got any, at string)
	compare = func(sent, got any, at string) {
		switch sent := sent.(type) {
		case map[string]any:
			object, isObject := got.(map[string]any)
			for _, name := range sortedKeys(sent) {
				value, there := object[name]
				switch {
				case !isObject:
					wrong(true, at, "is %s, and an object was sent", short(string(encode(got))))
					return
				case sent[name] == nil && r.op.method == http.MethodPatch: // it removes
					empty, _ := value.(map[string]any)
					wrong(value != nil && (empty == nil || len(empty) > 0), at+"/"+name, "is %s, and null was sent", short(string(encode(value))))
				case there:
					compare(sent[name], value, at+"/"+name)
				case sent[name] != nil && at == "/body/metadata":
					wrong(true, at+"/"+name, "is not there, and it was sent")
				}
			}
		case []any:
			list, _ := got.([]any)
			wrong(len(list) != len(sent), at, "has %d entries, and %d were sent", len(list), len(sent))
			for i := range sent {
				wrong(!slices.ContainsFunc(list, func(entry any) bool { return contains(entry, sent[i]) }), at+"/"+strconv.Itoa(i),
					"was sent as %s, and the answer has it nowhere", short(string(encode(sent[i]))))
			}
		case json.Number:
			a, errA := sent.Float64()
			n, _ := got.(json.Number)
			b, errB := n.Float64()
			wrong(errA != nil || errB != nil || a != b, at, "is %s, and %s was sent", encode(got), sent)
		default:
			wrong(!reflect.DeepEqual(sent, got), at, "is %s, and %s was sent", short(string(encode(got))), short(string(encode(sent))))
		}
	}
	compare(sent, body, "/body")
}

// contains tells whether a value has all that a smaller one has.
func contains(whole, part any) bool {
	switch part := part.(type) {
	case map[string]any:
		object, ok := whole.(map[string]any)
		for name, value := range part {
			if other, there := object[name]; there && !contains(other, value) {
				return false
			}
		}
		return ok
	case json.Number:
		a, _ := part.Float64()
		n, ok := whole.(json.Number)
		b, err := n.Float64()
		return ok && err == nil && a == b
	}
	return reflect.DeepEqual(whole, part)
}

// lists say how each list is sorted: by which property, up or down.
var lists = map[string]struct {
	by   string
	down bool
}{
	"listOrders": {"created_at", true}, "listPayments": {"created_at", true}, "listRefunds": {"created_at", true},
	"listOrderPayments": {"attempt", false}, "listOrderShipments": {"created_at", false}, "listOrderEvents": {"sequence", false}, "listProducts": {"sku", false},
	"listErrors": {"code", false},
}

// checkList: a page has no more than its limit, nothing twice, all of it in order and as it was asked for.
func (s *suite) checkList(r reply, body any, wrong wrongFact) {
	object, _ := body.(map[string]any)
	data, isList := object["data"].([]any)
	if !isList {
		return
	}
	if r.op.at("parameters").node != nil && slices.ContainsFunc(r.op.parameters, func(p place) bool { return p.text("name") == "limit" }) {
		limit, err := strconv.Atoi(cmp.Or(r.call.query.Get("limit"), "20"))
		wrong(err == nil && len(data) > limit, "/body/data", "has %d entries, and the limit is %d", len(data), limit)
		wrong(err == nil && len(data) == 0 && object["next_cursor"] != nil, "/body/next_cursor", "leads on from an empty page")
	}
	seen := map[string]bool{}
	var last any
	order, sorted := lists[r.call.op]
	for i, entry := range data {
		o, _ := entry.(map[string]any)
		at := "/body/data/" + strconv.Itoa(i)
		name := fmt.Sprint(o["id"], o["sku"], o["code"])
		wrong(seen[name], at, "is %s, which stands in the page twice", name)
		seen[name] = true
		if i > 0 && sorted {
			a, b := last, o[order.by]
			if order.down {
				a, b = b, a
			}
			wrong(less(b, a) && !near(a, b), at+"/"+order.by, "is %v after %v: the list is not in order", o[order.by], last)
		}
		last = o[order.by]
		for name, values := range r.call.query {
			value, there := o[name]
			wrong(there && name != "limit" && fmt.Sprint(value) != values[0], at+"/"+name, "is %v, and only %q was asked for", value, values[0])
		}
		made, _ := o["created_at"].(string)
		at1, err := time.Parse(time.RFC3339Nano, made)
		if from, e := time.Parse(time.RFC3339Nano, r.call.query.Get("created_from")); e == nil && err == nil {
			wrong(at1.Before(from), at+"/created_at", "is %s, and from %s was asked for", made, r.call.query.Get("created_from"))
		}
		if to, e := time.Parse(time.RFC3339Nano, r.call.query.Get("created_to")); e == nil && err == nil {
			wrong(!at1.Before(to), at+"/created_at", "is %s, and what was made before %s was asked for", made, r.call.query.Get("created_to"))
		}
		if strings.HasPrefix(r.op.path, "/v1/orders/{order_id}/") {
			about := cmp.Or(o["order_id"], o["resource"])
			wrong(about != r.call.arg, at+"/order_id", "is %v, and the list is of %s", about, r.call.arg)
		}
	}
}

// near tells whether two times are so near that what was begun first may have been kept last: lists go by the moment of the beginning.
func near(a, b any) bool {
	x, _ := a.(string)
	y, _ := b.(string)
	one, errX := time.Parse(time.RFC3339Nano, x)
	other, errY := time.Parse(time.RFC3339Nano, y)
	return errX == nil && errY == nil && one.Sub(other).Abs() < time.Second
}

// less compares numbers or texts of answers.
func less(a, b any) bool {
	x, xIs := a.(json.Number)
	y, yIs := b.(json.Number)
	if xIs && yIs {
		m, _ := x.Float64()
		n, _ := y.Float64()
		return m < n
	}
	s, _ := a.(string)
	t, _ := b.(string)
	return s < t
}

func (s *suite) isSaga(body any) bool {
	o, _ := body.(map[string]any)
	_, steps := o["steps"].([]any)
	return steps && o["order_id"] != nil
}

// checkSteps: a step that has ended stays as it ended, and the times of steps lie within those of their order.
func (s *suite) checkSteps(body any, wrong wrongFact) {
	o, _ := body.(map[string]any)
	orderID, _ := o["order_id"].(string)
	steps, _ := o["steps"].([]any)
	made := time.Time{}
	if order := s.facts.things[orderID]; order != nil {
		text, _ := order.fixed["created_at"].(string)
		made, _ = time.Parse(time.RFC3339Nano, text)
	}
	for i, v := range steps {
		step, _ := v.(map[string]any)
		at := "/body/steps/" + strconv.Itoa(i)
		for _, name := range []string{"started_at", "finished_at"} {
			text, _ := step[name].(string)
			t, err := time.Parse(time.RFC3339Nano, text)
			wrong(err == nil && t.Before(made), at+"/"+name, "is %s, before the order was placed", text)
		}
		ended := step["status"] == "done" || step["status"] == "failed" || step["status"] == "skipped"
		wrong(step["status"] == "done" && (step["started_at"] == nil || step["finished_at"] == nil), at, "is done, and has no times")
		if !ended || i == 0 && step["attempt"] == nil {
			continue
		}
		key := fmt.Sprint("step ", orderID, " ", step["name"], " ", step["attempt"])
		t := s.facts.things[key]
		if t == nil {
			s.facts.things[key] = &thing{kind: "step", fixed: step}
			continue
		}
		wrong(!reflect.DeepEqual(t.fixed, step), at, "is %s, and it had ended as %s", short(string(encode(step))), short(string(encode(t.fixed))))
	}
}
