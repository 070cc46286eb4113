package edge

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/order"
)

var howMany = flag.Int("parameters", 5000, "how many requests are judged by the generated code and by the contract")

// The oracle of parameters: the contract as it is published, interpreted for each request.

// documented is an operation as the contract has it.
type documented struct {
	ID          string                 `json:"operationId"` //nolint:tagliatelle // OpenAPI's name
	Security    *[]map[string][]string `json:"security"`
	Parameters  []documentedParameter  `json:"parameters"`
	RequestBody *struct {
		Required bool           `json:"required"`
		Content  map[string]any `json:"content"`
	} `json:"requestBody"` //nolint:tagliatelle // OpenAPI's name
	Responses map[string]struct {
		Content map[string]any `json:"content"`
	} `json:"responses"`
	Codes []errcode.Code `json:"x-error-codes"`
}

type documentedParameter struct {
	Ref      string         `json:"$ref"`
	In       string         `json:"in"`
	Name     string         `json:"name"`
	Required bool           `json:"required"`
	Schema   map[string]any `json:"schema"`
	compiled *jsonschema.Schema
}

// published returns the operations of the contract by method and path, with the schemas of their parameters.
func published(t testing.TB) map[string]documented {
	t.Helper()
	var all struct {
		Paths      map[string]map[string]documented `json:"paths"`
		Components struct {
			Parameters map[string]documentedParameter `json:"parameters"`
		} `json:"components"`
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(api.OpenAPIJSON))
	const at = "mem:///published"
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	c.RegisterFormat(&jsonschema.Format{Name: "date-time", Validate: func(v any) error {
		text, _ := v.(string)
		_, err := rfc3339.Parse(text)
		return err
	}})
	if err = errors.Join(err, json.Unmarshal(api.OpenAPIJSON, &all), c.AddResource(at, doc)); err != nil {
		t.Fatal(err)
	}
	operations := map[string]documented{}
	for path, item := range all.Paths {
		for method, o := range item {
			for i, p := range o.Parameters {
				schemaAt := fmt.Sprintf("/paths/%s/%s/parameters/%d/schema", strings.NewReplacer("/", "~1", "{", "%7B", "}", "%7D").Replace(path), method, i)
				if name, shared := strings.CutPrefix(p.Ref, "#/components/parameters/"); shared {
					schemaAt, p = p.Ref[1:]+"/schema", all.Components.Parameters[name]
				}
				if p.compiled, err = c.Compile(at + "#" + schemaAt); err != nil {
					t.Fatal(err)
				}
				o.Parameters[i] = p
			}
			operations[strings.ToUpper(method)+" "+path] = o
		}
	}
	return operations
}

// TestTheTableOfOperationsIsTheContract that is published, read another way.
func TestTheTableOfOperationsIsTheContract(t *testing.T) {
	operations := published(t)
	table := api.Operations[*request, response](nil)
	if len(table) != len(operations) {
		t.Errorf("%d operations instead of %d", len(table), len(operations))
	}
	for _, o := range table {
		segments := strings.Split(o.Path, "/")
		for i, s := range segments {
			if name, ok := strings.CutPrefix(s, ":"); ok {
				segments[i] = "{" + name + "}"
			}
		}
		d := operations[o.Method+" "+strings.Join(segments, "/")]
		want := o
		want.ID, want.Codes, want.Scopes, want.Signed, want.Idempotent = d.ID, d.Codes, nil, false, false
		if d.Security == nil {
			t.Fatalf("%s inherits its security: the oracle does not know that", o.ID)
		}
		for _, s := range *d.Security {
			want.Scopes = append(want.Scopes, s["bearer"]...)
			_, want.Signed = s["signature"]
		}
		for _, p := range d.Parameters {
			want.Idempotent = want.Idempotent || p.Name == "Idempotency-Key"
		}
		want.MediaType, want.BodyRequired, want.Statuses, want.Produces, want.Stream = "", false, nil, []string{"application/problem+json"}, false
		if d.RequestBody != nil {
			want.BodyRequired = d.RequestBody.Required
			for mediaType := range d.RequestBody.Content {
				want.MediaType = mediaType
			}
		}
		for status, answer := range d.Responses {
			if n, _ := strconv.Atoi(status); n < 400 {
				want.Statuses = append(want.Statuses, n)
			}
			for mediaType := range answer.Content {
				if status < "3" && !slices.Contains(want.Produces, mediaType) {
					want.Produces = append(want.Produces, mediaType)
				}
				want.Stream = want.Stream || mediaType == "text/event-stream"
			}
		}
		if slices.Sort(want.Statuses); slices.Equal(want.Statuses, []int{204}) {
			want.Produces = append(want.Produces, "application/json")
		}
		slices.Sort(want.Produces)
		if (o.Body == nil) != (d.RequestBody == nil) {
			t.Errorf("%s: a body, or nothing that reads it", o.ID)
		}
		o.Handle, want.Handle, o.Body, want.Body = nil, nil, nil, nil
		if !reflect.DeepEqual(o, want) {
			t.Errorf("%+v, the contract has\n%+v", o, want)
		}
	}
}

// lenient are parameters of which no value is refused as a parameter.
var lenient = []string{"X-Trace-ID", "Accept-Language", "Prefer", "Idempotency-Key"}

// judge checks the parameters of a request as the contract says, and returns those that satisfy it.
func judge(o documented, r *request) (values map[string]string, err error) {
	values = map[string]string{}
	var faults []apierr.Fault
	fault := func(p documentedParameter, rule errcode.Rule, expected string) {
		faults = append(faults, apierr.Fault{Pointer: "/" + p.In + "/" + p.Name, Rule: rule, Expected: expected})
	}
	query, err := url.ParseQuery(r.http.URL.RawQuery)
	if err != nil {
		return nil, apierr.E(errcode.REQ003, apierr.Faults(apierr.Fault{Pointer: "/query", Rule: errcode.RuleFormat, Expected: "query string"}))
	}
	for name := range query {
		if !slices.ContainsFunc(o.Parameters, func(p documentedParameter) bool { return p.In == "query" && p.Name == name }) {
			end := len(name)
			for at := range name { // the beginning of a character
				if len(name) > 64 && at <= 64 {
					end = at
				}
			}
			faults = append(faults, apierr.Fault{Pointer: string(jsontext.Pointer("/query").AppendToken(name[:end])), Rule: errcode.RuleAdditionalProperties})
		}
	}
	for _, p := range o.Parameters {
		if slices.Contains(lenient, p.Name) {
			continue
		}
		value, given := "", true
		switch p.In {
		case "path":
			value = r.path.Param(p.Name)
			if plain, err := url.PathUnescape(value); err == nil && r.http.URL.RawPath != "" { // else net/url has decoded it
				value = plain
			}
		case "query":
			value, given = query.Get(p.Name), query.Has(p.Name)
		case "header":
			value = r.http.Header.Get(p.Name)
			given = value != ""
		}
		switch {
		case !given && p.Required:
			fault(p, errcode.RuleRequired, "")
		case !given:
		case p.In == "query" && len(query[p.Name]) > 1:
			fault(p, errcode.RuleOnce, "")
		case !utf8.ValidString(value) || strings.IndexByte(value, 0) >= 0:
			fault(p, errcode.RuleEncoding, "")
		default:
			var v any = value
			if p.Schema["type"] == "integer" {
				if n, err := strconv.ParseInt(value, 10, 64); err == nil && value[0] != '+' {
					v = n
				}
			}
			broken := broken(p.compiled.Validate(v))
			for _, f := range broken {
				if p.In == "query" && f.Expected == "date-time" {
					f.Expected = "date-time (2026-11-27T08:00:00Z, 2026-11-27T09:00:00%2B01:00; %2B = +)"
				}
				fault(p, f.Rule, f.Expected)
			}
			_, issued := r.server.cfg.Signer.Parse(value)
			if len(broken) == 0 && p.Name == "X-Consistency-Token" && !issued {
				fault(p, errcode.RuleSignature, "")
			}
			values[p.Name] = value
		}
	}
	if len(faults) > 0 {
		slices.SortStableFunc(faults, func(a, b apierr.Fault) int { return strings.Compare(a.Pointer, b.Pointer) })
		faults = slices.Compact(faults) // two long names may be one when they are cut
		return nil, apierr.E(errcode.REQ003, apierr.Faults(faults[:min(len(faults), apierr.MaxFaults)]...))
	}
	return values, nil
}

// broken are the rules that a validation found broken, without their place.
func broken(err error) (faults []apierr.Fault) {
	e, _ := errors.AsType[*jsonschema.ValidationError](err)
	if e == nil {
		return nil
	}
	if path := e.ErrorKind.KeywordPath(); len(e.Causes) == 0 && len(path) > 0 {
		var expected string
		switch k := e.ErrorKind.(type) {
		case *kind.Type:
			expected = strings.Join(k.Want, " | ")
		case *kind.Enum:
			values := make([]string, len(k.Want))
			for i, v := range k.Want {
				values[i] = fmt.Sprint(v)
			}
			expected = strings.Join(values, ", ")
		case *kind.Minimum:
			expected = k.Want.RatString()
		case *kind.Maximum:
			expected = k.Want.RatString()
		default:
			expected = fmt.Sprint(reflect.Indirect(reflect.ValueOf(k)).FieldByName("Want"))
		}
		faults = append(faults, apierr.Fault{Rule: errcode.Rule(path[len(path)-1]), Expected: expected})
	}
	for _, cause := range e.Causes {
		faults = append(faults, broken(cause)...)
	}
	slices.SortFunc(faults, func(a, b apierr.Fault) int { return cmp.Compare(a.Rule, b.Rule) })
	return slices.Compact(faults)
}

// probe is a request whose parameters alone are read.
type probe struct {
	*request
	handler bool // one is asked for, for the parameters that an operation alone has
}

// errBound ends the others.
var errBound = errors.New("all parameters are read")

func (p *probe) Checked(ctx context.Context) (context.Context, error) {
	if err := p.sent.Err(); err != nil {
		return ctx, err
	}
	if !p.handler {
		return ctx, errBound
	}
	return ctx, nil
}

func (p *probe) Decode(any) (bool, error) { return true, nil }

// own is what the handler of an operation that has parameters of its own is given.
type own struct {
	api.Handlers[*probe, any]
}

var withOwn = strings.Fields("getError listOrders getOrder streamOrder listPayments listProducts listRefunds takeProviderCallback")

func (own) GetError(_ context.Context, _ *probe, p api.GetErrorParams) (any, error) { return p, nil }

func (own) ListOrders(_ context.Context, _ *probe, p api.ListOrdersParams) (any, error) {
	return p, nil
}

func (own) GetOrder(_ context.Context, _ *probe, p api.GetOrderParams) (any, error) { return p, nil }

func (own) StreamOrder(_ context.Context, _ *probe, p api.StreamOrderParams) (any, error) {
	return p, nil
}

func (own) ListPayments(_ context.Context, _ *probe, p api.ListPaymentsParams) (any, error) {
	return p, nil
}

func (own) ListProducts(_ context.Context, _ *probe, p api.ListProductsParams) (any, error) {
	return p, nil
}

func (own) ListRefunds(_ context.Context, _ *probe, p api.ListRefundsParams) (any, error) {
	return p, nil
}

func (own) TakeProviderCallback(_ context.Context, _ *probe, p api.TakeProviderCallbackParams, _ api.ProviderCallback) (any, error) {
	return p, nil
}

// values are the parameters that a request and its handler got, by their names.
func values(r *request, own any) map[string]string {
	values := map[string]string{}
	set := func(name, value string) {
		if value != "" {
			values[name] = value
		}
	}
	id := func(name, prefix string, id order.ID) {
		if !id.IsZero() {
			set(name, id.Format(prefix))
		}
	}
	id("order_id", order.PrefixOrder, r.orderID)
	id("payment_id", order.PrefixPayment, r.paymentID)
	id("refund_id", order.PrefixRefund, r.refundID)
	id("shipment_id", order.PrefixShipment, r.shipmentID)
	set("sku", r.sku)
	if r.page.Limit != 20 {
		set("limit", strconv.Itoa(r.page.Limit))
	}
	set("cursor", r.page.Cursor)
	set("If-None-Match", r.ifNoneMatch)
	set("If-Match", r.ifMatch)
	if r.token != (token.Token{}) {
		set("X-Consistency-Token", r.server.cfg.Signer.Sign(r.token))
	}
	if own == nil {
		return values
	}
	for name, field := range map[string]string{
		"code": "Code", "status": "Status", "customer_ref": "CustomerRef", "reference": "Reference", "created_from": "CreatedFrom", "created_to": "CreatedTo",
		"version": "Version", "as_of": "AsOf", "Last-Event-ID": "LastEventID", "q": "Q", "payment_id": "PaymentID", "provider": "Provider",
	} {
		if v := reflect.ValueOf(own).FieldByName(field); v.IsValid() && (v.Kind() != reflect.Pointer || !v.IsNil()) {
			if v = reflect.Indirect(v); v.Type() == reflect.TypeFor[rfc3339.Time]() {
				set(name, v.Interface().(rfc3339.Time).Format(time.RFC3339Nano))
			} else {
				set(name, fmt.Sprint(v.Interface()))
			}
		}
	}
	return values
}

// plain writes values of the oracle as values writes them.
func plain(values map[string]string) map[string]string {
	same := map[string]string{}
	for name, value := range values {
		switch n, err := strconv.ParseInt(value, 10, 64); {
		case name == "limit" && n == 20 || value == "":
			continue
		case (name == "limit" || name == "version") && err == nil:
			value = strconv.FormatInt(n, 10)
		case name == "created_from", name == "created_to", name == "as_of":
			t, _ := rfc3339.Parse(value)
			value = t.Format(time.RFC3339Nano)
		case strings.HasSuffix(name, "_id") && strings.HasSuffix(value, strings.Repeat("0", 32)):
			continue
		}
		same[name] = value
	}
	return same
}

// corpus makes parameters: right ones, almost right ones, and rubbish.
type corpus struct {
	*rand.Rand
	tokens []string
}

var (
	numbers = []string{
		"0", "-0", "-1", "00", "1", "+1", "007", "1.0", "1e2", "20", "100", "101", "0x10", "1_0", " 1", "9007199254740991", "9007199254740992", "9223372036854775807",
		"9223372036854775808", "-9223372036854775809", "2147483648", "999999999999999", "9999999999999999", "99999999999999999",
	}
	scraps = append([]string{
		"", " ", "\x00", "a\x00b", "\xff", "a\xc3", "é", "🏮", "%", "%zz", "%2", "+", ";", "&", "=", "\"", "\\", "null", "true", "-",
		"pending", "confirmed", "Confirmed", "confirmed ", "2026-11-27T08:00:00Z", "2026-11-27t08:00:00z", "2026-11-27T09:00:00+01:00", "2026-11-27", "2026-02-30T00:00:00Z",
		"2026-11-27T08:00:00.123456789Z", "2026-11-27T08:00:00.1234567890123456789012345Z", "2026-11-27T24:00:00Z", "0001-01-01T00:00:00Z", "2026-11-27T08:00:00+24:00",
		"LAMP-0001", "customer-42", ".a", "-a", "_", "a.b", "a/b", "PAY_003", "P_003", "SEVENS_003", "PAY_0033", "lamp", "psp",
		"*", `"1"`, `W/"1"`, `"1", "2"`, `"1","2`, `W/`, `""`, `"é"`, "\"1\"\t,\t\"2\"",
		"ord_" + "0198f3c2a4b57d3e8c1f2a3b4c5d6e90", "pay_0198f3c2a4b57d3e8c1f2a3b4c5d6e90", "ref_0198f3c2a4b57d3e8c1f2a3b4c5d6e90", "shp_0198f3c2a4b57d3e8c1f2a3b4c5d6e90",
		"ord_0198F3C2A4B57D3E8C1F2A3B4C5D6E90", "ord_00000000000000000000000000000000", "ord_",
	}, numbers...)
	long = []int{1, 39, 40, 41, 63, 64, 65, 255, 256, 511, 512, 513, 1023, 1024, 1025, 5000}
)

// value is one for a parameter of that name, by chance a right one.
func (c *corpus) value(name string) string {
	var v string
	switch n := c.IntN(10); {
	case n < 5:
		right := map[string][]string{
			"order_id": {"ord_0198f3c2a4b57d3e8c1f2a3b4c5d6e90"}, "payment_id": {"pay_0198f3c2a4b57d3e8c1f2a3b4c5d6e90"}, "refund_id": {"ref_0198f3c2a4b57d3e8c1f2a3b4c5d6e90"},
			"shipment_id": {"shp_0198f3c2a4b57d3e8c1f2a3b4c5d6e90"}, "sku": {"LAMP-0001", "a", strings.Repeat("a", 64)}, "code": {"PAY_003", "REQ_012"}, "limit": {"1", "20", "100", "007"},
			"version": {"1", "9007199254740991"}, "status": {"pending", "completed"}, "customer_ref": {"customer-42"}, "reference": {"PO-2026-0042"}, "q": {"lamp", "台灯", strings.Repeat("灯", 64)},
			"created_from": {"2026-11-27T08:00:00Z", "2026-11-27T09:00:00+01:00", "2026-11-27T08:00:00.123456789Z"}, "created_to": {"2026-11-27t08:00:00z"}, "as_of": {"0001-01-01T00:00:00Z"},
			"cursor": {"abc", strings.Repeat("c", 512)}, "Last-Event-ID": {"0", "12", "9999999999999999"}, "If-Match": {"*", `"1"`, `"1", W/"2"`}, "If-None-Match": {`"1"`, "anything"},
			"X-Consistency-Token": c.tokens, "provider": {"psp"},
		}[name]
		if right == nil {
			right = scraps
		}
		v = right[c.IntN(len(right))]
	case n < 8 && (name == "limit" || name == "version" || name == "Last-Event-ID"):
		v = numbers[c.IntN(len(numbers))]
	case n < 8:
		v = scraps[c.IntN(len(scraps))]
	default:
		v = strings.Repeat([]string{"a", "0", "é", "🏮", "\"", "!"}[c.IntN(6)], long[c.IntN(len(long))])
	}
	for c.IntN(6) == 0 { // almost
		i := c.IntN(len(v) + 1)
		v = v[:i] + scraps[c.IntN(len(scraps))] + v[min(len(v), i+c.IntN(2)):]
	}
	return v
}

// escape writes a name or value of a query in one of the ways that there are, wrong ones too.
func (c *corpus) escape(s string) string {
	switch c.IntN(5) {
	case 0:
		return s
	case 1:
		var b strings.Builder
		for i := range len(s) {
			fmt.Fprintf(&b, "%%%02x", s[i])
		}
		return b.String()
	case 2:
		return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
	default:
		return url.QueryEscape(s)
	}
}

func (c *corpus) query(o documented) string {
	var names []string
	for _, p := range o.Parameters {
		if p.In == "query" {
			names = append(names, p.Name)
		}
	}
	pairs := []string{}
	for range c.IntN(4) * c.IntN(3) {
		name := scraps[c.IntN(len(scraps))]
		if len(names) > 0 && c.IntN(8) > 0 {
			name = names[c.IntN(len(names))]
		} else if c.IntN(4) == 0 {
			name = strings.Repeat("né", long[c.IntN(len(long))])
		}
		pair := c.escape(name)
		if c.IntN(20) > 0 {
			pair += "=" + c.escape(c.value(name))
		}
		pairs = append(pairs, pair)
	}
	if c.IntN(50) == 0 {
		for i := range c.IntN(60) {
			pairs = append(pairs, fmt.Sprintf("unknown%d=", i%40))
		}
	}
	if c.IntN(2000) == 0 {
		pairs = slices.Repeat([]string{"x"}, 9_999+c.IntN(4))
	}
	separator := "&"
	if c.IntN(30) == 0 {
		separator = []string{";", "&&", "&;"}[c.IntN(3)]
	}
	return strings.Join(pairs, separator)
}

// TestParametersAreTheContract: the generated code and the interpreted contract have one verdict of each request, one list of faults, and the same values.
func TestParametersAreTheContract(t *testing.T) {
	t.Parallel()
	s := deadServer(t)
	seed := uint64(time.Now().UnixNano())
	c := corpus{Rand: rand.New(rand.NewPCG(seed, 0)), tokens: []string{s.sign(token.Token{LSN: 7}), s.sign(token.Token{LSN: 9, Key: "ord_1", Rev: 3})}}
	operations, table := published(t), api.Operations[*probe, any](own{})
	good, faulty := 0, map[errcode.Rule]int{}
	for i := range *howMany {
		o := table[c.IntN(len(table))]
		segments, path := strings.Split(o.Path, "/"), strings.Split(o.Path, "/")
		for i, s := range segments {
			if name, ok := strings.CutPrefix(s, ":"); ok {
				segments[i], path[i] = "{"+name+"}", url.PathEscape(c.value(name))
				if c.IntN(4) == 0 {
					path[i] = strings.ReplaceAll(url.QueryEscape(c.value(name)), "+", "%2B")
				}
			}
		}
		d := operations[o.Method+" "+strings.Join(segments, "/")]
		u, err := url.ParseRequestURI(strings.Join(path, "/"))
		if err != nil {
			continue
		}
		u.RawQuery = c.query(d)
		hr := &http.Request{Method: o.Method, URL: u, Header: http.Header{}, Body: http.NoBody}
		for _, p := range d.Parameters {
			if p.In == "header" && c.IntN(2) == 0 {
				hr.Header[http.CanonicalHeaderKey(p.Name)] = []string{c.value(p.Name)}
			}
		}
		r := s.begin(httptest.NewRecorder(), hr)
		if s.find(r); r.op == nil || r.op.ID != o.ID { // an empty part of the path
			s.end(r)
			continue
		}
		sent, want := judge(d, r)
		params, got := o.Handle(t.Context(), &probe{r, slices.Contains(withOwn, o.ID)})
		if errors.Is(got, errBound) {
			got = nil
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d, request %d: %s %s %v:\n%+v, the contract says\n%+v", seed, i, o.Method, u, hr.Header, got, want)
		}
		if want == nil {
			good++
			if sent, got := plain(sent), values(r, params); !reflect.DeepEqual(got, sent) {
				t.Fatalf("seed %d, request %d: %s %s %v: got\n%q, sent\n%q", seed, i, o.Method, u, hr.Header, got, sent)
			}
		} else {
			for _, f := range apierr.From(want).Faults {
				faulty[f.Rule]++
			}
		}
		s.end(r)
	}
	t.Logf("%d requests satisfy the contract; faults of the others: %v", good, faulty)
	if rules := "additionalProperties encoding enum format maxLength maximum minLength minimum once pattern signature type"; good < *howMany/10 || len(faulty) != len(strings.Fields(rules)) {
		t.Errorf("the corpus is too thin: %d good ones, %v", good, faulty)
	}
}
