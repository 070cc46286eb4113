package command

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/ordergate/ordergate/order"
)

// TestEveryStepIsNamedWhereItMustBe: in the CHECK of its table, in the contract and in the document.
func TestEveryStepIsNamedWhereItMustBe(t *testing.T) {
	for file, form := range map[string]string{
		"../sql/migrations/00001_init.sql": "'STEP'",
		"../openapi/schemas/order.yaml":    "\n        STEP: ",
		"../docs/saga.md":                  "`STEP`",
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

// TestEveryStepForwardIsPlanned: a paid order takes all steps forward, in the order of the table.
func TestEveryStepForwardIsPlanned(t *testing.T) {
	var planned, table []string
	for _, st := range newSteps(&order.Order{WithPayment: true}, "pm_ok") {
		planned = append(planned, st.name)
	}
	for _, k := range stepTable {
		if k.undoes == "" {
			table = append(table, k.name)
		}
	}
	if !slices.Equal(planned, table) {
		t.Errorf("newSteps plans %v, stepTable has %v", planned, table)
	}
}
