package contracttest

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
)

// slowPayments: an order whose payment is being captured cannot be cancelled, and one whose reservation ran out cannot be paid. The first
// needs a provider that knows the simulator's pm_slow, the second patience.
func (s *suite) slowPayments(ctx context.Context, g *goods) {
	for n := range 4 {
		if !s.cancelWhileCaptured(ctx, g, n) {
			break
		}
	}
	p, ok := s.unpaid(ctx, g, "expires", 1)
	if !ok || p.ReservationExpiresAt == nil {
		return
	}
	if wait := time.Until(p.ReservationExpiresAt.Add(-s.facts.skew)); wait < s.Patience {
		s.await(ctx, p, api.OrderStatusRejected)
		s.refused(ctx, errcode.INV003, s.paymentOf(p.ID, "expired", "pm_ok"))
		return
	}
	s.get(ctx, nil, call{op: "cancelOrder", arg: p.ID, idem: s.ref + "-expires"}, http.StatusAccepted)
}

// cancelWhileCaptured tells whether it must be tried again: the capture was over before it was seen.
func (s *suite) cancelWhileCaptured(ctx context.Context, g *goods, n int) (again bool) {
	key := fmt.Sprint(s.ref, "-slow-", n)
	p, ok := s.place(ctx, call{op: "placeOrder", idem: key, body: s.draft(g, "pm_slow")}, http.StatusAccepted)
	if !ok {
		return false
	}
	s.poll(ctx, s.Patience, p.accepted, "the end of a slow payment", func() bool {
		return s.cancelsCapture(ctx, p, key, &again)
	})
	return again
}

// cancelsCapture looks at a saga for a while, because a capture may last for some milliseconds, and cancels its order while it captures. It is
// true if there is nothing more to see.
func (s *suite) cancelsCapture(ctx context.Context, p *placed, key string, again *bool) bool {
	for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); pause(ctx, 3*time.Millisecond) {
		var saga api.Saga
		if _, ok := s.get(ctx, &saga, call{op: "getOrderSaga", arg: p.ID}, http.StatusOK); !ok || saga.State == "done" {
			*again = ok
			return true
		}
		for _, step := range saga.Steps {
			if step.Name != "capture" || step.Status != "running" {
				continue
			}
			r, ok := s.send(ctx, call{op: "cancelOrder", arg: p.ID, idem: key})
			*again = ok && r.problem.Code != string(errcode.ORD009)
			s.foundIf(ok && r.status >= 400 && *again, r, "/body/code", "is not ORD_009%s", why(r))
			return true
		}
	}
	return false
}
