package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ordergate/ordergate/gen/verifydb"
	"github.com/ordergate/ordergate/order"
)

// Statuses of a payment, beside pending and failed, which a step has, too.
const (
	authorized = "authorized"
	captured   = "captured"
	voided     = "voided"
)

// checkPayments compares each order's payments with their calls and refunds, and what is charged with the order. In flight may be a payment
// step that runs, of which payment did its part or not, and a refund of which the order is not told yet. Never in flight are a second charge,
// a charge of another amount, an order that knows of more refunds than there are, and sums of a payment that are not those of its refunds.
func (s *scan) checkPayments(ctx context.Context) error {
	err := s.eachOrderPage(ctx, func(p orderPage) error {
		paymentRows, err := s.PaymentsOf(ctx, verifydb.PaymentsOfParams(p.refs))
		if err != nil {
			return err
		}
		callRows, err := s.CallsOf(ctx, verifydb.CallsOfParams(p.refs))
		if err != nil {
			return err
		}
		stepRows, err := s.StepsOf(ctx, verifydb.StepsOfParams(p.refs))
		if err != nil {
			return err
		}
		payments := group(paymentRows, func(r verifydb.PaymentsOfRow) order.Ref { return order.RefOf(r.Account, r.Mode, r.OrderID) })
		calls := group(callRows, func(r verifydb.CallsOfRow) order.Ref { return order.RefOf(r.Account, r.Mode, r.OrderID) })
		all := group(stepRows, refOfStep)
		p.each(func(ref order.Ref, o *order.Order) {
			inFlight := steps(all[ref]).any([]string{running}, authorize, capture, refund, void)
			var refunded int64
			for _, payment := range payments[ref] {
				refunded += payment.Refunded
			}
			if fault := fmt.Sprintf("%d of its payments are refunded, and it knows of %d", refunded, o.Refunded); refunded > o.Refunded {
				s.suspect(ref.ID, fault)
			} else if refunded < o.Refunded { // an order is told of what is done
				s.violationf(orderName(ref.ID), "%s", fault)
			}
			faults := append(callFaults(o, payments[ref], calls[ref]), chargeFaults(o, payments[ref], inFlight || refunded > o.Refunded)...)
			for _, fault := range faults {
				s.violationf(orderName(ref.ID), "%s", fault)
			}
		})
		return s.reportStuck(ctx, maxSuspects)
	})
	if err = errors.Join(err, s.reportStuck(ctx, 0)); err != nil {
		return err
	}
	if err = orphans(ctx, s, "it has a refund without a payment of its own", s.RefundsWithoutPayment); err != nil {
		return err
	}
	if err = orphans(ctx, s, "it has a payment and no row in orders", s.PaymentsWithoutOrder); err != nil {
		return err
	}
	return orphans(ctx, s, "it has a call to the provider and no row in orders", s.CallsWithoutOrder)
}

// callFaults judges an order's payments by their calls: both are written in one transaction.
func callFaults(o *order.Order, payments []verifydb.PaymentsOfRow, calls []verifydb.CallsOfRow) (faults []string) {
	for _, p := range payments {
		if p.Amount != o.Total.Amount || p.Currency != o.Total.Currency {
			faults = append(faults, fmt.Sprintf("payment attempt %d is of %d %s, the order of %d %s", p.Attempt, p.Amount, p.Currency,
				o.Total.Amount, o.Total.Currency))
		}
		if possible := paymentStatuses(calls, p); !slices.Contains(possible, p.Status) {
			faults = append(faults, fmt.Sprintf("payment attempt %d is %s and its calls allow %s", p.Attempt, p.Status, strings.Join(possible, " or ")))
		}
		if p.Refunded != p.RefundsSucceeded || p.RefundPending != p.RefundsPending {
			faults = append(faults, fmt.Sprintf("of payment attempt %d %d are refunded and %d wait for it, and its refunds give %d and %d", p.Attempt,
				p.Refunded, p.RefundPending, p.RefundsSucceeded, p.RefundsPending))
		}
		if p.RefundsWithoutCall > 0 {
			faults = append(faults, fmt.Sprintf("%d refunds of payment attempt %d are pending without a due call, or have one and are not",
				p.RefundsWithoutCall, p.Attempt))
		}
	}
	for _, c := range calls {
		if !slices.ContainsFunc(payments, func(p verifydb.PaymentsOfRow) bool { return p.Attempt == c.Attempt }) {
			faults = append(faults, fmt.Sprintf("the call to %s has no payment attempt %d", c.Operation, c.Attempt))
		}
		if c.Definite && c.InDoubt {
			faults = append(faults, fmt.Sprintf("the call to %s has a definite outcome and is in doubt", c.Operation))
		}
	}
	return faults
}

// paymentStatuses are those that a payment may have by its calls, of which the last counts.
func paymentStatuses(calls []verifydb.CallsOfRow, p verifydb.PaymentsOfRow) []string {
	const due, definite = 1, 2
	state := map[string]int{}
	for _, c := range calls {
		switch {
		case c.Attempt != p.Attempt:
		case c.Definite:
			state[c.Operation] = definite
		default:
			state[c.Operation] = due
		}
	}
	switch {
	case state[refund] > 0:
		return []string{captured}
	case state[void] == definite:
		return []string{voided}
	case state[void] == due && state[capture] == definite: // it was refused
		return []string{failed}
	case state[capture] == definite:
		return []string{captured, failed}
	case state[void] == due, state[capture] == due:
		return []string{authorized}
	case state[authorize] == definite:
		return []string{authorized, failed}
	case state[authorize] == due:
		return []string{pending}
	}
	return []string{"nothing"}
}

// chargeFaults judges what an order's payments charge.
func chargeFaults(o *order.Order, payments []verifydb.PaymentsOfRow, inFlight bool) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	var net int64
	charges, open := 0, 0
	for _, p := range payments {
		switch p.Status {
		case captured:
			net += p.Amount - p.Refunded
			if p.Refunded < p.Amount {
				charges++
			}
		case pending, authorized:
			open++
		}
	}
	switch {
	case charges > 1:
		fault("it is charged by %d payments", charges)
	case net > o.Total.Amount-o.Refunded:
		fault("it is charged %d instead of its total of %d less refunds of %d", net, o.Total.Amount, o.Refunded)
	case inFlight: // or the order is not told of a refund yet
	case o.PaymentStatus == order.PaymentStatusPaid && net != o.Total.Amount:
		fault("it is paid, and %d of %d are charged", net, o.Total.Amount)
	case o.PaymentStatus != order.PaymentStatusPaid && o.PaymentStatus != order.PaymentStatusPartiallyRefunded && net != 0:
		fault("its payment status is %s, and %d are charged", o.PaymentStatus, net)
	case (o.PaymentStatus == order.PaymentStatusAuthorized) != (open > 0):
		fault("its payment status is %s, and %d payments are authorized or pending", o.PaymentStatus, open)
	}
	return faults
}
