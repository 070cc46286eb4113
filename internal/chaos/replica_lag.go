package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"
)

// sale is how much the part replica-lag does.
type sale struct {
	pieces int // of the product
	buyers int // nine in ten come at one instant, the others when the last piece is gone
}

const (
	soldSKU   = "SALE-0001"
	leastLag  = 1500 * time.Millisecond // of reads; the replica applies a commit 2 s after it
	looks     = 2                       // a buyer who is refused looks again, and orders again if pieces are shown
	soldOut   = "INV_002"
	saleOwner = "buyers" // customer_ref of all orders of the sale
)

// replicaLag sells out a product while all reads are 2 s behind, so that they go on showing pieces that are gone. What is sold is decided on
// the primary alone: nobody gets a piece that is not there.
func replicaLag(ctx context.Context, c *campaign) (err error) {
	i, err := c.install(ctx, ordinary, 30*time.Second)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, i.remove(ctx)) }()
	if err = i.twoServers(ctx, c.laggingURL); err != nil {
		return err
	}
	r, err := i.flashSale(ctx)
	if err != nil {
		return err
	}
	if found := i.verify(ctx); found != "" {
		r.broken = append(r.broken, found)
	}
	i.report(r)
	return nil
}

// offer makes the product and its pieces, and returns how long after that a read shows them.
func (i *installation) offer(ctx context.Context) (lag time.Duration, err error) {
	for _, request := range []struct{ path, key, body string }{
		{"/v1/products", "sale-product", `{"sku":"` + soldSKU + `","name":"Sale","description":"","prices":[{"amount":1000,"currency":"EUR"}]}`},
		{"/v1/inventory/" + soldSKU + "/adjustments", "sale-pieces", fmt.Sprintf(`{"delta":%d,"reason":"chaos"}`, i.c.pieces)},
	} {
		if answer := i.insist(ctx, "POST", request.path, request.key, request.body, false); answer.status != http.StatusCreated {
			return 0, fmt.Errorf("POST %s: %v", request.path, answer)
		}
	}
	begin := time.Now()
	return i.awaitShown(ctx, i.c.pieces, begin)
}

// awaitShown waits until a read shows as many pieces, and returns how long after an instant that was.
func (i *installation) awaitShown(ctx context.Context, pieces int, since time.Time) (time.Duration, error) {
	for end := time.Now().Add(time.Minute); ; {
		shown, err := i.shown(ctx)
		if err == nil && shown == pieces {
			return time.Since(since), nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return 0, errors.Join(ctx.Err(), err, fmt.Errorf("reads show %d pieces, not %d", shown, pieces))
		}
		<-time.After(10 * time.Millisecond)
	}
}

// shown is how many pieces a read without a token shows.
func (i *installation) shown(ctx context.Context) (available int, err error) {
	answer := i.insist(ctx, "GET", "/v1/inventory/"+soldSKU, "", "", false)
	var stock struct {
		Available int `json:"available"`
	}
	if err = json.Unmarshal(answer.body, &stock); err != nil || answer.status != http.StatusOK {
		return 0, fmt.Errorf("read the stock: %v: %w", answer, err)
	}
	return stock.Available, nil
}

// outcomes are what the buyers saw and were told.
type outcomes struct {
	mu       sync.Mutex
	gone     time.Time      // from then on there was no piece, as the primary or a refusal said
	stale    int            // reads that began later and showed pieces
	told     map[string]int // answers: confirmed, or the code of the refusal
	failures []string
}

// buy looks for a piece and orders it if one is shown.
func (i *installation) buy(ctx context.Context, buyer int, o *outcomes) {
	for look := range looks {
		begin := time.Now()
		available, err := i.shown(ctx)
		if err != nil {
			o.add("", err.Error())
			return
		}
		o.looked(begin, available)
		if available == 0 {
			return
		}
		outcome, failure := i.orderPiece(ctx, fmt.Sprintf("sale-%06d-%d", buyer, look))
		o.add(outcome, failure)
		if outcome != soldOut {
			return
		}
	}
}

// looked counts a read that showed pieces which were gone when it began.
func (o *outcomes) looked(begin time.Time, available int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if available > 0 && !o.gone.IsZero() && begin.After(o.gone) {
		o.stale++
	}
}

func (o *outcomes) add(outcome, failure string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if failure != "" {
		o.failures = append(o.failures, failure)
		return
	}
	if outcome == soldOut {
		o.noteGone()
	}
	o.told[outcome]++
}

// noteGone notes when the last piece was gone. The caller holds mu.
func (o *outcomes) noteGone() {
	if o.gone.IsZero() {
		o.gone = time.Now()
	}
}

// orderPiece orders one piece and waits until it is decided: confirmed, or the code that it was refused with.
func (i *installation) orderPiece(ctx context.Context, key string) (outcome, failure string) {
	body := `{"currency":"EUR","customer_ref":"` + saleOwner + `","lines":[{"sku":"` + soldSKU + `","quantity":1}],"payment":{"method_token":"pm_ok"}}`
	answer := i.insist(ctx, "POST", "/v1/orders", key, body, true)
	for end := time.Now().Add(time.Minute); ; {
		var o order
		err := json.Unmarshal(answer.body, &o)
		switch {
		case answer.code() == soldOut:
			return soldOut, ""
		case err != nil || answer.status/100 != 2:
			return "", fmt.Sprintf("order %s was answered %v", key, answer)
		case o.final():
			return cmp.Or(o.Rejection.Code, o.Status), ""
		case time.Now().After(end) || ctx.Err() != nil:
			return "", fmt.Sprintf("order %s is not decided in time: %v", key, answer)
		}
		<-time.After(50 * time.Millisecond)
		answer = i.insist(ctx, "GET", "/v1/orders/"+o.ID, "", "", false)
	}
}

// What the primary says about the sale. Confirmed pieces have left the stock.
const (
	countLeft     = `SELECT on_hand - reserved FROM stock WHERE sku = $1`
	countSold     = `SELECT count(*) FROM orders WHERE customer_ref = $1 AND status = 'confirmed'`
	countTaken    = `SELECT COALESCE(sum(l.quantity), 0)::bigint FROM stock_reservation_lines l JOIN stock_reservations r USING (account, mode, order_id, attempt) WHERE l.sku = $1 AND r.status IN ('held', 'confirmed')`
	countOnHand   = `SELECT on_hand FROM stock WHERE sku = $1`
	countReserved = `SELECT reserved FROM stock WHERE sku = $1`
)

// awaitSoldOut waits until the primary has no piece left.
func (i *installation) awaitSoldOut(ctx context.Context) error {
	for end := time.Now().Add(time.Minute); ; {
		left, err := i.inDatabase(ctx, countLeft, soldSKU)
		if err == nil && left == 0 {
			return nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return errors.Join(ctx.Err(), err, fmt.Errorf("%d pieces are left", left))
		}
		<-time.After(10 * time.Millisecond)
	}
}

// flashSale has all buyers look and order at one instant, and compares what they were told with the primary and the provider.
func (i *installation) flashSale(ctx context.Context) (r row, err error) {
	r.name = "flash sale"
	lag, err := i.offer(ctx)
	if err != nil {
		return r, err
	}
	if i.c.progress("%s: reads are %.1f s behind", i.c.name, lag.Seconds()); lag < leastLag {
		r.broken = append(r.broken, fmt.Sprintf("reads are only %v behind: this proves nothing", lag))
	}
	o := &outcomes{told: map[string]int{}}
	var buyers sync.WaitGroup
	start, late := make(chan struct{}), make(chan struct{})
	for n := range i.c.buyers {
		buyers.Go(func() {
			if n%10 == 0 {
				<-late
			}
			<-start
			i.buy(ctx, n, o)
		})
	}
	close(start)
	if err = i.awaitSoldOut(ctx); err != nil {
		r.broken = append(r.broken, err.Error())
	} else {
		o.mu.Lock()
		o.noteGone()
		o.mu.Unlock()
	}
	close(late)
	buyers.Wait()
	caughtUp, err := i.awaitShown(ctx, 0, o.gone)
	if err != nil {
		r.broken = append(r.broken, err.Error())
	}
	at := map[string]int64{}
	for what, q := range map[string]struct{ statement, arg string }{
		"sold": {countSold, saleOwner}, "taken": {countTaken, soldSKU}, "on hand": {countOnHand, soldSKU}, "reserved": {countReserved, soldSKU},
	} {
		if at[what], err = i.inDatabase(ctx, q.statement, q.arg); err != nil {
			return r, err
		}
	}
	ledger, err := i.ledger(ctx)
	if err != nil {
		return r, err
	}
	charged := 0
	for _, l := range ledger {
		charged += l.captures
	}
	sold, refused, pieces := o.told["confirmed"], o.told[soldOut], int64(i.c.pieces)
	oversold := max(0, at["sold"]-pieces)
	r.counts = fmt.Sprintf("%d pieces, %d buyers, reads %.1f s behind: sold %d, oversold %d, %d orders refused with %s; %d reads showed pieces that were gone, until %.1f s after",
		pieces, i.c.buyers, lag.Seconds(), at["sold"], oversold, refused, soldOut, o.stale, caughtUp.Seconds())
	if at["sold"] != pieces || at["taken"] != pieces || int64(sold) != pieces || int64(charged) != pieces || at["on hand"] != 0 || at["reserved"] != 0 {
		r.broken = append(r.broken, fmt.Sprintf("of %d pieces buyers were told of %d, %d orders are confirmed, %d pieces are taken, %d charged; %d are on hand, %d of them reserved",
			pieces, sold, at["sold"], at["taken"], charged, at["on hand"], at["reserved"]))
	}
	if o.stale == 0 {
		r.broken = append(r.broken, "no read showed pieces that were gone: this proves nothing")
	}
	for _, outcome := range slices.Sorted(maps.Keys(o.told)) {
		if outcome != "confirmed" && outcome != soldOut {
			r.broken = append(r.broken, fmt.Sprintf("%d orders ended with %s", o.told[outcome], outcome))
		}
	}
	r.broken = append(r.broken, o.failures...)
	return r, nil
}
