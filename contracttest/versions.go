package contracttest

import (
	"maps"
	"reflect"
	"slices"
	"strconv"
	"time"
)

// newer compares versions: numbers or times.
func newer(a, b string) bool {
	x, errX := strconv.ParseInt(a, 10, 64)
	y, errY := strconv.ParseInt(b, 10, 64)
	if errX == nil && errY == nil {
		return x > y
	}
	return a > b
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
	if asked := r.call.query.Get("version"); at == "/body" && t.kind == "ord" && asked != "" {
		wrong(version != asked, at+"/version", "is %s, and %s was asked for", version, asked)
	}
	if asOf, err := time.Parse(time.RFC3339Nano, r.call.query.Get("as_of")); at == "/body" && err == nil {
		changed, err := time.Parse(time.RFC3339Nano, text(o, "updated_at"))
		wrong(err == nil && changed.After(asOf), at+"/updated_at", "is %s, after the instant that was asked for, %s", text(o, "updated_at"), r.call.query.Get("as_of"))
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
	for _, since := range slices.Backward(slices.Sorted(maps.Keys(t.patched))) {
		if since > number {
			continue
		}
		state := t.patched[since]
		wrong(!reflect.DeepEqual(state.metadata, o["metadata"]), at+"/metadata", "is %s, and version %d had %s", encode(o["metadata"]), since, encode(state.metadata))
		present := since == slices.Max(slices.Collect(maps.Keys(t.patched)))
		wrong(present && !reflect.DeepEqual(state.address, o["shipping_address"]), at+"/shipping_address",
			"is %s, and since version %d it was %s", encode(o["shipping_address"]), since, encode(state.address))
		break
	}
}
