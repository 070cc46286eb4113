package order

import (
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
)

var update = flag.Bool("update", false, "write the tables of the documents")

var commands = []Command{Cancel, Pay, Ship, PatchAddress, PatchMetadata}

// ask gives an order a command.
var ask = map[Command]func(*Order) error{
	Cancel:        func(o *Order) error { _, err := o.RequestCancel(recorder(), "", false); return err },
	Pay:           func(o *Order) error { return o.CheckPay(false, false) },
	Ship:          func(o *Order) error { _, _, err := o.Ship(recorder(), ids.Mint(noon, 7), nil); return err },
	PatchAddress:  func(o *Order) error { _, err := o.Update(recorder(), nil, true); return err },
	PatchMetadata: func(o *Order) error { _, err := o.Update(recorder(), map[string]string{"a": "b"}, false); return err },
}

func TestEveryCellOfTheTableIsKept(t *testing.T) {
	for _, st := range states {
		if len(st.commands) != len(commands) {
			t.Errorf("%s has %d cells for %d commands", st.status, len(st.commands), len(commands))
		}
		for _, c := range commands {
			o := in(t, st)
			before, version := *o, o.Version
			err := ask[c](o)
			if err != nil && !reflect.DeepEqual(*o, before) {
				t.Errorf("%s %s, %s: the refusal changed the order", st.status, st.phase, c)
			}
			if again := st.phase == phaseCancelling && c == Cancel || c == Pay; err == nil && (o.Version == version) != again {
				t.Errorf("%s %s, %s: version %d after %d", st.status, st.phase, c, o.Version, version)
			}
			e, _ := errors.AsType[*apierr.Error](err)
			if want := st.commands[c]; want == allowed && err != nil || want != allowed && (e == nil || e.Code != want) {
				t.Errorf("%s, %s: %v, want %q", st.status, c, err, want)
			}
			if e != nil && e.Code == "ORD_002" && (e.Extras["from"] != st.status || !slices.Equal(e.Extras["allowed"].([]Status), st.next)) {
				t.Errorf("%s, %s: %v", st.status, c, e.Extras)
			}
		}
	}
}

// TestARefundedPartOfAnOrderLeadsNowhere: nothing can follow where the rest is not shipped any more.
func TestARefundedPartOfAnOrderLeadsNowhere(t *testing.T) {
	for shipped, want := range map[FulfillmentStatus]string{FulfillmentStatusPartial: "[]", FulfillmentStatusShipped: "[completed]"} {
		o, _ := place(t)
		o.Status, o.PaymentStatus, o.FulfillmentStatus = StatusConfirmed, PaymentStatusRefunded, shipped
		_, err := o.RequestCancel(recorder(), "", false)
		e, _ := errors.AsType[*apierr.Error](err)
		if e == nil || e.Code != errcode.ORD002 || fmt.Sprint(e.Extras["allowed"]) != want {
			t.Errorf("%s: %v", shipped, err)
		}
	}
}

// in is an order in a row of the table.
func in(t *testing.T, st state) *Order {
	t.Helper()
	o, _ := place(t)
	o.Status, o.WithPayment = st.status, false
	switch {
	case st.status == StatusCompleted:
		o.FulfillmentStatus, o.Lines[0].Shipped = FulfillmentStatusDelivered, o.Lines[0].Quantity
	case st.phase == phaseShipped:
		o.FulfillmentStatus, o.Lines[0].Shipped, o.InTransit = FulfillmentStatusPartial, 1, 1
	case st.phase == phaseCancelling:
		o.CancelRequestedAt = &o.CreatedAt
	}
	return o
}

// TestEventsFollowTheTable: each status that an event can lead to is in the row of the status before.
func TestEventsFollowTheTable(t *testing.T) {
	for _, st := range states {
		for _, next := range st.next {
			if !slices.ContainsFunc(states, func(s state) bool { return s.status == next }) {
				t.Errorf("%s can become %s, which has no row", st.status, next)
			}
		}
		if final := st.status.Final(); final != (len(st.next) == 0) {
			t.Errorf("%s is final: %t", st.status, final)
		}
	}
}

// TestTheTableStandsInTheDocuments: with -update it is written there.
func TestTheTableStandsInTheDocuments(t *testing.T) {
	const file, begin, end = "../openapi/guides/12-orders.md", "<!-- states: written by go test ./order -update -->\n", "<!-- states end -->\n"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok1 := strings.Cut(string(text), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the table between %s and %s", file, begin, end)
	}
	want := head + begin + stateTable() + end + tail
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if string(text) != want {
		t.Errorf("%s has another table: go test ./order -update", file)
	}
}

// TestThePictureIsTheTable: the picture of the guide has each way from one status to another, and no other.
func TestThePictureIsTheTable(t *testing.T) {
	text, err := os.ReadFile("../openapi/guides/12-orders.md")
	if err != nil {
		t.Fatal(err)
	}
	var picture, table []string
	for _, arrow := range regexp.MustCompile(`(?m)^  (\w+) --> (\w+): `).FindAllStringSubmatch(string(text), -1) {
		picture = append(picture, arrow[1]+" "+arrow[2])
	}
	for _, st := range states {
		for _, next := range st.next {
			table = append(table, string(st.status+" "+next))
		}
	}
	slices.Sort(picture)
	slices.Sort(table)
	if table = slices.Compact(table); !slices.Equal(picture, table) {
		t.Errorf("the picture has\n%q, and the table\n%q", picture, table)
	}
}

// stateTable is the table as Markdown.
func stateTable() string {
	var b strings.Builder
	line := func(cells ...string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	head, rule := []string{"status", "can become"}, []string{"---", "---"}
	for _, c := range commands {
		head, rule = append(head, string(c)), append(rule, "---")
	}
	line(head...)
	line(rule...)
	for _, st := range states {
		next := make([]string, len(st.next))
		for i, s := range st.next {
			next[i] = "`" + string(s) + "`"
		}
		status := "`" + string(st.status) + "`"
		if st.phase != "" {
			status += ", " + string(st.phase)
		}
		row := []string{status, strings.Join(next, ", ")}
		for _, c := range commands {
			cell := "yes"
			if code := st.commands[c]; code != allowed {
				cell = "`" + string(code) + "`"
			}
			row = append(row, cell)
		}
		line(row...)
	}
	return b.String()
}

// TestEveryPayloadTypeIsDecoded reads the source: the compiler demands a name and an effect of each type, the list is ours to keep.
func TestEveryPayloadTypeIsDecoded(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "event.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	decoded := map[string]bool{}
	for _, d := range decoders {
		zero, err := d(nil)
		if err != nil {
			t.Fatal(err)
		}
		decoded[strings.TrimPrefix(fmt.Sprintf("%T", zero), "order.")] = true
	}
	n := 0
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Recv != nil && f.Name.Name == "eventType" {
			n++
			if name := f.Recv.List[0].Type.(*ast.Ident).Name; !decoded[name] {
				t.Errorf("%s is missing in decoders", name)
			}
		}
	}
	if n == 0 || n != len(decoders) {
		t.Errorf("%d types, %d decoders", n, len(decoders))
	}
}
