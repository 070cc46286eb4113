package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

const registry = "errors.yaml"

var methods = []string{"get", "put", "post", "delete", "options", "head", "patch", "trace"}

const traceHeader = "headers.yaml#/TraceID"

// problemHeaders returns the headers of a problem. A refusal that is decided on stored data has a consistency token, and may be kept
// under a key.
func problemHeaders(status int, codes []string) *yaml.Node {
	headers := mapping("X-Trace-ID", traceHeader)
	switch status {
	case 401:
		set(headers, "WWW-Authenticate", registry+"#/headers/WWWAuthenticate")
	case 404, 409, 422:
		if !slices.Equal(codes, []string{"REQ_005"}) {
			set(headers, "Idempotency-Replayed", "headers.yaml#/IdempotencyReplayed")
			set(headers, "X-Consistency-Token", registry+"#/headers/ConsistencyTokenOfRefusal")
		}
	case 415:
		set(headers, "Accept-Encoding", registry+"#/headers/AcceptEncoding")
	}
	switch {
	case status == 429, status == 503, slices.Equal(codes, []string{"IDEM_003"}):
		set(headers, "Retry-After", registry+"#/headers/RetryAfter")
	case slices.Contains(codes, "IDEM_003"):
		set(headers, "Retry-After", registry+"#/headers/RetryAfterInProgress")
	}
	return headers
}

// common returns the codes that follow from an operation's kind. REQ_003 is among them everywhere: an unknown query parameter is
// refused.
func (b *bundler) common(method string, item, op *yaml.Node) []string {
	security := get(op, "security")
	if security == nil {
		security = get(b.files[root], "security")
	}
	closed := security != nil && len(security.Content) > 0
	var codes []string
	when := func(holds bool, more ...string) {
		if holds {
			codes = append(codes, more...)
		}
	}
	when(true, "REQ_003", "REQ_007", "RATE_001", "SYS_001", "SYS_005")
	when(closed, "AUTH_001", "AUTH_002", "AUTH_003", "AUTH_004", "AUTH_005", "RATE_003", "SYS_002")
	when(closed && method == "get", "SYS_004")
	when(get(op, "requestBody") != nil, "REQ_001", "REQ_002", "REQ_004", "REQ_008", "REQ_009")
	for _, p := range slices.Concat(children(get(item, "parameters")), children(get(op, "parameters"))) {
		if r := text(p, "$ref"); r != "" {
			p = b.comps["parameters"][r[strings.LastIndex(r, "/")+1:]].node
		}
		when(text(p, "in") == "header" && text(p, "name") == "Idempotency-Key", "IDEM_001", "IDEM_002", "IDEM_003", "IDEM_004", "SYS_003", "SYS_006")
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
func (b *bundler) expand(doc *yaml.Node) error {
	var faults []error
	used := map[string]bool{}
	for _, c := range children(get(doc, "x-error-codes")) {
		used[c.Value] = true
	}
	for path, item := range pairs(get(doc, "paths")) {
		for method, op := range pairs(item) {
			if !slices.Contains(methods, method) {
				continue
			}
			if err := b.operation(path, method, item, op); err != nil {
				faults = append(faults, fmt.Errorf("%s %s: %w", method, path, err))
			}
			for _, c := range children(get(op, "x-error-codes")) {
				used[c.Value] = true
			}
		}
	}
	for code, info := range pairs(get(b.files[registry], "codes")) {
		if reserved := text(info, "reserved") == "true"; reserved == (used[code] || get(info, "rejection") != nil) {
			faults = append(faults, fmt.Errorf("%s: %s: reserved is %v, and it is the other way round", registry, code, reserved))
		}
	}
	return errors.Join(faults...)
}

func (b *bundler) operation(path, method string, item, op *yaml.Node) error {
	codes := b.common(method, item, op)
	for _, c := range children(get(op, "x-error-codes")) {
		if slices.Contains(codes, c.Value) {
			return fmt.Errorf("x-error-codes: %s stands twice or is added by the bundler", c.Value)
		}
		codes = append(codes, c.Value)
	}
	slices.Sort(codes)
	byStatus := map[int][]string{}
	for _, code := range codes {
		status, err := strconv.Atoi(text(b.files[registry], "codes", code, "status"))
		if err != nil {
			return fmt.Errorf("x-error-codes: %s is not in %s", code, registry)
		}
		byStatus[status] = append(byStatus[status], code)
	}
	responses := get(op, "responses")
	for status, r := range pairs(responses) {
		if status >= "4" {
			return fmt.Errorf("response %s is written by hand", status)
		}
		if err := b.traced(path, r); err != nil {
			return err
		}
	}
	if responses == nil {
		return errors.New("has no answer but refusals")
	}
	for _, status := range slices.Sorted(maps.Keys(byStatus)) {
		address, err := b.refusal(status, byStatus[status])
		if err != nil {
			return err
		}
		set(responses, strconv.Itoa(status), ref(address))
	}
	if len(codes) > 0 {
		set(op, "x-error-codes", codes)
	}
	return nil
}

// traced gives a response under /v1 the header X-Trace-ID if it has none.
func (b *bundler) traced(path string, response *yaml.Node) error {
	if r := text(response, "$ref"); r != "" {
		response = b.comps["responses"][r[strings.LastIndex(r, "/")+1:]].node
	}
	if !strings.HasPrefix(path, "/v1/") || get(response, "headers", "X-Trace-ID") != nil {
		return nil
	}
	address, err := b.component(root, traceHeader)
	if err != nil {
		return err
	}
	if get(response, "headers") == nil {
		set(response, "headers", mapping())
	}
	set(get(response, "headers"), "X-Trace-ID", ref(address))
	return nil
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

// refusal returns the address of the response for a set of codes of one status; operations with the same set share it. Its schema is a
// named oneOf whose discriminator maps every code: other forms lose the types in one generator or another.
func (b *bundler) refusal(status int, codes []string) (string, error) {
	name := "Refusal" + setName(status, codes)
	address := "#/components/responses/" + name
	if b.comps["responses"][name].target == generated {
		return address, nil
	}
	var oneOf []*yaml.Node
	var titles []string
	examples, byCode := mapping(), mapping()
	for _, code := range codes {
		problem, err := b.problem(code)
		if err != nil {
			return "", err
		}
		info := get(b.files[registry], "codes", code)
		oneOf = append(oneOf, ref(problem))
		set(byCode, code, problem)
		titles = append(titles, "`"+code+"` "+text(info, "title"))
		set(examples, code, mapping("summary", text(info, "title"), "value", example(code, info)))
	}
	schema, description := oneOf[0], strings.Join(titles, "; ")
	if len(codes) > 1 {
		union := "Problem" + setName(status, codes)
		if err := b.add("schemas", union, generated, mapping("description", description, "oneOf", oneOf,
			"discriminator", mapping("propertyName", "code", "mapping", byCode))); err != nil {
			return "", err
		}
		schema = ref("#/components/schemas/" + union)
	}
	headers := problemHeaders(status, codes)
	for _, target := range pairs(headers) {
		address, err := b.component(root, target.Value)
		if err != nil {
			return "", err
		}
		*target = *ref(address)
	}
	content := mapping("application/problem+json", mapping("schema", schema, "examples", examples))
	return address, b.add("responses", name, generated,
		mapping("description", description, "headers", headers, "content", content))
}

// problem returns the address of a code's schema: the base and, all required, the code and its extras.
func (b *bundler) problem(code string) (string, error) {
	name := "Problem" + code
	address := "#/components/schemas/" + name
	if b.comps["schemas"][name].target == generated {
		return address, nil
	}
	base, err := b.component(root, registry+"#/schemas/Problem")
	if err != nil {
		return "", err
	}
	info := get(b.files[registry], "codes", code)
	required := []string{"code"}
	properties := mapping("code", mapping("type", "string", "const", code, "description", text(info, "title")+"."))
	for extra, schema := range pairs(get(info, "extras")) {
		if get(info, "example", extra) == nil {
			return "", fmt.Errorf("%s: %s has no example for %s", registry, code, extra)
		}
		required = append(required, extra)
		schema = copyOf(schema)
		if err := b.localise(registry, schema); err != nil {
			return "", err
		}
		set(properties, extra, schema)
	}
	own := mapping("type", "object", "required", required, "properties", properties)
	return address, b.add("schemas", name, generated, mapping("title", text(info, "title"),
		"description", text(info, "description"), "allOf", []*yaml.Node{ref(base), own}))
}

func example(code string, info *yaml.Node) *yaml.Node {
	status, _ := strconv.Atoi(text(info, "status"))
	message := text(info, "message", "en")
	n := mapping("type", "/v1/errors/"+code, "title", text(info, "title"), "status", status, "detail", text(info, "description"),
		"instance", "/v1/orders", "code", code, "message", message, "retryable", text(info, "retryable") == "true",
		"trace_id", "checkout-7c9e6679")
	for extra, value := range pairs(get(info, "example")) {
		set(n, extra, value)
	}
	return n
}
