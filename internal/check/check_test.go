package check

import (
	"cmp"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"testing"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
)

func TestFaultsOfTexts(t *testing.T) {
	name := Text{MinLength: 2, MaxLength: 3, Pattern: MustPattern("^[a-z🏮]*$")}
	for _, c := range []struct {
		demand Text
		value  string
		want   []apierr.Fault
	}{
		{Text{}, "", nil},
		{name, "🏮🏮🏮", nil},
		{name, "🏮", []apierr.Fault{{Rule: errcode.RuleMinLength, Expected: "2"}}},
		{name, "aaaA", []apierr.Fault{{Rule: errcode.RuleMaxLength, Expected: "3"}, {Rule: errcode.RulePattern, Expected: "^[a-z🏮]*$"}}},
		{Text{Enum: []string{"a", "b"}, MinLength: 1}, "b", nil},
		{Text{Enum: []string{"a", "b"}, MinLength: 1}, "", []apierr.Fault{{Rule: errcode.RuleEnum, Expected: "a, b"}}},
		{Text{DateTime: true, MaxLength: 20}, "2026-11-26T07:10:13Z", nil},
		{Text{DateTime: true, MaxLength: 20}, "2026-11-26T07:10:13.123Z", []apierr.Fault{{Rule: errcode.RuleMaxLength, Expected: "20"}}},
		{Text{DateTime: true, MinLength: 1}, "", []apierr.Fault{{Rule: errcode.RuleFormat, Expected: "date-time"}}},
	} {
		if got := c.demand.Faults(c.value); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %v, want %v", c.value, got, c.want)
		}
	}
}

func TestFaultsOfIntegers(t *testing.T) {
	i := Integer{Min: -1, Max: 1, Not: new(int64(0))}
	for n, want := range map[int64][]apierr.Fault{
		1: nil, -1: nil,
		2:  {{Rule: errcode.RuleMaximum, Expected: "1"}},
		-2: {{Rule: errcode.RuleMinimum, Expected: "-1"}},
		0:  {{Rule: errcode.RuleNot, Expected: "0"}},
	} {
		if got := i.Faults(n); !reflect.DeepEqual(got, want) {
			t.Errorf("%d: %v, want %v", n, got, want)
		}
	}
}

func TestGoodValuesCostNoAllocation(t *testing.T) {
	id, at, n := Text{MaxLength: 64, Pattern: MustPattern(sequences[0])}, Text{DateTime: true, MaxLength: 40}, Integer{Max: 9}
	if got := testing.AllocsPerRun(100, func() {
		if id.Faults("LAMP-0001") != nil || at.Faults("2026-11-26T07:10:13Z") != nil || n.Faults(5) != nil {
			t.Error("a good value has faults")
		}
	}); got > 0 {
		t.Errorf("%v allocations", got)
	}
}

// Whatever the order in which faults are found: the first by their places are told, each once.
func TestFirstFaults(t *testing.T) {
	var all []apierr.Fault
	for i := range 200 {
		f := apierr.Fault{Pointer: "/" + strconv.Itoa(i*7919%1000), Rule: errcode.RuleType}
		all = append(all, f, f, apierr.Fault{Pointer: f.Pointer, Rule: errcode.RuleMinimum}, apierr.Fault{Pointer: f.Pointer, Rule: errcode.RuleMinimum, Expected: "1"})
	}
	want := slices.Clone(all)
	slices.SortFunc(want, func(a, b apierr.Fault) int {
		return cmp.Or(cmp.Compare(a.Pointer, b.Pointer), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Expected, b.Expected))
	})
	want = slices.Compact(want)
	for seed := range uint64(100) {
		rand.New(rand.NewPCG(seed, 0)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		var got firstFaults
		most := int(seed) * 8
		for _, f := range all[:most] {
			if got.mayTake([]byte(f.Pointer)) {
				got.add(f.Pointer, f.Rule, f.Expected)
			}
		}
		expected := slices.DeleteFunc(slices.Clone(want), func(f apierr.Fault) bool { return !slices.Contains(all[:most], f) })
		if expected = expected[:min(len(expected), apierr.MaxFaults)]; !slices.Equal(got, expected) {
			t.Fatalf("of %d faults: %v, want %v", most, got, expected)
		}
	}
}
