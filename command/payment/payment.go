// Package payment is the bounded context of money: it authorizes, captures, voids and refunds at the payment provider. It owns
// the tables payments, refunds, payment_calls, provider_callbacks and ledger_sweeps, decides what a transaction of the order's saga writes into them, calls
// the provider under a lease, replies by messages, and compares the provider's ledger with its payments.
package payment

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/paymentdb"
	"github.com/ordergate/ordergate/internal/failpoint"
	"github.com/ordergate/ordergate/internal/guard"
	"github.com/ordergate/ordergate/internal/panics"
	"github.com/ordergate/ordergate/order"
)

const (
	// tryLimit bounds one request to the provider. It is below the 5 s of a call's lease, so that a try has ended when another worker
	// may claim the call. A callback may end the lease before: then the fence refuses the try's outcome.
	tryLimit = 3 * time.Second
	// askLimit bounds the question whether the provider answers at all, with a new connection. A try and the question fit into the call's lease.
	askLimit = time.Second
	// concurrency bounds the concurrent requests of one process; half of it those that were tried before, three quarters those that were
	// not. So however many requests hang, a call waits for its first try no longer than one try lasts, and the others go on, too.
	concurrency = 256
	// pollEvery bounds how late a call is seen that another process made due.
	pollEvery = 100 * time.Millisecond
	// rearmEvery bounds how long a call stands still after a jump of the database's clock.
	rearmEvery = 10 * time.Second
	// writeLimit bounds a statement to a database that may have fallen silent.
	writeLimit = 5 * time.Second
)

// Config is what Payment needs.
type Config struct {
	Pool        *pgxpool.Pool
	IDs         order.IDs
	Now         func() time.Time
	ProviderURL string
	Deadline    time.Duration // of an authorization; past it the key is cancelled at the provider
	Wake        func()        // tells the relay that the outbox has rows
	Log         *zap.Logger
	Registry    prometheus.Registerer // may be nil
}

// Payment is the context's operations. It is safe for concurrent use.
type Payment struct {
	cfg      Config
	provider *provider
	guard    *guard.Guard
	due      chan struct{}
	// An element for each request in flight: of first tries, of repeated ones, of both.
	first, repeated, slots chan struct{}
	claims                 claims

	orphans        *prometheus.CounterVec
	refusedRefunds prometheus.Counter
	lastGood       atomic.Pointer[time.Time] // when the provider last gave a definite outcome or its ledger; at first when we began

	completions completions
	asking      sync.Mutex
	lastSilent  time.Time // when the provider last did not give its ledger; asking guards it
}

// New returns a Payment. The error is a provider URL that cannot be used.
func New(c Config) (*Payment, error) {
	p, err := newProvider(c.ProviderURL, concurrency)
	if err != nil {
		return nil, err
	}
	payment := &Payment{
		cfg: c, provider: p, due: make(chan struct{}, 1), first: make(chan struct{}, concurrency*3/4), repeated: make(chan struct{}, concurrency/2),
		slots: make(chan struct{}, concurrency), claims: claims{come: make(chan struct{}, 1)},
	}
	payment.orphans = promauto.With(c.Registry).NewCounterVec(prometheus.CounterOpts{
		Name: "ordergate_orphans_total", Help: "Money at the provider that no payment here would have moved, by what took it back.",
	}, []string{"operation", "result"})
	payment.refusedRefunds = promauto.With(c.Registry).NewCounter(prometheus.CounterOpts{
		Name: "ordergate_refused_compensations_total", Help: "Refunds of orders taken back that the provider refused; each is tried anew.",
	})
	payment.lastGood.Store(new(time.Now())) // it has seen no failure yet
	payment.guard = guard.New(guard.Config{
		Name: "provider", Concurrent: concurrency, Timeout: tryLimit + 500*time.Millisecond, Registry: c.Registry, Failure: inDoubt, Uncounted: payment.uncounted,
	})
	return payment, nil
}

// inDoubt tells the breaker what is the provider's failure.
func inDoubt(err error) bool {
	_, doubt := errors.AsType[doubtError](err)
	return doubt
}

// uncounted tells the breaker which operation in doubt says nothing of the provider: one that ran while another had a definite outcome. Then
// it is the operation, such as a card, that fails, and the breaker must not keep the others from their tries. If none had one lately, as in a
// quiet hour, one without any response is uncounted, too, if the provider gives its ledger. Nor does one say anything in the first
// moments of a process, in which failures may be quicker than what succeeds.
func (p *Payment) uncounted(err error) bool {
	doubt, is := errors.AsType[doubtError](err)
	return is && (p.answersLately() || doubt.code == errcode.PAY003 && p.answers())
}

func (p *Payment) answersLately() bool { return time.Since(*p.lastGood.Load()) <= tryLimit }

// answers asks the provider for the end of its ledger, once for all operations that fail together.
func (p *Payment) answers() bool {
	p.asking.Lock()
	defer p.asking.Unlock()
	if p.answersLately() {
		return true
	}
	if time.Since(p.lastSilent) < askLimit {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), askLimit)
	defer cancel()
	if _, _, err := p.provider.ledger(ctx, nil, 1<<53-1); err != nil {
		p.lastSilent = time.Now()
		return false
	}
	p.lastGood.Store(new(time.Now()))
	return true
}

// ProviderOpen tells that the provider's breaker refuses calls.
func (p *Payment) ProviderOpen() bool { return p.guard.Open() }

func (p *Payment) recorder(account int32, traceID, operation, actor string) order.Recorder {
	now := p.cfg.Now()
	return order.Recorder{
		NewID: func() order.ID { return p.cfg.IDs.Mint(now, account) }, Now: now,
		Cause: order.Cause{TraceID: traceID, Operation: operation, Actor: actor},
	}
}

// Wake tells Run that a call is due.
func (p *Payment) Wake() {
	select {
	case p.due <- struct{}{}:
	default:
	}
}

// Run claims due calls and sends their requests to the provider until ctx ends; then it waits for the requests in flight. Any number of
// processes may run it. A call of a process that died is claimed again when its lease has ended, under the same key.
func (p *Payment) Run(ctx context.Context) {
	p.claims.open()
	var requests sync.WaitGroup
	defer requests.Wait()
	defer func() { p.giveBack(context.WithoutCancel(ctx), p.claims.close()) }()
	var limited atomic.Bool // a claim takes no more for want of room
	begin := func(c paymentdb.ClaimCallsRow) {
		kind := p.first
		if c.Tries > 1 {
			kind = p.repeated
		}
		p.slots <- struct{}{}
		kind <- struct{}{}
		requests.Go(func() {
			defer panics.Sync(p.cfg.Log)
			if err := panics.Catch(func() error { p.try(context.WithoutCancel(ctx), c); return nil }); err != nil {
				p.cfg.Log.Error("payment call", zap.Error(err)) // it is claimed again when its lease has ended
			}
			<-p.slots
			<-kind
			if limited.Load() {
				p.Wake()
			}
		})
	}
	beginClaimed := func() {
		calls := p.claims.take()
		room := min(left(p.first), left(p.slots))
		p.giveBack(ctx, slices.DeleteFunc(calls, func(c Call) bool {
			ours := room > 0 && time.Since(c.Claimed) <= startLimit
			if ours {
				room--
				begin(p.claimedRow(c))
			}
			return ours
		}))
	}
	rearm := time.Tick(rearmEvery)
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		limited.Store(true) // until it is known: a request that ends meanwhile makes room
		free := paymentdb.ClaimCallsParams{MaxCalls: left(p.slots), MaxNew: left(p.first), MaxRepeated: left(p.repeated)}
		rows, err := p.claim(ctx, free)
		if err != nil && ctx.Err() == nil {
			p.cfg.Log.Error("claim payment calls", zap.Error(err))
			tick.Reset(time.Second) // a failing database is asked once a second
		} else {
			tick.Reset(pollEvery)
		}
		var again int32 // of the claimed ones
		for _, c := range rows {
			if c.Tries > 1 {
				again++
			}
			begin(c)
		}
		limited.Store(int32(len(rows))-again >= free.MaxNew || again >= free.MaxRepeated || int32(len(rows)) >= free.MaxCalls)
		if free.MaxCalls > 0 && len(rows) == int(free.MaxCalls) {
			continue
		}
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return
			case <-p.claims.come:
				beginClaimed()
				continue
			case <-p.due:
			case <-tick.C:
			case <-rearm:
				if err := p.rearm(ctx); err != nil && ctx.Err() == nil {
					p.cfg.Log.Error("make calls due again", zap.Error(err))
				}
			}
			waiting = false
		}
	}
}

// left is how many more requests may be in flight.
func left(slots chan struct{}) int32 { return int32(cap(slots) - len(slots)) }

// rearm makes the calls due that a jump of the database's clock left in the far future.
func (p *Payment) rearm(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	n, err := paymentdb.New(p.cfg.Pool).RearmCalls(ctx, p.cfg.Deadline.Seconds())
	if n > 0 {
		p.cfg.Log.Warn("the database's clock has jumped", zap.Int64("calls", n))
	}
	return err
}

func (p *Payment) claim(ctx context.Context, free paymentdb.ClaimCallsParams) ([]paymentdb.ClaimCallsRow, error) {
	if free.MaxCalls == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	return paymentdb.New(p.cfg.Pool).ClaimCalls(ctx, free)
}

// try makes one request for a claimed call and stores its outcome. Past the deadline it cancels the key instead, unless no request
// was ever made under it. One event is logged.
func (p *Payment) try(ctx context.Context, c paymentdb.ClaimCallsRow) {
	failpoint.Hit(failpoint.PaymentClaimed)
	begin := time.Now()
	paymentID := order.ID(c.PaymentID).Format(order.PrefixPayment)
	key := Key(Operation(c.Operation), order.ID(c.Subject))
	overdue := c.SecondsLeft <= 0
	ask, o := Plan(c.Amount, overdue, c.Tries)
	var err error
	if ask != AskNothing {
		limit := tryLimit
		if !overdue {
			limit = time.Duration(min(c.SecondsLeft, tryLimit.Seconds()) * float64(time.Second))
		}
		err = p.guard.Do(ctx, func(ctx context.Context) (err error) {
			ctx, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			if ask == AskCancel {
				o, err = p.provider.cancelKey(ctx, key)
			} else {
				o, err = p.provider.do(ctx, key, Operation(c.Operation), paymentID, order.Money{Amount: c.Amount, Currency: c.Currency}, c.MethodToken)
			}
			return err
		})
		if err == nil {
			p.lastGood.Store(new(time.Now()))
		}
	}
	if err == nil && o.Code != "" && Operation(c.Operation) == Void && p.released(ctx, paymentID) {
		o = Outcome{Reference: o.Reference}
	}
	if err == nil {
		o, err = Conclude(Operation(c.Operation), overdue, c.LastCode, o)
	}
	failpoint.Hit(failpoint.PaymentAnswered)
	result := "done"
	if err != nil {
		result = "in doubt"
		err = errors.Join(err, p.postpone(ctx, c, err))
	} else if err = p.complete(ctx, c, o); err != nil {
		result = "not written, comes again"
	} else if o.Code != "" {
		result = "refused"
	}
	level := zap.InfoLevel
	if errors.Is(err, panics.ErrPanic) {
		level = zap.ErrorLevel
	}
	p.cfg.Log.Log(level, "payment call", zap.String("trace_id", c.TraceID), zap.String("order_id", order.ID(c.OrderID).Format(order.PrefixOrder)),
		zap.String("operation", c.Operation), zap.Int32("try", c.Tries), zap.String("result", result), zap.String("code", string(o.Code)),
		zap.Duration("duration", time.Since(begin)), zap.Error(err))
}

// released tells that a payment which was authorized has nothing at the provider any more: the sweep gave it up or refunded it.
func (p *Payment) released(ctx context.Context, payment string) bool {
	at, err := p.standing(ctx, payment)
	return err == nil && at.Released()
}

// postpone sets the time of the next try after one without a definite outcome: in 200 ms, doubling up to 2 s for an authorization,
// because its customer waits, and up to 30 s for the others, which are tried without end.
func (p *Payment) postpone(ctx context.Context, c paymentdb.ClaimCallsRow, cause error) error {
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	code, guardCode := errcode.PAY003, apierr.From(cause).Code
	sent := guardCode != errcode.RATE003 && guardCode != errcode.SYS002 // else the bulkhead or the breaker refused the call
	if doubt, ok := errors.AsType[doubtError](cause); ok {
		code = doubt.code
	} else if !sent {
		code = errcode.PAY006
	}
	longest := 30.0
	if Operation(c.Operation) == Authorize {
		longest = min(2, max(c.SecondsLeft, 0.2))
	}
	seconds := min(0.2*float64(int64(1)<<min(c.Tries-1, 10)), longest)
	_, err := paymentdb.New(p.cfg.Pool).PostponeCall(ctx, paymentdb.PostponeCallParams{
		Seconds: seconds, Unsent: !sent, LastCode: string(code), Account: c.Account, Mode: c.Mode, Subject: c.Subject,
		Operation: c.Operation, Fence: c.Fence,
	})
	failpoint.Hit(failpoint.PaymentPostponed)
	return err
}
