package query

import (
	"testing"
	"time"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/guard"
	"github.com/ordergate/ordergate/order"
)

// In an overload what the caches have is served, and what a database would have to read is refused: it never reaches one.
func TestAnOverloadRefusesReadsOfADatabase(t *testing.T) {
	t.Parallel()
	w := setup(t)
	a := guard.NewAdmission(nil)
	p := w.process(func(c *Config) { c.Admission = a }, withoutRedis)
	cached, other := w.place(mine, time.Hour), w.place(mine, time.Hour)
	w.synced(w.ReplicaURL)
	if _, err := p.GetOrder(t.Context(), mine, cached, anyToken); err != nil {
		t.Fatal(err)
	}
	for n := 0; a.Check(guard.Urgent) == nil; n++ {
		if n > 300 { // enough for an overload, soon
			<-time.After(10 * time.Millisecond)
			continue
		}
		if _, err := a.Begin(guard.Urgent); err != nil {
			t.Fatal(err)
		}
	}
	before := p.loads(tierReplica) + p.loads(tierPrimary)
	if v, err := p.GetOrder(t.Context(), mine, cached, anyToken); err != nil || v.Tier != tierLRU {
		t.Errorf("one that the LRU has: %s, %v", v.Tier, err)
	}
	for range 1000 {
		if _, err := p.GetOrder(t.Context(), mine, other, anyToken); apierr.From(err).Code != errcode.RATE003 {
			t.Fatal("another one: ", err)
		}
		if _, err := p.ListOrders(t.Context(), mine, orderFilter{}, Page{Limit: 20}, anyToken); apierr.From(err).Code != errcode.RATE003 {
			t.Fatal("a list: ", err)
		}
	}
	if n := p.loads(tierReplica) + p.loads(tierPrimary) - before; n > 0 {
		t.Errorf("databases were asked %d times", n)
	}
	writer := w.process(func(c *Config) { c.Admission = a })
	if err := writer.EnsureRevs(t.Context(), []Revision{{order.Ref{Owner: mine, ID: other}, 1}}); err != nil {
		t.Error("what no client asked for: ", err)
	}
}
