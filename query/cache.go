package query

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

// How old things may be. Without a token a read is at most staleAfter behind the tier below the LRU.
const (
	refreshAfter = 1500 * time.Millisecond // an LRU entry is loaded anew by one caller while the others still get it
	staleAfter   = 2 * time.Second         // everybody waits for the load
	missFor      = time.Second             // a remembered 404, in every tier
	sharedFor    = 10 * time.Second        // an entry in Redis: who reads without a token is served a mishap no longer
	youngFor     = time.Minute             // an order's id of this age that a replica does not know is asked of the primary
)

// Entry is a finished answer about one row, and what it knows.
type Entry struct {
	Body     view.Body
	Token    string // X-Consistency-Token
	Key      string // ord_<hex> or prd_<sku>, as tokens name the row; empty for what is not one row
	Rev      int64  // counts the row's changes; 0 if there is no row
	KnownAt  uint64 // no commit up to this position of the log can be missing
	Timeline uint32 // of that log
	Missing  bool   // there is no such row
	LoadedAt time.Time
	of       key
	cut      bool // read from a replica that stands still: not for other processes
	unplaced bool // its token has no position: not for other clients
}

// answers is the rule of freshness: an entry answers a token of its own timeline if it has reached the token's position, or if it
// is the token's row with at least its revision. The zero token asks for nothing.
func (e *Entry) answers(t token.Token) bool {
	return t.Timeline == 0 || t.Timeline == e.Timeline && (e.KnownAt >= t.LSN || t.Key != "" && t.Key == e.Key && e.Rev >= t.Rev)
}

// newer tells which of two entries of a row stays.
func (e *Entry) newer(than *Entry) bool {
	if e.Timeline != than.Timeline {
		return e.Timeline > than.Timeline
	}
	return e.Rev > than.Rev || e.Rev == than.Rev && e.KnownAt > than.KnownAt
}

// key is what entries are kept by: an owner's order, or product.
type key struct {
	owner order.Owner
	id    order.ID
	sku   string // empty for an order
}

const prefixProduct = "prd_"

// name is the row as tokens name it.
func (k key) name() string {
	if k.sku != "" {
		return prefixProduct + k.sku
	}
	return k.id.Format(order.PrefixOrder)
}

func (k key) String() string { return fmt.Sprintf("%d %s %s", k.owner.Account, k.owner.Mode, k.name()) }

// parseKey is the key of an owner's row by its name.
func parseKey(owner order.Owner, name string) (k key, ok bool) {
	if sku, ok := strings.CutPrefix(name, prefixProduct); ok {
		return key{owner: owner, sku: sku}, true
	}
	id, ok := order.Parse(order.PrefixOrder, name)
	return key{owner: owner, id: id}, ok
}

// slot is a key's place in the LRU. It is there before the key's first load, so that nothing heard meanwhile is lost.
type slot struct {
	held       atomic.Pointer[held]
	floor      atomic.Int64 // an entry below this revision is not served: a newer one is known to exist
	refreshing atomic.Bool
}

type held struct {
	Entry
	checked time.Time // when the tiers below last had nothing newer
}

func (r *Queries) slot(k key) *slot {
	if s, ok := r.lru.Get(k); ok {
		return s
	}
	r.making.Lock()
	defer r.making.Unlock()
	s, ok := r.lru.Peek(k)
	if !ok {
		s = &slot{}
		r.lru.Add(k, s)
	}
	return s
}

// keep puts an entry in, unless the present one is newer, and returns which of them it is now.
func (s *slot) keep(e *Entry, now time.Time) (kept *Entry, replaced bool) {
	for {
		old, next := s.held.Load(), &held{*e, now}
		replaced = old == nil || !old.newer(e)
		if !replaced {
			next.Entry = old.Entry
		}
		if s.held.CompareAndSwap(old, next) {
			return &next.Entry, replaced
		}
	}
}

// want is what a read must deliver.
type want struct {
	token   token.Token
	key     string // the row as tokens name it; empty for what is not one row
	min     int64  // below this revision a replica's answer is known to be old
	primary bool   // nothing but the primary will do
	row     bool   // revision 0 means that there is none
	short   bool   // there is an entry that would do but for the token
}

func (w want) metBy(e *Entry) bool { return e.Rev >= w.min && e.answers(w.token) }

func (r *Queries) want(k key, s *slot, t token.Token) want {
	w := want{token: t, key: k.name(), row: true, min: s.floor.Load()}
	if k.sku == "" {
		w.min = max(w.min, r.leastRev(k.id))
	}
	return w
}

// leastRev makes sure that an id which was given out is never 404, however far a replica is behind.
func (r *Queries) leastRev(id order.ID) int64 {
	if r.cfg.Now().Sub(id.Time()) < youngFor {
		return 1
	}
	return 0
}

// get answers a read of one row from the first tier that is fresh enough: the LRU, Redis, a replica, the primary. ORD_001 and
// CAT_001 if there is none, at once for an order's id that is not ours.
func (r *Queries) get(ctx context.Context, query string, k key, t token.Token) (View, error) {
	now := r.cfg.Now()
	if s, ok := r.lru.Get(k); ok {
		if h := s.held.Load(); h != nil && h.Timeline == r.timeline() && h.Rev >= s.floor.Load() && h.answers(t) {
			switch age := now.Sub(h.checked); {
			case h.Missing && age < missFor:
				return View{}, none(k)
			case !h.Missing && age < staleAfter:
				if age >= refreshAfter && s.refreshing.CompareAndSwap(false, true) {
					go r.refresh(context.WithoutCancel(ctx), k, s)
				}
				return r.answer(query, tierLRU, &h.Entry, now), nil
			}
		}
	}
	if k.sku == "" && !r.cfg.IDs.Genuine(k.id) {
		return View{}, none(k)
	}
	ctx, span := r.cfg.Tracer.Start(ctx, "query "+query)
	e, tier, err := r.load(ctx, k, t)
	span.End()
	if err != nil {
		return View{}, err
	}
	if e.Missing {
		return View{}, none(k)
	}
	return r.answer(query, tier, e, r.cfg.Now()), nil
}

func none(k key) error {
	if k.sku != "" {
		return apierr.E(errcode.CAT001)
	}
	return apierr.E(errcode.ORD001)
}

func (r *Queries) refresh(ctx context.Context, k key, s *slot) {
	defer s.refreshing.Store(false)
	_, _, _ = r.load(ctx, k, token.Token{}) // an error is for who finds the entry stale
}

// load asks the tiers below the LRU, one caller for all who want the same key. Who is given what another asked for, and needs
// more, asks again; at last alone. A caller that leaves does not end the load that others wait for.
func (r *Queries) load(ctx context.Context, k key, t token.Token) (*Entry, string, error) {
	type loaded struct {
		entry *Entry
		tier  string
	}
	if era := r.timeline(); r.era.Swap(era) != era {
		r.lru.Purge() // revisions of a lost timeline mean nothing
	}
	detached := context.WithoutCancel(ctx)
	for range 2 {
		s, mine := r.slot(k), false
		w := r.want(k, s, t)
		flight := r.flights.DoChan(k.String(), func() (_ any, err error) {
			mine = true
			defer caught(&err)
			e, tier, err := r.descend(detached, k, s, w)
			return loaded{e, tier}, err
		})
		select {
		case <-ctx.Done():
			return nil, "", ctx.Err()
		case f := <-flight:
			l, _ := f.Val.(loaded)
			if mine || f.Err == nil && w.metBy(l.entry) {
				return l.entry, l.tier, f.Err
			}
		}
	}
	s := r.slot(k)
	return r.descend(ctx, k, s, r.want(k, s, t))
}

// descend goes from Redis to the primary and leaves what it found in the tiers above. If the slot has something newer, that is the
// answer.
func (r *Queries) descend(ctx context.Context, k key, s *slot, w want) (*Entry, string, error) {
	e, err := r.remembered(ctx, k)
	tier, useful := tierRedis, err == nil && r.shared != nil
	if e == nil || !w.metBy(e) {
		h := s.held.Load()
		w.short = e != nil && !e.answers(w.token) || h != nil && !h.answers(w.token)
		if e, tier, err = r.row(ctx, k, w); err != nil {
			return nil, "", err
		}
		if useful && !e.cut { // a Redis that has just failed is not tried again
			_ = r.shared.put(ctx, false, e)
		}
	}
	kept, replaced := s.keep(e, r.cfg.Now())
	if !replaced {
		tier = tierLRU
	}
	return kept, tier, nil
}

// row reads a row from the databases.
func (r *Queries) row(ctx context.Context, k key, w want) (*Entry, string, error) {
	e, tier, err := Entry{}, "", error(nil)
	if k.sku != "" {
		e, tier, err = r.readProduct(ctx, k, w)
	} else {
		e, tier, err = r.readOrder(ctx, k, w)
	}
	e.of, e.Missing = k, e.Rev == 0
	return &e, tier, err
}
