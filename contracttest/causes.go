package contracttest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strings"
)

// told are the properties of events that repeat what the request sent which caused them.
var told = map[string]struct {
	operation string
	names     []string
}{
	"order.created":          {"placeOrder", []string{"currency", "customer_ref", "reference", "coupon_code", "metadata", "shipping", "tax", "lines"}},
	"order.cancel_requested": {"cancelOrder", []string{"reason"}},
	"order.shipped":          {"shipOrder", []string{"lines"}},
	"order.refunded":         {"refundPayment", []string{"amount"}},
}

// tells is true if events repeat what is sent to an operation.
func tells(operation string) bool {
	for _, t := range told {
		if t.operation == operation {
			return true
		}
	}
	return false
}

// checkTold holds an event against the body of the request that caused it.
func (s *suite) checkTold(o object, trace, at string, wrong wrongFact) {
	t := told[text(o, "type")]
	content, known := s.facts.sent[trace]
	if !known || t.operation != s.facts.traces[trace] {
		return
	}
	var sent object
	d := json.NewDecoder(bytes.NewReader(content))
	d.UseNumber()
	if len(content) > 0 && d.Decode(&sent) != nil {
		return // it was refused
	}
	data, _ := o["data"].(object)
	for _, name := range t.names {
		value, given := sent[name]
		if got := data[name]; given && value != nil {
			wrong(!repeats(got, value), at+"/data/"+name, "is %s, and %s was sent", short(string(encode(got))), short(string(encode(value))))
		} else if optional := name == "reason" || name == "reference" || name == "coupon_code"; optional {
			wrong(got != nil, at+"/data/"+name, "is %s, and none was sent", short(string(encode(got))))
		}
	}
}

// repeats tells whether a value has what was sent: all entries of a list or of metadata and no others, and the same properties of objects.
func repeats(got, sent any) bool {
	switch sent := sent.(type) {
	case []any:
		list, _ := got.([]any)
		return len(list) == len(sent) && !slices.ContainsFunc(sent, func(one any) bool {
			return !slices.ContainsFunc(list, func(entry any) bool { return contains(entry, one) })
		})
	case object:
		o, isObject := got.(object)
		return isObject && len(o) == len(sent) && contains(got, sent)
	}
	return contains(got, sent)
}

// checkEvent: what a request of this run caused names the request, and its key.
func (s *suite) checkEvent(o map[string]any, at string, wrong wrongFact) {
	cause, _ := o["cause"].(map[string]any)
	trace, _ := cause["trace_id"].(string)
	operation, _ := cause["operation"].(string)
	actor, _ := cause["actor"].(string)
	wrong(strings.HasPrefix(trace, s.ref+"-") && s.facts.traces[trace] == "", at+"/cause/trace_id", "is %q, and no request of this run had it", trace)
	s.checkTold(o, trace, at, wrong) // also where the saga went on from the request
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
