package main

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestTallyJudges: another status is a finding, and so are refusals that clients repeat if they are more than one in a hundred.
func TestTallyJudges(t *testing.T) {
	answered := func(status, n int, turned turnedAway) *tally {
		all := newTally()
		all.statuses[status], all.took, all.turned = n, make([]time.Duration, n), turned
		return all
	}
	for name, c := range map[string]struct {
		tally  *tally
		broken int
	}{
		"all as they should be":    {answered(http.StatusOK, 200, nil), 0},
		"another status":           {answered(http.StatusNotFound, 200, nil), 1},
		"a refusal in a hundred":   {answered(http.StatusOK, 200, turnedAway{"RATE_003": 1, "SYS_002": 1}), 0},
		"more refusals":            {answered(http.StatusOK, 200, turnedAway{"RATE_003": 2, "SYS_002": 1}), 1},
		"another, and refused too": {answered(http.StatusBadGateway, 10, turnedAway{"": 10}), 2},
	} {
		if got := c.tally.broken(http.StatusOK); len(got) != c.broken {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestLoadedOnceJudges: each round counts, not the best one.
func TestLoadedOnceJudges(t *testing.T) {
	for name, c := range map[string]struct {
		each   []int
		broken bool
	}{
		"once each":                      {[]int{1, 1, 1, 1, 1}, false},
		"a slow holder of the lock":      {[]int{1, 2, 1, 1, 2}, false},
		"no lock":                        {[]int{1, 2, 2, 2, 2}, true},
		"a round that a cache answered":  {[]int{1, 1, 0, 1, 1}, true},
		"more loads than processes once": {[]int{1, 1, 3, 1, 1}, true},
	} {
		if got := loadedOnce(c.each, 2); (len(got) > 0) != c.broken {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestForgedID: it has the form of an id that was just given out, and no two are the same.
func TestForgedID(t *testing.T) {
	now, before := forgedID(), time.Now().UnixMilli()
	if len(now) != 32 || now[12] != '7' || !strings.ContainsRune("89ab", rune(now[16])) || now == forgedID() {
		t.Errorf("%s is no id", now)
	}
	if at, err := strconv.ParseInt(now[:12], 16, 64); err != nil || before-at > time.Minute.Milliseconds() || at > before {
		t.Errorf("%s is of %d, not of %d: %v", now, at, before, err)
	}
}

// TestLoadCount: the lines of /metrics are found, also those of a million.
func TestLoadCount(t *testing.T) {
	const metrics = "ordergate_read_load_seconds_sum{tier=\"replica\"} 0.5\nordergate_read_load_seconds_count{tier=\"replica\"} 1.2e+06\n" +
		"ordergate_read_load_seconds_count{tier=\"redis\"} 7\nordergate_read_load_seconds_count{tier=\"primary\"} 3\n"
	l, err := loadsIn([]byte(metrics))
	if want := (loads{replica: 1_200_000, primary: 3}); err != nil || l != want {
		t.Errorf("%+v, %v, want %+v", l, err, want)
	}
}
