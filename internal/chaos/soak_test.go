package main

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// TestSoak runs it for 20 s, which judges no growth. The programs are those that make built.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts servers")
	}
	t.Parallel()
	var table bytes.Buffer
	if err := soak(t.Context(), 20*time.Second, "../../bin", &table, t.Logf); err != nil {
		t.Errorf("%v\n%s", err, &table)
	}
}

func TestSoakTime(t *testing.T) {
	for minutes, want := range map[string]time.Duration{
		"": soakFor, "1": time.Minute, "0.5": 30 * time.Second, "10080": 7 * 24 * time.Hour,
		"abc": 0, "1m": 0, "-1": 0, "0": 0, "0.001": 0, "10081": 0, "1e300": 0, "NaN": 0, "Inf": 0, " ": 0,
	} {
		got, err := soakTime(minutes)
		if refused := err != nil && strings.HasPrefix(err.Error(), "MINUTES="+minutes+" is not a number of minutes"); got != want || refused != (want == 0) {
			t.Errorf("%q: %v, %v", minutes, got, err)
		}
	}
}

// TestASoakSaysWhatItCannotSee: the shorter it is, the larger is what it overlooks.
func TestASoakSaysWhatItCannotSee(t *testing.T) {
	samples := func(n int, every time.Duration) (all []sample) {
		for i := range n {
			all = append(all, sample{at: time.Duration(i+1) * every})
		}
		return all
	}
	const given = "Goroutines and files are given back after the load."
	for lasts, want := range map[time.Duration]string{
		20 * time.Second: given + " A run of less than 1 minute judges no growth.",
		time.Minute: "Nothing grows by more than the noise in the last 15 s: a leak of less than 410 kB of heap or 2.67 goroutines a second would not show. " + given +
			" So short a run says little: the usual one is of 10 minutes.",
		soakFor: "Nothing grows by more than the noise in the last 270 s: a leak of less than 23 kB of heap or 0.15 goroutines a second would not show. " + given,
	} {
		every := min(30*time.Second, lasts/4)
		if got := unseen(lasts, samples(int(lasts/every), every)); got != want {
			t.Errorf("%v: %s", lasts, got)
		}
	}
}

func TestGrowthIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		of   func(n int) figures // the nth of 20 samples
		want string              // a part of the only finding; empty: nothing grows
	}{
		"flat": {func(int) figures { return figures{rss: 80 << 20, heap: 30 << 20, goroutines: 60, files: 70} }, ""},
		"noise": {func(int) figures {
			return figures{rss: float64(80<<20 + rand.IntN(8<<20)), heap: float64(30<<20 + rand.IntN(2<<20)), goroutines: float64(60 + rand.IntN(10)), files: float64(70 + rand.IntN(10))}
		}, ""},
		"it grows until it is warm":       {func(n int) figures { return figures{heap: float64(min(n, 10) << 20)} }, ""},
		"100 bytes of 300 requests/s":     {func(n int) figures { return figures{heap: float64(n * 100 * 300 * 30)} }, "heap (MB) of serve grow"},
		"a goroutine of one stream in 10": {func(n int) figures { return figures{goroutines: float64(n * 5)} }, "goroutines of serve grow by 45"},
		"a file of each outage":           {func(n int) figures { return figures{files: float64(n * 4)} }, "files of serve grow by 36"},
		"memory that no heap has":         {func(n int) figures { return figures{rss: float64(n * 5 << 20)} }, "RSS (MB) of serve grow by 45"},
	} {
		samples := make([]sample, 20)
		for n := range samples {
			samples[n] = sample{time.Duration(n) * 30 * time.Second, map[string]figures{"serve": c.of(n), "worker": {}}}
		}
		got := grown(samples)
		if c.want == "" && len(got) > 0 || c.want != "" && (len(got) != 1 || !strings.Contains(got[0], c.want)) {
			t.Errorf("%s: %v", name, got)
		}
	}
}
