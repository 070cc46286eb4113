package main

import (
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

const traceHeader = "headers.yaml#/TraceID"

// traits are what an operation adds to the headers of all its responses: those of a key's limit, those that say that it will go.
type traits struct{ limited, deprecated bool }

// suffix tells responses apart that have the same codes and other headers.
func (t traits) suffix() (s string) {
	if !t.limited {
		s = "_Keyless"
	}
	if t.deprecated {
		s += "_Deprecated"
	}
	return s
}

// addHeaders adds the headers of the traits to those of a response.
func (b *bundler) addHeaders(headers *yaml.Node, t traits, status string) {
	add := func(name, target string) { set(headers, name, ref(b.component(root, target))) }
	if t.limited && status != "401" { // before that no key is known
		add("RateLimit-Policy", "headers.yaml#/RateLimitPolicy")
		add("RateLimit", "headers.yaml#/RateLimit")
	}
	if t.deprecated {
		add("Deprecation", registry+"#/headers/Deprecation")
		add("Sunset", registry+"#/headers/Sunset")
	}
}

// awaited are the codes that end a payment. They are the answer to a request that waited for its outcome.
var awaited = []string{"INV_003", "PAY_003", "PAY_006", "PAY_007"}

// problemHeaders returns the headers of a problem. A refusal that is decided on stored data has a consistency token, and may be kept
// under a key, or waited for. A read that finds nothing names the tier that said so.
func problemHeaders(status int, codes []string) *yaml.Node {
	headers := mapping("X-Trace-ID", traceHeader)
	waited := slices.ContainsFunc(codes, func(code string) bool { return slices.Contains(awaited, code) })
	switch {
	case status == 401:
		set(headers, "WWW-Authenticate", registry+"#/headers/WWWAuthenticate")
	case waited, slices.Contains([]int{404, 409, 422}, status) && !slices.Equal(codes, []string{"REQ_005"}):
		set(headers, "Idempotency-Replayed", "headers.yaml#/IdempotencyReplayed")
		set(headers, "X-Consistency-Token", registry+"#/headers/ConsistencyTokenOfRefusal")
	case status == 412, status == 428, slices.Contains(codes, "PAY_008"), // it is decided on the order
		status == 400 && slices.Contains(codes, "REQ_004") && !slices.Contains(codes, "IDEM_001"): // what a patch makes of the resource is REQ_002, too
		set(headers, "X-Consistency-Token", registry+"#/headers/ConsistencyTokenOfRefusal")
	case status == 415:
		set(headers, "Accept-Encoding", registry+"#/headers/AcceptEncoding")
		set(headers, "Accept-Patch", registry+"#/headers/AcceptPatch")
	}
	if status == 404 && !slices.Equal(codes, []string{"REQ_005"}) {
		set(headers, "X-Served-By", registry+"#/headers/ServedByOfRefusal")
	}
	if waited {
		set(headers, "Preference-Applied", "headers.yaml#/PreferenceApplied")
	}
	switch {
	case status == 429, status == 503, slices.Equal(codes, []string{"IDEM_003"}):
		set(headers, "Retry-After", registry+"#/headers/RetryAfter")
	case slices.Contains(codes, "IDEM_003"):
		set(headers, "Retry-After", registry+"#/headers/RetryAfterInProgress")
	}
	return headers
}

// setName shortens a sorted set of codes: IDEM_003_INV_002, SYS_002_005.
func setName(status int, codes []string) string {
	name, last := strconv.Itoa(status), ""
	for _, code := range codes {
		family, number, _ := strings.Cut(code, "_")
		if family != last {
			name += "_" + family
		}
		name, last = name+"_"+number, family
	}
	return name
}

// refusal returns the address of the response for a set of codes of one status; operations with the same set and traits share it. Its schema is a
// named oneOf whose discriminator maps every code: other forms lose the types in one generator or another.
func (b *bundler) refusal(status int, codes []string, t traits) string {
	name := setName(status, codes)
	own := "Refusal" + name + t.suffix()
	address := "#/components/responses/" + own
	if b.comps["responses"][own].target == generated {
		return address
	}
	var oneOf []*yaml.Node
	var titles []string
	examples, byCode := mapping(), mapping()
	for _, code := range codes {
		problem, info := b.problem(code), get(b.file(registry), "codes", code)
		oneOf = append(oneOf, ref(problem))
		set(byCode, code, problem)
		titles = append(titles, "`"+code+"` "+text(info, "title"))
		set(examples, code, mapping("summary", text(info, "title"), "value", example(code, info)))
	}
	schema, description := oneOf[0], strings.Join(titles, "; ")
	if len(codes) > 1 {
		if b.comps["schemas"]["Problem"+name].target != generated {
			b.add("schemas", "Problem"+name, generated, mapping("description", description, "oneOf", oneOf,
				"discriminator", mapping("propertyName", "code", "mapping", byCode)))
		}
		schema = ref("#/components/schemas/Problem" + name)
	}
	headers := problemHeaders(status, codes)
	for _, target := range pairs(headers) {
		*target = *ref(b.component(root, target.Value))
	}
	b.addHeaders(headers, t, strconv.Itoa(status))
	content := mapping("application/problem+json", mapping("schema", schema, "examples", examples))
	b.add("responses", own, generated, mapping("description", description, "headers", headers, "content", content))
	return address
}

// problem returns the address of a code's schema: the base and, all required, the code and its extras.
func (b *bundler) problem(code string) string {
	name := "Problem" + code
	address := "#/components/schemas/" + name
	if b.comps["schemas"][name].target == generated {
		return address
	}
	base, info := b.component(root, registry+"#/schemas/Problem"), get(b.file(registry), "codes", code)
	required := []string{"code"}
	properties := mapping("code", mapping("type", "string", "const", code, "description", text(info, "title")+"."))
	for extra, schema := range pairs(get(info, "extras")) {
		if get(info, "example", extra) == nil {
			b.faultf("%s: %s has no example for %s", registry, code, extra)
		}
		required = append(required, extra)
		b.localise(registry, schema)
		set(properties, extra, schema)
	}
	own := mapping("type", "object", "required", required, "properties", properties)
	b.add("schemas", name, generated, mapping("title", text(info, "title"), "description", text(info, "description"),
		"allOf", []*yaml.Node{ref(base), own}))
	return address
}

// example is a problem of the code, with the texts of the registry.
func example(code string, info *yaml.Node) *yaml.Node {
	status, _ := strconv.Atoi(text(info, "status")) // operation has read it
	n := mapping("type", "/docs/errors/"+code, "title", text(info, "title"), "status", status, "detail", text(info, "description"),
		"instance", "/v1/orders", "code", code, "message", text(info, "message", "en"), "retryable", text(info, "retryable") == "true",
		"trace_id", "checkout-7c9e6679")
	for extra, value := range pairs(get(info, "example")) {
		set(n, extra, value)
	}
	return n
}
