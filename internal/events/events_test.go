package events

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/order"
)

// resource_events is append-only by grant, and no sequence is taken twice.
func TestEventsAreAppendOnly(t *testing.T) {
	t.Parallel()
	pool, err := pg.Connect(t.Context(), pgtest.New(t).PrimaryURL, 4, pg.Session, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	r := order.Resource{Owner: order.Owner{Account: 1, Mode: "test"}, Kind: order.KindPayment, ID: "pay_1"}
	ids := order.NewIDs([]byte("k"))
	rec := order.Recorder{NewID: func() order.ID { return ids.Mint(time.Now(), 1) }, Now: time.Now()}
	var head order.Head
	history := []order.ResourceEvent{head.Next(r, rec, "payment.created", 1, 5), head.Next(r, rec, "payment.voided", 1, nil)}
	if err := Append(t.Context(), pool, history); err != nil {
		t.Fatal(err)
	}
	if err := r.Verify([]order.Event{history[0].Event, history[1].Event}); err != nil || head.Version != 2 {
		t.Error(head, err)
	}
	if (order.Resource{Owner: r.Owner, Kind: order.KindRefund, ID: r.ID}).Verify([]order.Event{history[0].Event}) == nil {
		t.Error("a history of another resource is accepted")
	}
	code := func(err error) string {
		e, _ := errors.AsType[*pgconn.PgError](err)
		if e == nil {
			return ""
		}
		return e.Code
	}
	if err := Append(t.Context(), pool, history[1:]); code(err) != "23505" {
		t.Error(err)
	}
	if read, err := Read(t.Context(), pool, r); err != nil || r.Verify(read) != nil || len(read) != 2 {
		t.Error(read, err)
	}
	for _, table := range []string{"resource_events", "order_events"} {
		for _, statement := range []string{"UPDATE " + table + " SET type = ''", "DELETE FROM " + table, "TRUNCATE " + table} {
			if _, err := pool.Exec(t.Context(), statement); code(err) != "42501" { // permission denied
				t.Error(statement, err)
			}
		}
	}
}

// The events that are read are those that were appended, in their order and to the byte, of that resource alone; an append that fails leaves nothing.
func TestEventsAreReadAsTheyWereAppended(t *testing.T) {
	t.Parallel()
	pool, err := pg.Connect(t.Context(), pgtest.New(t).PrimaryURL, 4, pg.Session, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	ids := order.NewIDs([]byte("k"))
	rec := order.Recorder{
		NewID: func() order.ID { return ids.Mint(time.Now(), 1) }, Now: time.Now(), Cause: order.Cause{TraceID: "t", Operation: "payOrder", Actor: "key_1"},
	}
	alice, bob := order.Owner{Account: 1, Mode: "test"}, order.Owner{Account: 2, Mode: "test"}
	resources := []order.Resource{
		{Owner: alice, Kind: order.KindPayment, ID: "pay_1"}, {Owner: alice, Kind: order.KindPayment, ID: "pay_2"},
		{Owner: alice, Kind: order.KindRefund, ID: "pay_1"}, {Owner: bob, Kind: order.KindPayment, ID: "pay_1"},
		{Owner: order.Owner{Account: 1, Mode: "live"}, Kind: order.KindPayment, ID: "pay_1"},
	}
	var all []order.ResourceEvent
	want, heads := map[order.Resource][]order.Event{}, map[order.Resource]*order.Head{}
	for range 12 { // two digits: sequences are no text
		for _, r := range resources {
			if heads[r] == nil {
				heads[r] = &order.Head{}
			}
			e := heads[r].Next(r, rec, "payment.created", 3, map[string]any{"note": "梅 <b>\u2028", "of": r.ID})
			all, want[r] = append(all, e), append(want[r], e.Event)
		}
	}
	if err := Append(t.Context(), pool, all); err != nil {
		t.Fatal(err)
	}
	for _, r := range resources {
		read, err := Read(t.Context(), pool, r)
		if want[r][0].PrevHash = []byte{}; err != nil || !reflect.DeepEqual(read, want[r]) {
			t.Errorf("%v: %v\n%+v\n%+v", r, err, read, want[r])
		}
		want[r][0].PrevHash = nil
	}
	next := heads[resources[0]].Next(resources[0], rec, "payment.voided", 1, nil)
	if err := Append(t.Context(), pool, []order.ResourceEvent{next, all[0]}); err == nil {
		t.Error("a sequence was taken twice")
	}
	if read, err := Read(t.Context(), pool, resources[0]); err != nil || len(read) != 12 {
		t.Errorf("%d events after an append that failed: %v", len(read), err)
	}
	if read, err := Read(t.Context(), pool, order.Resource{Owner: alice, Kind: order.KindPayment, ID: "pay_3"}); err != nil || len(read) != 0 {
		t.Errorf("a resource without events has %v: %v", read, err)
	}
}
