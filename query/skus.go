package query

import (
	"context"
	"sync"
	"time"

	"github.com/bits-and-blooms/bloom/v3"

	"github.com/ordergate/ordergate/gen/querydb"
	"github.com/ordergate/ordergate/internal/panics"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/order"
)

const (
	leastSKUs   = 1 << 20 // that a filter has place for: 1.9 MB
	falseSKUs   = 0.001   // share of the skus that there are not which a full filter does not know to be none
	skusAtOnce  = 10_000  // rows of a page
	filterFresh = staleAfter
	skusFor     = 5 * time.Minute // then all are read anew: nobody tells of rows that came without triggers
	// From the beginning of one reading to that of the next. A flush may stand for new rows, so the filter of before is not used; but a script that
	// deletes products one by one flushes with each, and must not have all skus read as often.
	skusPause = 5 * time.Second
)

// skuFilter is a Bloom filter of the skus of all owners. A sku that it lacks was none at the last mark that came back on the change feed. Its
// methods are safe for concurrent use; a nil filter knows nothing.
type skuFilter struct {
	generation int64
	capacity   uint
	until      time.Time // the next one is read then

	mu       sync.RWMutex
	bits     *bloom.BloomFilter
	added    uint
	complete bool       // all skus of the time when it was begun are added
	failed   bool       // they cannot be
	previous *skuFilter // answers until this one is complete; may be nil
	last     skuMark
}

// skuMark is a position of the log up to which no new product can be missing.
type skuMark struct {
	lsn      uint64
	timeline uint32
	at       time.Time // when it was read
	token    string    // of an answer
}

// newSKUFilter makes a filter that replaces one, which may be nil.
func newSKUFilter(generation int64, old *skuFilter, at time.Time) *skuFilter {
	f := &skuFilter{generation: generation, capacity: old.size(), until: at.Add(spread(skusFor))}
	f.bits = bloom.NewWithEstimates(f.capacity, falseSKUs)
	if f.previous = old.answering(); f.previous != nil && f.previous.generation != generation {
		f.previous = nil
	}
	return f
}

// usable tells whether there need be no other filter. One that is too small is read to its end, and then tells the size of the next.
func (f *skuFilter) usable(generation int64, at time.Time) bool {
	if f == nil || f.generation != generation {
		return false
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	return !f.failed && (!f.complete || f.added <= f.capacity && at.Before(f.until))
}

// answering is this filter once it is complete, until then its previous one.
func (f *skuFilter) answering() *skuFilter {
	if f == nil {
		return nil
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.complete {
		return f
	}
	return f.previous
}

// size is the capacity that the next filter needs.
func (f *skuFilter) size() uint {
	if f == nil {
		return leastSKUs
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	return max(leastSKUs, 2*f.added)
}

func (f *skuFilter) add(keys ...key) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.previous.add(keys...)
	for _, k := range keys {
		if !f.bits.TestOrAddString(k.String()) {
			f.added++
		}
	}
}

// reached notes that a mark came back, which was sent at a time.
func (f *skuFilter) reached(mark querydb.MarkFeedRow, signer token.Signer, at time.Time) {
	if f == nil {
		return
	}
	t := token.Token{Timeline: uint32(mark.Timeline), LSN: uint64(mark.Lsn)}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = skuMark{t.LSN, t.Timeline, at, signer.Sign(t)}
	f.previous.reached(mark, signer, at)
}

// lacks tells whether there is no such product, in a state as new as the token and not older than any cache, and has the token of that answer.
// false: there may be one.
func (f *skuFilter) lacks(k key, t token.Token, now epoch, at time.Time) (answer string, lacks bool) {
	if f = f.answering(); f == nil || f.generation != now.generation {
		return "", false
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	state := Entry{KnownAt: f.last.lsn, Timeline: f.last.timeline}
	if f.last.timeline != now.timeline || at.Sub(f.last.at) >= filterFresh || !state.satisfies(t) {
		return "", false
	}
	return f.last.token, !f.bits.TestString(k.String())
}

// refreshSKUs begins to read all skus if they are not known, or have been for long.
func (q *Queries) refreshSKUs(ctx context.Context, mark querydb.MarkFeedRow) {
	now, old := q.cfg.Now(), q.skus.Load()
	if old.usable(mark.Generation, now) || mark.Generation != q.generation.Load() || now.Sub(q.skusReadAt) < skusPause {
		return
	}
	f := newSKUFilter(mark.Generation, old, now)
	q.skusReadAt = now
	q.skus.Store(f)
	go q.readSKUs(ctx, f, mark)
}

// readSKUs adds all skus of the time of a mark, until another filter replaces this one. Those that come later are messages of the change feed.
func (q *Queries) readSKUs(ctx context.Context, f *skuFilter, mark querydb.MarkFeedRow) {
	defer panics.Sync(q.cfg.Log)
	r := requirement{token: token.Token{Timeline: uint32(mark.Timeline), LSN: uint64(mark.Lsn)}, countedAs: tierFilter, ours: true}
	page := querydb.ListSkusParams{Page: skusAtOnce}
	for q.skus.Load() == f {
		rows, _, err := readRows(ctx, q, r, func(ctx context.Context, db *querydb.Queries) ([]querydb.ListSkusRow, error) {
			return db.ListSkus(ctx, page)
		})
		keys := make([]key, len(rows))
		for i, row := range rows {
			keys[i] = products.row(order.Owner{Account: row.Account, Mode: row.Mode}, order.ID{}, row.Sku)
			page.Account, page.Mode, page.Sku = row.Account, row.Mode, row.Sku
		}
		f.add(keys...)
		if err != nil || len(rows) < skusAtOnce {
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.complete, f.failed = err == nil, err != nil; f.complete {
				f.previous = nil
			}
			return
		}
	}
}
