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
