package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/ordergate/ordergate/gen/verifydb"
	"github.com/ordergate/ordergate/internal/pg"
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
// a charge of another amount, and sums of a payment that are not those of its refunds.
func (s *scan) checkPayments(ctx context.Context) error {
	err := s.orders(ctx, func(p orderPage) error {
		paymentRows, err := s.PaymentsOf(ctx, verifydb.PaymentsOfParams(p.ids))
		if err != nil {
			return err
		}
		callRows, err := s.CallsOf(ctx, verifydb.CallsOfParams(p.ids))
		if err != nil {
			return err
		}
		stepRows, err := s.StepsOf(ctx, verifydb.StepsOfParams(p.ids))
		if err != nil {
			return err
		}
		refundRows, err := s.RefundsOf(ctx, refundParams(paymentRows))
		if err != nil {
			return err
		}
		payments := group(paymentRows, func(r verifydb.PaymentsOfRow) order.Ref { return order.RefOf(r.Account, r.Mode, r.OrderID) })
		calls := group(callRows, func(r verifydb.CallsOfRow) order.Ref { return order.RefOf(r.Account, r.Mode, r.OrderID) })
		all := group(stepRows, refOfStep)
		refunds := make(map[order.Ref]verifydb.RefundsOfRow, len(refundRows))
		for _, r := range refundRows {
			refunds[order.RefOf(r.Account, r.Mode, r.PaymentID)] = r
		}
		p.all(func(ref order.Ref, o *order.Order) {
			inFlight := steps(all[ref]).any([]string{running}, authorize, capture, refund, void)
			var refunded int64
			for _, payment := range payments[ref] {
				refunded += payment.Refunded
			}
			if refunded > o.Refunded {
				s.suspect(ref.ID, fmt.Sprintf("%d of its payments are refunded, and it knows of %d", refunded, o.Refunded))
			}
			faults := slices.Concat(callFaults(o, payments[ref], calls[ref]), refundFaults(payments[ref], refunds),
				chargeFaults(o, payments[ref], inFlight || refunded > o.Refunded))
			for _, fault := range faults {
				s.violationf(orderName(ref.ID), "%s", fault)
			}
		})
		return s.judge(ctx, false)
	})
	if err = errors.Join(err, s.judge(ctx, true)); err != nil {
		return err
	}
	if err = orphans(ctx, s, "it has a refund without a payment of its own", s.RefundsWithoutPayment); err != nil {
		return err
	}
	return orphans(ctx, s, "it has a payment and no row in orders", s.PaymentsWithoutOrder)
}

func refundParams(payments []verifydb.PaymentsOfRow) verifydb.RefundsOfParams {
	return verifydb.RefundsOfParams{
		Accounts:   pg.Column(payments, func(p verifydb.PaymentsOfRow) int32 { return p.Account }),
		Modes:      pg.Column(payments, func(p verifydb.PaymentsOfRow) string { return p.Mode }),
		PaymentIds: pg.Column(payments, func(p verifydb.PaymentsOfRow) uuid.UUID { return p.ID }),
	}
}

// refundFaults judges an order's payments by their refunds, whose sums they keep: all are written in one transaction.
func refundFaults(payments []verifydb.PaymentsOfRow, refunds map[order.Ref]verifydb.RefundsOfRow) (faults []string) {
	for _, p := range payments {
		r := refunds[order.RefOf(p.Account, p.Mode, p.ID)]
		if p.Refunded != r.Succeeded || p.RefundPending != r.Pending {
			faults = append(faults, fmt.Sprintf("payment attempt %d says %d refunded and %d pending, its refunds %d and %d", p.Attempt,
				p.Refunded, p.RefundPending, r.Succeeded, r.Pending))
		}
		if r.WithoutCall > 0 {
			faults = append(faults, fmt.Sprintf("%d refunds of payment attempt %d are pending without a due call, or have one and are not", r.WithoutCall, p.Attempt))
		}
	}
	return faults
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

// paymentStatuses are those that the calls of a payment allow, the last of which counts.
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
