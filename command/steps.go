package command

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/ordergate/ordergate/command/inventory"
	"github.com/ordergate/ordergate/command/payment"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/outbox"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/order/pay"
)

// The names of a saga's steps.
const (
	stepReserve = "reserve_stock"
	stepAuth    = string(payment.Authorize)
	stepConfirm = "confirm_stock"
	stepCapture = string(payment.Capture)
	stepRefund  = string(payment.Refund)
	stepVoid    = string(payment.Void)
	stepRelease = "cancel_reservation"
)

// The statuses of a step. A running payment step shows as in_doubt to clients after a try without an answer.
const (
	statusPending = "pending"
	statusRunning = "running"
	statusDone    = "done"
	statusFailed  = "failed"
	statusSkipped = "skipped"
)

// stepKind is one row of the table of steps.
type stepKind struct {
	name   string
	undoes string // the step that this one takes back; empty: it goes forward
	unless string // done, this step takes the same back in another way
	start  stepStart
}

// stepStart puts into the change what starts a step: the message to inventory, or what is due of payment.
type stepStart func(c *orderChange, st *step, rec order.Recorder)

// stepTable has every step: those that go forward in the order in which they are taken, confirm_stock is the pivot; then those that
// take back, in the order in which they do.
var stepTable = []stepKind{
	{name: stepReserve, start: sendStock(inventory.Reserve)},
	{name: stepAuth, start: openPayment},
	{name: stepConfirm, start: sendStock(inventory.Confirm)},
	{name: stepCapture, start: requestPayment(payment.Capture)},
	{name: stepRefund, undoes: stepCapture, start: requestPayment(payment.Refund)},
	{name: stepVoid, undoes: stepAuth, unless: stepCapture, start: requestPayment(payment.Void)},
	{name: stepRelease, undoes: stepReserve, start: sendStock(inventory.Cancel)},
}

// Undoes has every step with the one that it takes back; "" for a step that goes forward.
func Undoes() map[string]string {
	undoes := map[string]string{}
	for _, k := range stepTable {
		undoes[k.name] = k.undoes
	}
	return undoes
}

func kindOf(name string) stepKind {
	for _, k := range stepTable {
		if k.name == name {
			return k
		}
	}
	return stepKind{name: name}
}

// reservation is the attempt to reserve stock of every order: another card does not reserve again.
const reservation = 1

// sendStock sends a command to inventory.
func sendStock(messageType string) stepStart {
	return func(c *orderChange, _ *step, rec order.Recorder) {
		command := inventory.Command{Attempt: reservation}
		if messageType == inventory.Reserve {
			for _, l := range c.order.Lines {
				command.Lines = append(command.Lines, inventory.Line{SKU: l.SKU, Quantity: l.Quantity})
			}
		}
		cause := outbox.Cause{ID: rec.NewID(), TraceID: rec.Cause.TraceID, Now: rec.Now}
		c.messages = append(c.messages, outbox.New(inventory.TopicCommands, messageType, c.ref(), cause, command))
	}
}

// openPayment opens the step's payment.
func openPayment(c *orderChange, st *step, rec order.Recorder) {
	opened, changes := payment.Start(c.ref(), st.attempt, c.order.Total, st.input, rec)
	st.payment = opened.ID
	c.payments.Add(changes)
}

// requestPayment asks for an operation on the payment of the step's attempt.
func requestPayment(op payment.Operation) stepStart {
	return func(c *orderChange, st *step, rec order.Recorder) {
		of := &pay.Payment{
			Ref: order.Ref{Owner: c.owner, ID: c.steps.find(stepAuth, st.attempt).payment}, OrderID: c.order.ID, Attempt: st.attempt, Amount: c.order.Total,
		}
		c.payments.Add(payment.Request(of, op, rec.Cause.TraceID))
	}
}

// step is one step of an order's saga, identified by its name and attempt.
type step struct {
	name     string
	attempt  int32
	status   string
	code     string   // of a failed step
	input    string   // of a pending authorize: the method token
	payment  order.ID // of an authorize that was started
	started  time.Time
	finished time.Time
	moved    bool // it is to be written
}

// storedStep is a step as it is stored.
type storedStep struct {
	Name     string    `json:"step"`
	Attempt  int32     `json:"attempt"`
	Undo     bool      `json:"undo,omitzero"`
	Status   string    `json:"status"`
	Code     string    `json:"code,omitzero"`
	Input    string    `json:"input,omitzero"`
	Payment  string    `json:"payment_id,omitzero"`
	Started  time.Time `json:"started_at,omitzero"`
	Finished time.Time `json:"finished_at,omitzero"`
}

// store is the step as it is stored.
func (st *step) store() storedStep {
	stored := storedStep{
		Name: st.name, Attempt: st.attempt, Undo: !st.forward(), Status: st.status, Code: st.code, Input: st.input, Started: st.started, Finished: st.finished,
	}
	if !st.payment.IsZero() {
		stored.Payment = st.payment.Format(order.PrefixPayment)
	}
	return stored
}

// restoreSteps reads the steps of an order.
func restoreSteps(stored []byte) (steps, error) {
	var all []storedStep
	if err := json.Unmarshal(stored, &all); err != nil {
		return nil, err
	}
	return pg.Column(all, func(s storedStep) *step {
		of, _ := order.Parse(order.PrefixPayment, s.Payment)
		return &step{name: s.Name, attempt: s.Attempt, status: s.Status, code: s.Code, input: s.Input, payment: of, started: s.Started, finished: s.Finished}
	}), nil
}

// set moves the step on. Its input ends with that: it is in the command that it started, or nobody needs it.
func (st *step) set(status, code string) {
	st.status, st.code, st.input, st.moved = status, code, "", true
}

func (st *step) finish(status, code string, now time.Time) {
	st.set(status, code)
	st.finished = now
}

func (st *step) forward() bool { return kindOf(st.name).undoes == "" }

// steps of one order, in the order in which they were planned.
type steps []*step

// moved tells whether a step is to be written.
func (s *steps) moved() bool { return slices.ContainsFunc(*s, func(st *step) bool { return st.moved }) }

// newSteps are the steps of a new order: all that go forward, or the stock alone if nobody pays yet.
func newSteps(o *order.Order, methodToken string) steps {
	var s steps
	for _, k := range stepTable {
		if k.undoes == "" && (o.WithPayment || k.name == stepReserve) {
			if st := s.plan(k.name, 1); k.name == stepAuth {
				st.input = methodToken
			}
		}
	}
	return s
}

// planPayment plans the steps of another payment and returns its authorization, which is to be started.
func (s *steps) planPayment(methodToken string) (authorize *step) {
	attempt := int32(1)
	for _, st := range *s {
		if st.name == stepAuth {
			attempt = max(attempt, st.attempt+1)
		}
	}
	for _, k := range stepTable {
		if k.undoes == "" && k.name != stepReserve {
			if st := s.plan(k.name, attempt); k.name == stepAuth {
				authorize, st.input = st, methodToken
			}
		}
	}
	return authorize
}

func (s *steps) plan(name string, attempt int32) *step {
	st := &step{name: name, attempt: attempt, status: statusPending, moved: true}
	*s = append(*s, st)
	return st
}

// find returns the step, or nil.
func (s *steps) find(name string, attempt int32) *step {
	for _, st := range *s {
		if st.name == name && st.attempt == attempt {
			return st
		}
	}
	return nil
}

// is tells whether the step is there with this status.
func (s *steps) is(name string, attempt int32, status string) bool {
	st := s.find(name, attempt)
	return st != nil && st.status == status
}

// done tells whether an attempt of the step is done.
func (s *steps) done(name string) bool {
	return slices.ContainsFunc(*s, func(st *step) bool { return st.name == name && st.status == statusDone })
}

// expired tells whether the order's reservation ran out.
func (s *steps) expired() bool {
	return slices.ContainsFunc(*s, func(st *step) bool { return st.status == statusFailed && st.code == string(errcode.INV003) })
}

// running returns the attempt of the step that is in flight, or nil: there is one at most.
func (s *steps) running(name string) *step {
	for _, st := range *s {
		if st.name == name && st.status == statusRunning {
			return st
		}
	}
	return nil
}

// inFlight tells whether an attempt of the step, or of any for the empty name, was started and is not definite.
func (s *steps) inFlight(name string) bool {
	for _, st := range *s {
		if st.status == statusRunning && (name == "" || st.name == name) {
			return true
		}
	}
	return false
}

// failed returns the first step forward of which the last attempt failed, or nil.
func (s *steps) failed() *step {
	for _, st := range *s {
		if st.forward() && st.status == statusFailed && s.find(st.name, st.attempt+1) == nil {
			return st
		}
	}
	return nil
}

// undo returns the next step that takes back what was done, in the order of the table; nil if nothing is left to take back.
func (s *steps) undo() *step {
	for _, k := range stepTable {
		if k.undoes == "" {
			continue
		}
		for _, done := range *s {
			if done.name == k.undoes && done.status == statusDone && s.find(k.name, done.attempt) == nil && !s.is(k.unless, done.attempt, statusDone) {
				return s.plan(k.name, done.attempt)
			}
		}
	}
	return nil
}
