package main

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// TestDecisive: porcupine says the same of all operations as of those that decide, and so does offence.
func TestDecisive(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	verdicts := map[porcupine.CheckResult]int{}
	for range 3000 {
		ops := someHistory(random)
		want := judged(ops, time.Minute)
		verdicts[want]++
		if got := judged(decisive(ops), time.Minute); got != want {
			t.Fatalf("%v of all, %v of those that decide: %v", want, got, ops)
		}
		if why := offence(ops); (why == "") != (want == porcupine.Ok) {
			t.Fatalf("%v of all, the offence is %q: %v", want, why, ops)
		}
	}
	if verdicts[porcupine.Ok] < 300 || verdicts[porcupine.Illegal] < 300 {
		t.Errorf("%v: one verdict is rare", verdicts)
	}
}

// someHistory has writes one after another, and reads that are right or a little wrong.
func someHistory(random *rand.Rand) (ops []op) {
	at := time.Duration(0)
	writes := 1 + random.Int64N(5)
	for v := range writes {
		from := at + time.Duration(random.IntN(5))
		at = from + time.Duration(random.IntN(8))
		ops = append(ops, op{write: true, version: v + 1, from: from, to: at})
	}
	for range random.IntN(8) {
		v := random.Int64N(writes + 1)
		from, to := time.Duration(0), at+5 // it is right somewhere there
		if v > 0 {
			from = ops[v-1].from
		}
		if v < writes {
			to = ops[v].to
		}
		from = max(0, from-2+time.Duration(random.Int64N(int64(to-from+4))))
		ops = append(ops, op{version: v, from: from, to: from + time.Duration(random.IntN(5))})
	}
	return ops
}

// TestATokensReadIsPlaced: a read that was covered by a token of a version, and shows an older one, is found, though it began before.
func TestATokensReadIsPlaced(t *testing.T) {
	ops := []op{
		{write: true, version: 1, from: 0, to: 1},
		{write: true, version: 2, from: 2, to: 4},
		{version: 1, from: 3, to: 6, covers: 2},
	}
	if got := judged(ops, time.Minute); got != porcupine.Ok {
		t.Errorf("without the token it is %v", got)
	}
	if ops = placedBehind(ops); judged(ops, time.Minute) != porcupine.Illegal || offence(ops) == "" {
		t.Errorf("with the token nothing is found: %q", offence(ops))
	}
}

// TestLag: the lag is the greatest in the time that is asked for, and grows until the next measurement.
func TestLag(t *testing.T) {
	now := time.Now()
	at := func(ago, lag time.Duration) lagAt { return lagAt{now.Add(-ago), lag} }
	m := &lagMeter{behind: []lagAt{at(9*time.Second, 7*time.Second), at(3*time.Second, time.Second), at(2*time.Second, 0), at(time.Second, 0)}}
	for _, c := range []struct{ ago, least, most time.Duration }{
		{500 * time.Millisecond, time.Second, 1100 * time.Millisecond},
		{1500 * time.Millisecond, time.Second, 1100 * time.Millisecond},
		{2500 * time.Millisecond, 2 * time.Second, 2100 * time.Millisecond},
		{4 * time.Second, 13 * time.Second, 13100 * time.Millisecond},
	} {
		if got := m.most(now.Add(-c.ago)); got < c.least || got > c.most {
			t.Errorf("%v ago: %v", c.ago, got)
		}
	}
}
