package verify

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"github.com/google/uuid"

	"github.com/ordergate/ordergate/gen/verifydb"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/order/pay"
)

// checkResources folds the events of each payment, refund and shipment and compares all columns of its row, less the sums of a payment's refunds.
// Nothing may be in flight: row and events are written in one transaction.
func (s *scan) checkResources(ctx context.Context) error {
	if err := s.expect(ctx, s.CountResources); err != nil {
		return err
	}
	if err := foldRows(ctx, s, order.KindPayment, order.PrefixPayment, comparePayment,
		func(r verifydb.PaymentPageRow) order.Ref {
			return order.RefOf(r.Payment.Account, r.Payment.Mode, r.Payment.ID)
		},
		func(after verifydb.PaymentPageRow) ([]verifydb.PaymentPageRow, error) {
			return s.PaymentPage(ctx, verifydb.PaymentPageParams{
				AfterAccount: after.Payment.Account, AfterMode: after.Payment.Mode, AfterID: after.Payment.ID, PageSize: s.PageSize,
			})
		}); err != nil {
		return err
	}
	if err := foldRows(ctx, s, order.KindRefund, order.PrefixRefund, compareRefund,
		func(r verifydb.Refund) order.Ref { return order.RefOf(r.Account, r.Mode, r.ID) },
		func(after verifydb.Refund) ([]verifydb.Refund, error) {
			return s.RefundPage(ctx, verifydb.RefundPageParams{AfterAccount: after.Account, AfterMode: after.Mode, AfterID: after.ID, PageSize: s.PageSize})
		}); err != nil {
		return err
	}
	if err := foldRows(ctx, s, order.KindShipment, order.PrefixShipment, compareShipment,
		func(r verifydb.Shipment) order.Ref { return order.RefOf(r.Account, r.Mode, r.ID) },
		func(after verifydb.Shipment) ([]verifydb.Shipment, error) {
			return s.ShipmentPage(ctx, verifydb.ShipmentPageParams{AfterAccount: after.Account, AfterMode: after.Mode, AfterID: after.ID, PageSize: s.PageSize})
		}); err != nil {
		return err
	}
	rows, err := s.EventsWithoutResource(ctx, maxShown)
	for i, row := range rows {
		s.violationf(row.Resource, "it has events and no row of its %s", row.Kind)
		if i == 0 {
			s.addUnlisted(row.Total, len(rows))
		}
	}
	return err
}

// foldRows compares the rows of a kind, page by page, with their events. compare names the columns that differ; its error is that the
// events cannot be folded.
func foldRows[R any](
	ctx context.Context, s *scan, kind, prefix string, compare func(R, []order.Event) ([]string, error), ref func(R) order.Ref, read func(after R) ([]R, error),
) error {
	var first R
	return pages(s.PageSize, first, read, func(rows []R) error {
		p := verifydb.ResourceEventsOfParams{Kind: kind}
		names := make([]order.Resource, len(rows))
		for i, row := range rows {
			r := ref(row)
			names[i] = order.Resource{Owner: r.Owner, Kind: kind, ID: r.ID.Format(prefix)}
			p.Accounts, p.Modes, p.Resources = append(p.Accounts, r.Account), append(p.Modes, r.Mode), append(p.Resources, names[i].ID)
		}
		events, err := s.ResourceEventsOf(ctx, p)
		if err != nil {
			return err
		}
		histories := map[order.Resource][]order.Event{}
		for _, e := range events {
			histories[resourceOf(e)] = append(histories[resourceOf(e)], resourceEvent(e))
		}
		for i, row := range rows {
			s.compareFold(names[i].ID, histories[names[i]], func(history []order.Event) ([]string, error) { return compare(row, history) })
		}
		s.lookedAt(len(rows))
		return nil
	})
}

// compareFold reports how a row differs from what its events give.
func (s *scan) compareFold(name string, history []order.Event, compare func([]order.Event) ([]string, error)) {
	if len(history) == 0 {
		s.violationf(name, "it has no events")
		return
	}
	faults, err := compare(history)
	if err != nil {
		s.violationf(name, "its events cannot be folded: %v", err)
	}
	for _, fault := range faults {
		s.violationf(name, "%s", fault)
	}
}

func comparePayment(r verifydb.PaymentPageRow, history []order.Event) ([]string, error) {
	row := r.Payment
	p, err := pay.Fold(order.RefOf(row.Account, row.Mode, row.ID), history, nil)
	if err != nil {
		return nil, err
	}
	var c comparison
	c.id("order_id", order.PrefixOrder, row.OrderID, p.OrderID)
	c.column("attempt", row.Attempt, p.Attempt)
	c.column("amount", order.Money{Amount: row.Amount, Currency: row.Currency}, p.Amount)
	c.column("status", row.Status, string(p.Status))
	c.column("failure_code", row.FailureCode, p.FailureCode)
	c.column("decline_reason", row.DeclineReason, p.DeclineReason)
	c.column("reference", row.Reference, p.Reference)
	c.head(row.Version, row.HeadHash, p.Head)
	p.Touch(r.TouchedAt.UTC())
	c.times(row.CreatedAt, row.UpdatedAt, p.CreatedAt, p.UpdatedAt)
	return c.faults, nil
}

func compareRefund(row verifydb.Refund, history []order.Event) ([]string, error) {
	r, err := pay.FoldRefund(order.RefOf(row.Account, row.Mode, row.ID), history, nil)
	if err != nil {
		return nil, err
	}
	var c comparison
	c.id("payment_id", order.PrefixPayment, row.PaymentID, r.PaymentID)
	c.id("order_id", order.PrefixOrder, row.OrderID, r.OrderID)
	c.column("amount", order.Money{Amount: row.Amount, Currency: row.Currency}, r.Amount)
	if row.Reason != r.Reason { // a client's text is not shown
		c.faultf("reason is not what its events give")
	}
	c.column("status", row.Status, string(r.Status))
	c.column("failure_code", row.FailureCode, r.FailureCode)
	c.column("decline_reason", row.DeclineReason, r.DeclineReason)
	c.column("reference", row.Reference, r.Reference)
	c.head(row.Version, row.HeadHash, r.Head)
	c.times(row.CreatedAt, row.UpdatedAt, r.CreatedAt, r.UpdatedAt)
	return c.faults, nil
}

func compareShipment(row verifydb.Shipment, history []order.Event) ([]string, error) {
	sh := &order.Shipment{ID: order.ID(row.ID)}
	for _, e := range history {
		if err := sh.Apply(e); err != nil {
			return nil, err
		}
	}
	var c comparison
	c.id("order_id", order.PrefixOrder, row.OrderID, sh.OrderID)
	c.json("lines", row.Lines, sh.Lines)
	c.json("tracking", row.Tracking, sh.Tracking)
	c.column("status", row.Status, string(sh.Status))
	c.head(row.Version, row.HeadHash, order.Head{Version: sh.Version, Hash: sh.HeadHash})
	c.times(row.CreatedAt, row.UpdatedAt, sh.CreatedAt.Time, sh.UpdatedAt.Time)
	switch {
	case (row.DeliveredAt == nil) != (sh.DeliveredAt == nil):
		c.faultf("delivered_at is not what its events give")
	case row.DeliveredAt != nil:
		c.instant("delivered_at", *row.DeliveredAt, sh.DeliveredAt.Time)
	}
	return c.faults, nil
}

// comparison collects the columns of a row that are not what its events give.
type comparison struct{ faults []string }

func (c *comparison) faultf(format string, args ...any) {
	c.faults = append(c.faults, fmt.Sprintf(format, args...))
}

// column compares two values of one type.
func (c *comparison) column(name string, stored, folded any) {
	if stored != folded {
		c.faultf("%s is %v and its events give %v", name, stored, folded)
	}
}

func (c *comparison) id(name, prefix string, stored uuid.UUID, folded order.ID) {
	c.column(name, order.ID(stored).Format(prefix), folded.Format(prefix))
}

func (c *comparison) instant(name string, stored, folded time.Time) {
	if !stored.Equal(folded) {
		c.faultf("%s is %v and its events give %v", name, stored.UTC(), folded.UTC())
	}
}

func (c *comparison) times(created, updated, foldedCreated, foldedUpdated time.Time) {
	c.instant("created_at", created, foldedCreated)
	c.instant("updated_at", updated, foldedUpdated)
}

func (c *comparison) head(version int64, hash []byte, folded order.Head) {
	c.column("version", version, folded.Version)
	if !bytes.Equal(hash, folded.Hash) {
		c.faultf("head_hash is %s and its events give %s", hex.EncodeToString(hash), hex.EncodeToString(folded.Hash))
	}
}

// json compares JSON, or NULL, as values: jsonb has its own form. They may be personal data.
func (c *comparison) json(name string, stored []byte, folded any) {
	var x, y any
	b, err := json.Marshal(folded)
	if err != nil || stored != nil && json.Unmarshal(stored, &x) != nil || json.Unmarshal(b, &y) != nil || !reflect.DeepEqual(x, y) {
		c.faultf("%s is not what its events give", name)
	}
}
