package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// order is what we read of one.
type order struct {
	ID              string  `json:"id"`
	Status          string  `json:"status"`
	PaymentStatus   string  `json:"payment_status"`
	CancelRequested *string `json:"cancel_requested_at"`
	Rejection       struct {
		Code string `json:"code"`
	} `json:"rejection"`
	Lines []struct {
		SKU      string `json:"sku"`
		Quantity int64  `json:"quantity"`
	} `json:"lines"`
}

// final tells whether nothing more will happen to an order that has a payment.
func (o order) final() bool {
	return o.Status == "rejected" || o.Status == "cancelled" || o.Status == "confirmed" && o.CancelRequested == nil
}

// skus have some thousand pieces each.
var skus = []string{"MUG", "BOWL", "BOOK", "CABLE", "TOWEL", "BOTTLE"}

// placing is the body of an order, the nth of a customer. Without a method token nobody pays it.
func placing(customer string, n int, methodToken string) string {
	sku := fmt.Sprintf("%s-%04d", skus[n%len(skus)], 1+n/len(skus)%9)
	payment := ""
	if methodToken != "" {
		payment = fmt.Sprintf(`,"payment":{"method_token":"%s"}`, methodToken)
	}
	return fmt.Sprintf(`{"currency":"EUR","customer_ref":"%s","lines":[{"sku":"%s","quantity":1}]%s}`, customer, sku, payment)
}

// orders are all of a customer, by their ids.
func (i *installation) orders(ctx context.Context, customer string) (map[string]order, error) {
	all := map[string]order{}
	for cursor := ""; ; {
		answer := i.insist(ctx, "GET", "/v1/orders?limit=100&customer_ref="+url.QueryEscape(customer)+cursor, "", "", false)
		var page struct {
			Data []order `json:"data"`
			Next string  `json:"next_cursor"`
		}
		if err := json.Unmarshal(answer.body, &page); err != nil || answer.status != 200 {
			return nil, fmt.Errorf("list orders: %v: %w", answer, errors.Join(err, ctx.Err()))
		}
		for _, o := range page.Data {
			all[o.ID] = o
		}
		if page.Next == "" {
			return all, nil
		}
		cursor = "&cursor=" + url.QueryEscape(page.Next)
	}
}

// placed is an order that a client was given an id of.
type placed struct {
	id        string
	paid      bool // it has a payment
	cancelled bool // its cancellation was accepted
	later     bool // it was placed without its payment
	refunded  bool // its payment was given back, and it stays
}

// scenarios are what clients do, in turn. Payments, a refusal of one, retries of one, cancellations before, during and after the
// payment, orders that are paid later, a refund, and orders that nobody pays make every step of the saga run.
var scenarios = []struct {
	methodToken  string
	wait, cancel bool
	pay          string // another method token, for a payment of its own
	refund       bool   // of that payment
}{
	{methodToken: "pm_ok"},
	{methodToken: "pm_flaky"},
	{methodToken: "pm_ok", cancel: true},
	{},
	{methodToken: "pm_ok", wait: true, cancel: true},
	{methodToken: "pm_declined"},
	{cancel: true},
	{methodToken: "pm_duplicate"},
	{wait: true, pay: "pm_ok"},
	{wait: true, pay: "pm_ok", refund: true},
}

// play places the nth order of a customer, and cancels it if its scenario says so. It repeats each request until it is decided.
func (i *installation) play(ctx context.Context, customer string, n int) (placed, error) {
	s := scenarios[n%len(scenarios)]
	key := fmt.Sprintf("%s-%06d", customer, n)
	answer := i.insist(ctx, "POST", "/v1/orders", key, placing(customer, n, s.methodToken), s.wait)
	p := placed{id: answer.id(), paid: s.methodToken != ""}
	if answer.status != 202 && answer.status != 201 || p.id == "" {
		return p, fmt.Errorf("order %s: %v", key, answer)
	}
	if s.pay != "" {
		answer = i.insist(ctx, "POST", "/v1/orders/"+p.id+"/payments", key+"-pay", fmt.Sprintf(`{"method_token":"%s"}`, s.pay), true)
		p.paid, p.later = answer.status == 202 || answer.status == 201, true
		if !p.paid && answer.status/100 != 4 && !strings.HasPrefix(answer.code(), "PAY_") { // 4xx: it is not reserved; PAY_: it is not charged
			return p, fmt.Errorf("pay %s: %v", p.id, answer)
		}
	}
	if s.refund && answer.status == 201 {
		if answer = i.insist(ctx, "POST", "/v1/payments/"+answer.id()+"/refunds", key+"-refund", `{"reason":"chaos"}`, true); answer.status/100 != 2 {
			return p, fmt.Errorf("refund a payment of %s: %v", p.id, answer)
		}
		p.refunded = true
	}
	if s.cancel {
		answer = i.insist(ctx, "POST", "/v1/orders/"+p.id+"/cancel", key+"-cancel", "", s.wait)
		p.cancelled = answer.status == 202 || answer.status == 200
		if answer.status/100 != 2 && answer.status != 409 { // 409: it has ended, or its capture runs
			return p, fmt.Errorf("cancel %s: %v", p.id, answer)
		}
	}
	return p, nil
}

// awaitFinal waits until every paid order of a customer is final, and returns all. The error says which are not in time.
func (i *installation) awaitFinal(ctx context.Context, customer string, paid map[string]bool, end time.Time) (map[string]order, error) {
	for {
		all, err := i.orders(ctx, customer)
		if err != nil {
			return nil, err
		}
		var open []order
		for id, o := range all {
			if paid[id] && !o.final() {
				open = append(open, o)
			}
		}
		if len(open) == 0 {
			return all, nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return all, errors.Join(ctx.Err(), fmt.Errorf("%d orders with a payment are not final in time, one is %s %s", len(open), open[0].ID, open[0].Status))
		}
		<-time.After(50 * time.Millisecond)
	}
}
