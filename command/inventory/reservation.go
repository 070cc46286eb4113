package inventory

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/gen/inventorydb"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/order"
)

// ref identifies one attempt to reserve an order's stock.
type ref struct {
	order.Ref
	attempt int32
}

func (r ref) item(l Line) order.Item { return order.Item{Owner: r.Owner, SKU: l.SKU} }

func refParams(refs []ref) inventorydb.LockReservationsParams {
	return inventorydb.LockReservationsParams{
		Accounts: pg.Column(refs, func(r ref) int32 { return r.Account }),
		Modes:    pg.Column(refs, func(r ref) string { return r.Mode }),
		OrderIds: pg.Column(refs, func(r ref) uuid.UUID { return uuid.UUID(r.ID) }),
		Attempts: pg.Column(refs, func(r ref) int32 { return r.attempt }),
	}
}

func refOf(account int32, mode string, orderID uuid.UUID, attempt int32) ref {
	return ref{order.RefOf(account, mode, orderID), attempt}
}

// lockReservations locks and reads the reservations, in one round trip. One that does not exist is not in found. skipped are those that onlyFree left out
// because another transaction has them.
func lockReservations(ctx context.Context, tx pgx.Tx, refs []ref, onlyFree bool) (found map[ref]*Reservation, skipped map[ref]bool, err error) {
	found, skipped = make(map[ref]*Reservation, len(refs)), map[ref]bool{}
	p, batch := refParams(refs), &pgx.Batch{}
	lock := pg.LockQuery(onlyFree, inventorydb.LockReservations, inventorydb.LockFreeReservations)
	pg.Query(batch, func(rows []inventorydb.LockReservationsRow) error {
		for _, h := range rows {
			key := refOf(h.Account, h.Mode, h.OrderID, h.Attempt)
			found[key] = &Reservation{ref: key, Status: h.Status, stored: h.Status}
		}
		return nil
	}, lock, p.Accounts, p.Modes, p.OrderIds, p.Attempts)
	if onlyFree {
		pg.Query(batch, func(rows []inventorydb.ExistingReservationsRow) error {
			for _, r := range rows {
				key := refOf(r.Account, r.Mode, r.OrderID, r.Attempt)
				skipped[key] = found[key] == nil
			}
			return nil
		}, inventorydb.ExistingReservations, p.Accounts, p.Modes, p.OrderIds, p.Attempts)
	}
	pg.Query(batch, func(rows []inventorydb.StockReservationLine) error {
		for _, l := range rows {
			if r := found[refOf(l.Account, l.Mode, l.OrderID, l.Attempt)]; r != nil {
				r.Lines = append(r.Lines, Line{l.Sku, l.Quantity})
			}
		}
		return nil
	}, inventorydb.GetReservationLines, p.Accounts, p.Modes, p.OrderIds, p.Attempts)
	if err = tx.SendBatch(ctx, batch).Close(); err != nil {
		return nil, nil, fmt.Errorf("lock reservations: %w", err)
	}
	return found, skipped, nil
}

// writeReservations writes, or queues, new reservations with their lines, and the others by compare-and-set on their stored status: an internal error if
// one has another.
func writeReservations(ctx context.Context, db inventorydb.DBTX, changed []*Reservation) error {
	// Sorted, so that two batches that lay tombstones for the same orders cannot wait for each other.
	slices.SortFunc(changed, func(a, b *Reservation) int {
		return cmp.Or(slices.Compare(a.ID[:], b.ID[:]), cmp.Compare(a.attempt, b.attempt))
	})
	q := inventorydb.New(db)
	var insert, update []*Reservation
	for _, r := range changed {
		if r.stored == "" {
			insert = append(insert, r)
		} else {
			update = append(update, r)
		}
	}
	if len(insert) > 0 {
		keys := refParams(pg.Column(insert, refOfReservation))
		if err := q.InsertReservations(ctx, inventorydb.InsertReservationsParams{
			Accounts:   keys.Accounts,
			Modes:      keys.Modes,
			OrderIds:   keys.OrderIds,
			Attempts:   keys.Attempts,
			Statuses:   pg.Column(insert, func(r *Reservation) string { return r.Status }),
			ExpiresAts: pg.Column(insert, func(r *Reservation) time.Time { return r.Expires }),
		}); err != nil {
			return fmt.Errorf("write reservations: %w", err)
		}
		if err := writeLines(ctx, q, insert); err != nil {
			return fmt.Errorf("write reservation lines: %w", err)
		}
	}
	if len(update) > 0 {
		keys := refParams(pg.Column(update, refOfReservation))
		if err := q.UpdateReservations(ctx, inventorydb.UpdateReservationsParams{
			Accounts:     keys.Accounts,
			Modes:        keys.Modes,
			OrderIds:     keys.OrderIds,
			Attempts:     keys.Attempts,
			FromStatuses: pg.Column(update, func(r *Reservation) string { return r.stored }),
			Statuses:     pg.Column(update, func(r *Reservation) string { return r.Status }),
		}); err != nil {
			return fmt.Errorf("update reservations: %w", err)
		}
	}
	return nil
}

func refOfReservation(r *Reservation) ref { return r.ref }

func writeLines(ctx context.Context, q *inventorydb.Queries, reservations []*Reservation) error {
	var refs []ref
	var lines []Line
	for _, r := range reservations {
		for _, l := range r.Lines {
			refs, lines = append(refs, r.ref), append(lines, l)
		}
	}
	if len(lines) == 0 {
		return nil
	}
	keys := refParams(refs)
	return q.InsertReservationLines(ctx, inventorydb.InsertReservationLinesParams{
		Accounts:   keys.Accounts,
		Modes:      keys.Modes,
		OrderIds:   keys.OrderIds,
		Attempts:   keys.Attempts,
		Skus:       pg.Column(lines, func(l Line) string { return l.SKU }),
		Quantities: pg.Column(lines, func(l Line) int64 { return l.Quantity }),
	})
}
