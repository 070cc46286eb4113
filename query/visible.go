package query

import (
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	invisibleFor = 2 * time.Millisecond // a COMMIT takes about this long from its flush to the moment from which it is seen
	openFor      = time.Second          // a transaction that is open for longer, and waits for no standby, does not commit now
	maxNoted     = 100                  // positions that are remembered
)

// visible knows up to which position of the primary's log every commit is seen by every later statement. The flush position is not enough: a
// commit is durable, and shown by a standby, a moment before the primary's statements see it, and long before where it waits for a synchronous
// standby. Its transaction is open then, and waits neither for its client nor for a lock. So once no transaction is open that was open after a position was reached, every commit up to that
// position is seen.
type visible struct {
	mu       sync.Mutex
	timeline uint32
	lsn      uint64
	noted    []position // above lsn, in the order in which they were noted
	untold   bool       // it is not known which transactions are open
}

// position is one of the log, with the transactions that were open after it was reached, and may have been committing.
type position struct {
	lsn  uint64
	open []string
	at   time.Time // when that was known
}

// upTo is the position up to which a statement sees every commit that begins now.
func (v *visible) upTo(timeline uint32) uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.timeline != timeline {
		return 0
	}
	return v.lsn
}

// transactions are open ones. The ids of those that wait for a synchronous standby, which are durable, stand in waiting, too.
type transactions struct {
	told          bool // false: it is not known which are open
	open, waiting []string
}

func parseTransactions(xids []string) transactions {
	t := transactions{told: xids != nil}
	for _, xid := range xids {
		xid, waits := strings.CutSuffix(xid, " SyncRep")
		if t.open = append(t.open, xid); waits {
			t.waiting = append(t.waiting, xid)
		}
	}
	return t
}

// note adds the transactions that were open after the log was durable up to a position, both asked for since a time. seen is the position up to
// which a statement that was sent behind that question sees every commit. waits tells that a commit up to want may wait for a synchronous
// standby: its transaction was open whenever want had been reached.
func (v *visible) note(timeline uint32, lsn, want uint64, t transactions, since, now time.Time) (seen uint64, waits bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.untold = !t.told; v.untold {
		return lsn - 1, false
	}
	switch {
	case timeline < v.timeline:
		return 0, false
	case timeline > v.timeline:
		v.timeline, v.lsn, v.noted = timeline, 0, nil
	}
	if len(t.open) == 0 {
		seen = lsn
	}
	waiting := t.waiting
	for _, p := range v.noted {
		if !p.at.Before(since) { // a transaction of its may have begun since, too
			continue
		}
		stillOpen := func(xid string) bool {
			return slices.Contains(t.waiting, xid) || slices.Contains(t.open, xid) && now.Sub(p.at) <= openFor
		}
		if !slices.ContainsFunc(p.open, stillOpen) {
			seen = max(seen, p.lsn)
		}
		if p.lsn >= want {
			waiting = slices.DeleteFunc(slices.Clone(waiting), func(xid string) bool { return !slices.Contains(p.open, xid) })
		}
	}
	v.lsn = max(v.lsn, seen)
	v.noted = slices.DeleteFunc(v.noted, func(p position) bool { return p.lsn <= v.lsn })
	if n := len(v.noted); lsn > v.lsn && (n < maxNoted/2 || now.Sub(v.noted[n-1].at) >= openFor*2/maxNoted) { // the oldest must live for openFor
		v.noted = append(v.noted, position{lsn, t.open, now})
		v.noted = v.noted[max(0, len(v.noted)-maxNoted):]
	}
	return seen, len(waiting) > 0
}

// isUntold tells that this role is not told which transactions are open.
func (v *visible) isUntold() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.untold
}
