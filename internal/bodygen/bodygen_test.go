package main

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/fixture/bodies.gen.go")

// The fixture's code is judged by TestBodiesAreJudgedAsTheLibrariesJudgeThem of internal/check.
func TestTheFixtureIsWhatIsGenerated(t *testing.T) {
	const out = "testdata/fixture/bodies.gen.go"
	contract, _ := os.ReadFile("testdata/fixture/contract.json")
	models, _ := os.ReadFile("testdata/fixture/models.go")
	got, err := generate(contract, models)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err = os.WriteFile(out, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, _ := os.ReadFile(out); string(got) != string(want) {
		t.Errorf("%s is not what is generated: go test ./internal/bodygen -update", out)
	}
}

// Nothing of the contract is left unchecked in silence: a keyword that is not known, or not known where it stands, is an error that names its schema.
func TestWhatIsNotCheckedIsRefused(t *testing.T) {
	const models = "package api\ntype Body struct { A []string `json:\"a\"`; AA []string `json:\"a_\"` }\n"
	for name, c := range map[string]struct{ schema, want string }{
		"good":                            {`{"type":"object","properties":{"a":{"type":"string"}}}`, ""},
		"a keyword":                       {`{"type":"object","dependentRequired":{}}`, `dependentRequired`},
		"a keyword below":                 {`{"type":"object","properties":{"a":{"type":"string","contentEncoding":"base64"}}}`, `contentEncoding`},
		"allOf":                           {`{"allOf":[{"type":"object"}]}`, `allOf`},
		"minProperties":                   {`{"type":"object","minProperties":1}`, `minProperties`},
		"uniqueItems":                     {`{"type":"object","properties":{"a":{"type":"array","uniqueItems":true,"items":{"type":"string"}}}}`, `uniqueItems`},
		"a format":                        {`{"type":"object","properties":{"a":{"type":"string","format":"uri"}}}`, `schema Body.a: format uri of a value of type string is not checked`},
		"a bound of another type":         {`{"type":"object","properties":{"a":{"type":"string","maximum":5}}}`, `schema Body.a: maximum of a value of type string is not checked`},
		"no type":                         {`{"type":"object","properties":{"a":{}}}`, `schema Body.a: internal/bodygen reads one type`},
		"two types":                       {`{"type":"object","properties":{"a":{"type":["string","integer"]}}}`, `schema Body.a: internal/bodygen reads one type`},
		"a fraction":                      {`{"type":"object","properties":{"a":{"type":"number"}}}`, `schema Body.a: internal/bodygen does not read type number`},
		"an integer without bounds":       {`{"type":"object","properties":{"a":{"type":"integer","minimum":0}}}`, `schema Body.a: an integer needs minimum and maximum`},
		"an integer beyond its type":      {`{"type":"object","properties":{"a":{"type":"integer","format":"int32","minimum":0,"maximum":3000000000}}}`, `of which neither is beyond 2147483647`},
		"an integer beyond 2^53":          {`{"type":"object","properties":{"a":{"type":"integer","minimum":0,"maximum":9007199254740992}}}`, `of which neither is beyond 9007199254740991`},
		"not, but no constant":            {`{"type":"object","properties":{"a":{"type":"integer","minimum":0,"maximum":1,"not":{}}}}`, `knows not with const only`},
		"a mixed enumeration":             {`{"type":"object","properties":{"a":{"type":"string","enum":["a",null]}}}`, `schema Body.a: an enumeration of anything but strings`},
		"null in a list":                  {`{"type":"object","properties":{"a":{"type":"array","items":{"type":["string","null"]}}}}`, `schema Body.a.item: internal/bodygen stores no null`},
		"a bound of 0":                    {`{"type":"object","properties":{"a":{"type":"string","maxLength":0}}}`, `a bound of 0`},
		"a reference that leads nowhere":  {`{"type":"object","properties":{"a":{"$ref":"#/components/schemas/None"}}}`, `schema None: there is none`},
		"a reference into a schema":       {`{"type":"object","properties":{"a":{"$ref":"#/paths/x"}}}`, `leads nowhere`},
		"a keyword beside a reference":    {`{"type":"object","properties":{"a":{"$ref":"#/components/schemas/Body","maxProperties":1}}}`, `schema Body: keywords beside $ref`},
		"items without a schema":          {`{"type":"object","properties":{"a":{"type":"array"}}}`, `schema Body.a: its items have no schema`},
		"both kinds of properties":        {`{"type":"object","properties":{"a":{"type":"string"}},"additionalProperties":{"type":"string"}}`, `either properties or additionalProperties`},
		"objects of the client's names":   {`{"type":"object","properties":{"a":{"type":"object","additionalProperties":{"type":"object"}}}}`, `no objects and arrays under names of the client's own`},
		"names without values":            {`{"type":"object","propertyNames":{"type":"string"}}`, `propertyNames without additionalProperties`},
		"names of no type":                {`{"type":"object","properties":{"a":{"type":"object","propertyNames":{},"additionalProperties":{"type":"string"}}}}`, `propertyNames must be of type string`},
		"a required one that is not here": {`{"type":"object","required":["b"],"properties":{"a":{"type":"string"}}}`, `schema Body: b is required and no property`},
		"a property without a field":      {`{"type":"object","properties":{"b":{"type":"string"}}}`, `the Go type Body has no field for b`},
		"two places of one name":          {`{"type":"object","properties":{"a":{"type":"array","items":{"type":"string"}},"a_":{"type":"array","items":{"type":"string"}}}}`, `schema Body.a_: its function would have the name of that of Body.a`},
		"a scalar":                        {`{"type":"string"}`, `its schema must be an object or an array`},
	} {
		contract := `{"paths":{"/":{"post":{"operationId":"make","requestBody":{"content":{"application/json":{"schema":{"$ref":"#/components/schemas/Body"}}}}}}},
			"components":{"schemas":{"Body":` + c.schema + `}}}`
		_, err := generate([]byte(contract), []byte(models))
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "schema ")) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]struct{ body, want string }{
		"two media types": {`{"a/b":{},"a/c":{}}`, "has 2 media types"},
		"a schema there":  {`{"application/json":{"schema":{"type":"object"}}}`, "must be one of components/schemas"},
		"no Go type":      {`{"application/json":{"schema":{"$ref":"#/components/schemas/Other"}}}`, "has no Go type, and is no merge patch"},
	} {
		contract := `{"paths":{"/":{"post":{"operationId":"make","requestBody":{"content":` + c.body + `}}}},"components":{"schemas":{"Other":{"type":"object"}}}}`
		if _, err := generate([]byte(contract), []byte(models)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
