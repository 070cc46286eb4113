package contracttest

import (
	"cmp"
	"strings"
)

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
