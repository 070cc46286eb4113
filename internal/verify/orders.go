package verify

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/ordergate/ordergate/gen/verifydb"
	"github.com/ordergate/ordergate/order"
)

// checkEvents recomputes every hash over the stored bytes. Nothing may be in flight: an event is written once.
func (s *scan) checkEvents(ctx context.Context) error {
	if err := s.expect(ctx, s.CountEvents); err != nil {
		return err
	}
	var (
		current order.Ref // the order that the walk is at
		chain   *order.Chain
		broken  bool // it is reported
	)
	err := pages(s.PageSize, verifydb.OrderEvent{}, func(after verifydb.OrderEvent) ([]verifydb.OrderEvent, error) {
		return s.EventPage(ctx, verifydb.EventPageParams{
			AfterAccount: after.Account, AfterMode: after.Mode, AfterOrderID: after.OrderID, AfterVersion: after.Version, PageSize: s.PageSize,
		})
	}, func(rows []verifydb.OrderEvent) error {
		for _, row := range rows {
			if ref := refOfEvent(row); chain == nil || ref != current {
				current, chain, broken = ref, order.NewChain(ref.ID), false
			}
			if broken {
				continue
			}
			if err := chain.Next(event(row)); err != nil {
				s.violationf(orderName(current.ID), "%v", err)
				broken = true
			}
		}
		s.lookedAt(len(rows))
		return nil
	})
	if err != nil {
		return err
	}
	repeated, err := s.RepeatedEventIDs(ctx, maxShown)
	for i, row := range repeated {
		s.violationf(order.ID(row.ID).Format(order.PrefixEvent), "several events have this id")
		if i == 0 {
			s.addUnlisted(row.Total, len(repeated))
		}
	}
	return err
}

func refOfEvent(e verifydb.OrderEvent) order.Ref { return order.RefOf(e.Account, e.Mode, e.OrderID) }

func event(e verifydb.OrderEvent) order.Event {
	return order.Event{
		ID: order.ID(e.ID), Type: e.Type, Version: e.Version, Schema: e.SchemaVersion, Payload: []byte(e.Payload), At: e.CreatedAt.UTC(),
		Cause: order.Cause{TraceID: e.TraceID, Operation: e.Operation, Actor: e.Actor}, PrevHash: e.PrevHash, Hash: e.Hash,
	}
}

// checkOrders folds the events of each order and compares all columns of its row. Nothing may be in flight: row and events are written in
// one transaction.
func (s *scan) checkOrders(ctx context.Context) error {
	err := s.eachOrderPage(ctx, func(p orderPage) error {
		folds, err := s.fold(ctx, p.refs)
		if err != nil {
			return err
		}
		for _, row := range p.rows {
			f := folds[order.RefOf(row.Account, row.Mode, row.ID)]
			switch {
			case f == nil:
				s.violationf(orderName(row.ID), "it has no events")
			case f.err != nil:
				s.violationf(orderName(row.ID), "its events cannot be folded: %v", f.err)
			default:
				for _, fault := range compareRow(row, &f.Order) {
					s.violationf(orderName(row.ID), "%s", fault)
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return orphans(ctx, s, "it has events and no row in orders", s.EventsWithoutOrder)
}

// fold is an order as its events give it, up to the first that cannot be applied.
type fold struct {
	order.Order

	err error
}

// eventPages is how many times more events than orders are read at once: some MB.
const eventPages = 8

// fold folds the events of orders, reading them in pages. An order without events is not in the result.
func (s *scan) fold(ctx context.Context, refs orderRefs) (map[order.Ref]*fold, error) {
	folds := map[order.Ref]*fold{}
	return folds, pages(eventPages*s.PageSize, verifydb.OrderEvent{}, func(after verifydb.OrderEvent) ([]verifydb.OrderEvent, error) {
		return s.EventsOf(ctx, verifydb.EventsOfParams{
			Accounts: refs.Accounts, Modes: refs.Modes, OrderIds: refs.OrderIds,
			AfterAccount: after.Account, AfterMode: after.Mode, AfterOrderID: after.OrderID, AfterVersion: after.Version, PageSize: eventPages * s.PageSize,
		})
	}, func(rows []verifydb.OrderEvent) error {
		for _, row := range rows {
			ref := refOfEvent(row)
			if folds[ref] == nil {
				folds[ref] = &fold{Order: order.Order{ID: ref.ID}}
			}
			if f := folds[ref]; f.err == nil {
				f.err = f.Apply(event(row))
			}
		}
		return nil
	})
}

// compareRow names the columns that are not what the fold gives.
func compareRow(row verifydb.OrderPageRow, o *order.Order) (faults []string) {
	compare := func(column string, equal bool, stored, folded any) {
		if !equal {
			faults = append(faults, fmt.Sprintf("%s is %v and its events give %v", column, stored, folded))
		}
	}
	text := func(column, stored, folded string) { compare(column, stored == folded, stored, folded) }
	instant := func(column string, stored, folded time.Time) {
		compare(column, stored.Equal(folded), stored.UTC(), folded)
	}
	text("status", row.Status, string(o.Status))
	text("payment_status", row.PaymentStatus, string(o.PaymentStatus))
	text("customer_ref", row.CustomerRef, o.CustomerRef)
	compare("version", row.Version == o.Version, row.Version, o.Version)
	compare("shard", row.Shard == o.ID.Shard(), row.Shard, o.ID.Shard())
	compare("head_hash", bytes.Equal(row.HeadHash, o.HeadHash), hex.EncodeToString(row.HeadHash), hex.EncodeToString(o.HeadHash))
	instant("created_at", row.CreatedAt, o.CreatedAt.Time)
	instant("updated_at", row.UpdatedAt, o.UpdatedAt.Time)
	folded, err := json.Marshal(o)
	if names := differences(row.State, folded); err != nil || len(names) > 0 {
		faults = append(faults, "state is not what its events give: "+strings.Join(names, ", "))
	}
	return faults
}

// differences names the properties of two JSON objects that differ, as values: jsonb has its own form. Their values may be personal data.
func differences(a, b []byte) (names []string) {
	var x, y map[string]any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return []string{"it is no JSON object"}
	}
	all := maps.Clone(x)
	maps.Copy(all, y)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		stored, is := x[name]
		folded, was := y[name]
		if is != was || !reflect.DeepEqual(stored, folded) {
			names = append(names, name)
		}
	}
	return names
}

// checkIdempotency compares the orders with the stored results of placeOrder, and the results of all operations with the orders. Nothing
// may be in flight: an order and its key are written in one transaction.
func (s *scan) checkIdempotency(ctx context.Context) error {
	keys, err := s.CountKeys(ctx)
	if err != nil {
		return err
	}
	s.lookedAt(int(keys))
	rows, err := s.OrdersWithoutOneKey(ctx, maxShown)
	if err != nil {
		return err
	}
	for i, row := range rows {
		if row.Orders == 0 {
			s.violationf("placeOrder", "%d keys have a result without an order", row.Keys)
		} else {
			s.violationf(orderName(row.OrderID), "%d keys have its result instead of one", row.Keys)
		}
		if i == 0 {
			s.addUnlisted(row.Total, len(rows))
		}
	}
	return orphans(ctx, s, "a key has its result, and there is no such order", s.KeysWithoutOrder)
}
