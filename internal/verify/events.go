package verify

import (
	"context"
	"strings"

	"github.com/ordergate/ordergate/gen/verifydb"
	"github.com/ordergate/ordergate/order"
)

// checkEvents recomputes every hash of the orders' events over the stored bytes. Nothing may be in flight: an event is written once.
func (s *scan) checkEvents(ctx context.Context) error {
	if err := s.expect(ctx, s.CountEvents); err != nil {
		return err
	}
	chains := walk[order.Ref]{s: s}
	err := pages(s.PageSize, verifydb.OrderEvent{}, func(after verifydb.OrderEvent) ([]verifydb.OrderEvent, error) {
		return s.EventPage(ctx, verifydb.EventPageParams{
			AfterAccount: after.Account, AfterMode: after.Mode, AfterOrderID: after.OrderID, AfterVersion: after.Version, PageSize: s.PageSize,
		})
	}, func(rows []verifydb.OrderEvent) error {
		for _, row := range rows {
			ref := refOfEvent(row)
			chains.next(ref, orderName(ref.ID), orderEvent(row), func() *order.Chain { return order.NewChain(ref.ID) })
		}
		s.lookedAt(len(rows))
		return nil
	})
	if err != nil {
		return err
	}
	repeated, err := s.RepeatedEventIDs(ctx, maxShown)
	for i, row := range repeated {
		s.violationf(order.ID(row.ID).Format(order.PrefixEvent), "several events have this id")
		if i == 0 {
			s.addUnlisted(row.Total, len(repeated))
		}
	}
	return err
}

// checkResourceEvents is checkEvents of payments, refunds, shipments and inventory.
func (s *scan) checkResourceEvents(ctx context.Context) error {
	if err := s.expect(ctx, s.CountResourceEvents); err != nil {
		return err
	}
	chains := walk[order.Resource]{s: s}
	return pages(s.PageSize, verifydb.ResourceEvent{}, func(after verifydb.ResourceEvent) ([]verifydb.ResourceEvent, error) {
		return s.ResourceEventPage(ctx, verifydb.ResourceEventPageParams{
			AfterAccount: after.Account, AfterMode: after.Mode, AfterKind: after.Kind, AfterResource: after.Resource, AfterSequence: after.Sequence,
			PageSize: s.PageSize,
		})
	}, func(rows []verifydb.ResourceEvent) error {
		for _, row := range rows {
			r := resourceOf(row)
			chains.next(r, r.ID, resourceEvent(row), r.NewChain)
			if !strings.HasPrefix(row.Type, r.Kind+".") {
				s.violationf(r.ID, "its event %s is of type %s, and it is of kind %s", order.ID(row.ID).Format(order.PrefixEvent), row.Type, r.Kind)
			}
		}
		s.lookedAt(len(rows))
		return nil
	})
}

// walk goes over the events of many subjects, each after the other. Of a subject it reports the first fault.
type walk[S comparable] struct {
	s       *scan
	current S
	chain   *order.Chain
	broken  bool // it is reported
}

// next checks that the event is unchanged, follows the one before it, and is of a schema version that this program reads.
func (w *walk[S]) next(subject S, name string, e order.Event, begin func() *order.Chain) {
	if w.chain == nil || subject != w.current {
		w.current, w.chain, w.broken = subject, begin(), false
	}
	if w.broken {
		return
	}
	err := w.chain.Next(e)
	if err == nil {
		_, _, err = e.Current()
	}
	if w.broken = err != nil; w.broken {
		w.s.violationf(name, "%v", err)
	}
}

func refOfEvent(e verifydb.OrderEvent) order.Ref { return order.RefOf(e.Account, e.Mode, e.OrderID) }

func orderEvent(e verifydb.OrderEvent) order.Event {
	return order.Event{
		ID: order.ID(e.ID), Type: e.Type, Version: e.Version, Schema: e.SchemaVersion, Payload: []byte(e.Payload), At: e.CreatedAt.UTC(),
		Cause: order.Cause{TraceID: e.TraceID, Operation: e.Operation, Actor: e.Actor}, PrevHash: e.PrevHash, Hash: e.Hash,
	}
}

func resourceOf(e verifydb.ResourceEvent) order.Resource {
	return order.Resource{Owner: order.Owner{Account: e.Account, Mode: e.Mode}, Kind: e.Kind, ID: e.Resource}
}

func resourceEvent(e verifydb.ResourceEvent) order.Event {
	return orderEvent(verifydb.OrderEvent{
		ID: e.ID, Type: e.Type, Version: e.Sequence, SchemaVersion: e.SchemaVersion, Payload: e.Payload, CreatedAt: e.CreatedAt,
		TraceID: e.TraceID, Operation: e.Operation, Actor: e.Actor, PrevHash: e.PrevHash, Hash: e.Hash,
	})
}
