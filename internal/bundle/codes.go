package main

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

const registry = "errors.yaml"

var methods = []string{"get", "put", "post", "delete", "options", "head", "patch", "trace"}

// overLimit is the code of the operations whose requests count for the limit of an API key.
const overLimit = "RATE_001"

// deprecated tells whether an operation will go. It needs both dates then, and has none else.
func (b *bundler) deprecated(where string, op *yaml.Node) bool {
	deprecated := text(op, "deprecated") == "true"
	for _, name := range []string{"x-deprecated-since", "x-sunset"} {
		if _, err := time.Parse(time.DateOnly, text(op, name)); deprecated != (err == nil) || !deprecated && get(op, name) != nil {
			b.faultf("%s: %s is a date as 2027-12-31 where deprecated is true, and nowhere else", where, name)
		}
	}
	return deprecated
}

// codesOfKind returns the codes that follow from an operation's kind. REQ_003 is among them everywhere: an unknown query parameter is
// refused.
func (b *bundler) codesOfKind(method string, item, op *yaml.Node) []string {
	security := get(op, "security")
	if security == nil {
		security = get(b.file(root), "security")
	}
	closed := security != nil && len(security.Content) > 0
	signed := slices.ContainsFunc(children(security), func(s *yaml.Node) bool { return get(s, "signature") != nil })
	codes := []string{"REQ_003", "REQ_007", "SYS_001", "SYS_005"}
	when := func(holds bool, more ...string) {
		if holds {
			codes = append(codes, more...)
		}
	}
	when(closed && !signed, "AUTH_001", "AUTH_002", "AUTH_003", "AUTH_004", "AUTH_005", overLimit)
	when(closed, "RATE_003", "SYS_002")
	when(closed && method == "get", "SYS_004")
	when(closed && method != "get", "SYS_003")
	when(closed && method != "get" && text(op, "x-read-only") != "true", "SYS_006") // nothing is committed
	when(get(op, "requestBody") != nil, "REQ_001", "REQ_002", "REQ_008", "REQ_009")
	when(get(op, "requestBody") != nil && !signed, "REQ_004") // the body of another contract is open
	for _, p := range slices.Concat(children(get(item, "parameters")), children(get(op, "parameters"))) {
		if r := text(p, "$ref"); r != "" {
			p = b.comps["parameters"][r[strings.LastIndex(r, "/")+1:]].node
		}
		when(text(p, "in") == "header" && text(p, "name") == "Idempotency-Key",
			"IDEM_001", "IDEM_002", "IDEM_003", "IDEM_004")
	}
	return codes
}

func children(n *yaml.Node) []*yaml.Node {
	if n == nil {
		return nil
	}
	return n.Content
}

// expand completes x-error-codes of every operation and writes the responses that follow from them. It refuses a code that is unknown,
// stands twice or is added by itself, a response written by hand for a refusal, and a registry whose `reserved` is not exactly the codes
// that neither an operation, nor the router (the document's own x-error-codes), nor a rejected order has.
func (b *bundler) expand(doc *yaml.Node) {
	used := map[string]bool{}
	for _, c := range children(get(doc, "x-error-codes")) {
		used[c.Value] = true
	}
	for path, item := range pairs(get(doc, "paths")) {
		for method, op := range pairs(item) {
			if slices.Contains(methods, method) {
				b.operation(method+" "+path, b.codesOfKind(method, item, op), op)
				for _, c := range children(get(op, "x-error-codes")) {
					used[c.Value] = true
				}
			}
		}
	}
	for code, info := range pairs(get(b.file(registry), "codes")) {
		if reserved := text(info, "reserved") == "true"; reserved == (used[code] || get(info, "rejection") != nil) {
			b.faultf("%s: %s: reserved is %v, and it is the other way round", registry, code, reserved)
		}
	}
}

// operation adds the codes that an operation lists to those that it has by its kind, and a response for each of their statuses.
func (b *bundler) operation(where string, codes []string, op *yaml.Node) {
	for _, c := range children(get(op, "x-error-codes")) {
		if slices.Contains(codes, c.Value) {
			b.faultf("%s: x-error-codes: %s stands twice or is added by the bundler", where, c.Value)
		}
		codes = append(codes, c.Value)
	}
	slices.Sort(codes)
	byStatus := map[int][]string{}
	for _, code := range slices.Compact(codes) {
		status, err := strconv.Atoi(text(b.file(registry), "codes", code, "status"))
		if err != nil {
			b.faultf("%s: x-error-codes: %s is not in %s", where, code, registry)
			continue
		}
		byStatus[status] = append(byStatus[status], code)
	}
	responses := get(op, "responses")
	t := traits{limited: slices.Contains(codes, overLimit), deprecated: b.deprecated(where, op)}
	for status, response := range pairs(responses) {
		if status >= "4" {
			b.faultf("%s: response %s is written by hand", where, status)
		}
		if t.limited || t.deprecated {
			b.addHeaders(section(response, "headers"), t, status)
		}
	}
	if responses == nil {
		b.faultf("%s: has no answer but refusals", where)
		return
	}
	for _, status := range slices.Sorted(maps.Keys(byStatus)) {
		set(responses, strconv.Itoa(status), ref(b.refusal(status, byStatus[status], t)))
	}
	set(op, "x-error-codes", codes)
}
