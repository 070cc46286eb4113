package query

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/order"
)

// changed is an order with a history: it was placed so long ago, and each second after that its metadata changed.
func (w *world) changed(owner order.Owner, ago time.Duration, versions int) order.ID {
	w.Helper()
	id := w.place(owner, ago)
	o := &order.Order{}
	append1 := func(e order.Event) {
		w.exec(`INSERT INTO order_events (account, mode, order_id, version, id, type, schema_version, payload, trace_id, operation, actor, created_at, prev_hash, hash)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, '', '', '', $9, COALESCE($10::bytea, ''), $11)`, owner.Account, owner.Mode, id[:], e.Version, e.ID[:], e.Type, e.Schema, string(e.Payload), e.At, e.PrevHash, e.Hash)
	}
	for v := range versions {
		at := id.Time().Add(time.Duration(v) * time.Second)
		rec := order.Recorder{NewID: func() order.ID { return w.ids.Mint(at, owner.Account) }, Now: at}
		if v == 0 {
			placed, events, err := order.Place(id, order.Draft{Currency: "EUR", CustomerRef: "c", Lines: []order.DraftLine{{
				SKU: "A", Quantity: 1, Product: &order.Product{Name: "A", Active: true, Prices: map[string]int64{"EUR": 5}},
			}}}, rec)
			w.must(err)
			o = placed
			append1(events[0])
			continue
		}
		events, err := o.Update(rec, map[string]string{"rev": strconv.Itoa(v + 1)}, false)
		w.must(err)
		append1(events[0])
	}
	w.exec(`UPDATE orders SET version = $2, rev = $2 WHERE id = $1`, id[:], versions)
	return id
}

func TestGetOrderThen(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(withoutReplicas)
	versions := 2*historyPage + 3
	id := w.changed(mine, 3*time.Hour, versions)
	w.exec(`INSERT INTO order_addresses (account, mode, order_id, address) VALUES (7, 'test', $1, '{"name": "N"}')`, id[:])
	placed := id.Time()
	for name, c := range map[string]struct {
		then    Then
		version int64 // 0: there was none
	}{
		"the first version":                 {Then{Version: 1}, 1},
		"the last of a page":                {Then{Version: historyPage}, historyPage},
		"the first of the next page":        {Then{Version: historyPage + 1}, historyPage + 1},
		"the last version":                  {Then{Version: int64(versions)}, int64(versions)},
		"a version that is still to come":   {Then{Version: int64(versions) + 1}, 0},
		"the highest version":               {Then{Version: 1<<53 - 1}, 0},
		"the instant of its placing":        {Then{AsOf: placed}, 1},
		"before it was placed":              {Then{AsOf: placed.Add(-time.Microsecond)}, 0},
		"the year 1":                        {Then{}, 0},
		"before its second event":           {Then{AsOf: placed.Add(time.Second - time.Microsecond)}, 1},
		"the instant of its second event":   {Then{AsOf: placed.Add(time.Second)}, 2},
		"the end of a page":                 {Then{AsOf: placed.Add((historyPage - 1) * time.Second)}, historyPage},
		"in the middle of the second page":  {Then{AsOf: placed.Add((historyPage + 7) * time.Second)}, historyPage + 8},
		"after its last event":              {Then{AsOf: placed.Add(2 * time.Hour)}, int64(versions)},
		"with a part of a microsecond more": {Then{AsOf: placed.Add(time.Second + 999)}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := p.GetOrderThen(t.Context(), mine, id, c.then, anyToken)
			if c.version == 0 {
				wantCode(t, err, errcode.ORD010)
				if v.Token == "" || len(v.Body) > 0 {
					t.Errorf("%+v", v)
				}
				return
			}
			o := decoded[api.Order](t, v, err)
			if o.Version != c.version || c.version > 1 && o.Metadata["rev"] != strconv.FormatInt(c.version, 10) || o.ShippingAddress == nil || !strings.HasPrefix(v.ETag, `"`+strconv.FormatInt(c.version, 10)+"-") {
				t.Errorf("version %d with ETag %s", o.Version, v.ETag)
			}
		})
	}
	for name, read := range map[string]func() (View, error){
		"of nobody": func() (View, error) {
			return p.GetOrderThen(t.Context(), mine, w.ids.Mint(w.now(), 7), Then{Version: 1}, anyToken)
		},
		"of another": func() (View, error) { return p.GetOrderThen(t.Context(), otherOwner, id, Then{Version: 1}, anyToken) },
		"of the other mode": func() (View, error) {
			return p.GetOrderThen(t.Context(), mineLive, id, Then{AsOf: time.Now()}, anyToken)
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := read()
			wantCode(t, err, errcode.ORD001)
		})
	}
}

// A replica that is behind neither hides a version nor shows an instant without what it lacks.
func TestGetOrderThenOnALaggingReplica(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(w.behind)
	id := w.changed(mine, 30*time.Second, 3) // so young that the order itself is never missing
	for _, then := range []Then{{Version: 3}, {AsOf: time.Now()}} {
		v, err := p.GetOrderThen(t.Context(), mine, id, then, anyToken)
		if o := decoded[api.Order](t, v, err); o.Version != 3 || v.Tier != tierPrimary {
			t.Errorf("version %d by %s", o.Version, v.Tier)
		}
	}
	w.synced(w.LaggingURL(t))
	v, err := p.GetOrderThen(t.Context(), mine, id, Then{Version: 2}, anyToken)
	if o := decoded[api.Order](t, v, err); o.Version != 2 || v.Tier != tierReplica {
		t.Errorf("version %d by %s", o.Version, v.Tier)
	}
}

// An event whose writer's clock was behind belongs to the state after the one before it: a prefix of the history is shown, never another part.
func TestGetOrderThenGoesByTheSequence(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(withoutReplicas)
	id := w.changed(mine, time.Hour, 4)
	w.exec(`UPDATE order_events SET created_at = created_at + interval '10 seconds' WHERE order_id = $1 AND version = 2`, id[:])
	for at, want := range map[time.Duration]int64{5 * time.Second: 1, 11 * time.Second: 4} {
		v, err := p.GetOrderThen(t.Context(), mine, id, Then{AsOf: id.Time().Add(at)}, anyToken)
		if o := decoded[api.Order](t, v, err); o.Version != want {
			t.Errorf("after %v version %d, want %d", at, o.Version, want)
		}
	}
}
