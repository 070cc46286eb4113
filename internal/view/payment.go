package view

import (
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/order/pay"
)

// Payment is a payment as clients see it.
func Payment(p *pay.Payment) api.Payment {
	return api.Payment{
		ID: p.ID.Format(order.PrefixPayment), OrderID: p.OrderID.Format(order.PrefixOrder), Attempt: p.Attempt, Status: api.PaymentState(p.Status),
		Amount: api.Money(p.Amount), Refunded: api.Money{Amount: p.Refunded, Currency: p.Amount.Currency}, Failure: failure(p.FailureCode, p.DeclineReason),
		Version: p.Head.Version, CreatedAt: rfc3339.New(p.CreatedAt), UpdatedAt: rfc3339.New(p.UpdatedAt),
	}
}

// PaymentBody is the finished body of a payment.
func PaymentBody(p *pay.Payment) (Body, error) { return Finish(Payment(p), p.Head.Version) }

// Refund is a refund as clients see it.
func Refund(r *pay.Refund) api.Refund {
	return api.Refund{
		ID: r.ID.Format(order.PrefixRefund), PaymentID: r.PaymentID.Format(order.PrefixPayment), OrderID: r.OrderID.Format(order.PrefixOrder),
		Amount: api.Money(r.Amount), Status: api.RefundState(r.Status), Reason: text(r.Reason), Failure: failure(r.FailureCode, r.DeclineReason),
		Version: r.Head.Version, CreatedAt: rfc3339.New(r.CreatedAt), UpdatedAt: rfc3339.New(r.UpdatedAt),
	}
}

// RefundBody is the finished body of a refund.
func RefundBody(r *pay.Refund) (Body, error) { return Finish(Refund(r), r.Head.Version) }

func failure(code, declineReason string) *api.PaymentFailure {
	if code == "" {
		return nil
	}
	info, _ := errcode.Lookup(errcode.Code(code))
	return &api.PaymentFailure{Code: code, Message: info.EN, DeclineReason: text(declineReason)}
}

// text is null if it is empty.
func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
