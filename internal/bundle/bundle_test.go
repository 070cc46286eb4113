package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// fixture copies testdata with the real registry, without what that needs of the real schemas, and edits one file.
func fixture(t *testing.T, file, old, replacement string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata")); err != nil {
		t.Fatal(err)
	}
	codes := read(t, "../../openapi/errors.yaml")
	codes = strings.NewReplacer("schemas/order.yaml#/ShortSKU", "#/schemas/Fault",
		"{sku: LAMP-0001, requested: 2, available: 1}", "{pointer: '', rule: r, message: m}").Replace(codes)
	write(t, filepath.Join(dir, registry), codes)
	live := regexp.MustCompile(`(?m)^  ([A-Z]+_\d{3}):\n    status`).FindAllStringSubmatch(codes, -1)
	names := make([]string, len(live))
	for i, found := range live {
		names[i] = found[1]
	}
	write(t, filepath.Join(dir, root), read(t, filepath.Join(dir, root))+"x-error-codes: ["+strings.Join(names, ", ")+"]\n")
	if file != "" {
		before := read(t, filepath.Join(dir, file))
		after := strings.Replace(before, old, replacement, 1)
		if after == before {
			t.Fatalf("%s does not contain %q", file, old)
		}
		write(t, filepath.Join(dir, file), after)
	}
	return dir
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestCodesAndStatusesFollowFromTheOperation(t *testing.T) {
	t.Parallel()
	doc, err := bundle(fixture(t, "", "", ""))
	if err != nil {
		t.Fatal(err)
	}
	auth := "AUTH_001 AUTH_002 AUTH_003 AUTH_004 AUTH_005 "
	for _, c := range []struct{ path, method, codes, statuses string }{
		{
			"/v1/things", "post",
			auth + "IDEM_001 IDEM_002 IDEM_003 IDEM_004 INV_002 RATE_001 RATE_003 REQ_001 REQ_002 REQ_003 REQ_004 REQ_007 REQ_008 REQ_009 " +
				"SYS_001 SYS_002 SYS_003 SYS_005 SYS_006", "201 400 401 403 406 409 413 415 422 429 500 503 504",
		},
		{"/v1/things", "get", auth + "RATE_001 RATE_003 REQ_003 REQ_007 SYS_001 SYS_002 SYS_004 SYS_005", "200 400 401 403 406 429 500 503"},
		{"/v1/weighed", "post", auth + "RATE_001 RATE_003 REQ_003 REQ_007 SYS_001 SYS_002 SYS_003 SYS_005", "200 400 401 403 406 429 500 503 504"},
		{"/v1/public", "get", "REQ_003 REQ_007 SYS_001 SYS_005", "200 400 406 500 503"},
		{
			"/callbacks", "post", "AUTH_007 RATE_003 REQ_001 REQ_002 REQ_003 REQ_007 REQ_008 REQ_009 SYS_001 SYS_002 SYS_003 SYS_005 SYS_006",
			"204 400 401 406 413 415 500 503 504",
		},
		{"/plain", "get", "REQ_003 REQ_007 SYS_001 SYS_005", "200 400 406 500 503"},
	} {
		op := get(doc, "paths", c.path, c.method)
		var codes, statuses []string
		for _, code := range children(get(op, "x-error-codes")) {
			codes = append(codes, code.Value)
		}
		for status := range pairs(get(op, "responses")) {
			statuses = append(statuses, status)
		}
		if got := strings.Join(codes, " "); got != c.codes {
			t.Errorf("%s %s: codes\n%s, want\n%s", c.method, c.path, got, c.codes)
		}
		if got := strings.Join(statuses, " "); got != c.statuses {
			t.Errorf("%s %s: statuses %s, want %s", c.method, c.path, got, c.statuses)
		}
	}
}

// TestAnswersTellOfAKeysLimit: all answers of an operation that needs a key have the headers, but 401; no others have.
func TestAnswersTellOfAKeysLimit(t *testing.T) {
	t.Parallel()
	doc, err := bundle(fixture(t, "", "", ""))
	if err != nil {
		t.Fatal(err)
	}
	for path, item := range pairs(get(doc, "paths")) {
		for method, op := range pairs(item) {
			keyed := slices.Contains([]string{"/v1/things", "/v1/weighed"}, path)
			for status, response := range pairs(get(op, "responses")) {
				if to := text(response, "$ref"); to != "" {
					response = get(doc, strings.Split(strings.TrimPrefix(to, "#/"), "/")...)
				}
				for _, name := range []string{"RateLimit", "RateLimit-Policy"} {
					if got := get(response, "headers", name) != nil; got != (keyed && status != "401") {
						t.Errorf("%s %s %s: %s: %v", method, path, status, name, got)
					}
				}
			}
		}
	}
}

func TestBundleIsOneDocumentThatKeepsEverything(t *testing.T) {
	t.Parallel()
	dir, out := fixture(t, "", "", ""), t.TempDir()
	if err := run(dir, out); err != nil {
		t.Fatal(err)
	}
	asJSON, asYAML, forCodegen := read(t, out+"/openapi.json"), read(t, out+"/openapi.yaml"), read(t, out+"/codegen.json")
	for _, want := range []string{
		`"$ref": "#/components/responses/Refusal409_IDEM_003_INV_002"`, `"Problem409_IDEM_003_INV_002": {`,
		`"Refusal503_RATE_003_SYS_002_005_006": {`, `"Retry-After": {`, `"WWW-Authenticate": {`, `"const": "INV_002"`,
		`"const": "thing"`, `"^x-": {`, `"thing.made": {`, `"default": "2026-01-01"`, `"x-extensible-enum": [`,
		`"propertyName": "code"`, `"IDEM_003": "#/components/schemas/ProblemIDEM_003"`, "Where it is.\\n\\n- `new`: Just made.\\n- `on`: Running.\"",
		"A key.\\n\\n- `things:write`: Make things.\"", "Makes a thing.\\n\\nNeeds the scope `things:write`.\"",
	} {
		if !strings.Contains(asJSON, want) {
			t.Errorf("openapi.json has no %s", want)
		}
	}
	for _, never := range []string{".yaml#", `"enum"`, "x-shared"} {
		if strings.Contains(asJSON, never) {
			t.Errorf("openapi.json has %s", never)
		}
	}
	added := regexp.MustCompile(`(?s),\s*"x-((produces|headers)": \[[^]]*\]|(canonical|lenient)": [^,\s]+)`)
	if closed := strings.ReplaceAll(asJSON, "x-extensible-enum", "enum"); added.ReplaceAllString(forCodegen, "") != closed {
		t.Error("codegen.json differs by more than the enums and what templates need")
	}
	var fromJSON, fromYAML any
	if err := yaml.Unmarshal([]byte(asJSON), &fromJSON); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(asYAML), &fromYAML); err != nil {
		t.Fatal(err)
	}
	a, _ := yaml.Marshal(fromJSON)
	b, _ := yaml.Marshal(fromYAML)
	if !slices.Equal(a, b) {
		t.Error("openapi.json and openapi.yaml differ")
	}
	again := t.TempDir()
	if err := run(dir, again); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"openapi.json", "openapi.yaml", "codegen.json", "bundle.gen.go"} {
		if read(t, filepath.Join(out, name)) != read(t, filepath.Join(again, name)) {
			t.Errorf("%s is not the same the second time", name)
		}
	}
}

// TestTheTableOfOperationsIsComplete: what clients may accept, and what the answers of a deprecated operation say, stand in codegen.json; the
// names of headers, and the codes that no operation has, beside the contract.
func TestTheTableOfOperationsIsComplete(t *testing.T) {
	t.Parallel()
	doc, err := bundle(fixture(t, "paths/things.yaml", "    operationId: makeThing",
		"    operationId: makeThing\n    deprecated: true\n    x-deprecated-since: 2027-01-01\n    x-sunset: 2027-12-31"))
	if err != nil {
		t.Fatal(err)
	}
	asGo, err := table(doc)
	if err != nil {
		t.Fatal(err)
	}
	if key := get(doc, "components", "parameters", "IdempotencyKey"); text(key, "x-canonical") != "Idempotency-Key" || text(key, "x-lenient") != "true" {
		t.Errorf("a key that is malformed would be REQ_003: %v", key)
	}
	for _, name := range []string{`"Idempotency-Key",`, `"X-Trace-ID",`, `"Sunset",`, `"REQ_005",`} {
		if !strings.Contains(string(asGo), name) {
			t.Errorf("bundle.gen.go does not name %s", name)
		}
	}
	for _, c := range []struct{ path, method, key, want string }{
		{"/v1/things", "post", "x-produces", "application/json application/problem+json"},
		{"/v1/things", "post", "x-headers", "Deprecation @1798761600 Sunset Fri, 31 Dec 2027 23:59:59 GMT"},
		{"/v1/things", "get", "x-headers", ""},
		{"/v1/public", "get", "x-produces", "application/problem+json"},
		{"/callbacks", "post", "x-produces", "application/json application/problem+json"}, // by habit: it is a 204
	} {
		var values []string
		for _, v := range children(get(doc, "paths", c.path, c.method, c.key)) {
			values = append(values, v.Value)
		}
		if got := strings.Join(values, " "); got != c.want {
			t.Errorf("%s %s: %s is %q", c.method, c.path, c.key, got)
		}
	}
}

// TestADeprecatedOperationSaysItsEnd: all its responses have the headers, and the others' responses stay without.
func TestADeprecatedOperationSaysItsEnd(t *testing.T) {
	t.Parallel()
	doc, err := bundle(fixture(t, "paths/things.yaml", "    operationId: makeThing",
		"    operationId: makeThing\n    deprecated: true\n    x-deprecated-since: 2026-01-01\n    x-sunset: 2026-12-31"))
	if err != nil {
		t.Fatal(err)
	}
	for method, deprecated := range map[string]bool{"post": true, "get": false} {
		for status, response := range pairs(get(doc, "paths", "/v1/things", method, "responses")) {
			if to := text(response, "$ref"); to != "" {
				response = get(doc, strings.Split(to, "/")[1:]...)
			}
			for _, name := range []string{"Deprecation", "Sunset"} {
				if is := get(response, "headers", name) != nil; is != deprecated {
					t.Errorf("%s %s: %s is there: %v", method, status, name, is)
				}
			}
		}
	}
}

func TestFaultsOfTheContractAreNamed(t *testing.T) {
	t.Parallel()
	things, root, thing, first := "paths/things.yaml", root, "schemas/thing.yaml", "guides/01-first-steps.md"
	for name, c := range map[string]struct{ file, old, replacement, want string }{
		"unknown code":                {things, "[INV_002]", "[INV_999]", "post /v1/things: x-error-codes: INV_999 is not in errors.yaml"},
		"code that comes by itself":   {things, "[INV_002]", "[SYS_001]", "SYS_001 stands twice or is added by the bundler"},
		"deprecated for ever":         {things, "    operationId: makeThing", "    operationId: makeThing\n    deprecated: true\n    x-deprecated-since: 2026-01-01", "post /v1/things: x-sunset is a date"},
		"a sunset of what stays":      {things, "    operationId: makeThing", "    operationId: makeThing\n    x-sunset: 2026-12-31", "post /v1/things: x-sunset is a date"},
		"a sunset that is no date":    {things, "    operationId: makeThing", "    operationId: makeThing\n    deprecated: true\n    x-deprecated-since: 2026-01-01\n    x-sunset: soon", "post /v1/things: x-sunset is a date"},
		"code twice":                  {things, "[INV_002]", "[INV_002, INV_002]", "INV_002 stands twice"},
		"refusal by hand":             {things, "{'201'", "{'409': {description: No.}, '201'", "response 409 is written by hand"},
		"collision of two files":      {"parameters.yaml", "{type: string}", "{$ref: 'schemas/b.yaml#/Thing'}", "schemas/Thing is both schemas/"},
		"collision with what we make": {thing, "State:", "ProblemINV_002: {type: string}\nState:", "schemas/ProblemINV_002 is both"},
		"address in two files":        {things, "Plain.", "Bare.", "paths/z.yaml: /plain stands in another file too"},
		"address in the root file":    {root, "paths: {}", "paths: {/plain: {}}", "paths/things.yaml: /plain stands in another file too"},
		"address without a slash":     {things, "/plain:", "plain:", "kin-openapi rejects"},
		"unused component":            {thing, "State:", "Idle: {type: string}\nState:", "nothing refers to schemas/thing.yaml#/Idle"},
		"component in the root file":  {root, "components:", "components:\n  schemas: {Idle: {}}", "components/schemas belong in files of their own"},
		"ref to nowhere":              {thing, "#/State", "#/Stat", `"#/Stat" leads nowhere`},
		"ref into a component":        {thing, "#/State", "#/Thing/properties/kind", "is not a component"},
		"key twice":                   {thing, "State:", "Thing: {}\nState:", `key "Thing" is no text, a merge, or stands twice`},
		"extra without example":       {registry, "    example: {skus: ", "    #", "INV_002 has no example for skus"},
		"example breaks its schema":   {registry, "rule: r,", "rule: 5,", "kin-openapi rejects"},
		"document breaks OpenAPI":     {root, "type: http", "type: rubbish", "kin-openapi rejects"},
		"reserved code that is used":  {things, "[INV_002]", "[INV_002, AUTH_006]", "AUTH_006: reserved is true"},
		"unused code, not reserved":   {registry, "AUTH_006:\n    reserved: true\n", "AUTH_006:\n", "AUTH_006: reserved is false"},
		"property without words":      {thing, "kind: {const: thing, description: Always the same.}", "kind: {const: thing}", "/components/schemas/Thing/properties/kind: has no description"},
		"operation without words":     {things, "    description: Makes a thing.\n", "", "/paths//v1/things/post: has no description"},
		"parameter without words":     {things, "description: Not before., ", "", "/parameters/0: has no description"},
		"values without meanings":     {thing, "{new: Just made., 'on': Running.}", "[new, 'on']", "x-extensible-enum needs a meaning"},
		"scope without words":         {root, "'things:write': Make things.", "'things:read': See.", "the scope things:write is not among x-scopes"},
		"scope that nobody needs":     {root, "things.}", "things., 'things:read': See.}", "no operation needs things:read"},
		"closed in the old way":       {thing, "unevaluatedProperties", "additionalProperties", "additionalProperties: false"},
		"two titles alike":            {registry, "title: Not enough stock", "title: Internal error", `"Internal error" is also`},
		"guide without a title":       {first, "# First steps", "First steps", "guides/01-first-steps.md: is no guide"},
		"guide with two titles":       {first, "## Have a key!", "# Have a key!", `the heading "Have a key!" stands twice, or is a second title`},
		"guide that is not there":     {first, "02-paging", "03-paging", "guides: first-steps: there is no 03-paging.md"},
		"heading that is not there":   {first, "#second-page", "#third-page", "the link to /docs/guides/paging#third-page leads nowhere"},
		"code that is not there":      {first, "errors/INV_002", "errors/INV_999", "the link to /docs/errors/INV_999 leads nowhere"},
		"link out of the document":    {first, "https://www.rfc-editor.org/rfc/rfc9457", "../docs/errors.md", "the link to ../docs/errors.md leads nowhere"},
		"link of a description":       {things, "/docs/guides/paging", "/docs/guides/pages", "/paths//v1/things/get: the link to /docs/guides/pages leads nowhere"},
		"end of a comment":            {first, "# [no", "s/*/[no", "/info: */ and \"\"\" end the comments of generated code"},
		"open by oversight":           {things, "security: [{bearer: ['things:write']}]\n    x-error", "security: [{bearer: []}]\n    x-error", "post /v1/things: it needs a key, and names no scope"},
		"open by oversight, for all":  {things, "    security: [{bearer: ['things:write']}]\n    parameters", "    parameters", "get /v1/things: it needs a key, and names no scope"},
		"body of two media types":     {things, "{application/json: {schema: {$ref: ../schemas/thing.yaml#/Thing}}}}\n    responses: {'201'", "{application/json: {}, text/plain: {}}}\n    responses: {'201'", "post /v1/things: its body has 2 media types instead of one"},
		"parameters of an address":    {things, "/plain:\n", "/plain:\n  parameters: [{name: q, in: query, description: Words., schema: {type: string}}]\n", "/plain: parameters belong to an operation"},
		"title of another's name":     {thing, "description: Where it is.", "description: Where it is.\n  title: thing", `"Thing" is also the name or title of State`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := fixture(t, c.file, c.old, c.replacement)
			switch name {
			case "address in two files":
				write(t, dir+"/paths/z.yaml", "/plain: {}")
			case "collision of two files":
				write(t, dir+"/schemas/b.yaml", "Thing: {type: string}")
			case "collision with what we make":
				write(t, dir+"/"+thing, strings.Replace(read(t, dir+"/"+thing), "{const: thing, description: Always the same.}", "{$ref: '#/ProblemINV_002'}", 1))
			}
			out := t.TempDir() + "/out"
			err := run(dir, out)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("something was written all the same")
			}
		})
	}
}

// TestGuidesBecomeTheDescription: headings go one level down, but not in code, and links between guides become addresses.
func TestGuidesBecomeTheDescription(t *testing.T) {
	t.Parallel()
	doc, err := bundle(fixture(t, "", "", ""))
	if err != nil {
		t.Fatal(err)
	}
	const want = "A fixture.\n\n" +
		"## First steps\n\nGo on with [the second page](/docs/guides/paging#second-page), [INV_002](/docs/errors/INV_002), [a key](/docs/guides/first-steps#have-a-key)\n" +
		"or [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457).\n\n### Have a key!\n\n```sh\n# [no link](nowhere)\n```\n\n" +
		"## Paging\n\n### Second page\n"
	if got := text(doc, "info", "description"); got != want {
		t.Errorf("%q, want\n%q", got, want)
	}
}

func TestTheRealContractBundles(t *testing.T) {
	t.Parallel()
	if err := run("../../openapi", t.TempDir()); err != nil {
		t.Fatal(err)
	}
}

// TestEveryKeywordOfAParameterIsCheckedOrRefused: those of OpenAPI 3.1 and of JSON Schema 2020-12, and two that neither has.
func TestEveryKeywordOfAParameterIsCheckedOrRefused(t *testing.T) {
	t.Parallel()
	schemas := strings.Fields(`$schema $id $anchor $dynamicRef $dynamicAnchor $defs $comment $vocabulary allOf anyOf oneOf not if then else dependentSchemas
		prefixItems items contains properties patternProperties additionalProperties propertyNames unevaluatedItems unevaluatedProperties enum const
		multipleOf maximum exclusiveMaximum minimum exclusiveMinimum maxLength minLength pattern maxItems minItems uniqueItems maxContains minContains
		maxProperties minProperties required dependentRequired format contentEncoding contentMediaType contentSchema title description default deprecated
		readOnly writeOnly example examples discriminator xml externalDocs nullable x-extensible-enum madeUp`)
	parameters := strings.Fields("description deprecated allowEmptyValue style explode allowReserved example examples content x-of-ours madeUp")
	says := map[string]string{ // what is not refused
		"string":  "$comment title description default deprecated example examples minLength maxLength pattern enum",
		"integer": "$comment title description default deprecated example examples minimum maximum",
		"":        "description deprecated example examples",
	}
	unchecked := func(parameter string) string {
		var doc, p yaml.Node
		if err := yaml.Unmarshal([]byte("components: {schemas: {A: {type: string, maxLength: 5}, B: {type: string, const: a}}}"), &doc); err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal([]byte(parameter), &p); err != nil {
			t.Fatal(parameter, err)
		}
		return unchecked(doc.Content[0], p.Content[0])
	}
	for kind, taken := range says {
		keywords := schemas
		if kind == "" {
			keywords = parameters
		}
		for _, keyword := range keywords {
			parameter := fmt.Sprintf("{name: a, in: query, schema: {type: %s, %s: 1}}", kind, keyword)
			switch {
			case kind == "":
				parameter = fmt.Sprintf("{name: a, in: query, schema: {type: string}, %s: 1}", keyword)
			case keyword == "enum":
				parameter = fmt.Sprintf("{name: a, in: query, schema: {type: %s, enum: [a]}}", kind)
			}
			if got, want := unchecked(parameter) == "", slices.Contains(strings.Fields(taken), keyword); got != want {
				t.Errorf("%s of a %s is taken: %v", keyword, cmp.Or(kind, "parameter"), got)
			}
		}
	}
	for parameter, want := range map[string]string{
		"{name: a, in: query, schema: {type: string, format: date-time}}":                   "",
		"{name: a, in: query, schema: {type: string, format: date}}":                        "format date of a string",
		"{name: a, in: query, schema: {type: integer, format: int32}}":                      "",
		"{name: a, in: query, schema: {type: integer, format: date-time}}":                  "format date-time of a integer",
		"{name: a, in: query, schema: {type: integer, minimum: 1.5}}":                       "minimum: 1.5",
		"{name: a, in: query, schema: {type: string, enum: [1]}}":                           "enum of anything but strings",
		"{name: a, in: query, schema: {type: string, maxLength: 0}}":                        "maxLength: 0",
		"{name: a, in: query, schema: {type: boolean}}":                                     "type: boolean",
		"{name: a, in: query, schema: {type: [string, 'null']}}":                            "type: ",
		"{name: a, in: query, schema: {}}":                                                  "type: ",
		"{name: a, in: query}":                                                              "type: ",
		"{name: a, in: cookie, schema: {type: string}}":                                     "in: cookie",
		"{name: a, in: query, schema: {$ref: '#/components/schemas/A'}}":                    "",
		"{name: a, in: query, schema: {$ref: '#/components/schemas/A', description: more}}": "",
		"{name: a, in: query, schema: {$ref: '#/components/schemas/A', minLength: 2}}":      "minLength beside $ref",
		"{name: a, in: query, schema: {$ref: '#/components/schemas/B'}}":                    "const of a string",
	} {
		if got := unchecked(parameter); got != want {
			t.Errorf("%s: %q", parameter, got)
		}
	}
	doc, err := bundle(fixture(t, "paths/things.yaml", "default: 2026-01-01", "contentEncoding: base64"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err = table(doc); err == nil || !strings.Contains(err.Error(), "contentEncoding of a string, which openapi/templates/parameters.tmpl does not check") {
		t.Errorf("make gen goes on: %v", err)
	}
}
