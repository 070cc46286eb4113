package query

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ordergate/ordergate/order"
)

// The events of a stream may be later than the state that a cache had: their token covers them all the same.
func TestTheTokenOfAStreamCoversItsEvents(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(withoutRedis, w.timeless)
	id := w.changed(mine, time.Hour, 3)
	w.exec(`CREATE TABLE later AS TABLE order_events; DELETE FROM later WHERE version < 3; DELETE FROM order_events WHERE version = 3; UPDATE orders SET version = 2, rev = 2`)
	w.synced(w.ReplicaURL)
	watch := p.watch(t, id)
	v, err := p.GetOrder(t.Context(), mine, id, anyToken)
	w.must(err)
	old, err := watch.EventsAfter(t.Context(), 2, anyToken)
	if err != nil || len(old.Events) != 0 || old.Token != v.Token {
		t.Errorf("the LRU has the second version: %+v, %v", old, err)
	}
	w.exec(`INSERT INTO order_events TABLE later; UPDATE orders SET version = 3, rev = 3, state = jsonb_set(state::jsonb, '{metadata,rev}', '"3"')`)
	w.synced(w.ReplicaURL)
	news, err := watch.EventsAfter(t.Context(), 1, anyToken)
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
	if again, err := watch.EventsAfter(t.Context(), 3, news.Seen); err != nil || len(again.Events) != 0 {
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
	watch := p.watch(t, id)
	pages, after, more := 0, int64(0), true
	for ; more; pages++ {
		news, err := watch.EventsAfter(t.Context(), after, anyToken)
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

// watch follows an order until the end of the test.
func (p *process) watch(t *testing.T, id order.ID) *Watch {
	t.Helper()
	watch := p.Watch(mine, id)
	t.Cleanup(watch.Leave)
	return watch
}

// withheld takes the last event of an order back. tell makes it and wakes the process.
func (p *process) withheld(id order.ID, version int64) (tell func()) {
	w := p.w
	w.Helper()
	w.exec(`CREATE TABLE later AS TABLE order_events`)
	w.exec(`DELETE FROM later WHERE version < $1`, version)
	w.exec(`DELETE FROM order_events WHERE version = $1`, version)
	w.exec(`UPDATE orders SET version = $1 - 1, rev = $1 - 1`, version)
	return func() {
		w.exec(`INSERT INTO order_events TABLE later`)
		w.exec(`UPDATE orders SET version = $1, rev = $1`, version)
		w.synced(w.ReplicaURL)
		var rev int64 // a trigger counts changes by hand, too
		w.must(w.Pool.QueryRow(context.Background(), `SELECT rev FROM orders WHERE id = $1`, id[:]).Scan(&rev))
		p.bumpMinRev(orders.row(mine, id, ""), rev)
	}
}

// A change costs one read of the order and one of its events, however many streams the order has, and the event is encoded once.
func TestTheStreamsOfAnOrderShareTheReadsOfAChange(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(withoutRedis, w.timeless)
	id := w.changed(mine, time.Hour, 4)
	tell := p.withheld(id, 4)
	w.synced(w.ReplicaURL)
	const streams = 300
	watches := make([]*Watch, streams)
	for i := range watches {
		watches[i] = p.watch(t, id)
		if news, err := watches[i].EventsAfter(t.Context(), 0, anyToken); err != nil || len(news.Events) != 3 {
			t.Fatalf("%+v, %v", news, err)
		}
	}
	before := p.loads(tierReplica) + p.loads(tierPrimary)
	tell()
	var all errgroup.Group
	texts := make([]*byte, streams)
	for i, watch := range watches {
		all.Go(func() error {
			<-watch.Changed
			news, err := watch.EventsAfter(t.Context(), 3, anyToken)
			if err == nil && (len(news.Events) != 1 || news.Events[0].Sequence != 4 || news.More) {
				err = fmt.Errorf("%+v", news)
			}
			if err == nil {
				texts[i] = &news.Events[0].Data[0]
			}
			return err
		})
	}
	w.must(all.Wait())
	if loads := p.loads(tierReplica) + p.loads(tierPrimary) - before; loads > 2 {
		t.Errorf("%d reads of %d streams", loads, streams)
	}
	if same := slices.Compact(texts); len(same) != 1 {
		t.Errorf("the event was encoded %d times", len(same))
	}
}

// A read that is under way since before a change does not have its event: a stream that joined it reads again.
func TestAReadFromBeforeTheChangeDoesNotCount(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(withoutRedis, w.timeless)
	id := w.changed(mine, time.Hour, 3)
	tell := p.withheld(id, 3)
	w.synced(w.ReplicaURL)
	watch := p.watch(t, id)
	begun, end := make(chan struct{}), make(chan struct{})
	p.flights.DoChan(watch.flight(2), func() (any, error) {
		old, err := watch.read(t.Context(), 2, anyToken)
		close(begun)
		<-end
		return old, err
	})
	<-begun
	tell()
	time.AfterFunc(20*time.Millisecond, func() { close(end) })
	if news, err := watch.EventsAfter(t.Context(), 2, anyToken); err != nil || len(news.Events) != 1 || news.Events[0].Sequence != 3 {
		t.Errorf("%+v, %v", news, err)
	}
}

// The events that the streams of an order share are a few, in their order and without a gap, and are given back.
func TestRecentEvents(t *testing.T) {
	t.Parallel()
	events := func(first, last int64) run {
		r := run{of: 1, token: strconv.FormatInt(last, 10)}
		for n := first; n <= last; n++ {
			r.events = append(r.events, StreamEvent{Sequence: n})
		}
		return r
	}
	for name, c := range map[string]struct {
		kept        []run
		after       int64
		first, last int64 // 0: none
		token       string
	}{
		"one read":                            {[]run{events(3, 5)}, 3, 4, 5, "5"},
		"all of it":                           {[]run{events(3, 5)}, 2, 3, 5, "5"},
		"nothing is left":                     {[]run{events(3, 5)}, 5, 0, 0, ""},
		"a gap before it":                     {[]run{events(3, 5)}, 1, 0, 0, ""},
		"a later read follows":                {[]run{events(3, 5), events(6, 6)}, 3, 4, 6, "6"},
		"a later read overlaps":               {[]run{events(3, 5), events(4, 7)}, 3, 4, 7, "7"},
		"a later read leaves a gap":           {[]run{events(3, 5), events(7, 8)}, 6, 7, 8, "8"},
		"what was before a gap is gone":       {[]run{events(3, 5), events(7, 8)}, 3, 0, 0, ""},
		"a late read of early events":         {[]run{events(30, 31), events(1, 10)}, 29, 30, 31, "31"},
		"no more than a page":                 {[]run{events(1, newsPage), events(newsPage+1, newsPage+3)}, 3, 4, newsPage + 3, strconv.Itoa(newsPage + 3)},
		"the first of more than a page":       {[]run{events(1, newsPage), events(newsPage+1, newsPage+3)}, 2, 0, 0, ""},
		"another timeline":                    {[]run{{of: 2, events: events(3, 5).events}}, 3, 0, 0, ""},
		"another timeline begins them anew":   {[]run{{of: 2, events: events(3, 9).events}, events(3, 5)}, 3, 4, 5, "5"},
		"the greatest token of several reads": {[]run{{of: 1, token: "9", events: events(3, 5).events}, events(6, 6)}, 3, 4, 6, "9"},
	} {
		t.Run(name, func(t *testing.T) {
			w := &watched{}
			for _, r := range c.kept {
				w.keep(r)
			}
			got := w.after(c.after, 1)
			want := events(c.first, c.last)
			if c.first == 0 {
				want = run{}
			}
			if fmt.Sprint(got.events) != fmt.Sprint(want.events) || got.token != c.token && c.first > 0 {
				t.Errorf("%+v", got)
			}
		})
	}
	w, now := &watched{}, time.Now()
	old := events(1, 2)
	old.readAt = now
	w.keep(old)
	if w.forget(now.Add(recentFor)); len(w.recent.events) == 0 {
		t.Error("a stream that was woken late finds nothing")
	}
	if w.forget(now.Add(2 * recentFor)); len(w.recent.events) > 0 {
		t.Error("they are kept for ever")
	}
}
