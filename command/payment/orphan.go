package payment

import (
	"fmt"

	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/order/pay"
)

// hint is an outcome of the provider's, as far as it tells which payments to look at.
type hint struct {
	payment   order.ID
	kind      Operation
	succeeded bool
}

// candidates are the payments that may have money at the provider, by these outcomes. After a void there is none; what was refused may
// have left an authorization.
func candidates(hints []hint) map[order.ID]bool {
	may, voided := map[order.ID]bool{}, map[order.ID]bool{}
	for _, h := range hints {
		switch {
		case h.kind == Void && h.succeeded:
			voided[h.payment] = true
		case h.kind == Capture, h.kind == Void, h.kind == Authorize && h.succeeded:
			may[h.payment] = true
		}
	}
	for id := range voided {
		delete(may, id)
	}
	return may
}

// Known is what our database has of a payment. The zero value is a payment that it does not have.
type Known struct {
	OrderID order.ID
	Status  pay.Status
	Open    bool // a call of it has no outcome: it will get one, and what the provider has is not yet to be judged
	Voiding bool // the open call is a void alone, which the provider did not do so far
}

// moves tells that the payment's calls decide what becomes of its money.
func (k Known) moves() bool { return k.Open && !k.Voiding }

// final tells that nobody here moves the money of the payment any more.
func (k Known) final() bool {
	return !k.Open && (k.Status == "" || k.Status == pay.StatusFailed || k.Status == pay.StatusVoided)
}

// Sweeps is the operation that takes back what the provider has of a payment and nobody here will move: "" if there is nothing. A void
// cannot take back a capture that a failover made us forget: that is refunded, too.
func Sweeps(k Known, at pay.Standing) (op Operation, amount order.Money) {
	switch {
	case at.Charged() > 0 && (k.final() || k.Voiding):
		return Refund, order.Money{Amount: at.Charged(), Currency: at.Captured.Currency}
	case at.Held() > 0 && k.final():
		return Void, order.Money{Amount: at.Held(), Currency: at.Authorized.Currency}
	}
	return "", order.Money{}
}

// sweepKey is the key under which the provider has such an operation. Of a refund it names the amount: if a part is refunded meanwhile,
// the rest is another request.
func sweepKey(payment string, op Operation, amount order.Money) string {
	if op == Void {
		return payment + "-sweep-void"
	}
	return fmt.Sprintf("%s-sweep-%s-%d", payment, op, amount.Amount)
}
