package replay

import (
	"context"
	"fmt"
	"time"

	"github.com/ordergate/ordergate/command/inventory"
	"github.com/ordergate/ordergate/gen/replaydb"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/order"
)

// maxRounds bounds how often stock is compared. A row that moves while it is corrected may need a second round.
const maxRounds = 20

// checkStock checks the events of all skus, and that what follows for each can be stored.
func (r *run) checkStock(ctx context.Context) error {
	err := check(ctx, r, part[*inventory.History]{kind: order.KindInventory, start: func(order.Ref) *inventory.History { return &inventory.History{} }})
	if err != nil {
		return err
	}
	r.stock = r.table
	rows, err := r.queries.StaleStock(ctx, replaydb.StaleStockParams{Impossible: true, PageSize: 1})
	if err == nil && len(rows) > 0 {
		err = fmt.Errorf("%s: its adjustments and reservations give %d pieces, of which %d are reserved", rows[0].Sku, rows[0].OnHand, rows[0].Reserved)
	}
	return err
}

// rebuildStock corrects the rows that are not what follows for them, until there are none. Sums over all reservations of a sku take too
// long under the lock of a row that sells. So the rows are compared in one snapshot, and under their locks get what they lacked there.
func (r *run) rebuildStock(ctx context.Context) error {
	r.table = Table{Name: "stock", Histories: r.stock.Histories, Events: r.stock.Events}
	for round, corrected := 1, 0; ; round++ {
		rows, err := r.queries.StaleStock(ctx, replaydb.StaleStockParams{PageSize: r.PageSize})
		if err != nil || len(rows) == 0 {
			return err
		}
		if round > maxRounds+corrected/int(r.PageSize) {
			return fmt.Errorf("%s moves faster than it is corrected", rows[0].Sku)
		}
		corrected += len(rows)
		if err = r.inTx(ctx, func(q *replaydb.Queries) error { return r.correct(ctx, q, rows) }); err != nil {
			return err
		}
		r.done(int64(len(rows)))
	}
}

func (r *run) correct(ctx context.Context, q *replaydb.Queries, rows []replaydb.StaleStockRow) error {
	all := stockRows(rows)
	if _, err := q.LockStockRows(ctx, replaydb.LockStockRowsParams{Accounts: all.Accounts, Modes: all.Modes, Skus: all.Skus}); err != nil {
		return err
	}
	var missing, wrong, alone []replaydb.StaleStockRow
	for _, s := range rows {
		switch {
		case s.Sources == 0:
			alone = append(alone, s)
		case s.Stored:
			wrong = append(wrong, s)
		default:
			missing = append(missing, s)
		}
	}
	rev := func(s replaydb.StaleStockRow) int64 { return s.Updates + r.generation }
	p := stockRows(wrong)
	p.Revs = pg.Column(wrong, rev)
	corrected, err := q.CorrectStock(ctx, p)
	if err != nil {
		return err
	}
	p = stockRows(missing)
	restored, err := q.RestoreStock(ctx, replaydb.RestoreStockParams{
		Accounts:   p.Accounts,
		Modes:      p.Modes,
		Skus:       p.Skus,
		OnHands:    p.OnHandDeltas, // from nothing
		Reserved:   p.ReservedDeltas,
		LowAts:     pg.Column(missing, func(s replaydb.StaleStockRow) int64 { return s.LowAt }),
		Versions:   p.Versions,
		HeadHashes: p.HeadHashes,
		UpdatedAts: p.UpdatedAts,
		Revs:       pg.Column(missing, rev),
	})
	if err != nil {
		return err
	}
	p = stockRows(alone)
	deleted, err := q.DeleteStock(ctx, replaydb.DeleteStockParams{Accounts: p.Accounts, Modes: p.Modes, Skus: p.Skus})
	if err == nil {
		r.table.Written, r.table.Deleted = r.table.Written+corrected+restored, r.table.Deleted+deleted
	}
	return err
}

// stockRows are the rows' columns without rev, as they lack them.
func stockRows(rows []replaydb.StaleStockRow) replaydb.CorrectStockParams {
	type row = replaydb.StaleStockRow
	return replaydb.CorrectStockParams{
		Accounts:         pg.Column(rows, func(s row) int32 { return s.Account }),
		Modes:            pg.Column(rows, func(s row) string { return s.Mode }),
		Skus:             pg.Column(rows, func(s row) string { return s.Sku }),
		OnHandDeltas:     pg.Column(rows, func(s row) int64 { return s.OnHand - s.StoredOnHand }),
		ReservedDeltas:   pg.Column(rows, func(s row) int64 { return s.Reserved - s.StoredReserved }),
		Versions:         pg.Column(rows, func(s row) int64 { return s.Version }),
		HeadHashes:       pg.Column(rows, func(s row) []byte { return s.HeadHash }),
		UpdatedAts:       pg.Column(rows, func(s row) time.Time { return s.UpdatedAt }),
		StoredVersions:   pg.Column(rows, func(s row) int64 { return s.StoredVersion }),
		StoredHeadHashes: pg.Column(rows, func(s row) []byte { return s.StoredHeadHash }),
		StoredUpdatedAts: pg.Column(rows, func(s row) time.Time { return s.StoredUpdatedAt }),
	}
}
