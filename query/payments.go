package query

import (
	"context"
	"strconv"

	"github.com/google/uuid"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/querydb"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/order/pay"
)

// GetPayment returns a payment. PAY_001: the owner has none with this id.
func (q *Queries) GetPayment(ctx context.Context, owner order.Owner, id order.ID, t token.Token) (View, error) {
	r := request{operation: "getPayment", token: t, id: id, notFound: errcode.PAY001}
	return q.serveUncached(ctx, r, func(ctx context.Context, db *querydb.Queries) (found, error) {
		row, err := db.GetPayment(ctx, querydb.GetPaymentParams{Account: owner.Account, Mode: owner.Mode, ID: uuid.UUID(id)})
		return found{row.Rev, func() (view.Body, error) { return view.PaymentBody(paymentOf(row)) }}, err
	})
}

// ListPayments returns a page of payments, the newest first. The times of the filters are cut to milliseconds. REQ_012: the cursor is not one
// of this owner and these filters.
func (q *Queries) ListPayments(ctx context.Context, owner order.Owner, f api.ListPaymentsParams, page Page, t token.Token) (View, error) {
	p := querydb.ListPaymentsParams{Account: owner.Account, Mode: owner.Mode}
	p.FromID, p.Before = idRange(f.CreatedFrom, f.CreatedTo)
	return servePage(ctx, q, list[querydb.Payment, api.Payment]{
		request: request{operation: "listPayments", token: t},
		owner:   owner, filters: []string{p.FromID.String(), p.Before.String()},
		rows: func(ctx context.Context, db *querydb.Queries, after string, limit int32) ([]querydb.Payment, error) {
			p := p
			p.Page = limit
			copy(p.Before[:], after)
			return db.ListPayments(ctx, p)
		},
		position: func(row querydb.Payment) string { return string(row.ID[:]) },
		item:     payment,
	}, page)
}

// ListOrderPayments returns a page of an order's payments, the first attempt first. ORD_001: the owner has no such order. REQ_012: the cursor is
// not one of this list.
func (q *Queries) ListOrderPayments(ctx context.Context, owner order.Owner, id order.ID, page Page, t token.Token) (View, error) {
	return servePageOf(ctx, q, list[querydb.Payment, api.Payment]{
		request: request{operation: "listOrderPayments", token: t, id: id},
		owner:   owner, filters: []string{id.Format(order.PrefixOrder)},
		rows: func(ctx context.Context, db *querydb.Queries, after string, limit int32) ([]querydb.Payment, error) {
			attempt, _ := strconv.ParseInt(after, 10, 32) // of the empty position: 0
			return db.ListOrderPayments(ctx, querydb.ListOrderPaymentsParams{
				OrderID: uuid.UUID(id), After: int32(attempt), Account: owner.Account, Mode: owner.Mode, Page: limit,
			})
		},
		position: func(row querydb.Payment) string { return strconv.Itoa(int(row.Attempt)) },
		item:     payment,
	}, page)
}

func payment(row querydb.Payment) (api.Payment, error) { return view.Payment(paymentOf(row)), nil }

func paymentOf(row querydb.Payment) *pay.Payment {
	return &pay.Payment{
		Ref: order.RefOf(row.Account, row.Mode, row.ID), OrderID: order.ID(row.OrderID), Attempt: row.Attempt,
		Amount: order.Money{Amount: row.Amount, Currency: row.Currency}, Status: pay.Status(row.Status), FailureCode: row.FailureCode,
		DeclineReason: row.DeclineReason, Refunded: row.Refunded, Head: order.Head{Version: row.Version}, CreatedAt: row.CreatedAt, UpdatedAt: row.UpdatedAt,
	}
}

// GetRefund returns a refund. RFD_002: the owner has none with this id.
func (q *Queries) GetRefund(ctx context.Context, owner order.Owner, id order.ID, t token.Token) (View, error) {
	r := request{operation: "getRefund", token: t, id: id, notFound: errcode.RFD002}
	return q.serveUncached(ctx, r, func(ctx context.Context, db *querydb.Queries) (found, error) {
		row, err := db.GetRefund(ctx, querydb.GetRefundParams{Account: owner.Account, Mode: owner.Mode, ID: uuid.UUID(id)})
		return found{row.Rev, func() (view.Body, error) { return view.RefundBody(refundOf(row)) }}, err
	})
}

// ListRefunds returns a page of refunds, the newest first, of one payment if the filter names it. The times of the filters are cut to
// milliseconds. REQ_012: the cursor is not one of this owner and these filters.
func (q *Queries) ListRefunds(ctx context.Context, owner order.Owner, f api.ListRefundsParams, page Page, t token.Token) (View, error) {
	p := querydb.ListRefundsParams{Account: owner.Account, Mode: owner.Mode}
	p.FromID, p.Before = idRange(f.CreatedFrom, f.CreatedTo)
	if f.PaymentID != nil {
		id, _ := order.Parse(order.PrefixPayment, *f.PaymentID) // it satisfies the contract
		p.PaymentID = uuid.UUID(id)
	}
	return servePage(ctx, q, list[querydb.Refund, api.Refund]{
		request: request{operation: "listRefunds", token: t},
		owner:   owner, filters: []string{p.PaymentID.String(), p.FromID.String(), p.Before.String()},
		rows: func(ctx context.Context, db *querydb.Queries, after string, limit int32) ([]querydb.Refund, error) {
			p := p
			p.Page = limit
			copy(p.Before[:], after)
			return db.ListRefunds(ctx, p)
		},
		position: func(row querydb.Refund) string { return string(row.ID[:]) },
		item:     func(row querydb.Refund) (api.Refund, error) { return view.Refund(refundOf(row)), nil },
	}, page)
}

func refundOf(row querydb.Refund) *pay.Refund {
	return &pay.Refund{
		Ref: order.RefOf(row.Account, row.Mode, row.ID), PaymentID: order.ID(row.PaymentID), OrderID: order.ID(row.OrderID),
		Amount: order.Money{Amount: row.Amount, Currency: row.Currency}, Reason: row.Reason, Status: pay.RefundStatus(row.Status),
		FailureCode: row.FailureCode, DeclineReason: row.DeclineReason, Head: order.Head{Version: row.Version}, CreatedAt: row.CreatedAt, UpdatedAt: row.UpdatedAt,
	}
}
