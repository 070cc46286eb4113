// Package events records what happens to payments, refunds, shipments and inventory: one append-only table of the shape and the chain
// of an order's events.
package events

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/ordergate/ordergate/gen/eventsdb"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/order"
)

// The kinds of resources.
const (
	Payment   = "payment"
	Refund    = "refund"
	Shipment  = "shipment"
	Inventory = "inventory"
)

// Resource identifies what an event is about: by its kind, and by its id as clients see it or its sku.
type Resource struct {
	order.Owner
	Kind, ID string
}

// Head is where the history of a resource stands. The zero value is a resource without events.
type Head struct {
	Version int64 // the sequence of the last event
	Hash    []byte
}

// Event is one event of a resource.
type Event struct {
	Resource
	order.Event
}

// Next makes the next event of the resource and moves the head on.
func (h *Head) Next(r Resource, rec order.Recorder, eventType string, schema int32, data any) Event {
	e := rec.Event(r.chained(), h.Version, h.Hash, eventType, schema, data)
	h.Version, h.Hash = e.Version, e.Hash
	return Event{r, e}
}

// Verify checks that events are the complete, unchanged history of the resource from its first one on.
func Verify(r Resource, history []order.Event) error { return order.VerifyChain(r.chained(), history) }

// chained is the resource as the hashes cover it.
func (r Resource) chained() []byte { return []byte(r.Kind + "/" + r.ID) }

// Append writes events, in the transaction of db. The caller holds the lock of each resource's row. A second event with a sequence that
// is taken is a unique violation.
func Append(ctx context.Context, db eventsdb.DBTX, events []Event) error {
	if len(events) == 0 {
		return nil
	}
	err := eventsdb.New(db).InsertResourceEvents(ctx, eventsdb.InsertResourceEventsParams{
		Accounts:       pg.Column(events, func(e Event) int32 { return e.Account }),
		Modes:          pg.Column(events, func(e Event) string { return e.Mode }),
		Kinds:          pg.Column(events, func(e Event) string { return e.Kind }),
		Resources:      pg.Column(events, func(e Event) string { return e.Resource.ID }),
		Sequences:      pg.Column(events, func(e Event) int64 { return e.Version }),
		Ids:            pg.Column(events, func(e Event) uuid.UUID { return uuid.UUID(e.Event.ID) }),
		Types:          pg.Column(events, func(e Event) string { return e.Type }),
		SchemaVersions: pg.Column(events, func(e Event) int32 { return e.Schema }),
		Payloads:       pg.Column(events, func(e Event) string { return string(e.Payload) }),
		TraceIds:       pg.Column(events, func(e Event) string { return e.Cause.TraceID }),
		Operations:     pg.Column(events, func(e Event) string { return e.Cause.Operation }),
		Actors:         pg.Column(events, func(e Event) string { return e.Cause.Actor }),
		CreatedAts:     pg.Column(events, func(e Event) time.Time { return e.At }),
		PrevHashes:     pg.Column(events, func(e Event) []byte { return append([]byte{}, e.PrevHash...) }), // never NULL
		Hashes:         pg.Column(events, func(e Event) []byte { return e.Hash }),
	})
	if err != nil {
		return fmt.Errorf("append events: %w", err)
	}
	return nil
}
