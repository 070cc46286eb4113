package payment

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/gen/paymentdb"
	"github.com/ordergate/ordergate/internal/failpoint"
	"github.com/ordergate/ordergate/internal/panics"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/order"
)

const (
	// maxOutcomes bounds the outcomes of a transaction.
	maxOutcomes = 64
	// lockTries bounds how often an outcome is written again whose payment another transaction holds. A wait lasts for the pool's lock_timeout, so
	// that the last one ends within the call's lease.
	lockTries = 30
)

var (
	errLeaseLost = errors.New("another worker has the call")
	errGone      = errors.New("the payment is gone")
	// errAlone is of an outcome that could not be written beside others.
	errAlone = errors.New("to be written alone")
)

// completion is the definite outcome of a call on its way into the database.
type completion struct {
	call    paymentdb.ClaimCallsRow
	outcome Outcome
	err     error         // once it has ended
	ended   chan struct{} // closed then
	refused bool          // the saga needs this refund
}

func (s *completion) payment() order.Ref {
	return order.RefOf(s.call.Account, s.call.Mode, s.call.PaymentID)
}

// completions are the outcomes that wait. Nothing waits for company: while none is being written, one begins at once.
type completions struct {
	mu      sync.Mutex
	waiting []*completion
	running bool
}

// next takes outcomes of different payments; none: nothing waits, and the next one that comes must begin.
func (s *completions) next() (batch []*completion) {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := map[order.Ref]bool{}
	s.waiting = slices.DeleteFunc(s.waiting, func(one *completion) bool {
		if len(batch) == maxOutcomes || taken[one.payment()] {
			return false
		}
		taken[one.payment()] = true
		batch = append(batch, one)
		return true
	})
	s.running = len(batch) > 0
	return batch
}

// complete writes a definite outcome and replies to the saga, in one transaction with others that wait at this moment. A late outcome of a lost lease changes
// nothing: errLeaseLost; the present holder sends the request again under the same key.
func (p *Payment) complete(ctx context.Context, c paymentdb.ClaimCallsRow, o Outcome) error {
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	one := &completion{call: c, outcome: o, ended: make(chan struct{})}
	p.completions.mu.Lock()
	p.completions.waiting = append(p.completions.waiting, one)
	begin := !p.completions.running
	p.completions.running = true
	p.completions.mu.Unlock()
	if begin {
		go p.writeAll(context.WithoutCancel(ctx))
	}
	<-one.ended
	err := one.err
	for try := 0; errors.Is(err, errAlone) || pg.LockNotHad(err) && try < lockTries; try++ { // the outcome is known: the provider need not be asked again
		if err = p.writeOutcomes(ctx, []*completion{one}, false); err == nil {
			err = one.err
		}
	}
	return err
}

// writeAll writes the outcomes that wait until none does.
func (p *Payment) writeAll(ctx context.Context) {
	defer panics.Sync(p.cfg.Log)
	for {
		batch := p.completions.next()
		if len(batch) == 0 {
			return
		}
		err := panics.Catch(func() error {
			ctx, cancel := context.WithTimeout(ctx, writeLimit)
			defer cancel()
			return p.writeOutcomes(ctx, batch, true)
		})
		if err != nil && len(batch) > 1 && (!pg.Infrastructure(err) || pg.Contention(err)) {
			err = errAlone // one of them is the culprit
		}
		for _, one := range batch {
			if err != nil {
				one.err = err
			}
			close(one.ended)
		}
	}
}

// writeOutcomes writes outcomes of different payments in one transaction. It sets the error of each that it does not write: errLeaseLost, errGone or, with onlyFree,
// errAlone if another transaction may hold its payment. After an error of the transaction none is written.
func (p *Payment) writeOutcomes(ctx context.Context, batch []*completion, onlyFree bool) error {
	var changes Changes
	found := map[order.Ref]Locked{}
	err := pg.InPipeline(ctx, p.cfg.Pool, func(first *pgx.Batch) {
		QueueLock(first, pg.Column(batch, (*completion).payment), onlyFree, found)
	}, func(tx pgx.Tx, ends *pg.Ends) error {
		var free []*completion
		for _, one := range batch {
			if _, ok := found[one.payment()]; ok {
				one.err, free = errLeaseLost, append(free, one)
			} else if one.err = errGone; onlyFree {
				one.err = errAlone
			}
		}
		ours, err := paymentdb.New(tx).CompleteCalls(ctx, callKeys(free))
		if err != nil {
			return fmt.Errorf("complete calls: %w", err)
		}
		for _, row := range ours {
			one := free[slices.IndexFunc(free, func(s *completion) bool {
				return s.call.Account == row.Account && s.call.Mode == row.Mode && s.call.Subject == row.Subject && s.call.Operation == row.Operation
			})]
			ch, err := p.resolve(ctx, tx, one, found[one.payment()])
			if err != nil {
				return err
			}
			one.err = nil
			changes.Add(ch)
		}
		failpoint.Hit(failpoint.PaymentCallCompleted)
		return changes.Write(ctx, &ends.Last, p.cfg.Deadline)
	})
	if err != nil {
		return err
	}
	failpoint.Hit(failpoint.PaymentCommitted)
	p.cfg.Wake()
	if len(changes.Calls) > 0 { // refunds of all, or one that makes up for a refused one
		p.Wake()
	}
	for _, one := range batch {
		if one.err != nil || !one.refused {
			continue
		}
		p.refusedRefunds.Inc()
		p.cfg.Log.Error("the provider refuses a refund that the saga needs", zap.String("trace_id", one.call.TraceID),
			zap.String("order_id", order.ID(one.call.OrderID).Format(order.PrefixOrder)), zap.String("payment_id", one.payment().ID.Format(order.PrefixPayment)),
			zap.String("code", string(one.outcome.Code)), zap.String("decline_reason", one.outcome.DeclineReason))
	}
	return nil
}

func callKeys(batch []*completion) paymentdb.CompleteCallsParams {
	return paymentdb.CompleteCallsParams{
		Accounts:   pg.Column(batch, func(s *completion) int32 { return s.call.Account }),
		Modes:      pg.Column(batch, func(s *completion) string { return s.call.Mode }),
		Subjects:   pg.Column(batch, func(s *completion) uuid.UUID { return s.call.Subject }),
		Operations: pg.Column(batch, func(s *completion) string { return s.call.Operation }),
		Fences:     pg.Column(batch, func(s *completion) int64 { return s.call.Fence }),
	}
}

// resolve decides what an outcome changes of its payment, which the transaction holds.
func (p *Payment) resolve(ctx context.Context, tx pgx.Tx, one *completion, locked Locked) (Changes, error) {
	c, o := one.call, one.outcome
	rec := p.recorder(c.Account, c.TraceID, "provider."+c.Operation, "provider")
	if Operation(c.Operation) != Refund {
		return Resolve(locked, Operation(c.Operation), o, rec), nil
	}
	if c.Subject == c.PaymentID {
		return BeginRefundAll(locked, rec), nil
	}
	refund, err := getRefund(ctx, tx, order.RefOf(c.Account, c.Mode, c.Subject))
	if err != nil {
		return Changes{}, err
	}
	refused := int64(0)
	if o.Code != "" {
		refused, err = paymentdb.New(tx).CountRefusedRefunds(ctx, paymentdb.CountRefusedRefundsParams{
			PaymentID: c.PaymentID, Account: c.Account, Mode: c.Mode, Reason: compensationReason,
		})
		if err != nil {
			return Changes{}, fmt.Errorf("count refused refunds: %w", err)
		}
	}
	one.refused = locked.RefundAll && o.Code != ""
	return ResolveRefund(locked, refund, refused, o, rec), nil
}
