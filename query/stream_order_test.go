package query

import (
	"testing"
	"time"
)

// The events of a stream may be later than the state that a cache had: their token covers them all the same.
func TestTheTokenOfAStreamCoversItsEvents(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(withoutRedis, w.timeless)
	id := w.changed(mine, time.Hour, 3)
	w.exec(`CREATE TABLE later AS TABLE order_events; DELETE FROM later WHERE version < 3; DELETE FROM order_events WHERE version = 3; UPDATE orders SET version = 2, rev = 2`)
	w.synced(w.ReplicaURL)
	v, err := p.GetOrder(t.Context(), mine, id, anyToken)
	w.must(err)
	old, err := p.EventsAfter(t.Context(), mine, id, 2, anyToken)
	if err != nil || len(old.Events) != 0 || old.Token != v.Token {
		t.Errorf("the LRU has the second version: %+v, %v", old, err)
	}
	w.exec(`INSERT INTO order_events TABLE later; UPDATE orders SET version = 3, rev = 3, state = jsonb_set(state, '{metadata,rev}', '"3"')`)
	w.synced(w.ReplicaURL)
	news, err := p.EventsAfter(t.Context(), mine, id, 1, anyToken)
	w.must(err)
	if n := len(news.Events); n != 2 || news.Events[n-1].Sequence != 3 {
		t.Fatalf("%d events", n)
	}
	seen, ok := w.signer.Parse(news.Token)
	if !ok {
		t.Fatalf("token %q", news.Token)
	}
	if rev, tier := p.get(mine, id, seen); rev != 3 {
		t.Errorf("revision %d by %s", rev, tier)
	}
	if again, err := p.EventsAfter(t.Context(), mine, id, 3, news.Seen); err != nil || len(again.Events) != 0 {
		t.Errorf("%+v, %v", again, err)
	}
}

// A long history comes in pages, so that a stream whose client does not read holds little.
func TestALongHistoryComesInPages(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(withoutReplicas)
	const versions = 2*newsPage + 5
	id := w.changed(mine, time.Hour, versions)
	pages, after, more := 0, int64(0), true
	for ; more; pages++ {
		news, err := p.EventsAfter(t.Context(), mine, id, after, anyToken)
		w.must(err)
		if len(news.Events) > newsPage {
			t.Errorf("%d events at once", len(news.Events))
		}
		for _, e := range news.Events {
			if e.Sequence != after+1 {
				t.Errorf("event %d comes after %d", e.Sequence, after)
			}
			after = e.Sequence
		}
		more = news.More
	}
	if pages != 3 || after != versions {
		t.Errorf("%d pages, the last event is %d", pages, after)
	}
}
