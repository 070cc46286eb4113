// Package payment is the bounded context of money: it authorizes, captures, voids and refunds at the payment provider. It owns
// the table payments, takes commands and answers by messages, and makes the remote calls of the saga's steps by lease.
package payment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/paymentdb"
	"github.com/ordergate/ordergate/internal/bus"
	"github.com/ordergate/ordergate/internal/guard"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/order"
)

const (
	// tryLimit is the time of one call to the provider; below the 5 s of a step's lease, so that a call has ended when another
	// worker may take the step.
	tryLimit = 3 * time.Second
	// calls at once, of one process.
	concurrency = 64
	// pollEvery bounds how late a step is seen that another process made due.
	pollEvery = 100 * time.Millisecond
	// writeLimit bounds what is asked of a database that may have fallen silent.
	writeLimit = 5 * time.Second
)

// Config is what Payment needs.
type Config struct {
	Pool        *pgxpool.Pool
	IDs         order.IDs
	Now         func() time.Time
	ProviderURL string
	Deadline    time.Duration // of an authorization; past it the provider is told to forget it
	Wake        func()        // tells the relay that the outbox has something
	Log         *zap.Logger
	Registry    prometheus.Registerer // may be nil
}

// Payment is the context's operations. Safe for concurrent use.
type Payment struct {
	cfg      Config
	provider *provider
	guard    *guard.Guard
	due      chan struct{}
}

// New returns a Payment. The error is a provider URL that cannot be used.
func New(c Config) (*Payment, error) {
	p, err := newProvider(c.ProviderURL, concurrency)
	if err != nil {
		return nil, err
	}
	return &Payment{cfg: c, provider: p, due: make(chan struct{}, 1), guard: guard.New(guard.Config{
		Name: "provider", Concurrent: concurrency, Timeout: tryLimit + 500*time.Millisecond, Registry: c.Registry,
		Failure: func(err error) bool { _, ok := errors.AsType[inDoubt](err); return ok },
	})}, nil
}

// Handle takes a batch of commands, no two of one order. In the given transaction it writes the payments and refunds that are
// intended and makes the saga's steps due; the provider is called later, by Run. It fails if a refund exceeds what is captured and not yet claimed.
func (p *Payment) Handle(ctx context.Context, tx pgx.Tx, msgs []bus.Message) (func(), error) {
	q := paymentdb.New(tx)
	var payments paymentdb.InsertPaymentsParams
	var refunds paymentdb.ClaimRefundsParams
	var steps paymentdb.ScheduleStepsParams
	for _, m := range msgs {
		var c Command
		if err := json.Unmarshal(m.Payload, &c); err != nil {
			return nil, fmt.Errorf("decode command: %w", err)
		}
		orderID, deadline := uuid.UUID(c.OrderID), 0.0
		switch c.Operation {
		case Authorize:
			deadline = p.cfg.Deadline.Seconds()
			payments.Accounts, payments.Modes = append(payments.Accounts, c.Owner.Account), append(payments.Modes, c.Owner.Mode)
			payments.Ids = append(payments.Ids, uuid.UUID(p.cfg.IDs.Mint(p.cfg.Now(), c.Owner.Account)))
			payments.OrderIds, payments.Attempts = append(payments.OrderIds, orderID), append(payments.Attempts, c.Attempt)
			payments.Amounts, payments.Currencies = append(payments.Amounts, c.Amount.Amount), append(payments.Currencies, c.Amount.Currency)
			payments.MethodTokens = append(payments.MethodTokens, c.MethodToken)
		case Refund:
			refunds.Accounts, refunds.Modes = append(refunds.Accounts, c.Owner.Account), append(refunds.Modes, c.Owner.Mode)
			refunds.OrderIds, refunds.Attempts = append(refunds.OrderIds, orderID), append(refunds.Attempts, c.Attempt)
			refunds.Amounts = append(refunds.Amounts, c.Amount.Amount)
		case Capture, Void:
		default:
			return nil, fmt.Errorf("unknown operation %q", c.Operation)
		}
		steps.Accounts, steps.Modes = append(steps.Accounts, c.Owner.Account), append(steps.Modes, c.Owner.Mode)
		steps.OrderIds, steps.Steps = append(steps.OrderIds, orderID), append(steps.Steps, string(c.Operation))
		steps.Attempts, steps.DeadlineSeconds = append(steps.Attempts, c.Attempt), append(steps.DeadlineSeconds, deadline)
	}
	if len(payments.Ids) > 0 {
		if err := q.InsertPayments(ctx, payments); err != nil {
			return nil, fmt.Errorf("write payments: %w", err)
		}
	}
	if len(refunds.OrderIds) > 0 {
		n, err := q.ClaimRefunds(ctx, refunds)
		if err != nil {
			return nil, fmt.Errorf("claim refunds: %w", err)
		}
		if n != int64(len(refunds.OrderIds)) {
			return nil, errors.New("a refund exceeds what is captured")
		}
	}
	if err := q.ScheduleSteps(ctx, steps); err != nil {
		return nil, fmt.Errorf("make steps due: %w", err)
	}
	return p.wake, nil
}

func (p *Payment) wake() {
	select {
	case p.due <- struct{}{}:
	default:
	}
}

// Run claims due steps and calls the provider until ctx ends; then it waits for the calls that run. Any number of processes may
// run it. A step whose process died is taken up again when its lease is over, under the same key.
func (p *Payment) Run(ctx context.Context) {
	slots := make(chan struct{}, concurrency)
	for range concurrency {
		slots <- struct{}{}
	}
	defer func() {
		for range concurrency {
			<-slots
		}
	}()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		free := len(slots)
		var claimed []paymentdb.ClaimStepsRow
		var err error
		if free > 0 {
			if claimed, err = p.claim(ctx, free); err != nil && ctx.Err() == nil {
				p.cfg.Log.Error("claim saga steps", zap.Error(err))
				sleep(ctx, time.Second) // the database is away: it hears of us once a second
			}
		}
		for _, s := range claimed {
			<-slots
			go func() {
				p.try(context.WithoutCancel(ctx), s)
				slots <- struct{}{}
				p.wake()
			}()
		}
		if len(claimed) == free && free > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-p.due:
		case <-tick.C:
		}
	}
}

func (p *Payment) claim(ctx context.Context, free int) ([]paymentdb.ClaimStepsRow, error) {
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	return paymentdb.New(p.cfg.Pool).ClaimSteps(ctx, int32(free))
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// try makes one call for a claimed step and writes down what came of it. Past the deadline the provider is told to forget the
// key instead, unless it was never asked. One event is logged.
func (p *Payment) try(ctx context.Context, s paymentdb.ClaimStepsRow) {
	begin := time.Now()
	paymentID := order.ID(s.PaymentID).Format(order.PrefixPayment)
	key := paymentID + "-" + s.Step
	var o outcome
	var err error
	overdue := s.SecondsLeft <= 0
	switch {
	case s.Amount == 0: // nothing to move, and providers take no zero
	case overdue && s.Tries == 1: // this claim would be the first try
		o = outcome{code: errcode.PAY006}
	default:
		limit := tryLimit
		if !overdue {
			limit = time.Duration(min(s.SecondsLeft, tryLimit.Seconds()) * float64(time.Second))
		}
		err = p.guard.Do(ctx, func(ctx context.Context) (err error) {
			ctx, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			if overdue {
				o, err = p.provider.forget(ctx, key)
			} else {
				o, err = p.provider.do(ctx, key, Operation(s.Step), paymentID, order.Money{Amount: s.Amount, Currency: s.Currency}, s.MethodToken)
			}
			return err
		})
	}
	if op := Operation(s.Step); err == nil && o.code != "" && (op == Void || op == Refund) {
		err = inDoubt{o.code, errors.New("the provider refuses to give the money back")} // seen in the saga, and tried without end
	}
	if overdue && o.code == errcode.PAY003 && s.LastCode != "" {
		o.code = errcode.Code(s.LastCode) // forgotten because of what the tries met
	}
	result := "done"
	if err != nil {
		result = "in doubt"
		if e := p.postpone(ctx, s, err); e != nil {
			err = errors.Join(err, e)
		}
	} else if err = p.settle(ctx, s, o); err != nil {
		result = "not written, comes again"
	} else if o.code != "" {
		result = "refused"
	}
	p.cfg.Log.Info("saga step", zap.String("trace_id", s.TraceID), zap.String("order_id", order.ID(s.OrderID).Format(order.PrefixOrder)),
		zap.String("step", s.Step), zap.Int32("try", s.Tries), zap.String("result", result), zap.String("code", string(o.code)),
		zap.Duration("duration", time.Since(begin)), zap.Error(err))
}

// postpone keeps a step due after a try without a definite answer: after 200 ms, doubling up to 2 s for an authorization, whose
// customer waits, and up to 30 s for the others, which are tried without end.
func (p *Payment) postpone(ctx context.Context, s paymentdb.ClaimStepsRow, cause error) error {
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	code, refused := errcode.PAY003, apierr.From(cause).Code
	sent := refused != errcode.RATE003 && refused != errcode.SYS002 // else the bulkhead or the breaker kept the call back
	if doubt, ok := errors.AsType[inDoubt](cause); ok {
		code = doubt.code
	} else if !sent {
		code = errcode.PAY006
	}
	longest := 30.0
	if Operation(s.Step) == Authorize {
		longest = min(2, max(s.SecondsLeft, 0.2))
	}
	seconds := min(0.2*float64(int64(1)<<min(s.Tries-1, 10)), longest)
	_, err := paymentdb.New(p.cfg.Pool).PostponeStep(ctx, paymentdb.PostponeStepParams{
		Seconds: seconds, Unsent: !sent, LastCode: string(code), Account: s.Account, Mode: s.Mode, OrderID: s.OrderID,
		Step: s.Step, Attempt: s.Attempt, Fence: s.Fence,
	})
	return err
}

var errLeaseLost = errors.New("another worker has the step")

// settle writes a definite answer and tells the saga, in one transaction. A late result of a lost lease changes nothing:
// errLeaseLost; whoever has the step asks the provider under the same key.
func (p *Payment) settle(ctx context.Context, s paymentdb.ClaimStepsRow, o outcome) error {
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	owner := order.Owner{Account: s.Account, Mode: s.Mode}
	payload, err := json.Marshal(Reply{
		Operation: Operation(s.Step), Owner: owner, OrderID: order.ID(s.OrderID), Attempt: s.Attempt, Code: string(o.code), DeclineReason: o.declineReason,
	})
	if err != nil {
		return fmt.Errorf("encode reply: %w", err)
	}
	err = pg.InTx(ctx, p.cfg.Pool, func(tx pgx.Tx) error {
		q := paymentdb.New(tx)
		n, err := q.SettleStep(ctx, paymentdb.SettleStepParams{
			Account: s.Account, Mode: s.Mode, OrderID: s.OrderID, Step: s.Step, Attempt: s.Attempt, Fence: s.Fence,
		})
		if err != nil {
			return err
		}
		if n == 0 {
			return errLeaseLost
		}
		settled := paymentdb.SettlePaymentParams{
			Account: s.Account, Mode: s.Mode, ID: s.PaymentID, FailureCode: string(o.code), DeclineReason: o.declineReason, Reference: o.reference,
		}
		switch {
		case o.code != "":
			settled.Status = "failed"
		case Operation(s.Step) == Authorize:
			settled.Status = "authorized"
		case Operation(s.Step) == Capture:
			settled.Status = "captured"
		case Operation(s.Step) == Void:
			settled.Status = "voided"
		default:
			settled.Status, settled.Refunded = "captured", s.Amount
		}
		if err = q.SettlePayment(ctx, settled); err != nil {
			return err
		}
		id := order.ID(s.OrderID)
		return bus.Send(ctx, tx, []bus.Outgoing{{
			Topic: TopicReplies, Key: id.Format(order.PrefixOrder), Shard: id.Shard(), TraceID: s.TraceID,
			ID: uuid.UUID(p.cfg.IDs.Mint(p.cfg.Now(), s.Account)), Payload: payload,
		}})
	})
	if err == nil {
		p.cfg.Wake()
	}
	return err
}
