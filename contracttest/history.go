package contracttest

import (
	"bytes"
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
)

// events: an order's history has no gap, and page by page it is the same.
func (s *suite) events(ctx context.Context, p *placed) {
	all := call{op: "listOrderEvents", arg: p.ID, query: values("limit", "100")}
	s.get(ctx, nil, all, http.StatusOK) // while it grows
	o, _ := s.await(ctx, p, api.OrderStatusConfirmed)
	var list struct{ Data []event }
	r, ok := s.get(ctx, &list, all, http.StatusOK)
	if !ok {
		return
	}
	s.foundIf(int64(len(list.Data)) != o.Version, r, "/body/data", "has %d events of an order at version %d", len(list.Data), o.Version)
	ids := make([]string, len(list.Data))
	for i, e := range list.Data {
		ids[i] = e.ID
		s.foundIf(e.Sequence != int64(i+1) || e.Resource != p.ID, r, "/body/data", "has event %d of %q in place %d", e.Sequence, e.Resource, i+1)
	}
	if len(ids) == 0 {
		return
	}
	e, trace := list.Data[0], p.accepted.header.Get("X-Trace-ID")
	s.foundIf(e.Type != "order.created" || e.Cause.Operation != "placeOrder" || e.Cause.TraceID != trace, r, "/body/data/0",
		"is %q, caused by %q in %q, and not order.created by placeOrder in %q", e.Type, e.Cause.Operation, e.Cause.TraceID, trace)
	end := list.Data[len(ids)-1].Type
	s.foundIf(end != "order.confirmed", r, "/body/data", "ends with %q, and the order is confirmed", end)
	s.unchanged(ctx, all, r)
	cursor := s.walk(ctx, "listOrderEvents", p.ID, values("limit", "2"), ids)
	s.badPages(ctx, "listOrderEvents", p.ID, cursor, nil)
	if d, ok := s.refusal(ctx); ok && cursor != "" {
		s.refused(ctx, errcode.REQ012, call{op: "listOrderEvents", arg: d.ID, query: values("cursor", cursor)})
	}
}

// then: an order is shown as it was at each version, and at each instant; what was not is refused.
func (s *suite) then(ctx context.Context, p *placed) {
	o, r := s.await(ctx, p, api.OrderStatusConfirmed)
	at := func(query ...string) call { return call{op: "getOrder", arg: p.ID, query: values(query...)} }
	var was, before api.Order
	for v := int64(1); v <= o.Version; v++ {
		got, ok := s.get(ctx, &was, at("version", strconv.FormatInt(v, 10)), http.StatusOK)
		if !ok {
			return
		}
		s.foundIf(was.ID != p.ID || was.Version != v || was.UpdatedAt.Before(before.UpdatedAt.Time) || was.Total != p.Total, got, "/body", "is version %d, and %d was asked for", was.Version, v)
		s.unchanged(ctx, at("version", strconv.FormatInt(v, 10)), got)
		switch v {
		case 1:
			s.foundIf(was.Status != "pending", got, "/body/status", "of a new order is %q", was.Status)
		case o.Version:
			s.foundIf(!bytes.Equal(got.body, r.body), got, "/body", "of the last version is not the order")
		}
		before = was
	}
	same := func(instant time.Time, version int64) {
		got, ok := s.get(ctx, &was, at("as_of", instant.Format(time.RFC3339Nano)), http.StatusOK)
		s.foundIf(ok && was.Version != version, got, "/body/version", "is %d at %v, and not %d", was.Version, instant, version)
	}
	same(o.UpdatedAt.Time, o.Version)
	same(o.UpdatedAt.Add(time.Microsecond), o.Version)
	s.get(ctx, &was, at("as_of", o.CreatedAt.Format(time.RFC3339Nano)), http.StatusOK)
	s.refused(ctx, errcode.ORD010, at("as_of", o.CreatedAt.Add(-time.Microsecond).Format(time.RFC3339Nano)))
	s.refused(ctx, errcode.ORD010, at("as_of", "0001-01-01T00:00:00Z"))
	s.refused(ctx, errcode.ORD010, at("version", strconv.FormatInt(o.Version+1, 10)))
	s.refused(ctx, errcode.ORD010, at("version", "9007199254740991").with("Accept-Language", "zh-CN"))
	for _, bad := range []string{"0", "-1", "1.5", "one", "9007199254740992", ""} {
		s.refused(ctx, errcode.REQ003, at("version", bad), "/query/version")
	}
	s.refused(ctx, errcode.REQ003, at("as_of", "yesterday"), "/query/as_of")
	s.refused(ctx, errcode.REQ003, at("as_of", "9999-01-01T00:00:00Z"), "/query/as_of")
	s.refused(ctx, errcode.REQ003, at("as_of", o.CreatedAt.Format(time.RFC3339Nano), "version", "1"), "/query/as_of")
	for _, then := range [][]string{{"version", "1"}, {"as_of", o.UpdatedAt.Format(time.RFC3339Nano)}} {
		c := at(then...)
		s.badToken(ctx, c)
		c.arg = forge(p.ID)
		s.refused(ctx, errcode.ORD001, c)
	}
}

// event is an entry of the contract's EventList, whatever its type.
type event struct {
	api.EventBase
	Type string `json:"type"`
}

// saga: the steps of an order that is confirmed are done, of one that is rejected they say what failed.
func (s *suite) saga(ctx context.Context, p *placed) {
	steps, r := s.doneSaga(ctx, p)
	for _, name := range []string{"reserve_stock", "authorize", "confirm_stock", "capture"} {
		step := steps[name]
		s.foundIf(step.Status != "done" || step.Tries < 1 || step.StartedAt == nil || step.FinishedAt == nil,
			r, "/body/steps", "%s of a confirmed order is %q after %d tries", name, step.Status, step.Tries)
	}
	s.unchanged(ctx, call{op: "getOrderSaga", arg: p.ID}, r)
	declined, ok := s.refusal(ctx)
	if !ok {
		return
	}
	steps, r = s.doneSaga(ctx, declined)
	failed, undo := steps["authorize"], steps["cancel_reservation"]
	s.foundIf(failed.Status != "failed" || failed.LastError == nil || failed.LastError.Code != string(errcode.PAY007),
		r, "/body/steps", "authorize of a declined card is %q, and its last_error not PAY_007", failed.Status)
	s.foundIf(undo.Status != "done", r, "/body/steps", "cancel_reservation of a rejected order is %q", undo.Status)
}

// doneSaga polls a saga until it is done and returns its steps by name.
func (s *suite) doneSaga(ctx context.Context, p *placed) (map[string]api.SagaStep, reply) {
	var last reply
	steps := map[string]api.SagaStep{}
	s.poll(ctx, s.Patience, p.accepted, "the saga as done", func() bool {
		var saga api.Saga
		r, ok := s.get(ctx, &saga, call{op: "getOrderSaga", arg: p.ID}, http.StatusOK)
		if last = r; !ok || saga.State != "done" {
			return !ok
		}
		s.foundIf(saga.OrderID != p.ID, r, "/body/order_id", "is %q", saga.OrderID)
		for _, step := range saga.Steps {
			steps[string(step.Name)] = step
			s.foundIf(step.Status == "pending" || step.Status == "running" || step.Status == "in_doubt",
				r, "/body/steps", "%q is %q in a saga that is done", step.Name, step.Status)
		}
		return true
	})
	return steps, last
}
