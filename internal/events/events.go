// Package events stores what happens to payments, refunds, shipments and inventory: one append-only table of the shape and the chain
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

// Append writes events, in the transaction of db. The caller holds the lock of each resource's row. A second event with a sequence that
// is taken is a unique violation.
func Append(ctx context.Context, db eventsdb.DBTX, events []order.ResourceEvent) error {
	if len(events) == 0 {
		return nil
	}
	err := eventsdb.New(db).InsertResourceEvents(ctx, eventsdb.InsertResourceEventsParams{
		Accounts:       pg.Column(events, func(e order.ResourceEvent) int32 { return e.Account }),
		Modes:          pg.Column(events, func(e order.ResourceEvent) string { return e.Mode }),
		Kinds:          pg.Column(events, func(e order.ResourceEvent) string { return e.Kind }),
		Resources:      pg.Column(events, func(e order.ResourceEvent) string { return e.Resource.ID }),
		Sequences:      pg.Column(events, func(e order.ResourceEvent) int64 { return e.Version }),
		Ids:            pg.Column(events, func(e order.ResourceEvent) uuid.UUID { return uuid.UUID(e.Event.ID) }),
		Types:          pg.Column(events, func(e order.ResourceEvent) string { return e.Type }),
		SchemaVersions: pg.Column(events, func(e order.ResourceEvent) int32 { return e.Schema }),
		Payloads:       pg.Column(events, func(e order.ResourceEvent) string { return string(e.Payload) }),
		TraceIds:       pg.Column(events, func(e order.ResourceEvent) string { return e.Cause.TraceID }),
		Operations:     pg.Column(events, func(e order.ResourceEvent) string { return e.Cause.Operation }),
		Actors:         pg.Column(events, func(e order.ResourceEvent) string { return e.Cause.Actor }),
		CreatedAts:     pg.Column(events, func(e order.ResourceEvent) time.Time { return e.At }),
		PrevHashes:     pg.Column(events, func(e order.ResourceEvent) []byte { return append([]byte{}, e.PrevHash...) }), // never NULL
		Hashes:         pg.Column(events, func(e order.ResourceEvent) []byte { return e.Hash }),
	})
	if err != nil {
		return fmt.Errorf("append events: %w", err)
	}
	return nil
}

// Read reads the history of a resource, oldest first.
func Read(ctx context.Context, db eventsdb.DBTX, r order.Resource) ([]order.Event, error) {
	rows, err := eventsdb.New(db).ListResourceEvents(ctx, eventsdb.ListResourceEventsParams{Account: r.Account, Mode: r.Mode, Kind: r.Kind, Resource: r.ID})
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	return pg.Column(rows, func(row eventsdb.ResourceEvent) order.Event {
		return order.Event{
			ID: order.ID(row.ID), Type: row.Type, Version: row.Sequence, Schema: row.SchemaVersion, Payload: []byte(row.Payload), At: row.CreatedAt.UTC(),
			Cause:    order.Cause{TraceID: row.TraceID, Operation: row.Operation, Actor: row.Actor},
			PrevHash: row.PrevHash, Hash: row.Hash,
		}
	}), nil
}

// Any tells whether one of an owner's resources of a kind, by their ids as clients see them, has events.
func Any(ctx context.Context, db eventsdb.DBTX, owner order.Owner, kind string, ids []string) (bool, error) {
	found, err := eventsdb.New(db).AnyHasEvents(ctx, eventsdb.AnyHasEventsParams{Account: owner.Account, Mode: owner.Mode, Kind: kind, Resources: ids})
	if err != nil {
		return false, fmt.Errorf("look events up: %w", err)
	}
	return found, nil
}

// PaymentsKnown tells which payments, by their ids as clients see them, have events, whoever owns them.
func PaymentsKnown(ctx context.Context, db eventsdb.DBTX, ids []string) (map[string]bool, error) {
	rows, err := eventsdb.New(db).PaymentsWithEvents(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("look payments' events up: %w", err)
	}
	known := make(map[string]bool, len(rows))
	for _, id := range rows {
		known[id] = true
	}
	return known, nil
}
