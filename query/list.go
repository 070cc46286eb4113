package query

import (
	"context"
	"crypto/hmac"
	"encoding/base64"
	"fmt"
	"strings"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/querydb"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

// Page is the part of a list that a client asks for.
type Page struct {
	Limit  int    // 1 to 100
	Cursor string // next_cursor of the page before; empty: the first
}

// list is a query that returns rows R as items I, a page at a time.
type list[R, I any] struct {
	request
	owner    order.Owner
	filters  []string // a cursor is good for the same owner and filters only
	rows     func(ctx context.Context, db *querydb.Queries, after string, limit int32) ([]R, error)
	position func(R) string // of a row in the list: its successors are the rows after it. The list begins after the empty one
	item     func(R) (I, error)
}

// servePage serves a page. A list that has a notFound is never empty: no row at its beginning means that there is no such resource.
// REQ_012: the cursor is not one of this list.
func servePage[R, I any](ctx context.Context, q *Queries, l list[R, I], page Page) (View, error) {
	scope := fmt.Sprintf("%s %d %q %q", l.operation, l.owner.Account, l.owner.Mode, l.filters)
	after, ok := q.openCursor(scope, page.Cursor)
	if !ok {
		return View{}, apierr.E(errcode.REQ012)
	}
	return q.serveUncached(ctx, l.request, func(ctx context.Context, db *querydb.Queries) (found, error) {
		rows, err := l.rows(ctx, db, after, int32(page.Limit)+1)
		if l.notFound != "" && after == "" && len(rows) == 0 {
			return found{}, err
		}
		return found{rev: 1, encode: func() (view.Body, error) {
			var body struct { // of every list of the contract
				Data       []I     `json:"data"`
				NextCursor *string `json:"next_cursor"`
			}
			if len(rows) > page.Limit {
				rows = rows[:page.Limit]
				body.NextCursor = new(q.cursor(scope, l.position(rows[len(rows)-1])))
			}
			body.Data = make([]I, len(rows))
			for i, row := range rows {
				var err error
				if body.Data[i], err = l.item(row); err != nil {
					return view.Body{}, err
				}
			}
			return view.Finish(body, 0)
		}}, err
	})
}

// servePageOf serves a page of what belongs to an order, which may be nothing: whether there is the order is asked first, mostly of the LRU.
// ORD_001: there is no such order of the owner.
func servePageOf[R, I any](ctx context.Context, q *Queries, l list[R, I], page Page) (View, error) {
	if v, err := q.get(ctx, orders.row(l.owner, l.id, ""), l.token, q.cfg.Now()); err != nil {
		return v, err
	}
	return servePage(ctx, q, l, page)
}

// readRows reads rows that are part of a response, with the entry that says how new they are. Its Rev is 1, its body is the caller's. The rows are
// those of the entry, whichever server was asked after it in vain.
func readRows[R any](ctx context.Context, q *Queries, r requirement, read func(context.Context, *querydb.Queries) ([]R, error)) (rows []R, e *Entry, err error) {
	e, err = q.fromDatabase(ctx, r, func(ctx context.Context, db *querydb.Queries) (found, error) {
		these, err := read(ctx, db)
		return found{1, func() (view.Body, error) { rows = these; return view.Body{}, nil }}, err
	})
	return rows, e, err
}

// cursor signs a position of a list.
func (q *Queries) cursor(scope, position string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(position)) + "." + q.cfg.Cursors.MAC(scope+"\x00"+position)
}

// openCursor is the position in a cursor of the same list; without a cursor it is the empty one.
func (q *Queries) openCursor(scope, cursor string) (position string, ok bool) {
	if cursor == "" {
		return "", true
	}
	encoded, _, _ := strings.Cut(cursor, ".")
	b, err := base64.RawURLEncoding.DecodeString(encoded)
	position = string(b)
	return position, err == nil && hmac.Equal([]byte(q.cursor(scope, position)), []byte(cursor))
}

// orZero is for parameters of which absent and zero mean the same.
func orZero[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
