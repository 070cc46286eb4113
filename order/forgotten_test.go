package order

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestEveryEventTypeIsInTheContract: a client reads by the contract what the store has.
func TestEveryEventTypeIsInTheContract(t *testing.T) {
	const file = "../openapi/schemas/event.yaml"
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	const webhooks = "../openapi/webhooks.yaml"
	w, err := os.ReadFile(webhooks)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range decoders {
		zero, err := d(nil)
		if err != nil {
			t.Fatal(err)
		}
		name := zero.eventType()
		_, rest, mapped := strings.Cut(text, "      "+name+": '#/")
		schema, _, _ := strings.Cut(rest, "'")
		for what, there := range map[string]bool{
			"entry of Event's mapping": mapped,
			"entry of Event's oneOf":   strings.Contains(text, "    - $ref: '#/"+schema+"'\n"),
			"webhook":                  strings.Contains("\n"+string(w), "\n"+name+":\n"),
			"schema with its const":    strings.Contains(text, "\n"+schema+":\n") && strings.Contains(text, "const: "+name+","),
		} {
			if !there {
				t.Errorf("%s has no %s for %s", file, what, name)
			}
		}
	}
	if n := strings.Count(text, "const: order."); n != len(decoders) {
		t.Errorf("%s has %d event types, decoders has %d", file, n, len(decoders))
	}
}

// TestEveryCommandIsInTheTable reads the source: check refuses a command that has no cell with ORD_002, in every state.
func TestEveryCommandIsInTheTable(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "states.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	declared := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || spec.Type == nil {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); ok && kind.Name == "Command" {
			declared++
			name, _ := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if c := Command(name); !slices.Contains(commands, c) || ask[c] == nil {
				t.Errorf("%s is missing in commands or ask of states_test.go", spec.Names[0].Name)
			}
			for _, st := range states {
				if _, ok := st.commands[Command(name)]; !ok {
					t.Errorf("%s has no cell for %s", st.status, spec.Names[0].Name)
				}
			}
		}
		return true
	})
	if declared == 0 || declared != len(commands) {
		t.Errorf("%d commands are declared, %d are tried", declared, len(commands))
	}
}
