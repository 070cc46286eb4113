package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)

// node is a value of a decoded contract.
type node = map[string]any

// at goes down through objects.
func at(n node, names ...string) node {
	for _, name := range names {
		n = object(n[name])
	}
	return n
}

func schema(d node, name string) node { return at(d, "components", "schemas", name) }

func operation(d node, method, path string) node { return at(d, "paths", path, method) }

func without(list any, value string) (rest []any) {
	for _, v := range list.([]any) {
		if v != value && object(v)["$ref"] != value {
			rest = append(rest, v)
		}
	}
	return rest
}

func edited(t *testing.T, edit func(d node)) *document {
	t.Helper()
	text, err := os.ReadFile("../../" + present)
	if err != nil {
		t.Fatal(err)
	}
	var d node
	if err = json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(d)
	}
	if text, err = json.Marshal(d); err != nil {
		t.Fatal(err)
	}
	contract, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return contract
}

func removeProperty(d node, of, property string) {
	s := schema(d, of)
	delete(at(s, "properties"), property)
	s["required"] = without(s["required"], property)
}

func deprecate(d node, method, path, date string) {
	op := operation(d, method, path)
	op["deprecated"], op["x-sunset"] = true, date
}

// Of each kind of change one: whether it breaks, where, and in which words.
func TestWhatBreaksClients(t *testing.T) {
	t.Parallel()
	const cancel, cancelCodes = "/v1/orders/{order_id}/cancel", "Problem409_IDEM_003_ORD_002_007_009"
	for name, c := range map[string]struct {
		before, after func(d node)
		breaks        []string // "where: words"
		passes        []string
	}{
		"nothing": {},
		"an answer loses a property": {
			after:  func(d node) { removeProperty(d, "Order", "reference") },
			breaks: []string{"GET /v1/orders/{order_id}: removed the required property `reference`", "POST /v1/orders: removed the required property `reference`"},
		},
		"an answer gets a property": {
			after: func(d node) {
				s := schema(d, "Order")
				at(s, "properties")["note"] = node{"type": "string"}
				s["required"] = append(s["required"].([]any), "note")
			},
			passes: []string{"GET /v1/orders/{order_id}: added the required property `note`"},
		},
		"a request needs a new property": {
			after: func(d node) {
				s := schema(d, "PlaceOrder")
				at(s, "properties")["note"] = node{"type": "string"}
				s["required"] = append(s["required"].([]any), "note")
			},
			breaks: []string{"POST /v1/orders: added the new required request property `note`"},
		},
		"a request may have a new property": {
			after:  func(d node) { at(schema(d, "PlaceOrder"), "properties")["note"] = node{"type": "string"} },
			passes: []string{"POST /v1/orders: added the new optional request property `note`"},
		},
		"a success goes": {
			after:  func(d node) { delete(at(operation(d, "post", "/v1/orders"), "responses"), "201") },
			breaks: []string{"POST /v1/orders: removed the success response with the status `201`"},
		},
		"a refusal's status goes": {
			after:  func(d node) { delete(at(operation(d, "post", "/v1/orders"), "responses"), "422") },
			breaks: []string{"POST /v1/orders: removed the non-success response with the status `422`"},
		},
		"a code goes": {
			after: func(d node) {
				s := schema(d, cancelCodes)
				s["oneOf"] = without(s["oneOf"], "#/components/schemas/ProblemORD_007")
				delete(at(s, "discriminator", "mapping"), "ORD_007")
			},
			breaks: []string{"POST " + cancel + ": is no longer refused with `ORD_007` (409)"},
		},
		"a code comes": {
			after: func(d node) {
				s := schema(d, cancelCodes)
				s["oneOf"] = append(s["oneOf"].([]any), node{"$ref": "#/components/schemas/ProblemSHP_003"})
				at(s, "discriminator", "mapping")["SHP_003"] = "#/components/schemas/ProblemSHP_003"
			},
			passes: []string{"POST " + cancel + ": may be refused with `SHP_003` (409)"},
		},
		"a second code comes": {
			after: func(d node) {
				at(operation(d, "get", "/v1/orders/{order_id}/saga"), "responses", "404")["$ref"] = "#/components/responses/Refusal404_ORD_001_010"
			},
			passes: []string{"GET /v1/orders/{order_id}/saga: may be refused with `ORD_010` (404)"},
		},
		"the last but one code goes": {
			after: func(d node) {
				at(operation(d, "get", "/v1/orders/{order_id}"), "responses", "404")["$ref"] = "#/components/responses/Refusal404_ORD_001"
			},
			breaks: []string{"GET /v1/orders/{order_id}: is no longer refused with `ORD_010` (404)"},
		},
		"a refusal loses an extra": {
			after: func(d node) {
				own := object(schema(d, "ProblemINV_002")["allOf"].([]any)[1])
				delete(at(own, "properties"), "skus")
				own["required"] = without(own["required"], "skus")
			},
			breaks: []string{"POST /v1/orders: removed the required property `INV_002/skus`"},
		},
		"an operation goes": {
			after:  func(d node) { delete(at(d, "paths"), "/v1/quotes") },
			breaks: []string{"POST /v1/quotes: is removed, and the released contract has no sunset of it"},
		},
		"an operation goes that is only deprecated": {
			before: func(d node) { operation(d, "post", "/v1/quotes")["deprecated"] = true },
			after:  func(d node) { delete(at(d, "paths"), "/v1/quotes") },
			breaks: []string{"POST /v1/quotes: is removed, and the released contract has no sunset of it"},
		},
		"an operation goes before its sunset": {
			before: func(d node) { deprecate(d, "post", "/v1/quotes", "2026-11-28") },
			after:  func(d node) { delete(at(d, "paths"), "/v1/quotes") },
			breaks: []string{"POST /v1/quotes: is removed; its sunset is 2026-11-28, and that day is not over"},
		},
		"an operation goes on the day of its sunset": {
			before: func(d node) { deprecate(d, "post", "/v1/quotes", "2026-11-27") },
			after:  func(d node) { delete(at(d, "paths"), "/v1/quotes") },
			breaks: []string{"POST /v1/quotes: is removed; its sunset is 2026-11-27, and that day is not over"},
		},
		"an operation goes after its sunset": {
			before: func(d node) { deprecate(d, "post", "/v1/quotes", "2026-11-26") },
			after:  func(d node) { delete(at(d, "paths"), "/v1/quotes") },
			passes: []string{"POST /v1/quotes: is removed; its sunset is 2026-11-26"},
		},
		"an operation with a sunset changes": {
			before: func(d node) { deprecate(d, "get", "/v1/inventory/{sku}", "2099-12-31") },
			after: func(d node) {
				deprecate(d, "get", "/v1/inventory/{sku}", "2099-12-31")
				removeProperty(d, "Inventory", "as_of")
			},
			passes: []string{"GET /v1/inventory/{sku}: removed the required property `as_of`"},
		},
		"an operation changes with its sunset": {
			after: func(d node) {
				deprecate(d, "get", "/v1/inventory/{sku}", "2099-12-31")
				removeProperty(d, "Inventory", "as_of")
			},
			passes: []string{"GET /v1/inventory/{sku}: removed the required property `as_of`"},
		},
		"an operation changes and gets a sunset that is past": {
			after: func(d node) {
				deprecate(d, "get", "/v1/inventory/{sku}", "2026-11-26")
				removeProperty(d, "Inventory", "as_of")
			},
			breaks: []string{"GET /v1/inventory/{sku}: is deprecated; its sunset is 2026-11-26, which is less than 180 days ahead"},
		},
		"an operation changes whose sunset is taken back": {
			before: func(d node) { deprecate(d, "get", "/v1/inventory/{sku}", "2099-12-31") },
			after:  func(d node) { removeProperty(d, "Inventory", "as_of") },
			breaks: []string{"GET /v1/inventory/{sku}: removed the required property `as_of`"},
		},
		"an operation changes that is only deprecated": {
			after: func(d node) {
				operation(d, "get", "/v1/inventory/{sku}")["deprecated"] = true
				removeProperty(d, "Inventory", "as_of")
			},
			breaks: []string{"GET /v1/inventory/{sku}: removed the required property `as_of`"},
		},
		"a sunset is brought forward": {
			before: func(d node) { deprecate(d, "post", "/v1/quotes", "2099-12-31") },
			after:  func(d node) { deprecate(d, "post", "/v1/quotes", "2026-11-28") },
			breaks: []string{"POST /v1/quotes: its sunset is 2026-11-28 instead of 2099-12-31, which is less than 180 days ahead"},
		},
		"a sunset is brought forward, and far enough": {
			before: func(d node) { deprecate(d, "post", "/v1/quotes", "2099-12-31") },
			after:  func(d node) { deprecate(d, "post", "/v1/quotes", "2027-05-26") },
			passes: []string{"POST /v1/quotes: its sunset is 2027-05-26 instead of 2099-12-31"},
		},
		"a sunset is put off": {
			before: func(d node) { deprecate(d, "post", "/v1/quotes", "2026-11-28") },
			after:  func(d node) { deprecate(d, "post", "/v1/quotes", "2026-11-30") },
			passes: []string{"POST /v1/quotes: its sunset is 2026-11-30 instead of 2026-11-28"},
		},
		"a sunset is taken back": {
			before: func(d node) { deprecate(d, "post", "/v1/quotes", "2099-12-31") },
			passes: []string{"POST /v1/quotes: its sunset, 2099-12-31, is taken back"},
		},
		"a sunset is announced 180 days ahead": {
			after:  func(d node) { deprecate(d, "post", "/v1/quotes", "2027-05-26") },
			passes: []string{"POST /v1/quotes: is deprecated; its sunset is 2027-05-26"},
		},
		"a sunset is announced 179 days ahead": {
			after:  func(d node) { deprecate(d, "post", "/v1/quotes", "2027-05-25") },
			breaks: []string{"POST /v1/quotes: is deprecated; its sunset is 2027-05-25, which is less than 180 days ahead"},
		},
		"a deprecated property goes": {
			before: func(d node) { at(schema(d, "Order"), "properties", "version")["deprecated"] = true },
			after:  func(d node) { removeProperty(d, "Order", "version") },
			breaks: []string{"GET /v1/orders/{order_id}: removed the deprecated required property `version`"},
		},
		"a deprecated parameter goes, and has a date of its own": {
			before: func(d node) {
				for _, p := range operation(d, "get", "/v1/orders")["parameters"].([]any) {
					if p := object(p); p["name"] == "status" {
						p["deprecated"], p["x-sunset"] = true, "2020-01-01"
					}
				}
			},
			after: func(d node) {
				op := operation(d, "get", "/v1/orders")
				op["parameters"] = slices.DeleteFunc(op["parameters"].([]any), func(p any) bool { return object(p)["name"] == "status" })
			},
			breaks: []string{"GET /v1/orders: deleted the `query` request parameter `status`"},
		},
		"a bound is tightened": {
			after:  func(d node) { at(schema(d, "PlaceOrder"), "properties", "lines")["maxItems"] = 50 },
			breaks: []string{"POST /v1/orders: the `lines` request property's maxItems was decreased to `50`"},
		},
		"a parameter's values are fewer": {
			after: func(d node) {
				for _, p := range operation(d, "get", "/v1/orders")["parameters"].([]any) {
					if p := object(p); p["name"] == "status" {
						at(p, "schema")["enum"] = without(at(p, "schema")["enum"], "pending")
					}
				}
			},
			breaks: []string{"GET /v1/orders: removed the enum value `pending` from the `query` request parameter `status`"},
		},
		"a parameter is needed": {
			after: func(d node) {
				op := operation(d, "get", "/v1/orders")
				op["parameters"] = append(op["parameters"].([]any),
					node{"name": "shop", "in": "query", "required": true, "schema": node{"type": "string"}})
			},
			breaks: []string{"GET /v1/orders: added the new required `query` request parameter `shop`"},
		},
		"a scope is needed": {
			after: func(d node) {
				operation(d, "post", "/v1/quotes")["security"] = []any{node{"bearer": []any{"orders:write", "orders:read"}}}
			},
			breaks: []string{"POST /v1/quotes: "},
		},
		"an answer may be null": {
			after:  func(d node) { at(schema(d, "Order"), "properties", "version")["type"] = []any{"integer", "null"} },
			breaks: []string{"GET /v1/orders/{order_id}: the response property `version` became nullable"},
		},
		"an answer's object may be null": {
			after: func(d node) {
				at(schema(d, "Order"), "properties")["subtotal"] = node{"oneOf": []any{node{"$ref": "#/components/schemas/Money"}, node{"type": "null"}}}
			},
			breaks: []string{"GET /v1/orders/{order_id}: the response property `subtotal`"},
		},
		"an open enumeration grows": {
			after: func(d node) {
				s := schema(d, "OrderStatus")
				s["x-extensible-enum"] = append(s["x-extensible-enum"].([]any), "returned")
			},
		},
		"an answer loses a header": {
			after: func(d node) {
				delete(at(operation(d, "get", "/v1/orders/{order_id}"), "responses", "200", "headers"), "ETag")
			},
			breaks: []string{"GET /v1/orders/{order_id}: the mandatory response header `ETag` removed"},
		},
		"a webhook loses a property": {
			after:  func(d node) { removeProperty(d, "OrderPaidData", "amount") },
			breaks: []string{"webhook order.paid: removed the required property `data/amount`", "GET /v1/orders/{order_id}/events: removed the required property"},
		},
		"a webhook gets a property": {
			after:  func(d node) { at(schema(d, "OrderPaidData"), "properties")["note"] = node{"type": "string"} },
			passes: []string{"webhook order.paid: added the optional property `data/note`"},
		},
		"a webhook goes": {
			after:  func(d node) { delete(at(d, "webhooks"), "order.paid") },
			breaks: []string{"webhook order.paid: is removed"},
		},
		"an event's type goes": {
			after: func(d node) {
				s := schema(d, "Event")
				s["oneOf"] = without(s["oneOf"], "#/components/schemas/OrderPaidEvent")
				delete(at(s, "discriminator", "mapping"), "order.paid")
			},
			breaks: []string{"GET /v1/orders/{order_id}/events: removed the required property `data/items/order.paid`"},
		},
		"an operation comes": {
			before: func(d node) { delete(at(d, "paths"), "/v1/quotes") },
			passes: []string{"POST /v1/quotes: endpoint added"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found, err := changes(edited(t, c.before), edited(t, c.after))
			if err != nil {
				t.Fatal(err)
			}
			judge(found, now)
			has := func(list []string, f change) bool {
				for _, want := range list {
					if strings.HasPrefix(f.where+": "+f.text, want) {
						return true
					}
				}
				return false
			}
			for _, f := range found {
				if f.breaks && !f.ending && len(c.breaks) == 0 {
					t.Errorf("breaks: %s: %s", f.where, f.text)
				}
			}
			for breaks, list := range map[bool][]string{true: c.breaks, false: c.passes} {
				for _, want := range list {
					met := false
					for _, f := range found {
						met = met || (f.breaks && !f.ending) == breaks && has([]string{want}, f)
					}
					if !met {
						t.Errorf("nothing that breaks=%v is %q: %+v", breaks, want, found)
					}
				}
			}
			if len(c.breaks)+len(c.passes) == 0 && len(found) > 0 {
				t.Errorf("found %+v", found)
			}
		})
	}
}

// The commands: a first contract passes, a released one is kept, a breaking change fails, and the changelog tells what changed.
func TestCommands(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	text, err := os.ReadFile("../../" + present)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		t.Helper()
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	works := func(command string) {
		t.Helper()
		if err := run(t.Output(), command, root, now); err != nil {
			t.Fatalf("%q: %v", command, err)
		}
	}
	write(present, string(text))
	write(changelog, "")
	works("")
	works("release")
	works("")
	version := edited(t, nil).version
	broken := strings.Replace(string(text), `"maxItems": 100`, `"maxItems": 99`, 1)
	if broken == string(text) {
		t.Fatal("no list of the contract has 100 items at most")
	}
	write(present, broken)
	if err = run(t.Output(), "", root, now); err == nil || !strings.Contains(err.Error(), "break clients of the released contract "+version) {
		t.Errorf("a tightened bound: %v", err)
	}
	if err = run(t.Output(), "release", root, now); err == nil || !strings.Contains(err.Error(), "raise info.version") {
		t.Errorf("a release anew: %v", err)
	}
	works("changelog")
	log, err := os.ReadFile(filepath.Join(root, changelog))
	if err != nil || !strings.Contains(string(log), "## Unreleased\n\n### Changed\n\n- `POST ") || !strings.Contains(string(log), "**This may break clients.**") ||
		!strings.Contains(string(log), "## "+version+"\n\nThe first release: ") {
		t.Errorf("%v\n%s", err, log)
	}
	if err = run(t.Output(), "released", root, now); err == nil {
		t.Error("a command that is none works")
	}
}

// Versions are compared by number, and a file has the name of its version.
func TestReleases(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, version := range []string{"0.9.0", "0.10.0", "0.2.11"} {
		text := `{"openapi":"3.1.0","info":{"title":"t","version":"` + version + `"},"paths":{"/":{"get":{"responses":{"200":{"description":"d"}}}}}}`
		if err := os.WriteFile(filepath.Join(dir, version+".json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	releases, err := readReleases(dir)
	if err != nil || len(releases) != 3 || releases[2].version != "0.10.0" {
		t.Fatalf("%v %v", releases, err)
	}
	if err = os.Rename(filepath.Join(dir, "0.9.0.json"), filepath.Join(dir, "1.0.0.json")); err != nil {
		t.Fatal(err)
	}
	if _, err = readReleases(dir); err == nil {
		t.Error("a file with another version's name is read")
	}
}

// A changelog of past releases says the same however long ago they were: the sunset that one announces is far ahead, near or past.
func TestChangelogDoesNotAge(t *testing.T) {
	t.Parallel()
	section := func(days int) string {
		day := time.Now().AddDate(0, 0, days).Format(time.DateOnly)
		released := edited(t, func(d node) {
			at(d, "info")["version"] = "9.1.0"
			deprecate(d, "post", "/v1/quotes", day)
		})
		removed := edited(t, func(d node) {
			at(d, "info")["version"] = "9.2.0"
			delete(at(d, "paths"), "/v1/quotes")
		})
		text, err := render([]*document{edited(t, nil), released, removed}, removed)
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(text, day, "DAY")
	}
	const announced, gone = "- `POST /v1/quotes`: is deprecated; its sunset is DAY.\n", "- `POST /v1/quotes`: is removed; its sunset is DAY.\n"
	for _, days := range []int{200, 120, 0, -1, -400} {
		if got := section(days); !strings.Contains(got, announced) || !strings.Contains(got, gone) {
			t.Errorf("a sunset that is %d days ahead:\n%s", days, got)
		}
	}
}

// A sunset alone makes a section: nothing else of the contract differs.
func TestASunsetAloneIsInTheChangelog(t *testing.T) {
	t.Parallel()
	before := edited(t, func(d node) { deprecate(d, "post", "/v1/quotes", "2099-12-31") })
	after := edited(t, func(d node) { deprecate(d, "post", "/v1/quotes", "2100-12-31") })
	text, err := render([]*document{before}, after)
	if err != nil || !strings.Contains(text, "## Unreleased\n\n### Deprecated\n\n- `POST /v1/quotes`: its sunset is 2100-12-31 instead of 2099-12-31.\n") {
		t.Errorf("%v\n%s", err, text)
	}
}

// openapi/CHANGELOG.md is what make changelog writes.
func TestChangelogIsFresh(t *testing.T) {
	t.Parallel()
	releases, err := readReleases("../../" + released)
	if err != nil {
		t.Fatal(err)
	}
	want, err := render(releases, edited(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile("../../" + changelog); err != nil || string(got) != want {
		t.Errorf("openapi/CHANGELOG.md is not what the contract gives: make changelog (%v)", err)
	}
}
