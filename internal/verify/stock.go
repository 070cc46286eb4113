package verify

import (
	"context"
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

// checkStock compares the levels with the reservations, the events of inventory and the products. Nothing may be in flight: a move, its
// event and what it is for are written in one transaction.
func (s *scan) checkStock(ctx context.Context) error {
	n, err := s.CountStock(ctx)
	if err != nil {
		return err
	}
	s.lookedAt(int(n))
	rows, err := s.WrongStock(ctx, maxShown)
	if err != nil {
		return err
	}
	for i, row := range rows {
		s.compareLevel(row)
		if i == 0 {
			s.addUnlisted(row.Total, len(rows))
		}
	}
	heads, err := s.StockWithoutHead(ctx, maxShown)
	if err != nil {
		return err
	}
	for i, row := range heads {
		s.violationf(row.Sku, "its version %d and head_hash are not those of event %d, its last of account %d in %s mode", row.Version, row.Last, row.Account, row.Mode)
		if i == 0 {
			s.addUnlisted(row.Total, len(heads))
		}
	}
	products, err := s.ProductsWithoutStock(ctx, maxShown)
	if err != nil {
		return err
	}
	for i, row := range products {
		if row.HasStock {
			s.violationf(row.Sku, "its low_at is %d, and low_stock_at of the product %d, of account %d in %s mode", row.LowAt, row.LowStockAt, row.Account, row.Mode)
		} else {
			s.violationf(row.Sku, "the product of account %d in %s mode has no stock", row.Account, row.Mode)
		}
		if i == 0 {
			s.addUnlisted(row.Total, len(products))
		}
	}
	return orphans(ctx, s, "lines of a reservation have no header", s.LinesWithoutReservation)
}

// compareLevel reports one level, in one violation.
func (s *scan) compareLevel(row verifydb.WrongStockRow) {
	of := fmt.Sprintf("of account %d in %s mode", row.Account, row.Mode)
	switch {
	case row.Levels == 0:
		s.violationf(row.Sku, "it has events or reservations and no stock, %s", of)
	case row.Reserved != row.Held || row.Reserved > row.OnHand || row.Reserved < 0:
		s.violationf(row.Sku, "of %d pieces %d are reserved, and held reservations %s have %d", row.OnHand, row.Reserved, of, row.Held)
	default:
		s.violationf(row.Sku, "%d pieces are on hand, and adjustments of %s less %d confirmed give another number, %s", row.OnHand, row.Adjusted,
			row.Confirmed, of)
	}
}

// checkReservations compares each order's reservation with its steps and lines. In flight may be: a stock step that runs, of which
// inventory did its part or not; and an expiry that inventory made and the saga has not heard of, while its message is in the outbox
// or parked.
func (s *scan) checkReservations(ctx context.Context) error {
	if err := s.eachOrderPage(ctx, func(p orderPage) error {
		stepRows, err := s.StepsOf(ctx, verifydb.StepsOfParams(p.refs))
		if err != nil {
			return err
		}
		headerRows, err := s.ReservationsOf(ctx, verifydb.ReservationsOfParams(p.refs))
		if err != nil {
			return err
		}
		lineRows, err := s.ReservationLinesOf(ctx, verifydb.ReservationLinesOfParams(p.refs))
		if err != nil {
			return err
		}
		allSteps := group(stepRows, refOfStep)
		headers := group(headerRows, func(r verifydb.ReservationsOfRow) order.Ref { return order.RefOf(r.Account, r.Mode, r.OrderID) })
		lines := group(lineRows, func(r verifydb.StockReservationLine) order.Ref { return order.RefOf(r.Account, r.Mode, r.OrderID) })
		p.each(func(ref order.Ref, o *order.Order) {
			faults, unheard := reservationFaults(o, headers[ref], lines[ref], allSteps[ref])
			for _, fault := range faults {
				s.violationf(orderName(ref.ID), "%s", fault)
			}
			if unheard {
				s.suspect(ref.ID, "its reservation expired, and no message tells the order")
			}
		})
		return s.reportStuck(ctx, maxSuspects)
	}); err != nil {
		return err
	}
	if err := s.reportStuck(ctx, 0); err != nil {
		return err
	}
	return orphans(ctx, s, "it has a reservation and no row in orders", s.ReservationsWithoutOrder)
}

// reservationFaults judges an order's reservations by its status, lines and steps. unheard: one expired, and the saga does not know.
func reservationFaults(
	o *order.Order, headers []verifydb.ReservationsOfRow, lines []verifydb.StockReservationLine, all steps,
) (faults []string, unheard bool) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	for _, h := range headers {
		keeps := h.Status == held || h.Status == confirmed
		possible := reservationStatuses(all, h.Attempt)
		switch {
		case keeps && (o.Status == order.StatusRejected || o.Status == order.StatusCancelled):
			fault("it is %s and its reservation is %s", o.Status, h.Status)
		case !slices.Contains(possible, h.Status):
			fault("its reservation is %s and its steps allow %s", h.Status, strings.Join(possible, " or "))
		case h.Status == expired && all.status(reserve, h.Attempt) == done && all.status(release, h.Attempt) == "" && !all.any([]string{running}, confirm):
			unheard = true
		}
		if keeps && !equalLines(o, lines, h.Attempt) {
			fault("its %s reservation has other lines than the order", h.Status)
		}
	}
	for _, st := range all {
		has := slices.ContainsFunc(headers, func(h verifydb.ReservationsOfRow) bool { return h.Attempt == st.Attempt })
		if st.Step == reserve && !has && !slices.Contains(reservationStatuses(all, st.Attempt), none) {
			fault("it has no reservation, and step %s is %s", reserve, st.Status)
		}
	}
	return faults, unheard
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
