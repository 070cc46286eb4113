package replay

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/ordergate/ordergate/gen/replaydb"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/order/pay"
)

// kindOrder stands for the events of orders, which have a table of their own.
const kindOrder = "order"

// The parts. Each row's columns stand in one place: stale compares what put writes.
var (
	orders = part[*order.Order]{
		table: "orders", kind: kindOrder, prefix: order.PrefixOrder, start: func(ref order.Ref) *order.Order { return &order.Order{ID: ref.ID} },
		lock: func(ctx context.Context, q *replaydb.Queries, all []*history[*order.Order]) error {
			return lockOrders(ctx, q, pg.Column(all, func(h *history[*order.Order]) order.Ref { return h.Ref }))
		},
		stale: func(ctx context.Context, q *replaydb.Queries, all []*history[*order.Order]) (map[order.Ref]bool, error) {
			p, err := orderRows(all)
			if err != nil {
				return nil, err
			}
			rows, err := q.StaleOrders(ctx, p)
			return set(rows, func(r replaydb.StaleOrdersRow) order.Ref { return order.RefOf(r.Account, r.Mode, r.ID) }), err
		},
		put:    putOrders,
		remove: (*replaydb.Queries).DeleteOrdersWithoutEvents,
	}
	shipments = part[*order.Shipment]{
		table: "shipments", kind: order.KindShipment, prefix: order.PrefixShipment, start: func(ref order.Ref) *order.Shipment { return &order.Shipment{ID: ref.ID} },
		lock: func(ctx context.Context, q *replaydb.Queries, all []*history[*order.Shipment]) error {
			return lockOrders(ctx, q, pg.Column(all, func(h *history[*order.Shipment]) order.Ref { return order.Ref{Owner: h.Owner, ID: h.fold.OrderID} }))
		},
		stale: func(ctx context.Context, q *replaydb.Queries, all []*history[*order.Shipment]) (map[order.Ref]bool, error) {
			p, err := shipmentRows(all)
			if err != nil {
				return nil, err
			}
			rows, err := q.StaleShipments(ctx, p)
			return set(rows, func(r replaydb.StaleShipmentsRow) order.Ref { return order.RefOf(r.Account, r.Mode, r.ID) }), err
		},
		put:    putShipments,
		remove: (*replaydb.Queries).DeleteShipmentsWithoutEvents,
	}
	payments = part[*pay.Payment]{
		table: "payments", kind: order.KindPayment, prefix: order.PrefixPayment, start: func(ref order.Ref) *pay.Payment { return &pay.Payment{Ref: ref} },
		lock: func(ctx context.Context, q *replaydb.Queries, all []*history[*pay.Payment]) error {
			return lockPayments(ctx, q, pg.Column(all, func(h *history[*pay.Payment]) order.Ref { return h.Ref }))
		},
		stale: func(ctx context.Context, q *replaydb.Queries, all []*history[*pay.Payment]) (map[order.Ref]bool, error) {
			if err := addRefunds(ctx, q, all); err != nil {
				return nil, err
			}
			rows, err := q.StalePayments(ctx, paymentRows(all))
			return set(rows, func(r replaydb.StalePaymentsRow) order.Ref { return order.RefOf(r.Account, r.Mode, r.ID) }), err
		},
		put:    putPayments,
		remove: (*replaydb.Queries).DeletePaymentsWithoutEvents,
	}
	refunds = part[*pay.Refund]{
		table: "refunds", kind: order.KindRefund, prefix: order.PrefixRefund, start: func(ref order.Ref) *pay.Refund { return &pay.Refund{Ref: ref} },
		lock: func(ctx context.Context, q *replaydb.Queries, all []*history[*pay.Refund]) error {
			return lockPayments(ctx, q, pg.Column(all, func(h *history[*pay.Refund]) order.Ref { return order.Ref{Owner: h.Owner, ID: h.fold.PaymentID} }))
		},
		stale: func(ctx context.Context, q *replaydb.Queries, all []*history[*pay.Refund]) (map[order.Ref]bool, error) {
			rows, err := q.StaleRefunds(ctx, refundRows(all))
			return set(rows, func(r replaydb.StaleRefundsRow) order.Ref { return order.RefOf(r.Account, r.Mode, r.ID) }), err
		},
		put:    putRefunds,
		remove: (*replaydb.Queries).DeleteRefundsWithoutEvents,
	}
)

func set[R any](rows []R, ref func(R) order.Ref) map[order.Ref]bool {
	refs := make(map[order.Ref]bool, len(rows))
	for _, r := range rows {
		refs[ref(r)] = true
	}
	return refs
}

// lockOrders locks the orders that have a row. Commands on an order, and on its shipments, need it.
func lockOrders(ctx context.Context, q *replaydb.Queries, refs []order.Ref) error {
	_, err := q.LockOrderRows(ctx, replaydb.LockOrderRowsParams(keys(refs)))
	return err
}

// lockPayments locks the payments that have a row. Changes of a payment, and of its refunds, need it.
func lockPayments(ctx context.Context, q *replaydb.Queries, refs []order.Ref) error {
	_, err := q.LockPaymentRows(ctx, keys(refs))
	return err
}

func keys(refs []order.Ref) replaydb.LockPaymentRowsParams {
	return replaydb.LockPaymentRowsParams{
		Accounts: pg.Column(refs, func(r order.Ref) int32 { return r.Account }),
		Modes:    pg.Column(refs, func(r order.Ref) string { return r.Mode }),
		Ids:      pg.Column(refs, func(r order.Ref) uuid.UUID { return uuid.UUID(r.ID) }),
	}
}

// addRefunds adds to payments the sums of their refunds, each of which changed its payment with every event.
func addRefunds(ctx context.Context, q *replaydb.Queries, all []*history[*pay.Payment]) error {
	rows, err := q.RefundSums(ctx, replaydb.RefundSumsParams(keys(pg.Column(all, func(h *history[*pay.Payment]) order.Ref { return h.Ref }))))
	if err != nil {
		return fmt.Errorf("read refunds: %w", err)
	}
	sums := make(map[order.Ref]replaydb.RefundSumsRow, len(rows))
	for _, r := range rows {
		sums[order.RefOf(r.Account, r.Mode, r.ID)] = r
	}
	for _, h := range all {
		r := sums[h.Ref]
		h.fold.Refunded, h.fold.RefundPending, h.moved = r.Succeeded, r.Pending, r.Events
		h.fold.Touch(r.UpdatedAt.UTC())
	}
	return nil
}

// encoder encodes a column of JSON. It keeps the first error.
type encoder struct{ err error }

func (c *encoder) encode(v any) []byte {
	b, err := json.Marshal(v)
	if c.err == nil {
		c.err = err
	}
	return b
}

type orderHistory = *history[*order.Order]

func orderRows(all []orderHistory) (replaydb.StaleOrdersParams, error) {
	var c encoder
	return replaydb.StaleOrdersParams{
		Accounts:        pg.Column(all, func(h orderHistory) int32 { return h.Account }),
		Modes:           pg.Column(all, func(h orderHistory) string { return h.Mode }),
		Ids:             pg.Column(all, idOf),
		Shards:          pg.Column(all, func(h orderHistory) int16 { return h.ID.Shard() }),
		CustomerRefs:    pg.Column(all, func(h orderHistory) string { return h.fold.CustomerRef }),
		Statuses:        pg.Column(all, func(h orderHistory) string { return string(h.fold.Status) }),
		PaymentStatuses: pg.Column(all, func(h orderHistory) string { return string(h.fold.PaymentStatus) }),
		Versions:        pg.Column(all, func(h orderHistory) int64 { return h.fold.Version }),
		HeadHashes:      pg.Column(all, func(h orderHistory) []byte { return h.fold.HeadHash }),
		States:          pg.Column(all, func(h orderHistory) []byte { return c.encode(h.fold) }),
		CreatedAts:      pg.Column(all, func(h orderHistory) time.Time { return h.fold.CreatedAt.Time }),
		UpdatedAts:      pg.Column(all, func(h orderHistory) time.Time { return h.fold.UpdatedAt.Time }),
	}, c.err
}

func putOrders(ctx context.Context, q *replaydb.Queries, all []orderHistory, rev func(version, moved int64) int64) error {
	p, err := orderRows(all)
	if err != nil {
		return err
	}
	return q.PutOrders(ctx, replaydb.PutOrdersParams{
		Accounts:        p.Accounts,
		Modes:           p.Modes,
		Ids:             p.Ids,
		Shards:          p.Shards,
		CustomerRefs:    p.CustomerRefs,
		Statuses:        p.Statuses,
		PaymentStatuses: p.PaymentStatuses,
		Versions:        p.Versions,
		HeadHashes:      p.HeadHashes,
		States:          p.States,
		CreatedAts:      p.CreatedAts,
		UpdatedAts:      p.UpdatedAts,
		Revs:            pg.Column(all, func(h orderHistory) int64 { return rev(h.fold.Version, h.moved) }),
	})
}

type shipmentHistory = *history[*order.Shipment]

func shipmentRows(all []shipmentHistory) (replaydb.StaleShipmentsParams, error) {
	var c encoder
	return replaydb.StaleShipmentsParams{
		Accounts:   pg.Column(all, func(h shipmentHistory) int32 { return h.Account }),
		Modes:      pg.Column(all, func(h shipmentHistory) string { return h.Mode }),
		Ids:        pg.Column(all, idOf),
		OrderIds:   pg.Column(all, func(h shipmentHistory) uuid.UUID { return uuid.UUID(h.fold.OrderID) }),
		Lines:      pg.Column(all, func(h shipmentHistory) []byte { return c.encode(h.fold.Lines) }),
		Statuses:   pg.Column(all, func(h shipmentHistory) string { return string(h.fold.Status) }),
		Versions:   pg.Column(all, func(h shipmentHistory) int64 { return h.fold.Version }),
		HeadHashes: pg.Column(all, func(h shipmentHistory) []byte { return h.fold.HeadHash }),
		CreatedAts: pg.Column(all, func(h shipmentHistory) time.Time { return h.fold.CreatedAt.Time }),
		UpdatedAts: pg.Column(all, func(h shipmentHistory) time.Time { return h.fold.UpdatedAt.Time }),
		Trackings: pg.Column(all, func(h shipmentHistory) []byte {
			if h.fold.Tracking == nil {
				return nil
			}
			return c.encode(h.fold.Tracking)
		}),
		DeliveredAts: pg.Column(all, func(h shipmentHistory) time.Time {
			if h.fold.DeliveredAt == nil {
				return time.Time{}
			}
			return h.fold.DeliveredAt.Time
		}),
	}, c.err
}

func putShipments(ctx context.Context, q *replaydb.Queries, all []shipmentHistory, rev func(version, moved int64) int64) error {
	p, err := shipmentRows(all)
	if err != nil {
		return err
	}
	return q.PutShipments(ctx, replaydb.PutShipmentsParams{
		Accounts:     p.Accounts,
		Modes:        p.Modes,
		Ids:          p.Ids,
		OrderIds:     p.OrderIds,
		Lines:        p.Lines,
		Trackings:    p.Trackings,
		Statuses:     p.Statuses,
		Versions:     p.Versions,
		HeadHashes:   p.HeadHashes,
		CreatedAts:   p.CreatedAts,
		UpdatedAts:   p.UpdatedAts,
		DeliveredAts: p.DeliveredAts,
		Revs:         pg.Column(all, func(h shipmentHistory) int64 { return rev(h.fold.Version, h.moved) }),
	})
}

type paymentHistory = *history[*pay.Payment]

func paymentRows(all []paymentHistory) replaydb.StalePaymentsParams {
	return replaydb.StalePaymentsParams{
		Accounts:       pg.Column(all, func(h paymentHistory) int32 { return h.Account }),
		Modes:          pg.Column(all, func(h paymentHistory) string { return h.Mode }),
		Ids:            pg.Column(all, idOf),
		OrderIds:       pg.Column(all, func(h paymentHistory) uuid.UUID { return uuid.UUID(h.fold.OrderID) }),
		Attempts:       pg.Column(all, func(h paymentHistory) int32 { return h.fold.Attempt }),
		Amounts:        pg.Column(all, func(h paymentHistory) int64 { return h.fold.Amount.Amount }),
		Currencies:     pg.Column(all, func(h paymentHistory) string { return h.fold.Amount.Currency }),
		Statuses:       pg.Column(all, func(h paymentHistory) string { return string(h.fold.Status) }),
		Refunded:       pg.Column(all, func(h paymentHistory) int64 { return h.fold.Refunded }),
		RefundPending:  pg.Column(all, func(h paymentHistory) int64 { return h.fold.RefundPending }),
		FailureCodes:   pg.Column(all, func(h paymentHistory) string { return h.fold.FailureCode }),
		DeclineReasons: pg.Column(all, func(h paymentHistory) string { return h.fold.DeclineReason }),
		Reference:      pg.Column(all, func(h paymentHistory) string { return h.fold.Reference }),
		Versions:       pg.Column(all, func(h paymentHistory) int64 { return h.fold.Head.Version }),
		HeadHashes:     pg.Column(all, func(h paymentHistory) []byte { return h.fold.Head.Hash }),
		CreatedAts:     pg.Column(all, func(h paymentHistory) time.Time { return h.fold.CreatedAt }),
		UpdatedAts:     pg.Column(all, func(h paymentHistory) time.Time { return h.fold.UpdatedAt }),
	}
}

func putPayments(ctx context.Context, q *replaydb.Queries, all []paymentHistory, rev func(version, moved int64) int64) error {
	p := paymentRows(all)
	return q.PutPayments(ctx, replaydb.PutPaymentsParams{
		Accounts:       p.Accounts,
		Modes:          p.Modes,
		Ids:            p.Ids,
		OrderIds:       p.OrderIds,
		Attempts:       p.Attempts,
		Amounts:        p.Amounts,
		Currencies:     p.Currencies,
		Statuses:       p.Statuses,
		Refunded:       p.Refunded,
		RefundPending:  p.RefundPending,
		FailureCodes:   p.FailureCodes,
		DeclineReasons: p.DeclineReasons,
		Reference:      p.Reference,
		Versions:       p.Versions,
		HeadHashes:     p.HeadHashes,
		CreatedAts:     p.CreatedAts,
		UpdatedAts:     p.UpdatedAts,
		Revs:           pg.Column(all, func(h paymentHistory) int64 { return rev(h.fold.Head.Version, h.moved) }),
	})
}

type refundHistory = *history[*pay.Refund]

func refundRows(all []refundHistory) replaydb.StaleRefundsParams {
	return replaydb.StaleRefundsParams{
		Accounts:       pg.Column(all, func(h refundHistory) int32 { return h.Account }),
		Modes:          pg.Column(all, func(h refundHistory) string { return h.Mode }),
		Ids:            pg.Column(all, idOf),
		PaymentIds:     pg.Column(all, func(h refundHistory) uuid.UUID { return uuid.UUID(h.fold.PaymentID) }),
		OrderIds:       pg.Column(all, func(h refundHistory) uuid.UUID { return uuid.UUID(h.fold.OrderID) }),
		Amounts:        pg.Column(all, func(h refundHistory) int64 { return h.fold.Amount.Amount }),
		Currencies:     pg.Column(all, func(h refundHistory) string { return h.fold.Amount.Currency }),
		Reasons:        pg.Column(all, func(h refundHistory) string { return h.fold.Reason }),
		Statuses:       pg.Column(all, func(h refundHistory) string { return string(h.fold.Status) }),
		FailureCodes:   pg.Column(all, func(h refundHistory) string { return h.fold.FailureCode }),
		DeclineReasons: pg.Column(all, func(h refundHistory) string { return h.fold.DeclineReason }),
		Reference:      pg.Column(all, func(h refundHistory) string { return h.fold.Reference }),
		Versions:       pg.Column(all, func(h refundHistory) int64 { return h.fold.Head.Version }),
		HeadHashes:     pg.Column(all, func(h refundHistory) []byte { return h.fold.Head.Hash }),
		CreatedAts:     pg.Column(all, func(h refundHistory) time.Time { return h.fold.CreatedAt }),
		UpdatedAts:     pg.Column(all, func(h refundHistory) time.Time { return h.fold.UpdatedAt }),
	}
}

func putRefunds(ctx context.Context, q *replaydb.Queries, all []refundHistory, rev func(version, moved int64) int64) error {
	p := refundRows(all)
	return q.PutRefunds(ctx, replaydb.PutRefundsParams{
		Accounts:       p.Accounts,
		Modes:          p.Modes,
		Ids:            p.Ids,
		PaymentIds:     p.PaymentIds,
		OrderIds:       p.OrderIds,
		Amounts:        p.Amounts,
		Currencies:     p.Currencies,
		Reasons:        p.Reasons,
		Statuses:       p.Statuses,
		FailureCodes:   p.FailureCodes,
		DeclineReasons: p.DeclineReasons,
		Reference:      p.Reference,
		Versions:       p.Versions,
		HeadHashes:     p.HeadHashes,
		CreatedAts:     p.CreatedAts,
		UpdatedAts:     p.UpdatedAts,
		Revs:           pg.Column(all, func(h refundHistory) int64 { return rev(h.fold.Head.Version, h.moved) }),
	})
}
