package check_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/santhosh-tekuri/jsonschema/v6"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/internal/bodies"
	"github.com/ordergate/ordergate/internal/bodygen/testdata/fixture"
	"github.com/ordergate/ordergate/internal/check"
)

var (
	howMany = flag.Int("bodies", 3000, "how many mutated bodies are judged, beside those that are the same each time")
	seed    = flag.Uint64("seed", 1, "of the mutations")
)

// subject is an operation whose bodies are judged.
type subject struct {
	operation string
	read      check.Body
	empty     func() any // a new value of its type; nil: it is a merge patch
	optional  bool
	schema    *jsonschema.Schema
	kin       *openapi3.Schema
	good      []string // examples, and bodies on bounds
	wrong     []string // bodies with one fault
}

// types are those of bodies that have one.
var types = map[string]func() any{
	"adjustInventory": func() any { return new(api.AdjustInventory) }, "cancelOrder": func() any { return new(api.CancelOrder) },
	"createProduct": func() any { return new(api.CreateProduct) }, "deliverShipment": func() any { return new(api.DeliverShipment) },
	"payOrder": func() any { return new(api.PayOrder) }, "placeOrder": func() any { return new(api.PlaceOrder) },
	"quoteOrder": func() any { return new(api.QuoteOrder) }, "refundPayment": func() any { return new(api.CreateRefund) },
	"shipOrder": func() any { return new(api.ShipOrder) }, "takeProviderCallback": func() any { return new(api.ProviderCallback) },
	"updateOrder": nil, "updateProduct": nil,
}

// subjectsOf are the operations of a contract that have a body.
func subjectsOf(t testing.TB, contract []byte, reads map[string]check.Body, types map[string]func() any) (all []subject) {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(contract))
	if err != nil {
		t.Fatal(err)
	}
	c := newCompiler()
	if err = c.AddResource("mem:///contract", doc); err != nil {
		t.Fatal(err)
	}
	kin, err := openapi3.NewLoader().LoadFromData(contract)
	if err != nil {
		t.Fatal(err)
	}
	schemas, err := bodies.Read(contract)
	if err != nil {
		t.Fatal(err)
	}
	for path, item := range kin.Paths.Map() {
		for method, op := range item.Operations() {
			if op.RequestBody == nil {
				continue
			}
			empty, listed := types[op.OperationID]
			if reads[op.OperationID] == nil || !listed {
				t.Fatalf("%s: nothing reads its body", op.OperationID)
			}
			s := subject{operation: op.OperationID, read: reads[op.OperationID], empty: empty, optional: !op.RequestBody.Value.Required}
			for mediaType, content := range op.RequestBody.Value.Content {
				s.kin = content.Schema.Value
				at := "mem:///contract#/paths/" + strings.NewReplacer("{", "%7B", "}", "%7D", "/", "~1").Replace(path) + "/" + strings.ToLower(method) +
					"/requestBody/content/" + strings.ReplaceAll(mediaType, "/", "~1") + "/schema"
				if s.schema, err = c.Compile(at); err != nil {
					t.Fatal(err)
				}
				for _, example := range content.Examples {
					s.good = append(s.good, bodies.Write(example.Value.Value))
				}
			}
			good := schemas[op.OperationID].Sample(nil)
			s.good = append(s.good, bodies.Write(good))
			for _, b := range schemas[op.OperationID].OnBounds(good) {
				s.good = append(s.good, b.Text)
			}
			for _, b := range schemas[op.OperationID].Wrong(good) {
				s.wrong = append(s.wrong, b.Text)
			}
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b subject) int { return strings.Compare(a.operation, b.operation) })
	return all
}

// judge compares what the generated code says of a body with what the reference says, and what it decodes. It returns the tree of a body that is JSON.
func (s *subject) judge(t testing.TB, text string) (tree any, accepted bool, code string) {
	t.Helper()
	var ours, theirs any
	if s.empty != nil {
		ours, theirs = s.empty(), s.empty()
	}
	given, err := check.Decode(text, s.optional, s.read, ours)
	tree, wantGiven, want := decodeByReference(s.schema, text, s.optional, theirs)
	onlyGiven, only := check.Decode(text, s.optional, s.read, nil)
	switch {
	case given != wantGiven || told(err) != told(want):
		t.Errorf("%s: %.2000s\ngiven %v, want %v\nwe say   %s\nthey say %s", s.operation, text, given, wantGiven, told(err), told(want))
	case onlyGiven != given || told(only) != told(err):
		t.Errorf("%s: %.2000s\nwith a destination %s\nwithout one        %s", s.operation, text, told(err), told(only))
	case given && !reflect.DeepEqual(ours, theirs):
		t.Errorf("%s: %.2000s\nwe decode   %#v\nthey decode %#v", s.operation, text, ours, theirs)
	}
	code, _, _ = strings.Cut(told(err), " ")
	return tree, err == nil, code
}

// told is all that a client sees of an error.
func told(err error) string {
	if err == nil {
		return ""
	}
	e := apierr.From(err)
	return fmt.Sprintf("%s %q", e.Code, e.Faults)
}

// Every body gets the verdict of jsonschema/v6, fault by fault, and that of kin-openapi; an accepted one is decoded as encoding/json does.
func TestBodiesAreJudgedAsTheLibrariesJudgeThem(t *testing.T) {
	subjects := subjectsOf(t, api.OpenAPIJSON, api.Bodies, types)
	if len(subjects) != len(api.Bodies) || len(subjects) != len(types) {
		t.Errorf("%d operations have a body, %d are read", len(subjects), len(api.Bodies))
	}
	judgeMany(t, subjects)
}

// The same holds for what internal/bodygen can read and our contract does not use.
func TestBodiesOfTheFixtureAreJudgedAsTheLibrariesJudgeThem(t *testing.T) {
	judgeMany(t, subjectsOf(t, fixture.Contract, fixture.Bodies, map[string]func() any{
		"makeThing": func() any { return new(fixture.Thing) }, "listThings": func() any { return new(fixture.Things) }, "changeThings": nil,
	}))
}

// Of many faults the same ones are told, whatever their order and depth.
func TestHostileBodiesAreJudgedAsTheLibrariesJudgeThem(t *testing.T) {
	for _, s := range subjectsOf(t, api.OpenAPIJSON, api.Bodies, types) {
		if s.operation != "placeOrder" {
			continue
		}
		for _, size := range []int{40, 300, 3000} {
			for _, text := range hostileBodies(size) {
				s.judge(t, text)
			}
		}
	}
}

// A body is REQ_004 only if all that is wrong in it is unknown members, also where more of them than a client sees stand before what else is wrong.
func TestAnyOtherFaultThanUnknownMembersIsREQ002(t *testing.T) {
	subjects := subjectsOf(t, api.OpenAPIJSON, api.Bodies, types)
	place := slices.IndexFunc(subjects, func(s subject) bool { return s.operation == "placeOrder" })
	var unknown strings.Builder
	for i := range 25 {
		fmt.Fprintf(&unknown, `"a%02d":1,`, i)
	}
	const line = `{"sku":"A","quantity":1}`
	order := func(currency, lines, rest string) string {
		return fmt.Sprintf(`{%s"currency":%s,"customer_ref":"c","lines":%s%s}`, &unknown, currency, lines, rest)
	}
	for name, c := range map[string]struct{ text, want string }{
		"nothing else":                {order(`"EUR"`, "["+line+"]", ""), "REQ_004"},
		"a member is missing":         {"{" + unknown.String() + `"currency":"EUR","lines":[` + line + "]}", "REQ_002"},
		"a wrong type":                {order(`"EUR"`, "7", ""), "REQ_002"},
		"null":                        {order("null", "["+line+"]", ""), "REQ_002"},
		"a wrong text":                {order(`"EUR"`, `[{"sku":"a b","quantity":1}]`, ""), "REQ_002"},
		"a wrong enumeration":         {order(`"XXX1"`, "["+line+"]", ""), "REQ_002"},
		"a number too great":          {order(`"EUR"`, `[{"sku":"A","quantity":100000000}]`, ""), "REQ_002"},
		"a fraction":                  {order(`"EUR"`, `[{"sku":"A","quantity":1.5}]`, ""), "REQ_002"},
		"a number in a long form":     {order(`"EUR"`, `[{"sku":"A","quantity":-1e0}]`, ""), "REQ_002"},
		"too few items":               {order(`"EUR"`, "[]", ""), "REQ_002"},
		"too many items":              {order(`"EUR"`, "["+strings.Repeat(line+",", 200)+line+"]", ""), "REQ_002"},
		"a wrong name":                {order(`"EUR"`, "["+line+"]", `,"metadata":{"a b":"x"}`), "REQ_002"},
		"too many members":            {order(`"EUR"`, "["+line+"]", `,"metadata":{`+textMembers(60)+`}`), "REQ_002"},
		"a member of an item":         {order(`"EUR"`, `[{"sku":"A"}]`, ""), "REQ_002"},
		"an unknown one of an item":   {order(`"EUR"`, `[{"sku":"A","quantity":1,"x":2}]`, ""), "REQ_004"},
		"members in an unknown one":   {order(`"EUR"`, "["+line+"]", `,"x":{"lines":7}`), "REQ_004"},
		"what else is wrong is first": {`{"currency":7,` + unknown.String() + `"customer_ref":"c","lines":[` + line + "]}", "REQ_002"},
	} {
		if got := decode("placeOrder", c.text); !strings.HasPrefix(got, c.want+" ") {
			t.Errorf("%s: %.60s, want %s", name, got, c.want)
		}
		subjects[place].judge(t, c.text)
	}
}

// textMembers is n members with a text each.
func textMembers(n int) string {
	members := make([]string, n)
	for i := range members {
		members[i] = fmt.Sprintf(`"m%d":"x"`, i)
	}
	return strings.Join(members, ",")
}

func judgeMany(t *testing.T, subjects []subject) {
	t.Helper()
	judged, kin := 0, 0
	verdicts, canonical := map[string]int{}, map[string]string{}
	judge := func(s *subject, text string) {
		tree, accepted, code := s.judge(t, text)
		verdicts[cmp.Or(code, "accepted")]++
		if tree != nil {
			kin++
			if err := s.kin.VisitJSON(tree, openapi3.EnableJSONSchema2020()); (err == nil) != accepted {
				t.Errorf("%s: %.2000s\naccepted: %v\nkin-openapi says %v", s.operation, text, accepted, err)
			}
		}
		if accepted && s.empty == nil { // equal patches have equal bytes
			value, _ := json.Marshal(tree)
			patch := jsontext.Value(text)
			if err := patch.Canonicalize(); err != nil {
				t.Fatal(err)
			}
			if before, known := canonical[string(value)]; known && before != string(patch) {
				t.Errorf("one patch in two forms: %s, %s", before, patch)
			}
			canonical[string(value)] = string(patch)
		}
	}
	for i := range subjects {
		for _, text := range slices.Concat(subjects[i].good, subjects[i].wrong) {
			judge(&subjects[i], text)
		}
		text := subjects[i].good[0]
		if values, _ := spansOf(text); len(values) <= 6 { // each literal at each place of a small body
			for _, at := range values {
				for _, literal := range literals {
					judge(&subjects[i], text[:at.from]+literal+text[at.to:])
				}
			}
		}
	}
	rng := rand.New(rand.NewPCG(*seed, 0))
	for n := 0; n < *howMany && !t.Failed(); n++ {
		s := &subjects[n%len(subjects)]
		from := s.good
		if rng.IntN(4) == 0 {
			from = s.wrong
		}
		text := from[rng.IntN(len(from))]
		for range rng.IntN(5) {
			text = mutate(rng, text)
		}
		judge(s, text)
	}
	for _, n := range verdicts {
		judged += n
	}
	t.Logf("%d bodies, seed %d: %v; kin-openapi agrees on the %d that are JSON", judged, *seed, verdicts, kin)
}

// mutate changes one thing of a text: some bytes, a value, a member, or how something is written.
func mutate(rng *rand.Rand, text string) string {
	values, members := spansOf(text)
	pick := func(all []span) span { return all[rng.IntN(len(all))] }
	swap := func(s span, by string) string { return text[:s.from] + by + text[s.to:] }
	switch kind := rng.IntN(10); {
	case kind < 1 || len(values) == 0:
		return mutateBytes(rng, text)
	case kind < 4:
		return swap(pick(values), literals[rng.IntN(len(literals))])
	case kind < 6: // the same, written otherwise
		v := pick(values)
		return swap(v, rewrite(rng, text[v.from:v.to]))
	case kind < 7: // a value from elsewhere
		v := pick(values)
		return swap(pick(values), text[v.from:v.to])
	case len(members) == 0:
		return swap(pick(values), "{"+literals[rng.IntN(len(literals))]+":1}")
	case kind < 8: // one member more
		m := pick(members)
		extra := []string{
			text[m.from:m.to], strings.ToUpper(text[m.from:m.from+3]) + text[m.from+3:m.to],
			names[rng.IntN(len(names))] + ":" + literals[rng.IntN(len(literals))], names[rng.IntN(len(names))] + ":{" + text[m.from:m.to] + "}",
		}[rng.IntN(4)]
		return swap(span{m.to, m.to}, ","+extra)
	case kind < 9: // one less
		m := pick(members)
		if m.to < len(text) && text[m.to] == ',' {
			m.to++
		}
		return swap(m, "")
	default: // nested
		v := pick(values)
		deep := []int{1, 2, 31, 32, 33}[rng.IntN(5)]
		if rng.IntN(2) == 0 {
			return swap(v, strings.Repeat("[", deep)+text[v.from:v.to]+strings.Repeat("]", deep))
		}
		return swap(v, strings.Repeat(`{"x":`, deep)+text[v.from:v.to]+strings.Repeat("}", deep))
	}
}

func mutateBytes(rng *rand.Rand, text string) string {
	at := rng.IntN(len(text) + 1)
	to := min(len(text), at+rng.IntN(8))
	switch rng.IntN(6) {
	case 0:
		return text[:at] + text[to:]
	case 1:
		return text[:at]
	case 2:
		return text[:to] + text[at:]
	case 3:
		return text[:at] + pieces[rng.IntN(len(pieces))] + text[at:]
	case 4:
		return text[:at] + pieces[rng.IntN(len(pieces))] + text[to:]
	default:
		return text[:at] + string([]byte{byte(rng.UintN(256))}) + text[to:]
	}
}

// rewrite says a value in another way.
func rewrite(rng *rand.Rand, value string) string {
	switch {
	case value[0] == '"':
		at := 1 + rng.IntN(len(value)-1)
		if c := value[at]; c >= ' ' && c < 0x7f && c != '"' && c != '\\' && value[at-1] != '\\' && !strings.Contains(value, `\u`) {
			return value[:at] + fmt.Sprintf(`\u%04x`, c) + value[at+1:]
		}
	case value[0] == '{', value[0] == '[':
		return value[:1] + []string{" ", "\n", "\t\r", "\u00a0", "\f"}[rng.IntN(5)] + value[1:]
	case !strings.ContainsAny(value, ".eEaul"):
		return value + []string{".0", "e0", "E+0", "0e-1", ".00000000000000000", ".5", "e-1", "e1"}[rng.IntN(8)]
	}
	return " " + value + "\n"
}

// span is a part of a text.
type span struct{ from, to int }

// spansOf finds the values and the members of a text, none if it is no JSON.
func spansOf(text string) (values, members []span) {
	d := jsontext.NewDecoder(strings.NewReader(text), jsontext.AllowDuplicateNames(true))
	var value func() bool
	value = func() bool {
		kind := d.PeekKind()
		if kind != '{' && kind != '[' {
			v, err := d.ReadValue()
			values = append(values, span{int(d.InputOffset()) - len(v), int(d.InputOffset())})
			return err == nil
		}
		_, _ = d.ReadToken()
		from := int(d.InputOffset()) - 1
		for d.PeekKind() != '}' && d.PeekKind() != ']' {
			at := 0
			if kind == '{' {
				name, err := d.ReadValue()
				if err != nil {
					return false
				}
				at = int(d.InputOffset()) - len(name)
			}
			if !value() {
				return false
			}
			if kind == '{' {
				members = append(members, span{at, int(d.InputOffset())})
			}
		}
		_, err := d.ReadToken()
		values = append(values, span{from, int(d.InputOffset())})
		return err == nil
	}
	if !value() {
		return nil, nil
	}
	return values, members
}

var (
	literals = []string{
		"0", "1", "-1", "2.0", "2e0", "0.5", "1e400", "-1e400", "1E+2", "-0", "-0.0", "9007199254740991", "9007199254740992", "-9007199254740991", "-9007199254740992", "9007199254740991.0",
		"9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "1e15", "1e16", "123456789012345678901234567890", "0.1e1", "10000e0", "100e-2", "1e-400", "1e999999999",
		"1e-999999999", "1e0000000000000001", "1.00000000000000001", "2147483648", "00", "01", "+1", ".5", "1.", "1e", "0x10", "NaN", "Infinity", "--1", "-", strings.Repeat("1", 64), strings.Repeat("1", 65), "0." + strings.Repeat("0", 70),
		"null", "true", "false", "nul", "True", "nullnull", "truefalse", `""`, `"x"`, `"EUR"`, `"eur"`, `"EURO"`, `"pm_ok"`, `"a b"`, `".a"`, `"LAMP-0001"`, `"\u0041"`, `"\u0000"`, `"\ud83c\udfee"`, `"\ud800"`, `"\udc00\ud800"`,
		`"🏮"`, `"é"`, `"e\u0301"`, `"\n"`, `"a\/b"`, `"\x"`, "\"\xff\"", "\"\xed\xa0\x80\"", "\"\x7f\"", "\"\x01\"", `"https://example.com/x"`, `"http://"`, `"ftp://x"`, `"2026-11-26T07:10:13Z"`, `"`, `'x'`,
		`"` + strings.Repeat("a", 64) + `"`, `"` + strings.Repeat("a", 65) + `"`, `"` + strings.Repeat("🏮", 500) + `"`, `"` + strings.Repeat("🏮", 501) + `"`, `"` + strings.Repeat("é", 201) + `"`,
		"{}", "[]", "[[]]", "[{}]", `{"a":1}`, `{"a":1,"a":2}`, `{"a":{"b":[1,{"c":null}]}}`, "[1,2,3]", "[null]", "[1,]", "[,1]", `{"a":1,}`, `{"a"}`, `{1:2}`, `{"":1}`, `{"a":1 "b":2}`, "[1 2]", "{", "[", "}", "]", ",", ":",
		`{"amount":1,"currency":"EUR"}`, `{"currency":"eur","amount":-1}`, `{"k1":"v","k 2":"v","k3":5}`, strings.Repeat("[1,", 20) + "1" + strings.Repeat("]", 20), `[` + strings.Repeat(`{},`, 101) + `{}]`,
		`{` + manyMembers(20) + `}`, `{` + manyMembers(21) + `}`, `{` + manyMembers(40) + `}`, `{` + manyMembers(30) + `,"k1":"again"}`,
	}
	names = []string{
		`"unknown"`, `"Currency"`, `"sku"`, `"amount"`, `"currency"`, `"metadata"`, `"lines"`, `""`, `"a/b~c"`, `"\u0061"`, `"curr\u0065ncy"`, `"🏮"`, `"a\u0000"`, `"__proto__"`, `"` + strings.Repeat("n", 65) + `"`,
		`"` + strings.Repeat("🏮", 17) + `"`, `"` + strings.Repeat("n", 300) + `"`, `"a b"`, `"0"`,
	}
	pieces = []string{
		`"`, `\`, `\u`, `\u0000`, `\ud800`, "{", "}", "[", "]", ",", ":", "null", "true", " ", "\n", "\x00", "\xff", "\u00a0", "\ufeff", "0", "-", ".", "e", "1e5", `""`, `{}`, `//`, `/**/`, "\u2028", "🏮", "\xf0\x9f",
	}
)

// manyMembers are n members of texts.
func manyMembers(n int) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf(`"k%d":"v"`, i)
	}
	return strings.Join(all, ",")
}
