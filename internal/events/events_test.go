package events

import (
	"errors"
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
