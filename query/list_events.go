package query

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/querydb"
	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/order"
)

// ListOrderEvents answers a page of an order's events, the oldest first. ORD_001: there is no such order; REQ_012: the cursor is
// not one of this order.
func (r *Queries) ListOrderEvents(ctx context.Context, owner order.Owner, id order.ID, page Page, t token.Token) (View, error) {
	if !r.cfg.IDs.Genuine(id) {
		return View{}, apierr.E(errcode.ORD001)
	}
	p := querydb.ListOrderEventsParams{Account: owner.Account, Mode: owner.Mode, OrderID: uuid.UUID(id), Page: int32(page.Limit + 1)}
	scope := fmt.Sprintf("events %d %s %x", owner.Account, owner.Mode, id)
	after, err := r.position(scope, page.Cursor)
	if err != nil {
		return View{}, err
	}
	if after != "" {
		p.After = int64(binary.BigEndian.Uint64([]byte(after)))
	}
	var rows []querydb.ListOrderEventsRow
	e, tier, err := r.read(ctx, want{token: t, row: true, min: r.leastRev(id)}, func(ctx context.Context, q *querydb.Queries) (rev int64, err error) {
		if rows, err = q.ListOrderEvents(ctx, p); len(rows) > 0 || after != "" {
			rev = 1
		}
		return rev, err
	})
	if err != nil {
		return View{}, err
	}
	if e.Rev == 0 { // every order has a first event
		return View{}, apierr.E(errcode.ORD001)
	}
	list := eventList{Data: []event{}}
	if len(rows) > page.Limit {
		rows = rows[:page.Limit]
		list.NextCursor = r.cursor(scope, string(binary.BigEndian.AppendUint64(nil, uint64(rows[len(rows)-1].Version))))
	}
	for _, row := range rows {
		list.Data = append(list.Data, event{Type: row.Type, Data: []byte(row.Payload), EventBase: api.EventBase{
			ID: order.ID(row.ID).Format(order.PrefixEvent), Sequence: row.Version, Resource: id.Format(order.PrefixOrder),
			SchemaVersion: row.SchemaVersion, CreatedAt: rfc3339.New(row.CreatedAt),
			Cause: api.EventCause{TraceID: row.TraceID, Operation: row.Operation, Actor: row.Actor},
		}})
	}
	return r.finish("listOrderEvents", tier, e, list, 0)
}

// eventList is the contract's EventList with the payloads as they are stored.
type eventList struct {
	Data       []event `json:"data"`
	NextCursor *string `json:"next_cursor"`
}

type event struct {
	api.EventBase
	Type string          `json:"type"`
	Data json.RawMessage `json:"data"`
}
