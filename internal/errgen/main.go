// Command errgen turns the registry of error codes, openapi/errors.yaml, into the Go package errcode and the table of the
// TypeScript client. It fails, and writes nothing, if the registry is incomplete. Equal input gives equal bytes.
package main

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"go/format"
	"log"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"go.yaml.in/yaml/v3"
)

// entry is one code of the registry. Its extras matter to internal/bundle alone.
type entry struct {
	Code                string `yaml:"-"`
	Reserved, Retryable bool
	Status              int
	Title               string
	Message             words
	Description         string
	Rejection           struct{ Description string }
	Extras, Example     any
}

// rule is what one fault in `errors[]` may break, and how that is said.
type rule struct {
	Name  string `yaml:"-"`
	words `yaml:",inline"`
}

type words struct {
	EN string
	ZH string `yaml:"zh-CN"`
}

// contents of the registry that are generated from, sorted: the codes that are not reserved, and the rules.
type contents struct {
	Codes []entry
	Rules []rule
}

//go:embed *.tmpl
var files embed.FS

var templates = template.Must(template.ParseFS(files, "*.tmpl"))

func main() {
	log.SetFlags(0)
	if err := run("openapi/errors.yaml", "gen/errcode/errcode.gen.go", "gen/ts/src/errors.gen.ts"); err != nil {
		log.Fatalf("errgen: %v", err)
	}
}

func run(in, goOut, tsOut string) error {
	text, err := os.ReadFile(in)
	if err != nil {
		return err
	}
	registry, err := parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", in, err)
	}
	var goText, tsText bytes.Buffer
	if err := errors.Join(templates.ExecuteTemplate(&goText, "errcode.go.tmpl", registry),
		templates.ExecuteTemplate(&tsText, "errors.ts.tmpl", registry)); err != nil {
		return err
	}
	formatted, err := format.Source(goText.Bytes())
	if err != nil {
		return err
	}
	return errors.Join(write(goOut, formatted), write(tsOut, tsText.Bytes()))
}

func write(name string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, text, 0o644)
}

var codeForm = regexp.MustCompile(`^[A-Z]{2,5}_[0-9]{3}$`)

// parse reads the registry. All faults come back at once.
func parse(text []byte) (c contents, err error) {
	var registry struct {
		Schemas, Headers any
		Codes            map[string]entry
		Rules            map[string]rule
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err = dec.Decode(&registry); err != nil {
		return c, err
	}
	var faults []error
	for _, code := range slices.Sorted(maps.Keys(registry.Codes)) {
		e := registry.Codes[code]
		if e.Code = code; !e.Reserved {
			c.Codes = append(c.Codes, e)
		}
		texts := []string{e.Title, e.Message.EN, e.Message.ZH, e.Description}
		switch {
		case !codeForm.MatchString(code):
			faults = append(faults, fmt.Errorf("%s: is not of the form ABC_001", code))
		case e.Status < 400 || e.Status > 599:
			faults = append(faults, fmt.Errorf("%s: status %d is not 4xx or 5xx", code, e.Status))
		case slices.Contains(texts, ""):
			faults = append(faults, fmt.Errorf("%s: needs title, message.en, message.zh-CN and description", code))
		case strings.ContainsAny(strings.Join(texts, "")+e.Rejection.Description, "%{}<>\n"):
			faults = append(faults, fmt.Errorf("%s: variable text; a text is the same for every occurrence", code))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(registry.Rules)) {
		r := registry.Rules[name]
		r.Name = name
		c.Rules = append(c.Rules, r)
		if r.EN == "" || r.ZH == "" || strings.Count(r.EN, "{}") != strings.Count(r.ZH, "{}") {
			faults = append(faults, fmt.Errorf("rule %s: needs en and zh-CN, with {} in both or in none", name))
		}
	}
	return c, errors.Join(faults...)
}

// Const is the name of the rule's Go constant: RuleMaxItems.
func (r rule) Const() string { return "Rule" + strings.ToUpper(r.Name[:1]) + r.Name[1:] }

// Const is the name of the code's Go constant: INV002.
func (e entry) Const() string { return strings.ReplaceAll(e.Code, "_", "") }
