package query

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/order"
)

// TestListsAreStableUnderWrites: a reader of a list, page by page, while rows are added before, between and after the pages and others change,
// sees each row once that was there throughout, and none twice.
func TestListsAreStableUnderWrites(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(withoutReplicas)
	const rows = 60
	begin := time.Now().Add(-time.Hour).Truncate(time.Second)
	at := func(i int) time.Time { return begin.Add(time.Duration(i) * time.Second) }
	var orderIDs, payments, refunds, skus []string
	paid := w.place(mine, time.Hour)
	for i := range rows {
		orderIDs = append(orderIDs, w.insert(mine, w.ids.Mint(at(i), 7), "c", order.StatusPending).Format(order.PrefixOrder))
		payment := w.payment(mine, paid, i+1, at(i))
		payments = append(payments, payment.Format(order.PrefixPayment))
		refunds = append(refunds, w.refund(mine, paid, payment, at(i)).Format(order.PrefixRefund))
		sku := fmt.Sprintf("S-%03d", i)
		w.product(mine, sku, "a lamp")
		skus = append(skus, sku)
	}
	slices.Reverse(orderIDs)
	slices.Reverse(payments)
	slices.Reverse(refunds)
	written := 0
	write := func() { // before each page
		n := written
		written++
		i := n % rows
		w.insert(mine, w.ids.Mint(at(i).Add(time.Duration(n)*time.Millisecond+time.Microsecond), 7), "c", order.StatusPending)
		bound := w.ids.Mint(at(i), 7)
		w.exec(`UPDATE orders SET status = 'reserved', rev = rev + 1 WHERE account = 7 AND customer_ref = 'c' AND id < $1`, bound[:])
		added := w.payment(mine, w.place(mine, time.Hour), 1, at(i).Add(time.Millisecond))
		w.refund(mine, paid, added, at(i).Add(time.Millisecond))
		w.product(mine, fmt.Sprintf("S-%03d-%d", i, n), "a lamp")
		w.exec(`UPDATE products SET name = 'the lamp', rev = rev + 1 WHERE account = 7 AND sku = $1`, fmt.Sprintf("S-%03d", i))
	}
	ctx := context.WithoutCancel(t.Context())
	for name, l := range map[string]struct {
		read func(Page) (View, error)
		want []string
	}{
		"orders": {func(page Page) (View, error) { return p.ListOrders(ctx, mine, orderFilter{}, page, anyToken) }, orderIDs},
		"orders of a customer": {func(page Page) (View, error) {
			return p.ListOrders(ctx, mine, orderFilter{CustomerRef: new("c")}, page, anyToken)
		}, orderIDs},
		"payments": {func(page Page) (View, error) {
			return p.ListPayments(ctx, mine, api.ListPaymentsParams{}, page, anyToken)
		}, payments},
		"refunds": {func(page Page) (View, error) {
			return p.ListRefunds(ctx, mine, api.ListRefundsParams{}, page, anyToken)
		}, refunds},
		"products": {func(page Page) (View, error) {
			return p.ListProducts(ctx, mine, api.ListProductsParams{}, page, anyToken)
		}, skus},
		"products of a search": {func(page Page) (View, error) {
			return p.ListProducts(ctx, mine, api.ListProductsParams{Q: new("lamp")}, page, anyToken)
		}, skus},
	} {
		seen := map[string]bool{}
		var got []string
		for cursor := ""; ; {
			write()
			v, err := l.read(Page{7, cursor})
			list := decoded[struct {
				Data []struct {
					ID  string `json:"id"`
					SKU string `json:"sku"`
				} `json:"data"`
				NextCursor *string `json:"next_cursor"`
			}](t, v, err)
			for _, e := range list.Data {
				id := e.ID + e.SKU
				if seen[id] {
					t.Errorf("%s: %s comes twice", name, id)
				}
				seen[id] = true
				if slices.Contains(l.want, id) {
					got = append(got, id)
				}
			}
			if list.NextCursor == nil {
				break
			}
			cursor = *list.NextCursor
		}
		if !slices.Equal(got, l.want) {
			t.Errorf("%s: %d of %d that were there throughout, or in another order", name, len(got), len(l.want))
		}
	}
	if written < 10 {
		t.Errorf("%d writes were tried beside", written)
	}
}
