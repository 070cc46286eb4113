package rfc3339

import (
	"encoding/json"
	"testing"
	"time"
)

func TestTimesHaveSixDigitsAlways(t *testing.T) {
	for want, in := range map[string]time.Time{
		`"2026-11-26T07:10:13.120000Z"`: time.Date(2026, 11, 26, 7, 10, 13, 120_000_000, time.UTC),
		`"2026-11-26T07:10:13.000000Z"`: time.Date(2026, 11, 26, 8, 10, 13, 999, time.FixedZone("", 3600)),
	} {
		got, err := json.Marshal(map[string]any{"t": New(in)})
		if err != nil || string(got) != `{"t":`+want+`}` {
			t.Errorf("%s: %s, %v", want, got, err)
		}
		var back struct {
			T Time `json:"t"`
		}
		if err := json.Unmarshal(got, &back); err != nil || !back.T.Equal(New(in).Time) {
			t.Errorf("%s read back: %v, %v", want, back.T, err)
		}
	}
}

func TestRFC3339IsReadStrictly(t *testing.T) {
	for text, ok := range map[string]bool{
		"2026-11-26T07:10:13Z":      true,
		"2026-11-26T07:10:13.5Z":    true,
		"2026-11-26T07:10:13+01:00": true,
		"2026-11-26t07:10:13z":      true,
		"0001-01-01T00:00:00Z":      true,
		"2026-11-26T7:10:13Z":       false,
		"2026-11-26T7:10:13.55Z":    false,
		"2026-11-26T07:10:13,5Z":    false,
		"2026-11-26 07:10:13Z":      false,
		"2026-11-26T07:10:13":       false,
		"2026-02-30T00:00:00Z":      false,
		"2026-11-26T24:00:00Z":      false,
		"2026-11-26T07:10:13+24:00": false,
		"2026-11-26":                false,
		"":                          false,
	} {
		var got Time
		if err := got.UnmarshalText([]byte(text)); (err == nil) != ok {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}
