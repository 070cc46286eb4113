package payment

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/gen/paymentdb"
	"github.com/ordergate/ordergate/gen/psp"
	"github.com/ordergate/ordergate/internal/events"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/order/pay"
)

const (
	sweepPoll    = time.Second      // how often callbacks are looked for, and whether a sweep is due
	sweepEvery   = time.Minute      // from the end of a sweep to the next one
	sweepAgain   = 10 * time.Second // the same after a failure
	sweepLease   = 30 * time.Second // as ClaimSweep sets it; also of a callback whose payment is inspected
	callbackWait = 5 * time.Second  // until a callback is looked at again whose payment has an open call
	callbackPage = 200
	never        = -time.Second // until a callback is looked at again that is done with
	// maxBehind bounds how many entries, behind the last one, are compared again because a payment of them has an open call.
	maxBehind = 10_000
	// maxOrphans bounds a sweep. It is a brake: if the database is not the one that the ledger belongs to, everything is an orphan.
	maxOrphans = 500
)

// Sweep compares the provider's ledger with our payments until ctx ends: after callbacks, each minute, and at once when the database has a
// new timeline, which may have lost payments. An orphan is an authorization or a charge that nobody here will move: its payment is failed,
// voided, or not known although we gave it out. It is voided or refunded, once, under keys of its own (sweepKey); the payment's row and
// events stay as they are. Any number of processes may run it.
func (p *Payment) Sweep(ctx context.Context) {
	tick := time.NewTicker(sweepPoll)
	defer tick.Stop()
	for {
		more, err := p.inspectCallbacks(ctx)
		if err = errors.Join(err, p.sweepLedger(ctx)); err != nil && ctx.Err() == nil {
			p.cfg.Log.Warn("ledger sweep", zap.Error(err)) // it is tried again
			tick.Reset(sweepAgain)
		} else {
			tick.Reset(sweepPoll)
		}
		if more && err == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// inspectCallbacks looks at the payments of a page of callbacks that are due; more tells that there may be another page. A payment whose
// call has no outcome is looked at again, for 10 minutes: later the sweep of the ledger sees it.
func (p *Payment) inspectCallbacks(ctx context.Context) (more bool, err error) {
	suspects := map[order.ID][]paymentdb.LockCallbacksRow{}
	err = p.inTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := paymentdb.New(tx)
		rows, err := q.LockCallbacks(ctx, callbackPage)
		if err != nil || len(rows) == 0 {
			return err
		}
		more = len(rows) == callbackPage
		may := candidates(pg.Column(rows, func(r paymentdb.LockCallbacksRow) hint {
			return hint{order.ID(*r.PaymentID), Operation(r.Kind), r.Status == string(psp.StatusSucceeded)}
		}))
		payments, err := states(ctx, tx, may)
		if err != nil {
			return err
		}
		return postpone(ctx, q, rows, func(r paymentdb.LockCallbacksRow) time.Duration {
			id := order.ID(*r.PaymentID)
			k := payments[id]
			switch {
			case may[id] && (k.final() || k.Voiding):
				suspects[id] = append(suspects[id], r)
				return sweepLease
			case may[id] && k.moves() && !r.Old:
				return callbackWait
			}
			return never
		})
	})
	if err != nil {
		return false, fmt.Errorf("callbacks: %w", err)
	}
	for id, rows := range suspects {
		_, failed := p.inspect(ctx, id)
		if failed == nil {
			failed = p.inTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
				return postpone(ctx, paymentdb.New(tx), rows, func(paymentdb.LockCallbacksRow) time.Duration { return never })
			})
		}
		if failed != nil { // its lease ends, and it is looked at again; the others go on
			err = errors.Join(err, fmt.Errorf("callback: %w", failed))
		}
	}
	return more, err
}

// inTx runs fn in a transaction of limited time.
func (p *Payment) inTx(ctx context.Context, fn func(context.Context, pgx.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	return pg.InTx(ctx, p.cfg.Pool, func(tx pgx.Tx) error { return fn(ctx, tx) })
}

func postpone(ctx context.Context, q *paymentdb.Queries, rows []paymentdb.LockCallbacksRow, after func(paymentdb.LockCallbacksRow) time.Duration) error {
	return q.PostponeCallbacks(ctx, paymentdb.PostponeCallbacksParams{
		Providers:    pg.Column(rows, func(r paymentdb.LockCallbacksRow) string { return r.Provider }),
		EventIds:     pg.Column(rows, func(r paymentdb.LockCallbacksRow) string { return r.EventID }),
		AfterSeconds: pg.Column(rows, func(r paymentdb.LockCallbacksRow) float64 { return after(r).Seconds() }),
	})
}

// states reads what our database has of payments. One whose row is gone although it has events is open: `ordergate replay` brings it back,
// and nothing of it may be taken back before.
func states(ctx context.Context, db paymentdb.DBTX, payments map[order.ID]bool) (map[order.ID]Known, error) {
	ids := make([]uuid.UUID, 0, len(payments))
	for id := range payments {
		ids = append(ids, uuid.UUID(id))
	}
	rows, err := paymentdb.New(db).PaymentStates(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("read payments: %w", err)
	}
	found := make(map[order.ID]Known, len(rows))
	for _, r := range rows {
		found[order.ID(r.ID)] = Known{OrderID: order.ID(r.OrderID), Status: pay.Status(r.Status), Open: r.Open, Voiding: r.Voiding}
	}
	var missing []string
	for id := range payments {
		if _, ok := found[id]; !ok {
			missing = append(missing, id.Format(order.PrefixPayment))
		}
	}
	if len(missing) == 0 {
		return found, nil
	}
	recorded, err := events.PaymentsKnown(ctx, db, missing)
	for name := range recorded {
		id, _ := order.Parse(order.PrefixPayment, name)
		found[id] = Known{Open: true}
	}
	return found, err
}

// sweepLedger compares what came to the ledger since the last sweep, if one is due and no other process does it. A lease guards it, not an
// advisory lock: one of the session would outlive a process that stands still, and no transaction stays open while the provider is asked.
func (p *Payment) sweepLedger(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	claimed, err := paymentdb.New(p.cfg.Pool).ClaimSweep(limited, Provider)
	if errors.Is(err, pgx.ErrNoRows) || pg.LockNotHad(err) { // another process claims it at this moment
		return nil
	}
	if err != nil {
		return fmt.Errorf("claim sweep: %w", err)
	}
	s := &sweep{Payment: p, position: claimed.Position, fence: claimed.Fence}
	err = s.run(ctx)
	if errors.Is(err, errLeaseLost) {
		return nil // the other one goes on
	}
	next := sweepEvery
	if err != nil {
		next = sweepAgain
	}
	return errors.Join(err, s.save(context.WithoutCancel(ctx), next))
}

// sweep is one run over the ledger.
type sweep struct {
	*Payment
	position int64 // entries up to this sequence are compared
	fence    int64
	orphans  int
}

// save keeps the position and the time at which the lease ends. errLeaseLost: nothing more may be done.
func (s *sweep) save(ctx context.Context, next time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	n, err := paymentdb.New(s.cfg.Pool).SaveSweep(ctx, paymentdb.SaveSweepParams{
		Position: s.position, Seconds: next.Seconds(), Provider: Provider, Fence: s.fence,
	})
	if err == nil && n == 0 {
		err = errLeaseLost
	}
	return err
}

// run reads the ledger from the position to its end, page by page, and moves the position on. It stays before the first entry of a payment
// that has an open call, as long as that is among the last maxBehind: what becomes of it is not known yet.
func (s *sweep) run(ctx context.Context) error {
	var before int64 // the sequence of the first such entry; 0: there is none
	for after, more := s.position, true; more && s.orphans < maxOrphans; {
		var entries []psp.LedgerEntry
		var next *int64
		err := s.guard.Do(ctx, func(ctx context.Context) (err error) {
			entries, next, err = s.provider.ledger(ctx, nil, after)
			return err
		})
		if err != nil {
			return fmt.Errorf("read ledger: %w", err)
		}
		if len(entries) == 0 {
			return nil
		}
		open, err := s.page(ctx, entries)
		if err != nil || s.orphans >= maxOrphans {
			return err // the page comes again
		}
		if before == 0 {
			before = open
		}
		after = entries[len(entries)-1].Sequence
		s.position = after
		if before > 0 {
			s.position = max(before-1, after-maxBehind)
		}
		if err = s.save(ctx, sweepLease); err != nil {
			return err
		}
		more = next != nil
	}
	return nil
}

// page compares entries with our payments and sweeps the orphans. open is the sequence of the first entry whose payment has an open call;
// 0: there is none.
func (s *sweep) page(ctx context.Context, entries []psp.LedgerEntry) (open int64, err error) {
	var hints []hint
	sequences := map[order.ID]int64{} // of each payment's first entry
	for _, e := range entries {
		if id, ours := ownPayment(s.cfg.IDs, e.Payment); ours && e.Kind != nil {
			hints = append(hints, hint{id, Operation(*e.Kind), e.Status == psp.StatusSucceeded})
			if sequences[id] == 0 {
				sequences[id] = e.Sequence
			}
		}
	}
	may := candidates(hints)
	limited, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	payments, err := states(limited, s.cfg.Pool, may) // after the ledger: it had no request before our row was committed
	if err != nil {
		return 0, err
	}
	for id := range may {
		k := payments[id]
		if k.Open && (open == 0 || sequences[id] < open) {
			open = sequences[id]
		}
		if !k.final() && !k.Voiding {
			continue
		}
		if err = s.save(ctx, sweepLease); err != nil { // before the request: this is still the database that counts
			return 0, err
		}
		swept, err := s.inspect(ctx, id)
		if err != nil {
			return 0, err
		}
		if swept {
			s.orphans++
		}
		if s.orphans >= maxOrphans {
			s.cfg.Log.Error("ledger sweep pauses: too many orphans", zap.Int("orphans", s.orphans))
			break
		}
	}
	return open, nil
}

// standing reads what a payment has at the provider.
func (p *Payment) standing(ctx context.Context, payment string) (at pay.Standing, err error) {
	err = p.guard.Do(ctx, func(ctx context.Context) (err error) {
		at, err = p.provider.standing(ctx, payment)
		return err
	})
	if err != nil {
		return at, fmt.Errorf("read ledger of %s: %w", payment, err)
	}
	return at, nil
}

// inspect asks the provider what a payment has there, and takes back what nobody here will move; swept tells that there was something. The
// error is that it could not, or that the outcome is not known: it may be repeated. Each orphan is logged and counted, one that the provider
// refuses to take back each time that it is met.
func (p *Payment) inspect(ctx context.Context, id order.ID) (swept bool, err error) {
	payment := id.Format(order.PrefixPayment)
	at, err := p.standing(ctx, payment)
	if err != nil {
		return false, err
	}
	limited, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	payments, err := states(limited, p.cfg.Pool, map[order.ID]bool{id: true})
	if err != nil {
		return false, err
	}
	k := payments[id]
	op, amount := Sweeps(k, at)
	if op == "" {
		return false, nil
	}
	var o Outcome
	key := sweepKey(payment, op, amount)
	err = p.guard.Do(ctx, func(ctx context.Context) (err error) {
		ctx, cancel := context.WithTimeout(ctx, tryLimit)
		defer cancel()
		o, err = p.provider.do(ctx, key, op, payment, amount, "")
		return err
	})
	if err != nil {
		return false, fmt.Errorf("%s: %w", key, err)
	}
	result, log := "done", p.cfg.Log.Warn
	if o.Code != "" { // an operator must see to it: the key has this outcome for ever
		if at, err = p.standing(ctx, payment); err != nil {
			return false, err
		}
		if op, _ := Sweeps(k, at); op == "" {
			return false, nil // what was read before the row has gone back meanwhile, by the payment's own call
		}
		result, log = "refused", p.cfg.Log.Error
	}
	p.orphans.WithLabelValues(string(op), result).Inc()
	status, orderID := string(k.Status), ""
	if status == "" {
		status = "unknown"
	} else {
		orderID = k.OrderID.Format(order.PrefixOrder)
	}
	log("orphan", zap.String("payment_id", payment), zap.String("order_id", orderID), zap.String("payment_status", status), zap.String("operation", string(op)),
		zap.Int64("amount", amount.Amount), zap.String("currency", amount.Currency), zap.String("result", result), zap.String("code", string(o.Code)))
	return true, nil
}
