package check

import (
	"reflect"
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

func TestFirstFaults(t *testing.T) {
	var faults []apierr.Fault
	for range 2 {
		for c := 'z'; c >= 'a'; c-- {
			faults = append(faults, apierr.Fault{Pointer: "/" + string(c), Rule: errcode.RuleType}, apierr.Fault{Pointer: "/" + string(c), Rule: errcode.RuleMinimum})
		}
	}
	got := First(faults)
	if len(got) != apierr.MaxFaults || got[0].Pointer != "/a" || got[0].Rule != errcode.RuleMinimum || got[1].Rule != errcode.RuleType || got[19].Pointer != "/j" {
		t.Errorf("%d: %v", len(got), got)
	}
}
