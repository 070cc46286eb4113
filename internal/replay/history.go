package replay

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/ordergate/ordergate/gen/replaydb"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/order"
)

// folder is a row as its events give it.
type folder interface{ Apply(e order.Event) error }

// history is a resource as far as its events were read.
type history[F folder] struct {
	order.Ref // the id is zero for stock

	name  string // as clients see it, or the sku
	chain *order.Chain
	fold  F
	moved int64 // by how many events of others the row was changed
}

// named identifies a history of a kind.
type named struct {
	order.Owner
	name string
}

// part is a kind of rows that follow from events.
type part[F folder] struct {
	table  string
	kind   string // of its events
	prefix string // of its ids; empty: they are skus
	start  func(order.Ref) F

	// The rest is for rows that are rebuilt. lock takes the locks that changes of the rows take. stale finds those that are missing or differ.
	lock   func(context.Context, *replaydb.Queries, []*history[F]) error
	stale  func(context.Context, *replaydb.Queries, []*history[F]) (map[order.Ref]bool, error)
	put    func(context.Context, *replaydb.Queries, []*history[F], func(version, moved int64) int64) error
	remove func(q *replaydb.Queries, ctx context.Context, limit int32) (int64, error) // deletes rows without events
}

// check folds all histories of the part.
func check[F folder](ctx context.Context, r *run, p part[F]) error {
	return walk(ctx, r, p, func([]*history[F]) error { return nil })
}

// rebuild deletes the rows that have no events, and writes those that are not what their events give.
func rebuild[F folder](ctx context.Context, r *run, p part[F]) error {
	r.table.Name = p.table
	for deleted := int64(r.PageSize); deleted == int64(r.PageSize); r.table.Deleted += deleted {
		if err := r.inTx(ctx, func(q *replaydb.Queries) (err error) {
			deleted, err = p.remove(q, ctx, r.PageSize)
			return err
		}); err != nil {
			return fmt.Errorf("delete rows without events: %w", err)
		}
	}
	return walk(ctx, r, p, func(page []*history[F]) error {
		stale, err := p.staleOf(ctx, r.queries, page)
		if err != nil || len(stale) == 0 {
			return err
		}
		written := 0
		err = r.inTx(ctx, func(q *replaydb.Queries) error {
			if err := p.lock(ctx, q, stale); err != nil {
				return err
			}
			// Nothing new can happen to them now. The events since they were folded are in no earlier statement's snapshot.
			if _, err := advance(ctx, q, p, stale); err != nil {
				return err
			}
			wrong, err := p.staleOf(ctx, q, stale)
			if written = len(wrong); err != nil || written == 0 {
				return err
			}
			return p.put(ctx, q, wrong, func(version, moved int64) int64 { return version + moved + r.generation })
		})
		r.table.Written += int64(written)
		return err
	})
}

// staleOf are those of the histories of which the row is missing or differs.
func (p part[F]) staleOf(ctx context.Context, q *replaydb.Queries, page []*history[F]) (stale []*history[F], err error) {
	refs, err := p.stale(ctx, q, page)
	for _, h := range page {
		if refs[h.Ref] {
			stale = append(stale, h)
		}
	}
	return stale, err
}

// walk folds all histories of a part, a page at a time.
func walk[F folder](ctx context.Context, r *run, p part[F], each func([]*history[F]) error) error {
	for last := (named{}); ; {
		names, err := p.names(ctx, r.queries, last, r.PageSize)
		if err != nil {
			return fmt.Errorf("read which events there are: %w", err)
		}
		if len(names) == 0 {
			return nil
		}
		last = names[len(names)-1]
		page := make([]*history[F], len(names))
		for i, n := range names {
			if page[i], err = p.begin(n); err != nil {
				return err
			}
		}
		events, err := advance(ctx, r.queries, p, page)
		if err != nil {
			return err
		}
		if err = each(page); err != nil {
			return err
		}
		r.table.Histories, r.table.Events = r.table.Histories+int64(len(page)), r.table.Events+events
		r.done(events)
	}
}

// names are the next histories after one.
func (p part[F]) names(ctx context.Context, q *replaydb.Queries, after named, limit int32) ([]named, error) {
	if p.kind == kindOrder {
		id, _ := order.Parse(p.prefix, after.name) // zero before the first
		rows, err := q.OrdersWithEvents(ctx, replaydb.OrdersWithEventsParams{
			AfterAccount: after.Account, AfterMode: after.Mode, AfterOrderID: uuid.UUID(id), PageSize: limit,
		})
		return pg.Column(rows, func(r replaydb.OrdersWithEventsRow) named {
			return named{order.Owner{Account: r.Account, Mode: r.Mode}, order.ID(r.OrderID).Format(p.prefix)}
		}), err
	}
	rows, err := q.ResourcesWithEvents(ctx, replaydb.ResourcesWithEventsParams{
		Kind: p.kind, AfterAccount: after.Account, AfterMode: after.Mode, AfterResource: after.name, PageSize: limit,
	})
	return pg.Column(rows, func(r replaydb.ResourcesWithEventsRow) named {
		return named{order.Owner{Account: r.Account, Mode: r.Mode}, r.Resource}
	}), err
}

// begin is a history before its first event.
func (p part[F]) begin(n named) (*history[F], error) {
	h := &history[F]{Ref: order.Ref{Owner: n.Owner}, name: n.name, chain: order.Resource{Owner: n.Owner, Kind: p.kind, ID: n.name}.NewChain()}
	if p.prefix != "" {
		id, ok := order.Parse(p.prefix, n.name)
		if !ok {
			return nil, fmt.Errorf("events of %s %q, which is no id", p.kind, n.name)
		}
		h.ID = id
	}
	if p.kind == kindOrder {
		h.chain = order.NewChain(h.ID)
	}
	h.fold = p.start(h.Ref)
	return h, nil
}

// advance folds the events that follow in each history, and returns how many. The error names the history that is broken.
func advance[F folder](ctx context.Context, q *replaydb.Queries, p part[F], all []*history[F]) (n int64, err error) {
	byName := make(map[named]*history[F], len(all))
	for _, h := range all {
		byName[named{h.Owner, h.name}] = h
	}
	for open := all; len(open) > 0; {
		limit := max(1, eventsAtOnce/len(open))
		read := make(map[*history[F]]int, len(open))
		if err = p.events(ctx, q, open, int32(limit), func(of named, e order.Event) error {
			h := byName[of]
			read[h]++
			if err := h.chain.Next(e); err != nil {
				return fmt.Errorf("%s: %w", h.name, err)
			}
			if err := h.fold.Apply(e); err != nil {
				return fmt.Errorf("%s: %w", h.name, err)
			}
			return nil
		}); err != nil {
			return n, err
		}
		open = nil
		for h, events := range read {
			n += int64(events)
			if events == limit {
				open = append(open, h)
			}
		}
	}
	return n, nil
}

// events calls each with the next events of the histories, limit of each at most.
func (p part[F]) events(ctx context.Context, q *replaydb.Queries, all []*history[F], limit int32, each func(named, order.Event) error) error {
	accounts := pg.Column(all, func(h *history[F]) int32 { return h.Account })
	modes := pg.Column(all, func(h *history[F]) string { return h.Mode })
	versions := pg.Column(all, func(h *history[F]) int64 { return h.chain.Version() })
	if p.kind == kindOrder {
		rows, err := q.OrderEventsAfter(ctx, replaydb.OrderEventsAfterParams{
			Accounts: accounts, Modes: modes, OrderIds: pg.Column(all, idOf[F]), Versions: versions, PageSize: limit,
		})
		for _, r := range rows {
			if err == nil {
				err = each(named{order.Owner{Account: r.Account, Mode: r.Mode}, order.ID(r.OrderID).Format(p.prefix)}, order.Event{
					ID: order.ID(r.ID), Type: r.Type, Version: r.Version, Schema: r.SchemaVersion, Payload: []byte(r.Payload), At: r.CreatedAt.UTC(),
					Cause: order.Cause{TraceID: r.TraceID, Operation: r.Operation, Actor: r.Actor}, PrevHash: r.PrevHash, Hash: r.Hash,
				})
			}
		}
		return err
	}
	rows, err := q.ResourceEventsAfter(ctx, replaydb.ResourceEventsAfterParams{
		Kind: p.kind, Accounts: accounts, Modes: modes, Resources: pg.Column(all, func(h *history[F]) string { return h.name }), Sequences: versions,
		PageSize: limit,
	})
	for _, r := range rows {
		if err == nil {
			err = each(named{order.Owner{Account: r.Account, Mode: r.Mode}, r.Resource}, order.Event{
				ID: order.ID(r.ID), Type: r.Type, Version: r.Sequence, Schema: r.SchemaVersion, Payload: []byte(r.Payload), At: r.CreatedAt.UTC(),
				Cause: order.Cause{TraceID: r.TraceID, Operation: r.Operation, Actor: r.Actor}, PrevHash: r.PrevHash, Hash: r.Hash,
			})
		}
	}
	return err
}

func idOf[F folder](h *history[F]) uuid.UUID { return uuid.UUID(h.ID) }
