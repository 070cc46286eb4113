package query

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/querydb"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

// Then is the state that a client asks for: of a version, or of an instant.
type Then struct {
	Version int64     // 0: the instant counts
	AsOf    time.Time // not in the future
}

// historyPage is how many events one statement reads. A longer history costs more statements, not more memory.
const historyPage = 500

// GetOrderThen returns an order as it was: the fold of its events up to a version, or up to the last one before any that is later than the
// instant. Its shipping address is the present one. ORD_001: the owner has no such order. ORD_010: it had no such version, or was not there at
// the instant. A state of an instant is read from the primary, because no replica knows what it lacks of it.
func (q *Queries) GetOrderThen(ctx context.Context, owner order.Owner, id order.ID, then Then, t token.Token) (View, error) {
	if v, err := q.get(ctx, orders.row(owner, id, ""), t, q.cfg.Now()); err != nil {
		return v, err
	}
	return q.serve(ctx, request{operation: "getOrder", token: t, id: id, notFound: errcode.ORD010}, func(ctx context.Context) (*Entry, error) {
		r := requirement{token: t, minRev: q.minRev(id), primary: then.Version == 0}
		e, err := q.fold(ctx, owner, id, then, r)
		if err == nil && e.Rev == 0 && !r.primary { // the replica may lack the version
			r.primary = true
			return q.fold(ctx, owner, id, then, r)
		}
		return e, err
	})
}

// fold rebuilds the order page by page. Its history only grows, so that the pages fit together. The entry's Rev is 0 if there was no such state.
func (q *Queries) fold(ctx context.Context, owner order.Owner, id order.ID, then Then, r requirement) (*Entry, error) {
	o, address := &order.Order{ID: id}, []byte(nil)
	for {
		rows, e, err := readRows(ctx, q, r, func(ctx context.Context, db *querydb.Queries) ([]querydb.OrderHistoryRow, error) {
			return db.OrderHistory(ctx, querydb.OrderHistoryParams{
				Account: owner.Account, Mode: owner.Mode, OrderID: uuid.UUID(id), After: o.Version, Page: historyPage,
			})
		})
		if err != nil {
			return nil, err
		}
		reached := false
		for _, row := range rows {
			if reached = then.Version == 0 && row.CreatedAt.After(then.AsOf); reached {
				break
			}
			if err = o.Apply(order.Event{
				Type: row.Type, Version: row.Version, Schema: row.SchemaVersion, Payload: []byte(row.Payload), At: row.CreatedAt.UTC(), Hash: row.Hash,
			}); err != nil {
				return nil, err
			}
			address = row.Address
			if reached = o.Version == then.Version; reached {
				break
			}
		}
		switch {
		case !reached && len(rows) == historyPage:
		case o.Version == 0 || then.Version > 0 && o.Version != then.Version:
			e.Rev = 0
			return e, nil
		default:
			e.Body, err = view.OrderBody(o, address)
			return e, err
		}
	}
}
