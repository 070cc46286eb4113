package command

import (
	"slices"

	"github.com/ordergate/ordergate/order"
)

// advance decides what an order's saga does next and puts it into the change: it looks at nothing but the order and its steps,
// so that it can be asked again after every reply.
//
// While a step is in flight it waits. Forward, it starts the next pending step; when the payment is captured the order is confirmed. If
// an authorization fails of an order that was placed without payment, the pending steps of that payment are skipped and the order stays
// reserved: another card may follow. If the client asked to cancel, or another step failed, it compensates: pending steps are skipped and
// done ones taken back in the order of the table; then the order is cancelled if the client asked for it, else rejected: with what was
// refused, or because its reservation ran out.
func advance(c *orderChange, rec order.Recorder) {
	o := c.order
	if o.Status.Final() {
		return
	}
	failed := c.steps.failed()
	declined := failed != nil && failed.name == stepAuth && !o.WithPayment
	compensating := o.CancelRequestedAt != nil || failed != nil && !declined
	if compensating || declined {
		for _, st := range c.steps {
			if st.status == statusPending && st.forward() {
				st.finish(statusSkipped, "", rec.Now)
			}
		}
	}
	switch {
	case c.steps.inFlight(""):
	case !compensating:
		if next := slices.IndexFunc(c.steps, func(st *step) bool { return st.status == statusPending }); next >= 0 {
			c.start(c.steps[next], rec)
		} else if c.steps.done(stepCapture) && o.Status == order.StatusReserved {
			c.record(rec, order.Confirmed{})
		}
	default:
		if st := c.steps.undo(); st != nil {
			c.start(st, rec)
			return
		}
		switch {
		case o.CancelRequestedAt != nil:
			c.record(rec, order.Cancelled{})
		case o.Failure != nil: // what was refused says more than a reservation that then ran out
			c.record(rec, order.Rejected{Rejection: *o.Failure})
		default:
			c.record(rec, order.Rejected{Rejection: order.Rejection{Code: failed.code}})
		}
	}
}

// start starts a step.
func (c *orderChange) start(st *step, rec order.Recorder) {
	kindOf(st.name).start(c, st, rec)
	st.set(statusRunning, "")
	st.started = rec.Now
}

func (c *orderChange) record(rec order.Recorder, d order.Data) {
	c.events = append(c.events, c.order.Record(rec, d))
}
