package payment

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/gen/paymentdb"
	"github.com/ordergate/ordergate/internal/pg"
)

// startLimit is how long after its claim a call's request begins at the latest: with the request, and the question whether the provider answers at all, it
// ends within the lease, with time to write what became of it.
const startLimit = 500 * time.Millisecond

// claimedRow is a call that Claim marked and InsertCalls wrote, as ClaimCalls would return it now.
func (p *Payment) claimedRow(c Call) paymentdb.ClaimCallsRow {
	row := paymentdb.ClaimCallsRow{
		Account: c.Payment.Account, Mode: c.Payment.Mode, Subject: uuid.UUID(c.Subject), Operation: string(c.Operation), PaymentID: uuid.UUID(c.Payment.ID),
		OrderID: uuid.UUID(c.Payment.OrderID), Attempt: c.Payment.Attempt, Amount: c.Amount, Currency: c.Payment.Amount.Currency, MethodToken: c.MethodToken,
		Tries: 1, Fence: 1, LastCode: string(c.LastCode), TraceID: c.TraceID, SecondsLeft: math.Inf(1),
	}
	if c.Operation == Authorize {
		row.SecondsLeft = (p.cfg.Deadline - time.Since(c.Claimed)).Seconds()
	}
	return row
}

// claims are calls on their way from Begin to Run.
type claims struct {
	come    chan struct{} // capacity 1: some wait
	mu      sync.Mutex
	running bool // Run takes them
	waiting []Call
}

func (c *claims) open() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = true
}

// close returns what Run does not take any more.
func (c *claims) close() []Call {
	c.mu.Lock()
	c.running = false
	c.mu.Unlock()
	return c.take()
}

func (c *claims) isOpen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.running
}

// add hands calls to Run; false: it does not run.
func (c *claims) add(calls []Call) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.running {
		return false
	}
	c.waiting = append(c.waiting, calls...)
	select {
	case c.come <- struct{}{}:
	default:
	}
	return true
}

func (c *claims) take() []Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.waiting
	c.waiting = nil
	return all
}

// Claim marks calls that a transaction is about to make due: this process makes their first try itself, as after a claim. It marks as many as there is
// room for now. The transaction writes them, and Begin makes the tries after its COMMIT.
func (p *Payment) Claim(calls []Call) {
	if !p.claims.isOpen() {
		return
	}
	room, now := min(left(p.first), left(p.slots)), time.Now()
	for i := range calls {
		if room > 0 && calls[i].After == 0 {
			calls[i].Claimed = now
			room--
		}
	}
}

// Begin makes the first tries of the calls that Claim marked, at once. One for which there is no room then, or no time within its lease, becomes due again. So
// do all if Run has ended; if that cannot be written, when their leases end.
func (p *Payment) Begin(ctx context.Context, calls []Call) {
	ours := slices.DeleteFunc(slices.Clone(calls), func(c Call) bool { return c.Claimed.IsZero() })
	if len(ours) > 0 && !p.claims.add(ours) {
		p.giveBack(ctx, ours)
	}
}

// giveBack makes claimed calls due again: they were not tried.
func (p *Payment) giveBack(ctx context.Context, calls []Call) {
	if len(calls) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeLimit)
	defer cancel()
	slices.SortFunc(calls, func(a, b Call) int { return slices.Compare(a.Subject[:], b.Subject[:]) })
	if err := paymentdb.New(p.cfg.Pool).GiveBackCalls(ctx, paymentdb.GiveBackCallsParams{
		Accounts:   pg.Column(calls, func(c Call) int32 { return c.Payment.Account }),
		Modes:      pg.Column(calls, func(c Call) string { return c.Payment.Mode }),
		Subjects:   pg.Column(calls, func(c Call) uuid.UUID { return uuid.UUID(c.Subject) }),
		Operations: pg.Column(calls, func(c Call) string { return string(c.Operation) }),
		Fences:     pg.Column(calls, func(Call) int64 { return 1 }), // of their first claim
	}); err != nil {
		p.cfg.Log.Error("give payment calls back", zap.Error(err))
	}
	p.Wake()
}
