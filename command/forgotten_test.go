package command

import (
	"os"
	"strings"
	"testing"
)

// TestEveryStepIsNamedWhereItMustBe: in the contract and in the document.
func TestEveryStepIsNamedWhereItMustBe(t *testing.T) {
	for file, form := range map[string]string{
		"../openapi/schemas/order.yaml": "\n        STEP: ",
		"../docs/saga.md":               "`STEP`",
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range stepTable {
			if !strings.Contains(string(text), strings.ReplaceAll(form, "STEP", k.name)) {
				t.Errorf("%s does not name the step %s", file, k.name)
			}
		}
	}
}
