package inventory

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/ordergate/ordergate/order"
)

const (
	// markTime is how long a mark refuses orders at most. Stock that another process, or a hand, puts back is sold after this time.
	markTime = time.Second
	// probeTime is the end of that time, in which one order each probeEvery passes: it is refused if nothing has come back, and that renews the mark before
	// a storm finds none.
	probeTime, probeEvery = 300 * time.Millisecond, 50 * time.Millisecond
	// tellTime is how old an observation may be of which other processes are told.
	tellTime = 200 * time.Millisecond
	// markShards and maxMarks bound the memory: 16,384 marks of about 100 bytes. A sku beyond them has no mark.
	markShards, maxMarks = 256, 64
)

// SoldOut remembers for a short time of which skus a reservation was refused, and how many pieces were left then. An order
// that asks for more need not be made. A mark ends before pieces come back in this process; pieces that come back in another one, or by a hand, are sold at
// most markTime later, and tellTime more if that process told of the mark. It is safe for concurrent use.
type SoldOut struct {
	// Tell, if not nil, tells other processes of marks that were set here; it is set before the first. They call Heard.
	Tell   func([]Mark)
	now    func() time.Time
	seed   maphash.Seed
	shards [markShards]markShard
}

// markShard has the marks of a part of the skus.
type markShard struct {
	mu       sync.Mutex
	releases uint64    // how often pieces of one of these skus came back
	released time.Time // when they last did
	marks    map[order.Item]mark
}

type mark struct {
	left         int64
	probe, until time.Time // when the next order passes, and when all do
}

// Mark says that an order was refused a sku of which so many pieces were left.
type Mark struct {
	order.Item
	Left int64
}

// NewSoldOut returns a SoldOut without marks.
func NewSoldOut(now func() time.Time) *SoldOut { return &SoldOut{now: now, seed: maphash.MakeSeed()} }

func (s *SoldOut) shard(it order.Item) *markShard {
	return &s.shards[maphash.Comparable(s.seed, it)%markShards]
}

// Short returns the pieces of which too few were left a moment ago.
func (s *SoldOut) Short(owner order.Owner, lines []Line) (short []order.ShortSKU) {
	now, passes := s.now(), true
	for _, l := range lines {
		it := order.Item{Owner: owner, SKU: l.SKU}
		if m := s.shard(it).of(it); l.Quantity > m.left && now.Before(m.until) {
			short = append(short, order.ShortSKU{SKU: l.SKU, Requested: l.Quantity, Available: m.left})
			passes = passes && !now.Before(m.probe)
		}
	}
	for _, l := range short { // if it passes: the others that come in this moment do not
		it := order.Item{Owner: owner, SKU: l.SKU}
		passes = passes && s.shard(it).takeProbe(it, now)
	}
	if passes {
		return nil
	}
	return short
}

// of is the mark of a sku; zero: there is none.
func (s *markShard) of(it order.Item) mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.marks[it]
}

// takeProbe tells whether an order may pass a mark, and lets the next one wait.
func (s *markShard) takeProbe(it order.Item, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, marked := s.marks[it]
	if marked && now.Before(m.probe) {
		return false
	}
	if marked {
		m.probe = now.Add(probeEvery)
		s.marks[it] = m
	}
	return true
}

// Released ends the marks of the levels of which more can be sold now. It is called before the COMMIT of the transaction that has locked
// them: an order that comes after that COMMIT meets no mark of before, because an observation under an earlier lock sets none any more.
func (s *SoldOut) Released(stock Stock) {
	for it, l := range stock {
		if l.onHandMoved <= l.reservedMoved {
			continue
		}
		shard := s.shard(it)
		shard.mu.Lock()
		shard.releases++
		shard.released = s.now()
		delete(shard.marks, it)
		shard.mu.Unlock()
	}
}

// observation is what a transaction has seen of a sku under its lock.
type observation struct {
	order.Item
	at       time.Time
	left     int64
	releases uint64
}

// observe looks at a locked level after all of a batch is decided, and after Released.
func (s *SoldOut) observe(l *Level) observation {
	shard := s.shard(l.Item)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	return observation{l.Item, s.now(), l.Available(), shard.releases}
}

// mark sets the marks of a transaction that is committed, but for skus of which pieces have come back since they were observed.
func (s *SoldOut) mark(seen []observation) {
	var told []Mark
	for _, o := range seen {
		set := s.set(Mark{o.Item, o.left}, func(shard *markShard) bool { return shard.releases == o.releases })
		if set && s.now().Sub(o.at) <= tellTime {
			told = append(told, Mark{o.Item, o.left})
		}
	}
	if s.Tell != nil && len(told) > 0 {
		s.Tell(told)
	}
}

// Heard sets a mark of another process, but for a sku of which pieces came back here less than a mark's time ago: it may be of before. Pieces that
// come back in the other process are sold here after that time.
func (s *SoldOut) Heard(m Mark) {
	s.set(m, func(shard *markShard) bool { return s.now().Sub(shard.released) > markTime })
}

// set sets a mark if the shard allows it and has room, and tells whether it did.
func (s *SoldOut) set(m Mark, allowed func(*markShard) bool) bool {
	shard := s.shard(m.Item)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	now := s.now()
	if !allowed(shard) || !shard.room(now) {
		return false
	}
	shard.marks[m.Item] = mark{m.Left, now.Add(markTime - probeTime), now.Add(markTime)}
	return true
}

// room tells whether there is room for one more mark, once those whose time is over are gone. The caller has locked the shard.
func (s *markShard) room(now time.Time) bool {
	if s.marks == nil {
		s.marks = map[order.Item]mark{}
	}
	if len(s.marks) >= maxMarks {
		for it, m := range s.marks {
			if !now.Before(m.until) {
				delete(s.marks, it)
			}
		}
	}
	return len(s.marks) < maxMarks
}
