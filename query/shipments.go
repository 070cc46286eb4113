package query

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/querydb"
	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

// GetShipment returns a shipment. SHP_001: the owner has none with this id.
func (q *Queries) GetShipment(ctx context.Context, owner order.Owner, id order.ID, t token.Token) (View, error) {
	r := request{operation: "getShipment", token: t, id: id, notFound: errcode.SHP001}
	return q.serveUncached(ctx, r, func(ctx context.Context, db *querydb.Queries) (found, error) {
		row, err := db.GetShipment(ctx, querydb.GetShipmentParams{Account: owner.Account, Mode: owner.Mode, ID: uuid.UUID(id)})
		return found{row.Rev, func() (view.Body, error) {
			s, err := shipment(row)
			if err != nil {
				return view.Body{}, err
			}
			return view.Finish(s, s.Version)
		}}, err
	})
}

// ListOrderShipments returns a page of an order's shipments, the first one first. ORD_001: the owner has no such order. REQ_012: the cursor is
// not one of this list.
func (q *Queries) ListOrderShipments(ctx context.Context, owner order.Owner, id order.ID, page Page, t token.Token) (View, error) {
	return servePageOf(ctx, q, list[querydb.Shipment, api.Shipment]{
		request: request{operation: "listOrderShipments", token: t, id: id},
		owner:   owner, filters: []string{id.Format(order.PrefixOrder)},
		rows: func(ctx context.Context, db *querydb.Queries, after string, limit int32) ([]querydb.Shipment, error) {
			p := querydb.ListOrderShipmentsParams{Account: owner.Account, Mode: owner.Mode, OrderID: uuid.UUID(id), Page: limit}
			copy(p.After[:], after)
			return db.ListOrderShipments(ctx, p)
		},
		position: func(row querydb.Shipment) string { return string(row.ID[:]) },
		item:     shipment,
	}, page)
}

// shipment is a shipment as clients see it.
func shipment(row querydb.Shipment) (api.Shipment, error) {
	s := order.Shipment{
		ID: order.ID(row.ID), Version: row.Version, OrderID: order.ID(row.OrderID), Status: order.ShipmentStatus(row.Status), CreatedAt: rfc3339.New(row.CreatedAt),
		UpdatedAt: rfc3339.New(row.UpdatedAt), DeliveredAt: rfc3339.Ptr(row.DeliveredAt),
	}
	err := json.Unmarshal(row.Lines, &s.Lines)
	if err == nil && row.Tracking != nil {
		err = json.Unmarshal(row.Tracking, &s.Tracking)
	}
	if err != nil {
		return api.Shipment{}, fmt.Errorf("shipment %s: %w", s.ID.Format(order.PrefixShipment), err)
	}
	return view.Shipment(&s), nil
}
