package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	notStuck   = time.Minute // from the end of the faults until every order with a payment is final
	shopEvery  = 40 * time.Millisecond
	buyers     = 2               // clients that order what is short
	settleTime = 5 * time.Second // until what clients were told and what servers have agree, once all orders are final
)

// damage is what must not be, counted from what clients were told, the orders that they see, the provider's ledger and the stock.
type damage struct {
	lost         int // orders that were answered and are gone, commands that were answered and did not take place
	doubled      int // orders beyond one for each key
	oversold     int // pieces
	chargedTwice int // payments beyond one for each confirmed order
	stuck        int // orders with a payment that are not final
}

// load is what clients do while something fails.
type load struct {
	i        *installation
	customer string // also the sku of the product that is short

	mu      sync.Mutex
	placed  []placed
	soldOut int // orders of what is short that were refused at once
	failed  []string
}

func (l *load) add(p placed, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.id != "" {
		l.placed = append(l.placed, p)
	}
	if err != nil {
		l.failed = append(l.failed, err.Error())
	}
}

// run has clients do what the scenarios have, and others order what is short, until stop is closed. What is under way then is gone through with.
func (l *load) run(ctx context.Context, stop <-chan struct{}) *sync.WaitGroup {
	var clients sync.WaitGroup
	each := func(clientCount int, do func(n int)) {
		for client := range clientCount {
			clients.Go(func() {
				pace := time.NewTicker(time.Duration(clientCount) * shopEvery)
				defer pace.Stop()
				for n := client; ctx.Err() == nil; n += clientCount {
					select {
					case <-stop:
						return
					case <-pace.C:
						do(n)
					}
				}
			})
		}
	}
	each(l.i.c.load, func(n int) { l.add(l.i.play(ctx, l.customer, n)) })
	each(buyers, func(n int) {
		key := fmt.Sprintf("%s-short-%06d", l.customer, n)
		body := fmt.Sprintf(`{"currency":"EUR","customer_ref":"%s","lines":[{"sku":"%s","quantity":1}],"payment":{"method_token":"pm_ok"}}`, l.customer, l.customer)
		answer := l.i.insist(ctx, "POST", "/v1/orders", key, body, n%2 == 0)
		if answer.code() == soldOut && answer.status == http.StatusConflict {
			l.mu.Lock()
			l.soldOut++
			l.mu.Unlock()
			return
		}
		if answer.status != 201 && answer.status != 202 {
			l.add(placed{}, fmt.Errorf("order %s: %v", key, answer))
			return
		}
		l.add(placed{id: answer.id(), paid: true}, nil)
	})
	return &clients
}

// underLoad does a fault while clients place, pay, refund and cancel orders, and counts what came of them.
func (b *battle) underLoad(ctx context.Context, customer string, f fault) (r row, err error) {
	i, l := b.i, &load{i: b.i, customer: customer}
	r = row{name: f.name, damage: &damage{}}
	if err = i.offerPieces(ctx, customer, i.c.short); err != nil {
		return r, err
	}
	before, err := i.onHand(ctx)
	if err != nil {
		return r, err
	}
	i.loaded = customer
	internal := i.internal.Load()
	stop := make(chan struct{})
	loading, cancel := context.WithCancel(ctx)
	defer cancel()
	clients := l.run(loading, stop)
	pause(ctx, i.c.killEvery/2)
	done, err := f.do(ctx)
	ended := time.Now()
	close(stop)
	if errors.Is(err, errNoFaketime) {
		r.broken, err = append(r.broken, err.Error()), nil
	}
	if err != nil {
		cancel()
	}
	clients.Wait()
	if err != nil {
		return r, fmt.Errorf("%s: %w", f.name, err)
	}
	if err = b.count(ctx, l, before, ended, done, &r); err != nil {
		return r, err
	}
	if n := i.internal.Load() - internal; n > 0 {
		r.broken = append(r.broken, fmt.Sprintf("%d answers were 500, one is %v", n, i.lastInternal.Load()))
	}
	for _, name := range []string{"serve", "worker", "psp"} {
		select {
		case <-i.process(name).ended:
			r.broken = append(r.broken, fmt.Sprintf("%s ended: %s", name, i.lastLog(name)))
		default:
		}
	}
	if found := i.verify(ctx); found != "" {
		r.broken = append(r.broken, found)
	}
	return r, ctx.Err()
}

// offerPieces makes a product and its pieces.
func (i *installation) offerPieces(ctx context.Context, sku string, pieces int64) error {
	for _, request := range []struct{ path, key, body string }{
		{"/v1/products", sku + "-product", `{"sku":"` + sku + `","name":"Short","description":"","prices":[{"amount":1000,"currency":"EUR"}]}`},
		{"/v1/inventory/" + sku + "/adjustments", sku + "-pieces", fmt.Sprintf(`{"delta":%d,"reason":"chaos"}`, pieces)},
	} {
		if answer := i.insist(ctx, "POST", request.path, request.key, request.body, false); answer.status != http.StatusCreated {
			return fmt.Errorf("POST %s: %v", request.path, answer)
		}
	}
	return nil
}

// level is how many pieces of a product there are.
type level struct{ onHand, reserved int64 }

// onHand are the levels of all products.
func (i *installation) onHand(ctx context.Context) (map[string]level, error) {
	conn, err := pgx.Connect(ctx, i.primary)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	levels := map[string]level{}
	rows, _ := conn.Query(ctx, "SELECT sku, on_hand, reserved FROM stock")
	var sku string
	var l level
	_, err = pgx.ForEachRow(rows, []any{&sku, &l.onHand, &l.reserved}, func() error {
		levels[sku] = l
		return nil
	})
	return levels, err
}

// count waits until all is final, and compares what clients were told, the orders as they see them, the provider's ledger and the stock. What is
// asked of a replica, and a refund, may take a moment longer.
func (b *battle) count(ctx context.Context, l *load, before map[string]level, ended time.Time, done string, r *row) error {
	var settled time.Time
	for ; ; pause(ctx, 200*time.Millisecond) {
		all, err := b.i.orders(ctx, l.customer)
		if err != nil {
			return err
		}
		took := time.Since(ended)
		found, findings := l.compare(all)
		states := map[string]int{}
		for _, o := range all {
			states[o.Status]++
		}
		refunds := 0
		for _, p := range l.placed {
			if p.refunded && all[p.id].Status == "confirmed" {
				refunds++
			}
		}
		if found.stuck+found.lost > 0 && took < notStuck && ctx.Err() == nil {
			continue
		}
		asked, err := b.asked(ctx, before)
		if err != nil {
			return err
		}
		more := asked.compare(all, states["confirmed"]-refunds, &found)
		if settled.IsZero() {
			settled = time.Now()
		}
		if len(more) > 0 && time.Since(settled) < settleTime && ctx.Err() == nil {
			continue
		}
		b.charged += states["confirmed"] - refunds
		*r.damage, r.broken = found, slices.Concat(r.broken, l.failed, findings, more)
		r.counts = fmt.Sprintf("%s; %d orders (%d confirmed, %d cancelled, %d rejected), %d refunds, %d refused as sold out; all final after %.1f s",
			done, len(all), states["confirmed"], states["cancelled"], states["rejected"], refunds, l.soldOut, took.Seconds())
		return nil
	}
}

// compare compares orders with what clients were told of them.
func (l *load) compare(all map[string]order) (d damage, findings []string) {
	broken := func(n *int, format string, a ...any) {
		*n++
		findings = append(findings, fmt.Sprintf(format, a...))
	}
	told := map[string]bool{}
	for _, p := range l.placed {
		told[p.id] = true
		o, there := all[p.id]
		switch {
		case !there:
			broken(&d.lost, "%s was answered and is lost", p.id)
		case p.later && !p.cancelled && o.Status == "reserved" && o.PaymentStatus == "failed": // another card may follow
		case (p.paid || p.cancelled) && !o.final():
			broken(&d.stuck, "%s is stuck: %s", p.id, o.Status)
		case p.cancelled && o.Status != "cancelled":
			broken(&d.lost, "the cancellation of %s was accepted, and it is %s", p.id, o.Status)
		}
	}
	if len(l.failed) > 0 {
		return d, findings // a client gave up, and does not know its order
	}
	for id := range all {
		if !told[id] {
			broken(&d.doubled, "%s is under no key, or under one that has another", id)
		}
	}
	return d, findings
}

// servers is what the database and the provider have.
type servers struct {
	before, now map[string]level
	ledger      map[string]*balance
	explained   int // payments that stand in the ledger, by earlier loads
}

// asked reads both.
func (b *battle) asked(ctx context.Context, before map[string]level) (s servers, err error) {
	s = servers{before: before, explained: b.charged}
	if s.now, err = b.i.onHand(ctx); err == nil {
		s.ledger, err = b.i.ledger(ctx)
	}
	return s, err
}

// compare compares orders with the stock and the ledger. Of so many confirmed ones the payment must stand.
func (s servers) compare(all map[string]order, charges int, d *damage) (findings []string) {
	sold := map[string]int64{}
	for _, o := range all {
		if o.Status == "confirmed" {
			for _, line := range o.Lines {
				sold[line.SKU] += line.Quantity
			}
		}
	}
	for sku, was := range s.before {
		is, gone := s.now[sku], was.onHand-s.now[sku].onHand
		if gone != sold[sku] || is.reserved < 0 || is.reserved > is.onHand {
			d.oversold += int(max(sold[sku]-gone, sold[sku]-was.onHand, is.reserved-is.onHand, 0))
			findings = append(findings, fmt.Sprintf("of %s %d pieces are sold and %d gone; %d are on hand, %d of them reserved", sku, sold[sku], gone, is.onHand, is.reserved))
		}
	}
	charged := 0
	for payment, l := range s.ledger {
		net := l.captured - l.refunded
		if net > 0 {
			charged++
		}
		if l.captures > 1 || net < 0 {
			d.chargedTwice++
			findings = append(findings, fmt.Sprintf("%s was captured %d times, %d in all", payment, l.captures, net))
		}
	}
	if extra := charged - s.explained - charges; extra != 0 {
		d.chargedTwice += max(0, extra)
		d.lost += max(0, -extra)
		findings = append(findings, fmt.Sprintf("%d orders are confirmed and not refunded, and %d are charged", charges, charged-s.explained))
	}
	return findings
}

// damageHeader and cells are the columns of a row with damage.
const damageHeader = "PART\tCASE\tLOST\tDOUBLED\tOVERSOLD\tCHARGED TWICE\tSTUCK\tVERDICT\tCOUNTS"

func (d *damage) cells() string {
	return fmt.Sprintf("%d\t%d\t%d\t%d\t%d", d.lost, d.doubled, d.oversold, d.chargedTwice, d.stuck)
}

// problem is what a refusal says to a program.
type problem struct {
	Code      string `json:"code"`
	Retryable bool   `json:"retryable"`
}

func (r response) problem() (p problem) {
	_ = json.Unmarshal(r.body, &p)
	return p
}

func (d *damage) String() string {
	return fmt.Sprintf("lost %d, doubled %d, oversold %d, charged twice %d, stuck %d", d.lost, d.doubled, d.oversold, d.chargedTwice, d.stuck)
}
