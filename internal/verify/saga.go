package verify

import (
	"context"
	"fmt"
	"slices"

	"github.com/ordergate/ordergate/command"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/verifydb"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/order"
)

// The steps of a saga, as docs/saga.md has them.
const (
	reserve   = string(api.SagaStepNameReserveStock)
	authorize = string(api.SagaStepNameAuthorize)
	confirm   = string(api.SagaStepNameConfirmStock)
	capture   = string(api.SagaStepNameCapture)
	refund    = string(api.SagaStepNameRefund)
	void      = string(api.SagaStepNameVoid)
	release   = string(api.SagaStepNameCancelReservation)
)

// The statuses of a step.
const (
	pending = string(api.SagaStepStatusPending)
	running = string(api.SagaStepStatusRunning)
	done    = string(api.SagaStepStatusDone)
	failed  = string(api.SagaStepStatusFailed)
)

// undoes has every step with the one that it takes back; "" for a step that goes forward.
var undoes = command.Undoes()

// steps of one order.
type steps []verifydb.StepsOfRow

func refOfStep(r verifydb.StepsOfRow) order.Ref { return order.RefOf(r.Account, r.Mode, r.OrderID) }

// status of a step; "" if there is none.
func (s steps) status(name string, attempt int32) string {
	for _, st := range s {
		if st.Step == name && st.Attempt == attempt {
			return st.Status
		}
	}
	return ""
}

// last is the status of the last attempt of a step; "" if there is none.
func (s steps) last(name string) (status string) {
	attempt := int32(0)
	for _, st := range s {
		if st.Step == name && st.Attempt > attempt {
			status, attempt = st.Status, st.Attempt
		}
	}
	return status
}

// any tells whether an attempt of one of the steps has one of the statuses. No names: of any step.
func (s steps) any(statuses []string, names ...string) bool {
	return slices.ContainsFunc(s, func(st verifydb.StepsOfRow) bool {
		return slices.Contains(statuses, st.Status) && (len(names) == 0 || slices.Contains(names, st.Step))
	})
}

// checkSaga compares the steps of each order with its status. In flight are steps that run: each has a message of its order in the outbox
// or a parked one, or a call to the provider that is due.
func (s *scan) checkSaga(ctx context.Context) error {
	err := s.eachOrderPage(ctx, func(p orderPage) error {
		rows, err := s.StepsOf(ctx, verifydb.StepsOfParams(p.refs))
		if err != nil {
			return err
		}
		all := group(rows, refOfStep)
		p.each(func(ref order.Ref, o *order.Order) {
			for _, fault := range sagaFaults(o, all[ref]) {
				s.violationf(orderName(ref.ID), "%s", fault)
			}
		})
		return s.findStuck(ctx, p, rows)
	})
	if err != nil {
		return err
	}
	if err = s.reportStuck(ctx, 0); err != nil {
		return err
	}
	return orphans(ctx, s, "it has steps and no row in orders", s.StepsWithoutOrder)
}

// sagaFaults judges what one order's row and steps tell.
func sagaFaults(o *order.Order, all steps) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	for i, st := range all {
		undone, known := undoes[st.Step]
		switch {
		case st.Token:
			fault("step %s is %s and has a token still", st.Step, st.Status)
		case slices.ContainsFunc(all[:i], func(other verifydb.StepsOfRow) bool { return other.Step == st.Step && other.Attempt == st.Attempt }):
			fault("attempt %d of step %s is there twice", st.Attempt, st.Step)
		case !known:
			fault("%s is no step", st.Step)
		case st.Undo != (undone != ""):
			fault("step %s has undo %v", st.Step, st.Undo)
		case o.Status.Final() && (st.Status == running || st.Status == pending):
			fault("it is %s and step %s is %s", o.Status, st.Step, st.Status)
		case undone != "" && all.status(undone, st.Attempt) == "":
			fault("step %s takes back %s, which it does not have", st.Step, undone)
		}
	}
	if len(all) == 0 {
		fault("it has no steps")
		return faults
	}
	inFlight := all.any([]string{running})
	atRest := o.CancelRequestedAt == nil && (o.Status == order.StatusConfirmed || o.Status == order.StatusReserved && !o.WithPayment)
	if !o.Status.Final() && !inFlight && !atRest {
		fault("it is %s, and no step is in flight to move it on", o.Status)
	}
	switch o.Status {
	case order.StatusPending:
		if inFlight && !all.any([]string{running}, reserve) {
			fault("it is pending, and %s is over", reserve)
		}
	case order.StatusReserved:
		if !all.any([]string{done, failed}, reserve) {
			fault("it is reserved, and %s is not", reserve)
		}
	case order.StatusConfirmed, order.StatusCompleted:
		for _, name := range []string{reserve, authorize, confirm, capture} {
			if !all.any([]string{done}, name) {
				fault("it is %s, and %s is not done", o.Status, name)
			}
		}
	case order.StatusRejected, order.StatusCancelled:
		if o.Status == order.StatusRejected && !all.any([]string{failed}, reserve, authorize, confirm, capture) {
			fault("it is rejected, and no step failed")
		}
		for _, st := range all {
			for name, undone := range undoes {
				if st.Step != undone || st.Status != done || all.status(name, st.Attempt) == done {
					continue
				}
				if name == void && all.status(capture, st.Attempt) == done {
					continue // it is refunded instead
				}
				fault("it is %s, and %s was not taken back by %s", o.Status, undone, name)
			}
		}
	}
	return faults
}

// findStuck suspects the steps of a page that run although no call to the provider will move them on.
func (s *scan) findStuck(ctx context.Context, p orderPage, all []verifydb.StepsOfRow) error {
	type callKey struct {
		order.Ref
		operation string
		attempt   int32
	}
	inFlight := slices.DeleteFunc(all, func(st verifydb.StepsOfRow) bool { return st.Status != running })
	if len(inFlight) == 0 {
		return nil
	}
	calls, err := s.CallsOf(ctx, verifydb.CallsOfParams(p.refs))
	if err != nil {
		return err
	}
	due := map[callKey]bool{}
	for _, c := range calls {
		if !c.Definite {
			due[callKey{order.RefOf(c.Account, c.Mode, c.OrderID), c.Operation, c.Attempt}] = true
		}
	}
	for _, st := range inFlight {
		if !due[callKey{refOfStep(st), st.Step, st.Attempt}] {
			s.suspect(st.OrderID, "step "+st.Step+" is in flight, and no message or call of it is under way")
		}
	}
	return s.reportStuck(ctx, maxSuspects)
}

// maxSuspects bounds the memory that suspects take. Each look walks over the outbox, so that they are many.
const maxSuspects = 20_000

// suspect notes what is a violation unless the order has a command or reply in the outbox or a parked one.
func (s *scan) suspect(orderID [16]byte, what string) {
	s.suspects = append(s.suspects, Violation{orderName(orderID), what})
}

// reportStuck reports the suspects that are violations, once there are more than the given number.
func (s *scan) reportStuck(ctx context.Context, more int) error {
	if len(s.suspects) <= more {
		return nil
	}
	keys := pg.Column(s.suspects, func(v Violation) string { return v.ID })
	slices.Sort(keys)
	found, err := s.OrdersWithMessages(ctx, verifydb.OrdersWithMessagesParams{Keys: slices.Compact(keys), EventsTopic: command.TopicOrders})
	if err != nil {
		return err
	}
	waiting := make(map[string]bool, len(found))
	for _, key := range found {
		waiting[key] = true
	}
	for _, v := range s.suspects {
		if !waiting[v.ID] {
			s.violationf(v.ID, "%s", v.What)
		}
	}
	s.suspects = nil
	return nil
}
