package check_test

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
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

// BenchmarkDecodeAndValidate reads an order of 10 lines with all checks of the contract, in turn with encoding/json, which checks nothing. Each is given the body
// as it takes it, in memory. It prints the ratio of the medians, once more with the copy that makes a string of a body, and the allocations of the checks
// alone, without a destination.
func BenchmarkDecodeAndValidate(b *testing.B) {
	text, body := string(tenLines), api.Bodies["placeOrder"]
	contenders := []func(*api.PlaceOrder) error{
		func(o *api.PlaceOrder) error { _, err := check.Decode(text, false, body, o); return err },
		func(o *api.PlaceOrder) error { _, err := check.Decode(string(tenLines), false, body, o); return err },
		func(o *api.PlaceOrder) error { return json.Unmarshal(tenLines, o) },
	}
	var rounds [3][]time.Duration
	for b.Loop() {
		for i, decode := range contenders {
			start := time.Now()
			for range 100 {
				if err := decode(new(api.PlaceOrder)); err != nil {
					b.Fatal(err)
				}
			}
			rounds[i] = append(rounds[i], time.Since(start)/100)
		}
	}
	var median [3]float64
	for i := range rounds {
		slices.Sort(rounds[i])
		median[i] = float64(rounds[i][len(rounds[i])/2].Nanoseconds())
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median[0], "ns/decode")
	b.ReportMetric(median[2], "ns/json.Unmarshal")
	b.ReportMetric(median[0]/median[2], "ratio")
	b.ReportMetric(median[1]/median[2], "ratio-with-copy")
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

// hostileRatio is what a body costs, in units of what right bodies of ten lines cost that have as many bytes together: the least of up to 100 pairs, since
// whatever else runs on the machine only adds. It ends early at a ratio that is good enough.
func hostileRatio(text string, enough float64) (ratio float64) {
	right, body := string(tenLines), api.Bodies["placeOrder"]
	least := [2]time.Duration{math.MaxInt64, math.MaxInt64}
	for round := range 100 {
		start := time.Now()
		for range len(text)/len(right) + 1 {
			if _, err := check.Decode(right, false, body, new(api.PlaceOrder)); err != nil {
				panic(err)
			}
		}
		between := time.Now()
		if _, err := check.Decode(text, false, body, new(api.PlaceOrder)); err == nil {
			panic("a hostile body is accepted")
		}
		least[0], least[1] = min(least[0], between.Sub(start)), min(least[1], time.Since(between))
		if ratio = float64(least[1]) / float64(least[0]); round > 0 && ratio <= enough {
			break
		}
	}
	return ratio
}

// BenchmarkHostileBodies prints for each of the hostile bodies what it costs, in units of right bodies of as many bytes.
func BenchmarkHostileBodies(b *testing.B) {
	for name, text := range hostileBodies(256 << 10) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				_, _ = check.Decode(text, false, api.Bodies["placeOrder"], new(api.PlaceOrder))
			}
			b.ReportMetric(hostileRatio(text, 0), "ratio")
		})
	}
}

// A body of nothing but faults costs little more than right bodies of its size: a client that may send so many bytes cannot have so much more CPU.
// A quarter of the largest size is enough: what grows faster than the size shows there, too, and it fits between two turns of a busy machine's other work.
func TestHostileBodiesCostAboutWhatRightOnesCost(t *testing.T) {
	for name, text := range hostileBodies(64 << 10) {
		if ratio := hostileRatio(text, 10); ratio > 10 {
			t.Errorf("%s: %.1f times what right bodies of its size cost", name, ratio)
		}
	}
}
