package query

import (
	"context"
	"encoding/json"
	"strconv"

	"github.com/google/uuid"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/querydb"
	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/order"
)

// ListOrderEvents returns a page of an order's events, the oldest first. ORD_001: there is no such order; REQ_012: the cursor is
// not one of this order.
func (q *Queries) ListOrderEvents(ctx context.Context, owner order.Owner, id order.ID, page Page, t token.Token) (View, error) {
	return servePage(ctx, q, list[querydb.ListOrderEventsRow, event]{
		request: request{operation: "listOrderEvents", token: t, id: id, notFound: errcode.ORD001}, // every order has a first event
		owner:   owner, filters: []string{id.Format(order.PrefixOrder)},
		rows: func(ctx context.Context, db *querydb.Queries, after string, limit int32) ([]querydb.ListOrderEventsRow, error) {
			version, _ := strconv.ParseInt(after, 10, 64) // of the empty position: 0
			return db.ListOrderEvents(ctx, querydb.ListOrderEventsParams{
				Account: owner.Account, Mode: owner.Mode, OrderID: uuid.UUID(id), After: version, Page: limit,
			})
		},
		position: func(row querydb.ListOrderEventsRow) string { return strconv.FormatInt(row.Version, 10) },
		item:     func(row querydb.ListOrderEventsRow) (event, error) { return eventOf(id, row) },
	}, page)
}

func eventOf(id order.ID, row querydb.ListOrderEventsRow) (event, error) {
	data, schema, err := order.Event{Type: row.Type, Version: row.Version, Schema: row.SchemaVersion, Payload: []byte(row.Payload)}.Current()
	return event{Type: row.Type, Data: data, EventBase: api.EventBase{
		ID: order.ID(row.ID).Format(order.PrefixEvent), Sequence: row.Version, Resource: id.Format(order.PrefixOrder),
		SchemaVersion: schema, CreatedAt: rfc3339.New(row.CreatedAt),
		Cause: api.EventCause{TraceID: row.TraceID, Operation: row.Operation, Actor: row.Actor},
	}}, err
}

// event is the contract's Event with the payload in its present form.
type event struct {
	api.EventBase
	Type string          `json:"type"`
	Data json.RawMessage `json:"data"`
}
