package contracttest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"reflect"
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
	sent        map[string][]byte // the body of each request of which events tell, by its trace id
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
	plan        []string // the steps of a saga
	since       string   // the greatest token that was known when its making was asked for
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
		things: map[string]*thing{}, keys: map[string]bool{}, traces: map[string]string{}, sent: map[string][]byte{}, names: map[string]bool{}, skus: map[string]bool{},
		etags: map[string]string{}, bodies: map[string][]byte{}, types: map[string]bool{}, places: map[string]string{},
	}
}

// maxTold is how long a body may be that is kept for the events that tell of it.
const maxTold = 1 << 14

// sending notes a request and tells whether its Idempotency-Key was sent before.
func (f *facts) sending(r reply) bool {
	f.traces[r.sent.Header.Get("X-Trace-Id")] = r.call.op
	if tells(r.call.op) && len(r.content) < maxTold {
		f.sent[r.sent.Header.Get("X-Trace-Id")] = r.content
	}
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
	s.compareFacts(r, wrong)
	for _, one := range found {
		s.foundf(r, one.pointer, "%s", one.text)
	}
}

// compareFacts is what checkFacts does under the lock. A panic in it, of an answer that lacks what is looked for, frees the lock.
func (s *suite) compareFacts(r reply, wrong wrongFact) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.facts.seq++
	s.facts.clock(r, s.now())
	s.checkHeaders(r, wrong)
	var body any
	if media, _, _ := mime.ParseMediaType(r.header.Get("Content-Type")); r.op != nil && r.status < 300 && media == "application/json" && r.op.path != "/openapi.json" {
		d := json.NewDecoder(bytes.NewReader(r.body))
		d.UseNumber()
		if d.Decode(&body) == nil {
			s.checkBody(r, body, wrong)
		}
	}
}

// changes tells whether an answer says that something was changed just now.
func (r reply) changes() bool {
	return r.op != nil && r.op.method != http.MethodGet && r.status < 300 && r.op.at("x-read-only").node != true && r.header.Get("Idempotency-Replayed") == ""
}

// fresh tells whether a read must show all that was known when it was sent.
func (r reply) fresh() bool {
	return r.op != nil && r.op.method == http.MethodGet && r.sent.Header.Get("X-Consistency-Token") == r.token && r.token != "" &&
		!r.call.query.Has("version") && !r.call.query.Has("as_of")
}

func (s *suite) checkBody(r reply, body any, wrong wrongFact) {
	f := &s.facts
	s.checkTags(r, body, wrong)
	replayed := r.header.Get("Idempotency-Replayed") != ""
	each(body, "/body", func(o map[string]any, at string) {
		s.checkClocks(r, o, at, wrong)
		s.checkSums(o, at, wrong)
		s.checkReason(o, at, wrong)
		kind, name, version := kindOf(o)
		if kind == "" {
			return
		}
		t := f.things[name]
		if t == nil {
			t = &thing{kind: kind, fixed: map[string]any{}, versions: map[string]shown{}, patched: map[int64]patchable{}}
			f.things[name] = t
			if r.changes() {
				t.since = r.token
			}
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
		if at == "/body" && r.op.method == http.MethodGet {
			wrong(t.since != "" && r.header.Get("X-Consistency-Token") <= t.since, "/header/X-Consistency-Token", "is %q, from before %s was made: %q was known then", r.header.Get("X-Consistency-Token"), name, t.since)
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

// checkReason: why a step or a payment failed is told in the words of the registry.
func (s *suite) checkReason(o object, at string, wrong wrongFact) {
	if !strings.HasSuffix(at, "/last_error") && !strings.HasSuffix(at, "/failure") {
		return
	}
	e, known := s.registry[text(o, "code")]
	wrong(!known, at+"/code", "%q is not in the registry", text(o, "code"))
	wrong(known && text(o, "message") != e.Message.En, at+"/message", "is %q and not %q", text(o, "message"), e.Message.En)
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
