package check_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/internal/check"
)

// tenLines is an order of 10 lines.
var tenLines = func() []byte {
	lines := make([]string, 10)
	for i := range lines {
		lines[i] = fmt.Sprintf(`{"sku":"LAMP-%04d","quantity":%d,"expected_unit_price":{"amount":1999,"currency":"EUR"}}`, i, i+1)
	}
	return []byte(`{"currency":"EUR","customer_ref":"cust-4711","lines":[` + strings.Join(lines, ",") +
		`],"payment":{"method_token":"pm_ok"},"metadata":{"channel":"web"}}`)
}()

// BenchmarkDecodeAndValidate reads an order of 10 lines with all checks of the contract, alternately with encoding/json, which checks nothing. It prints the
// ratio of the two, and the allocations of the checks alone, without a destination.
func BenchmarkDecodeAndValidate(b *testing.B) {
	var ours, theirs time.Duration
	const each = 200
	for b.Loop() {
		start := time.Now()
		for range each {
			var order api.PlaceOrder
			if _, err := check.Decode(string(tenLines), false, api.Bodies["placeOrder"], &order); err != nil {
				b.Fatal(err)
			}
		}
		middle := time.Now()
		for range each {
			var order api.PlaceOrder
			if err := json.Unmarshal(tenLines, &order); err != nil {
				b.Fatal(err)
			}
		}
		ours, theirs = ours+middle.Sub(start), theirs+time.Since(middle)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(ours.Nanoseconds())/float64(b.N*each), "ns/decode")
	b.ReportMetric(float64(theirs.Nanoseconds())/float64(b.N*each), "ns/json.Unmarshal")
	b.ReportMetric(float64(ours)/float64(theirs), "ratio")
	b.ReportMetric(allocations(), "allocs/validation")
}

// allocations of the checks of an order that satisfies the contract.
func allocations() float64 {
	text, body := string(tenLines), api.Bodies["placeOrder"]
	return testing.AllocsPerRun(1000, func() {
		if _, err := check.Decode(text, false, body, nil); err != nil {
			panic(err)
		}
	})
}

func TestTheChecksOfAGoodBodyCostNoAllocation(t *testing.T) {
	if n := allocations(); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkDecode(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		var order api.PlaceOrder
		if _, err := check.Decode(string(tenLines), false, api.Bodies["placeOrder"], &order); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkValidate(b *testing.B) {
	b.ReportAllocs()
	text := string(tenLines)
	for b.Loop() {
		if _, err := check.Decode(text, false, api.Bodies["placeOrder"], nil); err != nil {
			b.Fatal(err)
		}
	}
}
