package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ordergate/ordergate/gen/verifydb"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/order"
)

// Statuses of a reservation.
const (
	held      = "held"
	refused   = "refused"
	confirmed = "confirmed"
	cancelled = "cancelled"
	expired   = "expired"
	none      = "none" // there is no reservation
)

// checkStock compares the levels with the reservations. Nothing may be in flight: both are written in one transaction.
func (s *scan) checkStock(ctx context.Context) error {
	n, err := s.CountStock(ctx)
	if err != nil {
		return err
	}
	s.looked(int(n))
	rows, err := s.WrongStock(ctx, maxShown)
	for _, row := range rows {
		s.violationf(row.Sku, "of %d pieces %d are reserved, and held reservations of account %d in %s mode have %d", row.OnHand, row.Reserved,
			row.Account, row.Mode, row.Held)
	}
	if len(rows) > 0 {
		s.unshown(rows[0].Total, len(rows))
	}
	if err != nil {
		return err
	}
	return orphans(ctx, s, "lines of a reservation have no header", s.LinesWithoutReservation)
}

// checkReservations compares each order's reservation with its steps and lines. In flight may be: a stock step that runs, of which
// inventory did its part or not; and an expiry that inventory made and the saga has not heard of, while its message is in the outbox
// or parked.
func (s *scan) checkReservations(ctx context.Context) error {
	err := s.orders(ctx, func(p orderPage) error {
		stepRows, err := s.StepsOf(ctx, verifydb.StepsOfParams(p.ids))
		if err != nil {
			return err
		}
		headerRows, err := s.ReservationsOf(ctx, verifydb.ReservationsOfParams(p.ids))
		if err != nil {
			return err
		}
		lineRows, err := s.ReservationLinesOf(ctx, verifydb.ReservationLinesOfParams(p.ids))
		if err != nil {
			return err
		}
		allSteps := group(stepRows, refOfStep)
		headers := group(headerRows, func(r verifydb.ReservationsOfRow) order.Ref { return order.RefOf(r.Account, r.Mode, r.OrderID) })
		lines := group(lineRows, func(r verifydb.StockReservationLine) order.Ref { return order.RefOf(r.Account, r.Mode, r.OrderID) })
		p.all(func(ref order.Ref, o *order.Order) {
			for _, h := range headers[ref] {
				status, all := h.Status, steps(allSteps[ref])
				switch {
				case o.Status.Final() && o.Status != order.StatusCompleted && (status == held || status == confirmed):
					s.violationf(orderName(ref.ID), "it is %s and its reservation is %s", o.Status, status)
				case !slices.Contains(reservationStatuses(all, h.Attempt), status):
					s.violationf(orderName(ref.ID), "its reservation is %s and its steps allow %s", status,
						strings.Join(reservationStatuses(all, h.Attempt), " or "))
				case status == expired && all.status(reserve, h.Attempt) == done && all.status(release, h.Attempt) == "" &&
					!all.any([]string{running}, confirm):
					s.suspect(h.OrderID, "its reservation expired, and no message tells the order")
				}
				if (status == held || status == confirmed) && !equalLines(o, lines[ref], h.Attempt) {
					s.violationf(orderName(ref.ID), "its %s reservation has other lines than the order", status)
				}
			}
			for _, st := range allSteps[ref] {
				has := slices.ContainsFunc(headers[ref], func(h verifydb.ReservationsOfRow) bool { return h.Attempt == st.Attempt })
				if st.Step == reserve && !has && !slices.Contains(reservationStatuses(allSteps[ref], st.Attempt), none) {
					s.violationf(orderName(ref.ID), "it has no reservation, and step %s is %s", reserve, st.Status)
				}
			}
		})
		return s.judge(ctx, false)
	})
	if err = errors.Join(err, s.judge(ctx, true)); err != nil {
		return err
	}
	return orphans(ctx, s, "it has a reservation and no row in orders", s.ReservationsWithoutOrder)
}

// reservationStatuses are those that the steps allow of an attempt to reserve.
func reservationStatuses(all steps, attempt int32) []string {
	taken := all.last(confirm) // of whatever card: one at most took the pieces, and the cards before it were declined
	switch all.status(release, attempt) {
	case done:
		return []string{cancelled, expired}
	case running:
		if taken == done {
			return []string{confirmed, cancelled}
		}
		return []string{held, cancelled, expired}
	}
	switch all.status(reserve, attempt) {
	case running:
		return []string{none, held, refused, expired}
	case failed:
		return []string{refused, expired}
	case done:
		switch taken {
		case running:
			return []string{held, confirmed, expired}
		case done:
			return []string{confirmed}
		case failed:
			return []string{cancelled, expired}
		}
		return []string{held, expired}
	}
	return []string{none}
}

// equalLines tells whether a reservation has the order's lines.
func equalLines(o *order.Order, lines []verifydb.StockReservationLine, attempt int32) bool {
	ordered := pg.Column(o.Lines, func(l order.Line) string { return fmt.Sprint(l.SKU, " ", l.Quantity) })
	var reserved []string
	for _, l := range lines {
		if l.Attempt == attempt {
			reserved = append(reserved, fmt.Sprint(l.Sku, " ", l.Quantity))
		}
	}
	slices.Sort(ordered)
	slices.Sort(reserved)
	return slices.Equal(ordered, reserved)
}
