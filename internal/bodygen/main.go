// Command bodygen writes gen/api/bodies.gen.go: for each schema that a request's body has in the contract, a function that reads a value of it into the
// struct of oapi-codegen and checks all that the schema says. It fails, and writes nothing, on a keyword that it does not know, so that nothing
// of the contract is unchecked. Equal input gives equal bytes.
package main

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"go/format"
	"log"
	"os"
	"text/template"
)

//go:embed bodies.go.tmpl
var templateText string

var bodies = template.Must(template.New("bodies").Parse(templateText))

func main() {
	log.SetFlags(0)
	if err := run("gen/api/openapi.json", "gen/api/api.gen.go", "gen/api/bodies.gen.go"); err != nil {
		log.Fatalf("bodygen: %v", err)
	}
}

func run(contract, models, out string) error {
	text, err := os.ReadFile(contract)
	source, err2 := os.ReadFile(models)
	if err = errors.Join(err, err2); err != nil {
		return err
	}
	code, err := generate(text, source)
	if err != nil {
		return fmt.Errorf("%s: %w", contract, err)
	}
	return os.WriteFile(out, code, 0o644)
}

// generate returns the code for a bundled contract, in the package of the models.
func generate(contract, models []byte) ([]byte, error) {
	types, err := parseModels(models)
	if err != nil {
		return nil, err
	}
	p := &program{Package: types.name, types: types, functions: map[string]string{}}
	if err = p.read(contract); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err = bodies.Execute(&b, p); err != nil {
		return nil, err
	}
	return format.Source(b.Bytes())
}
