package verify

import (
	"context"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/ordergate/ordergate/gen/verifydb"
	"github.com/ordergate/ordergate/order"
)

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
				f.err = f.Apply(orderEvent(row))
			}
		}
		return nil
	})
}

// compareRow names the columns that are not what the fold gives.
func compareRow(row verifydb.OrderPageRow, o *order.Order) []string {
	var c comparison
	c.column("status", row.Status, string(o.Status))
	c.column("payment_status", row.PaymentStatus, string(o.PaymentStatus))
	c.column("customer_ref", row.CustomerRef, o.CustomerRef)
	c.column("shard", row.Shard, o.ID.Shard())
	c.head(row.Version, row.HeadHash, order.Head{Version: o.Version, Hash: o.HeadHash})
	c.times(row.CreatedAt, row.UpdatedAt, o.CreatedAt.Time, o.UpdatedAt.Time)
	folded, err := json.Marshal(o)
	if names := differences(row.State, folded); err != nil || len(names) > 0 {
		c.faultf("state is not what its events give: %s", strings.Join(names, ", "))
	}
	return c.faults
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
