package query

import (
	"testing"
	"time"
)

func TestVisible(t *testing.T) {
	t.Parallel()
	var v visible
	zero := time.Now()
	at := func(ms int) time.Time { return zero.Add(time.Duration(ms) * time.Millisecond) }
	for i, c := range []struct {
		timeline uint32
		lsn      uint64
		xids     []string // nil: not told
		since    int
		seen     uint64
		waits    bool
		upTo     uint64 // afterwards, of the timeline
	}{
		{1, 100, []string{}, 0, 100, false, 100},              // nothing is open
		{1, 110, []string{"7", "8"}, 10, 0, false, 100},       // both may have committed up to 110
		{1, 120, []string{"8"}, 20, 0, false, 100},            // 8 still may
		{1, 130, []string{"9"}, 30, 120, false, 120},          // 7 and 8 are over
		{1, 140, []string{"9"}, 20, 0, false, 120},            // asked for before 130 was known: 9 may have begun since
		{1, 150, []string{"10"}, 40, 140, false, 140},         // 9 is over
		{1, 160, []string{"10 SyncRep"}, 50, 0, true, 140},    // 10 is durable
		{1, 170, []string{"10 SyncRep"}, 5000, 0, true, 140},  // however long that takes
		{1, 180, []string{"11"}, 5010, 170, false, 170},       //
		{1, 190, []string{"11", "12"}, 6500, 180, false, 180}, // 11 is open for too long to be one that commits
		{1, 200, nil, 6510, 199, false, 180},                  //
		{2, 90, []string{"11"}, 6520, 0, false, 0},            // a new timeline knows nothing of the old one
		{2, 95, []string{}, 6530, 95, false, 95},              //
		{1, 300, []string{}, 6540, 0, false, 0},               // an old primary
		{2, 80, []string{}, 6550, 80, false, 95},              // an answer that comes late
	} {
		seen, waits := v.note(c.timeline, c.lsn, 0, parseTransactions(c.xids), at(c.since), at(c.since+5))
		if upTo := v.upTo(c.timeline); seen != c.seen || waits != c.waits || upTo != c.upTo {
			t.Errorf("%d: sees %d, waits %v, then %d", i, seen, waits, upTo)
		}
	}
	for n := range 3 * maxNoted {
		v.note(2, uint64(100+n), 0, parseTransactions([]string{"20 SyncRep"}), at(7000+n), at(7000+n))
	}
	if len(v.noted) > maxNoted {
		t.Errorf("%d positions are remembered", len(v.noted))
	}
}

// A transaction that waits for a standby, and that was not open when the position had been reached, says nothing of it.
func TestWaitsAreOfThePosition(t *testing.T) {
	t.Parallel()
	var v visible
	zero := time.Now()
	note := func(ms int, lsn, want uint64, xids ...string) bool {
		at := zero.Add(time.Duration(ms) * time.Millisecond)
		_, waits := v.note(1, lsn, want, parseTransactions(xids), at, at.Add(time.Millisecond))
		return waits
	}
	note(0, 100, 100, "5")
	if note(10, 110, 100, "5", "6 SyncRep") {
		t.Error("6 commits above 100")
	}
	if !note(20, 120, 110, "5", "6 SyncRep") {
		t.Error("6 may commit up to 110")
	}
	if note(30, 130, 110, "5", "7 SyncRep") {
		t.Error("6 is over")
	}
}

// Under load the oldest positions stay until a transaction is open for too long.
func TestALongTransactionStopsNothing(t *testing.T) {
	t.Parallel()
	var v visible
	zero := time.Now()
	for n := range 3000 { // 1 ms apart
		at := zero.Add(time.Duration(n) * time.Millisecond)
		v.note(1, uint64(100+n), 0, parseTransactions([]string{"5"}), at, at)
	}
	if upTo := v.upTo(1); upTo < 100+1500 {
		t.Errorf("after 3 s statements see all up to %d, of 3,100", upTo)
	}
	if len(v.noted) > maxNoted {
		t.Errorf("%d positions are remembered", len(v.noted))
	}
}

// Positions of one timeline say nothing of another one, which a connection may find first.
func TestAnEntryOfANewTimelineKnowsNothingOfTheOldOne(t *testing.T) {
	t.Parallel()
	w := setup(t)
	k := orders.row(mine, w.place(mine, time.Hour), "")
	p := w.process(withoutReplicas, withoutRedis, func(c *Config) { c.Timeline = func() uint32 { return 0 } })
	p.visible.lsn = 1 << 40
	e, err := p.fromDatabase(t.Context(), requirement{of: k}, k.read)
	w.must(err)
	if e.Timeline != 1 || e.KnownAt > e.durable {
		t.Errorf("it knows %d, the log is at %d", e.KnownAt, e.durable)
	}
}
