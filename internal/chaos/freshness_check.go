package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// decideTime is how long porcupine may take for all orders.
const decideTime = time.Minute

// register is the model of an order: a write makes the next version, a read sees the present one. The input is the op.
var register = porcupine.Model{
	Init: func() any { return int64(0) },
	Step: func(state, input, _ any) (bool, any) {
		version, _ := state.(int64)
		p, _ := input.(op)
		if p.write {
			version++
		}
		return p.version == version, version
	},
}

// placedBehind puts the beginnings of reads with a token behind the writes that it covers. The next write of the order was sent after that, so that at that time
// the version is the covered one.
func placedBehind(ops []op) []op {
	written := map[int64]time.Duration{}
	for _, p := range ops {
		if p.write {
			written[p.version] = p.to
		}
	}
	ops = slices.Clone(ops)
	for n, p := range ops {
		if to, is := written[p.covers]; is {
			ops[n].from = min(p.to, max(p.from, to+1))
		}
	}
	return ops
}

// decisive leaves out the reads that decide nothing: of all reads of one version those stay that end first and that begin last. A read
// of v needs a time at which the version is v in its interval: the write of v is not after its end, the write of v+1 not before its beginning.
// Of all reads of v the first end and the last beginning are the strongest of these conditions. Without this the reads, whose intervals are
// seconds long, would give porcupine more orders to try than it ever can.
func decisive(ops []op) (some []op) {
	firstEnd, lastBegin := map[int64]op{}, map[int64]op{}
	for _, p := range ops {
		if p.write {
			some = append(some, p)
			continue
		}
		if known, is := firstEnd[p.version]; !is || p.to < known.to {
			firstEnd[p.version] = p
		}
		if known, is := lastBegin[p.version]; !is || p.from > known.from {
			lastBegin[p.version] = p
		}
	}
	for version, p := range firstEnd {
		some = append(some, p)
		if last := lastBegin[version]; last != p {
			some = append(some, last)
		}
	}
	return some
}

// judged asks porcupine about the operations of one order.
func judged(ops []op, timeout time.Duration) porcupine.CheckResult {
	history := make([]porcupine.Operation, len(ops))
	for n, p := range ops {
		history[n] = porcupine.Operation{ClientId: n, Input: p, Call: int64(p.from), Return: int64(p.to)}
	}
	return porcupine.CheckOperationsTimeout(register, history, timeout)
}

// offence finds two operations that cannot both be right, for the reader of a finding: one that shows that a version was there, and one that
// shows that it was not yet.
func offence(ops []op) string {
	type bound struct {
		at time.Duration
		op op
	}
	there, notYet := map[int64]bound{}, map[int64]bound{} // by version: it was written before that, after that
	last := int64(0)
	for _, p := range ops {
		last = max(last, p.version+1)
		if known, is := there[p.version]; !is || p.to < known.at {
			there[p.version] = bound{p.to, p}
		}
		next := p.version + 1
		if p.write {
			next = p.version
		}
		if known, is := notYet[next]; !is || p.from > known.at {
			notYet[next] = bound{p.from, p}
		}
	}
	var worst string
	var most time.Duration
	for v := range last + 1 { // written later than `after`, and a later or equal version was there before
		after, is := notYet[v]
		if !is {
			continue
		}
		for w := v; w <= last; w++ {
			before, is := there[w]
			if gap := after.at - before.at; is && gap > most {
				most = gap
				worst = fmt.Sprintf("%v, but %v: %.3f s too old", after.op, before.op, gap.Seconds())
			}
		}
	}
	return worst
}

func (p op) String() string {
	if p.write {
		return fmt.Sprintf("version %d was written by a %s from %.3f to %.3f s", p.version, p.what, p.from.Seconds(), p.to.Seconds())
	}
	return fmt.Sprintf("version %d was seen by a %s that was sent at %.3f s, answered at %.3f s, and may show the state of %.3f s", p.version, p.what,
		p.sent.Seconds(), p.to.Seconds(), p.from.Seconds())
}

// oldest is the greatest age of what a read without a token showed: how long before it was sent the next version was answered.
func oldest(ops []op) (most time.Duration) {
	written := map[int64]time.Duration{}
	for _, p := range ops {
		if p.write {
			written[p.version] = p.to
		}
	}
	for _, p := range ops {
		if to, is := written[p.version+1]; is && p.plain {
			most = max(most, p.sent-to)
		}
	}
	return most
}

// verdict is what the checkers say of a history.
type verdict struct {
	operations, decisive, illegal, unknown int
	oldest                                 time.Duration // how far a read without a token was behind at most: since the next version was answered
	broken                                 []string
}

// check judges all orders. The load must have ended.
func (h *history) check() (v verdict) {
	v.broken = slices.Clone(h.broken)
	begin := time.Now()
	for _, t := range h.groups {
		for _, o := range t.orders {
			ops := placedBehind(o.ops)
			v.oldest = max(v.oldest, oldest(ops))
			some := decisive(ops)
			v.operations, v.decisive = v.operations+len(ops), v.decisive+len(some)
			why := offence(ops)
			switch result := judged(some, max(time.Second, decideTime-time.Since(begin))); {
			case result == porcupine.Unknown:
				v.unknown++
				v.broken = append(v.broken, fmt.Sprintf("porcupine did not decide on the %d operations of %s in time", len(some), o.id))
			case result == porcupine.Illegal:
				v.illegal++
				v.broken = append(v.broken, fmt.Sprintf("%s is not linearizable: %s", o.id, cmp.Or(why, "see "+fmt.Sprint(some))))
			case why != "":
				v.broken = append(v.broken, fmt.Sprintf("porcupine finds %s linearizable, and this is a contradiction: %s", o.id, why))
			}
		}
	}
	return v
}

func (v verdict) String() string {
	parts := []string{"porcupine: linearizable"}
	if v.illegal > 0 {
		parts = []string{fmt.Sprintf("porcupine: %d orders are not linearizable", v.illegal)}
	}
	if v.unknown > 0 {
		parts = append(parts, fmt.Sprintf("%d undecided", v.unknown))
	}
	return strings.Join(parts, ", ")
}
