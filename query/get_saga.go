package query

import (
	"context"

	"github.com/google/uuid"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/querydb"
	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

// GetSaga returns how far an order's saga is. ORD_001: there is no such order.
func (q *Queries) GetSaga(ctx context.Context, owner order.Owner, id order.ID, t token.Token) (View, error) {
	r := request{operation: "getOrderSaga", token: t, id: id, notFound: errcode.ORD001}
	return q.serveUncached(ctx, r, func(ctx context.Context, db *querydb.Queries) (found, error) {
		rows, err := db.GetSaga(ctx, querydb.GetSagaParams{Account: owner.Account, Mode: owner.Mode, ID: uuid.UUID(id)})
		return found{int64(len(rows)), func() (view.Body, error) { return view.Finish(saga(id, rows), 0) }}, err
	})
}

// saga is done if no step has anything left to do. Otherwise it compensates as soon as a step failed, was given up or takes another
// one back.
func saga(id order.ID, rows []querydb.GetSagaRow) api.Saga {
	a := api.Saga{OrderID: id.Format(order.PrefixOrder), State: api.SagaStateDone, Steps: []api.SagaStep{}}
	inFlight, compensating := false, false
	for _, row := range rows {
		if row.Step == nil { // an order without steps
			continue
		}
		s := api.SagaStep{
			Name: api.SagaStepName(*row.Step), Status: api.SagaStepStatus(row.Status), Attempt: *row.Attempt, Tries: row.Tries,
			NextTryAt: rfc3339.Ptr(row.NextAt), StartedAt: rfc3339.Ptr(row.StartedAt), FinishedAt: rfc3339.Ptr(row.FinishedAt),
		}
		if code := row.LastCode; code != "" {
			info, _ := errcode.Lookup(errcode.Code(code))
			s.LastError = &api.StepError{Code: code, Message: info.EN}
		}
		failed := s.Status == api.SagaStepStatusFailed || s.Status == api.SagaStepStatusSkipped
		compensating = compensating || failed || row.Undo
		inFlight = inFlight || !failed && s.Status != api.SagaStepStatusDone
		a.Steps = append(a.Steps, s)
	}
	switch {
	case inFlight && compensating:
		a.State = api.SagaStateCompensating
	case inFlight:
		a.State = api.SagaStateRunning
	}
	return a
}
