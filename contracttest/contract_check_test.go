package contracttest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ordergate/ordergate/gen/api"
)

func things(t *testing.T) *contract {
	t.Helper()
	text, err := os.ReadFile("testdata/contract.json")
	if err != nil {
		t.Fatal(err)
	}
	c, err := readContract(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Of each kind of difference between an answer and the contract one: where kin-openapi would let it pass, we must not.
func TestWhatAnAnswerCanGetWrong(t *testing.T) {
	c := things(t)
	const good = `{"id":"a","price":{"amount":1},"made_at":"2026-11-23T06:00:00.5Z","tags":{"x":"y"},"note":null,"kind":null}`
	swapped := func(before, after string) string { return strings.Replace(good, before, after, 1) }
	for name, tt := range map[string]struct {
		operation string
		status    int
		header    string // "Name: value" lines; the media type is application/json if not named, and the ETag "a1" below 400
		body      string
		want      []string // pointers
	}{
		"nothing":                        {body: good},
		"nothing, with a charset":        {body: good, header: "Content-Type: application/json; charset=utf-8"},
		"nothing, with a note":           {body: swapped(`"note":null`, `"note":{"text":"abc"}`)},
		"status not declared":            {status: 201, body: good, want: []string{"/status"}},
		"media type not declared":        {header: "Content-Type: text/html", body: good, want: []string{"/header/Content-Type"}},
		"media type missing":             {header: "Content-Type:", body: good, want: []string{"/header/Content-Type"}},
		"required header missing":        {header: "ETag:", body: good, want: []string{"/header/ETag"}},
		"header of another status":       {status: 422, header: "Content-Type: application/problem+json\nETag: \"a1\"", body: `{"status":422,"code":"CAT_001"}`, want: []string{"/header/Etag"}},
		"header breaks its pattern":      {header: `ETag: W/"a1"`, body: good, want: []string{"/header/ETag"}},
		"optional header of wrong type":  {header: "Age: old", body: good, want: []string{"/header/Age"}},
		"optional header out of bounds":  {header: "Age: -1", body: good, want: []string{"/header/Age"}},
		"optional header twice":          {header: "Age: 1\nAge: 2", body: good, want: []string{"/header/Age"}},
		"header and body both":           {header: "ETag:", body: `{}`, want: []string{"/body", "/header/ETag"}},
		"no JSON":                        {body: `{"id":`, want: []string{"/body"}},
		"no body":                        {body: "", want: []string{"/body"}},
		"two documents":                  {body: good + good, want: []string{"/body"}},
		"a name twice":                   {body: swapped(`"id":"a"`, `"id":"b","id":"a"`), want: []string{"/body"}},
		"property missing":               {body: swapped(`"id":"a",`, ``), want: []string{"/body"}},
		"property missing below":         {body: swapped(`{"amount":1}`, `{}`), want: []string{"/body/price"}},
		"property not declared":          {body: swapped(`"id"`, `"shard":1,"id"`), want: []string{"/body/shard"}},
		"property not declared below":    {body: swapped(`"amount":1`, `"amount":1,"cents":1`), want: []string{"/body/price/cents"}},
		"property not declared in oneOf": {body: swapped(`"note":null`, `"note":{"text":"abc","by":"me"}`), want: []string{"/body/note/by"}},
		"type":                           {body: swapped(`"id":"a"`, `"id":1`), want: []string{"/body/id"}},
		"null where none is allowed":     {body: swapped(`"id":"a"`, `"id":null`), want: []string{"/body/id"}},
		"number out of bounds":           {body: swapped(`"amount":1`, `"amount":-1`), want: []string{"/body/price/amount"}},
		"number is no integer":           {body: swapped(`"amount":1`, `"amount":1.5`), want: []string{"/body/price/amount"}},
		"number beyond its format":       {body: swapped(`"amount":1`, `"amount":4294967296`), want: []string{"/body/price/amount"}},
		"time without a zone":            {body: swapped(`06:00:00.5Z`, `06:00:00`), want: []string{"/body/made_at"}},
		"enumeration":                    {body: swapped(`"kind":null`, `"kind":"square"`), want: []string{"/body/kind"}},
		"name of a map's entry":          {body: swapped(`{"x":"y"}`, `{"X":"y"}`), want: []string{"/body"}}, // the place is lost below kin-openapi
		"alternative is wrong inside":    {body: swapped(`"note":null`, `"note":{"text":"too long"}`), want: []string{"/body/note/text"}},
		"several at once":                {body: swapped(`"id":"a","price":{"amount":1}`, `"id":1,"price":{"amount":"1"}`), want: []string{"/body/id", "/body/price/amount"}},

		"304":                {status: 304},
		"304 without ETag":   {status: 304, header: "ETag:", want: []string{"/header/ETag"}},
		"304 with a body":    {status: 304, body: good, want: []string{"/body"}},
		"304 not declared":   {operation: "getNotes", status: 304, want: []string{"/status"}},
		"YAML":               {operation: "getNotes", header: "Content-Type: application/yaml", body: "a: 1\n"},
		"YAML as JSON":       {operation: "getNotes", body: "a: 1\n", want: []string{"/header/Content-Type"}},
		"YAML breaks a rule": {operation: "getNotes", header: "Content-Type: application/yaml", body: "b: 1\n", want: []string{"/body"}},

		"problem":                {status: 422, header: "Content-Type: application/problem+json", body: `{"status":422,"code":"CAT_001"}`},
		"problem as JSON":        {status: 422, body: `{"status":422,"code":"CAT_001"}`, want: []string{"/header/Content-Type"}},
		"problem's extra":        {status: 422, header: "Content-Type: application/problem+json", body: `{"status":422,"code":"CAT_005"}`, want: []string{"/body"}},
		"problem's extra, empty": {status: 422, header: "Content-Type: application/problem+json", body: `{"status":422,"code":"CAT_005","skus":[]}`, want: []string{"/body/skus"}},
		"problem of no kind":     {status: 422, header: "Content-Type: application/problem+json", body: `{"status":422,"code":"CAT_002"}`, want: []string{"/body"}},
		"problem's base":         {status: 422, header: "Content-Type: application/problem+json", body: `{"code":"CAT_001"}`, want: []string{"/body"}},
		"problem of two kinds":   {status: 422, header: "Content-Type: application/problem+json", body: `{"status":422,"code":"CAT_001","skus":["a"]}`, want: []string{"/body/skus"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := http.Header{"Content-Type": {"application/json"}}
			if tt.operation == "" && tt.status < 400 {
				h.Set("ETag", `"a1"`)
			}
			for line := range strings.Lines(tt.header) {
				name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
				if name == "Age" {
					h.Add(name, strings.TrimSpace(value)) // it may be there twice
				} else if h.Set(name, strings.TrimSpace(value)); h.Get(name) == "" {
					h.Del(name)
				}
			}
			op := c.operations["getThing"]
			if tt.operation != "" {
				op = c.operations[tt.operation]
			}
			if tt.status == 0 {
				tt.status = http.StatusOK
			}
			var got []string
			faults := op.check(tt.status, h, []byte(tt.body))
			for _, f := range faults {
				got = append(got, f.pointer)
			}
			slices.Sort(got)
			if !slices.Equal(got, tt.want) {
				t.Errorf("found %v, want %v", faults, tt.want)
			}
		})
	}
}

// The suite holds each request that was served, and each that was refused for its form, against this.
func TestWhatARequestCanGetWrong(t *testing.T) {
	c, err := readContract(api.OpenAPIJSON)
	if err != nil {
		t.Fatal(err)
	}
	const good = `{"currency":"EUR","customer_ref":"c","lines":[{"sku":"a","quantity":1}]}`
	for name, tt := range map[string]struct{ operation, address, header, body, want string }{
		"nothing":              {"placeOrder", "/", "Idempotency-Key: 12345678", good, ""},
		"no body where it may": {"cancelOrder", "/", "Idempotency-Key: 12345678", "", ""},
		"no body":              {"placeOrder", "/", "Idempotency-Key: 12345678", "", "/body is not one JSON document in UTF-8 whose names are unique"},
		"a name twice":         {"placeOrder", "/", "Idempotency-Key: 12345678", good[:1] + `"currency":"EUR",` + good[1:], "/body is not one JSON document in UTF-8 whose names are unique"},
		"an unknown field":     {"placeOrder", "/", "Idempotency-Key: 12345678", good[:1] + `"colour":1,` + good[1:], "/body/colour is not in the contract"},
		"an unknown field below": {"placeOrder", "/", "Idempotency-Key: 12345678", strings.Replace(good, `"sku"`, `"Sku":1,"sku"`, 1),
			"/body/lines/0/Sku is not in the contract"},
		"a header less":         {"placeOrder", "/", "Accept: */*", good, "Idempotency-Key is missing"},
		"a header's pattern":    {"cancelOrder", "/", "Idempotency-Key: 7", "", `Idempotency-Key '7' does not match pattern '^("[!#-~]{8,255}"|[!#-~]{8,255})$'`},
		"a path":                {"cancelOrder", "/ord_1", "Idempotency-Key: 12345678", "", "order_id 'ord_1' does not match pattern '^ord_[0-9a-f]{32}$'"},
		"a query":               {"listOrders", "/?limit=20", "Accept: */*", "", ""},
		"a query out of bounds": {"listOrders", "/?limit=0", "Accept: */*", "", "limit minimum: got 0, want 1"},
		"a query of wrong type": {"listOrders", "/?limit=ten", "Accept: */*", "", "limit got string, want integer"},
		"two of them":           {"listOrders", "/?status=lost&limit=101", "Accept: */*", "", "limit maximum: got 101, want 100; status value must be one of"},
	} {
		r := httptest.NewRequest(http.MethodPost, tt.address, strings.NewReader(tt.body))
		r.Header.Set("Content-Type", "application/json")
		key, value, _ := strings.Cut(tt.header, ": ")
		r.Header.Set(key, value)
		arg := cmp.Or(strings.TrimPrefix(r.URL.Path, "/"), "ord_"+strings.Repeat("0", 32))
		if got, _ := c.operations[tt.operation].accepts(r, arg, []byte(tt.body)); got != tt.want && (tt.want == "" || !strings.HasPrefix(got, tt.want)) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func TestAFindingSaysWhereAndWhat(t *testing.T) {
	f := Finding{Part: "reading", Operation: "getOrder", Request: "GET /v1/orders/ord_1", Status: 200, Pointer: "/body/total", Message: "missing", TraceID: "ct-1"}
	if got, want := f.String(), "reading: getOrder 200 /body/total: missing  [GET /v1/orders/ord_1, trace id ct-1]"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	f.TraceID = "" // a declared operation, of which no answer is known
	if got, want := f.String(), "reading: getOrder 200 /body/total: missing  [GET /v1/orders/ord_1]"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := (Finding{Part: "products", Operation: "listProducts", Message: "nothing"}).String(), "products: listProducts: nothing"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestNobodyAnswers(t *testing.T) {
	begin := time.Now()
	s, err := newSuite(Options{BaseURL: "http://127.0.0.1:1", Key: "og_test_x"})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range flows {
		s.run(t.Context(), p)
	}
	const why = "there is no Ordergate at http://127.0.0.1:1: no answer: "
	if r := s.report(false); len(r.Findings) > 0 || r.Code() != 2 || !strings.HasPrefix(r.Reason, why) || r.Ran() || r.String() != "verdict     COULD NOT RUN: "+r.Reason {
		t.Errorf("%v\n%s", r.Findings, r)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	if _, err = newSuite(Options{BaseURL: "127.0.0.1", Key: "og_test_x"}); err == nil {
		t.Error("an address without a scheme is accepted")
	}
	for _, contract := range []string{"{", `{"paths": {"/things": {"$ref": "#/nothing"}}}`} {
		if _, err = newSuite(Options{BaseURL: "http://127.0.0.1:1", Contract: []byte(contract)}); err == nil {
			t.Errorf("%s is accepted", contract)
		}
	}
}

func TestAnotherServerAnswers(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"404, no problem document": http.NotFound,
		"200, an application for every path": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("<html>"))
		},
		"JSON of another API": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"data":[]}`))
		},
		"our refusal of a path that is none": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"code":"REQ_005"}`))
		},
	} {
		server := httptest.NewServer(answer)
		s, err := newSuite(Options{BaseURL: server.URL, Key: "og_test_x"})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range flows {
			s.run(t.Context(), p)
		}
		if r := s.report(false); len(r.Findings) > 0 || r.Code() != 2 || !strings.HasPrefix(r.Reason, "there is no Ordergate at "+server.URL+": ") {
			t.Errorf("%s: %v\n%s", name, r.Findings, r)
		}
		server.Close()
	}
}

func TestFindingsQuoteWhatWasAnswered(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	s, err := newSuite(Options{BaseURL: server.URL, Key: "og_test_x"})
	if err != nil {
		t.Fatal(err)
	}
	s.get(t.Context(), nil, call{op: "listErrors"}, http.StatusOK, http.StatusNotModified)
	text := fmt.Sprint(s.findings)
	for _, want := range []string{"is not a problem document: ", `is "" and not "/v1/errors"`, "is 0 and not 404", "is not 200 or 304"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in %s", want, text)
		}
	}
}

func TestTheReportHasTenLines(t *testing.T) {
	s, err := newSuite(Options{BaseURL: "http://127.0.0.1:1", Key: "og_test_x"})
	if err != nil {
		t.Fatal(err)
	}
	s.results = []PartResult{{Name: "key", Result: Passed}, {Name: "admission", Result: Passed}}
	text := s.report(false).String()
	if lines := strings.Split(text, "\n"); len(lines) != 10 || !strings.HasPrefix(lines[9], "verdict") {
		t.Errorf("%d lines:\n%s", len(lines), text)
	}
}

// TestAnOlderOrderMayHaveAnOlderPrice: the catalogue of the run says nothing about orders that were placed before it.
func TestAnOlderOrderMayHaveAnOlderPrice(t *testing.T) {
	s, err := newSuite(Options{BaseURL: "http://127.0.0.1:1", Key: "og_test_x"})
	if err != nil {
		t.Fatal(err)
	}
	s.facts.learnProduct(map[string]any{"sku": "A", "name": "A", "prices": []any{map[string]any{"amount": json.Number("5"), "currency": "EUR"}}})
	for customer, want := range map[string]int{"customer-1": 0, s.ref + "-order": 2} {
		money := func(amount string) map[string]any {
			return map[string]any{"amount": json.Number(amount), "currency": "EUR"}
		}
		found := 0
		s.checkSums(map[string]any{
			"customer_ref": customer, "subtotal": money("4"), "discount": money("0"), "shipping": money("0"), "tax": money("0"), "total": money("4"),
			"lines": []any{map[string]any{"sku": "A", "name": "once", "quantity": json.Number("1"), "unit_price": money("4"), "total": money("4"), "discount": money("0")}},
		}, "/body", func(wrong bool, _, _ string, _ ...any) {
			if wrong {
				found++
			}
		})
		if found != want {
			t.Errorf("%s: %d findings", customer, found)
		}
	}
}

// TestAStrangerIsNotedAndACookieIsFound: a header that a proxy adds is no fault of the address, a cookie is, and each is told once.
func TestAStrangerIsNotedAndACookieIsFound(t *testing.T) {
	t.Parallel()
	s := addressed(t, Options{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Powered-By", "PHP")
		w.Header().Set("Set-Cookie", "session=1")
		w.Header().Set("Strict-Transport-Security", "max-age=1")
		w.WriteHeader(http.StatusNotFound)
	})
	s.send(t.Context(), call{op: "getOrder", arg: "ord_1"})
	s.send(t.Context(), call{op: "listOrders"})
	if n := strings.Count(messages(s), "Set-Cookie"); n != 1 || strings.Contains(messages(s), "Powered") {
		t.Errorf("%d findings of the cookie: %s", n, messages(s))
	}
	r := s.report(false)
	const want = "2 answers have the header X-Powered-By, which neither the contract nor HTTP names: a proxy may have added it"
	if len(r.Notes) != 1 || r.Notes[0] != want {
		t.Errorf("%q", r.Notes)
	}
}
