package query

import (
	"slices"
	"testing"
	"time"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/order"
)

func (w *world) payment(owner order.Owner, of order.ID, attempt int, at time.Time) order.ID {
	w.Helper()
	id := w.ids.Mint(at, owner.Account)
	w.exec(`INSERT INTO payments (account, mode, id, order_id, attempt, amount, currency, status, refunded, failure_code, decline_reason, reference, version, head_hash, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, 500, 'EUR', 'captured', 200, '', '', 'r-1', 3, '', $6, $6)`, owner.Account, owner.Mode, id[:], of[:], attempt, at)
	return id
}

func (w *world) refund(owner order.Owner, of, payment order.ID, at time.Time) order.ID {
	w.Helper()
	id := w.ids.Mint(at, owner.Account)
	w.exec(`INSERT INTO refunds (account, mode, id, payment_id, order_id, amount, currency, reason, status, failure_code, decline_reason, reference, version, head_hash, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, 100, 'EUR', '', 'failed', 'PAY_007', 'no', 'r-1', 2, '', $6, $6)`, owner.Account, owner.Mode, id[:], payment[:], of[:], at)
	return id
}

func (w *world) shipment(owner order.Owner, of order.ID, at time.Time) order.ID {
	w.Helper()
	id := w.ids.Mint(at, owner.Account)
	w.exec(`INSERT INTO shipments (account, mode, id, order_id, lines, tracking, status, version, head_hash, created_at, updated_at)
		VALUES ($1, $2, $3, $4, '[{"sku": "A", "quantity": 2}]', '{"carrier": "c", "number": "n"}', 'shipped', 1, '', $5, $5)`, owner.Account, owner.Mode, id[:], of[:], at)
	return id
}

// entries are the ids of a list of the contract.
type entries struct {
	Data []struct {
		ID string `json:"id"`
	} `json:"data"`
	NextCursor *string `json:"next_cursor"`
}

// walked are the ids of all pages of a list, one entry a page; and the cursor of the second.
func walked(t *testing.T, read func(Page) (View, error)) (ids []string, second string) {
	t.Helper()
	for cursor := ""; ; {
		v, err := read(Page{1, cursor})
		list := decoded[entries](t, v, err)
		for _, e := range list.Data {
			ids = append(ids, e.ID)
		}
		if list.NextCursor == nil {
			return ids, second
		}
		if cursor = *list.NextCursor; second == "" {
			second = cursor
		}
	}
}

func TestPaymentsRefundsAndShipments(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(withoutReplicas)
	at := time.Now().Add(-time.Hour).Truncate(time.Second)
	paid, unpaid, foreign := w.place(mine, time.Hour), w.place(mine, time.Hour), w.place(otherOwner, time.Hour)
	first, second := w.payment(mine, paid, 1, at), w.payment(mine, paid, 2, at.Add(time.Second))
	theirs := w.payment(otherOwner, foreign, 1, at)
	refundA, refundB := w.refund(mine, paid, second, at.Add(2*time.Second)), w.refund(mine, paid, second, at.Add(3*time.Second))
	refundC := w.refund(mine, paid, first, at.Add(4*time.Second))
	theirRefund := w.refund(otherOwner, foreign, theirs, at)
	shipA, shipB := w.shipment(mine, paid, at.Add(5*time.Second)), w.shipment(mine, paid, at.Add(6*time.Second))
	theirShipment := w.shipment(otherOwner, foreign, at)
	names := func(prefix string, ids ...order.ID) (all []string) {
		for _, id := range ids {
			all = append(all, id.Format(prefix))
		}
		return all
	}
	pay := func(ids ...order.ID) []string { return names(order.PrefixPayment, ids...) }
	ref := func(ids ...order.ID) []string { return names(order.PrefixRefund, ids...) }
	from := func(seconds int) *rfc3339.Time {
		return &rfc3339.Time{Time: at.Add(time.Duration(seconds) * time.Second)}
	}
	payments := func(f api.ListPaymentsParams) func(Page) (View, error) {
		return func(page Page) (View, error) { return p.ListPayments(t.Context(), mine, f, page, anyToken) }
	}
	refunds := func(f api.ListRefundsParams) func(Page) (View, error) {
		return func(page Page) (View, error) { return p.ListRefunds(t.Context(), mine, f, page, anyToken) }
	}
	paymentsOf := func(id order.ID) func(Page) (View, error) {
		return func(page Page) (View, error) { return p.ListOrderPayments(t.Context(), mine, id, page, anyToken) }
	}
	shipmentsOf := func(id order.ID) func(Page) (View, error) {
		return func(page Page) (View, error) { return p.ListOrderShipments(t.Context(), mine, id, page, anyToken) }
	}
	lists := map[string]struct {
		read func(Page) (View, error)
		want []string
	}{
		"all payments, the newest first":       {payments(api.ListPaymentsParams{}), pay(second, first)},
		"payments from an instant":             {payments(api.ListPaymentsParams{CreatedFrom: from(1)}), pay(second)},
		"payments before an instant":           {payments(api.ListPaymentsParams{CreatedTo: from(1)}), pay(first)},
		"payments of no time":                  {payments(api.ListPaymentsParams{CreatedFrom: from(1), CreatedTo: from(1)}), nil},
		"of an order, the first attempt first": {paymentsOf(paid), pay(first, second)},
		"of an order that nobody paid":         {paymentsOf(unpaid), nil},
		"all refunds, the newest first":        {refunds(api.ListRefundsParams{}), ref(refundC, refundB, refundA)},
		"refunds of a payment":                 {refunds(api.ListRefundsParams{PaymentID: new(second.Format(order.PrefixPayment))}), ref(refundB, refundA)},
		"refunds of a payment, in a time":      {refunds(api.ListRefundsParams{PaymentID: new(second.Format(order.PrefixPayment)), CreatedFrom: from(3), CreatedTo: from(4)}), ref(refundB)},
		"refunds of another's payment":         {refunds(api.ListRefundsParams{PaymentID: new(theirs.Format(order.PrefixPayment))}), nil},
		"shipments, the first one first":       {shipmentsOf(paid), names(order.PrefixShipment, shipA, shipB)},
		"of an order that was not shipped":     {shipmentsOf(unpaid), nil},
	}
	cursors := map[string]string{}
	for name, l := range lists {
		t.Run(name, func(t *testing.T) {
			got, cursor := walked(t, l.read)
			if !slices.Equal(got, l.want) {
				t.Errorf("%v, want %v", got, l.want)
			}
			_, err := l.read(Page{1, "x"})
			wantCode(t, err, errcode.REQ012)
			if cursor != "" {
				cursors[name] = cursor
			}
		})
	}
	for of, cursor := range cursors {
		for name, l := range lists {
			if name != of {
				_, err := l.read(Page{1, cursor})
				wantCode(t, err, errcode.REQ012)
			}
		}
	}
	t.Run("of an order that is not there", func(t *testing.T) {
		for _, read := range []func(order.ID) func(Page) (View, error){paymentsOf, shipmentsOf} {
			for _, id := range []order.ID{foreign, w.ids.Mint(w.now(), 7)} {
				v, err := read(id)(Page{Limit: 1})
				wantCode(t, err, errcode.ORD001)
				if v.Token == "" {
					t.Error("a 404 has no token")
				}
			}
		}
	})
	t.Run("one", func(t *testing.T) {
		v, err := p.GetPayment(t.Context(), mine, second, anyToken)
		if got := decoded[api.Payment](t, v, err); got.ID != pay(second)[0] || got.Attempt != 2 || got.Status != "captured" || got.Refunded.Amount != 200 || got.Failure != nil || got.Version != 3 {
			t.Errorf("%s", v.Body)
		}
		v, err = p.GetRefund(t.Context(), mine, refundA, anyToken)
		if got := decoded[api.Refund](t, v, err); got.ID != ref(refundA)[0] || got.PaymentID != pay(second)[0] || got.Status != "failed" || got.Failure == nil || got.Failure.Code != "PAY_007" || got.Reason != nil {
			t.Errorf("%s", v.Body)
		}
		v, err = p.GetShipment(t.Context(), mine, shipA, anyToken)
		if got := decoded[api.Shipment](t, v, err); got.Lines[0] != (api.ShipmentLine{Sku: "A", Quantity: 2}) || got.Tracking == nil || got.Tracking.Carrier != "c" || got.DeliveredAt != nil {
			t.Errorf("%s", v.Body)
		}
	})
	t.Run("another's, or nobody's", func(t *testing.T) {
		for _, ids := range [][3]order.ID{{theirs, theirRefund, theirShipment}, {w.ids.Mint(w.now(), 7), w.ids.Mint(w.now(), 7), w.ids.Mint(w.now(), 7)}, {{1}, {1}, {1}}} {
			_, err := p.GetPayment(t.Context(), mine, ids[0], anyToken)
			wantCode(t, err, errcode.PAY001)
			_, err = p.GetRefund(t.Context(), mine, ids[1], anyToken)
			wantCode(t, err, errcode.RFD002)
			_, err = p.GetShipment(t.Context(), mine, ids[2], anyToken)
			wantCode(t, err, errcode.SHP001)
		}
	})
}
