package edge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/internal/rfc3339"
)

// MaxBody is the greatest request body in bytes; more is REQ_008.
const MaxBody = 256 << 10

// operation is an operation of the contract and the schemas of its requests.
type operation struct {
	api.Operation[*request, response]
	body      *jsonschema.Schema
	observers observers
}

// contractURL names the contract to the schema compiler; a bare name would be a file in the working folder.
const contractURL = "mem:///contract"

// bundle is a bundled contract as far as requests are checked against it.
type bundle struct {
	Paths map[string]map[string]struct {
		ID          string `json:"operationId"` //nolint:tagliatelle // OpenAPI's name
		RequestBody struct {
			Content map[string]any `json:"content"`
		} `json:"requestBody"` //nolint:tagliatelle // OpenAPI's name
	} `json:"paths"`
}

// compile compiles the schemas of our contract, each into the operation that it belongs to.
func compile(operations []*operation) error {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(api.OpenAPIJSON))
	if err != nil {
		return fmt.Errorf("read contract: %w", err)
	}
	c := newCompiler()
	var all bundle
	if err = errors.Join(c.AddResource(contractURL, doc), json.Unmarshal(api.OpenAPIJSON, &all)); err != nil {
		return fmt.Errorf("read contract: %w", err)
	}
	schema := func(pointer string) (*jsonschema.Schema, error) {
		return c.Compile(contractURL + "#" + strings.NewReplacer("{", "%7B", "}", "%7D").Replace(pointer)) // as a URL's fragment
	}
	byID := map[string]*operation{}
	for _, o := range operations {
		byID[o.ID] = o
	}
	for path, item := range all.Paths {
		for method, documented := range item {
			o, at := byID[documented.ID], "/paths/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(path)+"/"+method
			if o.MediaType != "" {
				if o.body, err = schema(at + "/requestBody/content/" + strings.ReplaceAll(o.MediaType, "/", "~1") + "/schema"); err != nil {
					return fmt.Errorf("%s: body: %w", o.ID, err)
				}
			}
		}
	}
	return nil
}

// newCompiler returns a compiler of schemas that reads times as the generated code does.
func newCompiler() *jsonschema.Compiler {
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	c.RegisterFormat(&jsonschema.Format{Name: "date-time", Validate: func(v any) error {
		if text, ok := v.(string); ok {
			return new(rfc3339.Time).UnmarshalText([]byte(text))
		}
		return nil
	}})
	return c
}
