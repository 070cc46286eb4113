package check_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/internal/check"
)

// FuzzDecode has any text judged by the generated code and by the libraries.
func FuzzDecode(f *testing.F) {
	subjects := subjectsOf(f, api.OpenAPIJSON, api.Bodies, types)
	for i, s := range subjects {
		for _, text := range append(s.good, s.wrong[:len(s.wrong)/4]...) {
			f.Add(uint8(i), text)
		}
	}
	f.Fuzz(func(t *testing.T, operation uint8, text string) {
		subjects[int(operation)%len(subjects)].judge(t, text)
	})
}

func decode(operation, text string) string {
	_, err := check.Decode(text, false, api.Bodies[operation], nil)
	return told(err)
}

// A bad name is named where it stands, also if the same name stands elsewhere.
func TestBadNamesAreNamedWhereTheyStand(t *testing.T) {
	for text, want := range map[string]string{
		`{"currency":{"a b":1},"customer_ref":"c","lines":[{"sku":"A","quantity":1}],"metadata":{"a b":"x"}}`: `REQ_002 [{"/currency" "type" "string"} {"/metadata/a b" "pattern" "^[A-Za-z0-9._-]{1,40}$"}]`,
		`{"a b":{"a b":1},"currency":"EUR","customer_ref":"c","lines":[{"sku":"A","quantity":1}],"metadata":{"a b":7}}`: `REQ_002 [{"/a b" "additionalProperties" ""} {"/metadata/a b" "pattern" "^[A-Za-z0-9._-]{1,40}$"} ` +
			`{"/metadata/a b" "type" "string"}]`,
	} {
		if got := decode("placeOrder", text); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", text, got, want)
		}
	}
}

// The place of malformed JSON is a JSON pointer (RFC 6901) in UTF-8, also where it is cut.
func TestThePlaceOfMalformedJSONIsAPointer(t *testing.T) {
	for name, want := range map[string]string{
		"a/b~": "/a~1b~0", strings.Repeat("a", 254) + "/": "/" + strings.Repeat("a", 254), strings.Repeat("a", 254) + "é": "/" + strings.Repeat("a", 254) + "?",
	} {
		if got := decode("placeOrder", `{"`+name+`":x`); !strings.HasPrefix(got, `REQ_001 [{"`+want+`" "syntax"`) {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// A body that has other characters than JSON's own space is not left out: it is no JSON.
func TestABodyOfStrangeSpaceIsNoJSON(t *testing.T) {
	for _, text := range []string{"\u00a0", "\u0085", "\v", "\f", " \u2003 "} {
		if got := decode("cancelOrder", text); !strings.HasPrefix(got, "REQ_001") {
			t.Errorf("%q: %s", text, got)
		}
	}
}

// nested is a body that nests as deep as it is sent.
func nested(r *check.Reader, to any) {
	o := r.Object(check.OrNull)
	for o.Next() {
		o.Known(0)
		nested(r, to)
	}
}

func TestDepthIsBounded(t *testing.T) {
	for depth, want := range map[int]string{check.MaxDepth: "", check.MaxDepth + 1: `REQ_001 [{"` + strings.Repeat("/x", check.MaxDepth) + `" "depth" ""}]`, 40_000: `REQ_001 [{"` + strings.Repeat("/x", check.MaxDepth) + `" "depth" ""}]`} {
		text := strings.Repeat(`{"x":`, depth-1) + "{}" + strings.Repeat("}", depth-1)
		if _, err := check.Decode(text, false, nested, nil); told(err) != want {
			t.Errorf("%d deep: %s", depth, told(err))
		}
	}
}

// hostileBodies are bodies of placeOrder of a size, each full of one thing that may be dear.
func hostileBodies(size int) map[string]string {
	fill := func(before, piece, after string) string { // piece may number itself
		var b strings.Builder
		b.WriteString(before)
		for i := 0; b.Len() < size-len(piece)-len(after)-16; i++ {
			if strings.Contains(piece, "%d") {
				fmt.Fprintf(&b, piece, i)
			} else {
				b.WriteString(piece)
			}
		}
		return b.String() + after
	}
	fall := func(before, piece, after string) string { // the numbers fall, so that each fault is before all others
		pieces := strings.SplitAfter(fill("", piece, ""), ",")
		slices.Reverse(pieces)
		return before + strings.Join(pieces, "") + after
	}
	name := strings.Repeat("n", 60)
	return map[string]string{
		"brackets": fill("", "[", ""), "braces": fill("", `{"x":`, ""), "unknown members": fill("{", `"%d":0,`, `"x":0}`), "unknown members, falling": fall("{", `"%06d":0,`, `"x":0}`), "the same member": fill("{", `"x":0,`, `"x":0}`),
		"unknown members with long names": fill(`{"lines":[{`, `"`+name+`%d":0,`, `"x":0}]}`), "unknown members that are escaped": fill("{", `"\u0041%d":0,`, `"x":0}`), "unknown members, null": fill("{", `"%d":null,`, `"x":0}`),
		"items of a wrong type": fill(`{"lines":[`, "0,", "0]}"), "empty items": fill(`{"lines":[`, "{},", "{}]}"), "items": fill(`{"lines":[`, `{"sku":"A","quantity":1},`, "1]}"), "unknown members of items": fill(`{"lines":[`, `{"a":1},`, "{}]}"),
		"wrong texts": fill(`{"lines":[`, `{"sku":"a b"},`, "{}]}"), "wrong numbers": fill(`{"lines":[`, `{"quantity":-1},`, "{}]}"), "long numbers": fill(`{"lines":[`, `{"quantity":1e0},`, "{}]}"), "wrong enumerations": fill(`{"lines":[`, `{"expected_unit_price":{"currency":"x"}},`, "{}]}"),
		"long numbers that are skipped": fill(`{"x":[`, `1e300,`, "0]}"), "exponents that are skipped": fill(`{"x":[`, `1e0,`, "0]}"),
		"bad names": fill(`{"metadata":{`, `"%d ":0,`, `"x":0}}`), "bad values": fill(`{"metadata":{`, `"%d":0,`, `"x":0}}`), "good names": fill(`{"metadata":{`, `"%d":"",`, `"x":""}}`), "nested in an unknown member": fill(`{"x":[`, `{"a":[[{}]]},`, `0]}`),
		"escapes": fill(`{"currency":"`, `\u0041`, `"}`), "bad escapes": fill(`{"currency":"`, `\ud800`, `"}`), "beyond ASCII": fill(`{"currency":"`, `🏮`, `"}`), "digits": fill(`{"lines":`, "1", "}"), "spaces": fill("", " ", "{}"), "strings": fill("[", `"a",`, `""]`),
		"a long name with faults": `{"metadata":{"` + strings.Repeat("n", size/2) + `":` + fill("", "[", strings.Repeat("]", 9)), "quotes": fill("", `"`, ""), "backslashes": fill(`"`, `\`, ""),
		"items, then NUL": fill(`{"lines":[`, "0,", `"\u0000"]}`), "items, then a number too great": fill(`{"x":[`, "0,", `1e999]}`), "items, then depth": fill(`{"lines":[`, "0,", strings.Repeat("[", 40)+strings.Repeat("]", 40)+`]}`), "texts, then NUL": fill(`{"x":[`, `"a",`, `"\u0000"]}`),
		"members, then NUL": fill(`{"x":[`, `{"a":1},`, `"\u0000"]}`), "items, then no end": fill(`{"lines":[`, "0,", ""), "unknown members, then one twice": fill("{", `"%d":0,`, `"0":0}`),
	}
}

// The largest body that is read, whatever is in it, takes a bounded multiple of its size.
func TestHostileBodiesTakeBoundedMemory(t *testing.T) {
	const size = 256 << 10
	for name, text := range hostileBodies(size) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := check.Decode(text, false, api.Bodies["placeOrder"], new(api.PlaceOrder)); err == nil {
			t.Errorf("%s: accepted", name)
		}
		runtime.ReadMemStats(&after)
		times := float64(after.TotalAlloc-before.TotalAlloc) / size
		t.Logf("%s: %.1f times its size", name, times)
		if times > 16 {
			t.Errorf("%s: %.1f times its size", name, times)
		}
	}
}
