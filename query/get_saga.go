package query

import (
	"context"

	"github.com/google/uuid"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/querydb"
	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/order"
)

// GetSaga answers how far an order's saga is. ORD_001: there is no such order.
func (r *Queries) GetSaga(ctx context.Context, owner order.Owner, id order.ID, t token.Token) (View, error) {
	if !r.cfg.IDs.Genuine(id) {
		return View{}, apierr.E(errcode.ORD001)
	}
	var rows []querydb.GetSagaRow
	e, tier, err := r.read(ctx, want{token: t, row: true, min: r.leastRev(id)}, func(ctx context.Context, q *querydb.Queries) (_ int64, err error) {
		rows, err = q.GetSaga(ctx, querydb.GetSagaParams{Account: owner.Account, Mode: owner.Mode, ID: uuid.UUID(id)})
		return int64(len(rows)), err
	})
	if err != nil {
		return View{}, err
	}
	if e.Rev == 0 {
		return View{}, apierr.E(errcode.ORD001)
	}
	return r.finish("getOrderSaga", tier, e, saga(id, rows), 0)
}

// saga is done when no step has anything left to do. One that is not goes back as soon as a step failed, was given up or takes
// another one back.
func saga(id order.ID, rows []querydb.GetSagaRow) api.Saga {
	a := api.Saga{OrderID: id.Format(order.PrefixOrder), State: api.SagaStateDone, Steps: []api.SagaStep{}}
	back := false
	for _, row := range rows {
		if row.Step == nil { // an order without steps
			continue
		}
		s := api.SagaStep{
			Name: api.SagaStepName(*row.Step), Status: api.SagaStepStatus(*row.Status), Attempt: *row.Attempt, Tries: *row.Tries,
			NextTryAt: rfc3339.Ptr(row.NextAt), StartedAt: rfc3339.Ptr(row.StartedAt), FinishedAt: rfc3339.Ptr(row.FinishedAt),
		}
		if code := *row.LastCode; code != "" {
			info, _ := errcode.Lookup(errcode.Code(code))
			s.LastError = &api.StepError{Code: code, Message: info.EN}
		}
		switch s.Name {
		case api.SagaStepNameVoid, api.SagaStepNameRefund, api.SagaStepNameCancelReservation:
			back = true
		}
		switch s.Status {
		case api.SagaStepStatusFailed, api.SagaStepStatusSkipped:
			back = true
		case api.SagaStepStatusPending, api.SagaStepStatusRunning, api.SagaStepStatusInDoubt:
			a.State = api.SagaStateRunning
		}
		a.Steps = append(a.Steps, s)
	}
	if back && a.State == api.SagaStateRunning {
		a.State = api.SagaStateCompensating
	}
	return a
}
