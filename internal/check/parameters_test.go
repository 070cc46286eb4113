package check

import (
	"errors"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
)

// FuzzQuery: a query is split, unescaped and refused as net/url's ParseQuery does.
func FuzzQuery(f *testing.F) {
	for _, query := range []string{
		"", "a=1", "a=1&a=2&b", "=", "&&a==b&", "a=%20+%2B&%61=%C3%A9", "a=%zz", "%=", "a;b=1", "a=1;", "é=\xff", "a=%00", "a=%", "a&=b&a=", strings.Repeat("&", 9_998) + "a",
		strings.Repeat("&", 9_999) + "a", strings.Repeat("&", 10_000), strings.Repeat("a&", 9_999) + "a",
	} {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		want, err := url.ParseQuery(query)
		var p Parameters
		p.Reset(nil, false, query, nil)
		got := url.Values{}
		for p.Next() {
			got.Add(p.Name(), p.text)
		}
		if p.malformed != (err != nil) || err == nil && !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, malformed: %v; net/url has %v %v", query, got, p.malformed, want, err)
		}
	})
}

// TestFaultsOfAQuery: one that cannot be read hides all other faults; unknown names are told once each, cut, and first of all by their places,
// which are JSON pointers in UTF-8 whatever the names are.
func TestFaultsOfAQuery(t *testing.T) {
	t.Parallel()
	faults := func(query string) []apierr.Fault {
		var p Parameters
		p.Reset([]string{"\xff"}, false, query, map[string][]string{"If-Match": {""}})
		var a, b Sent
		for p.Next() {
			switch p.Name() {
			case "a":
				p.Keep(&a)
			case "b":
				p.Keep(&b)
			default:
				p.Unknown()
			}
		}
		p.Path("/path/id", 0).Text(&Text{})
		p.Header("/header/If-Match", "If-Match", true).Text(&Text{})
		p.Query("/query/a", a, true).Text(&Text{})
		p.Query("/query/b", b, false).Integer(&Integer{Max: 9})
		e, _ := errors.AsType[*apierr.Error](p.Err())
		if e == nil || e.Code != errcode.REQ003 {
			t.Fatalf("%q: %v", query, e)
		}
		return e.Faults
	}
	head, id := apierr.Fault{Pointer: "/header/If-Match", Rule: errcode.RuleRequired}, apierr.Fault{Pointer: "/path/id", Rule: errcode.RuleEncoding}
	for query, want := range map[string][]apierr.Fault{
		"a=%zz&x":                         {{Pointer: "/query", Rule: errcode.RuleFormat, Expected: "query string"}},
		"x=1;&b=1":                        {{Pointer: "/query", Rule: errcode.RuleFormat, Expected: "query string"}},
		"":                                {head, id, {Pointer: "/query/a", Rule: errcode.RuleRequired}},
		"a=1&a=1&b=+7":                    {head, id, {Pointer: "/query/a", Rule: errcode.RuleOnce}, {Pointer: "/query/b", Rule: errcode.RuleType, Expected: "integer"}},
		"a=1&b=10&x&x&":                   {head, id, {Pointer: "/query/b", Rule: errcode.RuleMaximum, Expected: "9"}, {Pointer: "/query/x", Rule: errcode.RuleAdditionalProperties}},
		"a=1&" + strings.Repeat("é", 40):  {head, id, {Pointer: "/query/" + strings.Repeat("é", 32), Rule: errcode.RuleAdditionalProperties}},
		"a=1&x" + strings.Repeat("é", 40): {head, id, {Pointer: "/query/x" + strings.Repeat("é", 31), Rule: errcode.RuleAdditionalProperties}},
		"a=1&b/c=1&~":                     {{Pointer: "/query/b~1c", Rule: errcode.RuleAdditionalProperties}, {Pointer: "/query/~0", Rule: errcode.RuleAdditionalProperties}},
		"a=1&%FF=1&%FF%FE":                {{Pointer: "/query/\ufffd", Rule: errcode.RuleAdditionalProperties}, {Pointer: "/query/\ufffd\ufffd", Rule: errcode.RuleAdditionalProperties}},
		"a=1&=1":                          {{Pointer: "/query/", Rule: errcode.RuleAdditionalProperties}},
		"a=1&" + strings.Repeat("/", 65):  {{Pointer: "/query/" + strings.Repeat("~1", 64), Rule: errcode.RuleAdditionalProperties}},
	} {
		if len(want) > 0 && strings.HasPrefix(want[0].Pointer, "/query/") {
			want = slices.Concat([]apierr.Fault{head, id}, want)
		}
		if got := faults(query); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, want %v", query, got, want)
		}
	}
	names := map[string]bool{}
	for i := range 100 {
		names[strings.Repeat("x", i+1)] = true
	}
	if got := faults("a&" + strings.Join(slices.Collect(maps.Keys(names)), "&")); len(got) != apierr.MaxFaults || got[19].Pointer != "/query/"+strings.Repeat("x", 18) {
		t.Errorf("%d faults: %v", len(got), got)
	}
}

// TestParametersCostNoAllocation, as they are in most requests.
func TestParametersCostNoAllocation(t *testing.T) {
	id, limit := Text{Pattern: MustPattern("^ord_[0-9a-f]{32}$")}, Integer{Min: 1, Max: 100}
	path, header := []string{"ord_0198f3c2a4b57d3e8c1f2a3b4c5d6e90"}, map[string][]string{"X-Consistency-Token": {"1.0"}}
	var p Parameters
	if n := testing.AllocsPerRun(100, func() {
		p.Reset(path, false, "limit=50", header)
		var sent Sent
		for p.Next() {
			p.Keep(&sent)
		}
		_, ok := p.Path("/path/order_id", 0).Text(&id)
		_, ok2 := p.Header("/header/X-Consistency-Token", "X-Consistency-Token", false).Text(&Text{MaxLength: 512})
		n, ok3 := p.Query("/query/limit", sent, false).Integer(&limit)
		if !ok || !ok2 || !ok3 || n != 50 || p.Err() != nil {
			t.Error("a good request has faults")
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
