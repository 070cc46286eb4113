package verify

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"github.com/ordergate/ordergate/gen/verifydb"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/order"
)

// checkEvents recomputes every hash over the stored bytes. Nothing may be in flight: an event is written once.
func (s *scan) checkEvents(ctx context.Context) error {
	var history []verifydb.OrderEvent // of one order
	verify := func() {
		if len(history) == 0 {
			return
		}
		id := order.ID(history[0].OrderID)
		if err := order.Verify(id, pg.Column(history, event)); err != nil {
			s.violationf(orderName(id), "%v", err)
		}
		history = history[:0]
	}
	err := pages(verifydb.OrderEvent{}, func(after verifydb.OrderEvent) ([]verifydb.OrderEvent, error) {
		return s.EventPage(ctx, verifydb.EventPageParams{
			AfterAccount: after.Account, AfterMode: after.Mode, AfterOrderID: after.OrderID, AfterVersion: after.Version, PageSize: pageSize,
		})
	}, func(rows []verifydb.OrderEvent) error {
		for _, row := range rows {
			if len(history) > 0 && refOfEvent(history[0]) != refOfEvent(row) {
				verify()
			}
			history = append(history, row)
		}
		s.looked(len(rows))
		return nil
	})
	if err != nil {
		return err
	}
	verify()
	repeated, err := s.RepeatedEventIDs(ctx, maxShown)
	for _, row := range repeated {
		s.violationf(order.ID(row.ID).Format(order.PrefixEvent), "several events have this id")
	}
	if len(repeated) > 0 {
		s.unshown(repeated[0].Total, len(repeated))
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
	err := s.orders(ctx, func(p orderPage) error {
		rows, err := s.EventsOf(ctx, p.ids)
		if err != nil {
			return err
		}
		histories := group(rows, refOfEvent)
		for _, row := range p.rows {
			events := pg.Column(histories[order.RefOf(row.Account, row.Mode, row.ID)], event)
			o, err := order.Fold(order.ID(row.ID), events, nil)
			switch {
			case err != nil:
				s.violationf(orderName(row.ID), "its events cannot be folded: %v", err)
			case len(events) == 0:
				s.violationf(orderName(row.ID), "it has no events")
			default:
				for _, fault := range compareRow(row, o) {
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
	if err != nil || !equalJSON(row.State, folded) {
		faults = append(faults, fmt.Sprintf("state is %s and its events give %s", row.State, folded))
	}
	return faults
}

// equalJSON compares values, as jsonb has its own order of properties.
func equalJSON(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

// checkIdempotency compares the placed orders with the stored results of placeOrder. Nothing may be in flight: an order and its key are
// written in one transaction.
func (s *scan) checkIdempotency(ctx context.Context) error {
	keys, err := s.CountKeys(ctx)
	if err != nil {
		return err
	}
	s.looked(int(keys))
	rows, err := s.OrdersWithoutOneKey(ctx, maxShown)
	for _, row := range rows {
		if row.Orders == 0 {
			s.violationf(orderName(row.OrderID), "a key has its result, and there is no such order")
		} else {
			s.violationf(orderName(row.OrderID), "%d keys have its result instead of one", row.Keys)
		}
	}
	if len(rows) > 0 {
		s.unshown(rows[0].Total, len(rows))
	}
	return err
}
