package command

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/ordergate/ordergate/command/inventory"
	"github.com/ordergate/ordergate/command/payment"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/order"
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
	name    string
	undoes  string // the step that this one takes back; empty: it goes forward
	unless  string // done, this step takes the same back in another way
	command stepCommand
}

// stepCommand is the message that starts a step: its topic, type and data.
type stepCommand func(o *order.Order, st *step, rec order.Recorder) (topic, messageType string, data any)

// stepTable has every step: those that go forward in the order in which they are taken, confirm_stock is the pivot; then those that
// take back, in the order in which they do.
var stepTable = []stepKind{
	{name: stepReserve, command: stockCommand(inventory.Reserve)},
	{name: stepAuth, command: paymentCommand(payment.Authorize)},
	{name: stepConfirm, command: stockCommand(inventory.Confirm)},
	{name: stepCapture, command: paymentCommand(payment.Capture)},
	{name: stepRefund, undoes: stepCapture, command: paymentCommand(payment.Refund)},
	{name: stepVoid, undoes: stepAuth, unless: stepCapture, command: paymentCommand(payment.Void)},
	{name: stepRelease, undoes: stepReserve, command: stockCommand(inventory.Cancel)},
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

func stockCommand(messageType string) stepCommand {
	return func(o *order.Order, _ *step, _ order.Recorder) (string, string, any) {
		c := inventory.Command{Attempt: reservation}
		if messageType == inventory.Reserve {
			for _, l := range o.Lines {
				c.Lines = append(c.Lines, inventory.Line{SKU: l.SKU, Quantity: l.Quantity})
			}
		}
		return inventory.TopicCommands, messageType, c
	}
}

func paymentCommand(op payment.Operation) stepCommand {
	return func(o *order.Order, st *step, rec order.Recorder) (string, string, any) {
		c := payment.Command{Operation: op, Attempt: st.attempt, Amount: o.Total, MethodToken: st.input}
		if op == payment.Authorize {
			c.PaymentID = rec.NewID().Format(order.PrefixPayment)
		}
		return payment.TopicCommands, payment.Requested, c
	}
}

// step is one step of an order's saga, identified by its name and attempt.
type step struct {
	name     string
	attempt  int32
	status   string
	code     string // of a failed step
	input    string // of a pending authorize: the method token
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
	Started  time.Time `json:"started_at,omitzero"`
	Finished time.Time `json:"finished_at,omitzero"`
}

// store is the step as it is stored.
func (st *step) store() storedStep {
	return storedStep{st.name, st.attempt, !st.forward(), st.status, st.code, st.input, st.started, st.finished}
}

// restoreSteps reads the steps of an order.
func restoreSteps(stored []byte) (steps, error) {
	var all []storedStep
	if err := json.Unmarshal(stored, &all); err != nil {
		return nil, err
	}
	return pg.Column(all, func(s storedStep) *step {
		return &step{name: s.Name, attempt: s.Attempt, status: s.Status, code: s.Code, input: s.Input, started: s.Started, finished: s.Finished}
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

// planPayment plans the steps of another payment. Its authorization is running, because the caller makes its call due.
func (s *steps) planPayment(now time.Time) (attempt int32) {
	attempt = 1
	for _, st := range *s {
		if st.name == stepAuth {
			attempt = max(attempt, st.attempt+1)
		}
	}
	for _, k := range stepTable {
		if k.undoes == "" && k.name != stepReserve {
			if st := s.plan(k.name, attempt); k.name == stepAuth {
				st.status, st.started = statusRunning, now
			}
		}
	}
	return attempt
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
