package query

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
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

// A search that takes long is refused, and costs others nothing: no breaker opens, the primary is not asked, too, and few run at once.
func TestASlowSearchIsNobodyElsesTrouble(t *testing.T) {
	t.Parallel()
	w := setup(t)
	id := w.place(otherOwner, time.Hour)
	w.exec(`CREATE OR REPLACE FUNCTION search_products(account integer, mode text, words text, after text, page integer) RETURNS SETOF text
		LANGUAGE plpgsql STABLE ROWS 20 AS $$ BEGIN PERFORM pg_sleep(CASE words WHEN 'slow' THEN 5 ELSE 0.5 END); END $$`)
	w.synced(w.ReplicaURL)
	p := w.process(withoutRedis)
	search := func(text string) error {
		_, err := p.ListProducts(t.Context(), mine, api.ListProductsParams{Q: &text}, Page{Limit: 20}, anyToken)
		return err
	}
	if err := search("half a second"); err != nil {
		t.Errorf("a search of half a second: %v", err)
	}
	before := p.loads(tierPrimary)
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for range 20 {
		all.Go(func() {
			for range 3 {
				begin, err := time.Now(), search("slow")
				wantCode(t, err, errcode.RATE003)
				if took := time.Since(begin); took > costlyFor+queueFor+time.Second {
					t.Errorf("a search was refused after %v", took)
				}
			}
		})
	}
	all.Go(func() {
		for ctx.Err() == nil {
			p.lru.Purge()
			if _, err := p.GetOrder(t.Context(), otherOwner, id, anyToken); err != nil {
				t.Errorf("an order of another account: %v", err)
			}
			pause(ctx, 20*time.Millisecond)
		}
	})
	for range 25 {
		pause(ctx, 100*time.Millisecond)
		if p.breakerOpen("replica_1") || p.breakerOpen("primary_reads") {
			t.Error("a breaker is open")
		}
	}
	running := 0
	w.must(w.Pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%search_products%' AND pid <> pg_backend_pid()`).Scan(&running))
	cancel()
	all.Wait()
	if n := p.loads(tierPrimary) - before; n > 0 || running > 0 {
		t.Errorf("%d searches asked the primary, %d run there", n, running)
	}
}
