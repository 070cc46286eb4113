package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// faults are what the simulator does to requests and callbacks, always the same for one seed.
var faults = []string{
	"-faults", "timeout=0.2,error=0.1,double=0.1,late=0.05,callback-lost=0.2,callback-double=0.2,callback-delay=2s", "-seed", "7",
}

// endWithin is the time from the last order until all are final: the payment's, and that of a capture, which is tried without end, with
// growing delays.
const endWithin = 3 * time.Minute

// provider places paid orders while the provider fails. Each is charged once or not at all, and ends.
func provider(ctx context.Context, c *campaign) (err error) {
	i, err := c.install(ctx, ordinary, 30*time.Second, faults...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, i.remove(ctx)) }()
	r, err := i.charges(ctx)
	if err != nil {
		return err
	}
	if found := i.verify(ctx); found != "" {
		r.broken = append(r.broken, found)
	}
	i.report(r)
	return nil
}

// twicePaid counts orders with several payments.
const twicePaid = `SELECT count(*) FROM (SELECT order_id FROM payments GROUP BY order_id HAVING count(*) > 1) o`

// charges places the orders, waits for their ends and compares them with the provider's ledger.
func (i *installation) charges(ctx context.Context) (r row, err error) {
	r.name = "charges"
	numbers := make([]int, i.c.orders)
	for n := range numbers {
		numbers[n] = n
	}
	i.each(ctx, r.name, numbers, func(n int) int {
		_ = i.insist(ctx, "POST", "/v1/orders", fmt.Sprintf("provider-%06d", n), placing("provider", n, "pm_ok"), false)
		return 0
	})
	all, err := i.orders(ctx, "provider")
	if err != nil {
		return r, err
	}
	paid := map[string]bool{}
	for id := range all {
		paid[id] = true
	}
	begin := time.Now()
	if all, err = i.awaitFinal(ctx, "provider", paid, begin.Add(endWithin)); all == nil {
		return r, err
	} else if err != nil {
		r.broken = append(r.broken, err.Error())
	}
	took, ended := time.Since(begin), map[string]int{}
	for _, o := range all {
		ended[o.Status]++
	}
	ledger, err := i.ledger(ctx)
	if err != nil {
		return r, err
	}
	charged := 0
	for payment, l := range ledger {
		switch net := l.captured - l.refunded; {
		case l.captures > 1 || net < 0:
			r.broken = append(r.broken, fmt.Sprintf("%s was captured %d times, %d in all", payment, l.captures, net))
		case net > 0:
			charged++
		}
	}
	twice, err := i.inDatabase(ctx, twicePaid)
	if err != nil {
		return r, err
	}
	if len(all) != i.c.orders || charged != ended["confirmed"] || twice != 0 {
		r.broken = append(r.broken, fmt.Sprintf("%d orders, %d of them confirmed, %d charged, %d with two payments", len(all), ended["confirmed"], charged, twice))
	}
	r.counts = fmt.Sprintf("%d orders, %d confirmed, %d rejected, %d net charges, ended %.0f s after the last order",
		len(all), ended["confirmed"], ended["rejected"], charged, took.Seconds())
	return r, nil
}

// balance is what the provider did to one payment.
type balance struct {
	captures           int
	captured, refunded int64
}

// ledger sums the provider's ledger by payment.
func (i *installation) ledger(ctx context.Context) (map[string]*balance, error) {
	sums := map[string]*balance{}
	for after := int64(0); ; {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/v1/ledger?limit=1000&after=%d", i.psp, after), http.NoBody)
		if err != nil {
			return nil, err
		}
		res, err := i.client.Do(r)
		if err != nil {
			return nil, err
		}
		var page struct {
			Data []struct {
				Payment string `json:"payment"`
				Kind    string `json:"kind"`
				Status  string `json:"status"`
				Amount  struct {
					Amount int64 `json:"amount"`
				} `json:"amount"`
			} `json:"data"`
			Next *int64 `json:"next"`
		}
		err = json.NewDecoder(res.Body).Decode(&page)
		_ = res.Body.Close()
		if err != nil {
			return nil, fmt.Errorf("read the ledger: %w", err)
		}
		for _, e := range page.Data {
			if sums[e.Payment] == nil {
				sums[e.Payment] = &balance{}
			}
			switch e.Kind + " " + e.Status {
			case "capture succeeded":
				sums[e.Payment].captures++
				sums[e.Payment].captured += e.Amount.Amount
			case "refund succeeded":
				sums[e.Payment].refunded += e.Amount.Amount
			}
		}
		if page.Next == nil {
			return sums, nil
		}
		after = *page.Next
	}
}
